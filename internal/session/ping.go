package session

import (
	"time"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// Ping asks the peer for a sign of life.
func (c *Carrier) Ping() {
	c.mu.Lock()
	c.pingLocked()
	c.mu.Unlock()
	c.link.Wake()
}

func (c *Carrier) pingLocked() {
	if !c.pinging {
		c.pinging = true
		c.control = append(c.control, wire.Frame{Type: wire.Ping})
	}
}

// Question is a PING whose answer somebody waits for.
type Question struct {
	before *Question     // asked earlier; nil: none
	left   time.Time     // when it was written; zero: it was not
	Answer chan struct{} // closed when the answer has come …
	Took   time.Duration // … so long after it was written
}

// Ask asks the peer for a sign of life. An ACK names no PING, so one that was under way
// when the question left answers it as well. It reports false where the link cannot ask.
// Whoever does not wait any more says so with Forget.
func (c *Carrier) Ask() (q *Question, ok bool) {
	q = &Question{Answer: make(chan struct{})}
	if c.o.Dialect == Plain {
		q.left = time.Now()
		return q, c.link.Ping(func() { q.answer() })
	}
	c.mu.Lock()
	q.before = c.asked.Load()
	c.asked.Store(q)
	c.pingLocked()
	c.mu.Unlock()
	c.link.Wake()
	return q, true
}

// Forget gives up a question.
func (c *Carrier) Forget(q *Question) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keepLocked(func(other *Question) bool { return other != q })
}

// keepLocked leaves those of the questions for which keep holds.
func (c *Carrier) keepLocked(keep func(*Question) bool) {
	var kept *Question
	for q := c.asked.Load(); q != nil; {
		before := q.before
		if keep(q) {
			q.before, kept = kept, q
		}
		q = before
	}
	c.asked.Store(kept)
}

// leavesLocked is called when a PING is written.
func (c *Carrier) leavesLocked() {
	for q := c.asked.Load(); q != nil; q = q.before {
		if q.left.IsZero() {
			q.left = time.Now()
		}
	}
}

// answered is called when an ACK has come: it answers what has left.
func (c *Carrier) answered() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keepLocked(func(q *Question) bool {
		if q.left.IsZero() {
			return true
		}
		q.answer()
		return false
	})
}

func (q *Question) answer() {
	q.Took = time.Since(q.left)
	close(q.Answer)
}
