package session

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// Who looks on sees what passes, both ways, and of payloads what it may have.
func TestTap_sees(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		client, server := pair(t, d)
		all, masked := server.Tap(3), server.Tap(0)
		client.send(wire.Frame{Type: wire.Call, ID: 1, Method: "m", Payload: []byte(`"secret"`), Meta: map[string]string{"k": "secret"}})
		client.carrier.Auth(wire.AuthBody{Credentials: []byte(`"secret"`)})
		synctest.Wait()
		server.send(wire.Frame{Type: wire.Result, ID: 1, Payload: []byte(`"secret"`)})
		synctest.Wait()
		for tap, payload := range map[*Tap]int{all: 3, masked: 0} {
			seen, dropped, err := tap.Next(t.Context())
			is.NoErr(err)
			is.Equal(dropped, uint64(0))
			types := map[wire.Type]Seen{}
			for _, s := range seen {
				types[s.Frame.Type] = s
			}
			call, result := types[wire.Call], types[wire.Result]
			is.Equal(call.Frame.Method, "m")
			is.Equal(len(call.Frame.Payload), payload)
			is.Equal(call.Frame.Meta["k"] == "secret", payload > 0)
			_, key := call.Frame.Meta["k"]
			is.True(key)                          // the key alone
			is.True(call.Size >= len(`"secret"`)) // the JSON dialect has it in a list
			is.True(!call.Sent && result.Sent)
			is.Equal(len(result.Frame.Payload), payload)
			auth, ok := types[wire.Auth]
			is.True(ok)
			is.Equal(len(auth.Frame.Payload), 0) // credentials are never shown
		}
		all.Stop()
		is.Equal(len(*server.taps.Load()), 1)
		masked.Stop()
		is.True(server.taps.Load() == nil) // nobody looks any more
		client.stop()
		<-server.end
	})
}

// Who does not take what there is neither delays the session nor makes it grow.
func TestTap_isBounded(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		client, server := pair(t, d)
		tap := server.Tap(1 << 20)
		const frames = 3 * tapFrames
		for i := range frames {
			client.send(note(i))
		}
		synctest.Wait()
		is.Equal(server.engine.received(), frames) // nothing waits
		seen, dropped, err := tap.Next(t.Context())
		is.NoErr(err)
		is.Equal(len(seen), tapFrames)
		is.True(dropped >= frames-tapFrames)
		is.True(len(seen[0].Frame.Payload) > 0)

		for range 10 {
			client.send(wire.Frame{Type: wire.Notify, Method: "n", Payload: text(60 << 10)})
		}
		synctest.Wait()
		is.True(tap.bytes <= tapBytes)
		_, dropped, err = tap.Next(t.Context())
		is.NoErr(err)
		is.True(dropped > 0)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for err == nil {
			_, _, err = tap.Next(ctx)
		}
		is.Equal(err, context.DeadlineExceeded) // nothing passes
		client.send(note(1))
		synctest.Wait()
		client.stop()
		<-server.end
		server.End(errCut)
		for err = nil; err == nil; {
			_, _, err = tap.Next(t.Context())
		}
		is.Equal(err, ErrEnded)
		tap.Stop()
	})
}

// What is sent again over a new link is told as such, and not frame by frame.
func TestTap_sentAgain(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := openedLogging(t, Options{Dialect: d}, testLog)
		tap := r.Tap(8)
		defer tap.Stop()
		r.send(notes(0, 5)...)
		synctest.Wait()
		seen, _, err := tap.Next(t.Context())
		is.NoErr(err)
		is.Equal(len(seen), 5)
		r.cut()
		r.again(t, 2)
		r.raw.expectNotes(is, 2, 5)
		again := 0
		for again == 0 {
			seen, _, err = tap.Next(t.Context())
			is.NoErr(err)
			for _, s := range seen {
				again += s.Again
			}
		}
		is.Equal(again, 5) // the message is the unit
		r.stop()
	})
}
