package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

func TestReconnect_plainCallInFlightMayHaveRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, l, c := lab.Reconnected(t, nil)
		f := typedrpc.Go(t.Context(), c, lab.Hang, struct{}{})
		synctest.Wait()
		is.Equal(l.Running.Load(), int64(1))
		w.Cable().Cut()
		_, err := f.Await(t.Context())
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun)
		synctest.Wait()
		is.Equal(l.Running.Load(), int64(0)) // the handler's context ended too
		n, err := typedrpc.Call(t.Context(), c, lab.Echo, 7)
		is.NoErr(err) // on the next link
		is.Equal(n, 7)
		is.Equal(l.Hung.Load(), int64(1)) // and the lost call was not made again
		is.NoErr(c.Close())
	})
}

func TestReconnect_idempotentCallIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, l, c := lab.Reconnected(t, nil)
		f := typedrpc.Go(t.Context(), c, lab.HangTwice, struct{}{})
		for i := range int64(3) {
			synctest.Wait()
			is.Equal(l.Hung.Load(), i+1)
			w.Cable().Cut()
			time.Sleep(time.Minute)
		}
		close(l.Release)
		_, err := f.Await(t.Context())
		is.NoErr(err)
		is.Equal(l.Hung.Load(), int64(4))
		is.NoErr(c.Close())
	})
}

// A call that kills its server must not do so for ever.
func TestReconnect_resendsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, l, c := lab.Reconnected(t, nil)
		f := typedrpc.Go(t.Context(), c, lab.HangTwice, struct{}{})
		for range 2 * testkit.MaxResends {
			synctest.Wait()
			w.Cable().Cut()
			time.Sleep(time.Minute)
		}
		_, err := f.Await(t.Context())
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun)
		is.Equal(l.Hung.Load(), int64(testkit.MaxResends+1))
		is.NoErr(c.Close())
	})
}

// The first attempt may have run, whatever became of the second.
func TestReconnect_resentCallThatNeverLeftAgainMayHaveRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, _, c := lab.Reconnected(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		f := typedrpc.Go(ctx, c, lab.HangTwice, struct{}{})
		g := typedrpc.Go(t.Context(), c, lab.HangTwice, struct{}{})
		synctest.Wait()
		w.Serve(nil)
		w.Cable().Cut()
		synctest.Wait()
		cancel()
		_, err := f.Await(t.Context())
		is.True(errors.Is(err, context.Canceled))
		is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun)
		is.NoErr(c.Close())
		_, err = g.Await(t.Context())
		is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun)
	})
}

func TestReconnect_callsWaitForTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, l, c := lab.Reconnected(t, nil)
		w.Serve(nil)
		w.Cable().Cut()
		var fs []*typedrpc.Future[int]
		for i := range 100 {
			fs = append(fs, typedrpc.Go(t.Context(), c, lab.Echo, i))
		}
		time.Sleep(time.Hour)
		w.Serve(l.Server)
		got, err := typedrpc.All(t.Context(), fs...)
		is.NoErr(err)
		for i, n := range got {
			is.Equal(n, i)
		}
		is.NoErr(c.Close())
	})
}

func TestReconnect_deadlineEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, _, c := lab.Reconnected(t, nil)
		w.Serve(nil)
		w.Cable().Cut()
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := typedrpc.Call(ctx, c, lab.Echo, 1)
		is.True(errors.Is(err, context.DeadlineExceeded))
		is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
		is.Equal(time.Since(began), 3*time.Second)
		is.NoErr(c.Close())
	})
}

func TestReconnect_failFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, l, c := lab.Reconnected(t, &typedrpc.DialOptions{Backoff: lab.Steady})
		fast := c.With(typedrpc.CallOptions{FailFast: true})
		f := typedrpc.Go(t.Context(), fast, lab.HangTwice, struct{}{})
		synctest.Wait()
		w.Serve(nil)
		w.Cable().Cut()
		_, err := f.Await(t.Context())
		is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun) // in flight, and not sent again although it is Idempotent
		_, err = typedrpc.Call(t.Context(), fast, lab.Echo, 1)
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
		is.True(errors.Is(typedrpc.Notify(t.Context(), fast, lab.Note, 1), typedrpc.Unavailable))
		w.Serve(l.Server)
		time.Sleep(2 * time.Second)
		_, err = typedrpc.Call(t.Context(), fast, lab.Echo, 1)
		is.NoErr(err)
		is.NoErr(c.Close())
	})
}

