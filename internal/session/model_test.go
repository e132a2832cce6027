package session

import (
	"fmt"
	"slices"
	"time"
)

// model is the specification of sessions (PROTOCOL.md section 2) in the fewest
// words: what each end knows, and what a HELLO gets. It has no locks, no timers
// and no bytes. history_test.go drives it in lockstep with the real thing.
type model struct {
	now       time.Time
	all       []*modelSession // that the server has, in the order in which they began
	away      []*modelSession // of those, without a link, the longest away first
	maxAway   int
	sweep     time.Time // when those are asked next whether they are busy; zero: there are none
	grace     time.Duration
	handshake time.Duration
}

// modelEnd is what one end knows of a session.
type modelEnd struct {
	sent     uint64 // counted frames written so far, over any link
	acked    uint64
	received uint64
	stated   uint64 // of received, to the peer
	link     *modelLink
	over     bool
}

type modelSession struct {
	name               string // its first token
	principal, client  string
	owner              string
	terms              string
	attempt            uint64
	confirmed, offered string
	srv, cli           modelEnd
	until              time.Time // without a link
	busy               bool      // calls are in flight, say
	wasBusy            bool      // when it was last asked, without a link
	left               bool      // the client said so when the latest one ended
}

// modelLink is a link as both ends know it. A position is that of the next
// counted frame on it.
type modelLink struct {
	name     string
	srv, cli *modelSession // that it carries at the server, and at the client
	down, up uint64        // positions, to the client and to the server
	opened   bool          // HELLO has come
}

// verdict is what a HELLO gets.
type verdict struct {
	kind   verdictKind
	reason string
	s      *modelSession // resumed
}

type verdictKind string

const (
	isResumed verdictKind = "resumed"
	isNew     verdictKind = "a new session"
	isStale   verdictKind = "4409"
	isBad     verdictKind = "4400"
)

func (v verdict) String() string {
	if v.reason != "" {
		return fmt.Sprintf("%s (%s)", v.kind, v.reason)
	}
	return string(v.kind)
}

// hello decides about a HELLO that arrived over l.
func (m *model) hello(l *modelLink, q Claim) verdict {
	l.opened = true
	var s *modelSession
	for _, one := range m.all {
		if q.Token != "" && one.principal == q.Principal && (one.confirmed == q.Token || one.offered == q.Token) {
			s = one
		}
	}
	switch {
	case s == nil:
		reason := ReasonUnknown
		if q.Token == "" {
			reason = ReasonNone
		}
		return m.fresh(q, reason)
	case q.Attempt <= s.attempt:
		return verdict{kind: isStale}
	}
	if q.Token == s.offered {
		s.confirm()
	}
	switch {
	case q.Terms.Features != s.terms:
		return m.fresh(q, ReasonDiffers)
	case q.Received > s.srv.sent || q.Received < s.srv.acked:
		return verdict{kind: isBad}
	}
	s.attempt, s.owner = q.Attempt, q.Owner
	s.srv.acked = q.Received
	if s.srv.link != nil {
		s.srv.link.srv = nil // fenced off
	}
	m.back(s)
	s.srv.link, l.srv, l.down = l, s, q.Received
	return verdict{kind: isResumed, s: s}
}

// fresh makes way for a new session: that of a client which never got its WELCOME
// ends.
func (m *model) fresh(q Claim, reason string) verdict {
	for _, s := range m.all {
		if s.principal != q.Principal || s.client != q.Client || s.confirmed != "" {
			continue
		}
		if q.Attempt <= s.attempt {
			return verdict{kind: isStale}
		}
		m.end(s)
	}
	return verdict{kind: isNew, reason: reason}
}

// add begins a session over l.
func (m *model) add(l *modelLink, q Claim, token string) *modelSession {
	s := &modelSession{
		name: token, principal: q.Principal, client: q.Client, owner: q.Owner, terms: q.Terms.Features,
		attempt: q.Attempt, offered: token,
	}
	s.srv.link, l.srv = l, s
	m.all = append(m.all, s)
	return s
}

func (s *modelSession) confirm() {
	if s.offered != "" {
		s.confirmed, s.offered = s.offered, ""
	}
}

