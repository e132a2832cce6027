package chaos_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// Links that are dead and do not say so, and what goes on without a link.

var (
	outageWait = typedrpc.NewMethod[int, int]("outage.wait")
)

// outage is a client and a server whose link goes away and comes back. In a
// bubble.
type outage struct {
	*stage
	*path
	srv      *typedrpc.Server
	client   *typedrpc.Conn
	server   *typedrpc.Conn
	sessions atomic.Int64
	resumed  atomic.Int64

	release chan struct{}          // ends the calls that wait
	began   chan *typedrpc.Request // such a call …
	ended   chan error             // … whose context ended first
	limit   chan time.Time         // its deadline

	mu    sync.Mutex
	notes []int // of both
}

func newOutage(t *testing.T, d typedrpc.Dialect, limits typedrpc.Limits, cond typedrpctest.Conditions) *outage {
	t.Helper()
	o := &outage{
		stage: newStage(t, cond), release: make(chan struct{}), began: make(chan *typedrpc.Request, 100),
		ended: make(chan error, 100), limit: make(chan time.Time, 100),
	}
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, outageWait, func(ctx context.Context, n int) (int, error) {
		o.began <- typedrpc.RequestFrom(ctx)
		if at, ok := ctx.Deadline(); ok {
			o.limit <- at
		}
		select {
		case <-o.release:
			return -n, nil
		case <-ctx.Done():
			o.ended <- ctx.Err()
			return 0, ctx.Err()
		}
	})
	typedrpc.Handle(mux, lossEcho, func(_ context.Context, _ struct{}, s *typedrpc.Stream[int, int]) error {
		for {
			n, err := s.Recv()
			if err == nil {
				err = s.Send(-n)
			}
			if err != nil {
				return nil
			}
		}
	})
	typedrpc.Handle(mux, lossNote, func(_ context.Context, m chaosMessage) error {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.notes = append(o.notes, m.N)
		return nil
	})
	accepted := make(chan *typedrpc.Conn, 10)
	limits.Grace = time.Hour
	o.srv = &typedrpc.Server{
		Mux: mux, Limits: limits, Logger: slog.New(slog.DiscardHandler),
		OnConnect: func(c *typedrpc.Conn) { accepted <- c },
	}
	o.host.Serve(o.srv)
	o.path = o.stage.path()
	o.client = o.path.client(typedrpc.DialOptions{
		Dialect: d, Mux: mux, Limits: limits,
		OnState: func(s typedrpc.StateChange) {
			switch {
			case s.State != typedrpc.StateConnected:
			case s.Resumed:
				o.resumed.Add(1)
			default:
				o.sessions.Add(1)
			}
		},
	})
	o.server = <-accepted
	time.Sleep(time.Second) // the server knows that the client knows of the session
	return o
}

// next receives from one of the outage's channels, and does not wait for ever.
func next[T any](t *testing.T, ch chan T) (v T) {
	t.Helper()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	select {
	case v = <-ch:
	case <-timer.C:
		t.Fatal("it never came")
	}
	return v
}

// each runs f for calls of the client, and for calls of the server.
func (o *outage) each(f func(who string, caller, callee *typedrpc.Conn)) {
	f("client", o.client, o.server)
	f("server", o.server, o.client)
}

func (o *outage) received() []int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.notes)
}

func (o *outage) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.notes = nil
}

// end closes everything, and fails the test if anything is left, or if a session
// was lost.
func (o *outage) end() {
	t := o.stage.t
	o.open()
	for end := time.Now().Add(time.Minute); idle(o.client, o.server) != "" && time.Now().Before(end); {
		time.Sleep(time.Second)
	}
	if left := idle(o.client, o.server); left != "" {
		t.Errorf("left: %s", left)
	}
	o.client.Close()
	o.hc.CloseIdleConnections()
	if err := o.srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	o.net.Close()
	synctest.Wait()
	if n := o.sessions.Load(); n != 1 {
		t.Errorf("%d sessions", n)
	}
}

