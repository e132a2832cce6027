package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
	"github.com/typedrpc/typedrpc/typedrpctest"
)

func TestShutdown_runningCallsFinishNewOnesWaitForTheNextServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, l, c := lab.Reconnected(t, nil)
		running := typedrpc.Go(t.Context(), c, lab.Hang, struct{}{})
		synctest.Wait()
		down := make(chan error, 1)
		go func() { down <- l.Shutdown(t.Context()) }()
		synctest.Wait()
		later := typedrpc.Go(t.Context(), c, lab.Echo, 5)
		time.Sleep(time.Minute)
		is.Equal(len(down), 0)         // it waits for the call
		is.Equal(len(later.Done()), 0) // and takes no new one
		next := lab.New()
		w.Serve(next.Server)
		close(l.Release)
		_, err := running.Await(t.Context())
		is.NoErr(err)
		is.NoErr(<-down)
		n, err := later.Await(t.Context())
		is.NoErr(err)
		is.Equal(n, 5)
		is.NoErr(c.Close())
	})
}

func TestShutdown_contextsEndIsAHardStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, l, c := lab.Reconnected(t, nil)
		f := typedrpc.Go(t.Context(), c, lab.Hang, struct{}{})
		synctest.Wait()
		w.Serve(nil)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		is.Equal(l.Shutdown(ctx), context.DeadlineExceeded)
		is.True(time.Since(began) <= 3*time.Second+100*time.Millisecond)
		_, err := f.Await(t.Context())
		is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun)
		synctest.Wait()
		is.Equal(l.Running.Load(), int64(0))
		is.NoErr(c.Close())
	})
}

// The end of the context must also end the wait for a peer that acknowledges
// nothing any more.
func TestShutdown_deadPeerIsAHardStopToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		conns := make(chan *typedrpc.Conn, 1)
		l.OnConnect = func(c *typedrpc.Conn) { conns <- c }
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, nil)
		w.Cable().Swallow()
		is.NoErr(typedrpc.Notify(t.Context(), <-conns, lab.Note, 1)) // never to be acknowledged
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		is.Equal(l.Shutdown(ctx), context.DeadlineExceeded)
		is.True(time.Since(began) <= time.Second+100*time.Millisecond)
		is.NoErr(c.Close())
	})
}

// Peers that read nothing made Shutdown a second late, and what waited for them
// stayed: links that are opening, plain peers, sessions with replies that wait.
func TestShutdown_peersThatReadNothing(t *testing.T) {
	for _, patience := range []time.Duration{0, 10 * time.Millisecond, 300 * time.Millisecond, 3 * time.Second} {
		testkit.Bubble(t, fmt.Sprint(patience), func(t *testing.T, is *is.I) {
			l := lab.New()
			big := typedrpc.NewMethod[struct{}, string]("big")
			typedrpc.Handle(l.Mux, big, func(context.Context, struct{}) (string, error) {
				return strings.Repeat("x", 100_000), nil
			})
			var peers []*testkit.Peer
			for i, offer := range []string{"", testkit.BinaryProtocol, testkit.BinaryProtocol, testkit.HelloProtocol, testkit.HelloProtocol} {
				p, err := testkit.Join(l.Server, offer)
				is.NoErr(err)
				peers = append(peers, p)
				if i%2 == 1 {
					continue // its HELLO never comes
				}
				if offer != "" {
					_, err = p.Hello()
					is.NoErr(err)
				}
				for id := range uint64(100) {
					p.Send(wire.Frame{Type: wire.Call, ID: id + 1, RawID: fmt.Append(nil, id), Method: "big", Payload: []byte("{}")})
				}
			}
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			began := time.Now()
			is.Equal(l.Shutdown(ctx), context.DeadlineExceeded)
			is.True(time.Since(began) <= patience+100*time.Millisecond)
			s := hook.Server(l.Server)
			is.Equal(s.Budget, int64(0))
			is.Equal(s.Links, 0)
			is.Equal(s.Accepted, 0)
			for _, p := range peers {
				p.T.Kill()
			}
		})
	}
}

func TestShutdown_idleClientsComeBackSpreadOverTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		l.ReconnectSpread = 10 * time.Second
		w := &lab.Town{Srv: l.Server}
		var conns []*typedrpc.Conn
		const n = 200
		for range n {
			conns = append(conns, w.Dial(t, nil))
		}
		w.Serve(lab.New().Server)
		w.Mu.Lock()
		w.Dials = nil
		w.Mu.Unlock()
		began := time.Now()
		is.NoErr(l.Shutdown(t.Context()))
		time.Sleep(time.Minute)
		is.Equal(w.Dialled(), n)
		var sum, last time.Duration
		for _, at := range w.Dials {
			sum += at.Sub(began)
			last = max(last, at.Sub(began))
		}
		is.True(last <= 11*time.Second)
		is.True(sum/n > 4*time.Second && sum/n < 6*time.Second)
		for _, c := range conns {
			is.Equal(c.State(), typedrpc.StateConnected)
			is.NoErr(c.Close())
		}
	})
}

