package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// What becomes of calls when a session is lost, and of connections that have no
// link.

var (
	lossRun   = typedrpc.NewMethod[int, struct{}]("loss.run") // ends with its context, or when it may
	lossAgain = typedrpc.NewMethod[int, struct{}]("loss.again", typedrpc.Idempotent)
)

// witness is a server that knows what ran.
type witness struct {
	*lab.Lab
	mu    sync.Mutex
	runs  map[int]int
	let   chan struct{}
	live  atomic.Int64
	came  chan *typedrpc.Conn
	went  chan error
	whose map[*typedrpc.Conn]int // OnDisconnects
}

func newWitness() *witness {
	w := &witness{
		Lab: lab.New(), runs: map[int]int{}, let: make(chan struct{}),
		came: make(chan *typedrpc.Conn, 999), went: make(chan error, 999), whose: map[*typedrpc.Conn]int{},
	}
	run := func(ctx context.Context, n int) (struct{}, error) {
		w.mu.Lock()
		w.runs[n]++
		w.mu.Unlock()
		w.live.Add(1)
		defer w.live.Add(-1)
		select {
		case <-w.let:
			return struct{}{}, nil
		case <-ctx.Done():
			return struct{}{}, ctx.Err()
		}
	}
	typedrpc.Handle(w.Mux, lossRun, run)
	typedrpc.Handle(w.Mux, lossAgain, run)
	w.OnConnect = func(c *typedrpc.Conn) { w.came <- c }
	w.OnDisconnect = func(c *typedrpc.Conn, err error) {
		w.mu.Lock()
		w.whose[c]++
		w.mu.Unlock()
		w.went <- err
	}
	return w
}

func (w *witness) ran(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.runs[n]
}

// Every way in which a session can be lost, with calls in every state.
func TestOutcome_everyCallEnds(t *testing.T) {
	for _, how := range []string{"grace of the server", "grace of the client", "evicted by number", "evicted by bytes", "server restarted", "closed by the server"} {
		t.Run(how, func(t *testing.T) {
			lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
				is := is.New(t)
				w := newWitness()
				w.Limits = typedrpc.Limits{MaxCalls: 20, Grace: 20 * time.Second}
				o := &typedrpc.DialOptions{Dialect: d, Backoff: typedrpc.Backoff{Min: time.Hour, Max: time.Hour}, Limits: typedrpc.Limits{Grace: time.Hour}, Mux: typedrpc.NewMux()}
				clients := make(chan context.Context, 1)
				typedrpc.Handle(o.Mux, labWatch, func(ctx context.Context, _ struct{}) (struct{}, error) {
					clients <- ctx
					<-ctx.Done()
					return struct{}{}, ctx.Err()
				})
				switch how {
				case "grace of the client":
					o.Limits.Grace = 10 * time.Second
				case "evicted by number":
					w.MaxKept = 1
				case "evicted by bytes":
					w.MaxKeptBytes = 1
				}
				home := &lab.Town{Srv: w.Server}
				c := home.Dial(t, o)
				defer c.Close()
				server := <-w.came
				back := typedrpc.Go(t.Context(), server, labWatch, struct{}{}) // the server's own call
				var counted, again, queued []*typedrpc.Future[struct{}]
				for i := range 10 {
					counted = append(counted, typedrpc.Go(t.Context(), c, lossRun, i))
					again = append(again, typedrpc.Go(t.Context(), c, lossAgain, 100+i))
				}
				for i := range 10 { // there is no place for these
					queued = append(queued, typedrpc.Go(t.Context(), c, lossRun, 200+i))
				}
				handler := <-clients
				synctest.Wait()
				is.Equal(w.live.Load(), int64(20))
				if how != "closed by the server" {
					home.Serve(nil)
					home.Cable().Cut()
					is.Equal(server.State() == typedrpc.StateWaiting, how != "evicted by bytes")
				}
				for i := range 10 { // nor are these sent
					queued = append(queued, typedrpc.Go(t.Context(), c, lossRun, 300+i))
				}
				next := newWitness()
				close(next.let)
				lost := time.Duration(0) // until the server's side has ended
				switch how {
				case "evicted by number":
					is.NoErr(func() error { // another one is kept, the oldest goes
						town2 := &lab.Town{Srv: w.Server}
						c2 := town2.Dial(t, &typedrpc.DialOptions{Dialect: d, Mux: o.Mux, Limits: typedrpc.Limits{Grace: time.Hour}, Backoff: typedrpc.Backoff{Min: time.Hour, Max: time.Hour}})
						t.Cleanup(func() { c2.Close() })
						typedrpc.Go(t.Context(), <-w.came, labWatch, struct{}{}) // an idle one would go itself
						time.Sleep(time.Second)
						town2.Serve(nil)
						town2.Cable().Cut()
						return nil
					}())
				case "server restarted":
					ctx, cancel := context.WithCancel(t.Context())
					cancel()
					is.True(errors.Is(w.Shutdown(ctx), context.Canceled))
				case "closed by the server":
					home.Serve(nil)
					is.NoErr(server.Close())
				case "grace of the server", "grace of the client":
					lost = 20 * time.Second
				}
				time.Sleep(lost + time.Second)
				synctest.Wait()
				is.Equal(server.State(), typedrpc.StateClosed)
				is.Equal(w.live.Load(), int64(0)) // contexts have ended there
				is.True(len(w.went) >= 1)
				is.True(<-w.went != nil)
				is.Equal(w.whose[server], 1)
				_, err := back.Await(t.Context())
				is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable)
				is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun)
				home.Serve(next.Server)
				c.Reconnect()
				for i, f := range counted {
					_, err := f.Await(t.Context())
					is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable)
					is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun)
					is.Equal(w.ran(i), 1)
					is.Equal(next.ran(i), 0)
				}
				synctest.Wait()
				is.True(handler.Err() != nil) // and on the client
				for i, f := range again {
					_, err := f.Await(t.Context())
					is.NoErr(err)
					is.Equal(w.ran(100+i), 1)
					is.Equal(next.ran(100+i), 1) // sent again
				}
				for i, f := range queued {
					_, err := f.Await(t.Context())
					is.NoErr(err)
					n := 200 + i
					if i >= 10 {
						n = 290 + i
					}
					is.Equal(w.ran(n), 0)
					is.Equal(next.ran(n), 1)
				}
			})
		})
	}
}

