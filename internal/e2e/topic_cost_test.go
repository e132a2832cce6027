package e2e_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
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
		{"subscriptions to one key", "test.cost", 0, one, 700},
		{"subscriptions to keys of 255 bytes", "test.cost", 0, own, 1060},
		{"presence of nobody", "test.cost.presence", 0, one, 700},
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
			is.True(counted <= (h+s)*3/2 && h+s <= counted*3/2)
		})
	}
}

// What a subscription has to send a message with it has for no longer than that is under way, with
// and without an interceptor that waits for its end.
func TestTopic_lent(t *testing.T) {
	lent := func(c *typedrpc.Conn) (n int) {
		for _, s := range hook.Conn(c).Streams {
			if s.Lent {
				n++
			}
		}
		return n
	}
	for name, waits := range map[string]bool{"at rest": false, "attended": true} {
		testkit.Bubble(t, name, func(t *testing.T, is *is.I) {
			tp, hub := topic.New[string]("test.lent"), new(topic.Hub)
			var looks []typedrpc.Interceptor
			if waits {
				looks = append(looks, func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
					r.OnItem(func(typedrpc.Raw, bool) error { return nil })
					return next(ctx, r)
				})
			}
			mux := typedrpc.NewMux(looks...)
			topic.Handle(mux, hub, tp, topic.Everybody)
			client, server := typedrpctest.Pair(t, &typedrpc.Server{Mux: mux}, nil)
			take := make(chan struct{})
			ctx, cancel := context.WithCancel(t.Context())
			over := make(chan struct{})
			go func() {
				defer close(over)
				for range topic.Subscribe(ctx, client, tp, "x") {
					<-take
				}
			}()
			synctest.Wait()
			is.Equal(len(hook.Conn(server).Streams), 1)
			for range 3 {
				is.Equal(lent(server), 0)
				is.Equal(lent(client), 0)
				for range 40 { // more than a client leaves uncredited
					is.NoErr(topic.Publish(ctx, hub, tp, "x", strings.Repeat("x", 100)))
				}
				synctest.Wait()
				is.Equal(lent(server), 1)
				for range 40 {
					take <- struct{}{}
				}
				synctest.Wait()
				client.Ping(ctx) // which brings the credit along
				synctest.Wait()
			}
			close(take) // also for the error that it ends with
			cancel()
			<-over
			synctest.Wait()
			is.Equal(len(hook.Conn(server).Streams), 0)
			is.NoErr(hub.Close())
		})
	}
}

// payers is a server of one topic.
type payers struct {
	srv   *typedrpc.Server
	hub   *topic.Hub
	topic topic.Topic[string]
	t     *testing.T
}

// payer is a connection that comes to keys of it.
type payer struct {
	*payers
	client, server *typedrpc.Conn
	before         int64
	ctx            context.Context
	cancel         func()
	mu             sync.Mutex
	events         int   // that its subscriptions were given
	err            error // what the first of them ended with
}

