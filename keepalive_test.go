package typedrpc

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

func TestKeepAlive_idleConnectionsLive(t *testing.T) {
	for _, d := range []Dialect{Binary, JSONRPC, PlainJSONRPC} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			l := newLab()
			gone := make(chan error, 1)
			l.OnDisconnect = func(_ *Conn, err error) { gone <- err }
			c, _, err := dialPipe(t.Context(), l.Server, &DialOptions{Dialect: d})
			is.NoErr(err)
			time.Sleep(24 * time.Hour)
			is.Equal(len(gone), 0)
			is.Equal(c.State(), Connected)
			_, err = Call(t.Context(), c, labEcho, 1)
			is.NoErr(err)
			is.NoErr(c.Close())
			<-gone
		})
	}
}

func TestKeepAlive_deadPeerIsFoundByBothSides(t *testing.T) {
	for _, d := range []Dialect{Binary, JSONRPC} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			l := newLab()
			gone := make(chan error, 1)
			l.OnDisconnect = func(_ *Conn, err error) { gone <- err }
			w := &town{srv: l.Server}
			c := w.dial(t, &DialOptions{Dialect: d, Backoff: steady})
			time.Sleep(time.Hour + 7*time.Second)
			f := Go(t.Context(), c, labHang, Empty{})
			time.Sleep(time.Second)
			w.cable().swallow()
			w.serve(nil) // else a new link would fence the old one first
			began := time.Now()
			is.True(errors.Is(<-gone, link.ErrSilent)) // the server
			is.True(time.Since(began) <= 40*time.Second)
			synctest.Wait()
			is.Equal(l.running.Load(), int64(0))
			_, err := f.Await(t.Context()) // the client
			is.Equal(outcomeOf(err), MayHaveRun)
			is.True(time.Since(began) <= 40*time.Second)
			is.True(errors.Is(err, link.ErrSilent))
			w.serve(l.Server)
			time.Sleep(3 * time.Second) // for the goodbye, which is swallowed too, and the backoff
			is.Equal(c.State(), Connected)
			is.NoErr(c.Close())
			<-gone
		})
	}
}

func TestKeepAlive_shorterIntervalOfTheServerHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		l.Limits.KeepAlive = 3 * time.Second
		w := &town{srv: l.Server}
		c := w.dial(t, &DialOptions{Backoff: Backoff{Min: time.Hour, Max: time.Hour}})
		time.Sleep(time.Minute)
		w.cable().swallow()
		time.Sleep(6*time.Second + time.Millisecond)
		synctest.Wait()
		c.mu.Lock()
		open := c.sess != nil && c.sess.Err() == nil
		c.mu.Unlock()
		is.True(!open)
		is.NoErr(c.Close())
	})
}

func TestKeepAlive_shorterIntervalOfTheClientHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, _, c := reconnected(t, &DialOptions{Limits: Limits{KeepAlive: 3 * time.Second}, Backoff: steady})
		time.Sleep(time.Minute)
		is.Equal(w.dialled(), 1)
		w.cable().swallow()
		time.Sleep(10 * time.Second)
		is.Equal(w.dialled(), 2)
		is.Equal(c.State(), Connected)
		is.NoErr(c.Close())
		time.Sleep(time.Minute) // the old server side finds out by itself
	})
}

func TestKeepAlive_silentPlainPeerIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		gone := make(chan error, 1)
		l.OnDisconnect = func(_ *Conn, err error) { gone <- err }
		began := time.Now()
		p, err := join(l.Server, "") // it never reads, so its pings have no pong
		is.NoErr(err)
		is.True(errors.Is(<-gone, link.ErrSilent))
		is.Equal(time.Since(began), 40*time.Second)
		is.Equal(p.closeCode(), session.CloseTimeout)
	})
}

func TestKeepAlive_pingOfThePeerIsAnswered(t *testing.T) {
	for _, offer := range []string{codecProtocol(JSON), helloProtocol} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			l := newLab()
			p, err := join(l.Server, offer)
			is.NoErr(err)
			_, err = p.hello()
			is.NoErr(err)
			is.NoErr(p.send(wire.Frame{Type: wire.Notify, Method: "unknown"}))
			is.NoErr(p.send(wire.Frame{Type: wire.Ping}))
			f, err := p.until(wire.Ack)
			is.NoErr(err)
			is.Equal(f.Position, uint64(1)) // a notification without a handler is counted too
			p.t.Kill()
		})
	}
}

// A peer that takes nothing in is given up by the write's own timeout, before
// keepalive would find out.
func TestKeepAlive_stalledPeerIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		big := NewMethod[Empty, string]("big")
		text := strings.Repeat("x", 200<<10)
		Handle(l.Mux, big, func(context.Context, Empty) (string, error) { return text, nil })
		gone := make(chan error, 1)
		l.OnDisconnect = func(_ *Conn, err error) { gone <- err }
		p, err := join(l.Server, codecProtocol(JSON))
		is.NoErr(err)
		_, err = p.hello()
		is.NoErr(err)
		began := time.Now()
		for id := range uint64(5) {
			is.NoErr(p.send(wire.Frame{Type: wire.Call, ID: id + 1, Method: "big"}))
		}
		is.True(errors.Is(<-gone, link.ErrStalled))
		took := time.Since(began)
		is.True(took >= 10*time.Second && took <= 13*time.Second)
		p.t.Kill()
	})
}
