package e2e_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// TestPing_everyDialect asks both ways, alone and together, and with every place taken.
func TestPing_everyDialect(t *testing.T) {
	everyDialect(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		l := lab.New()
		l.Limits.MaxCalls = 1
		c, s, err := typedrpctest.Dial(l.Server, &typedrpc.DialOptions{Dialect: d})
		is.NoErr(err)
		hangs := typedrpc.Go(t.Context(), c, lab.Hang, struct{}{})
		for _, conn := range []*typedrpc.Conn{c, s} {
			errs := make(chan error)
			for range 10 {
				go func() {
					took, err := conn.Ping(t.Context())
					if took < 0 {
						err = errors.New("no time")
					}
					errs <- err
				}()
			}
			for range 10 {
				is.NoErr(<-errs)
			}
		}
		close(l.Release)
		_, err = hangs.Await(t.Context())
		is.NoErr(err)
		is.NoErr(c.Close())
		<-s.Context().Done()
		for _, conn := range []*typedrpc.Conn{c, s} { // it says why there is nobody
			_, err := conn.Ping(t.Context())
			is.True(errors.Is(err, conn.Err()))
			is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		}
	})
}

// TestPing_takesATripsTime has a peer that answers after a while, and one whose
// acknowledgement of something else arrives at once.
func TestPing_takesATripsTime(t *testing.T) {
	for name, early := range map[string]bool{"an answer": false, "an ACK under way": true} {
		testkit.Bubble(t, name, func(t *testing.T, is *is.I) {
			const trip = 50 * time.Millisecond
			_, c := lab.Scripted(t, nil, func(_ int, p *testkit.Peer) {
				time.Sleep(trip)
				p.Welcome()
				for range 2 {
					if _, err := p.Until(wire.Ping); err != nil {
						return
					}
					if !early {
						time.Sleep(2 * trip)
					}
					p.Send(wire.Frame{Type: wire.Ack})
				}
				p.CloseCode()
			})
			took, err := c.Ping(t.Context())
			is.NoErr(err)
			if early {
				is.Equal(took, trip) // of the handshake
			} else {
				is.Equal(took, 2*trip)
			}
			is.NoErr(c.Close())
		})
	}
}

// TestPing_ends has a peer that is deaf: the context's end, and the link's.
func TestPing_ends(t *testing.T) {
	everyDialect(t, func(t *testing.T, d typedrpc.Dialect) {
		if d == typedrpc.JSONRPC {
			return // whose pings the cable answers, as a proxy would
		}
		is := is.New(t)
		w, _, c := lab.Reconnected(t, &typedrpc.DialOptions{Dialect: d, Backoff: lab.Steady, Limits: typedrpc.Limits{KeepAlive: time.Minute}})
		_, err := c.Ping(t.Context())
		is.NoErr(err)
		w.Cable().Swallow()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = c.Ping(ctx)
		is.True(errors.Is(err, context.DeadlineExceeded))
		_, err = c.Ping(ctx)
		is.True(errors.Is(err, context.DeadlineExceeded)) // one that had ended
		lost := make(chan error)
		go func() {
			_, err := c.Ping(t.Context())
			lost <- err
		}()
		synctest.Wait()
		w.Serve(nil)
		w.Cable().Cut()
		err = <-lost
		is.True(errors.Is(err, typedrpc.Unavailable))
		synctest.Wait()
		_, err = c.Ping(t.Context()) // at once
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
		is.NoErr(c.Close())
	})
}

// TestPing_contextThatEndedFirst ends the context of a ping, and then what would answer it.
func TestPing_contextThatEndedFirst(t *testing.T) {
	for name, end := range map[string]func(w *lab.Town, c *typedrpc.Conn){
		"close": func(_ *lab.Town, c *typedrpc.Conn) { c.Close() },
		"cut":   func(w *lab.Town, _ *typedrpc.Conn) { w.Cable().Cut() },
	} {
		everyDialect(t, func(t *testing.T, d typedrpc.Dialect) {
			is := is.New(t)
			t.Log(name)
			o := &typedrpc.DialOptions{Dialect: d, Backoff: lab.Steady, Limits: typedrpc.Limits{KeepAlive: time.Minute}}
			for range 10 {
				w, _, c := lab.Reconnected(t, o)
				ctx, cancel := context.WithCancel(t.Context())
				pinged := make(chan error, 1)
				if d == typedrpc.JSONRPC { // the cable would answer
					pinged <- context.Canceled
				} else {
					w.Cable().Swallow()
					go func() {
						_, err := c.Ping(ctx)
						pinged <- err
					}()
					synctest.Wait()
				}
				cancel()
				end(w, c)
				is.True(errors.Is(<-pinged, context.Canceled))
				is.NoErr(c.Close())
				_, err := c.Ping(ctx)
				is.True(errors.Is(err, context.Canceled))
				w.Cable().Cut()
			}
		})
	}
}
