package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/transfer"
)

// Job is a call's request: some text, which comes back, and what to do before.
type Job struct {
	Text  string        `json:"text"`
	Rest  time.Duration `json:"rest"`  // the handler rests
	Asks  bool          `json:"asks"`  // the handler calls its caller
	Fails bool          `json:"fails"` // the handler's answer is an error
}

var (
	SignIn   = typedrpc.NewSignIn[string, struct{}]()
	Do       = typedrpc.NewMethod[Job, string]("do")
	Repeat   = typedrpc.NewMethod[Job, string]("repeat", typedrpc.Idempotent)
	InOrder  = typedrpc.NewMethod[Job, string]("in-order", typedrpc.Serial)
	Ask      = typedrpc.NewMethod[string, string]("ask") // of the client
	Heard    = typedrpc.NewNotification[string]("heard") // to the client
	Note     = typedrpc.NewNotification[string]("note")
	Count    = typedrpc.NewServerStream[int, int]("count")
	Sum      = typedrpc.NewClientStream[struct{}, int, int]("sum")
	Echo     = typedrpc.NewBidiStream[struct{}, int, int]("echo")
	Put      = transfer.NewUpload[struct{}, string]("put")
	Get      = transfer.NewDownload[int]("get")
	Say      = typedrpc.NewMethod[string, struct{}]("say")
	Room     = topic.New[string]("room", topic.History(20, time.Minute), topic.DropOldest, topic.WithPresence)
	Bulletin = topic.New[string]("bulletin", topic.LatestOnly)
	// BulletinOn is the same for a loop that goes on.
	BulletinOn = topic.New[string](Bulletin.Name(), topic.LatestOnly, topic.Restartable)
)

// Keyed calls are numbered, and each may run once.
var Pay = typedrpc.NewMethod[int64, int64]("pay", typedrpc.Keyed)

// Range asks for the numbers of a stream that can be opened again.
type Range struct{ From, To int }

var CountOn = typedrpc.NewServerStream[Range, int]("count-on").Restartable(func(r Range, last *int) Range {
	if last != nil {
		r.From = *last + 1
	}
	return r
})

// keys of the topics: few enough to meet in, enough to come and go.
const keys = 8

func key() string { return fmt.Sprint("k", rand.IntN(keys)) }

func serviceMux(hub *topic.Hub) *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Do, do)
	typedrpc.Handle(mux, Repeat, do)
	typedrpc.Handle(mux, InOrder, do)
	typedrpc.Handle(mux, Note, func(ctx context.Context, text string) error {
		if rand.IntN(50) == 0 {
			typedrpc.Notify(ctx, typedrpc.ConnFrom(ctx).With(typedrpc.CallOptions{FailFast: true}), Heard, text)
		}
		return nil
	})
	typedrpc.Handle(mux, Count, func(_ context.Context, n int, send func(int) error) error {
		for i := range n {
			if err := send(i); err != nil {
				return err
			}
		}
		return nil
	})
	typedrpc.Handle(mux, CountOn, func(_ context.Context, r Range, send func(int) error) error {
		for i := r.From; i < r.To; i++ {
			if err := send(i); err != nil {
				return err
			}
		}
		return nil
	})
	typedrpc.Handle(mux, Pay, payments.handle)
	typedrpc.Handle(mux, Sum, func(_ context.Context, _ struct{}, items iter.Seq2[int, error]) (int, error) {
		sum := 0
		for n, err := range items {
			if err != nil {
				return 0, err
			}
			sum += n
		}
		return sum, nil
	})
	typedrpc.Handle(mux, Echo, func(_ context.Context, _ struct{}, s *typedrpc.Stream[int, int]) error {
		for {
			n, err := s.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err == nil {
				err = s.Send(n)
			}
			if err != nil {
				return err
			}
		}
	})
	typedrpc.Handle(mux, Put, func(_ context.Context, _ struct{}, r *transfer.Reader) (string, error) {
		h := sha256.New()
		if _, err := io.Copy(h, r); err != nil {
			return "", err
		}
		return fmt.Sprintf("%x", h.Sum(nil)), nil
	})
	typedrpc.Handle(mux, Get, func(_ context.Context, size int, w *transfer.Writer) error {
		return w.Send(strings.NewReader(strings.Repeat("x", size)), nil)
	})
	topic.Handle(mux, hub, Room, topic.Everybody)
	topic.Handle(mux, hub, Bulletin, topic.Everybody)
	typedrpc.Handle(mux, Say, func(ctx context.Context, text string) (struct{}, error) {
		k := key()
		return struct{}{}, errors.Join(topic.Publish(ctx, hub, Room, k, text), topic.Publish(ctx, hub, Bulletin, k, text))
	})
	return mux
}

var errJob = typedrpc.Errorf(typedrpc.FailedPrecondition, "as it was asked for")

func do(ctx context.Context, j Job) (string, error) {
	if j.Asks {
		if _, err := typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), Ask, j.Text); err != nil {
			return "", err
		}
	}
	if j.Rest > 0 {
		timer := time.NewTimer(j.Rest)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	if j.Fails {
		return "", errJob
	}
	return j.Text, nil
}

// clientMux is what the server finds at its clients.
func clientMux() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Ask, func(_ context.Context, text string) (string, error) { return text, nil })
	typedrpc.Handle(mux, Heard, func(context.Context, string) error { return nil })
	return mux
}

// revoked are the names that may not sign in any more.
var revoked sync.Map

func signIn(_ context.Context, _ *http.Request, creds *string) (typedrpc.Identity, struct{}, error) {
	if creds == nil {
		return typedrpc.Identity{}, struct{}{}, typedrpc.Unauthenticated
	}
	name := *creds
	if _, no := revoked.Load(name); no {
		return typedrpc.Identity{}, struct{}{}, typedrpc.Unauthenticated
	}
	// They expire while the client is there, so that it refreshes them.
	return typedrpc.Identity{Subject: name, Expires: time.Now().Add(20 * time.Second)}, struct{}{}, nil
}
