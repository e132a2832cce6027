package typedrpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// What a hostile review found, seen from the caller's side; the callee's is in
// regression_server_test.go. Findings that belong to one file's subject are
// tested in that file's test.

// calling are the ways of making a call.
var calling = map[string]func(context.Context, Caller, Method[Empty, int]) error{
	"Call": func(ctx context.Context, c Caller, m Method[Empty, int]) error {
		_, err := Call(ctx, c, m, Empty{})
		return err
	},
	"Go": func(ctx context.Context, c Caller, m Method[Empty, int]) error {
		_, err := Go(ctx, c, m, Empty{}).Await(context.WithoutCancel(ctx))
		return err
	},
}

// later is an error whose hint makes a retry wait for an hour.
func later() *Error { return &Error{Code: Unavailable, Message: "later", RetryAfter: time.Hour} }

// The error of a second attempt that never left hid that the first one had run.
func TestCall_outcomeAfterRetry(t *testing.T) {
	for name, call := range calling {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				f := &flaky{fails: 99, err: Unavailable}
				c := f.dial(t, nil)
				defer c.Close()
				asked := 0
				pool := Pick(func(context.Context, string) (*Conn, error) {
					if asked++; asked > 1 {
						return nil, Errorf(Unavailable, "the pool is empty")
					}
					return c, nil
				})
				err := call(t.Context(), pool.With(CallOptions{Retry: &RetryPolicy{Attempts: 2}}), retryRead)
				is.Equal(asked, 2)
				is.Equal(f.calls.Load(), int64(1))
				is.Equal(outcomeOf(err), MayHaveRun)
			})
		})
	}
}

// A call that was given up while it waited for its retry had the outcome of the
// attempt before: Answered, as if "canceled" had been the peer's word.
func TestCall_outcomeWhenGivenUpBetweenAttempts(t *testing.T) {
	for name, call := range calling {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				f := &flaky{fails: 99, err: later()}
				c := f.dial(t, &RetryPolicy{})
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				err := call(ctx, c, retryRead)
				is.True(errors.Is(err, Canceled))
				is.Equal(outcomeOf(err), MayHaveRun)
				time.AfterFunc(time.Second, func() { c.Close() })
				err = call(t.Context(), c, retryRead)
				is.True(errors.Is(err, Unavailable))
				is.Equal(outcomeOf(err), MayHaveRun)
				is.Equal(f.calls.Load(), int64(2))
			})
		})
	}
}

// Only refused attempts leave a call that may be made again.
func TestCall_outcomeWhenGivenUpAfterRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		l.Limits.MaxCalls = 1
		w := &town{srv: l.Server}
		c := w.dial(t, &DialOptions{Dialect: JSONRPC})
		defer c.Close()
		hold := Go(t.Context(), c, labHang, Empty{})
		synctest.Wait()
		c.mu.Lock()
		c.peer.Calls = 2 // so that the server has something to refuse
		c.mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		patient := c.With(CallOptions{Retry: &RetryPolicy{Codes: []Code{ResourceExhausted}, Attempts: 1000, Backoff: Backoff{Min: time.Minute, Max: time.Minute}}})
		_, err := Call(ctx, patient, labEcho, 1)
		is.Equal(outcomeOf(err), NotSent)
		close(l.release)
		_, err = hold.Await(t.Context())
		is.NoErr(err)
	})
}

// An interceptor's own error said NotSent although next had succeeded.
func TestInterceptor_outcomeOfOwnError(t *testing.T) {
	mine := errors.New("bad signature")
	after := func(ctx context.Context, r *Request, next RawHandler) (Raw, error) {
		if _, err := next(ctx, r); err != nil {
			return nil, err
		}
		return nil, mine
	}
	before := func(context.Context, *Request, RawHandler) (Raw, error) { return nil, mine }
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		f := &flaky{}
		c := f.dial(t, nil)
		defer c.Close()
		checked, refused := c.With(CallOptions{Interceptors: []Interceptor{after}}), c.With(CallOptions{Interceptors: []Interceptor{before}})
		for _, call := range calling {
			err := call(t.Context(), checked, retryWrite)
			is.True(errors.Is(err, mine))
			is.Equal(outcomeOf(err), MayHaveRun)
			err = call(t.Context(), refused, retryWrite)
			is.Equal(outcomeOf(err), NotSent)
		}
		is.Equal(f.calls.Load(), int64(len(calling)))
		is.Equal(outcomeOf(Notify(t.Context(), checked, labNote, 1)), MayHaveRun)
		is.Equal(outcomeOf(Notify(t.Context(), refused, labNote, 1)), NotSent)
	})
}

