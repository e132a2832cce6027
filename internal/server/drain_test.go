package server

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Calls in flight finish, what is new is refused, and then links are closed.
func TestShutdown_drains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		s, gate := echoServer(t, nil)
		p, _ := join(t, s, testkit.HelloOf(1))
		is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: 1, Method: "hang", Payload: []byte(`7`)}))
		synctest.Wait()
		down := make(chan error, 1)
		go func() { down <- s.Shutdown(t.Context()) }()

		f, err := p.Until(wire.GoAway)
		is.NoErr(err)
		bye, err := wire.ParseGoAway(f.Payload)
		is.NoErr(err)
		is.Equal(bye, wire.GoAwayBody{Reason: errDraining.Message, Max: 3000}) // ReconnectSpread
		_, _, refused := knock(s, "")
		is.Equal(refused.Status, http.StatusServiceUnavailable) // plain peers have nothing to come back for
		is.Equal(refused.Header.Get("Retry-After"), "1")
		is.Equal(post(s, "application/json", `{}`).Code, http.StatusServiceUnavailable)
		_, _, refused = knock(s, "mqtt")
		is.Equal(refused.Status, http.StatusServiceUnavailable)

		is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: 2, Method: "echo", Payload: []byte(`8`)}))
		f, err = p.Until(wire.Fail)
		is.NoErr(err)
		is.Equal(f.ID, uint64(2))
		is.Equal(status.Code(f.Code), status.Unavailable)
		is.True(f.Flags&wire.NotRun != 0)
		is.Equal(len(down), 0)

		close(gate)
		f, err = p.Until(wire.Result)
		is.NoErr(err)
		is.Equal(f.ID, uint64(1))
		is.Equal(p.CloseCode(), session.CloseRestart)
		is.NoErr(<-down)
		is.Equal(s.Snapshot(), Snapshot{})
		is.NoErr(s.Shutdown(t.Context())) // again
		_, _, refused = knock(s, testkit.BinaryProtocol)
		is.Equal(refused.Status, http.StatusServiceUnavailable) // nobody is left who might come back
	})
}

// A HELLO that was not sent yet, and one that is sent while connections are left,
// begin nothing.
func TestShutdown_handshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		s, gate := echoServer(t, nil)
		p, _ := join(t, s, testkit.HelloOf(1))
		is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: 1, Method: "hang", Payload: []byte(`7`)}))
		early, _, _ := knock(s, testkit.BinaryProtocol)
		synctest.Wait()
		down := make(chan error, 1)
		go func() { down <- s.Shutdown(t.Context()) }()
		is.Equal(early.CloseCode(), session.CloseRestart)

		late, _, refused := knock(s, testkit.BinaryProtocol)
		is.True(refused == nil) // it may have come for its answers
		h := testkit.HelloOf(1)
		is.NoErr(late.Send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
		f, err := late.Until(wire.AuthOK)
		is.NoErr(err)
		b, err := wire.ParseAuthOK(f.Payload)
		is.NoErr(err)
		is.Equal(status.Code(b.Error.Code), status.Unavailable)
		is.Equal(late.CloseCode(), session.CloseRestart)

		close(gate)
		is.Equal(p.CloseCode(), session.CloseRestart)
		is.NoErr(<-down)
		is.Equal(s.Snapshot(), Snapshot{})
	})
}

// A session without a link is waited for, and may come back.
func TestShutdown_comingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		s, gate := echoServer(t, nil)
		h := testkit.HelloOf(1)
		h.Client = "ann's"
		p, w := join(t, s, h)
		is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: 1, Method: "hang", Payload: []byte(`7`)}))
		synctest.Wait()
		p.T.Kill()
		synctest.Wait()
		is.Equal(s.Snapshot().Kept, 1)
		down := make(chan error, 1)
		go func() { down <- s.Shutdown(t.Context()) }()
		close(gate)
		synctest.Wait()
		is.Equal(len(down), 0) // its answer is not delivered yet

		h.Attempt, h.Token = 2, w.Token
		again, w := join(t, s, h)
		is.True(w.Resumed)
		f, err := again.Until(wire.Result)
		is.NoErr(err)
		is.Equal(f.ID, uint64(1))
		is.NoErr(again.Send(wire.Frame{Type: wire.Ack, Position: 1}))
		again.CloseCode()
		is.NoErr(<-down)
		is.Equal(s.Snapshot(), Snapshot{})
	})
}

func TestShutdown_patienceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var why error
		s, _ := echoServer(t, func(o *Options) { o.OnDisconnect = func(_ *engine.Conn, err error) { why = err } })
		p, _ := join(t, s, testkit.HelloOf(1))
		is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: 1, Method: "hang", Payload: []byte(`7`)}))
		go p.CloseCode()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		is.True(errors.Is(s.Shutdown(ctx), context.DeadlineExceeded))
		is.Equal(time.Since(began), time.Minute)
		time.Sleep(time.Minute) // goodbyes
		synctest.Wait()
		is.Equal(s.Snapshot(), Snapshot{})
		is.True(why != nil)
	})
}
