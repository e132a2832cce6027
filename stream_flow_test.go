package typedrpc

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

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/link"
)

var (
	flowDown = NewServerStream[int, string]("flow.down")
	flowUp   = NewClientStream[int, string, int]("flow.up")
	flowBoth = NewBidiStream[string, string, string]("flow.both")
	flowCall = NewMethod[string, string]("flow.call")
	flowNote = NewNotification[string]("flow.note")
)

// bidi is a Mux with one handler of flowBoth, and an echo.
func bidi(fn func(ctx context.Context, req string, s *Stream[string, string]) error) *Mux {
	mux := NewMux()
	HandleBidiStream(mux, flowBoth, fn)
	Handle(mux, flowCall, func(_ context.Context, s string) (string, error) { return s, nil })
	return mux
}

// echoItems sends back what comes.
func echoItems(_ context.Context, _ string, s *Stream[string, string]) error {
	for v, err := range s.All() {
		if err != nil {
			return err
		}
		if err := s.Send(v); err != nil {
			return err
		}
	}
	return nil
}

// linger is a handler of flowBoth that waits for its context.
func lingers(ctx context.Context, _ string, _ *Stream[string, string]) error {
	<-ctx.Done()
	return ctx.Err()
}

// letters is a string of n bytes.
func letters(n int) string { return strings.Repeat("abcdefghijklmnopqrstuvwxyz", n/26+1)[:n] }

// quoted is its JSON.
func quoted(n int) []byte { return []byte(`"` + letters(n-2) + `"`) }

// joined connects a client and a server that have the same Mux and limits.
func joined(t *testing.T, d Dialect, mux *Mux, limits Limits) (c, s *Conn) {
	t.Helper()
	c, s = twoWays(t, d, mux, mux, limits)
	t.Cleanup(func() { c.Close() })
	return c, s
}

// bubble runs test in one, by name.
func bubble(t *testing.T, name string, test func(t *testing.T, is *is.I)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, is.New(t)) })
	})
}

// distant connects a client to srv over a path with a round trip of rtt.
func distant(t *testing.T, rtt time.Duration, srv *Server, o *DialOptions) *Conn {
	t.Helper()
	opts := *o
	opts.connect = func(_ context.Context, _ string, offers []string) (link.Transport, string, *http.Response, error) {
		r := newUpgrade()
		a, refused := srv.admit(r, offers)
		if refused != nil {
			return nil, "", refused.response(), errors.New(refused.text)
		}
		near, one := link.Pipe()
		two, far := link.Pipe()
		go delay(one, two, rtt/2)
		go delay(two, one, rtt/2)
		srv.start(far, a, r)
		return near, a.subprotocol, nil, nil
	}
	c, err := Dial(t.Context(), "ws://far/", &opts)
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

// rates are the items that came in the first round trip after the first one,
// and in one of the last.
type rates struct{ first, steady, window int }

// measure receives items of n bytes over a path.
func measure(t *testing.T, rtt time.Duration, n int, limits Limits) rates {
	t.Helper()
	down := NewServerStream[Empty, Bytes]("flow.endless")
	mux := NewMux()
	HandleServerStream(mux, down, func(_ context.Context, _ Empty, send func(Bytes) error) error {
		item := make(Bytes, n)
		for {
			if err := send(item); err != nil {
				return err
			}
		}
	})
	quiet := slog.New(slog.DiscardHandler)
	c := distant(t, rtt, &Server{Mux: mux, Logger: quiet}, &DialOptions{Limits: limits, Logger: quiet})
	const trips, last = 12, 4
	var r rates
	var began time.Time
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, err := range Receive(ctx, c, down, Empty{}) {
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
			c.mu.Lock()
			for _, p := range c.pending {
				r.window = p.call.exchange.window.size
			}
			c.mu.Unlock()
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
			bubble(t, fmt.Sprint(n, "/", rtt), func(t *testing.T, is *is.I) {
				r := measure(t, rtt, n, Limits{})
				perSecond := func(items int) string {
					rate := float64(items) / rtt.Seconds()
					return fmt.Sprintf("%8.0f items/s %7.2f MiB/s", rate, rate*float64(n)/(1<<20))
				}
				t.Logf("| %6d B | %4d ms | first %s | steady %s | window %4d KiB |",
					n, rtt.Milliseconds(), perSecond(r.first), perSecond(r.steady), r.window>>10)
				is.Equal(r.window, maxWindow)
				is.True(r.steady*(n+messageOverhead) >= maxWindow*8/10) // at least 80 % of window/RTT
			})
		}
	}
}

