package flow

import "time"

// Pace bounds how many messages are under way, for a receiver that wants each of them
// as young as can be: as many as keep the path busy, and none that stands in a queue. It
// begins with one. While those that are under way are credited as soon as the path
// allows it there may be twice as many; where that takes twice as long there are only
// those that the path has room for. A burst may go together until one was late. The zero
// value is ready.
type Pace struct {
	more int       // that may be under way beside one
	late bool      // one that was measured stood in a queue
	held bool      // one had to wait since the last measurement
	free time.Time // when the first one left of those that are under way

	at    time.Time     // when the measured one was queued; zero: none is
	ahead int           // how many are to be credited with it and before it
	least time.Duration // that one has taken; 0: none was measured
}

const (
	// mostPaced is how many may be under way at most, but for a burst. It is what a
	// receiver that became slow in this moment is late by: sixteen items of its own.
	// For 60 a second they reach over a round trip of 260 ms.
	mostPaced = 16
	// Burst is how long a burst lasts: nobody sees that something is so old.
	Burst = time.Millisecond
)

// Fits reports whether one more may go, beside those that are under way.
func (p *Pace) Fits(out int) bool {
	if out <= p.more || !p.late && time.Since(p.free) < Burst {
		return true
	}
	p.held = true
	return false
}

// Sent notes one that is queued behind those that are under way. What is measured is
// the last of as many as there may be, or the last of a burst.
func (p *Pace) Sent(out int) {
	if out == 0 {
		p.free = time.Now()
	}
	if p.at.IsZero() && out == p.more || out > p.more {
		p.at, p.ahead = time.Now(), out+1
	}
}

// Unsent takes back the last of those that are under way.
func (p *Pace) Unsent(out int) {
	if p.ahead == out {
		p.at = time.Time{}
	}
}

// Credited notes that n were consumed; rtt is the shortest round trip that is known, 0:
// none is.
func (p *Pace) Credited(n int, rtt time.Duration) {
	if p.at.IsZero() {
		return
	}
	if p.ahead -= n; p.ahead > 0 {
		return
	}
	took := max(time.Since(p.at), 1)
	p.at = time.Time{}
	if p.least == 0 || took < p.least {
		p.least = took
	}
	if rtt == 0 || p.least < rtt {
		rtt = p.least
	}
	switch {
	case took > 2*rtt+Burst: // what is under way, less what waits
		p.more = max(int(time.Duration(p.more+1)*rtt/took)-1, 0)
		p.late = true
	case took <= (rtt*5+Burst)/4 && p.held:
		p.more = min(2*p.more+1, mostPaced-1)
	}
	p.held = false
}
