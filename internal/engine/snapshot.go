package engine

import "github.com/typedrpc/typedrpc/internal/hook"

// Snapshot is what tests see of a connection's parts, at one moment.
func (c *Conn) Snapshot() hook.ConnSums {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := hook.ConnSums{
		Queue: c.queue.len, Large: c.large.len, Waiting: c.waiting.len(), Pending: len(c.pending), Resting: len(c.resting),
		Slots: c.slots, Flowing: c.streams, Held: c.held, Passed: c.passed, NextID: c.nextID,
		Cutting: c.cutting, Midway: c.midway != nil, Overtaken: c.overtaken, Queued: c.queued, Unsent: c.unsent,
		NotifyWindow: c.notify.Window, NotifyUsed: c.notify.Used, NotifySizes: c.notify.Sizes.Len(),
		SentItems: c.sentItems, Unread: c.unread, ItemsOut: c.out, Spent: c.spent, Grown: c.grown, Creditors: len(c.creditors),
		Inbound: len(c.inbound), Inflow: c.inflow, Partial: len(c.partial), InBytes: c.inBytes, Parked: len(c.parked),
		Lane: c.lane != nil, Credits: c.credits, MostUnread: c.mostUnread(), Account: c.account.Used(),
		PeerCalls: c.peer.limits.Calls, PeerWindow: c.peer.limits.Window, PeerBudget: c.peer.limits.Budget, PeerCache: c.peer.cache,
	}
	if c.lane != nil {
		s.LaneBytes = c.lane.bytes
	}
	if c.config.Replays != nil {
		s.Cache = c.config.Replays.ID()
	}
	if c.sess != nil {
		s.Open = c.sess.Err() == nil
		s.Sent, s.Acked, s.Received = c.sess.Positions()
		s.Logged = c.sess.Logged()
		s.Account = max(s.Account-int64(c.sess.LogCost()), 0) // none is counted where there is no ledger
	}
	for _, in := range c.inbound {
		if in.stream != nil {
			s.Streams = append(s.Streams, in.stream.snapshotLocked())
		}
	}
	for _, p := range c.pending {
		if p.call != nil && p.call.stream != nil {
			s.Streams = append(s.Streams, p.call.stream.snapshotLocked())
		}
	}
	return s
}

// Snapshot is what tests see of a stream.
func (x *Stream) Snapshot() hook.StreamSums {
	x.conn.mu.Lock()
	defer x.conn.mu.Unlock()
	return x.snapshotLocked()
}

func (x *Stream) snapshotLocked() hook.StreamSums {
	s := hook.StreamSums{
		Caller: x.calling != nil, Lent: x.outlet != &unsent,
		Pieces: x.line.pieces.Len(), SendWindow: int(x.granted), Used: x.flow.Used,
	}
	if x.inlet == nil {
		return s
	}
	s.Window, s.Out = x.window.size, x.window.out
	for i := range x.got.Len() {
		s.Got += x.got.At(i).cost()
	}
	return s
}

// Ordered reports whether a request runs on the lane, or was called from one.
func (in *Inbound) Ordered() bool { return in.ordered }