// What next says of a call that never left is the call's outcome.
func TestInterceptor_outcomeOfNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		f := &flaky{}
		c := f.dial(t, nil)
		is.NoErr(c.Close())
		through := c.With(CallOptions{Interceptors: []Interceptor{func(ctx context.Context, r *Request, next RawHandler) (Raw, error) {
			_, err := next(ctx, r)
			return nil, fmt.Errorf("wrapped: %w", err)
		}}})
		for _, call := range calling {
			is.Equal(outcomeOf(call(t.Context(), through, retryWrite)), NotSent)
		}
	})
}

// An invalid policy of a call panicked; it is the call's error.
func TestCallOptions_invalidRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		f := &flaky{}
		c := f.dial(t, nil)
		defer c.Close()
		picked := Pick(func(context.Context, string) (*Conn, error) { return c, nil })
		for _, p := range []RetryPolicy{{Attempts: -1}, {Backoff: Backoff{Min: -1}}, {Backoff: Backoff{Factor: 0.5}}, {Backoff: Backoff{Min: 2, Max: 1}}} {
			for _, caller := range []Caller{c, picked, c.With(CallOptions{FailFast: true})} {
				bad := caller.With(CallOptions{Retry: &p}).With(CallOptions{FailFast: true})
				for _, call := range calling {
					err := call(t.Context(), bad, retryWrite)
					is.True(errors.Is(err, InvalidArgument))
					is.Equal(outcomeOf(err), NotSent)
				}
				is.True(errors.Is(Notify(t.Context(), bad, labNote, 1), InvalidArgument))
			}
		}
		is.Equal(f.calls.Load(), int64(0))
	})
}

// Close and Shutdown did not end a call that waited an hour for its retry, and
// neither did the end of a server's connection.
func TestRetry_endOfConnectionEndsTheWait(t *testing.T) {
	ends := map[string]func(context.Context, *Conn) error{
		"Close":    func(_ context.Context, c *Conn) error { return c.Close() },
		"Shutdown": func(ctx context.Context, c *Conn) error { return c.Shutdown(ctx) },
	}
	for end, quit := range ends {
		for name, call := range calling {
			for _, side := range []string{"client", "server"} {
				t.Run(end+"/"+name+"/"+side, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						is := is.New(t)
						f := &flaky{fails: 99, err: later()}
						mux := NewMux()
						Handle(mux, retryRead, f.handle)
						p := &RetryPolicy{}
						l := newLab()
						l.Mux, l.Retry = mux, p
						c, s, err := dialPipe(t.Context(), l.Server, &DialOptions{Mux: mux, Retry: p, Backoff: Backoff{Min: time.Hour, Max: time.Hour}})
						is.NoErr(err)
						defer c.Close()
						caller := c
						if side == "server" {
							caller = s
						}
						began := time.Now()
						time.AfterFunc(time.Second, func() { quit(t.Context(), caller) })
						err = call(t.Context(), caller, retryRead)
						is.True(errors.Is(err, Unavailable))
						is.Equal(outcomeOf(err), MayHaveRun)
						is.Equal(time.Since(began), time.Second)
						is.Equal(f.calls.Load(), int64(1))
					})
				})
			}
		}
	}
}

