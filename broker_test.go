package typedrpc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
)

// nastyBroker is to a networked broker what the worst day is to a network: it
// delays, lets channels overtake each other, is slow to subscribe, and loses
// its connection. Each hub has a client of its own.
type nastyBroker struct {
	mu   sync.Mutex
	subs []*nastySub
}

// nastyClient is one hub's connection to the broker.
type nastyClient struct {
	b    *nastyBroker
	wg   sync.WaitGroup
	down bool // under b.mu
	shut bool
}

type nastySub struct {
	of      *nastyClient
	channel string
	deliver func([]byte)
	queue   [][]byte
	wake    chan struct{}
	stop    chan struct{}
}

func (b *nastyBroker) client() *nastyClient { return &nastyClient{b: b} }

func (c *nastyClient) Publish(ctx context.Context, channel string, msg []byte) error {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	if c.down || c.shut {
		return errors.New("no connection")
	}
	own := append([]byte{}, msg...)
	clear(msg) // it is not ours to keep
	for _, s := range c.b.subs {
		if s.channel == channel && !s.of.down {
			s.queue = append(s.queue, own)
			signal(s.wake)
		}
	}
	copy(msg, own)
	return nil
}

func (c *nastyClient) Subscribe(ctx context.Context, channel string, deliver func([]byte)) (func(), error) {
	select {
	case <-time.After(rand.N(50 * time.Millisecond)):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	if c.down || c.shut {
		return nil, errors.New("no connection")
	}
	s := &nastySub{of: c, channel: channel, deliver: deliver, wake: make(chan struct{}, 1), stop: make(chan struct{})}
	c.b.subs = append(c.b.subs, s)
	c.wg.Go(func() { c.b.run(s) })
	return sync.OnceFunc(func() { c.b.remove(s) }), nil
}

func (b *nastyBroker) run(s *nastySub) {
	for {
		b.mu.Lock()
		var msg []byte
		some := len(s.queue) > 0
		if some {
			msg = s.queue[0]
			s.queue = s.queue[1:]
		}
		b.mu.Unlock()
		if !some {
			select {
			case <-s.wake:
			case <-s.stop:
				return
			}
			continue
		}
		time.Sleep(rand.N(20 * time.Millisecond))
		own := slices.Clone(msg)
		s.deliver(own)
		clear(own) // it was valid only so long
	}
}

func (b *nastyBroker) remove(s *nastySub) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.subs, s); i >= 0 {
		b.subs = slices.Delete(b.subs, i, i+1)
		s.queue = nil
		close(s.stop)
	}
}

// drop loses the connection, with what was on its way; back finds it again.
func (c *nastyClient) drop() {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.down = true
	for _, s := range c.b.subs {
		if s.of == c {
			s.queue = nil
		}
	}
}

func (c *nastyClient) back() {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.down = false
	for _, s := range c.b.subs {
		if s.of == c {
			s.queue = append(s.queue, nil)
			signal(s.wake)
		}
	}
}

func (c *nastyClient) Close() error {
	c.b.mu.Lock()
	c.shut = true
	mine := slices.DeleteFunc(slices.Clone(c.b.subs), func(s *nastySub) bool { return s.of != c })
	c.b.mu.Unlock()
	for _, s := range mine {
		c.b.remove(s)
	}
	c.wg.Wait()
	return nil
}

// nastyHubs are two hubs over one nasty broker, each with a server.
func nastyHubs(register func(*Mux, *Hub)) (hubs [2]*Hub, brokers [2]*nastyClient, servers [2]*Server) {
	b := &nastyBroker{}
	for i := range hubs {
		brokers[i] = b.client()
		hubs[i] = NewHub(&HubOptions{Broker: brokers[i]})
		servers[i] = topicServer(func(m *Mux) { register(m, hubs[i]) })
	}
	return
}