// deaths are the ways in which a link dies in silence.
var deaths = map[string]func(*typedrpctest.Link){
	"nothing goes up":    func(l *typedrpctest.Link) { l.Set(typedrpctest.Up, typedrpctest.Conditions{BlackHole: true}) },
	"nothing goes down":  func(l *typedrpctest.Link) { l.Set(typedrpctest.Down, typedrpctest.Conditions{BlackHole: true}) },
	"nothing goes":       func(l *typedrpctest.Link) { l.Set(typedrpctest.Both, typedrpctest.Conditions{BlackHole: true}) },
	"nothing arrives":    func(l *typedrpctest.Link) { l.Set(typedrpctest.Both, typedrpctest.Conditions{Stall: true}) },
	"the client is gone": func(l *typedrpctest.Link) { l.Cut(typedrpctest.CutDialer) },
	"the server is gone": func(l *typedrpctest.Link) { l.Cut(typedrpctest.CutListener) },
}

// Both ends find out within two keepalive intervals, and a second for a goodbye
// that nobody answers; then everything goes on.
func TestHalfOpen_isFoundAtBothEnds(t *testing.T) {
	const interval = 10 * time.Second
	for name, d := range bothDialects {
		for how, die := range deaths {
			for _, busy := range []bool{false, true} {
				for _, back := range []bool{false, true} { // the client may dial at once
					test := name + "/" + how + map[bool]string{true: "/busy"}[busy] + map[bool]string{true: "/back at once"}[back]
					t.Run(test, func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							is := is.New(t)
							o := newOutage(t, d, typedrpc.Limits{KeepAlive: interval}, typedrpctest.Conditions{Latency: time.Millisecond})
							defer o.end()
							ctx := t.Context()
							var calls []*typedrpc.Future[int]
							var streams []*typedrpc.Stream[int, int]
							stop := make(chan struct{})
							o.each(func(_ string, caller, _ *typedrpc.Conn) {
								calls = append(calls, typedrpc.Go(ctx, caller, outageWait, 7))
								s, err := typedrpc.Open(ctx, caller, lossEcho, struct{}{})
								is.NoErr(err)
								is.NoErr(s.Send(1))
								_, err = s.Recv()
								is.NoErr(err)
								streams = append(streams, s)
								if busy {
									go every(stop, func(int) error { return typedrpc.Notify(ctx, caller, lossNote, chaosMessage{}) })
								}
							})
							time.Sleep(1234 * time.Millisecond)
							if !back {
								o.path.close()
							}
							old := o.last()
							began := time.Now()
							die(old)
							const most = 2*interval + time.Second + moment
							found := map[string]time.Duration{}
							for time.Since(began) < 4*interval {
								time.Sleep(50 * time.Millisecond)
								o.each(func(who string, c, _ *typedrpc.Conn) {
									gone := c.State() != typedrpc.StateConnected || back && o.last() != old
									if _, ok := found[who]; gone && !ok {
										found[who] = time.Since(began)
									}
								})
							}
							for _, who := range []string{"client", "server"} {
								if after, ok := found[who]; !ok || after > most {
									t.Errorf("the %s found out after %v (%v)", who, after, ok)
								}
							}
							o.open()
							time.Sleep(2 * moment)
							is.Equal(o.client.State(), typedrpc.StateConnected)
							is.Equal(o.server.State(), typedrpc.StateConnected)
							is.Equal(o.resumed.Load(), int64(1))
							old.Set(typedrpctest.Both, typedrpctest.Conditions{}) // what was late arrives
							close(o.release)
							for _, f := range calls {
								n, err := f.Await(ctx)
								is.NoErr(err)
								is.Equal(n, -7)
							}
							for _, s := range streams {
								is.NoErr(s.Send(2))
								n, err := s.Recv()
								is.NoErr(err)
								is.Equal(n, -2)
								s.Cancel()
							}
							close(stop)
						})
					})
				}
			}
		}
	}
}