func TestShutdown_refusesNewConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		is.NoErr(l.Shutdown(t.Context()))
		w := &lab.Town{Srv: l.Server}
		_, err := w.TryDial(t.Context(), nil)
		is.True(errors.Is(err, typedrpc.Unavailable))
	})
}

func TestShutdown_endsHandshakesUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		p, err := testkit.Join(l.Server, testkit.BinaryProtocol)
		is.NoErr(err)
		code := make(chan int, 1)
		go func() { code <- p.CloseCode() }()
		began := time.Now()
		is.NoErr(l.Shutdown(t.Context()))
		is.True(time.Since(began) < 2*time.Second)
		is.Equal(<-code, session.CloseRestart)
	})
}

func TestConn_shutdownOfAClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		_, l, c := lab.Reconnected(t, nil)
		f := typedrpc.Go(t.Context(), c, lab.Hang, struct{}{})
		synctest.Wait()
		down := make(chan error, 1)
		go func() { down <- c.Shutdown(t.Context()) }()
		synctest.Wait()
		_, err := typedrpc.Call(t.Context(), c, lab.Echo, 1)
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
		close(l.Release)
		_, err = f.Await(t.Context())
		is.NoErr(err)
		is.NoErr(<-down)
		is.Equal(c.State(), typedrpc.StateClosed)
		is.NoErr(c.Shutdown(t.Context())) // again is fine
	})
}

func TestConn_closeInsideHandlersOfTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		conns := make(chan *typedrpc.Conn, 1)
		l.OnConnect = func(c *typedrpc.Conn) { conns <- c }
		w := &lab.Town{Srv: l.Server}
		mux := typedrpc.NewMux()
		closed := make(chan error, 2)
		typedrpc.Handle(mux, lab.Hang, func(ctx context.Context, _ struct{}) (struct{}, error) {
			closed <- typedrpc.ConnFrom(ctx).Close()
			return struct{}{}, nil
		})
		typedrpc.Handle(mux, lab.Note, func(ctx context.Context, _ int) error { closed <- typedrpc.ConnFrom(ctx).Close(); return nil })
		for range 2 {
			c := w.Dial(t, &typedrpc.DialOptions{Mux: mux})
			server := <-conns
			if len(closed) == 0 {
				_, err := typedrpc.Call(t.Context(), server, lab.Hang, struct{}{})
				is.True(errors.Is(err, typedrpc.Unavailable))
			} else {
				is.NoErr(typedrpc.Notify(t.Context(), server, lab.Note, 1))
			}
			is.NoErr(<-closed)
			<-c.Context().Done()
			<-server.Context().Done()
			closed <- nil // the second round closes in a notification
		}
	})
}

func TestConn_closeFlushesWhatWasSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		arrived := make(chan uint64, 1)
		_, c := lab.Scripted(t, nil, func(_ int, p *testkit.Peer) {
			p.Welcome()
			time.Sleep(time.Second) // all is queued by then, and Close waits
			p.CloseCode()
			arrived <- p.Counted
		})
		for i := range 5000 {
			is.NoErr(typedrpc.Notify(t.Context(), c, lab.Note, i))
		}
		is.NoErr(c.Close())
		is.Equal(<-arrived, uint64(5000))
	})
}

func TestConn_closeWaitsForAcknowledgementBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		_, c := lab.Scripted(t, nil, func(_ int, p *testkit.Peer) {
			p.Welcome()
			p.Answers = false
			p.CloseCode() // reads, and acknowledges nothing
		})
		is.NoErr(typedrpc.Notify(t.Context(), c, lab.Note, 1))
		synctest.Wait()
		began := time.Now()
		is.NoErr(c.Close())
		took := time.Since(began)
		is.True(took >= testkit.ClosePatience && took <= testkit.ClosePatience+2*time.Second)
	})
}

func TestConn_closeIsPromptWhenAllIsAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		_, _, c := lab.Reconnected(t, nil)
		_, err := typedrpc.Call(t.Context(), c, lab.Echo, 1)
		is.NoErr(err)
		is.NoErr(typedrpc.Notify(t.Context(), c, lab.Note, 1))
		began := time.Now()
		is.NoErr(c.Close())
		is.Equal(time.Since(began), time.Duration(0))
	})
}

