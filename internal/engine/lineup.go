package engine

// lineup are goroutines that wait for the same, in their order: one that needs much would be
// passed for ever by those that need little. Only the first of them looks, so that what moves
// wakes one, and not a thousand. Most wait alone, so the first of them needs no record. nil:
// nobody waits.
type lineup struct {
	taken  bool          // somebody waits
	cost   int           // what the first of them needs
	behind spots         // the others
	look   chan struct{} // capacity 1: there may be what the first waits for
}

// spot is the place of one that waits.
type spot struct {
	prev, next *spot
	came       chan struct{} // capacity 1: its turn has come; nil: it was the first from the beginning
	cost       int
	isFirst    bool // or, where it is no matter of who is first, has what it waits for
}

// spots are in the order in which they were pushed.
type spots struct{ first, last *spot }

var firstSpot = &spot{isFirst: true}

// enterLineup is enter; where there is no lineup, it makes one.
func enterLineup(l **lineup, cost int) *spot {
	if *l == nil {
		*l = &lineup{look: make(chan struct{}, 1)}
	}
	return (*l).enter(cost)
}

// enter is for who has no place yet.
func (l *lineup) enter(cost int) *spot {
	if !l.taken {
		l.taken, l.cost = true, cost
		return firstSpot
	}
	return l.behind.push(cost)
}

// leaveLineup is leave; a lineup that nobody is left in is gone.
func leaveLineup(l **lineup, s *spot) {
	(*l).leave(s)
	if !(*l).taken {
		*l = nil
	}
}

func (l *lineup) leave(s *spot) {
	if !s.isFirst {
		l.behind.remove(s)
		return
	}
	next := l.behind.first
	if next == nil {
		l.taken = false
		return
	}
	l.cost = next.cost
	l.behind.call(next)
}

// call has s, whose turn it is, leave the others.
func (l *spots) call(s *spot) {
	l.remove(s)
	s.isFirst = true
	s.came <- struct{}{}
}

func (l *spots) push(cost int) *spot {
	s := &spot{came: make(chan struct{}, 1), prev: l.last, cost: cost}
	if l.last == nil {
		l.first = s
	} else {
		l.last.next = s
	}
	l.last = s
	return s
}

func (l *spots) remove(s *spot) {
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
func (l *lineup) isTurn(s *spot) bool { return l == nil || !l.taken || s != nil && s.isFirst }

// wait is what s waits for, to look again.
func (l *lineup) wait(s *spot) <-chan struct{} {
	if s.isFirst {
		return l.look
	}
	return s.came
}

// stir has the first look again.
func (l *lineup) stir() {
	if l != nil {
		signal(l.look)
	}
}
