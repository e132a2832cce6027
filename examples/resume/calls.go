package main

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/typedrpc/typedrpc"
)

// calls keeps the books of calls: how often each ran, and what its caller was
// told.
type calls struct {
	made atomic.Int64

	mu         sync.Mutex
	ran        map[int64]int              // of those that are not answered
	open       map[int64]typedrpc.Outcome // failed, and may have run
	outcomes   map[typedrpc.Outcome]int64 // of those that failed
	late       int64                      // of those that failed: their time was over
	answered   int64
	gaps       int64 // answered without having run
	duplicates int64
	pause      time.Duration // the longest that a call took to be answered
}

func newCalls() *calls {
	return &calls{ran: map[int64]int{}, open: map[int64]typedrpc.Outcome{}, outcomes: map[typedrpc.Outcome]int64{}}
}

// run notes that a handler runs call n.
func (c *calls) run(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ran[n]++
}

// end notes what the caller of call n was told.
func (c *calls) end(n int64, err error, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		outcome := typedrpc.OutcomeOf(err)
		c.open[n] = outcome
		c.outcomes[outcome]++
		if errors.Is(err, typedrpc.DeadlineExceeded) {
			c.late++
		}
		return
	}
	c.answered++
	c.pause = max(c.pause, took)
	if times := c.ran[n]; times == 0 {
		c.gaps++
	} else {
		c.duplicates += int64(times - 1)
	}
	delete(c.ran, n)
}

func (c *calls) tally() tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	return tally{
		sent: c.made.Load(), received: c.answered, told: int64(len(c.open)),
		gaps: c.gaps, duplicates: c.duplicates, pause: c.pause,
	}
}

// ended is the tally when no handler can run any more: what ran and was not
// answered has an error that allows it.
func (c *calls) ended() tally {
	t := c.tally()
	c.mu.Lock()
	defer c.mu.Unlock()
	for n, times := range c.ran {
		if outcome, failed := c.open[n]; failed && outcome != typedrpc.NotSent {
			times-- // it may have run, once
		}
		t.duplicates += int64(times)
	}
	t.gaps += t.sent - t.received - t.told
	return t
}
