package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// distant connects a client to srv over a path with a round trip of rtt.
func distant(t *testing.T, rtt time.Duration, srv *typedrpc.Server, o *typedrpc.DialOptions) *typedrpc.Conn {
	t.Helper()
	connect := func(_ context.Context, _ string, offers []string) (link.Transport, string, *http.Response, error) {
		near, one := link.Pipe()
		two, far := link.Pipe()
		go delay(one, two, rtt/2)
		go delay(two, one, rtt/2)
		name, refused := hook.Accept(srv, far, testkit.NewUpgrade(), offers)
		if refused != nil {
			near.Kill()
			far.Kill()
			return nil, "", refused, errors.New("refused")
		}
		return near, name, nil, nil
	}
	c, err := typedrpc.Dial(t.Context(), "ws://far/", hook.Connect(o, connect).(*typedrpc.DialOptions))
	is.New(t).NoErr(err)
	t.Cleanup(func() {
		c.Close()
		time.Sleep(10 * time.Second) // for what is on its way
	})
	return c
}

// delay passes messages on, each so much later.
func delay(from, to link.Transport, by time.Duration) {
	type message struct {
		due  time.Time
		b    *buf.Buf
		text bool
		err  error
	}
	way := make(chan message, 100_000)
	go func() {
		for {
			b, text, err := from.Read(func() {})
			way <- message{time.Now().Add(by), b, text, err}
			if err != nil {
				return
			}
		}
	}()
	for m := range way {
		time.Sleep(time.Until(m.due))
		if m.err != nil {
			to.Kill()
			from.Kill()
			return
		}
		to.Write(m.b.B, m.text, func() {})
		m.b.Release()
	}
}

// widest is what a window may grow to.
const widest = 1 << 20

// rates are the items that came in the first round trip after the first one,
// and in one of the last.
type rates struct{ first, steady, window int }

// measure receives items of n bytes over a path.
func measure(t *testing.T, rtt time.Duration, n int, limits typedrpc.Limits) rates {
	t.Helper()
	down := typedrpc.NewServerStream[struct{}, typedrpc.Bytes]("flow.endless")
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, down, func(_ context.Context, _ struct{}, send func(typedrpc.Bytes) error) error {
		item := make(typedrpc.Bytes, n)
		for {
			if err := send(item); err != nil {
				return err
			}
		}
	})
	quiet := slog.New(slog.DiscardHandler)
	c := distant(t, rtt, &typedrpc.Server{Mux: mux, Logger: quiet}, &typedrpc.DialOptions{Limits: limits, Logger: quiet})
	const trips, last = 12, 4
	var r rates
	var began time.Time
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, err := range typedrpc.Receive(ctx, c, down, struct{}{}) {
		if err != nil {
			t.Error(err)
			break
		}
		if began.IsZero() {
			began = time.Now().Add(-1)
		}
		switch trip := int(time.Since(began) / rtt); {
		case trip == 0:
			r.first++
		case trip == trips:
			for _, s := range hook.Conn(c).Streams {
				r.window = s.Window
			}
			cancel()
			r.steady /= last
			return r
		case trip >= trips-last:
			r.steady++
		}
	}
	return r
}

// The window grows to what a long path holds, for tiny items and large ones
// (docs/design.md has the table).
func TestFlow_windowOverALongPath(t *testing.T) {
	for _, n := range []int{64, 32 << 10} {
		for _, rtt := range []time.Duration{time.Millisecond, 50 * time.Millisecond, 200 * time.Millisecond} {
			testkit.Bubble(t, fmt.Sprint(n, "/", rtt), func(t *testing.T, is *is.I) {
				r := measure(t, rtt, n, typedrpc.Limits{})
				perSecond := func(items int) string {
					rate := float64(items) / rtt.Seconds()
					return fmt.Sprintf("%8.0f items/s %7.2f MiB/s", rate, rate*float64(n)/(1<<20))
				}
				t.Logf("| %6d B | %4d ms | first %s | steady %s | window %4d KiB |",
					n, rtt.Milliseconds(), perSecond(r.first), perSecond(r.steady), r.window>>10)
				is.Equal(r.window, widest)
				is.True(r.steady*(n+testkit.MessageOverhead) >= widest*8/10) // at least 80 % of window/RTT
			})
		}
	}
}