func newPayers(t *testing.T, b topic.Broker, memory int64) *payers {
	p := &payers{hub: &topic.Hub{Broker: b}, topic: topic.New[string]("test.payer", topic.WithPresence), t: t}
	mux := typedrpc.NewMux()
	topic.Handle(mux, p.hub, p.topic, topic.Everybody)
	p.srv = &typedrpc.Server{Mux: mux, MaxMemory: memory, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	return p
}

func (p *payers) dial(is *is.I) *payer {
	client, server, err := typedrpctest.Dial(p.srv, nil)
	is.NoErr(err)
	one := &payer{payers: p, client: client, server: server, before: hook.Conn(server).Account}
	one.ctx, one.cancel = context.WithCancel(p.t.Context())
	return one
}

// took is what its account has more than before.
func (p *payer) took() int64 { return hook.Conn(p.server).Account - p.before }

func (p *payer) leave() {
	p.cancel()
	synctest.Wait()
	p.client.Close()
	synctest.Wait()
}

func (p *payer) come(key string, watches bool) {
	got := func(err error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		switch {
		case err == nil:
			p.events++
		case p.ctx.Err() == nil && p.err == nil:
			p.err = err
		}
	}
	go func() {
		if watches {
			for _, err := range topic.Watch(p.ctx, p.client, p.topic, key) {
				got(err)
			}
			return
		}
		for _, err := range topic.Subscribe(p.ctx, p.client, p.topic, key) {
			got(err)
		}
	}()
	synctest.Wait()
}

// comes is dial and come to a key of 200 bytes.
func (p *payers) comes(is *is.I, watches bool) *payer {
	one := p.dial(is)
	one.come(fmt.Sprintf("%0200d", 0), watches)
	return one
}

// One of those who are in a key pays for it: the first, and when that one has left one
// of those who stay.
func TestTopic_whoPaysForAKey(t *testing.T) {
	testkit.Bubble(t, "", func(t *testing.T, is *is.I) {
		p := newPayers(t, nil, 0)
		first := p.comes(is, false)
		second := p.comes(is, false)
		pays, other := first.took(), second.took()
		is.True(pays-other > 200)
		watcher := p.comes(is, true)
		watches := watcher.took()
		first.leave()
		is.Equal(second.took(), pays) // as it was there before the watcher
		third := p.comes(is, false)
		is.Equal(third.took(), other)
		third.leave() // who does not pay leaves nothing behind
		is.Equal(second.took(), pays)
		second.leave()
		is.Equal(watcher.took()-watches, pays-other)
		again := p.comes(is, false)
		is.Equal(again.took(), other)
		watcher.leave()
		is.Equal(again.took(), pays)
		again.leave()
		is.Equal(hook.Server(p.srv).Budget, int64(0))
		is.NoErr(p.hub.Close())
	})
}

// unhurried is a broker that takes its time to be subscribed to.
type unhurried struct{ open chan struct{} }

func (b unhurried) Subscribe(ctx context.Context, _ string, _ func([]byte)) (func(), error) {
	select {
	case <-b.open:
		return func() {}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (unhurried) Publish(context.Context, string, []byte) error { return nil }
func (unhurried) Close() error                                  { return nil }

// Whoever is about to come when the one who pays leaves pays for the key once it is there.
func TestTopic_whoPaysForAKey_meanwhile(t *testing.T) {
	testkit.Bubble(t, "", func(t *testing.T, is *is.I) {
		b := unhurried{make(chan struct{})}
		p := newPayers(t, b, 0)
		first := p.comes(is, false)
		second := p.comes(is, false)
		waits := first.took() - second.took()
		is.True(waits > 200)
		first.leave()
		close(b.open)
		synctest.Wait()
		third := p.comes(is, false)
		is.True(second.took()-third.took() >= waits)
		second.leave()
		third.leave()
		is.Equal(hook.Server(p.srv).Budget, int64(0))
		is.NoErr(p.hub.Close())
	})
}

// Who comes to pay for keys that are there may have more than its share then: it keeps what
// it has, and gets nothing new while memory is short.
func TestTopic_whoPaysForAKey_overItsShare(t *testing.T) {
	testkit.Bubble(t, "", func(t *testing.T, is *is.I) {
		// Above half of it a connection that asks for little may have 16 KiB.
		const memory, share, keys = 256 << 10, 16 << 10, 14
		p := newPayers(t, nil, memory)
		first, second, third := p.dial(is), p.dial(is), p.dial(is)
		for i := range keys {
			first.come(fmt.Sprintf("%0200d", i), false)
			second.come(fmt.Sprintf("%0200d", i), false)
		}
		is.True(second.took() < share)
		first.leave()
		is.True(second.took() > share)
		for i := keys; third.err == nil; i++ {
			third.come(fmt.Sprintf("%0200d", i), false)
		}
		is.NoErr(second.err)
		for i := range keys {
			is.NoErr(topic.Publish(t.Context(), p.hub, p.topic, fmt.Sprintf("%0200d", i), "x"))
		}
		synctest.Wait()
		is.Equal(second.events, keys)
		second.come("more", false)
		is.Equal(typedrpc.CodeOf(second.err), typedrpc.ResourceExhausted)
		second.leave()
		third.leave()
		is.Equal(hook.Server(p.srv).Budget, int64(0))
		is.NoErr(p.hub.Close())
	})
}
