package session

import (
	"time"

	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/stats"
)

// Numbers are what a session has done, and how it is.
type Numbers struct {
	Linked         bool
	RTT            time.Duration
	Unacked        int
	Links          int64 // that it has had
	Sent, Received stats.Traffic
}

// Numbers are the session's at this moment.
func (s *Session) Numbers() Numbers {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Numbers{
		Linked: s.current.Load() != nil, RTT: s.probe.rtt, Unacked: s.log.bytes, Links: int64(s.links),
		Sent: s.out, Received: s.in,
	}
}

// welcome reports that the batch is a WELCOME, which is the handshake's: its receiver
// has no session yet to count it for.
func (b *Batch) welcome() bool { return len(b.frames) == 1 && b.frames[0].Type == wire.Welcome }

// cameLocked and leftLocked count messages.
func (s *Session) cameLocked(bytes int) {
	s.in.Messages++
	s.in.Bytes += int64(bytes)
}

func (s *Session) leftLocked(bytes int) {
	s.out.Messages++
	s.out.Bytes += int64(bytes)
}