// What says NotSent has run nowhere; FailFast and deadlines hold while there is
// no link.
func TestOutcome_notSentNeverRan(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		w := newWitness()
		home := &lab.Town{Srv: w.Server}
		c := home.Dial(t, &typedrpc.DialOptions{Dialect: d, Backoff: lab.Steady, Limits: typedrpc.Limits{Grace: time.Minute}})
		defer c.Close()
		fast := c.With(typedrpc.CallOptions{FailFast: true})
		flying := typedrpc.Go(t.Context(), fast, lossRun, 1) // in flight: it goes on
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		due := typedrpc.Go(ctx, c, lossRun, 2)
		synctest.Wait()
		home.Serve(nil)
		home.Cable().Cut()
		_, err := typedrpc.Call(t.Context(), fast, lossRun, 3)
		is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable)
		is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
		is.Equal(lab.OutcomeOf(typedrpc.Notify(t.Context(), fast, lab.Note, 3)), typedrpc.NotSent)
		began := time.Now()
		_, err = typedrpc.Call(ctx, c, lossRun, 4)
		is.True(errors.Is(err, context.DeadlineExceeded))
		is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
		_, err = due.Await(t.Context())
		is.True(errors.Is(err, context.DeadlineExceeded))
		is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun)
		is.Equal(time.Since(began), 5*time.Second)
		synctest.Wait()
		is.Equal(w.live.Load(), int64(1)) // the deadline went along
		home.Serve(w.Server)
		time.Sleep(5 * time.Second)
		is.Equal(c.State(), typedrpc.StateConnected)
		close(w.let)
		_, err = flying.Await(t.Context())
		is.NoErr(err)
		is.Equal(w.runs, map[int]int{1: 1, 2: 1})
		is.Equal(len(w.came), 1) // one session all the time
	})
}

