package hub

import (
	"sync/atomic"

	"github.com/typedrpc/typedrpc/internal/logs"
	"github.com/typedrpc/typedrpc/stats"
)

// becoming counts what has become of a room's messages, and of its subscribers. That happens
// under locks, and a Recorder is told without.
type becoming struct {
	dropped, slow tally
}

// tally is a number, and how much of it was told.
type tally struct{ n, told atomic.Int64 }

// untold is what has been added since the last call.
func (t *tally) untold() int {
	n := t.n.Load()
	return int(n - t.told.Swap(n))
}

// record tells the program's Recorder, if there is one.
func (h *Hub) record(t *Topic, event stats.TopicEvent, n int) {
	r := h.options.Recorder
	if r == nil || n == 0 {
		return
	}
	defer func() {
		if p := recover(); p != nil {
			h.log.Error("typedrpc: recorder panicked", "panic", logs.Panic{Value: p}, "stack", logs.Stack{})
		}
	}()
	r.Topic(stats.Topic{Name: t.Decl.Name, Event: event, N: n})
}

// recordDelivered tells of a message that n subscribers were given, and of what was
// dropped since the one before.
func (r *room) recordDelivered(n int) {
	if r.hub.options.Recorder == nil {
		return
	}
	r.hub.record(r.topic, stats.Delivered, n)
	r.hub.record(r.topic, stats.Dropped, r.dropped.untold())
	r.hub.record(r.topic, stats.Disconnected, r.slow.untold())
}
