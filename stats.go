package typedrpc

import "github.com/typedrpc/typedrpc/stats"

// Stats returns the connection's numbers: the round trip, what waits and what is
// unacknowledged, places and windows in use, what was sent and received. They are of
// one moment, and cost about a microsecond and no memory, so they may be asked for every
// second of thousands of connections. Of a connection that has ended they are what it has done.
func (c *Conn) Stats() stats.Conn { return c.engine().Stats() }

// Stats returns the server's numbers, the sums of its connections among them, for
// which it asks each. A Server that has served nobody has none.
func (s *Server) Stats() stats.Server {
	if s == nil || s.s.Load() == nil {
		return stats.Server{}
	}
	return s.s.Load().Stats()
}
