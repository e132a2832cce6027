package server

import (
	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/stats"
)

// Stats are the server's numbers. Its connections are asked one after another.
func (s *Server) Stats() stats.Server {
	ledger := s.o.Config.Ledger
	s.mu.Lock()
	sums := stats.Server{
		Accepted: s.begun, Links: len(s.links), Opening: len(s.checks), Plain: s.plain, Posts: len(s.posts), Load: s.past,
	}
	conns := make([]*engine.Conn, 0, len(s.accepted))
	for a := range s.accepted {
		if a.open.Load() {
			sums.Conns++
		}
		conns = append(conns, a.conn)
	}
	s.mu.Unlock()
	for _, c := range conns {
		one := c.Stats()
		sums.Load.Add(&one.Load)
	}
	sums.Memory, sums.MaxMemory = ledger.Used(), ledger.Most()
	sums.Kept, sums.KeptBytes = s.registry.Away()
	sums.MaxKept, sums.MaxKeptBytes = s.o.MaxKept, s.o.MaxKeptBytes
	sums.MaxPlain = s.o.MaxPlain
	sums.Detached = s.o.Config.Detached.Len()
	gone := s.registry.Gone()
	sums.Evicted = stats.Evicted{Grace: gone.Grace, Kept: gone.Room, Memory: ledger.Evicted()}
	return sums
}
