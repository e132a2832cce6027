package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// No restart: the gap is the last pair for a stream that is not restartable. A loop
// over one that is may go on at gaps, and is told that there is no more.
func TestRestart_notFor(t *testing.T) {
	for name, receive := range map[string]func(t *testing.T, c *typedrpc.Conn, srv *typedrpc.Server) (iter.Seq2[int, error], *typedrpc.Conn){
		"other declarations": func(t *testing.T, c *typedrpc.Conn, _ *typedrpc.Server) (iter.Seq2[int, error], *typedrpc.Conn) {
			return typedrpc.Receive(t.Context(), c, numbersOnce, numbers{To: 2}), c
		},
		"FailFast": func(t *testing.T, c *typedrpc.Conn, _ *typedrpc.Server) (iter.Seq2[int, error], *typedrpc.Conn) {
			return typedrpc.Receive(t.Context(), c.With(typedrpc.CallOptions{FailFast: true}), numbersOn, numbers{To: 2}), c
		},
		"a server's connection": func(t *testing.T, c *typedrpc.Conn, srv *typedrpc.Server) (iter.Seq2[int, error], *typedrpc.Conn) {
			var far *typedrpc.Conn
			for far = range srv.Conns() {
			}
			return typedrpc.Receive(t.Context(), far, numbersOn, numbers{To: 2}), far
		},
	} {
		t.Run(name, func(t *testing.T) {
			lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
				is := is.New(t)
				k := &counter{stop: func(_, n int) bool { return n == 2 }}
				w, c := countingTown(t, d, k, typedrpc.DialOptions{Mux: k.mux()})
				seq, _ := receive(t, c, w.Srv)
				h := hear(seq)
				is.Equal(h.take(), []string{"1"})
				w.Cable().Cut()
				is.Equal(h.take(), []string{"gap", "unavailable"})
				is.True(h.over())
				time.Sleep(time.Hour)
				is.Equal(len(k.requests()), 1)
				is.NoErr(c.Close())
			})
		})
	}
}

// A server that shuts down ends its streams by itself. They go on at the next.
func TestRestart_peersShutdown(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		k := &counter{stop: func(opening, n int) bool { return n == 2*opening+3 }}
		w, c := countingTown(t, d, k, typedrpc.DialOptions{})
		h := hear(typedrpc.Receive(t.Context(), c, numbersOn, numbers{To: 100}))
		is.Equal(h.take(), []string{"1", "2"})
		for i := range 5 {
			old := w.Srv
			l := lab.New()
			l.Mux = k.mux()
			w.Serve(l.Server)
			is.NoErr(old.Shutdown(t.Context()))
			time.Sleep(time.Minute)
			is.Equal(h.take(), []string{"gap", fmt.Sprint(2*i + 3), fmt.Sprint(2*i + 4)})
		}
		is.NoErr(c.Close())
		is.Equal(h.take(), []string{"unavailable"})
		is.Equal(len(k.requests()), 6)
		lab.Settled(t, c)
	})
}

// A panic of the program's function is the loop's.
func TestRestart_nextPanics(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		k := &counter{stop: func(_, n int) bool { return n == 2 }}
		w, c := countingTown(t, d, k, typedrpc.DialOptions{})
		panics := numbersOnce.Restartable(func(numbers, *int) numbers { panic("of next") })
		func() {
			defer func() { is.Equal(recover(), "of next") }()
			for _, err := range typedrpc.Receive(t.Context(), c, panics, numbers{To: 2}) {
				if err == nil {
					w.Cable().Cut()
				}
			}
		}()
		lab.Settled(t, c)
		is.NoErr(c.Close())
	})
}

func TestRestart_requestThatCannotBeSent(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		var stream = typedrpc.NewServerStream[string, int]("restart.large", typedrpc.MaxSize(100))
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, stream, func(ctx context.Context, _ string, send func(int) error) error {
			<-ctx.Done()
			return send(1)
		})
		l := lab.New()
		l.Mux = mux
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, &typedrpc.DialOptions{Dialect: d, Backoff: lab.Steady})
		defer c.Close()
		h := hear(typedrpc.Receive(t.Context(), c, stream.Restartable(func(string, *int) string { return testkit.Letters(1000) }), ""))
		w.Healed()
		is.Equal(h.take(), []string{"gap", "resource exhausted"})
		is.Equal(typedrpc.OutcomeOf(h.err), typedrpc.MayHaveRun) // the first has
		lab.Settled(t, c)
		is.NoErr(c.Close())
	})
}

