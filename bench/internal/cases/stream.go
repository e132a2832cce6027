package cases

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/typedrpc/typedrpc/bench/internal/host"
	"github.com/typedrpc/typedrpc/bench/internal/measure"
	"github.com/typedrpc/typedrpc/bench/internal/msg"
	"github.com/typedrpc/typedrpc/bench/internal/peer"
)

func streamCases() []Case {
	return []Case{{
		Name: "stream", Title: fmt.Sprintf("items of %d bytes", msg.ItemSize), Group: "A stream from the server",
		Columns: []Column{{Name: "items/s"}, {Name: "µs of CPU per item", Low: true}, {Name: "allocations per item", Low: true}},
		Can:     peer.Stream, Floors: true, run: stream,
	}, {
		Name: "transfer", Title: "a call each millisecond", Group: "Small calls beside transfers on the same connection",
		Note: "Meanwhile 64 MiB go up and 64 MiB come down, again and again; client and server are two processes. typedrpc's\n" +
			"transfers (package transfer) have a SHA-256 of everything, the others' have none. Peers that carry a\n" +
			"call at a time on a connection, or have no streams, are left out.",
		Columns: []Column{{Name: "ms, 99th percentile", Low: true}, {Name: "ms, median", Low: true}, {Name: "MiB/s of transfers"}},
		Can:     peer.Transfer, run: transfer,
	}}
}

// stream receives as many items as come in the time.
func stream(ctx context.Context, s Settings, p peer.Peer) (Sample, error) {
	srv, err := p.Serve()
	if err != nil {
		return nil, err
	}
	defer srv.Close()
	c, err := p.Dial(ctx, srv.Addr(), 1)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	receive := func(n int) (time.Duration, error) {
		began := time.Now()
		got, err := c.(peer.Streamer).Items(ctx, n)
		if err == nil && got != n {
			err = fmt.Errorf("%d items of %d arrived", got, n)
		}
		return time.Since(began), err
	}
	few := s.Items / 100
	took, err := receive(few)
	if err != nil {
		return nil, err
	}
	items := max(few, min(s.Items, int(float64(few)*s.Time.Seconds()/took.Seconds())))
	before := measure.Now(true)
	if took, err = receive(items); err != nil {
		return nil, err
	}
	after, n := measure.Now(false), float64(items)
	return Sample{n / took.Seconds(), micros(after.CPU-before.CPU) / n, float64(after.Allocs-before.Allocs) / n}, nil
}

// transfer measures how long small calls take beside two transfers.
func transfer(ctx context.Context, s Settings, p peer.Peer) (Sample, error) {
	srv, err := host.Start(p)
	if err != nil {
		return nil, err
	}
	defer srv.Close()
	c, err := p.Dial(ctx, srv.Addr(), 3)
	if err != nil {
		return nil, err
	}
	defer c.Close()

	var ended atomic.Bool
	var bulk sync.WaitGroup
	var failed [2]error
	var rate [2]float64
	for i, move := range []func(context.Context, int) error{c.(peer.Transferrer).Upload, c.(peer.Transferrer).Download} {
		bulk.Go(func() {
			began, moved := time.Now(), 0
			for more := true; more; more = !ended.Load() {
				if failed[i] = move(ctx, s.Bulk); failed[i] != nil {
					return
				}
				moved += s.Bulk
			}
			rate[i] = float64(moved) / (1 << 20) / time.Since(began).Seconds()
		})
	}
	took, err := paced(ctx, 4*s.Time, add(c))
	ended.Store(true)
	bulk.Wait()
	for _, e := range append(failed[:], err) {
		if e != nil {
			return nil, e
		}
	}
	return Sample{millis(measure.Percentile(took, 0.99)), millis(measure.Percentile(took, 0.5)), rate[0] + rate[1]}, nil
}

// paced makes a call each millisecond, or as soon as the one before has been answered, for a
// while, and returns how long they took. The first ones are not counted.
func paced(ctx context.Context, d time.Duration, call caller) (took []time.Duration, err error) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); time.Since(began) < d || len(took) == 0; {
		<-tick.C
		sent := time.Now()
		if err := call(ctx); err != nil {
			return nil, err
		}
		if sent.Sub(began) > d/5 {
			took = append(took, time.Since(sent))
		}
	}
	return took, nil
}

func millis(d time.Duration) float64 { return d.Seconds() * 1000 }