// What arrives over the old link when the session has a new one is not taken, and
// not counted.
func TestHalfOpen_oldLinkIsFenced(t *testing.T) {
	overOutages(t, func(t *testing.T, o *outage) {
		o.each(func(_ string, caller, _ *typedrpc.Conn) {
			is := is.New(t)
			old := o.last()
			old.Set(typedrpctest.Both, typedrpctest.Conditions{Stall: true})
			want := make([]int, 20)
			for i := range want {
				want[i] = i
				is.NoErr(typedrpc.Notify(t.Context(), caller, lossNote, chaosMessage{N: i}))
			}
			f := typedrpc.Go(t.Context(), caller, outageWait, 1)
			time.Sleep(time.Second)
			is.Equal(len(o.received()), 0)
			o.client.Reconnect() // its end is closed, which does not arrive either
			for o.last() == old || o.server.State() != typedrpc.StateConnected || len(o.began) == 0 {
				time.Sleep(time.Millisecond)
			}
			old.Set(typedrpctest.Both, typedrpctest.Conditions{})
			time.Sleep(time.Second)
			is.Equal(o.received(), want)
			is.Equal(len(o.began), 1)
			next(t, o.began)
			o.forget()
			f.Cancel()
			next(t, o.ended)
		})
	})
}

// One byte at a time changes no result.
func TestHalfOpen_singleBytes(t *testing.T) {
	for name, d := range bothDialects {
		t.Run(name, func(t *testing.T) {
			p := chaosPlan{
				seed: 3, dialect: d, n: 60, large: 60, cuts: 4, slow: 16,
				weather: typedrpctest.Conditions{Slice: 1, Latency: time.Millisecond},
			}
			if testkit.Race {
				p.large = 0
			}
			synctest.Test(t, p.run)
		})
	}
}

// overOutages runs a test in both dialects.
func overOutages(t *testing.T, test func(t *testing.T, o *outage)) {
	for name, d := range bothDialects {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOutage(t, d, typedrpc.Limits{}, typedrpctest.Conditions{Latency: time.Millisecond})
				defer o.end()
				test(t, o)
			})
		})
	}
}

// leave takes the link away until open.
func (o *outage) leave() {
	o.path.close()
	o.last().Cut(typedrpctest.CutReset)
	synctest.Wait()
}

func TestOutage_handlersGoOn(t *testing.T) {
	overOutages(t, func(t *testing.T, o *outage) {
		is := is.New(t)
		var calls []*typedrpc.Future[int]
		o.each(func(_ string, caller, _ *typedrpc.Conn) {
			calls = append(calls, typedrpc.Go(t.Context(), caller, outageWait, 1))
			next(t, o.began)
		})
		for range 5 {
			o.leave()
			time.Sleep(time.Minute)
			is.Equal(len(o.ended), 0)
			o.open()
			time.Sleep(moment)
			is.Equal(o.client.State(), typedrpc.StateConnected)
		}
		o.leave()
		close(o.release) // they answer while nobody can hear it
		time.Sleep(time.Minute)
		is.Equal(len(o.ended), 0)
		o.open()
		for _, f := range calls {
			n, err := f.Await(t.Context())
			is.NoErr(err)
			is.Equal(n, -1)
		}
		is.Equal(len(o.began), 0) // none ran again
		is.Equal(o.resumed.Load(), int64(6))
	})
}

