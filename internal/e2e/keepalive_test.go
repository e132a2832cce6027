package e2e_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

func TestKeepAlive_idleConnectionsLive(t *testing.T) {
	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text, typedrpc.JSONRPC} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			l := lab.New()
			gone := make(chan error, 1)
			l.OnDisconnect = func(_ *typedrpc.Conn, err error) { gone <- err }
			c, _, err := typedrpctest.Dial(l.Server, &typedrpc.DialOptions{Dialect: d})
			is.NoErr(err)
			time.Sleep(24 * time.Hour)
			is.Equal(len(gone), 0)
			is.Equal(c.State(), typedrpc.StateConnected)
			_, err = typedrpc.Call(t.Context(), c, lab.Echo, 1)
			is.NoErr(err)
			is.NoErr(c.Close())
			<-gone
		})
	}
}

func TestKeepAlive_deadPeerIsFoundByBothSides(t *testing.T) {
	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			l := lab.New()
			gone := make(chan error, 1)
			l.OnDisconnect = func(_ *typedrpc.Conn, err error) { gone <- err }
			w := &lab.Town{Srv: l.Server}
			c := w.Dial(t, &typedrpc.DialOptions{Dialect: d, Backoff: lab.Steady})
			time.Sleep(time.Hour + 7*time.Second)
			f := typedrpc.Go(t.Context(), c, lab.Hang, struct{}{})
			time.Sleep(time.Second)
			w.Cable().Swallow()
			w.Serve(nil) // else a new link would fence the old one first
			began := time.Now()
			is.True(errors.Is(<-gone, link.ErrSilent)) // the server
			is.True(time.Since(began) <= 40*time.Second)
			synctest.Wait()
			is.Equal(l.Running.Load(), int64(0))
			_, err := f.Await(t.Context()) // the client
			is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun)
			is.True(time.Since(began) <= 40*time.Second)
			is.True(errors.Is(err, link.ErrSilent))
			w.Serve(l.Server)
			time.Sleep(3 * time.Second) // for the goodbye, which is swallowed too, and the backoff
			is.Equal(c.State(), typedrpc.StateConnected)
			is.NoErr(c.Close())
			<-gone
		})
	}
}

func TestKeepAlive_shorterIntervalOfTheServerHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		l.Limits.KeepAlive = 3 * time.Second
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, &typedrpc.DialOptions{Backoff: typedrpc.Backoff{Min: time.Hour, Max: time.Hour}})
		time.Sleep(time.Minute)
		w.Cable().Swallow()
		time.Sleep(6*time.Second + time.Millisecond)
		synctest.Wait()
		is.True(!hook.Conn(c).Open)
		is.NoErr(c.Close())
	})
}

func TestKeepAlive_shorterIntervalOfTheClientHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, _, c := lab.Reconnected(t, &typedrpc.DialOptions{Limits: typedrpc.Limits{KeepAlive: 3 * time.Second}, Backoff: lab.Steady})
		time.Sleep(time.Minute)
		is.Equal(w.Dialled(), 1)
		w.Cable().Swallow()
		time.Sleep(10 * time.Second)
		is.Equal(w.Dialled(), 2)
		is.Equal(c.State(), typedrpc.StateConnected)
		is.NoErr(c.Close())
		time.Sleep(time.Minute) // the old server side finds out by itself
	})
}

func TestKeepAlive_silentPlainPeerIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		gone := make(chan error, 1)
		l.OnDisconnect = func(_ *typedrpc.Conn, err error) { gone <- err }
		began := time.Now()
		p, err := testkit.Join(l.Server, "") // it never reads, so its pings have no pong
		is.NoErr(err)
		is.True(errors.Is(<-gone, link.ErrSilent))
		is.Equal(time.Since(began), 40*time.Second)
		is.Equal(p.CloseCode(), session.CloseTimeout)
	})
}

func TestKeepAlive_pingOfThePeerIsAnswered(t *testing.T) {
	for _, offer := range []string{testkit.BinaryProtocol, testkit.HelloProtocol} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			l := lab.New()
			p, err := testkit.Join(l.Server, offer)
			is.NoErr(err)
			_, err = p.Hello()
			is.NoErr(err)
			is.NoErr(p.Send(wire.Frame{Type: wire.Notify, Method: "unknown"}))
			is.NoErr(p.Send(wire.Frame{Type: wire.Ping}))
			f, err := p.Until(wire.Ack)
			is.NoErr(err)
			is.Equal(f.Position, uint64(1)) // a notification without a handler is counted too
			p.T.Kill()
		})
	}
}

// A peer that takes nothing in is given up by the write's own timeout, before
// keepalive would find out.
func TestKeepAlive_stalledPeerIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		big := typedrpc.NewMethod[struct{}, string]("big")
		text := strings.Repeat("x", 200<<10)
		typedrpc.Handle(l.Mux, big, func(context.Context, struct{}) (string, error) { return text, nil })
		gone := make(chan error, 1)
		l.OnDisconnect = func(_ *typedrpc.Conn, err error) { gone <- err }
		p, err := testkit.Join(l.Server, testkit.BinaryProtocol)
		is.NoErr(err)
		_, err = p.Hello()
		is.NoErr(err)
		began := time.Now()
		for id := range uint64(5) {
			is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: id + 1, Method: "big"}))
		}
		is.True(errors.Is(<-gone, link.ErrStalled))
		took := time.Since(began)
		is.True(took >= 10*time.Second && took <= 13*time.Second)
		p.T.Kill()
	})
}
