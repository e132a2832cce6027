package main

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/typedrpc/typedrpc/typedrpctest"
)

// weather makes each proxy bad in its own way, until ctx has ended.
func (s *soak) weather(ctx context.Context) {
	cut, bytes, slow := s.proxies[0], s.proxies[1], s.proxies[2]
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	stalled := 0 // ticks that the slow one stands still for
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			for _, p := range s.proxies {
				p.Set(typedrpctest.Both, typedrpctest.Conditions{})
				p.CutEach(typedrpctest.Both, 0, -1, 0)
			}
			return
		}
		for _, l := range cut.Links() { // now and then, wherever it is
			if rand.IntN(12) == 0 {
				l.Cut(typedrpctest.Cut(rand.IntN(4)))
			}
		}
		// After so many bytes, in the opening too.
		bytes.CutEach(typedrpctest.Both, 0, 1_000_000, typedrpctest.Cut(rand.IntN(4)))
		// Slow, in slices, and sometimes it stands still: at times for longer
		// than a session's grace.
		c := typedrpctest.Conditions{Latency: 5 * time.Millisecond, Jitter: 5 * time.Millisecond, Slice: 1000}
		switch {
		case stalled > 0:
			stalled--
			continue
		case rand.IntN(40) == 0:
			stalled = rand.IntN(24)
			c.Stall, c.BlackHole = true, rand.IntN(2) == 0
		}
		slow.Set(typedrpctest.Both, c)
	}
}
