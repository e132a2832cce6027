// Package typedrpctest is for tests of code that uses typedrpc.
//
//   - Pair connects a server and a client in memory, without sockets, HTTP or
//     WebSocket: for tests of handlers.
//   - Context is the context of a handler, for tests that call it as a function.
//   - Network runs the real http.Server, WebSocket and Dial over connections in
//     memory whose bytes it delays, loses, and cuts off: for tests of what
//     happens when the network fails. Its hosts have names, and can be stopped
//     and unplugged.
//   - Proxy does the same to TCP connections, also outside of tests.
//   - Recorder shows what frames a connection sent and received.
//
// Pair, Network and Recorder work inside of a testing/synctest bubble, where
// waiting takes no time. What has a function that makes it is made by that: the methods of
// a Network, Host, Proxy or Link that nobody made panic.
package typedrpctest

import (
	"testing"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
)

// Pair dials srv in memory with o, which may be nil, and returns the client's
// and the server's end. Everything between the two is real: the dialect that o
// chooses, the handshake, authentication (which sees o.Header on an upgrade
// request), limits, interceptors, keepalive, and redialling when a link is
// lost. There is no socket, so it works inside a testing/synctest bubble, where
// time is the bubble's.
//
// Both ends are closed when the test ends, before its other cleanups that were
// registered earlier. In a bubble give it the bubble's own t: then it also waits, in
// the bubble's time and for a day at most, until the handlers have returned, since a
// bubble panics when goroutines remain; those that still run are logged. A handshake that fails
// fails the test; Dial returns the error instead.
func Pair(t testing.TB, srv *typedrpc.Server, o *typedrpc.DialOptions) (client, server *typedrpc.Conn) {
	t.Helper()
	client, server, err := Dial(srv, o)
	if err != nil {
		t.Fatalf("typedrpctest.Pair: %v", err)
	}
	in := bubble()
	if in != "" {
		opened(in)
	}
	t.Cleanup(func() {
		client.Close()
		server.Close()
		if in != "" && closed(in) && bubble() == in { // else t is not the bubble's
			outlast(t, in)
		}
	})
	return client, server
}

// Dial is Pair for handshakes that may fail: it returns the error that
// typedrpc.Dial returns. The caller closes the connection.
func Dial(srv *typedrpc.Server, o *typedrpc.DialOptions) (client, server *typedrpc.Conn, err error) {
	if o == nil {
		o = &typedrpc.DialOptions{}
	}
	c, s, err := hook.Dial(srv, o)
	if err != nil {
		return nil, nil, err
	}
	return c.(*typedrpc.Conn), s.(*typedrpc.Conn), nil
}
