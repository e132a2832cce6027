package typedrpc

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

func TestShutdown_runningCallsFinishNewOnesWaitForTheNextServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, l, c := reconnected(t, nil)
		running := Go(t.Context(), c, labHang, Empty{})
		synctest.Wait()
		down := make(chan error, 1)
		go func() { down <- l.Shutdown(t.Context()) }()
		synctest.Wait()
		later := Go(t.Context(), c, labEcho, 5)
		time.Sleep(time.Minute)
		is.Equal(len(down), 0)         // it waits for the call
		is.Equal(len(later.Done()), 0) // and takes no new one
		next := newLab()
		w.serve(next.Server)
		close(l.release)
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
		w, l, c := reconnected(t, nil)
		f := Go(t.Context(), c, labHang, Empty{})
		synctest.Wait()
		w.serve(nil)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		is.Equal(l.Shutdown(ctx), context.DeadlineExceeded)
		is.True(time.Since(began) <= 5*time.Second)
		_, err := f.Await(t.Context())
		is.Equal(outcomeOf(err), MayHaveRun)
		synctest.Wait()
		is.Equal(l.running.Load(), int64(0))
		is.NoErr(c.Close())
	})
}

// The end of the context must also end the wait for a peer that acknowledges
// nothing any more.
func TestShutdown_deadPeerIsAHardStopToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		conns := make(chan *Conn, 1)
		l.OnConnect = func(c *Conn) { conns <- c }
		w := &town{srv: l.Server}
		c := w.dial(t, nil)
		w.cable().swallow()
		is.NoErr(Notify(t.Context(), <-conns, labNote, 1)) // never to be acknowledged
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		is.Equal(l.Shutdown(ctx), context.DeadlineExceeded)
		is.True(time.Since(began) <= 2*time.Second+time.Millisecond)
		is.NoErr(c.Close())
	})
}

func TestShutdown_idleClientsComeBackSpreadOverTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		l.RetryWindow = 10 * time.Second
		w := &town{srv: l.Server}
		var conns []*Conn
		const n = 200
		for range n {
			conns = append(conns, w.dial(t, nil))
		}
		w.serve(newLab().Server)
		w.mu.Lock()
		w.dials = nil
		w.mu.Unlock()
		began := time.Now()
		is.NoErr(l.Shutdown(t.Context()))
		time.Sleep(time.Minute)
		is.Equal(w.dialled(), n)
		var sum, last time.Duration
		for _, at := range w.dials {
			sum += at.Sub(began)
			last = max(last, at.Sub(began))
		}
		is.True(last <= 11*time.Second)
		is.True(sum/n > 4*time.Second && sum/n < 6*time.Second)
		for _, c := range conns {
			is.Equal(c.State(), Connected)
			is.NoErr(c.Close())
		}
	})
}

func TestShutdown_refusesNewConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		is.NoErr(l.Shutdown(t.Context()))
		w := &town{srv: l.Server}
		_, err := w.tryDial(t.Context(), nil)
		is.True(errors.Is(err, Unavailable))
	})
}

func TestShutdown_endsHandshakesUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		p, err := join(l.Server, codecProtocol(JSON))
		is.NoErr(err)
		code := make(chan int, 1)
		go func() { code <- p.closeCode() }()
		began := time.Now()
		is.NoErr(l.Shutdown(t.Context()))
		is.True(time.Since(began) < 2*time.Second)
		is.Equal(<-code, session.CloseRestart)
	})
}

func TestConn_shutdownOfAClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		_, l, c := reconnected(t, nil)
		f := Go(t.Context(), c, labHang, Empty{})
		synctest.Wait()
		down := make(chan error, 1)
		go func() { down <- c.Shutdown(t.Context()) }()
		synctest.Wait()
		_, err := Call(t.Context(), c, labEcho, 1)
		is.True(errors.Is(err, Unavailable))
		is.Equal(outcomeOf(err), NotSent)
		close(l.release)
		_, err = f.Await(t.Context())
		is.NoErr(err)
		is.NoErr(<-down)
		is.Equal(c.State(), Closed)
		is.NoErr(c.Shutdown(t.Context())) // again is fine
	})
}

