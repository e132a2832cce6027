package e2e_test

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// way is one direction of a stream of a crossing, as its program sees it.
type way struct {
	up             bool // from the client to the server
	sent, consumed int  // what its items cost
	blocked        int  // what the item costs that is being sent; 0: none is
	over           bool
}

// crossing is a connection with streams both ways, of all kinds, between peers whose limits
// differ. Its fields are under mu.
type crossing struct {
	limits [2]typedrpc.Limits // of the client, and of the server
	conns  [2]*typedrpc.Conn

	mu   sync.Mutex
	rng  *rand.Rand
	ways []*way // those of stream n are 2n, from its caller, and 2n+1
}

func (x *crossing) pick(n int) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.rng.IntN(n)
}

func (x *crossing) note(f func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	f()
}

// pair begins a stream that the client calls, or the server.
func (x *crossing) pair(client bool) (n int, out, back *way) {
	x.mu.Lock()
	defer x.mu.Unlock()
	out, back = &way{up: client}, &way{up: !client}
	x.ways = append(x.ways, out, back)
	return len(x.ways)/2 - 1, out, back
}

func (x *crossing) found(n int) (out, back *way) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.ways[2*n], x.ways[2*n+1]
}

func (x *crossing) end(w *way) { x.note(func() { w.over = true }) }

func (x *crossing) pause() {
	switch x.pick(10) {
	case 0:
		time.Sleep(time.Duration(x.pick(3000)) * time.Millisecond)
	case 1, 2:
		time.Sleep(time.Duration(x.pick(20)) * time.Millisecond)
	}
}

// item is one for a receiver with these limits.
func (x *crossing) item(l typedrpc.Limits) string {
	most := l.MaxMessage - 2
	switch x.pick(10) {
	case 0:
		most = min(2*l.Window, most)
	case 1:
	case 2, 3:
		most = min(l.Window/8+1, most)
	default:
		most = min(200, most)
	}
	return testkit.Letters(x.pick(most))
}

func costOf(item string) int { return len(item) + 2 + testkit.MessageOverhead }

// send sends up to n items.
func (x *crossing) send(w *way, n int, send func(string) error) {
	to := x.limits[0]
	if w.up {
		to = x.limits[1]
	}
	for range n {
		x.pause()
		item := x.item(to)
		x.note(func() { w.blocked = costOf(item) })
		err := send(item)
		x.note(func() {
			w.blocked = 0
			if err == nil {
				w.sent += costOf(item)
			}
		})
		if err != nil {
			return
		}
	}
}

// receive takes up to n items.
func (x *crossing) receive(w *way, n int, items iter.Seq2[string, error]) {
	for item, err := range items {
		if err != nil {
			return
		}
		x.note(func() { w.consumed += costOf(item) })
		if x.pause(); n == 0 {
			return
		}
		n--
	}
}

func (x *crossing) linger(ctx context.Context) {
	if x.pick(3) == 0 {
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(x.pick(20_000)) * time.Millisecond):
		}
	}
}

func (x *crossing) mux() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.FlowBoth, func(ctx context.Context, req string, s *typedrpc.Stream[string, string]) error {
		n, _ := strconv.Atoi(req)
		out, back := x.found(n)
		defer x.end(out)
		defer x.end(back)
		var both sync.WaitGroup
		both.Go(func() { x.send(back, x.pick(60), s.Send) })
		x.receive(out, x.pick(300), s.All())
		both.Wait()
		x.linger(ctx)
		return nil
	})
	typedrpc.Handle(mux, lab.FlowUp, func(ctx context.Context, n int, items iter.Seq2[string, error]) (int, error) {
		out, _ := x.found(n)
		defer x.end(out)
		x.receive(out, x.pick(300), items)
		x.linger(ctx)
		return 0, nil
	})
	typedrpc.Handle(mux, lab.FlowDown, func(ctx context.Context, n int, send func(string) error) error {
		_, back := x.found(n)
		defer x.end(back)
		x.send(back, x.pick(100), send)
		return nil
	})
	return mux
}

