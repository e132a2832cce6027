package e2e_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

func TestLane_orderAcrossNotificationsAndSerialCalls(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		l := lab.New()
		var got []int // by one goroutine at a time: the race detector would tell
		see := func(n int) { got = append(got, n) }
		typedrpc.Handle(l.Mux, lab.LaneNumber, func(_ context.Context, n int) error { see(n); return nil })
		typedrpc.Handle(l.Mux, lab.LaneSerial, func(_ context.Context, n int) (int, error) { see(n); return n, nil })
		c, _, err := typedrpctest.Dial(l.Server, &typedrpc.DialOptions{Dialect: d})
		is.NoErr(err)
		var fs []*typedrpc.Future[int]
		for i := range 500 {
			if i%3 == 0 {
				fs = append(fs, typedrpc.Go(t.Context(), c, lab.LaneSerial, i))
			} else {
				is.NoErr(typedrpc.Notify(t.Context(), c, lab.LaneNumber, i))
			}
		}
		fs = append(fs, typedrpc.Go(t.Context(), c, lab.LaneSerial, 500))
		_, err = typedrpc.All(t.Context(), fs...)
		is.NoErr(err)
		for i, n := range got {
			is.Equal(n, i)
		}
		is.Equal(len(got), 501)
		is.NoErr(c.Close())
	})
}

func TestLane_slowHandlerHoldsTheSenderUp(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		l := lab.New()
		l.Limits.Window = 1000
		gate := make(chan struct{})
		handled := 0
		typedrpc.Handle(l.Mux, lab.LaneWord, func(context.Context, string) error { <-gate; handled++; return nil })
		c, _, err := typedrpctest.Dial(l.Server, &typedrpc.DialOptions{Dialect: d})
		is.NoErr(err)
		text := string(make([]byte, 30)) // longer in JSON: what counts are encoded bytes
		sent := 0
		for {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err := typedrpc.Notify(ctx, c, lab.LaneWord, text)
			cancel()
			if err != nil {
				is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
				break
			}
			sent++
		}
		is.Equal(sent, 1000/(testkit.MessageOverhead+30*6+2))
		waits := make(chan error, 1)
		go func() { waits <- typedrpc.Notify(t.Context(), c, lab.LaneWord, text) }()
		time.Sleep(time.Minute)
		is.Equal(len(waits), 0)
		close(gate)
		is.NoErr(<-waits) // CREDIT resumes it
		synctest.Wait()
		is.Equal(handled, sent+1)
		is.NoErr(c.Close())
	})
}

func TestLane_messageLargerThanTheWindowGoesAlone(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		l := lab.New()
		l.Limits.Window = 100
		handled := 0
		typedrpc.Handle(l.Mux, lab.LaneWord, func(context.Context, string) error { handled++; return nil })
		c, _, err := typedrpctest.Dial(l.Server, &typedrpc.DialOptions{Dialect: d})
		is.NoErr(err)
		for range 50 {
			is.NoErr(typedrpc.Notify(t.Context(), c, lab.LaneWord, string(make([]byte, 5000))))
		}
		synctest.Wait()
		is.Equal(handled, 50)
		is.NoErr(c.Close())
	})
}

// A model of every pattern of sizes and windows: nothing deadlocks, nothing is
// lost, nothing changes places.
func TestLane_randomSizesAndWindowsNeverDeadlock(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		rng := rand.New(rand.NewPCG(7, uint64(d)))
		for round := range 60 {
			l := lab.New()
			l.Limits.Window = 1 + rng.IntN(2000)
			l.Limits.MaxBuffered = 1 + rng.IntN(4000)
			var got []int
			slow := rng.IntN(3) == 0
			typedrpc.Handle(l.Mux, lab.LaneWord, func(_ context.Context, s string) error {
				got = append(got, len(s))
				if slow && len(got)%7 == 0 {
					time.Sleep(time.Millisecond)
				}
				return nil
			})
			c, _, err := typedrpctest.Dial(l.Server, &typedrpc.DialOptions{
				Dialect: d, Limits: typedrpc.Limits{MaxBuffered: 1 + rng.IntN(4000)},
			})
			is.NoErr(err)
			var sizes []int
			for range 150 {
				size := rng.IntN(50)
				switch rng.IntN(10) {
				case 0:
					size = rng.IntN(5000)
				case 1:
					size = l.Limits.Window - testkit.MessageOverhead - 2 + rng.IntN(3) - 1 // just about the window
				}
				sizes = append(sizes, max(0, size))
			}
			for _, size := range sizes {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				if err := typedrpc.Notify(ctx, c, lab.LaneWord, text(size)); err != nil {
					t.Fatalf("round %d, window %d: %v", round, l.Limits.Window, err)
				}
				cancel()
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			is.Equal(got, sizes)
			is.NoErr(c.Close())
		}
	})
}

