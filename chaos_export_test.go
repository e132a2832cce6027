package typedrpc

import (
	"fmt"
	"strings"
)

// Unpaid says what a connection still owes its peer, or the peer it, of credit
// and of acknowledgements; "" is nothing.
func Unpaid(c *Conn) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var left []string
	note := func(name string, n int) {
		if n != 0 {
			left = append(left, fmt.Sprintf("%s %d", name, n))
		}
	}
	note("notifications' window", c.notify.used)
	note("notifications sent", c.notify.sizes.len())
	note("credits", c.credits)
	if c.lane != nil {
		note("lane", c.lane.bytes)
	}
	if c.sess != nil {
		sent, acked, _ := c.sess.Positions()
		note("unacknowledged frames", int(sent-acked))
		note("log", c.sess.Logged())
	}
	return strings.Join(left, ", ")
}

// Positions are how many counted frames the connection's session has sent and
// received.
func Positions(c *Conn) (sent, received uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sess == nil {
		return 0, 0
	}
	sent, _, received = c.sess.Positions()
	return sent, received
}
