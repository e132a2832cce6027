package server

import (
	"time"

	"github.com/typedrpc/typedrpc/internal/engine"
)

// Change is what OnState is told: a link was lost, or the session goes on over another.
type Change struct {
	Linked bool
	Err    error     // why the link ended
	Since  time.Time // when it was missed
}

// mostUntold bounds what a client that comes and goes has the server keep for an OnState
// that is slow.
const mostUntold = 16

// lost is told that the session has lost its link.
func (a *Accepted) lost(cause error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sess.Carrier() == nil { // else another one is here already, and tells of itself
		a.tellLocked(Change{Err: cause, Since: time.Now()})
	}
}

// found is told that the session has a link again, or another.
func (a *Accepted) found() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tellLocked(Change{Linked: true})
}

func (a *Accepted) tellLocked(c Change) {
	tell := a.server.o.OnState
	if tell == nil || a.over {
		return
	}
	if a.states == nil {
		a.states = &engine.Teller[Change]{Most: mostUntold}
	}
	a.states.Tell(func(c Change) { tell(a.conn, c) }, c)
}
