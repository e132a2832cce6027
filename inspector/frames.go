package inspector

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/inspector/api"
	"github.com/typedrpc/typedrpc/internal/seam"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

const (
	// shown is how many bytes of a payload a page is sent.
	shown = 1024
	// tapEvery is how often a page is sent what has passed. What passes meanwhile is kept
	// up to a bound, see session.Tap.
	tapEvery = 250 * time.Millisecond
)

// tap sends the frames of a connection. It sees them from now on, and delays none: a page
// that is slow is told how many it has missed.
func (h *Handler) tap(ctx context.Context, id api.ID, send func(api.Frames) error) error {
	c, err := h.find(id.ID)
	if err != nil {
		return err
	}
	payload := 0
	if h.Payloads {
		payload = shown
	}
	t := seam.Tap(c, payload)
	if t == nil {
		return typedrpc.Errorf(typedrpc.NotFound, "connection %d has ended", id.ID)
	}
	defer t.Stop()
	if err := send(api.Frames{Frames: []api.Frame{}}); err != nil { // it looks now
		return err
	}
	for {
		seen, missed, err := t.Next(ctx)
		switch {
		case err == session.ErrEnded:
			return nil
		case err != nil:
			return err
		}
		out := api.Frames{Missed: int(missed), Frames: make([]api.Frame, len(seen))}
		for i := range seen {
			out.Frames[i] = frameOf(&seen[i])
		}
		if err := send(out); err != nil {
			return err
		}
		timer := time.NewTimer(tapEvery)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// frameOf is a frame as the page shows it.
func frameOf(s *session.Seen) api.Frame {
	f := &s.Frame
	out := api.Frame{
		At: int(s.At.UnixMicro()), Sent: s.Sent, Type: f.Type.String(), Method: f.Method, Size: s.Size,
		Theirs: s.Sent != (f.Type == wire.Call || f.Flags&wire.FromCaller != 0),
		Note:   strings.Join(notes(f), ", "), Bad: f.Type == wire.Fail || f.Type == wire.Invalid && f.Code != 0, Metadata: f.Meta,
	}
	switch {
	case len(f.RawID) > 0:
		out.ID = strings.ToValidUTF8(string(f.RawID), "�")
	case f.ID != 0:
		out.ID = fmt.Sprint(f.ID)
	}
	switch {
	case s.Again > 0:
		out.Type, out.Note = "AGAIN", many(uint64(s.Again), "frame")+", over the new link"
	case f.Type == wire.Invalid && s.Sent:
		out.Type, out.Note = "ANSWERS", "to an array"
	}
	out.Cut = len(f.Payload) > 0 && len(f.Payload) < s.Size
	text := f.Payload
	for n := 0; out.Cut && n < utf8.UTFMax && len(text) > 0 && !utf8.Valid(text); n++ {
		text = text[:len(text)-1] // which was cut in the middle of a character
	}
	if out.Payload = string(text); !utf8.Valid(text) {
		out.Payload, out.Base64 = base64.StdEncoding.EncodeToString(f.Payload), true
	}
	return out
}

var kinds = map[wire.Kind]string{wire.ServerStream: "server stream", wire.ClientStream: "client stream", wire.BidiStream: "bidirectional stream"}

// notes are what a frame says beside its name, its payload and its metadata.
func notes(f *wire.Frame) (all []string) {
	say := func(when bool, format string, args ...any) {
		if when {
			all = append(all, fmt.Sprintf(format, args...))
		}
	}
	say(f.Type == wire.Call && kinds[f.Kind] != "", "%s", kinds[f.Kind])
	say(f.TimeLeft > 0, "within %v", time.Duration(f.TimeLeft)*time.Millisecond)
	say(f.Type == wire.Fail || f.Type == wire.Invalid && f.Code != 0, "%v: %s", typedrpc.Code(f.Code), f.Message)
	say(f.Fault != "", "fault %s", f.Fault)
	say(f.RetryAfter > 0, "again after %v", time.Duration(f.RetryAfter)*time.Millisecond)
	say(f.Flags&wire.NotRun != 0, "no handler saw it")
	say(f.Flags&wire.More != 0, "goes on in CHUNK frames")
	say(f.Flags&wire.History != 0, "history")
	say(f.Flags&wire.Prompt != 0, "prompt")
	say(f.Dropped > 0, "%d dropped before it", f.Dropped)
	say(f.Type == wire.Ping || f.Type == wire.Ack, "%s received", many(f.Position, "frame"))
	say(f.Items > 0, "%s", many(f.Items, "item"))
	say(f.Window > 0, "window of %d bytes", f.Window)
	return all
}

func many(n uint64, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
