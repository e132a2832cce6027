package session

import "time"

// probe measures the round trip: of the opening, and then from the writing of a
// PING with counted frames behind it to the ACK that has seen them.
type probe struct {
	wanted bool
	from   time.Time // zero: none is on its way
	at     uint64    // the position that answers it
	rtt    time.Duration
}

// measure takes a round trip that has just been completed.
func (p *probe) measure() {
	if rtt := max(time.Since(p.from), 1); p.rtt == 0 || rtt < p.rtt {
		p.rtt = rtt
	}
	p.from = time.Time{}
}

// Heard reports whether something has come over the latest link: the client
// has the token of its WELCOME.
func (s *Session) Heard() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard
}

// Probe asks for a measurement of the round trip, with the next frames that are
// sent.
func (s *Session) Probe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.current.Load(); c != nil && s.dialect != Plain && !s.probe.wanted && s.probe.from.IsZero() {
		s.probe.wanted = true
		c.Ping()
	}
}

// RTT returns the shortest round trip that was measured, 0 if none was. What
// waits in buffers makes others longer.
func (s *Session) RTT() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.probe.rtt
}
