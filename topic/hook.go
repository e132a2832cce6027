package topic

import (
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/hub"
)

// What tests see of the inside, see package hook.
func init() {
	in := func(h any) *hub.Hub {
		x, _ := h.(*Hub).use()
		return x
	}
	hook.Hub = func(h any) hook.HubSums {
		s := in(h).Snapshot()
		sums := hook.HubSums{Rooms: s.Rooms, Idle: s.Idle, Watched: s.Watched, Announcing: s.Announcing}
		for _, a := range s.Accounts {
			sums.Accounts = append(sums.Accounts, hook.AccountSums(a))
		}
		return sums
	}
	hook.Room = func(h any, topic, key string) hook.RoomSums { return hook.RoomSums(in(h).Room(topic, key)) }
	hook.Present = func(h any, topic, key string, by int, subjects ...string) {
		in(h).Present(topic, key, by, subjects...)
	}
	hook.Deliver = func(h any, topic, key string, msg []byte) { in(h).Deliver(topic, key, msg) }
}