// Each opening is picked for, with its own interceptors, metadata and reply.
func TestRestart_pickedAnew(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		k := &counter{stop: func(opening, n int) bool { return opening == 0 && n == 2 }}
		w, a := countingTown(t, d, k, typedrpc.DialOptions{})
		_, b := countingTown(t, d, k, typedrpc.DialOptions{})
		var picked []*typedrpc.Conn
		pool := typedrpc.Pick(func(context.Context, string) (*typedrpc.Conn, error) {
			picked = append(picked, []*typedrpc.Conn{a, b}[len(picked)])
			return picked[len(picked)-1], nil
		})
		h := hear(typedrpc.Receive(t.Context(), pool, numbersOn, numbers{To: 2}))
		is.Equal(h.take(), []string{"1"})
		w.Serve(nil)
		w.Cable().Cut() // and a does not come back
		is.Equal(h.take(), []string{"gap", "2", "not found"})
		is.Equal(picked, []*typedrpc.Conn{a, b})
		is.NoErr(a.Close())
		is.NoErr(b.Close())
	})
}

// A server picks among its clients, none of which it can dial.
func TestRestart_pickedAmongAcceptedConnections(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		k := &counter{stop: func(opening, n int) bool { return opening == 0 && n == 2 }}
		w, c := countingTown(t, d, k, typedrpc.DialOptions{Mux: k.mux()})
		clients := typedrpc.Pick(func(context.Context, string) (*typedrpc.Conn, error) {
			for far := range w.Srv.Conns() {
				return far, nil
			}
			return nil, errors.New("nobody is there")
		})
		h := hear(func(yield func(int, error) bool) {
			for n, err := range typedrpc.Receive(t.Context(), clients, numbersOn, numbers{To: 2}) {
				if !yield(n, err) {
					return
				}
				if errors.Is(err, typedrpc.Gap) {
					time.Sleep(time.Minute) // until somebody is
				}
			}
		})
		is.Equal(h.take(), []string{"1"})
		w.Healed()
		time.Sleep(time.Minute)
		is.Equal(h.take(), []string{"gap", "2", "not found"})
		is.NoErr(c.Close())
	})
}

func TestRestart_pickFails(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		k := &counter{stop: func(opening, n int) bool { return opening == 0 && n == 2 }}
		w, c := countingTown(t, d, k, typedrpc.DialOptions{})
		first := true
		once := typedrpc.Pick(func(context.Context, string) (*typedrpc.Conn, error) {
			if !first {
				return nil, hook.SessionLost(nil) // whatever it is: there is no stream
			}
			first = false
			return c, nil
		})
		h := hear(typedrpc.Receive(t.Context(), once, numbersOn, numbers{To: 2}))
		is.Equal(h.take(), []string{"1"})
		w.Cable().Cut()
		is.Equal(h.take(), []string{"gap", "gap"})
		is.True(h.over())
		is.NoErr(c.Close())
	})
}

func TestRestart_interceptorsSeeEachOpening(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		k := &counter{stop: func(opening, n int) bool { return opening == 0 && n == 2 }}
		var seen []string
		w, c := countingTown(t, d, k, typedrpc.DialOptions{OutgoingInterceptors: []typedrpc.Interceptor{
			func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
				seen = append(seen, "begin "+r.Metadata["who"])
				r.Metadata.Set("who", "changed") // for this opening
				r.OnItem(func(item typedrpc.Raw, _ bool) error { seen = append(seen, string(item)); return nil })
				raw, err := next(ctx, r)
				seen = append(seen, fmt.Sprint("end ", typedrpc.CodeOf(err), errors.Is(err, typedrpc.Gap)))
				return raw, err
			},
		}})
		h := hear(typedrpc.Receive(t.Context(), c.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"who": "me"}}), numbersOn, numbers{To: 2}))
		w.Healed()
		is.Equal(h.take(), []string{"1", "gap", "2", "not found"})
		is.Equal(seen, []string{"begin me", "1", "end unavailable true", "begin me", "2", "end not found false"})
		is.NoErr(c.Close())
	})
}

