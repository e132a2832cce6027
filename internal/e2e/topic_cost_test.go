package e2e_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/typedrpctest"
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

// inbound is how many calls a server has taken and not answered.
func inbound(srv *typedrpc.Server) (n int) {
	for c := range srv.Conns() {
		n += hook.Conn(c).Inbound
	}
	return n
}

// streamsOf opens n streams of a topic on each of conns peers driven by hand,
// which take no more than their windows, and returns when all of them are there.
func streamsOf(t *testing.T, srv *typedrpc.Server, method string, key func(conn, i int) string, conns, n int) {
	is := is.New(t)
	before := inbound(srv)
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
		for inbound(srv) < before+(c+1)*n {
			runtime.Gosched()
		}
	}
}

// TestTopic_costs measures what subscriptions and those who look on cost a
// server, all included: the engine's records, goroutines, their stacks. None of it
// may depend on how many members there are, but for what a window holds; and none
// has a goroutine while it has nothing to send, or no room for it.
func TestTopic_costs(t *testing.T) {
	tp := topic.New[string]("test.cost", topic.WithPresence)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	one := func(int, int) string { return "x" }
	own := func(c, i int) string { return fmt.Sprintf("%s%010d", strings.Repeat("k", 245), c*1000+i) }
	for _, test := range []struct {
		name, method string
		members      int
		key          func(c, i int) string
		most         int // bytes of one, on the heap and in stacks
	}{
		{"subscriptions to one key", "test.cost", 0, one, 1000},
		{"subscriptions to keys of 255 bytes", "test.cost", 0, own, 1750},
		{"presence of nobody", "test.cost.presence", 0, one, 1200},
		{"presence of 3,000", "test.cost.presence", 3000, one, 45_000},
	} {
		t.Run(test.name, func(t *testing.T) {
			is := is.New(t)
			conns, each := testkit.Crowd(10, 10, 1), testkit.Crowd(1000, 1000, 100)
			if test.members > 0 {
				conns, each = testkit.Crowd(10, 2, 1), testkit.Crowd(1000, 500, 100)
			}
			mux, hub := typedrpc.NewMux(), new(topic.Hub)
			defer hub.Close()
			topic.Handle(mux, hub, tp, topic.Everybody)
			// A thousand streams are more than the default leaves them.
			srv := &typedrpc.Server{Mux: mux, Limits: typedrpc.Limits{MaxCalls: 2048}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
			defer srv.Shutdown(gone)
			if test.members > 0 {
				streamsOf(t, srv, "test.cost", test.key, 1, 1)
				for len(hook.Room(hub, "test.cost", "x").Held) == 0 {
					runtime.Gosched()
				}
				var names []string
				for i := range test.members {
					names = append(names, fmt.Sprintf("member %d", i))
				}
				hook.Present(hub, "test.cost", "x", 1, names...)
			}
			heap, stacks := held()
			n := runtime.NumGoroutine()
			streamsOf(t, srv, test.method, test.key, conns, each)
			// Those that have just begun send what fits, which takes its time with the race
			// detector. One that does not come to its rest at all would go on for ever.
			for began := time.Now(); runtime.NumGoroutine()-n >= 10*conns && time.Since(began) < time.Minute; {
				runtime.Gosched()
			}
			h, s := held()
			more, all := runtime.NumGoroutine()-n, conns*each
			h, s = (h-heap)/all, (s-stacks)/all
			counted := int(hook.Server(srv).Budget) / all
			t.Logf("%d bytes each: %d on the heap, %d of stacks; %d counted; %d goroutines more", h+s, h, s, counted, more)
			is.True(more < 10*conns)        // those of the connections
			if testkit.Race || all < 5000 { // a few share too little of what is there once
				return
			}
			is.True(h+max(s, 0) <= test.most)
			if test.method == "test.cost" { // what onlookers take depends on what there is to tell
				is.True(counted <= (h+s)*3/2 && h+s <= counted*3/2)
			}
		})
	}
}

// One of those who are in a key pays for it: the first, and when that one has left whoever
// comes next.
func TestTopic_whoPaysForAKey(t *testing.T) {
	testkit.Bubble(t, "", func(t *testing.T, is *is.I) {
		tp := topic.New[string]("test.payer", topic.WithPresence)
		mux, hub := typedrpc.NewMux(), new(topic.Hub)
		topic.Handle(mux, hub, tp, topic.Everybody)
		srv := &typedrpc.Server{Mux: mux}
		const key = 200
		come := func(watches bool) (took int64, leave func()) {
			client, server, err := typedrpctest.Dial(srv, nil)
			is.NoErr(err)
			ctx, cancel := context.WithCancel(t.Context())
			before := hook.Conn(server).Account
			go func() {
				if watches {
					for range topic.Watch(ctx, client, tp, strings.Repeat("k", key)) {
					}
					return
				}
				for range topic.Subscribe(ctx, client, tp, strings.Repeat("k", key)) {
				}
			}()
			synctest.Wait()
			return hook.Conn(server).Account - before, func() { cancel(); synctest.Wait(); client.Close() }
		}
		first, leaveFirst := come(false)
		second, leaveSecond := come(false)
		is.True(first-second > key)
		watches, leaveWatcher := come(true)
		leaveFirst()
		third, leaveThird := come(false)
		is.Equal(third, first)
		leaveSecond()
		fourth, leaveFourth := come(false)
		is.Equal(fourth, second) // the third one still pays
		leaveThird()
		again, leaveAgain := come(true)
		is.True(again-watches > key)
		for _, leave := range []func(){leaveWatcher, leaveFourth, leaveAgain} {
			leave()
		}
		synctest.Wait()
		is.Equal(hook.Server(srv).Budget, int64(0))
		is.NoErr(hub.Close())
	})
}
