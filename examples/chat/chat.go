package main

import (
	"context"
	"crypto/rand"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
)

const (
	maxName = 24   // characters
	maxText = 2000 // characters
)

var rooms = []string{"lobby", "go", "music", "cooking"}

// newMux returns the chat's procedures. All that it keeps is in the hub: who is
// where, and the last messages of each room.
func newMux(hub *topic.Hub) *typedrpc.Mux {
	mux := typedrpc.NewMux()
	mayEnter := func(_ context.Context, a topic.Access) error { return checkRoom(a.Key) }
	topic.Handle(mux, hub, Room, mayEnter)
	topic.Handle(mux, hub, Typing, mayEnter)

	typedrpc.Handle(mux, Say, func(ctx context.Context, d Draft) (string, error) {
		if err := checkRoom(d.Room); err != nil {
			return "", err
		}
		if err := checkText(d.Text); err != nil {
			return "", err
		}
		who := guestFrom(ctx)
		if wait := who.says.take(); wait > 0 {
			e := typedrpc.Errorf(typedrpc.ResourceExhausted, "not so fast")
			e.RetryAfter = wait
			return "", e
		}
		m := Message{ID: rand.Text(), From: who.name, Text: d.Text, At: time.Now().UTC().Truncate(time.Millisecond)}
		return m.ID, topic.Publish(ctx, hub, Room, d.Room, m)
	})

	typedrpc.Handle(mux, Type, func(ctx context.Context, room string) error {
		who := guestFrom(ctx)
		if checkRoom(room) == nil && who.types.take() == 0 {
			topic.Publish(ctx, hub, Typing, room, who.name) // if it fails, nobody misses it
		}
		return nil
	})
	return mux
}

// signIn takes every name that can be shown. It is a claim, not an account: two
// may use the same, and are one in the list of who is present. To refuse a name
// that is in use would keep out those whose page was reloaded a moment ago.
func signIn(ctx context.Context, _ *http.Request, v *Visitor) (typedrpc.Identity, Welcome, error) {
	if v == nil { // a plain JSON-RPC peer
		return typedrpc.Identity{}, Welcome{}, typedrpc.Errorf(typedrpc.Unauthenticated, "say your name first")
	}
	if err := checkName(v.Name); err != nil {
		return typedrpc.Identity{}, Welcome{}, err
	}
	return typedrpc.Identity{
		Subject: v.Name,
		Context: context.WithValue(ctx, guestKey{}, newGuest(v.Name)), // of all its handlers
	}, Welcome{rooms, maxText}, nil
}

// guest is what the server knows of one connection.
type guest struct {
	name        string
	says, types pace
}

type guestKey struct{}

func newGuest(name string) *guest {
	return &guest{
		name:  name,
		says:  pace{burst: 10, every: time.Second},
		types: pace{burst: 5, every: time.Second},
	}
}

func guestFrom(ctx context.Context) *guest { return ctx.Value(guestKey{}).(*guest) }

// pace is a token bucket: burst at once, and then one each time.
type pace struct {
	burst int
	every time.Duration

	mu   sync.Mutex
	free time.Time // when the bucket is full again
}

// take returns 0, or how long to wait before asking again.
func (p *pace) take() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.free.Before(now) {
		p.free = now
	}
	if wait := p.free.Sub(now) - time.Duration(p.burst-1)*p.every; wait > 0 {
		return wait
	}
	p.free = p.free.Add(p.every)
	return 0
}

func checkName(name string) error {
	const code = typedrpc.InvalidArgument
	switch n := utf8.RuneCountInString(name); {
	case n == 0:
		return typedrpc.Errorf(code, "a name is needed")
	case n > maxName:
		return typedrpc.Errorf(code, "the name has %d characters, %d are allowed", n, maxName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return typedrpc.Errorf(code, "the name has characters that cannot be shown")
	case strings.TrimSpace(name) != name:
		return typedrpc.Errorf(code, "the name begins or ends with a space")
	}
	return nil
}

// Lower case alone, so that there is one lobby.
var roomName = regexp.MustCompile(`^[\p{Ll}\p{Lo}\p{N}][\p{Ll}\p{Lo}\p{M}\p{N}_-]{0,31}$`)

func checkRoom(room string) error {
	if !roomName.MatchString(room) {
		return typedrpc.Errorf(typedrpc.InvalidArgument, "a room's name has at most 32 small letters, digits, - and _")
	}
	return nil
}

func checkText(text string) error {
	const code = typedrpc.InvalidArgument
	control := func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }
	switch n := utf8.RuneCountInString(text); {
	case strings.TrimSpace(text) == "":
		return typedrpc.Errorf(code, "there is nothing in the message")
	case n > maxText:
		return typedrpc.Errorf(code, "the message has %d characters, %d are allowed", n, maxText)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, control):
		return typedrpc.Errorf(code, "the message has control characters")
	}
	return nil
}
