package typedrpc

import (
	"log/slog"

	"github.com/typedrpc/typedrpc/internal/logs"
	"github.com/typedrpc/typedrpc/stats"
)

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

// recorder is the program's Recorder, whose panics end nothing.
type recorder struct {
	to     stats.Recorder
	logger *slog.Logger
}

// recorderOf keeps nil nil, so that the layers below have nothing to ask.
func recorderOf(r stats.Recorder, logger *slog.Logger) stats.Recorder {
	if r == nil {
		return nil
	}
	return recorder{r, logger}
}

func (r recorder) caught() {
	if p := recover(); p != nil {
		r.logger.Error("typedrpc: recorder panicked", "panic", logs.Panic{Value: p}, "stack", logs.Stack{})
	}
}

func (r recorder) Call(e stats.Call) {
	defer r.caught()
	r.to.Call(e)
}

func (r recorder) Item(e stats.Item) {
	defer r.caught()
	r.to.Item(e)
}

func (r recorder) Link(e stats.Link) {
	defer r.caught()
	r.to.Link(e)
}

func (r recorder) Session(e stats.Session) {
	defer r.caught()
	r.to.Session(e)
}

func (r recorder) Topic(e stats.Topic) {
	defer r.caught()
	r.to.Topic(e)
}