func text(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'x'
	}
	return string(b)
}

func TestLane_notificationsWithoutHandlerAreCredited(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		l := lab.New()
		l.Limits.Window = 200
		c, _, err := typedrpctest.Dial(l.Server, &typedrpc.DialOptions{Dialect: d})
		is.NoErr(err)
		for range 1000 {
			is.NoErr(typedrpc.Notify(t.Context(), c, lab.LaneWord, "nobody listens"))
		}
		is.NoErr(c.Shutdown(t.Context()))
	})
}

func TestLane_everyNotifyIsCreditedOnce(t *testing.T) {
	for _, offer := range []string{testkit.BinaryProtocol, testkit.HelloProtocol} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			l := lab.New()
			typedrpc.Handle(l.Mux, lab.LaneWord, func(context.Context, string) error { panic("also then") })
			p, err := testkit.Join(l.Server, offer)
			is.NoErr(err)
			_, err = p.Hello()
			is.NoErr(err)
			const n = 300
			for i := range n {
				f := wire.Frame{Type: wire.Notify, Method: "lane.word", Payload: []byte(`"x"`)}
				switch i % 3 {
				case 1:
					f.Method = "no.handler"
				case 2:
					f.Payload = []byte(`{"does":"not decode"}`)
				}
				is.NoErr(p.Send(f))
			}
			time.Sleep(time.Second)
			synctest.Wait()
			p.Send(wire.Frame{Type: wire.Ping, Position: 0})
			var credited uint64
			for credited < n {
				f, err := p.Until(wire.Credit)
				is.NoErr(err)
				is.Equal(f.ID, uint64(0))
				credited += f.Items
			}
			is.Equal(credited, uint64(n))
			p.T.Kill()
		})
	}
}

func TestLane_creditNobodyEarnedClosesTheLink(t *testing.T) {
	for _, offer := range []string{testkit.BinaryProtocol, testkit.HelloProtocol} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			p, err := testkit.Join(lab.New().Server, offer)
			is.NoErr(err)
			_, err = p.Hello()
			is.NoErr(err)
			is.NoErr(p.Send(wire.Frame{Type: wire.Credit, Items: 1}))
			is.Equal(p.CloseCode(), session.CloseProtocol)
		})
	}
}

func TestLane_peerThatIgnoresTheWindowIsClosed(t *testing.T) {
	for _, offer := range []string{testkit.BinaryProtocol, testkit.HelloProtocol, ""} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			l := lab.New()
			l.Limits = typedrpc.Limits{Window: 1000, MaxMessage: 1000, MaxBuffered: 4000}
			block := make(chan struct{})
			typedrpc.Handle(l.Mux, lab.LaneWord, func(context.Context, string) error { <-block; return nil })
			p, err := testkit.Join(l.Server, offer)
			is.NoErr(err)
			if offer != "" {
				_, err = p.Hello()
				is.NoErr(err)
			}
			for range 1000 {
				if p.Send(wire.Frame{Type: wire.Notify, Method: "lane.word", Payload: []byte(`"x"`)}) != nil {
					break
				}
			}
			is.Equal(p.CloseCode(), session.CloseFlood)
			close(block)
		})
	}
}

// A's notification handler calls B, whose handler calls a Serial method of A,
// which would have to wait for the notification handler.
func TestLane_deadlockThroughThePeerFails(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		client, server := typedrpc.NewMux(), typedrpc.NewMux()
		result := make(chan error, 1)
		typedrpc.Handle(client, lab.LaneNumber, func(ctx context.Context, n int) error {
			_, err := typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), lab.LaneRelay, n)
			result <- err
			return nil
		})
		typedrpc.Handle(client, lab.LaneSerial, func(_ context.Context, n int) (int, error) { return n, nil })
		typedrpc.Handle(server, lab.LaneRelay, func(ctx context.Context, n int) (int, error) {
			return typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), lab.LaneSerial, n)
		})
		c, s := lab.TwoWays(t, d, client, server, typedrpc.Limits{})
		is.NoErr(typedrpc.Notify(t.Context(), s, lab.LaneNumber, 1))
		is.True(errors.Is(<-result, typedrpc.FailedPrecondition))
		n, err := typedrpc.Call(t.Context(), s, lab.LaneSerial, 3) // and the lane goes on
		is.NoErr(err)
		is.Equal(n, 3)
		is.NoErr(c.Close())
	})
}