// A window that the receiver is too slow for does not grow.
func TestFlow_windowOfASlowReceiverStays(t *testing.T) {
	for _, n := range []int{64, 1000, 40_000, 100_000} {
		testkit.Bubble(t, fmt.Sprint(n), func(t *testing.T, is *is.I) {
			mux := typedrpc.NewMux()
			typedrpc.Handle(mux, lab.FlowDown, func(_ context.Context, _ int, send func(string) error) error {
				for {
					if err := send(testkit.Letters(n)); err != nil {
						return err
					}
				}
			})
			quiet := slog.New(slog.DiscardHandler)
			c := distant(t, 10*time.Millisecond, &typedrpc.Server{Mux: mux, Logger: quiet}, &typedrpc.DialOptions{Logger: quiet})
			// The whole window takes the receiver a second.
			pace, left := time.Second*time.Duration(n+testkit.MessageOverhead)/(64<<10), 3*(64<<10)/n+10
			for range typedrpc.Receive(t.Context(), c, lab.FlowDown, 1) {
				time.Sleep(pace)
				is.Equal(hook.Conn(c).Grown, 0)
				if left--; left == 0 {
					break
				}
			}
			lab.Settled(t, c)
		})
	}
}

// bounded fails the test if a stream of c holds more than its window, one item
// excepted.
func bounded(t *testing.T, c *typedrpc.Conn, largest int) {
	for _, s := range hook.Conn(c).Streams {
		if most := max(s.Window, largest+testkit.MessageOverhead); s.Got > most || s.Out > most {
			t.Errorf("%d bytes are held and %d out, the window is %d", s.Got, s.Out, s.Window)
		}
	}
}

// TestFlow_model sends items of random sizes through random windows to random
// consumers, on both sides at once: none may wait for ever, get lost, change
// places, or be more than the window holds.
func TestFlow_model(t *testing.T) {
	for seed := range uint64(testkit.Size(30, 30)) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 0))
			largest := []int{10, 300, 5000, 70_000, 200_000}[rng.IntN(5)]
			limits := typedrpc.Limits{Window: 100 + rng.IntN([]int{200, 2000, 100_000}[rng.IntN(3)]), MaxBuffered: 1000 + rng.IntN(200_000)}
			items := 20 + 800_000/(largest+10_000)
			sizes := make([]int, items)
			for i := range sizes {
				sizes[i] = 8 + rng.IntN(largest)
			}
			// pump sends all sizes and receives them on the same stream.
			pump := func(s *typedrpc.Stream[string, string], seed uint64, conn *typedrpc.Conn) {
				var both sync.WaitGroup
				pause := func(rng *rand.Rand) {
					switch rng.IntN(12) {
					case 0:
						time.Sleep(time.Duration(rng.IntN(50)) * time.Millisecond)
					case 1:
						runtime.Gosched()
					}
				}
				both.Go(func() {
					rng := rand.New(rand.NewPCG(seed, 1))
					for i, n := range sizes {
						pause(rng)
						if err := s.Send(fmt.Sprintf("%08d%s", i, testkit.Letters(n-8))); err != nil {
							t.Error(seed, "send", i, err)
							return
						}
					}
					s.CloseSend()
				})
				both.Go(func() {
					rng := rand.New(rand.NewPCG(seed, 2))
					lazy := rng.IntN(2) == 0
					for i, n := range sizes {
						pause(rng)
						if lazy && i%40 == 0 {
							time.Sleep(time.Second)
							bounded(t, conn, largest+8)
						}
						if v, err := s.Recv(); err != nil || len(v) != n || v[:8] != fmt.Sprintf("%08d", i) {
							t.Error(seed, "receive", i, len(v), n, err)
							return
						}
					}
				})
				both.Wait()
			}
			mux := lab.Bidi(func(ctx context.Context, _ string, s *typedrpc.Stream[string, string]) error {
				pump(s, rng.Uint64(), typedrpc.ConnFrom(ctx))
				return nil
			})
			d := []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text}[seed%2]
			c, s := lab.Joined(t, d, mux, limits)
			var streams sync.WaitGroup
			for i := range 1 + rng.IntN(3) {
				conn := []*typedrpc.Conn{c, s}[i%2]
				stream, err := typedrpc.Open(t.Context(), conn, lab.FlowBoth, "")
				if err != nil {
					t.Error(err)
					return
				}
				streams.Go(func() {
					pump(stream, uint64(i), conn)
					if _, err := stream.Recv(); err != io.EOF {
						t.Error(seed, err)
					}
				})
				synctest.Wait() // rng is the handler's too
			}
			streams.Wait()
			lab.Settled(t, c, s)
		})
	}
}