// A call that had not left when the link was lost must not wait for the next
// link if it was asked to fail fast.
func TestReconnect_failFastDoesNotWaitInTheQueueEither(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		l.Limits.MaxCalls = 1
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, nil)
		first := typedrpc.Go(t.Context(), c, lab.Hang, struct{}{})
		waits := typedrpc.Go(t.Context(), c.With(typedrpc.CallOptions{FailFast: true}), lab.Echo, 1) // for the only slot
		synctest.Wait()
		w.Serve(nil)
		w.Cable().Cut()
		synctest.Wait()
		select {
		case <-waits.Done():
		default:
			t.Fatal("a FailFast call waits for a link")
		}
		_, err := waits.Await(t.Context())
		is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
		_, err = first.Await(t.Context())
		is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun)
		is.NoErr(c.Close())
	})
}

func TestReconnect_failFastBehindAStalledWriteDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		peers := make(chan *testkit.Peer, 9)
		w, c := lab.Scripted(t, nil, func(_ int, p *testkit.Peer) {
			p.Welcome() // and reads nothing more
			peers <- p
		})
		p := <-peers
		large := typedrpc.NewMethod[string, struct{}]("large")
		for range 2 { // more than the pipe holds
			typedrpc.Go(t.Context(), c, large, strings.Repeat("x", 300<<10))
			synctest.Wait()
		}
		patient := typedrpc.Go(t.Context(), c, lab.Echo, 1)
		fast := typedrpc.Go(t.Context(), c.With(typedrpc.CallOptions{FailFast: true}), lab.Echo, 1)
		w.Mu.Lock()
		w.Script = nil // nobody answers any more
		w.Mu.Unlock()
		p.T.Kill()
		synctest.Wait()
		is.Equal(c.State(), typedrpc.StateWaiting)
		select {
		case <-fast.Done():
		default:
			t.Error("a FailFast call waits for a link")
		}
		_, err := fast.Await(t.Context())
		is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
		select {
		case <-patient.Done():
			t.Error("a call that had not left does not wait for a link")
		default:
		}
		is.NoErr(c.Close())
	})
}

func TestReconnect_notificationsQueuedMeanwhileArrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, l, c := lab.Reconnected(t, nil)
		for round := range 20 {
			w.Serve(nil)
			w.Cable().Cut()
			synctest.Wait()
			for i := range 50 {
				is.NoErr(typedrpc.Notify(t.Context(), c, lab.Note, round*50+i))
			}
			w.Serve(l.Server)
			time.Sleep(time.Minute)
			is.Equal(c.State(), typedrpc.StateConnected)
		}
		got := l.Noted()
		is.Equal(len(got), 1000)
		is.True(slices.IsSorted(got))
		is.NoErr(c.Close())
	})
}

func TestReconnect_notificationsWaitForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		l.Limits.Window = 650 // ten of them
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, nil)
		w.Serve(nil)
		w.Cable().Cut()
		synctest.Wait()
		sent := 0
		for ; sent < 100; sent++ {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err := typedrpc.Notify(ctx, c, lab.Note, sent)
			cancel()
			if err != nil {
				is.True(errors.Is(err, context.DeadlineExceeded))
				is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
				break
			}
		}
		is.Equal(sent, 10)
		rest := make(chan error, 1)
		go func() { rest <- typedrpc.Notify(t.Context(), c, lab.Note, sent) }()
		w.Serve(l.Server)
		is.NoErr(<-rest)
		is.NoErr(c.Close())
		is.Equal(l.Noted(), []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10})
	})
}

func TestReconnect_handlersContextsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		conns := make(chan *typedrpc.Conn, 9)
		l.OnConnect = func(c *typedrpc.Conn) { conns <- c }
		w := &lab.Town{Srv: l.Server}
		ended := make(chan error, 1)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Hang, func(ctx context.Context, _ struct{}) (struct{}, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return struct{}{}, ctx.Err()
		})
		c := w.Dial(t, &typedrpc.DialOptions{Mux: mux})
		f := typedrpc.Go(t.Context(), <-conns, lab.Hang, struct{}{}) // the server calls the client
		synctest.Wait()
		w.Cable().Cut()
		is.Equal(<-ended, context.Canceled)
		_, err := f.Await(t.Context())
		is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun)
		_, err = typedrpc.Call(t.Context(), <-conns, lab.Echo, 1) // the next link is another connection on the server
		is.True(errors.Is(err, typedrpc.Unimplemented))
		is.NoErr(c.Close())
	})
}