// A window that the receiver is too slow for does not grow.
func TestFlow_windowOfASlowReceiverStays(t *testing.T) {
	for _, n := range []int{64, 1000, 40_000, 100_000} {
		bubble(t, fmt.Sprint(n), func(t *testing.T, is *is.I) {
			mux := NewMux()
			HandleServerStream(mux, flowDown, func(_ context.Context, _ int, send func(string) error) error {
				for {
					if err := send(letters(n)); err != nil {
						return err
					}
				}
			})
			quiet := slog.New(slog.DiscardHandler)
			c := distant(t, 10*time.Millisecond, &Server{Mux: mux, Logger: quiet}, &DialOptions{Logger: quiet})
			// The whole window takes the receiver a second.
			pace, left := time.Second*time.Duration(n+messageOverhead)/(64<<10), 3*(64<<10)/n+10
			for range Receive(t.Context(), c, flowDown, 1) {
				time.Sleep(pace)
				is.Equal(c.grown, 0)
				if left--; left == 0 {
					break
				}
			}
			settled(t, c)
		})
	}
}

// bounded fails the test if a stream of c holds more than its window, one item
// excepted.
func bounded(t *testing.T, c *Conn, largest int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	check := func(x *exchange) {
		held := 0
		for i := range x.got.len() {
			held += x.got.all[(x.got.head+i)&(len(x.got.all)-1)].cost()
		}
		if most := max(x.window.size, largest+messageOverhead); held > most || x.window.out > most {
			t.Errorf("%d bytes are held and %d out, the window is %d", held, x.window.out, x.window.size)
		}
	}
	for _, in := range c.inbound {
		check(in.exchange)
	}
	for _, p := range c.pending {
		if p.call != nil {
			check(p.call.exchange)
		}
	}
}

// TestFlow_model sends items of random sizes through random windows to random
// consumers, on both sides at once: none may wait for ever, get lost, change
// places, or be more than the window holds.
func TestFlow_model(t *testing.T) {
	for seed := range uint64(size(30)) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 0))
			largest := []int{10, 300, 5000, 70_000, 200_000}[rng.IntN(5)]
			limits := Limits{Window: 100 + rng.IntN([]int{200, 2000, 100_000}[rng.IntN(3)]), MaxBuffered: 1000 + rng.IntN(200_000)}
			items := 20 + 800_000/(largest+10_000)
			sizes := make([]int, items)
			for i := range sizes {
				sizes[i] = 8 + rng.IntN(largest)
			}
			// pump sends all sizes and receives them on the same stream.
			pump := func(s *Stream[string, string], seed uint64, conn *Conn) {
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
						if err := s.Send(fmt.Sprintf("%08d%s", i, letters(n-8))); err != nil {
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
			mux := bidi(func(ctx context.Context, _ string, s *Stream[string, string]) error {
				pump(s, rng.Uint64(), ConnFrom(ctx))
				return nil
			})
			d := []Dialect{Binary, JSONRPC}[seed%2]
			c, s := joined(t, d, mux, limits)
			var streams sync.WaitGroup
			for i := range 1 + rng.IntN(3) {
				conn := []*Conn{c, s}[i%2]
				stream, err := Open(t.Context(), conn, flowBoth, "")
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
			settled(t, c, s)
		})
	}
}

// sendAway sends until it cannot, and counts.
func sendAway(s *Stream[string, string], n int, sent *atomic.Int64) {
	for s.Send(letters(n)) == nil {
		sent.Add(1)
	}
}

// A receiver that stops reading costs at most its window, while everything
// else goes on.
func TestFlow_stalledReceiver(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		mux := bidi(func(ctx context.Context, req string, s *Stream[string, string]) error {
			if req == "stall" {
				return lingers(ctx, req, s)
			}
			return echoItems(ctx, req, s)
		})
		c, s := joined(t, d, mux, Limits{})
		var sent atomic.Int64
		stalled, err := Open(t.Context(), c, flowBoth, "stall")
		is.NoErr(err)
		go sendAway(stalled, 998, &sent)
		synctest.Wait()
		is.Equal(int(sent.Load()), 64<<10/(1000+64))
		is.True(s.unread <= 64<<10)
		began := time.Now()
		echo, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		for range 1000 {
			is.NoErr(echo.Send(letters(998)))
			_, err := echo.Recv()
			is.NoErr(err)
		}
		_, err = Call(t.Context(), c, flowCall, letters(300_000))
		is.NoErr(err)
		is.Equal(time.Since(began), time.Duration(0)) // nothing waited
		bounded(t, s, 1000)
		stalled.Close()
		echo.Close()
		settled(t, c, s)
	})
}