// A server's connection whose client left kept its calls waiting for a retry.
func TestRetry_lostServerConnectionEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		f := &flaky{fails: 99, err: later()}
		mux := NewMux()
		Handle(mux, retryRead, f.handle)
		c, s, err := dialPipe(t.Context(), newLab().Server, &DialOptions{Mux: mux})
		is.NoErr(err)
		fut := Go(t.Context(), s.With(CallOptions{Retry: &RetryPolicy{}}), retryRead, Empty{})
		time.Sleep(time.Second)
		is.NoErr(c.Close())
		began := time.Now()
		_, err = fut.Await(t.Context())
		is.True(errors.Is(err, Unavailable))
		is.Equal(time.Since(began), time.Duration(0))
	})
}

// Giving a call up raced with the attempt that a timer was just making on
// another connection: the call hung, or was settled twice. For -race, too.
func TestRetry_giveUpRacesWithTheNextAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		f := &flaky{fails: 1 << 40, err: Unavailable}
		conns := []*Conn{f.dial(t, nil), f.dial(t, nil), f.dial(t, nil)}
		var turn atomic.Int64
		pool := Pick(func(context.Context, string) (*Conn, error) {
			return conns[turn.Add(1)%int64(len(conns))], nil
		}).With(CallOptions{Retry: &RetryPolicy{Attempts: 1000, Backoff: Backoff{Min: 1, Max: 5}, Budget: NewRetryBudget(1000, 100_000)}})
		var wg sync.WaitGroup
		for g := range 8 {
			rng := rand.New(rand.NewPCG(1, uint64(g)))
			wg.Go(func() {
				for range 200 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+rng.IntN(50)))
					fut := Go(ctx, pool, retryRead, Empty{})
					time.AfterFunc(time.Duration(1+rng.IntN(50)), fut.Cancel)
					_, err := Call(ctx, pool, retryRead, Empty{})
					if err == nil {
						t.Error("a call that always fails succeeded")
					}
					if _, err = fut.Await(t.Context()); err == nil {
						t.Error("a future that always fails succeeded")
					}
					cancel()
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		for _, c := range conns {
			c.mu.Lock()
			left := len(c.pending) + c.slots + c.held + c.waiting.len + c.queue.len + len(c.resting)
			c.mu.Unlock()
			is.Equal(left, 0) // nothing is counted that is no more
			is.NoErr(c.Close())
		}
	})
}

// The flags of the first attempt went with the next one, to a connection where
// they were not true: nested, a call fails instead of waiting for its turn;
// with LANE, a busy lane refuses it.
func TestRetry_flagsAreOfTheAttempt(t *testing.T) {
	front := NewMethod[int, Empty]("front", Serial)
	back := NewMethod[Empty, Empty]("back", Idempotent)
	for _, callersFirst := range []bool{true, false} {
		t.Run(fmt.Sprint("caller's connection first: ", callersFirst), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				var tries atomic.Int64
				lane := make(chan bool, 1)
				handle := func(ctx context.Context, _ Empty) (Empty, error) {
					if tries.Add(1) == 1 {
						return Empty{}, &Error{Code: Unavailable}
					}
					lane <- inboundFrom(ctx).ordered
					return Empty{}, nil
				}
				here, there := NewMux(), newLab()
				there.Limits.MaxCalls = 1
				Handle(here, back, handle)
				Handle(there.Mux, back, handle)
				other, _, err := dialPipe(t.Context(), there.Server, nil)
				is.NoErr(err)
				defer other.Close()
				l := newLab()
				Handle(l.Mux, front, func(ctx context.Context, _ int) (Empty, error) {
					first, second := ConnFrom(ctx), other
					if !callersFirst {
						first, second = second, first
					}
					asked := 0
					pool := Pick(func(context.Context, string) (*Conn, error) {
						if asked++; asked == 1 {
							return first, nil
						}
						if callersFirst { // its only place is taken for a while
							Go(t.Context(), other, labHang, Empty{})
							time.AfterFunc(time.Minute, func() { close(there.release) })
						}
						return second, nil
					})
					return Call(ctx, pool.With(CallOptions{Retry: &RetryPolicy{}}), back, Empty{})
				})
				c, _, err := dialPipe(t.Context(), l.Server, &DialOptions{Mux: here})
				is.NoErr(err)
				defer c.Close()
				_, err = Call(t.Context(), c, front, 1)
				is.NoErr(err)
				is.Equal(tries.Load(), int64(2))
				is.Equal(<-lane, !callersFirst) // LANE goes only where the lane is
			})
		})
	}
}