// sendAway sends until it cannot, and counts.
func sendAway(s *typedrpc.Stream[string, string], n int, sent *atomic.Int64) {
	for s.Send(testkit.Letters(n)) == nil {
		sent.Add(1)
	}
}

// A receiver that stops reading costs at most its window, while everything
// else goes on.
func TestFlow_stalledReceiver(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		mux := lab.Bidi(func(ctx context.Context, req string, s *typedrpc.Stream[string, string]) error {
			if req == "stall" {
				return lab.Lingers(ctx, req, s)
			}
			return lab.EchoItems(ctx, req, s)
		})
		c, s := lab.Joined(t, d, mux, typedrpc.Limits{})
		var sent atomic.Int64
		stalled, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "stall")
		is.NoErr(err)
		go sendAway(stalled, 998, &sent)
		synctest.Wait()
		is.Equal(int(sent.Load()), 64<<10/(1000+64))
		is.True(hook.Conn(s).Unread <= 64<<10)
		began := time.Now()
		echo, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
		is.NoErr(err)
		for range 1000 {
			is.NoErr(echo.Send(testkit.Letters(998)))
			_, err := echo.Recv()
			is.NoErr(err)
		}
		_, err = typedrpc.Call(t.Context(), c, lab.FlowCall, testkit.Letters(300_000))
		is.NoErr(err)
		is.Equal(time.Since(began), time.Duration(0)) // nothing waited
		bounded(t, s, 1000)
		stalled.Cancel()
		echo.Cancel()
		lab.Settled(t, c, s)
	})
}

// With the connection's budget spent by stalled streams, others still go on,
// a small item at a time.
func TestFlow_budgetOfTheConnection(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		mux := lab.Bidi(func(ctx context.Context, req string, s *typedrpc.Stream[string, string]) error {
			if req == "stall" {
				return lab.Lingers(ctx, req, s)
			}
			return lab.EchoItems(ctx, req, s)
		})
		limits := typedrpc.Limits{MaxBuffered: 100_000, MaxCalls: 16} // a sixteenth is every stream's
		c, s := lab.Joined(t, d, mux, limits)
		var sent atomic.Int64
		var stalled []*typedrpc.Stream[string, string]
		for range 10 {
			stream, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "stall")
			is.NoErr(err)
			stalled = append(stalled, stream)
			go sendAway(stream, 998, &sent)
		}
		synctest.Wait()
		unread := hook.Conn(s).Unread
		is.True(unread > 90_000)
		is.True(unread <= limits.MaxBuffered+10*1064) // one of each stream excepted
		is.True(hook.Conn(c).SentItems <= limits.MaxBuffered+10*1064)
		echo, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
		is.NoErr(err)
		for range 100 {
			is.NoErr(echo.Send(testkit.Letters(5000)))
			v, err := echo.Recv()
			is.NoErr(err)
			is.Equal(len(v), 5000)
		}
		_, err = typedrpc.Call(t.Context(), c, lab.FlowCall, "x")
		is.NoErr(err)
		before := sent.Load()
		most := slices.MaxFunc(stalled, func(a, b *typedrpc.Stream[string, string]) int { return hook.Stream(a).Used - hook.Stream(b).Used })
		most.Cancel() // its room is for the others
		synctest.Wait()
		is.True(sent.Load() > before)
		for _, stream := range append(stalled, echo) {
			stream.Cancel()
		}
		lab.Settled(t, c, s)
	})
}

