package link

import (
	"sync/atomic"
	"time"
)

// speed is how fast what is written leaves, where it has to wait. The writer's, but
// for now.
type speed struct {
	bytes int           // written …
	took  time.Duration // … in this time, …
	now   atomic.Int64  // … and what that is in bytes per second; 0: nothing waits
}

const (
	// speedAfter is for how long writes wait before it is known how fast they leave:
	// what a socket takes at once says nothing.
	speedAfter = 500 * time.Millisecond
	// speedBytes is how much is written within that time where nothing is slow.
	speedBytes = 2 << 20
)

// wrote notes n bytes that took so long.
func (s *speed) wrote(n int, took time.Duration) {
	s.bytes += n
	s.took += took
	switch {
	case s.took >= speedAfter:
		s.now.Store(max(int64(float64(s.bytes)/s.took.Seconds()), 1))
	case s.bytes >= speedBytes:
		s.now.Store(0)
	default:
		return
	}
	s.bytes, s.took = 0, 0
}

// Speed is how many bytes per second leave, 0: as many as there are.
func (l *Link) Speed() int { return int(l.speed.now.Load()) }