// Honest concurrent large requests were refused because nobody said how many
// bytes the server holds at once.
func TestLimits_budgetIsWaitedFor(t *testing.T) {
	upload := NewMethod[[]byte, int]("upload")
	for _, d := range []Dialect{Binary, JSONRPC} {
		for _, load := range []struct{ n, size int }{{16, 1 << 20}, {256, 64 << 10}} {
			if d == JSONRPC && load.n > 16 {
				continue // the same, and slow under -race
			}
			t.Run(fmt.Sprint(d, "/", load.n), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					is := is.New(t)
					l := newLab()
					Handle(l.Mux, upload, func(_ context.Context, b []byte) (int, error) {
						time.Sleep(200 * time.Millisecond)
						return len(b), nil
					})
					c, _, err := dialPipe(t.Context(), l.Server, &DialOptions{Dialect: d})
					is.NoErr(err)
					defer c.Close()
					var fs []*Future[int]
					for range load.n {
						fs = append(fs, Go(t.Context(), c, upload, make([]byte, load.size)))
					}
					for _, f := range fs {
						n, err := f.Await(t.Context())
						is.NoErr(err)
						is.Equal(n, load.size)
					}
				})
			})
		}
	}
}

// A call in flight that is cancelled keeps its bytes until the server is done
// with them, and a request larger than the budget goes alone.
func TestLimits_budgetOfCancelledCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		upload := NewMethod[string, Empty]("upload")
		l := newLab()
		l.Limits.MaxBuffered = 10_000
		var most, now atomic.Int64
		Handle(l.Mux, upload, func(context.Context, string) (Empty, error) {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Second) // whether or not somebody waits for it
			now.Add(-1)
			return Empty{}, nil
		})
		c, _, err := dialPipe(t.Context(), l.Server, nil)
		is.NoErr(err)
		defer c.Close()
		for range 4 {
			f := Go(t.Context(), c, upload, strings.Repeat("x", 4000))
			synctest.Wait()
			f.Cancel()
		}
		_, err = Call(t.Context(), c, upload, strings.Repeat("x", 9000))
		is.NoErr(err)
		_, err = Call(t.Context(), c, upload, strings.Repeat("x", 50_000))
		is.NoErr(err)
		is.Equal(most.Load(), int64(2)) // of 4,000 bytes each
	})
}

// A redial wrote codec and dialect again while calls were reading them. For
// -race.
func TestReconnect_whileCalling(t *testing.T) {
	for _, d := range []Dialect{Binary, JSONRPC, PlainJSONRPC} {
		t.Run(fmt.Sprint(d), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				w, _, c := reconnected(t, &DialOptions{Dialect: d, Backoff: Backoff{Min: 1, Max: 1}})
				defer c.Close()
				ctx, stop := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				for range 4 {
					wg.Go(func() {
						for ctx.Err() == nil {
							Call(ctx, c, labEcho, 1)
							Notify(ctx, c, labNote, 1)
							c.Codec()
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
				is.True(w.dialled() > 10)
			})
		})
	}
}

// Calls that a draining server refused went to the next one behind calls that
// were made after them.
func TestSerial_orderAcrossDrain(t *testing.T) {
	goaway := wire.GoAwayBody{Min: 1, Max: 10}
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		got := make(chan string, 10)
		_, c := scripted(t, &DialOptions{Backoff: steady}, func(n int, p *wirePeer) {
			p.until(wire.Hello)
			p.answers = true
			welcome := wire.WelcomeBody{Token: "token", Limits: wire.Limits{Calls: 3}}
			p.send(wire.Frame{Type: wire.Welcome, Payload: welcome.Append(nil)})
			if n == 1 {
				for range 3 { // the others wait for a place
					p.until(wire.Call)
				}
				p.send(wire.Frame{Type: wire.GoAway, Payload: goaway.Append(nil)})
				for _, id := range []uint64{3, 1, 2} {
					p.send(wire.Frame{Type: wire.Fail, Flags: wire.NotRun, ID: id, Code: int64(Unavailable)})
				}
				p.closeCode()
				return
			}
			for range 6 {
				f, err := p.until(wire.Call)
				if err != nil {
					return
				}
				got <- string(f.Payload)
				p.send(wire.Frame{Type: wire.Result, ID: f.ID, Payload: f.Payload})
			}
			p.closeCode()
		})
		defer c.Close()
		m := NewMethod[int, int]("one.by.one", Serial)
		var fs []*Future[int]
		for i := range 6 {
			fs = append(fs, Go(t.Context(), c, m, i))
		}
		_, err := All(t.Context(), fs...)
		is.NoErr(err)
		for i := range 6 {
			is.Equal(<-got, fmt.Sprint(i))
		}
	})
}

