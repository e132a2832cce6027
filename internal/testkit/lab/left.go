package lab

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/topic"
)

// leftovers are sums that should be zero and are not.
type leftovers []string

func (l *leftovers) note(name string, n int) {
	if n != 0 {
		*l = append(*l, fmt.Sprintf("%s %d", name, n))
	}
}

// Unsettled says what of streams, calls and messages is left on a connection
// that should have none; "" is nothing.
func Unsettled(c *typedrpc.Conn) string {
	s := hook.Conn(c)
	var left leftovers
	left.note("unread", s.Unread)
	left.note("itemsOut", s.ItemsOut)
	left.note("spent", s.Spent)
	left.note("sentItems", s.SentItems)
	left.note("queued", s.Queued)
	left.note("unsent", s.Unsent)
	left.note("grown", s.Grown)
	left.note("inBytes", s.InBytes)
	left.note("cutting", s.Cutting)
	left.note("slots", s.Slots)
	left.note("held", s.Held)
	left.note("flowing", s.Flowing)
	left.note("passed", s.Passed)
	left.note("partial", s.Partial)
	left.note("creditors", s.Creditors)
	left.note("pending", s.Pending)
	left.note("inbound", s.Inbound)
	left.note("inflow", s.Inflow)
	left.note("queue", s.Queue)
	left.note("large", s.Large)
	left.note("waiting", s.Waiting)
	left.note("parked", s.Parked)
	left.note("resting", s.Resting)
	left.note("account", int(s.Account))
	if s.Midway || s.Overtaken {
		left.note("ordered message", 1)
	}
	return strings.Join(left, ", ")
}

// Unpaid says what a connection still owes its peer, or the peer it, of credit
// and of acknowledgements; "" is nothing.
func Unpaid(c *typedrpc.Conn) string {
	s := hook.Conn(c)
	var left leftovers
	left.note("notifications' window", s.NotifyUsed)
	left.note("notifications sent", s.NotifySizes)
	left.note("credits", s.Credits)
	left.note("lane", s.LaneBytes)
	left.note("unacknowledged frames", int(s.Sent-s.Acked))
	left.note("log", s.Logged)
	return strings.Join(left, ", ")
}

// Positions are how many counted frames the connection's session has sent and
// received.
func Positions(c *typedrpc.Conn) (sent, received uint64) {
	s := hook.Conn(c)
	return s.Sent, s.Received
}

// Settled fails the test unless nothing is left on conns. In a bubble.
func Settled(t *testing.T, conns ...*typedrpc.Conn) {
	t.Helper()
	time.Sleep(5 * time.Second) // the writer's and the acknowledgements' own timers
	synctest.Wait()
	for i, c := range conns {
		if left := Unsettled(c); left != "" {
			t.Errorf("connection %d is left with %s", i, left)
		}
	}
}

// Vacated says whether nothing is left on a hub but what it keeps for its
// history.
func Vacated(h *topic.Hub) error {
	s := hook.Hub(h)
	if s.Rooms != s.Idle || len(s.Accounts) > 0 || s.Watched > 0 || s.Announcing {
		return fmt.Errorf("%d rooms (%d idle), %d accounts, %d watched", s.Rooms, s.Idle, len(s.Accounts), s.Watched)
	}
	return nil
}
