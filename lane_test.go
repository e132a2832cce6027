package typedrpc

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

var (
	laneWord   = NewNotification[string]("lane.word")
	laneNumber = NewNotification[int]("lane.number")
	laneSerial = NewMethod[int, int]("lane.serial", Serial)
	laneRelay  = NewMethod[int, int]("lane.relay")
)

// bothDialects runs a test in a bubble for each dialect with flow control.
func bothDialects(t *testing.T, f func(t *testing.T, d Dialect)) {
	for name, d := range map[string]Dialect{"binary": Binary, "jsonrpc": JSONRPC} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, d) })
		})
	}
}

func TestLane_orderAcrossNotificationsAndSerialCalls(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		l := newLab()
		var got []int // by one goroutine at a time: the race detector would tell
		see := func(n int) { got = append(got, n) }
		HandleNotification(l.Mux, laneNumber, func(_ context.Context, n int) { see(n) })
		Handle(l.Mux, laneSerial, func(_ context.Context, n int) (int, error) { see(n); return n, nil })
		c, _, err := dialPipe(t.Context(), l.Server, &DialOptions{Dialect: d})
		is.NoErr(err)
		var fs []*Future[int]
		for i := range 500 {
			if i%3 == 0 {
				fs = append(fs, Go(t.Context(), c, laneSerial, i))
			} else {
				is.NoErr(Notify(t.Context(), c, laneNumber, i))
			}
		}
		fs = append(fs, Go(t.Context(), c, laneSerial, 500))
		_, err = All(t.Context(), fs...)
		is.NoErr(err)
		for i, n := range got {
			is.Equal(n, i)
		}
		is.Equal(len(got), 501)
		is.NoErr(c.Close())
	})
}

func TestLane_slowHandlerHoldsTheSenderUp(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		l := newLab()
		l.Limits.Window = 1000
		gate := make(chan struct{})
		handled := 0
		HandleNotification(l.Mux, laneWord, func(context.Context, string) { <-gate; handled++ })
		c, _, err := dialPipe(t.Context(), l.Server, &DialOptions{Dialect: d})
		is.NoErr(err)
		text := string(make([]byte, 30)) // longer in JSON: what counts are encoded bytes
		sent := 0
		for {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err := Notify(ctx, c, laneWord, text)
			cancel()
			if err != nil {
				is.Equal(outcomeOf(err), NotSent)
				break
			}
			sent++
		}
		is.Equal(sent, 1000/(messageOverhead+30*6+2))
		waits := make(chan error, 1)
		go func() { waits <- Notify(t.Context(), c, laneWord, text) }()
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
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		l := newLab()
		l.Limits.Window = 100
		handled := 0
		HandleNotification(l.Mux, laneWord, func(context.Context, string) { handled++ })
		c, _, err := dialPipe(t.Context(), l.Server, &DialOptions{Dialect: d})
		is.NoErr(err)
		for range 50 {
			is.NoErr(Notify(t.Context(), c, laneWord, string(make([]byte, 5000))))
		}
		synctest.Wait()
		is.Equal(handled, 50)
		is.NoErr(c.Close())
	})
}