// With the connection's budget spent by stalled streams, others still go on,
// a small item at a time.
func TestFlow_budgetOfTheConnection(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		mux := bidi(func(ctx context.Context, req string, s *Stream[string, string]) error {
			if req == "stall" {
				return lingers(ctx, req, s)
			}
			return echoItems(ctx, req, s)
		})
		limits := Limits{MaxBuffered: 100_000, MaxCalls: 16} // a sixteenth is every stream's
		c, s := joined(t, d, mux, limits)
		var sent atomic.Int64
		var stalled []*Stream[string, string]
		for range 10 {
			stream, err := Open(t.Context(), c, flowBoth, "stall")
			is.NoErr(err)
			stalled = append(stalled, stream)
			go sendAway(stream, 998, &sent)
		}
		synctest.Wait()
		is.True(s.unread > 90_000)
		is.True(s.unread <= limits.MaxBuffered+10*1064) // one of each stream excepted
		is.True(c.sentItems <= limits.MaxBuffered+10*1064)
		echo, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		for range 100 {
			is.NoErr(echo.Send(letters(5000)))
			v, err := echo.Recv()
			is.NoErr(err)
			is.Equal(len(v), 5000)
		}
		_, err = Call(t.Context(), c, flowCall, "x")
		is.NoErr(err)
		before := sent.Load()
		most := slices.MaxFunc(stalled, func(a, b *Stream[string, string]) int { return a.x.flow.used - b.x.flow.used })
		most.Close() // its room is for the others
		synctest.Wait()
		is.True(sent.Load() > before)
		for _, stream := range append(stalled, echo) {
			stream.Close()
		}
		settled(t, c, s)
	})
}

// When a server holds all that it may, calls are refused and streams fail; it
// recovers.
func TestFlow_budgetOfTheServer(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		srv := &Server{Mux: bidi(lingers), MaxBuffered: 20_000, Logger: slog.New(slog.DiscardHandler)}
		var conns []*Conn
		var sent atomic.Int64
		for range 3 {
			c, _, err := dialPipe(t.Context(), srv, &DialOptions{Dialect: d})
			is.NoErr(err)
			defer c.Close()
			conns = append(conns, c)
		}
		stalled, err := Open(t.Context(), conns[0], flowBoth, "")
		is.NoErr(err)
		go sendAway(stalled, 998, &sent)
		_, err = stalled.Recv()
		is.True(errors.Is(err, ResourceExhausted)) // the stream, and not the link
		is.Equal(srv.config.budget.used.Load(), int64(0))

		stalled, err = Open(t.Context(), conns[0], flowBoth, "")
		is.NoErr(err)
		for range 17 {
			is.NoErr(stalled.Send(letters(998)))
		}
		synctest.Wait()
		_, err = Call(t.Context(), conns[1], flowCall, letters(5000))
		is.True(errors.Is(err, ResourceExhausted))
		is.Equal(OutcomeOf(err), NotSent)
		_, err = Call(t.Context(), conns[1], flowCall, letters(100_000)) // in fragments
		is.True(errors.Is(err, ResourceExhausted))
		is.Equal(OutcomeOf(err), NotSent)
		_, err = Call(t.Context(), conns[1], flowCall, "small")
		is.NoErr(err)
		stalled.Close()
		synctest.Wait()
		_, err = Call(t.Context(), conns[2], flowCall, letters(5000))
		is.NoErr(err)
		settled(t, conns...)
		is.Equal(srv.config.budget.used.Load(), int64(0))
	})
}

func TestFlow_acrossLinks(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		l := newLab()
		l.Mux = bidi(echoItems)
		w := &town{srv: l.Server}
		c := w.dial(t, &DialOptions{Dialect: d, Backoff: steady})
		defer c.Close()
		stream, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		is.NoErr(stream.Send("x"))
		_, err = stream.Recv()
		is.NoErr(err)
		w.serve(nil)
		w.cable().cut()
		_, err = stream.Recv()
		is.True(errors.Is(err, Unavailable))
		is.Equal(OutcomeOf(err), MayHaveRun)
		is.True(strings.Contains(err.Error(), "the session was lost, items may be missing"))
		is.True(errors.Is(stream.Send("x"), Unavailable))

		_, err = Open(t.Context(), c.With(CallOptions{FailFast: true}), flowBoth, "")
		is.True(errors.Is(err, Unavailable))
		is.Equal(OutcomeOf(err), NotSent)
		waits, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		go waits.Send("first")
		synctest.Wait()
		w.serve(l.Server)
		v, err := waits.Recv() // on the next link
		is.NoErr(err)
		is.Equal(v, "first")
		waits.Close()
		settled(t, c)
	})
}

// Shutdown lets calls finish first, then ends streams, and is done.
func TestFlow_shutdown(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		var order []string
		var mu sync.Mutex
		note := func(s string) {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, s)
		}
		slow := NewMethod[Empty, Empty]("flow.slow")
		mux := bidi(func(ctx context.Context, _ string, s *Stream[string, string]) error {
			<-ctx.Done()
			note("stream")
			return nil
		})
		Handle(mux, slow, func(context.Context, Empty) (Empty, error) {
			time.Sleep(time.Second)
			note("call")
			return Empty{}, nil
		})
		srv := &Server{Mux: mux, Logger: slog.New(slog.DiscardHandler)}
		c, _, err := dialPipe(t.Context(), srv, &DialOptions{Dialect: d, Backoff: steady})
		is.NoErr(err)
		defer c.Close()
		stream, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		call := Go(t.Context(), c, slow, Empty{})
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
		is.True(errors.Is(err, Unavailable))
	})
}
