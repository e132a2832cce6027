package engine

// claim is what one of those has who wait for room in the outgoing budget: the others leave it
// as much as it needs, so that it is not passed for ever by those that need little. They may go
// where there is room for both. Who has it is the next that looks and finds no room, which is
// soonest one that needs much; it is not about whose turn it is.
type claim struct {
	by   any // *Inbound: a reply; *lineup: a notification; *Stream: an item
	cost int
}

// fitsOutLocked reports whether the outgoing budget has room.
func (c *Conn) fitsOutLocked(cost int, by any) bool {
	if o := c.claim; o != nil && o.by != by {
		return c.queued+o.cost+cost <= c.outgoingLocked()
	}
	return c.queued == 0 || c.queued+cost <= c.outgoingLocked()
}

// claimLocked is for who waits for the outgoing budget, on its goroutine.
func (o *outbox) claimLocked(cost int, by any) {
	if o.claim == nil {
		o.claim = &claim{by, cost}
	}
}

// claimedLocked ends the claim of one that queues now what it was for.
func (o *outbox) claimedLocked(by any) {
	if o.claim != nil && o.claim.by == by {
		o.claim = nil
	}
}

// moved has those look again who wait.
func (c *Conn) moved() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.movedLocked()
}

// unclaimLocked ends the claim of one that queues nothing.
func (o *outbox) unclaimLocked(by any) {
	if o.claim != nil && o.claim.by == by {
		o.claim = nil
		o.movedLocked()
	}
}

// claimant is who has the claim, nil: nobody.
func (o *outbox) claimant() any {
	if o.claim == nil {
		return nil
	}
	return o.claim.by
}