// A call that was to fail fast and had not left when the link was lost does.
func TestOutcome_failFastInTheQueue(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		w := newWitness()
		w.Limits.MaxCalls = 1
		home := &lab.Town{Srv: w.Server}
		c := home.Dial(t, &typedrpc.DialOptions{Dialect: d, Backoff: lab.Steady, Limits: typedrpc.Limits{Grace: time.Minute}})
		defer c.Close()
		first := typedrpc.Go(t.Context(), c, lossRun, 1)
		waits := typedrpc.Go(t.Context(), c.With(typedrpc.CallOptions{FailFast: true}), lossRun, 2) // for the only place
		synctest.Wait()
		home.Serve(nil)
		home.Cable().Cut()
		select {
		case <-waits.Done():
			_, err := waits.Await(t.Context())
			is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
		default:
			t.Error("a FailFast call waits for a link")
		}
		home.Serve(w.Server)
		close(w.let)
		_, err := first.Await(t.Context())
		is.NoErr(err)
		is.Equal(w.ran(2), 0)
	})
}

// Close and Shutdown of either side while there is no link do not wait for one.
func TestOutcome_endsWhileAway(t *testing.T) {
	for _, how := range []string{"client closes", "client shuts down", "server closes", "server shuts down", "both close"} {
		t.Run(how, func(t *testing.T) {
			lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
				is := is.New(t)
				w := newWitness()
				home := &lab.Town{Srv: w.Server}
				c := home.Dial(t, &typedrpc.DialOptions{Dialect: d, Backoff: typedrpc.Backoff{Min: time.Hour, Max: time.Hour}, Limits: typedrpc.Limits{Grace: time.Minute}})
				home.Serve(nil)
				server := <-w.came
				f := typedrpc.Go(t.Context(), c, lossRun, 1)
				synctest.Wait()
				home.Cable().Cut()
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				began := time.Now()
				switch how {
				case "client closes":
					is.NoErr(c.Close())
					is.Equal(time.Since(began), time.Duration(0))
				case "client shuts down":
					is.True(errors.Is(c.Shutdown(ctx), context.DeadlineExceeded))
					is.Equal(time.Since(began), 3*time.Second)
				case "server closes":
					is.NoErr(server.Close())
					is.Equal(time.Since(began), time.Duration(0))
				case "server shuts down":
					is.True(errors.Is(server.Shutdown(ctx), context.DeadlineExceeded))
				case "both close":
					go c.Close()
					is.NoErr(server.Close())
				}
				time.Sleep(2 * time.Minute)
				_, err := typedrpc.Call(t.Context(), server, lab.Echo, 1)
				is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable)
				is.Equal(server.State(), typedrpc.StateClosed)
				is.Equal(w.live.Load(), int64(0))
				is.True(<-w.went != nil)
				is.Equal(len(w.went), 0)
				is.NoErr(c.Close())
				_, err = f.Await(t.Context())
				is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun)
				synctest.Wait()
				s := hook.Server(w.Server)
				is.Equal(s.Links+s.Accepted, 0)
				is.Equal(int64(s.Kept)+s.KeptBytes, int64(0))
			})
		})
	}
}

// The hooks may end connections, also their own.
func TestOutcome_closeInTheHooks(t *testing.T) {
	for _, when := range []typedrpc.State{typedrpc.StateConnected, typedrpc.StateWaiting, typedrpc.StateConnecting} {
		t.Run(fmt.Sprint("OnState ", when), func(t *testing.T) {
			lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
				is := is.New(t)
				w := newWitness()
				home := &lab.Town{Srv: w.Server}
				ready, closed := make(chan *typedrpc.Conn, 1), make(chan struct{})
				var lost atomic.Bool
				c := home.Dial(t, &typedrpc.DialOptions{Dialect: d, Backoff: lab.Steady, Limits: typedrpc.Limits{Grace: time.Minute}, OnState: func(s typedrpc.StateChange) {
					if s.State == when && lost.CompareAndSwap(true, false) {
						c := <-ready
						c.Close()
						close(closed)
					}
				}})
				ready <- c
				synctest.Wait() // it has been told of the first link
				lost.Store(true)
				f := typedrpc.Go(t.Context(), c, lossRun, 1)
				synctest.Wait()
				home.Cable().Cut()
				<-closed
				is.Equal(c.State(), typedrpc.StateClosed)
				_, err := f.Await(t.Context())
				is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun)
				time.Sleep(time.Minute)
				is.Equal(len(conns(w.Server)), 0)
			})
		})
	}
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		w := newWitness()
		went := make(chan error, 1)
		w.OnDisconnect = func(c *typedrpc.Conn, err error) {
			c.Close() // has ended: it returns
			is.Equal(c.State(), typedrpc.StateClosed)
			went <- err
		}
		home := &lab.Town{Srv: w.Server}
		c := home.Dial(t, &typedrpc.DialOptions{Dialect: d, Backoff: lab.Steady, Limits: typedrpc.Limits{Grace: time.Minute}})
		home.Serve(nil)
		home.Cable().Cut()
		time.Sleep(time.Hour)
		is.True(<-went != nil)
		is.NoErr(c.Close())
	})
}