// An interceptor's error is the stream's, also in place of a gap.
func TestRestart_interceptorHasTheLastWord(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		k := &counter{stop: func(_, n int) bool { return n == 2 }}
		w, c := countingTown(t, d, k, typedrpc.DialOptions{OutgoingInterceptors: []typedrpc.Interceptor{
			func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
				_, err := next(ctx, r)
				return nil, typedrpc.Errorf(typedrpc.Aborted, "instead of %w", err)
			},
		}})
		h := hear(typedrpc.Receive(t.Context(), c, numbersOn, numbers{To: 2}))
		w.Healed()
		is.True(h.over())
		is.Equal(typedrpc.CodeOf(h.err), typedrpc.Aborted)
		is.Equal(len(k.requests()), 1)
		is.NoErr(c.Close())
	})
}

// Where the next session does not keep a loop waiting, the backoff does.
func TestRestart_backoff(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, numbersOnce, func(ctx context.Context, _ numbers, send func(int) error) error {
			typedrpc.ConnFrom(ctx).Close()
			return nil
		})
		l := lab.New()
		l.Mux = mux
		w := &lab.Town{Srv: l.Server}
		openings := 0
		var c *typedrpc.Conn
		fresh := typedrpc.Pick(func(context.Context, string) (*typedrpc.Conn, error) { // no session is waited for
			if openings++; openings == 1000 {
				return nil, typedrpc.Aborted
			}
			var mine atomic.Pointer[typedrpc.Conn]
			c = w.Dial(t, &typedrpc.DialOptions{Dialect: d, Backoff: typedrpc.Backoff{Min: time.Minute, Max: time.Minute}, OnState: func(s typedrpc.StateChange) {
				if s.State == typedrpc.StateWaiting { // that it ends for good is no reason for haste
					mine.Load().Close()
				}
			}})
			mine.Store(c)
			return c, nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Hour)
		defer cancel()
		h := hear(typedrpc.Receive(ctx, fresh, numbersOn, numbers{}))
		<-h.done
		is.Equal(h.take(), []string{"gap", "deadline exceeded"})
		is.True(openings > 500 && openings < 700) // half a minute each, more or less
		is.NoErr(c.Close())
	})
}

// A stream that is idle for long is not one that breaks off at once.
func TestRestart_idleStreamsStartTheBackoffOver(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		k := &counter{stop: func(int, int) bool { return true }}
		w, c := countingTown(t, d, k, typedrpc.DialOptions{Backoff: typedrpc.Backoff{Min: time.Second, Max: 100 * time.Hour, Factor: 4}})
		h := hear(typedrpc.Receive(t.Context(), c, numbersOn, numbers{To: 1}))
		for i := range 12 {
			time.Sleep(time.Minute)
			is.Equal(len(k.requests()), i+1)
			w.Cable().Cut()
			time.Sleep(10 * time.Second)
			is.Equal(len(k.requests()), i+2)
		}
		is.Equal(h.take(), []string{"gap"})
		is.NoErr(c.Close())
		is.True(h.over())
	})
}

// Every number comes once, whatever the lines do.
func TestRestart_randomCuts(t *testing.T) {
	cuts := testkit.Size(1000, 1000)
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		k := &counter{stop: func(int, int) bool {
			if n := rand.IntN(8); n < 4 {
				time.Sleep(time.Duration(n) * time.Millisecond)
			}
			return false
		}}
		w, c := countingTown(t, d, k, typedrpc.DialOptions{Backoff: typedrpc.Backoff{Min: 10 * time.Millisecond, Max: 10 * time.Millisecond}})
		var enough atomic.Bool
		go func() {
			for w.Dialled() <= cuts {
				time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
				w.Cable().Cut()
			}
			enough.Store(true)
		}()
		last, gaps, pairs := 0, 0, 0
		for n, err := range typedrpc.Receive(t.Context(), c, numbersOn, numbers{To: 1 << 30}) {
			if errors.Is(err, typedrpc.Gap) {
				gaps++
				if pairs++; pairs > 1 {
					t.Fatal("two gaps with no item between them")
				}
				continue
			}
			is.NoErr(err)
			if n != last+1 {
				t.Fatalf("%d came after %d", n, last)
			}
			last, pairs = n, 0
			if enough.Load() {
				break
			}
		}
		losses := w.Dialled() - 1
		is.True(losses >= cuts)
		is.True(gaps >= 1 && gaps <= losses)
		lab.Settled(t, c)
		is.NoErr(c.Close())
		t.Logf("%d numbers, %d losses, %d gaps, %d openings", last, losses, gaps, len(k.requests()))
	})
}
