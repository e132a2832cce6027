package cases

import (
	"context"
	"fmt"
	"time"

	"github.com/typedrpc/typedrpc/bench/internal/measure"
	"github.com/typedrpc/typedrpc/bench/internal/msg"
	"github.com/typedrpc/typedrpc/bench/internal/peer"
)

func streamCases() []Case {
	return []Case{{
		Name: "stream", Title: fmt.Sprintf("items of %d bytes", msg.ItemSize), Group: "A stream from the server",
		Columns: []Column{{Name: "items/s"}, {Name: "µs of CPU per item", Low: true}, {Name: "allocations per item", Low: true}},
		Can:     peer.Stream, Floors: true, run: stream,
	}}
}

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
	receive := func(n int) error {
		got, err := c.(peer.Streamer).Items(ctx, n)
		if err == nil && got != n {
			err = fmt.Errorf("%d items of %d arrived", got, n)
		}
		return err
	}
	if err := receive(s.Items / 10); err != nil {
		return nil, err
	}
	before, began := measure.Now(true), time.Now()
	if err := receive(s.Items); err != nil {
		return nil, err
	}
	took, after, n := time.Since(began), measure.Now(false), float64(s.Items)
	return Sample{n / took.Seconds(), micros(after.CPU-before.CPU) / n, float64(after.Allocs-before.Allocs) / n}, nil
}