func TestConn_closeInsideHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		conns := make(chan *Conn, 1)
		l.OnConnect = func(c *Conn) { conns <- c }
		w := &town{srv: l.Server}
		mux := NewMux()
		closed := make(chan error, 2)
		Handle(mux, labHang, func(ctx context.Context, _ Empty) (Empty, error) {
			closed <- ConnFrom(ctx).Close()
			return Empty{}, nil
		})
		HandleNotification(mux, labNote, func(ctx context.Context, _ int) { closed <- ConnFrom(ctx).Close() })
		for range 2 {
			c := w.dial(t, &DialOptions{Mux: mux})
			server := <-conns
			if len(closed) == 0 {
				_, err := Call(t.Context(), server, labHang, Empty{})
				is.True(errors.Is(err, Unavailable))
			} else {
				is.NoErr(Notify(t.Context(), server, labNote, 1))
			}
			is.NoErr(<-closed)
			<-c.Done()
			<-server.Done()
			closed <- nil // the second round closes in a notification
		}
	})
}

func TestConn_closeFlushesWhatWasSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		arrived := make(chan uint64, 1)
		_, c := scripted(t, nil, func(_ int, p *wirePeer) {
			p.welcome()
			time.Sleep(time.Second) // all is queued by then, and Close waits
			p.closeCode()
			arrived <- p.counted
		})
		for i := range 5000 {
			is.NoErr(Notify(t.Context(), c, labNote, i))
		}
		is.NoErr(c.Close())
		is.Equal(<-arrived, uint64(5000))
	})
}

func TestConn_closeWaitsForAcknowledgementBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		_, c := scripted(t, nil, func(_ int, p *wirePeer) {
			p.welcome()
			p.answers = false
			p.closeCode() // reads, and acknowledges nothing
		})
		is.NoErr(Notify(t.Context(), c, labNote, 1))
		synctest.Wait()
		began := time.Now()
		is.NoErr(c.Close())
		took := time.Since(began)
		is.True(took >= closePatience && took <= closePatience+2*time.Second)
	})
}

func TestConn_closeIsPromptWhenAllIsAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		_, _, c := reconnected(t, nil)
		_, err := Call(t.Context(), c, labEcho, 1)
		is.NoErr(err)
		is.NoErr(Notify(t.Context(), c, labNote, 1))
		began := time.Now()
		is.NoErr(c.Close())
		is.Equal(time.Since(began), time.Duration(0))
	})
}

func TestConn_closeEndsWaitingNotify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		l.Limits.Window = 100
		block := make(chan struct{})
		stuck := NewNotification[int]("stuck")
		HandleNotification(l.Mux, stuck, func(ctx context.Context, _ int) { <-block })
		w := &town{srv: l.Server}
		c := w.dial(t, nil)
		is.NoErr(Notify(t.Context(), c, stuck, 1))
		waits := make(chan error, 1)
		go func() { waits <- Notify(t.Context(), c, stuck, 2) }()
		synctest.Wait()
		is.Equal(len(waits), 0)
		is.NoErr(c.Close())
		err := <-waits
		is.True(errors.Is(err, Unavailable))
		is.Equal(outcomeOf(err), NotSent)
		close(block)
	})
}

// Answers to calls that Close gave up, all at once, are no flood.
func TestConn_closeWithManyCallsInFlightIsNoFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		const n = 2 * floodBurst
		code := make(chan int, 1)
		_, c := scripted(t, nil, func(_ int, p *wirePeer) {
			p.welcome()
			var ids []uint64
			for len(ids) < n {
				f, _ := p.until(wire.Call)
				ids = append(ids, f.ID)
			}
			p.until(wire.Ping) // Close has begun
			for _, id := range ids {
				p.send(wire.Frame{Type: wire.Result, ID: id})
			}
			p.send(wire.Frame{Type: wire.Ack, Position: n})
			code <- p.closeCode()
		})
		for range n {
			Go(t.Context(), c, labHang, Empty{})
		}
		synctest.Wait()
		is.NoErr(c.Close())
		is.Equal(<-code, session.CloseDone)
	})
}

func TestConn_closeByManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		_, _, c := reconnected(t, nil)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { c.Close() })
		}
		wg.Wait()
		is.Equal(c.State(), Closed)
		_, err := Call(t.Context(), c, labEcho, 1)
		is.True(errors.Is(err, Unavailable))
		is.True(errors.Is(Notify(t.Context(), c, labNote, 1), Unavailable))
	})
}

func TestConn_closeByTheServerIsNoReasonToStayAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		conns := make(chan *Conn, 2)
		l.OnConnect = func(c *Conn) { conns <- c }
		w := &town{srv: l.Server}
		c := w.dial(t, &DialOptions{Backoff: steady})
		is.NoErr((<-conns).Close())
		time.Sleep(2 * time.Second)
		is.Equal(c.State(), Connected)
		is.NoErr(c.Close())
	})
}