func TestBroker_hubsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		hubs, brokers, servers := nastyHubs(func(m *Mux, h *Hub) { HandleTopic(m, h, topicNews, nil) })
		type received struct {
			hub int
			key string
			e   *events[Event[string]]
		}
		var all []received
		for i := range hubs {
			c := topicDial(t, servers[i], fmt.Sprint(i), DialOptions{})
			for _, key := range []string{"x", "y", "z"} {
				all = append(all, received{i, key, subscribeTo(ctx, c, topicNews, key, nil)})
			}
		}
		time.Sleep(time.Second)
		for n := range 100 {
			for _, key := range []string{"x", "y", "z"} {
				is.NoErr(Publish(ctx, hubs[n%2], topicNews, key, fmt.Sprint(key, n)))
			}
		}
		time.Sleep(time.Minute)
		for _, r := range all {
			got := r.e.take()
			is.Equal(len(got), 100)
			for n, e := range got {
				is.Equal(e, Event[string]{Value: fmt.Sprint(r.key, n)})
			}
		}

		// One hub's connection drops: its subscribers are told, nobody else.
		brokers[0].drop()
		is.Equal(CodeOf(Publish(ctx, hubs[0], topicNews, "x", "never")), Unavailable)
		is.NoErr(Publish(ctx, hubs[1], topicNews, "x", "lost"))
		brokers[0].back()
		is.NoErr(Publish(ctx, hubs[1], topicNews, "x", "found"))
		is.NoErr(Publish(ctx, hubs[1], topicNews, "x", "after"))
		time.Sleep(time.Second)
		for _, r := range all {
			got := r.e.take()
			switch {
			case r.key != "x":
				is.Equal(len(got), 0)
			case r.hub == 0:
				is.Equal(got, []Event[string]{{Value: "found", Missed: -1}, {Value: "after"}})
			default:
				is.Equal(got, []Event[string]{{Value: "lost"}, {Value: "found"}, {Value: "after"}})
			}
		}
		for _, h := range hubs {
			is.NoErr(h.Close())
		}
		for _, r := range all {
			<-r.e.done
			is.Equal(CodeOf(r.e.err), Unavailable)
		}
		synctest.Wait()
		for i, h := range hubs {
			is.NoErr(h.isEmpty())
			is.Equal(len(brokers[i].b.subs), 0)
		}
	})
}

// TestBroker_cannotSubscribe: who waits for a subscription that fails, fails;
// one that was left is tried again by the next.
func TestBroker_cannotSubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		hubs, brokers, servers := nastyHubs(func(m *Mux, h *Hub) { HandleTopic(m, h, topicChat, nil) })
		c := topicDial(t, servers[0], "ann", DialOptions{})
		brokers[0].drop()
		var all []*events[Event[string]]
		for range 10 {
			all = append(all, subscribeTo(ctx, c, topicChat, "x", nil))
		}
		for _, e := range all {
			<-e.done
			is.Equal(CodeOf(e.err), Unavailable)
		}
		synctest.Wait()
		is.NoErr(hubs[0].isEmpty())
		is.Equal(CodeOf(Publish(ctx, hubs[0], topicChat, "x", "?")), Unavailable)

		brokers[0].back()
		first := subscribeTo(ctx, c, topicChat, "x", nil)
		synctest.Wait()
		second := subscribeTo(ctx, c, topicChat, "x", nil)
		synctest.Wait()
		first.leave()
		time.Sleep(time.Second)
		is.NoErr(Publish(ctx, hubs[1], topicChat, "x", "hello"))
		time.Sleep(time.Second)
		is.Equal(len(second.take()), 1)
		second.leave()
		for _, h := range hubs {
			is.NoErr(h.Close())
		}
	})
}