// A connection without a link is listed, and gets what is broadcast when it is
// back.
func TestOutcome_broadcastReachesThoseThatAreAway(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		w := newWitness()
		var got [3]atomic.Int64
		var towns []*lab.Town
		for i := range 3 {
			mux := typedrpc.NewMux()
			typedrpc.Handle(mux, lab.LaneNumber, func(_ context.Context, n int) error { got[i].Add(int64(n)); return nil })
			towns = append(towns, &lab.Town{Srv: w.Server})
			c := towns[i].Dial(t, &typedrpc.DialOptions{Dialect: d, Mux: mux, Backoff: lab.Steady, Limits: typedrpc.Limits{Grace: time.Minute}})
			defer c.Close()
		}
		time.Sleep(time.Second)
		towns[1].Serve(nil)
		towns[1].Cable().Cut()
		states := map[typedrpc.State]int{}
		for c := range w.Conns() {
			states[c.State()]++
		}
		is.Equal(states, map[typedrpc.State]int{typedrpc.StateConnected: 2, typedrpc.StateWaiting: 1})
		for range 5 {
			is.NoErr(typedrpc.Broadcast(t.Context(), w.Conns(), lab.LaneNumber, 7))
		}
		time.Sleep(time.Second)
		is.Equal(got[0].Load()+got[2].Load(), int64(70))
		is.Equal(got[1].Load(), int64(0))
		towns[1].Serve(w.Server)
		time.Sleep(5 * time.Second)
		is.Equal(got[1].Load(), int64(35))
	})
}

// What a connection has ended with is no call's error, and does not read as one.
func TestOutcome_ofAnEnd(t *testing.T) {
	for _, side := range []string{"client", "server"} {
		for what, o := range map[string]*typedrpc.CloseOptions{"nothing": nil, "why": {Err: typedrpc.Errorf(typedrpc.Aborted, "enough")}, "for good": {StayAway: true}} {
			t.Run(side+" says "+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					is := is.New(t)
					var mu sync.Mutex
					var ends []error
					note := func(err error) { mu.Lock(); defer mu.Unlock(); ends = append(ends, err) }
					srv := &typedrpc.Server{OnDisconnect: func(_ *typedrpc.Conn, err error) { note(err) }}
					client, server := typedrpctest.Pair(t, srv, &typedrpc.DialOptions{MaxAttempts: -1, OnState: func(s typedrpc.StateChange) {
						if s.Err != nil {
							note(s.Err)
						}
					}})
					c := map[string]*typedrpc.Conn{"client": client, "server": server}[side]
					is.NoErr(c.CloseWith(o))
					synctest.Wait()
					for _, c := range []*typedrpc.Conn{client, server} {
						note(c.Err())
						note(context.Cause(c.Context()))
					}
					is.True(len(ends) >= 6)
					for _, err := range ends {
						is.True(!strings.Contains(err.Error(), "may have run")) // there is no call that it is said of
					}
				})
			})
		}
	}
}

// A stream whose handler had returned was NotSent when it was cancelled after that.
func TestOutcome_ofACancelledStream(t *testing.T) {
	both := typedrpc.NewBidiStream[struct{}, int, int]("both")
	for _, ended := range []bool{true, false} {
		t.Run(fmt.Sprintf("ended %v", ended), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				mux := typedrpc.NewMux()
				handler := make(chan error, 1)
				typedrpc.Handle(mux, both, func(ctx context.Context, _ struct{}, s *typedrpc.Stream[int, int]) error {
					if !ended {
						<-ctx.Done()
					}
					s.Cancel()
					_, err := s.Recv()
					handler <- err
					return nil
				})
				client, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: mux}, nil)
				defer client.Close()
				s, err := typedrpc.Open(t.Context(), client, both, struct{}{})
				is.NoErr(err)
				synctest.Wait() // the handler runs, or has returned
				s.Cancel()
				_, err = s.Recv()
				for _, err := range []error{err, s.Send(1), <-handler} {
					is.True(errors.Is(err, typedrpc.Canceled))
					is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
				}
			})
		})
	}
}
