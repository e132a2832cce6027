package main

import (
	"math/rand/v2"
	"sync"

	"github.com/typedrpc/typedrpc/typedrpctest"
)

// storm has the proxy cut every link after a random number of bytes, in a random
// way: by a FIN, by an RST, or so that one end never learns of it.
type storm struct {
	proxy *typedrpctest.Proxy
	mean  int64

	mu  sync.Mutex
	rng *rand.Rand
	end bool
}

func newStorm(p *typedrpctest.Proxy, seed uint64, mean int64) *storm {
	s := &storm{proxy: p, mean: mean, rng: rand.New(rand.NewPCG(seed, 0))}
	s.next()
	return s
}

// next decides about the links to come.
func (s *storm) next() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end {
		return
	}
	at := s.rng.Int64N(2 * s.mean)
	how := typedrpctest.Cut(s.rng.IntN(4))
	s.proxy.CutEach(typedrpctest.Both, at, at, how)
}

// pass ends the storm.
func (s *storm) pass() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end = true
	s.proxy.CutEach(typedrpctest.Both, 0, -1, 0)
	for _, l := range s.proxy.Links() {
		l.CutAfter(typedrpctest.Both, -1, 0)
	}
}
