package typedrpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
)

// Unsettled says what of streams, calls and messages is left on a connection
// that should have none; "" is nothing.
func Unsettled(c *Conn) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var left []string
	for name, n := range map[string]int{
		"unread": c.unread, "sentItems": c.sentItems, "queued": c.queued, "unsent": c.unsent,
		"grown": c.grown, "inBytes": c.inBytes, "cutting": c.cutting, "slots": c.slots, "held": c.held,
		"partial": len(c.partial), "creditors": len(c.creditors), "pending": len(c.pending), "inbound": len(c.inbound),
		"queue": c.queue.len, "large": c.large.len, "waiting": c.waiting.len, "parked": len(c.parked), "resting": len(c.resting),
	} {
		if n != 0 {
			left = append(left, fmt.Sprintf("%s %d", name, n))
		}
	}
	if c.midway != nil || c.overtaken {
		left = append(left, "an ordered message")
	}
	if b := c.config.budget; b != nil && b.used.Load() != 0 { // a test's server has one connection
		left = append(left, fmt.Sprintf("server budget %d", b.used.Load()))
	}
	return strings.Join(left, ", ")
}

// settled fails the test unless nothing is left on conns. In a bubble.
func settled(t *testing.T, conns ...*Conn) {
	t.Helper()
	time.Sleep(5 * time.Second) // the writer's and the acknowledgements' own timers
	synctest.Wait()
	for i, c := range conns {
		if left := Unsettled(c); left != "" {
			t.Errorf("connection %d is left with %s", i, left)
		}
	}
}

// leakMux has handlers that end in every way, by their requests: a number that
// says after how many items, and how.
func leakMux() *Mux {
	mux := NewMux()
	leave := func(n int) error {
		switch n % 4 {
		case 0:
			panic("of a handler")
		case 1:
			return errors.New("foreign")
		case 2:
			return NotFound
		}
		return nil
	}
	HandleServerStream(mux, flowDown, func(_ context.Context, n int, send func(string) error) error {
		for i := range n {
			if err := send(letters(i * 5)); err != nil {
				return err
			}
		}
		return leave(n)
	})
	HandleClientStream(mux, flowUp, func(_ context.Context, n int, items iter.Seq2[string, error]) (int, error) {
		for _, err := range items {
			if n--; err != nil || n <= 0 {
				return n, errors.Join(err, leave(-n))
			}
		}
		return n, nil
	})
	HandleBidiStream(mux, flowBoth, func(ctx context.Context, req string, s *Stream[string, string]) error {
		if len(req)%2 == 0 {
			return echoItems(ctx, req, s)
		}
		for range len(req) {
			if _, err := s.Recv(); err != nil {
				return err
			}
		}
		s.Close()
		return leave(len(req))
	})
	return mux
}

// leaveAStream begins a stream and leaves it at a random point.
func leaveAStream(ctx context.Context, c *Conn, rng *rand.Rand) {
	defer func() {
		if p := recover(); p != nil && p != "of a loop" {
			panic(p)
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n, at := rng.IntN(60), rng.IntN(40)
	left := func() (yes bool) {
		if at--; at > 0 {
			return false
		}
		switch rng.IntN(3) {
		case 0:
			cancel()
			return false
		case 1:
			panic("of a loop")
		}
		return true
	}
	switch rng.IntN(4) {
	case 0:
		for range Receive(ctx, c, flowDown, n) {
			if left() {
				return
			}
		}
	case 1:
		SendAll(ctx, c, flowUp, n, func(yield func(string, error) bool) {
			for !left() {
				if !yield(letters(rng.IntN(400)), nil) {
					return
				}
			}
			if rng.IntN(2) == 0 {
				yield("", io.ErrUnexpectedEOF)
			}
		})
	default:
		s, err := Open(ctx, c, flowBoth, letters(n))
		if err != nil {
			return
		}
		var sender sync.WaitGroup
		sender.Go(func() {
			for range n {
				if s.Send(letters(n*8)) != nil {
					return
				}
			}
			s.CloseSend()
		})
		defer sender.Wait()
		defer s.Close()
		for range s.All() {
			if left() {
				break
			}
		}
	}
}

// Ten thousand streams that are left at random points leave nothing behind:
// no goroutine, which the bubble sees, and nothing of any budget.
func TestStream_leftAtRandomPoints(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		const users = 20
		mux, quiet := leakMux(), slog.New(slog.DiscardHandler)
		limits := Limits{Window: 2000, MaxBuffered: 50_000}
		srv := &Server{Mux: mux, Limits: limits, Logger: quiet}
		var used []*Conn
		for round := range 5 { // a link, and its end
			c, s, err := dialPipe(t.Context(), srv, &DialOptions{Dialect: d, Mux: mux, Limits: limits, Logger: quiet})
			is.New(t).NoErr(err)
			used = append(used, c, s)
			var all sync.WaitGroup
			for who := range uint64(users) {
				all.Go(func() {
					rng := rand.New(rand.NewPCG(uint64(round), who))
					for range size(5_000) / users / 5 {
						leaveAStream(t.Context(), []*Conn{c, s}[who%2], rng)
					}
				})
			}
			if round%2 == 0 {
				all.Wait()
				settled(t, c, s)
			} else {
				for range round * 2000 {
					runtime.Gosched() // somewhere in the middle of it
				}
			}
			c.Close()
			all.Wait()
		}
		settled(t, used...)
	})
}