// Close waited for its patience twice, once for the queue and once for the
// goodbye, when the peer read nothing.
func TestConn_closeOfAPeerThatReadsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		done := make(chan struct{})
		_, c := scripted(t, nil, func(_ int, p *wirePeer) {
			p.welcome()
			<-done // and reads nothing any more
			p.t.Kill()
		})
		upload := NewMethod[string, Empty]("upload")
		for range 10 {
			Go(t.Context(), c, upload, strings.Repeat("x", 300<<10))
		}
		is.NoErr(Notify(t.Context(), c, labNote, 1))
		time.Sleep(time.Second)
		began := time.Now()
		is.NoErr(c.Close())
		is.True(time.Since(began) <= closePatience+time.Second)
		close(done)
	})
}

// A WELCOME or HELLO that announces nothing announced limits of 0, and nothing
// could be sent.
func TestLimits_announcedByNobody(t *testing.T) {
	is := is.New(t)
	def, err := Limits{}.withDefaults()
	is.NoErr(err)
	is.Equal(announcedBy(wire.Limits{}), def.announced())
	is.Equal(announcedBy(wire.Limits{Message: 1, Depth: 9}), wire.Limits{
		Message: 1, Calls: uint64(def.MaxCalls), Window: uint64(def.Window), Budget: uint64(def.MaxBuffered), Depth: 9,
	})
	all := wire.Limits{Message: 1, Calls: 2, Window: 3, Budget: 4, Depth: 5}
	is.Equal(announcedBy(all), all)

	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		_, c := scripted(t, nil, func(_ int, p *wirePeer) {
			p.until(wire.Hello)
			p.answers = true
			w := wire.WelcomeBody{Token: "token"}
			p.send(wire.Frame{Type: wire.Welcome, Payload: w.Append(nil)})
			f, _ := p.until(wire.Call)
			p.send(wire.Frame{Type: wire.Result, ID: f.ID, Payload: f.Payload})
			p.closeCode()
		})
		defer c.Close()
		n, err := Call(t.Context(), c, labEcho, 7)
		is.NoErr(err)
		is.Equal(n, 7)
	})
}

// Idle links held the buffer of their last message, however large.
func TestConn_idleHoldsNoLargeBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		upload := NewMethod[string, Empty]("upload")
		l := newLab()
		Handle(l.Mux, upload, func(context.Context, string) (Empty, error) { return Empty{}, nil })
		heap := func() int64 {
			time.Sleep(10 * time.Second) // writers rest
			synctest.Wait()
			runtime.GC() // twice: what is pooled survives one
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc)
		}
		conns := make([]*Conn, 100)
		for i := range conns {
			c, _, err := dialPipe(t.Context(), l.Server, nil)
			is.NoErr(err)
			conns[i] = c
		}
		before := heap()
		body := strings.Repeat("x", 100<<10)
		for _, c := range conns {
			_, err := Call(t.Context(), c, upload, body)
			is.NoErr(err)
		}
		for _, c := range conns { // a second, small one: the reader has begun anew
			_, err := Call(t.Context(), c, upload, "")
			is.NoErr(err)
		}
		is.True(heap()-before < int64(len(conns))*20<<10)
		for _, c := range conns {
			is.NoErr(c.Close())
		}
	})
}