// A model of every pattern of sizes and windows: nothing deadlocks, nothing is
// lost, nothing changes places.
func TestLane_randomSizesAndWindowsNeverDeadlock(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		rng := rand.New(rand.NewPCG(7, uint64(d)))
		for round := range 60 {
			l := newLab()
			l.Limits.Window = 1 + rng.IntN(2000)
			l.Limits.MaxBuffered = 1 + rng.IntN(4000)
			var got []int
			slow := rng.IntN(3) == 0
			HandleNotification(l.Mux, laneWord, func(_ context.Context, s string) {
				got = append(got, len(s))
				if slow && len(got)%7 == 0 {
					time.Sleep(time.Millisecond)
				}
			})
			c, _, err := dialPipe(t.Context(), l.Server, &DialOptions{
				Dialect: d, Limits: Limits{MaxBuffered: 1 + rng.IntN(4000)},
			})
			is.NoErr(err)
			var sizes []int
			for range 150 {
				size := rng.IntN(50)
				switch rng.IntN(10) {
				case 0:
					size = rng.IntN(5000)
				case 1:
					size = l.Limits.Window - messageOverhead - 2 + rng.IntN(3) - 1 // just about the window
				}
				sizes = append(sizes, max(0, size))
			}
			for _, size := range sizes {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				if err := Notify(ctx, c, laneWord, text(size)); err != nil {
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
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		l := newLab()
		l.Limits.Window = 200
		c, _, err := dialPipe(t.Context(), l.Server, &DialOptions{Dialect: d})
		is.NoErr(err)
		for range 1000 {
			is.NoErr(Notify(t.Context(), c, laneWord, "nobody listens"))
		}
		is.NoErr(c.Shutdown(t.Context()))
	})
}

func TestLane_everyNotifyIsCreditedOnce(t *testing.T) {
	for _, offer := range []string{codecProtocol(JSON), helloProtocol} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			l := newLab()
			HandleNotification(l.Mux, laneWord, func(context.Context, string) { panic("also then") })
			p, err := join(l.Server, offer)
			is.NoErr(err)
			_, err = p.hello()
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
				is.NoErr(p.send(f))
			}
			time.Sleep(time.Second)
			synctest.Wait()
			p.send(wire.Frame{Type: wire.Ping, Position: 0})
			var credited uint64
			for credited < n {
				f, err := p.until(wire.Credit)
				is.NoErr(err)
				is.Equal(f.ID, uint64(0))
				credited += f.Items
			}
			is.Equal(credited, uint64(n))
			p.t.Kill()
		})
	}
}

func TestLane_creditNobodyEarnedClosesTheLink(t *testing.T) {
	for _, offer := range []string{codecProtocol(JSON), helloProtocol} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			p, err := join(newLab().Server, offer)
			is.NoErr(err)
			_, err = p.hello()
			is.NoErr(err)
			is.NoErr(p.send(wire.Frame{Type: wire.Credit, Items: 1}))
			is.Equal(p.closeCode(), session.CloseProtocol)
		})
	}
}

func TestLane_peerThatIgnoresTheWindowIsClosed(t *testing.T) {
	for _, offer := range []string{codecProtocol(JSON), helloProtocol, ""} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			l := newLab()
			l.Limits = Limits{Window: 1000, MaxMessage: 1000, MaxBuffered: 4000}
			block := make(chan struct{})
			HandleNotification(l.Mux, laneWord, func(context.Context, string) { <-block })
			p, err := join(l.Server, offer)
			is.NoErr(err)
			if offer != "" {
				_, err = p.hello()
				is.NoErr(err)
			}
			for range 1000 {
				if p.send(wire.Frame{Type: wire.Notify, Method: "lane.word", Payload: []byte(`"x"`)}) != nil {
					break
				}
			}
			is.Equal(p.closeCode(), session.CloseFlood)
			close(block)
		})
	}
}