func TestBroker_presence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		hubs, brokers, servers := nastyHubs(func(m *Mux, h *Hub) { HandleTopic(m, h, topicNews, nil) })
		ann, bob := topicDial(t, servers[0], "ann", DialOptions{}), topicDial(t, servers[1], "bob", DialOptions{})
		annToo := topicDial(t, servers[1], "ann", DialOptions{})
		come := func(c *Conn) *events[Event[string]] { return subscribeTo(ctx, c, topicNews, "x", nil) }
		here := map[string]bool{}
		var p *events[Member]
		now := func() string {
			time.Sleep(time.Second)
			for _, m := range p.take() {
				is.Equal(here[m.Subject], m.Left) // they alternate
				here[m.Subject] = !m.Left
			}
			s := ""
			for _, who := range []string{"ann", "bob", "cat"} {
				if here[who] {
					s += who
				}
			}
			return s
		}
		a, b := come(ann), come(bob)
		time.Sleep(time.Hour) // long after anybody asked
		p = presenceOf(ctx, ann, topicNews, "x")
		is.Equal(now(), "annbob")
		b.leave()
		is.Equal(now(), "ann")
		b2 := come(annToo) // the same subject at the other hub
		is.Equal(now(), "ann")
		a.leave()
		is.Equal(now(), "ann")
		b2.leave()
		is.Equal(now(), "")
		b = come(bob) // at a hub that had forgotten the key
		is.Equal(now(), "bob")

		// A change while the connection is down is learned of afterwards.
		brokers[0].drop()
		b2 = come(annToo)
		b.leave()
		time.Sleep(time.Second)
		brokers[0].back()
		is.Equal(now(), "ann")

		// Whoever is gone without a word is missed in time.
		brokers[1].drop()
		is.Equal(now(), "ann")
		time.Sleep(41 * time.Second)
		is.Equal(now(), "")
		brokers[1].back()
		time.Sleep(presenceInterval)
		is.Equal(now(), "ann")

		// Many names come in several parts.
		r := hubs[1].rooms[roomID{topicNews.spec, "x"}]
		r.mu.Lock()
		for i := range 10_000 {
			r.presentLocked(fmt.Sprintf("member %d", i), 1)
		}
		r.mu.Unlock()
		is.Equal(now(), "ann")
		is.Equal(len(here), 10_003-1)
		p.leave()
		p = presenceOf(ctx, ann, topicNews, "x")
		here = map[string]bool{}
		time.Sleep(time.Second)
		is.Equal(now(), "ann")
		is.Equal(len(here), 10_001)
		p.leave()
		b2.leave()
		r.mu.Lock()
		clear(r.here)
		r.mu.Unlock()
		synctest.Wait()
		for _, h := range hubs {
			is.NoErr(h.isEmpty())
			is.NoErr(h.Close())
		}
	})
}

// TestBroker_memoryOrder: publishers of one channel take turns, those of
// another do not wait for them, and waiting ends with the context.
func TestBroker_memoryOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		b := newMemoryBroker()
		gate := make(chan struct{})
		var got []string
		cancel, err := b.Subscribe(ctx, "x", func(msg []byte) {
			<-gate
			got = append(got, string(msg))
		})
		is.NoErr(err)
		_, err = b.Subscribe(ctx, "y", func([]byte) {})
		is.NoErr(err)
		go b.Publish(ctx, "x", []byte("a"))
		synctest.Wait()
		go b.Publish(ctx, "x", []byte("b"))
		synctest.Wait()
		is.NoErr(b.Publish(ctx, "y", nil))
		short, stop := context.WithTimeout(ctx, time.Second)
		defer stop()
		is.Equal(b.Publish(short, "x", nil), context.DeadlineExceeded)
		close(gate)
		synctest.Wait()
		is.Equal(got, []string{"a", "b"})
		cancel()
		cancel()
		is.NoErr(b.Publish(ctx, "x", nil))
		is.Equal(len(b.channels), 1)
		is.NoErr(b.Close())
		is.Equal(b.Publish(ctx, "x", nil), errBrokerClosed)
		_, err = b.Subscribe(ctx, "x", nil)
		is.Equal(err, errBrokerClosed)
		cancel()
	})
}
