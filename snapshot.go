package typedrpc

import (
	"context"

	"github.com/typedrpc/typedrpc/internal/hook"
)

// What tests see of the inside, see package hook.

func init() {
	hook.Conn = func(conn any) hook.ConnSums { return conn.(*Conn).sums() }
	hook.Stream = func(stream any) hook.StreamSums {
		return stream.(interface{ sums() hook.StreamSums }).sums()
	}
	hook.Ordered = func(ctx context.Context) bool {
		in := inboundFrom(ctx)
		return in != nil && in.ordered
	}
	hook.Server = func(srv any) hook.ServerSums { return srv.(*Server).sums() }
	hook.Hub = func(hub any) hook.HubSums { return hub.(*Hub).sums() }
	hook.Room = func(hub any, topic, key string) hook.RoomSums {
		r := hub.(*Hub).find(topic, key)
		if r == nil {
			return hook.RoomSums{}
		}
		return r.sums()
	}
	hook.Present = func(hub any, topic, key, subject string, by int) {
		r := hub.(*Hub).find(topic, key)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.presentLocked(subject, by)
	}
	hook.Deliver = func(hub any, topic, key string, msg []byte) {
		hub.(*Hub).find(topic, key).deliver(msg)
	}
	hook.Replay = func(cache any) hook.ReplaySums { return cache.(*ReplayCache).sums() }
}

func (c *Conn) sums() hook.ConnSums {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := hook.ConnSums{
		Queue: c.queue.len, Large: c.large.len, Waiting: c.waiting.len, Pending: len(c.pending), Resting: len(c.resting),
		Slots: c.slots, Held: c.held, NextID: c.nextID,
		Cutting: c.cutting, Midway: c.midway != nil, Overtaken: c.overtaken, Queued: c.queued, Unsent: c.unsent,
		NotifyWindow: c.notify.window, NotifyUsed: c.notify.used, NotifySizes: c.notify.sizes.len(),
		SentItems: c.sentItems, Unread: c.unread, Grown: c.grown, Creditors: len(c.creditors),
		Inbound: len(c.inbound), Partial: len(c.partial), InBytes: c.inBytes, Parked: len(c.parked),
		Lane: c.lane != nil, Credits: c.credits, MostUnread: c.mostUnread(), Budget: c.config.budget.sum(),
		PeerCalls: c.peer.Calls, PeerWindow: c.peer.Window, PeerBudget: c.peer.Budget, PeerCache: c.peerCache,
	}
	if c.lane != nil {
		s.LaneBytes = c.lane.bytes
	}
	if c.config.replays != nil {
		s.Cache = c.config.replays.id
	}
	if c.sess != nil {
		s.Open = c.sess.Err() == nil
		s.Sent, s.Acked, s.Received = c.sess.Positions()
		s.Logged = c.sess.Logged()
	}
	for _, in := range c.inbound {
		if in.exchange != nil {
			s.Streams = append(s.Streams, in.exchange.sumsLocked())
		}
	}
	for _, p := range c.pending {
		if p.call != nil && p.call.exchange != nil {
			s.Streams = append(s.Streams, p.call.exchange.sumsLocked())
		}
	}
	return s
}

func (s *Stream[Out, In]) sums() hook.StreamSums {
	s.x.conn.mu.Lock()
	defer s.x.conn.mu.Unlock()
	return s.x.sumsLocked()
}

func (x *exchange) sumsLocked() hook.StreamSums {
	s := hook.StreamSums{
		Caller: x.call != nil,
		Pieces: x.line.pieces.len(), SendWindow: x.flow.window, Used: x.flow.used,
		Window: x.window.size, Out: x.window.out,
	}
	for i := range x.got.len() {
		s.Got += x.got.all[(x.got.head+i)&(len(x.got.all)-1)].cost()
	}
	return s
}

// sum is how much is in use. A nil budget holds nothing.
func (b *budget) sum() int64 {
	if b == nil {
		return 0
	}
	return b.used.Load()
}

func (s *Server) sums() hook.ServerSums {
	s.mu.Lock()
	sums := hook.ServerSums{
		Links: len(s.links), Accepted: len(s.accepted), Checks: len(s.checks), Plain: s.plain, Budget: s.config.budget.sum(),
	}
	s.mu.Unlock()
	sums.Kept, sums.KeptBytes = s.registry.Away()
	if d := s.config.detached; d != nil {
		d.mu.Lock()
		sums.Detached = len(d.runs)
		d.mu.Unlock()
	}
	return sums
}

func (h *Hub) sums() hook.HubSums {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := hook.HubSums{Rooms: len(h.rooms), Idle: h.idle.Len(), Channels: -1}
	for _, a := range h.accounts {
		s.Accounts = append(s.Accounts, hook.AccountSums{Used: a.own.used.Load(), Max: a.own.max})
	}
	h.amu.Lock()
	s.Watched, s.Announcing = len(h.watched), h.running
	h.amu.Unlock()
	if b, ok := h.broker.(*memoryBroker); ok {
		b.mu.Lock()
		s.Channels = len(b.channels)
		b.mu.Unlock()
	}
	return s
}

// find returns the room of a key, nil if there is none.
func (h *Hub) find(topic, key string) *room {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, r := range h.rooms {
		if id.key == key && id.spec.name == topic {
			return r
		}
	}
	return nil
}

func (r *room) sums() hook.RoomSums {
	r.mu.Lock()
	subs := append([]*subscriber(nil), r.subs...)
	var s hook.RoomSums
	for w := range r.onlookers {
		w.mu.Lock()
		s.Pending += w.pending.Len()
		w.mu.Unlock()
	}
	r.mu.Unlock()
	for _, sub := range subs {
		sub.mu.Lock()
		held := sub.bytes
		sub.x.conn.mu.Lock()
		held += sub.x.flow.used
		sub.x.conn.mu.Unlock()
		sub.mu.Unlock()
		s.Held = append(s.Held, held)
	}
	return s
}

func (c *ReplayCache) sums() hook.ReplaySums {
	c.mu.Lock()
	defer c.mu.Unlock()
	return hook.ReplaySums{
		ID: c.id, Entries: len(c.entries), Aging: c.aging.len(), Shares: len(c.shares), Used: c.total.entries, Bytes: c.total.bytes,
	}
}