func TestReconnect_answerOfAnOldSessionIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		conns := make(chan *typedrpc.Conn, 9)
		l.OnConnect = func(c *typedrpc.Conn) { conns <- c }
		w := &lab.Town{Srv: l.Server}
		mux := typedrpc.NewMux()
		let := make(chan int)
		typedrpc.Handle(mux, lab.Echo, func(_ context.Context, n int) (int, error) { return <-let + n, nil })
		c := w.Dial(t, &typedrpc.DialOptions{Mux: mux})
		old := typedrpc.Go(t.Context(), <-conns, lab.Echo, 100) // id 1 of the first session
		synctest.Wait()
		w.Cable().Cut()
		next := typedrpc.Go(t.Context(), <-conns, lab.Echo, 200) // id 1 of the second
		synctest.Wait()
		_, err := old.Await(t.Context())
		is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun)
		let <- 0 // one of the two handlers answers, then the other
		let <- 0
		n, err := next.Await(t.Context())
		is.NoErr(err)
		is.Equal(n, 200)
		is.NoErr(c.Close())
	})
}

func TestReconnect_states(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var seen lab.Watch
		w, l, c := lab.Reconnected(t, &typedrpc.DialOptions{OnState: seen.On, Backoff: lab.Steady})
		time.Sleep(time.Minute)
		w.Serve(nil)
		w.Cable().Cut()
		synctest.Wait()
		is.Equal(c.State(), typedrpc.StateWaiting)
		waiting := seen.Seen()[2]
		is.Equal(waiting.State, typedrpc.StateWaiting)
		is.True(errors.Is(waiting.Err, typedrpc.Unavailable)) // why
		is.Equal(waiting.Attempt, 1)
		is.True(!waiting.Next.Before(time.Now()) && waiting.Next.Before(time.Now().Add(time.Second)))
		time.Sleep(time.Until(waiting.Next))
		synctest.Wait()
		is.Equal(w.Dialled(), 2) // the attempt is made at the time that was told
		w.Serve(l.Server)
		time.Sleep(5 * time.Second)
		is.NoErr(c.Close())
		synctest.Wait()
		var states []typedrpc.State
		for _, s := range seen.Seen() {
			states = append(states, s.State)
		}
		is.Equal(states, []typedrpc.State{typedrpc.StateConnecting, typedrpc.StateConnected, typedrpc.StateWaiting, typedrpc.StateConnecting, typedrpc.StateWaiting, typedrpc.StateConnecting, typedrpc.StateConnected, typedrpc.StateClosed})
		last := seen.Seen()[len(states)-1]
		is.Equal(last.Err, c.Err())
		is.Equal(c.State(), typedrpc.StateClosed)
		is.True(strings.Contains(seen.Seen()[4].Err.Error(), "connection refused"))
	})
}

func TestReconnect_onStateMayUseAndCloseTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		w := &lab.Town{Srv: l.Server}
		ready := make(chan *typedrpc.Conn, 1)
		result := make(chan error, 1)
		c := w.Dial(t, &typedrpc.DialOptions{OnState: func(s typedrpc.StateChange) {
			if s.State == typedrpc.StateConnected {
				c := <-ready
				_, err := typedrpc.Call(t.Context(), c, lab.Echo, 1)
				result <- err
				c.Close()
			}
		}})
		ready <- c
		is.NoErr(<-result)
		<-c.Context().Done()
		is.True(errors.Is(c.Err(), typedrpc.Unavailable))
	})
}

func TestConn_reconnectNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, l, c := lab.Reconnected(t, &typedrpc.DialOptions{Backoff: typedrpc.Backoff{Min: time.Hour, Max: time.Hour}})
		c.Reconnect() // gives up a link that is well
		time.Sleep(time.Nanosecond)
		is.Equal(w.Dialled(), 2)
		is.Equal(c.State(), typedrpc.StateConnected)
		w.Serve(nil)
		w.Cable().Cut()
		synctest.Wait()
		is.Equal(c.State(), typedrpc.StateWaiting)
		w.Serve(l.Server)
		c.Reconnect() // ends the wait
		synctest.Wait()
		is.Equal(c.State(), typedrpc.StateConnected)
		is.NoErr(c.Close())
		c.Reconnect() // does nothing
		is.Equal(c.State(), typedrpc.StateClosed)
	})
}

// Reconnect while a link is being made has what it wanted with that link, and
// must not take the wait out of a loss much later.
func TestConn_reconnectWhileConnectingIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		w := &lab.Town{Srv: l.Server}
		first := true
		var c *typedrpc.Conn
		auth := typedrpc.NewSignIn[struct{}, struct{}]().Present(func(context.Context) (struct{}, error) {
			if !first {
				c.Reconnect()
			}
			return struct{}{}, nil
		})
		c = w.Dial(t, &typedrpc.DialOptions{SignIn: auth, Backoff: typedrpc.Backoff{Min: time.Hour, Max: time.Hour}})
		first = false
		w.Cable().Cut()
		time.Sleep(time.Hour)
		synctest.Wait()
		is.Equal(c.State(), typedrpc.StateConnected)
		w.Cable().Cut()
		synctest.Wait()
		is.Equal(c.State(), typedrpc.StateWaiting)
		is.NoErr(c.Close())
	})
}