func TestLane_serialHandlerCallingItselfThroughThePeerFails(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		client, server := typedrpc.NewMux(), typedrpc.NewMux()
		for _, m := range []*typedrpc.Mux{client, server} {
			typedrpc.Handle(m, lab.LaneSerial, func(ctx context.Context, n int) (int, error) {
				if n == 0 {
					return 0, nil
				}
				return typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), lab.LaneSerial, n-1)
			})
		}
		c, _ := lab.TwoWays(t, d, client, server, typedrpc.Limits{})
		n, err := typedrpc.Call(t.Context(), c, lab.LaneSerial, 1) // there and back, on two lanes: no deadlock
		is.NoErr(err)
		is.Equal(n, 0)
		_, err = typedrpc.Call(t.Context(), c, lab.LaneSerial, 2) // there, back, and there again
		is.True(errors.Is(err, typedrpc.FailedPrecondition))
		is.NoErr(c.Close())
	})
}

func TestLane_flagIsInheritedThroughPlainMethods(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		client, server := typedrpc.NewMux(), typedrpc.NewMux()
		relay := func(ctx context.Context, n int) (int, error) {
			if n == 0 {
				return typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), lab.LaneSerial, 0)
			}
			return typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), lab.LaneRelay, n-1)
		}
		typedrpc.Handle(client, lab.LaneRelay, relay)
		typedrpc.Handle(server, lab.LaneRelay, relay)
		serial := func(ctx context.Context, n int) (int, error) {
			if n == 0 {
				return 0, nil
			}
			return typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), lab.LaneRelay, n-1)
		}
		typedrpc.Handle(client, lab.LaneSerial, serial)
		typedrpc.Handle(server, lab.LaneSerial, serial)
		c, _ := lab.TwoWays(t, d, client, server, typedrpc.Limits{})
		// The chain ends in a Serial method of the server, whose lane waits for
		// its end, when n is odd, and of the client, whose lane is free.
		for n := 1; n <= 6; n++ {
			synctest.Wait() // the lanes are at rest
			_, err := typedrpc.Call(t.Context(), c, lab.LaneSerial, n)
			if n%2 == 1 {
				is.True(errors.Is(err, typedrpc.FailedPrecondition))
			} else {
				is.NoErr(err)
			}
		}
		is.NoErr(c.Close())
	})
}

func TestLane_fullWindowInsideAnOrderedHandlerFails(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		client, server := typedrpc.NewMux(), typedrpc.NewMux()
		const window = 300
		result := make(chan error, 1)
		flood := func(ctx context.Context, n int) error {
			for range 10 {
				if err := typedrpc.Notify(ctx, typedrpc.ConnFrom(ctx), lab.LaneNumber, n+1); err != nil {
					select {
					case result <- err:
					default:
					}
					return nil
				}
			}
			return nil
		}
		typedrpc.Handle(client, lab.LaneNumber, flood) // both sides answer each with ten
		typedrpc.Handle(server, lab.LaneNumber, flood)
		c, _ := lab.TwoWays(t, d, client, server, typedrpc.Limits{Window: window})
		is.NoErr(typedrpc.Notify(t.Context(), c, lab.LaneNumber, 0))
		err := <-result
		is.True(errors.Is(err, typedrpc.FailedPrecondition))
		is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
		is.NoErr(c.Close())
	})
}

func TestLane_concurrentSendersAllGetThrough(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		l := lab.New()
		l.Limits.Window = 500
		last := map[int]int{}
		order, total := true, 0
		typedrpc.Handle(l.Mux, lab.LaneNumber, func(_ context.Context, n int) error {
			who, i := n/1000, n%1000
			order = order && i == last[who]
			last[who] = i + 1
			total++
			return nil
		})
		c, _, err := typedrpctest.Dial(l.Server, &typedrpc.DialOptions{Dialect: d})
		is.NoErr(err)
		var wg sync.WaitGroup
		for who := range 20 {
			wg.Go(func() {
				for i := range 100 {
					if err := typedrpc.Notify(t.Context(), c, lab.LaneNumber, who*1000+i); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		is.NoErr(c.Close())
		is.Equal(total, 2000)
		is.True(order) // each sender's own in the order in which its Notify returned
	})
}
