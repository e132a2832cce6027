package engine

import (
	"time"

	"github.com/typedrpc/typedrpc/internal/status"
)

// tryAgain arranges another attempt if the policy, the outcome, the budget and
// the deadline allow one.
func (cl *Call) tryAgain(err *status.Error) bool {
	if !cl.Retries {
		return false
	}
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if cl.givenUp != nil || cl.Ctx.Err() != nil {
		return false
	}
	cl.attempts++
	cl.failed, cl.there = err, nil
	wait, ok := cl.Conn.owner.Again(cl, err, cl.attempts)
	if !ok {
		return false
	}
	cl.unmade = true
	if !cl.deadline.IsZero() && time.Until(cl.deadline) <= wait {
		cl.unspend()
		return false
	}
	cl.lost = cl.lost || err.Outcome != status.NotSent
	if !cl.Roams && !cl.Conn.rest(cl) {
		cl.unspend()
		return false // the connection ends, and no other would be asked
	}
	// Not 0: timers that are due at once crash the race detector when several
	// goroutines of one testing/synctest bubble start them (Go 1.26).
	cl.timer = time.AfterFunc(max(wait, 1), cl.again)
	return true
}

// unspend says that the retry which the policy has allowed was not made, if it has not left.
func (cl *Call) unspend() {
	if cl.unmade {
		cl.unmade = false
		cl.Conn.owner.Unmade(cl)
	}
}

// again makes the next attempt, on the connection that is picked for it.
func (cl *Call) again() {
	cl.Conn.wake(cl)
	cl.mu.Lock()
	cl.timer = nil
	why, n, failed := cl.givenUp, cl.attempts, cl.failed
	cl.mu.Unlock()
	if why != nil {
		cl.Settle(nil, nil, why(status.NotSent)) // this attempt; settle knows of the others
		return
	}
	picked := false
	defer func() {
		if !picked { // the program's function ended this goroutine, as t.FailNow does
			cl.Settle(nil, nil, status.Errorf(status.Internal, "Pick's function, or OnRetry, ended its goroutine"))
		}
	}()
	conn, err := cl.Conn.owner.Next(cl, n, failed)
	picked = true
	if err != nil {
		cl.Settle(nil, nil, err)
		return
	}
	cl.Taken() // the answer to the last one
	cl.aim(conn)
	if err := cl.measure(); err != nil {
		cl.Settle(nil, nil, err)
		return
	}
	cl.launch(n)
}