func TestOutage_deadlinesPass(t *testing.T) {
	overOutages(t, func(t *testing.T, o *outage) {
		o.each(func(who string, caller, _ *typedrpc.Conn) {
			is := is.New(t)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			began := time.Now()
			f := typedrpc.Go(ctx, caller, outageWait, 1)
			next(t, o.began)
			time.Sleep(time.Second)
			o.leave()
			_, err := f.Await(t.Context())
			is.True(errors.Is(err, typedrpc.DeadlineExceeded))
			is.Equal(outcomeOf(err), typedrpc.MayHaveRun)
			is.Equal(time.Since(began), 5*time.Second)
			is.Equal(next(t, o.ended), context.DeadlineExceeded) // the handler's
			if late := time.Since(began) - 5*time.Second; late > 10*time.Millisecond {
				t.Errorf("the handler of a call of the %s had %v more", who, late)
			}
			next(t, o.limit)
			o.open()
			time.Sleep(time.Second)
		})
	})
}

func TestOutage_cancelArrivesAfterIt(t *testing.T) {
	overOutages(t, func(t *testing.T, o *outage) {
		o.each(func(_ string, caller, callee *typedrpc.Conn) {
			is := is.New(t)
			ctx, cancel := context.WithCancel(t.Context())
			f := typedrpc.Go(ctx, caller, outageWait, 1)
			next(t, o.began)
			o.leave()
			began := time.Now()
			cancel()
			_, err := f.Await(t.Context())
			is.True(errors.Is(err, typedrpc.Canceled))
			is.Equal(outcomeOf(err), typedrpc.MayHaveRun)
			is.Equal(time.Since(began), time.Duration(0))
			time.Sleep(time.Minute)
			is.Equal(len(o.ended), 0) // the handler cannot know
			o.open()
			back := time.Now()
			is.Equal(next(t, o.ended), context.Canceled)
			is.True(time.Since(back) < moment)

			// One that is made and cancelled meanwhile is never seen.
			o.leave()
			ctx, cancel = context.WithCancel(t.Context())
			f = typedrpc.Go(ctx, caller, outageWait, 2)
			time.Sleep(time.Second)
			cancel()
			_, err = f.Await(t.Context())
			is.True(errors.Is(err, typedrpc.Canceled))
			is.Equal(outcomeOf(err), typedrpc.NotSent)
			o.open()
			time.Sleep(time.Second)
			is.Equal(len(o.began), 0)
		})
	})
}

// A CALL that was lost with its link is sent again with the time that it still
// has.
func TestOutage_timeLeftIsLower(t *testing.T) {
	for _, lost := range []time.Duration{5 * time.Second, 30 * time.Second, 59 * time.Second, 70 * time.Second} {
		t.Run(lost.String(), func(t *testing.T) {
			overOutages(t, func(t *testing.T, o *outage) {
				o.each(func(who string, caller, _ *typedrpc.Conn) {
					is := is.New(t)
					d := typedrpctest.Up
					if who == "server" {
						d = typedrpctest.Down
					}
					o.last().Set(d, typedrpctest.Conditions{BlackHole: true})
					limit := time.Now().Add(time.Minute)
					ctx, cancel := context.WithDeadline(t.Context(), limit)
					defer cancel()
					// Several in a message, of which one has no deadline.
					f := typedrpc.Go(ctx, caller, outageWait, 1)
					typedrpc.Go(t.Context(), caller, outageWait, 2).Cancel()
					time.Sleep(time.Millisecond)
					o.leave()
					time.Sleep(lost)
					is.Equal(len(o.began), 0)
					o.open()
					next(t, o.began)
					got := next(t, o.limit)
					late := got.Sub(limit)
					if lost < time.Minute {
						if late > 5*time.Millisecond || late < -5*time.Millisecond {
							t.Errorf("a call of the %s arrived with %v more than it had", who, late)
						}
						_, err := f.Await(t.Context())
						is.True(errors.Is(err, typedrpc.DeadlineExceeded))
					} else if left := time.Until(got); left > 5*time.Millisecond {
						t.Errorf("a call of the %s arrived after its time with %v", who, left)
					}
					next(t, o.ended)
					time.Sleep(time.Second)
					for len(o.began)+len(o.ended) > 0 { // the other one, cancelled behind its CALL
						select {
						case <-o.began:
						case <-o.ended:
						}
					}
				})
			})
		})
	}
}