// twoWays connects two ends that both have handlers.
func twoWays(t *testing.T, d Dialect, client, server *Mux, limits Limits) (c, s *Conn) {
	t.Helper()
	srv := newLab().Server
	srv.Mux, srv.Limits = server, limits
	c, s, err := dialPipe(t.Context(), srv, &DialOptions{Dialect: d, Mux: client, Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

// A's notification handler calls B, whose handler calls a Serial method of A,
// which would have to wait for the notification handler.
func TestLane_deadlockThroughThePeerFails(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		client, server := NewMux(), NewMux()
		result := make(chan error, 1)
		HandleNotification(client, laneNumber, func(ctx context.Context, n int) {
			_, err := Call(ctx, ConnFrom(ctx), laneRelay, n)
			result <- err
		})
		Handle(client, laneSerial, func(_ context.Context, n int) (int, error) { return n, nil })
		Handle(server, laneRelay, func(ctx context.Context, n int) (int, error) {
			return Call(ctx, ConnFrom(ctx), laneSerial, n)
		})
		c, s := twoWays(t, d, client, server, Limits{})
		is.NoErr(Notify(t.Context(), s, laneNumber, 1))
		is.True(errors.Is(<-result, FailedPrecondition))
		n, err := Call(t.Context(), s, laneSerial, 3) // and the lane goes on
		is.NoErr(err)
		is.Equal(n, 3)
		is.NoErr(c.Close())
	})
}

func TestLane_serialHandlerCallingItselfThroughThePeerFails(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		client, server := NewMux(), NewMux()
		for _, m := range []*Mux{client, server} {
			Handle(m, laneSerial, func(ctx context.Context, n int) (int, error) {
				if n == 0 {
					return 0, nil
				}
				return Call(ctx, ConnFrom(ctx), laneSerial, n-1)
			})
		}
		c, _ := twoWays(t, d, client, server, Limits{})
		n, err := Call(t.Context(), c, laneSerial, 1) // there and back, on two lanes: no deadlock
		is.NoErr(err)
		is.Equal(n, 0)
		_, err = Call(t.Context(), c, laneSerial, 2) // there, back, and there again
		is.True(errors.Is(err, FailedPrecondition))
		is.NoErr(c.Close())
	})
}

func TestLane_flagIsInheritedThroughPlainMethods(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		client, server := NewMux(), NewMux()
		relay := func(ctx context.Context, n int) (int, error) {
			if n == 0 {
				return Call(ctx, ConnFrom(ctx), laneSerial, 0)
			}
			return Call(ctx, ConnFrom(ctx), laneRelay, n-1)
		}
		Handle(client, laneRelay, relay)
		Handle(server, laneRelay, relay)
		serial := func(ctx context.Context, n int) (int, error) {
			if n == 0 {
				return 0, nil
			}
			return Call(ctx, ConnFrom(ctx), laneRelay, n-1)
		}
		Handle(client, laneSerial, serial)
		Handle(server, laneSerial, serial)
		c, _ := twoWays(t, d, client, server, Limits{})
		// The chain ends in a Serial method of the server, whose lane waits for
		// its end, when n is odd, and of the client, whose lane is free.
		for n := 1; n <= 6; n++ {
			_, err := Call(t.Context(), c, laneSerial, n)
			if n%2 == 1 {
				is.True(errors.Is(err, FailedPrecondition))
			} else {
				is.NoErr(err)
			}
		}
		is.NoErr(c.Close())
	})
}

func TestLane_fullWindowInsideAnOrderedHandlerFails(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		client, server := NewMux(), NewMux()
		const window = 300
		result := make(chan error, 1)
		flood := func(ctx context.Context, n int) {
			for range 10 {
				if err := Notify(ctx, ConnFrom(ctx), laneNumber, n+1); err != nil {
					select {
					case result <- err:
					default:
					}
					return
				}
			}
		}
		HandleNotification(client, laneNumber, flood) // both sides answer each with ten
		HandleNotification(server, laneNumber, flood)
		c, _ := twoWays(t, d, client, server, Limits{Window: window})
		is.NoErr(Notify(t.Context(), c, laneNumber, 0))
		err := <-result
		is.True(errors.Is(err, FailedPrecondition))
		is.Equal(outcomeOf(err), NotSent)
		is.NoErr(c.Close())
	})
}

func TestLane_concurrentSendersAllGetThrough(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		l := newLab()
		l.Limits.Window = 500
		last := map[int]int{}
		order, total := true, 0
		HandleNotification(l.Mux, laneNumber, func(_ context.Context, n int) {
			who, i := n/1000, n%1000
			order = order && i == last[who]
			last[who] = i + 1
			total++
		})
		c, _, err := dialPipe(t.Context(), l.Server, &DialOptions{Dialect: d})
		is.NoErr(err)
		var wg sync.WaitGroup
		for who := range 20 {
			wg.Go(func() {
				for i := range 100 {
					if err := Notify(t.Context(), c, laneNumber, who*1000+i); err != nil {
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