// serverGot is a message of a session that arrived at the server.
func (m *model) serverGot(l *modelLink, counted int, acks []uint64) {
	s := l.srv
	s.confirm()
	s.srv.got(counted, acks)
}

func (e *modelEnd) got(counted int, acks []uint64) {
	e.received += uint64(counted)
	for _, a := range acks {
		e.acked = max(e.acked, a)
	}
}

// outlives is the table of close codes; 0 is a link that was lost.
func outlives(code int) bool {
	switch code {
	case 1000, 1009, 1012, 4400, 4401, 4403, 4413, 4429:
		return false
	}
	return true
}

// serverLost is the end of a link that the server has noticed.
func (m *model) serverLost(l *modelLink, code int) {
	s := l.srv
	if s == nil {
		return
	}
	l.srv, s.srv.link = nil, nil
	if !outlives(code) {
		m.end(s)
		return
	}
	kept := m.grace
	s.left = code == 1001
	if s.left || s.confirmed == "" {
		kept = min(kept, m.handshake)
	}
	s.until = m.now.Add(kept)
	s.wasBusy = s.busy
	m.away = append(m.away, s)
	for len(m.away) > m.maxAway {
		m.end(m.least())
	}
	if m.sweep.IsZero() && len(m.away) > 0 {
		m.sweep = m.now.Add(sweepEvery)
	}
}

// least is the session that has to go: of an owner who has more than half, if
// there is one, and of those the least worth, and of those the longest away.
func (m *model) least() *modelSession {
	has := map[string]int{}
	for _, s := range m.away {
		has[s.owner]++
	}
	from := m.away
	for owner, n := range has {
		if 2*n > m.maxAway+m.maxAway%2 {
			from = slices.DeleteFunc(slices.Clone(m.away), func(s *modelSession) bool { return s.owner != owner })
		}
	}
	return slices.MinFunc(from, func(a, b *modelSession) int { return a.worth() - b.worth() }) // the first of equals
}

func (s *modelSession) worth() (n int) {
	if s.confirmed != "" && !s.left {
		n += 4
	}
	if s.wasBusy {
		n += 2
	}
	if s.principal != "" {
		n++
	}
	return n
}

// clientWelcomed is a WELCOME that arrived at the client, whose session was s.
func (m *model) clientWelcomed(l *modelLink, s *modelSession, received uint64) {
	s.cli.link, l.cli, l.up = l, s, received
	s.cli.acked = max(s.cli.acked, received)
}

// clientLost is the end of a link at the client. It reports whether the session
// is over.
func (m *model) clientLost(l *modelLink, code int) (over bool) {
	s := l.cli
	if s == nil {
		return false
	}
	l.cli, s.cli.link = nil, nil
	s.cli.over = !outlives(code)
	return s.cli.over
}

// end ends a session at the server.
func (m *model) end(s *modelSession) {
	s.srv.over = true
	if s.srv.link != nil {
		s.srv.link.srv, s.srv.link = nil, nil
	}
	m.back(s)
	m.all = without(m.all, s)
}

func (m *model) back(s *modelSession) {
	if m.away = without(m.away, s); len(m.away) == 0 {
		m.sweep = time.Time{}
	}
}

// pass lets time go by.
func (m *model) pass(d time.Duration) {
	for end := m.now.Add(d); m.now.Before(end); {
		next := end
		if !m.sweep.IsZero() && m.sweep.Before(end) {
			next = m.sweep
		}
		m.expire(next)
		if m.now.Equal(m.sweep) {
			m.sweep = m.now.Add(sweepEvery)
			for _, s := range m.away {
				s.wasBusy = s.busy
			}
		}
	}
}

func (m *model) expire(now time.Time) {
	m.now = now
	for _, s := range append([]*modelSession(nil), m.away...) {
		if !m.now.Before(s.until) {
			m.end(s)
		}
	}
}

func without(list []*modelSession, s *modelSession) []*modelSession {
	var rest []*modelSession
	for _, one := range list {
		if one != s {
			rest = append(rest, one)
		}
	}
	return rest
}