// Plain peers, which are told no limit, were closed with 4429 when they passed
// it often enough.
func TestLimits_plainPeerIsOnlyRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		l.Limits.MaxCalls = 4
		p, err := join(l.Server, "")
		is.NoErr(err)
		is.Equal(p.dialect, session.Plain)
		for i := range 2 * floodBurst {
			is.NoErr(p.write(fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%d,"method":"lab.hang"}`, i)))
			if i < 4 {
				continue
			}
			f, err := p.until(wire.Fail)
			is.NoErr(err)
			is.Equal(string(f.RawID), fmt.Sprint(i))
			is.Equal(Code(f.Code), ResourceExhausted)
		}
		is.Equal(l.hung.Load(), int64(4))
		close(l.release)
		for range 4 {
			f, err := p.until(wire.Result)
			is.NoErr(err)
			is.True(len(f.RawID) == 1)
		}
		is.NoErr(p.write([]byte(`{"jsonrpc":"2.0","id":"last","method":"lab.echo","params":[5]}`)))
		f, err := p.next()
		is.NoErr(err)
		is.Equal(string(f.Payload), "5")
		p.t.Kill()
	})
}

// Notifications that had been received and acknowledged were dropped when their
// sender closed the connection after them: Close waits for the handlers now.
func TestNotify_thenClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		note := NewNotification[int]("note")
		mux := NewMux()
		var got []int
		HandleNotification(mux, note, func(_ context.Context, n int) {
			time.Sleep(time.Millisecond) // slower than the sender
			got = append(got, n)
		})
		c, _, err := dialPipe(t.Context(), &Server{Mux: mux}, nil)
		is.NoErr(err)
		for i := range 200 {
			is.NoErr(Notify(t.Context(), c, note, i))
		}
		is.NoErr(c.Close())
		synctest.Wait()
		is.Equal(len(got), 200)
		is.True(slices.IsSorted(got))
	})
}

// The panic of an outgoing interceptor ended the process when the call was made
// with Go, on whose goroutine nobody else can recover.
func TestGo_interceptorPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		c, _, err := dialPipe(t.Context(), l.Server, &DialOptions{Logger: slog.New(slog.DiscardHandler)})
		is.NoErr(err)
		for _, end := range []func(){func() { panic("oops") }, runtime.Goexit} {
			with := c.With(CallOptions{Interceptors: []Interceptor{func(context.Context, *Request, RawHandler) (Raw, error) {
				end()
				return nil, nil
			}}})
			_, err = Go(t.Context(), with, labEcho, 1).Await(t.Context())
			is.True(errors.Is(err, Internal))
		}
		is.NoErr(c.Close())
	})
}

// Only the bytes of replies counted in the budget: a peer that read slowly made
// the server keep a million small ones, with all that belonged to their calls.
func TestLimits_smallRepliesCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		l.Limits.MaxBuffered = 64 << 10
		p, err := join(l.Server, codecProtocol(JSON))
		is.NoErr(err)
		defer p.t.Kill()
		_, err = p.hello()
		is.NoErr(err)
		var c *Conn
		for conn := range l.Conns() {
			c = conn
		}
		for id := range uint64(100_000) { // nothing is read
			is.NoErr(p.send(wire.Frame{Type: wire.Call, ID: id + 1, Method: "lab.echo", Payload: []byte("1")}))
			synctest.Wait()
			c.mu.Lock()
			queued, parked := c.queue.len, len(c.parked)
			c.mu.Unlock()
			if parked > 0 {
				is.True(queued <= 64) // 64 KiB, at a kibibyte for each
				return
			}
		}
		t.Error("the server goes on for a peer that reads nothing")
	})
}