func TestReconnect_closeEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, _, c := lab.Reconnected(t, &typedrpc.DialOptions{Backoff: typedrpc.Backoff{Min: time.Hour, Max: time.Hour}})
		w.Serve(nil)
		w.Cable().Cut()
		synctest.Wait()
		f := typedrpc.Go(t.Context(), c, lab.Echo, 1)
		began := time.Now()
		is.NoErr(c.Close())
		is.Equal(time.Since(began), time.Duration(0))
		_, err := f.Await(t.Context())
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
	})
}

func TestReconnect_closeDuringTheHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, _, c := lab.Reconnected(t, &typedrpc.DialOptions{Backoff: lab.Steady})
		silent := make(chan *testkit.Peer, 9)
		w.Mu.Lock()
		w.Script = func(_ int, p *testkit.Peer) { silent <- p }
		w.Mu.Unlock()
		w.Cable().Cut()
		p := <-silent
		synctest.Wait()
		is.Equal(c.State(), typedrpc.StateConnecting)
		is.NoErr(c.Close())
		is.Equal(p.CloseCode(), session.CloseDone)
	})
}

func TestDial_contextBoundsTheHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w := &lab.Town{Script: func(_ int, p *testkit.Peer) { p.CloseCode() }} // reads, and never answers
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		_, err := w.TryDial(ctx, nil)
		is.True(errors.Is(err, context.DeadlineExceeded))
		is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
		is.Equal(time.Since(began), 3*time.Second)
	})
}

func TestDial_handshakeTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		for range 20 { // two timers run out together: whichever is first says the same
			w := &lab.Town{Script: func(_ int, p *testkit.Peer) { p.CloseCode() }}
			began := time.Now()
			_, err := w.TryDial(t.Context(), nil)
			is.Equal(typedrpc.CodeOf(err), typedrpc.DeadlineExceeded)
			is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
			is.Equal(time.Since(began), 10*time.Second)
		}
	})
}

func TestDial_contextDoesNotBoundTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		w := &lab.Town{Srv: l.Server}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		c, err := w.TryDial(ctx, nil)
		is.NoErr(err)
		cancel()
		time.Sleep(time.Hour)
		_, err = typedrpc.Call(t.Context(), c, lab.Echo, 1)
		is.NoErr(err)
		is.Equal(w.Dialled(), 1)
		is.NoErr(c.Close())
	})
}

func TestDial_firstFailureIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w := new(lab.Town)
		_, err := w.TryDial(t.Context(), nil)
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(w.Dialled(), 1) // once: whether to try again is the caller's to say
	})
}

func TestReconnect_handshakesThatHangAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, l, c := lab.Reconnected(t, &typedrpc.DialOptions{Backoff: lab.Steady})
		w.Mu.Lock()
		w.Script = func(_ int, p *testkit.Peer) { p.CloseCode() }
		w.Mu.Unlock()
		w.Cable().Cut()
		time.Sleep(time.Minute)
		is.True(w.Dialled() >= 5)
		w.Mu.Lock()
		w.Script, w.Srv = nil, l.Server
		w.Mu.Unlock()
		time.Sleep(time.Minute)
		is.Equal(c.State(), typedrpc.StateConnected)
		is.NoErr(c.Close())
	})
}

// A redial wrote codec and dialect again while calls were reading them. For
// -race.
func TestReconnect_whileCalling(t *testing.T) {
	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text, typedrpc.JSONRPC} {
		t.Run(fmt.Sprint(d), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				w, _, c := lab.Reconnected(t, &typedrpc.DialOptions{Dialect: d, Backoff: typedrpc.Backoff{Min: 1, Max: 1}})
				defer c.Close()
				ctx, stop := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				for range 4 {
					wg.Go(func() {
						for ctx.Err() == nil {
							typedrpc.Call(ctx, c, lab.Echo, 1)
							typedrpc.Notify(ctx, c, lab.Note, 1)
							_ = c.Codec()
							time.Sleep(time.Microsecond)
						}
					})
				}
				for range 20 {
					time.Sleep(20 * time.Microsecond)
					c.Reconnect()
				}
				stop()
				wg.Wait()
				is.True(w.Dialled() > 10)
			})
		})
	}
}
