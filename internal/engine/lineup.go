package engine

// lineup are goroutines that wait for the same, in their order: one that needs much would be
// passed for ever by those that need little. Most wait alone, so the first of them needs no
// record.
type lineup struct {
	taken       bool // somebody waits
	first, last *spot
}

// spot is the place of one that waits.
type spot struct {
	prev, next *spot
	came       chan struct{} // capacity 1: it has become the first; nil: it was from the beginning
	isFirst    bool
}

var firstSpot = &spot{isFirst: true}

// enter is for who has no place yet.
func (l *lineup) enter() *spot {
	if !l.taken {
		l.taken = true
		return firstSpot
	}
	s := &spot{came: make(chan struct{}, 1), prev: l.last}
	if l.last == nil {
		l.first = s
	} else {
		l.last.next = s
	}
	l.last = s
	return s
}

func (l *lineup) leave(s *spot) {
	if !s.isFirst {
		l.remove(s)
		return
	}
	next := l.first
	if next == nil {
		l.taken = false
		return
	}
	l.remove(next)
	next.isFirst = true
	next.came <- struct{}{}
}

func (l *lineup) remove(s *spot) {
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		l.first = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	} else {
		l.last = s.prev
	}
}

// isTurn reports whether nobody waits before s; nil: who has not waited.
func (l *lineup) isTurn(s *spot) bool { return !l.taken || s != nil && s.isFirst }