// stream makes one call.
func (x *crossing) stream(ctx context.Context) {
	side := x.pick(2)
	conn := x.conns[side]
	n, out, back := x.pair(side == 0)
	ctx, cancel := context.WithCancel(ctx)
	defer x.end(out)
	defer x.end(back)
	defer cancel()
	if x.pick(4) == 0 {
		time.AfterFunc(time.Duration(x.pick(10_000))*time.Millisecond, cancel)
	}
	switch x.pick(4) {
	case 0:
		x.receive(back, x.pick(200), typedrpc.Receive(ctx, conn, lab.FlowDown, n))
	case 1:
		typedrpc.SendAll(ctx, conn, lab.FlowUp, n, func(yield func(string, error) bool) {
			x.send(out, x.pick(100), func(item string) error {
				if !yield(item, nil) {
					return context.Canceled
				}
				return nil
			})
		})
	default:
		s, err := typedrpc.Open(ctx, conn, lab.FlowBoth, strconv.Itoa(n))
		if err != nil {
			return
		}
		var both sync.WaitGroup
		both.Go(func() {
			x.send(out, x.pick(100), s.Send)
			s.CloseSend()
		})
		x.receive(back, x.pick(200), s.All())
		both.Wait()
		s.Cancel()
	}
}

// stuck says who waits although nobody holds it back: what it sends to has taken all of the
// stream, and of all streams so much that there is room. "" is nobody.
func (x *crossing) stuck() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, up := range []bool{true, false} {
		to, receiver := x.limits[0], x.conns[0]
		if up {
			to, receiver = x.limits[1], x.conns[1]
		}
		out := min(hook.Conn(receiver).Spent, to.MaxBuffered/16) // that receivers have not returned, for good reasons
		for _, w := range x.ways {
			if w.up == up && !w.over && w.sent > w.consumed {
				out += w.sent - w.consumed
			}
		}
		for i, w := range x.ways {
			if w.up == up && !w.over && w.blocked > 0 && w.sent == w.consumed && (out <= to.MaxBuffered/16 || out+w.blocked <= to.MaxBuffered) {
				return fmt.Sprintf("way %d, up %v, waits with %d bytes; %d are out for good reasons, of %d; its window has %d", i, up, w.blocked, out, to.MaxBuffered, to.Window)
			}
		}
	}
	return ""
}

// Nobody waits for credit that nobody gives: not for a window, nor for what all streams have
// together, however sizes, limits, ends, and cuts fall.
func TestFlow_nobodyIsStuck(t *testing.T) {
	for seed := range uint64(testkit.Crowd(300, 60, 20)) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 0))
			x := &crossing{rng: rng}
			for i := range x.limits {
				buffered := 2000 + rng.IntN([]int{3000, 60_000, 1_000_000}[rng.IntN(3)])
				x.limits[i] = typedrpc.Limits{
					Window: 80 + rng.IntN([]int{500, 5000, 100_000}[rng.IntN(3)]), MaxBuffered: buffered,
					MaxMessage: 300 + rng.IntN(min(buffered, 200_000)), Grace: time.Minute, MinRate: -1,
				}
			}
			d := []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text}[seed%2]
			opened := make(chan *typedrpc.Conn, 100)
			mux := x.mux()
			quiet := slog.New(slog.DiscardHandler)
			srv := &typedrpc.Server{Mux: mux, Limits: x.limits[1], Logger: quiet, OnConnect: func(c *typedrpc.Conn) { opened <- c }}
			w := &lab.Town{Srv: srv}
			x.conns[0] = w.Dial(t, &typedrpc.DialOptions{Dialect: d, Mux: mux, Limits: x.limits[0], Backoff: lab.Steady})
			x.conns[1] = <-opened
			ctx, cancel := context.WithCancel(t.Context())
			var all sync.WaitGroup
			for range 1 + x.pick(12) {
				all.Go(func() {
					for range 4 {
						x.pause()
						x.stream(ctx)
					}
				})
			}
			cuts := x.pick(2) == 0
			for range 400 {
				if x.pick(3) == 0 {
					time.Sleep(time.Duration(x.pick(500)) * time.Millisecond)
				} else {
					time.Sleep(time.Duration(x.pick(5000)) * time.Microsecond)
				}
				synctest.Wait()
				if cuts && x.pick(40) == 0 {
					w.Cable().Cut()
					continue
				}
				if s := hook.Conn(x.conns[0]); !s.Open || x.conns[0].State() != typedrpc.StateConnected {
					continue
				}
				if why := x.stuck(); why != "" {
					t.Errorf("seed %d: %s\n%+v\n%+v\nclient %+v\nserver %+v", seed, why, x.limits[0], x.limits[1], hook.Conn(x.conns[0]), hook.Conn(x.conns[1]))
					break
				}
			}
			cancel()
			all.Wait()
			lab.Settled(t, x.conns[0], x.conns[1])
			x.conns[0].Close()
		})
		if t.Failed() {
			return
		}
	}
}