// When a server holds all that it may, calls are refused and streams fail; it
// recovers.
func TestFlow_budgetOfTheServer(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		srv := &typedrpc.Server{Mux: lab.Bidi(lab.Lingers), MaxMemory: 1_000_000, Limits: typedrpc.Limits{Window: 1 << 20}, Logger: slog.New(slog.DiscardHandler)}
		var conns []*typedrpc.Conn
		var sent atomic.Int64
		for range 3 {
			c, _, err := typedrpctest.Dial(srv, &typedrpc.DialOptions{Dialect: d})
			is.NoErr(err)
			defer c.Close()
			conns = append(conns, c)
		}
		stalled, err := typedrpc.Open(t.Context(), conns[0], lab.FlowBoth, "")
		is.NoErr(err)
		go sendAway(stalled, 998, &sent)
		_, err = stalled.Recv()
		is.True(errors.Is(err, typedrpc.ResourceExhausted)) // the stream, and not the link
		time.Sleep(2 * time.Second)                         // what was sent is acknowledged
		is.Equal(hook.Server(srv).Budget, int64(0))

		stalled, err = typedrpc.Open(t.Context(), conns[0], lab.FlowBoth, "")
		is.NoErr(err)
		for range 440 {
			is.NoErr(stalled.Send(testkit.Letters(998)))
		}
		synctest.Wait()
		_, err = typedrpc.Call(t.Context(), conns[1], lab.FlowCall, testkit.Letters(62_000)) // more than a share of what is free
		is.True(errors.Is(err, typedrpc.ResourceExhausted))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		_, err = typedrpc.Call(t.Context(), conns[1], lab.FlowCall, testkit.Letters(100_000)) // in fragments
		is.True(errors.Is(err, typedrpc.ResourceExhausted))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		_, err = typedrpc.Call(t.Context(), conns[1], lab.FlowCall, "small")
		is.NoErr(err)
		stalled.Cancel()
		synctest.Wait()
		_, err = typedrpc.Call(t.Context(), conns[2], lab.FlowCall, testkit.Letters(62_000))
		is.NoErr(err)
		lab.Settled(t, conns...)
		time.Sleep(2 * time.Second)
		is.Equal(hook.Server(srv).Budget, int64(0))
	})
}

func TestFlow_acrossLinks(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		l := lab.New()
		l.Mux = lab.Bidi(lab.EchoItems)
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, &typedrpc.DialOptions{Dialect: d, Backoff: lab.Steady})
		defer c.Close()
		stream, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
		is.NoErr(err)
		is.NoErr(stream.Send("x"))
		_, err = stream.Recv()
		is.NoErr(err)
		w.Serve(nil)
		w.Cable().Cut()
		_, err = stream.Recv()
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
		is.True(strings.Contains(err.Error(), "the session was lost, items may be missing"))
		is.True(errors.Is(stream.Send("x"), typedrpc.Unavailable))

		_, err = typedrpc.Open(t.Context(), c.With(typedrpc.CallOptions{FailFast: true}), lab.FlowBoth, "")
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		waits, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
		is.NoErr(err)
		go waits.Send("first")
		synctest.Wait()
		w.Serve(l.Server)
		v, err := waits.Recv() // on the next link
		is.NoErr(err)
		is.Equal(v, "first")
		waits.Cancel()
		lab.Settled(t, c)
	})
}

// Shutdown lets calls finish first, then ends streams, and is done.
func TestFlow_shutdown(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		var order []string
		var mu sync.Mutex
		note := func(s string) {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, s)
		}
		slow := typedrpc.NewMethod[struct{}, struct{}]("flow.slow")
		mux := lab.Bidi(func(ctx context.Context, _ string, s *typedrpc.Stream[string, string]) error {
			<-ctx.Done()
			note("stream")
			return nil
		})
		typedrpc.Handle(mux, slow, func(context.Context, struct{}) (struct{}, error) {
			time.Sleep(time.Second)
			note("call")
			return struct{}{}, nil
		})
		srv := &typedrpc.Server{Mux: mux, Logger: slog.New(slog.DiscardHandler)}
		c, _, err := typedrpctest.Dial(srv, &typedrpc.DialOptions{Dialect: d, Backoff: lab.Steady})
		is.NoErr(err)
		defer c.Close()
		stream, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
		is.NoErr(err)
		call := typedrpc.Go(t.Context(), c, slow, struct{}{})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		is.NoErr(srv.Shutdown(ctx))
		is.True(time.Since(began) < 10*time.Second)
		is.Equal(order, []string{"call", "stream"})
		_, err = call.Await(t.Context())
		is.NoErr(err)
		_, err = stream.Recv()
		is.True(errors.Is(err, typedrpc.Unavailable))
	})
}
