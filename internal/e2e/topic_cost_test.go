package e2e_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// held is what lives on the heap and in stacks, when nothing moves any more.
func held() (heap, stacks int) {
	var m runtime.MemStats
	for range 50 {
		before := m.Mallocs
		for range 3 {
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		if m.Mallocs < before+1000 {
			break
		}
	}
	return int(m.HeapAlloc), int(m.StackInuse)
}

// streamsOf opens n streams of a topic on each of conns peers driven by hand,
// which take no more than their windows, and returns when all of them are there.
func streamsOf(t *testing.T, srv *typedrpc.Server, method string, key func(conn, i int) string, conns, n int, there func() int) {
	is := is.New(t)
	for c := range conns {
		p, err := testkit.Join(srv, testkit.BinaryProtocol)
		is.NoErr(err)
		h := wire.HelloBody{Attempt: 1, Features: testkit.HandFeatures, Limits: wire.Limits{Message: 1 << 20, Calls: 1024, Window: 64 << 10, Budget: 8 << 20}}
		is.NoErr(p.Send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
		_, err = p.Until(wire.Welcome)
		is.NoErr(err)
		is.NoErr(p.Send(wire.Frame{Type: wire.Ack}))
		t.Cleanup(p.T.Kill)
		go func() {
			for {
				f, err := p.Next()
				if err != nil {
					return
				}
				if f.Type == wire.Ping || p.Counted%64 == 0 {
					p.Send(wire.Frame{Type: wire.Ack, Position: p.Counted})
				}
			}
		}()
		for i := range n {
			is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: uint64(i + 1), Kind: wire.ServerStream, Method: method, Payload: fmt.Appendf(nil, "%q", key(c, i))}))
		}
		for there() < (c+1)*n {
			runtime.Gosched()
		}
	}
}

// TestTopic_costs measures what subscriptions and those who look on cost a
// server, all included: the engine's records, goroutines, their stacks. None of it
// may depend on how many members there are, but for what a window holds.
func TestTopic_costs(t *testing.T) {
	conns, each := testkit.Crowd(10, 2, 1), testkit.Crowd(1000, 500, 100)
	topic := typedrpc.NewTopic[string]("test.cost")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	one := func(int, int) string { return "x" }
	own := func(c, i int) string { return fmt.Sprintf("%s%010d", strings.Repeat("k", 245), c*each+i) }
	for _, test := range []struct {
		name, method string
		members      int
		key          func(c, i int) string
		heap         int // bytes of one, at most
	}{
		{"subscriptions to one key", "test.cost", 0, one, 4000},
		{"subscriptions to keys of 255 bytes", "test.cost", 0, own, 6000},
		{"presence of nobody", "test.cost.presence", 0, one, 3000},
		{"presence of 3,000", "test.cost.presence", 3000, one, 45_000},
	} {
		t.Run(test.name, func(t *testing.T) {
			is := is.New(t)
			mux, hub := typedrpc.NewMux(), typedrpc.NewHub(nil)
			defer hub.Close()
			typedrpc.HandleTopic(mux, hub, topic, nil)
			srv := &typedrpc.Server{Mux: mux, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
			defer srv.Shutdown(gone)
			if test.members > 0 {
				streamsOf(t, srv, "test.cost", test.key, 1, 1, func() int { return len(hook.Room(hub, "test.cost", "x").Held) })
				var names []string
				for i := range test.members {
					names = append(names, fmt.Sprintf("member %d", i))
				}
				hook.Present(hub, "test.cost", "x", 1, names...)
			}
			heap, stacks := held()
			n := runtime.NumGoroutine()
			streamsOf(t, srv, test.method, test.key, conns, each, func() int { return runtime.NumGoroutine() - n })
			h, s := held()
			all := conns * each
			h, s = (h-heap)/all, (s-stacks)/all
			t.Logf("%d bytes each: %d on the heap, %d of stacks; %d counted", h+s, h, s, int(hook.Server(srv).Budget)/all)
			is.True(testkit.Race || all < 500 || h <= test.heap) // a few share too little of what is there once
		})
	}
}
