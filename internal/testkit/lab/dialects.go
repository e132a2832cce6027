package lab

import (
	"testing"
	"testing/synctest"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

var (
	LaneWord   = typedrpc.NewNotification[string]("lane.word")
	LaneNumber = typedrpc.NewNotification[int]("lane.number")
	LaneSerial = typedrpc.NewMethod[int, int]("lane.serial", typedrpc.Serial)
	LaneRelay  = typedrpc.NewMethod[int, int]("lane.relay")
)

// BothDialects runs a test in a bubble for each dialect with flow control.
func BothDialects(t *testing.T, f func(t *testing.T, d typedrpc.Dialect)) {
	for name, d := range map[string]typedrpc.Dialect{"binary": typedrpc.Binary, "jsonrpc": typedrpc.Text} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, d) })
		})
	}
}

// TwoWays connects two ends that both have handlers.
func TwoWays(t *testing.T, d typedrpc.Dialect, client, server *typedrpc.Mux, limits typedrpc.Limits) (c, s *typedrpc.Conn) {
	t.Helper()
	srv := New().Server
	srv.Mux, srv.Limits = server, limits
	c, s, err := typedrpctest.Dial(srv, &typedrpc.DialOptions{Dialect: d, Mux: client, Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}
