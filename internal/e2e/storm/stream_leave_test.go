package storm_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// leakMux has handlers that end in every way, by their requests: a number that
// says after how many items, and how.
func leakMux() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	leave := func(n int) error {
		switch n % 4 {
		case 0:
			panic("of a handler")
		case 1:
			return errors.New("foreign")
		case 2:
			return typedrpc.NotFound
		}
		return nil
	}
	typedrpc.Handle(mux, lab.FlowDown, func(_ context.Context, n int, send func(string) error) error {
		for i := range n {
			if err := send(testkit.Letters(i * 5)); err != nil {
				return err
			}
		}
		return leave(n)
	})
	typedrpc.Handle(mux, lab.FlowUp, func(_ context.Context, n int, items iter.Seq2[string, error]) (int, error) {
		for _, err := range items {
			if n--; err != nil || n <= 0 {
				return n, errors.Join(err, leave(-n))
			}
		}
		return n, nil
	})
	typedrpc.Handle(mux, lab.FlowBoth, func(ctx context.Context, req string, s *typedrpc.Stream[string, string]) error {
		if len(req)%2 == 0 {
			return lab.EchoItems(ctx, req, s)
		}
		for range len(req) {
			if _, err := s.Recv(); err != nil {
				return err
			}
		}
		s.Cancel()
		return leave(len(req))
	})
	return mux
}

// leaveAStream begins a stream and leaves it at a random point.
func leaveAStream(ctx context.Context, c *typedrpc.Conn, rng *rand.Rand) {
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
		for range typedrpc.Receive(ctx, c, lab.FlowDown, n) {
			if left() {
				return
			}
		}
	case 1:
		typedrpc.SendAll(ctx, c, lab.FlowUp, n, func(yield func(string, error) bool) {
			for !left() {
				if !yield(testkit.Letters(rng.IntN(400)), nil) {
					return
				}
			}
			if rng.IntN(2) == 0 {
				yield("", io.ErrUnexpectedEOF)
			}
		})
	default:
		s, err := typedrpc.Open(ctx, c, lab.FlowBoth, testkit.Letters(n))
		if err != nil {
			return
		}
		var sender sync.WaitGroup
		sender.Go(func() {
			for range n {
				if s.Send(testkit.Letters(n*8)) != nil {
					return
				}
			}
			s.CloseSend()
		})
		defer sender.Wait()
		defer s.Cancel()
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
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		const users = 20
		mux, quiet := leakMux(), slog.New(slog.DiscardHandler)
		limits := typedrpc.Limits{Window: 2000, MaxBuffered: 50_000}
		srv := &typedrpc.Server{Mux: mux, Limits: limits, Logger: quiet}
		var used []*typedrpc.Conn
		for round := range 5 { // a link, and its end
			c, s, err := typedrpctest.Dial(srv, &typedrpc.DialOptions{Dialect: d, Mux: mux, Limits: limits, Logger: quiet})
			is.New(t).NoErr(err)
			used = append(used, c, s)
			var all sync.WaitGroup
			for who := range uint64(users) {
				all.Go(func() {
					rng := rand.New(rand.NewPCG(uint64(round), who))
					for range testkit.Size(5_000, 5_000) / users / 5 {
						leaveAStream(t.Context(), []*typedrpc.Conn{c, s}[who%2], rng)
					}
				})
			}
			if round%2 == 0 {
				all.Wait()
				lab.Settled(t, c, s)
			} else {
				for range round * 2000 {
					runtime.Gosched() // somewhere in the middle of it
				}
			}
			c.Close()
			all.Wait()
		}
		lab.Settled(t, used...)
	})
}