func TestConn_closeEndsWaitingNotify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		l.Limits.Window = 100
		block := make(chan struct{})
		stuck := typedrpc.NewNotification[int]("stuck")
		typedrpc.Handle(l.Mux, stuck, func(ctx context.Context, _ int) error { <-block; return nil })
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, nil)
		is.NoErr(typedrpc.Notify(t.Context(), c, stuck, 1))
		waits := make(chan error, 1)
		go func() { waits <- typedrpc.Notify(t.Context(), c, stuck, 2) }()
		synctest.Wait()
		is.Equal(len(waits), 0)
		is.NoErr(c.Close())
		err := <-waits
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
		close(block)
	})
}

// Answers to calls that Close gave up, all at once, are no flood.
func TestConn_closeWithManyCallsInFlightIsNoFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		const n = 2 * testkit.FloodBurst
		code := make(chan int, 1)
		_, c := lab.Scripted(t, nil, func(_ int, p *testkit.Peer) {
			p.Welcome()
			var ids []uint64
			for len(ids) < n {
				f, _ := p.Until(wire.Call)
				ids = append(ids, f.ID)
			}
			p.Until(wire.Ping) // Close has begun
			for _, id := range ids {
				p.Send(wire.Frame{Type: wire.Result, ID: id})
			}
			p.Send(wire.Frame{Type: wire.Ack, Position: n})
			code <- p.CloseCode()
		})
		for range n {
			typedrpc.Go(t.Context(), c, lab.Hang, struct{}{})
		}
		synctest.Wait()
		is.NoErr(c.Close())
		is.Equal(<-code, session.CloseDone)
	})
}

func TestConn_closeByManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		_, _, c := lab.Reconnected(t, nil)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { c.Close() })
		}
		wg.Wait()
		is.Equal(c.State(), typedrpc.StateClosed)
		_, err := typedrpc.Call(t.Context(), c, lab.Echo, 1)
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.True(errors.Is(typedrpc.Notify(t.Context(), c, lab.Note, 1), typedrpc.Unavailable))
	})
}

func TestConn_closeByTheServerIsNoReasonToStayAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		conns := make(chan *typedrpc.Conn, 2)
		l.OnConnect = func(c *typedrpc.Conn) { conns <- c }
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, &typedrpc.DialOptions{Backoff: lab.Steady})
		is.NoErr((<-conns).Close())
		time.Sleep(2 * time.Second)
		is.Equal(c.State(), typedrpc.StateConnected)
		is.NoErr(c.Close())
	})
}

// Close did not wait for a refresh of the credentials.
func TestClose_waitsForCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		var running atomic.Bool
		creds := lab.Sign.Present(func(ctx context.Context) (string, error) {
			if n++; n == 1 {
				return "ann", nil
			}
			running.Store(true)
			defer running.Store(false)
			<-ctx.Done()
			time.Sleep(100 * time.Millisecond) // tidies up
			return "", ctx.Err()
		})
		g := lab.NewGated(t, typedrpc.Binary, 10*time.Second, &typedrpc.DialOptions{SignIn: creds})
		for !running.Load() {
			time.Sleep(100 * time.Millisecond)
		}
		g.Client.Close()
		if running.Load() {
			t.Error("Close returned while the credentials function runs")
		}
		time.Sleep(time.Minute)
	})
}

// Close waited for its patience twice, once for the queue and once for the
// goodbye, when the peer read nothing.
func TestConn_closeOfAPeerThatReadsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		done := make(chan struct{})
		_, c := lab.Scripted(t, nil, func(_ int, p *testkit.Peer) {
			p.Welcome()
			<-done // and reads nothing any more
			p.T.Kill()
		})
		upload := typedrpc.NewMethod[string, struct{}]("upload")
		for range 10 {
			typedrpc.Go(t.Context(), c, upload, strings.Repeat("x", 300<<10))
		}
		is.NoErr(typedrpc.Notify(t.Context(), c, lab.Note, 1))
		time.Sleep(time.Second)
		began := time.Now()
		is.NoErr(c.Close())
		is.True(time.Since(began) <= testkit.ClosePatience+time.Second)
		close(done)
	})
}

// Notifications that had been received and acknowledged were dropped when their
// sender closed the connection after them: Close waits for the handlers now.
func TestNotify_thenClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		note := typedrpc.NewNotification[int]("note")
		mux := typedrpc.NewMux()
		var got []int
		typedrpc.Handle(mux, note, func(_ context.Context, n int) error {
			time.Sleep(time.Millisecond) // slower than the sender
			got = append(got, n)
			return nil
		})
		c, _, err := typedrpctest.Dial(&typedrpc.Server{Mux: mux}, nil)
		is.NoErr(err)
		for i := range 200 {
			is.NoErr(typedrpc.Notify(t.Context(), c, note, i))
		}
		is.NoErr(c.Close())
		synctest.Wait()
		is.Equal(len(got), 200)
		is.True(slices.IsSorted(got))
	})
}
