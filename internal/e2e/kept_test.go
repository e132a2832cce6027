package e2e_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/topic"
)

// What kept sessions hold did not count their handlers.
func TestSession_handlersOfKeptSessionsCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		p, err := testkit.Join(l.Server, testkit.BinaryProtocol)
		is.NoErr(err)
		h := testkit.HelloOf(1)
		is.NoErr(p.Send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
		_, err = p.Until(wire.Welcome)
		is.NoErr(err)
		for i := range uint64(100) {
			is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: i + 1, Method: "lab.hang", Payload: []byte("{}")}))
		}
		synctest.Wait()
		p.T.Kill()
		synctest.Wait()
		s := hook.Server(l.Server)
		is.Equal(s.Kept, 1)
		is.True(s.KeptBytes > 100*5<<10)
		is.Equal(l.Revoke("", nil), 1)
		close(l.Release)
	})
}

// A client that opened sessions and confirmed none pushed out everybody's.
func TestSession_unconfirmedOnesAreEvictedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		l.MaxKept = 10
		begin := func(confirm bool) string {
			p, err := testkit.Join(l.Server, testkit.BinaryProtocol)
			is.NoErr(err)
			h := testkit.HelloOf(1)
			is.NoErr(p.Send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
			f, err := p.Until(wire.Welcome)
			is.NoErr(err)
			w, err := wire.ParseWelcome(f.Payload)
			is.NoErr(err)
			if confirm {
				is.NoErr(p.Send(wire.Frame{Type: wire.Ping}))
				_, err = p.Until(wire.Ack)
				is.NoErr(err)
			}
			p.T.Kill()
			synctest.Wait()
			return w.Token
		}
		token := begin(true)
		for range 30 {
			begin(false)
		}
		p, err := testkit.Join(l.Server, testkit.BinaryProtocol)
		is.NoErr(err)
		h := testkit.HelloOf(2)
		h.Token = token
		is.NoErr(p.Send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
		f, err := p.Until(wire.Welcome)
		is.NoErr(err)
		w, err := wire.ParseWelcome(f.Payload)
		is.NoErr(err)
		is.True(w.Resumed)
		p.T.Kill()
		synctest.Wait()
		l.Revoke("", nil)
	})
}

// A link that ends with 1001 was a page's that is left, or a proxy began anew and said so to
// both of its sides: what the client does next tells them apart.
func TestSession_goingAway(t *testing.T) {
	for name, test := range map[string]struct {
		away    time.Duration
		resumed bool
	}{
		"a proxy that began anew": {3 * time.Second, true},
		"a page that was left":    {11 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text} {
				synctest.Test(t, func(t *testing.T) {
					is := is.New(t)
					l := lab.New()
					h := testkit.HelloOf(1)
					p := lab.Rejoin(t, d, l.Server, h)
					f, err := p.Until(wire.Welcome)
					is.NoErr(err)
					w, err := wire.ParseWelcome(f.Payload)
					is.NoErr(err)
					is.NoErr(p.Send(wire.Frame{Type: wire.Ack}, wire.Frame{Type: wire.Call, ID: 1, Method: "lab.hang", Payload: []byte("{}")}))
					synctest.Wait()
					p.T.Close(session.CloseGoingAway, "")
					p.T.Kill()
					time.Sleep(test.away)
					is.Equal(hook.Server(l.Server).Kept == 1, test.resumed)
					h = testkit.HelloOf(2)
					h.Token, h.Received = w.Token, p.Counted
					p = lab.Rejoin(t, d, l.Server, h)
					f, err = p.Until(wire.Welcome)
					is.NoErr(err)
					w, err = wire.ParseWelcome(f.Payload)
					is.NoErr(err)
					is.Equal(w.Resumed, test.resumed)
					close(l.Release)
					if test.resumed { // and what it was doing goes on
						f, err = p.Until(wire.Result)
						is.NoErr(err)
						is.Equal(f.ID, uint64(1))
					}
					p.T.Kill()
					synctest.Wait()
					l.Revoke("", nil)
				})
			}
		})
	}
}

// Who has left is not waited for: what they would have to acknowledge is nobody's.
func TestSession_goingAwayAndShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		tp, hub, mux := topic.New[string]("news"), new(topic.Hub), typedrpc.NewMux()
		defer hub.Close()
		topic.Handle(mux, hub, tp, topic.Everybody)
		srv := &typedrpc.Server{Mux: mux, Logger: slog.New(slog.DiscardHandler)}
		p := lab.Rejoin(t, typedrpc.Binary, srv, testkit.HelloOf(1))
		_, err := p.Until(wire.Welcome)
		is.NoErr(err)
		is.NoErr(p.Send(wire.Frame{Type: wire.Ack}, wire.Frame{Type: wire.Call, ID: 1, Kind: wire.ServerStream, Method: "news", Payload: []byte(`"x"`)}))
		synctest.Wait()
		is.NoErr(topic.Publish(t.Context(), hub, tp, "x", "to whom it may concern"))
		p.T.Close(session.CloseGoingAway, "")
		p.T.Kill()
		synctest.Wait()
		is.Equal(hook.Server(srv).Kept, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		is.NoErr(srv.Shutdown(ctx))
		is.Equal(time.Since(began), time.Duration(0))
	})
}
