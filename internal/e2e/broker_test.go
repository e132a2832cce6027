package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/topic"
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
			s.rouse()
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
			s.rouse()
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
func nastyHubs(register func(*typedrpc.Mux, *topic.Hub)) (hubs [2]*topic.Hub, brokers [2]*nastyClient, servers [2]*typedrpc.Server) {
	b := &nastyBroker{}
	for i := range hubs {
		brokers[i] = b.client()
		hubs[i] = &topic.Hub{Broker: brokers[i]}
		servers[i] = lab.TopicServer(func(m *typedrpc.Mux) { register(m, hubs[i]) })
	}
	return
}

func TestBroker_hubsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		hubs, brokers, servers := nastyHubs(func(m *typedrpc.Mux, h *topic.Hub) { topic.Handle(m, h, lab.TopicNews, topic.Everybody) })
		type received struct {
			hub int
			key string
			e   *lab.Events[topic.Event[string]]
		}
		var all []received
		for i := range hubs {
			c := lab.TopicDial(t, servers[i], fmt.Sprint(i), typedrpc.DialOptions{})
			for _, key := range []string{"x", "y", "z"} {
				all = append(all, received{i, key, lab.SubscribeTo(ctx, c, lab.TopicNews, key, nil)})
			}
		}
		time.Sleep(time.Second)
		for n := range 100 {
			for _, key := range []string{"x", "y", "z"} {
				is.NoErr(topic.Publish(ctx, hubs[n%2], lab.TopicNews, key, fmt.Sprint(key, n)))
			}
		}
		time.Sleep(time.Minute)
		for _, r := range all {
			got := r.e.Take()
			is.Equal(len(got), 100)
			for n, e := range got {
				is.Equal(e, topic.Event[string]{Value: fmt.Sprint(r.key, n)})
			}
		}

		// One hub's connection drops: its subscribers are told, nobody else.
		brokers[0].drop()
		is.Equal(typedrpc.CodeOf(topic.Publish(ctx, hubs[0], lab.TopicNews, "x", "never")), typedrpc.Unavailable)
		is.NoErr(topic.Publish(ctx, hubs[1], lab.TopicNews, "x", "lost"))
		brokers[0].back()
		is.NoErr(topic.Publish(ctx, hubs[1], lab.TopicNews, "x", "found"))
		is.NoErr(topic.Publish(ctx, hubs[1], lab.TopicNews, "x", "after"))
		time.Sleep(time.Second)
		for _, r := range all {
			got := r.e.Take()
			switch {
			case r.key != "x":
				is.Equal(len(got), 0)
			case r.hub == 0:
				is.Equal(got, []topic.Event[string]{{Value: "found", Missed: -1}, {Value: "after"}})
			default:
				is.Equal(got, []topic.Event[string]{{Value: "lost"}, {Value: "found"}, {Value: "after"}})
			}
		}
		for _, h := range hubs {
			is.NoErr(h.Close())
		}
		for _, r := range all {
			<-r.e.Done
			is.Equal(typedrpc.CodeOf(r.e.Err), typedrpc.Unavailable)
		}
		synctest.Wait()
		for i, h := range hubs {
			is.NoErr(lab.Vacated(h))
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
		hubs, brokers, servers := nastyHubs(func(m *typedrpc.Mux, h *topic.Hub) { topic.Handle(m, h, lab.TopicChat, topic.Everybody) })
		c := lab.TopicDial(t, servers[0], "ann", typedrpc.DialOptions{})
		brokers[0].drop()
		var all []*lab.Events[topic.Event[string]]
		for range 10 {
			all = append(all, lab.SubscribeTo(ctx, c, lab.TopicChat, "x", nil))
		}
		for _, e := range all {
			<-e.Done
			is.Equal(typedrpc.CodeOf(e.Err), typedrpc.Unavailable)
		}
		synctest.Wait()
		is.NoErr(lab.Vacated(hubs[0]))
		is.Equal(typedrpc.CodeOf(topic.Publish(ctx, hubs[0], lab.TopicChat, "x", "?")), typedrpc.Unavailable)

		brokers[0].back()
		first := lab.SubscribeTo(ctx, c, lab.TopicChat, "x", nil)
		synctest.Wait()
		second := lab.SubscribeTo(ctx, c, lab.TopicChat, "x", nil)
		synctest.Wait()
		first.Leave()
		time.Sleep(time.Second)
		is.NoErr(topic.Publish(ctx, hubs[1], lab.TopicChat, "x", "hello"))
		time.Sleep(time.Second)
		is.Equal(len(second.Take()), 1)
		second.Leave()
		for _, h := range hubs {
			is.NoErr(h.Close())
		}
	})
}

func TestBroker_presence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		hubs, brokers, servers := nastyHubs(func(m *typedrpc.Mux, h *topic.Hub) { topic.Handle(m, h, lab.TopicNews, topic.Everybody) })
		ann, bob := lab.TopicDial(t, servers[0], "ann", typedrpc.DialOptions{}), lab.TopicDial(t, servers[1], "bob", typedrpc.DialOptions{})
		annToo := lab.TopicDial(t, servers[1], "ann", typedrpc.DialOptions{})
		come := func(c *typedrpc.Conn) *lab.Events[topic.Event[string]] {
			return lab.SubscribeTo(ctx, c, lab.TopicNews, "x", nil)
		}
		here := map[string]bool{}
		var p *lab.Events[topic.Member]
		now := func() string {
			time.Sleep(time.Second)
			for _, m := range p.Take() {
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
		p = lab.PresenceOf(ctx, ann, lab.TopicNews, "x")
		is.Equal(now(), "annbob")
		b.Leave()
		is.Equal(now(), "ann")
		b2 := come(annToo) // the same subject at the other hub
		is.Equal(now(), "ann")
		a.Leave()
		is.Equal(now(), "ann")
		b2.Leave()
		is.Equal(now(), "")
		b = come(bob) // at a hub that had forgotten the key
		is.Equal(now(), "bob")

		// A change while the connection is down is learned of afterwards.
		brokers[0].drop()
		b2 = come(annToo)
		b.Leave()
		time.Sleep(time.Second)
		brokers[0].back()
		is.Equal(now(), "ann")

		// Whoever is gone without a word is missed in time.
		brokers[1].drop()
		is.Equal(now(), "ann")
		time.Sleep(41 * time.Second)
		is.Equal(now(), "")
		brokers[1].back()
		time.Sleep(10 * time.Second) // they ask again
		is.Equal(now(), "ann")

		// Many names come in several parts.
		members := func(by int) {
			var names []string
			for i := range 10_000 {
				names = append(names, fmt.Sprintf("member %d", i))
			}
			hook.Present(hubs[1], "test.news", "x", by, names...) // at once: how many notices they make is known
		}
		members(1)
		is.Equal(now(), "ann")
		is.Equal(len(here), 10_003-1)
		p.Leave()
		p = lab.PresenceOf(ctx, ann, lab.TopicNews, "x")
		here = map[string]bool{}
		time.Sleep(time.Second)
		is.Equal(now(), "ann")
		is.Equal(len(here), 10_001)
		p.Leave()
		members(-1)
		b2.Leave()
		synctest.Wait()
		for _, h := range hubs {
			is.NoErr(lab.Vacated(h))
			is.NoErr(h.Close())
		}
	})
}

// rouse wakes the goroutine that delivers.
func (s *nastySub) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Of two hubs that watched a key, the one that asked for the other's members
// did not tell its own, and spared the other its question: the other never
// learned of a change again.
func TestBroker_presenceWhereTwoHubsWatch(t *testing.T) {
	for _, later := range []time.Duration{time.Second, 3 * time.Second, 7 * time.Second} {
		testkit.Bubble(t, fmt.Sprint(later, " later"), func(t *testing.T, is *is.I) {
			ctx := t.Context()
			hubs, _, servers := nastyHubs(func(m *typedrpc.Mux, h *topic.Hub) { topic.Handle(m, h, lab.TopicNews, topic.Everybody) })
			var conns [2]*typedrpc.Conn
			var look [2]*lab.Events[topic.Member]
			for i := range hubs {
				defer hubs[i].Close()
				conns[i] = lab.TopicDial(t, servers[i], fmt.Sprint("user", i), typedrpc.DialOptions{})
			}
			look[0] = lab.PresenceOf(ctx, conns[0], lab.TopicNews, "x")
			time.Sleep(later)
			look[1] = lab.PresenceOf(ctx, conns[1], lab.TopicNews, "x")
			time.Sleep(5 * time.Minute) // long after what came with the first questions
			for i, c := range conns {
				who := fmt.Sprint("user", i)
				s := lab.SubscribeTo(ctx, c, lab.TopicNews, "x", nil)
				time.Sleep(time.Minute)
				for _, p := range look {
					is.Equal(p.Take(), []topic.Member{{Subject: who}})
				}
				time.Sleep(5 * time.Minute)
				s.Leave()
				time.Sleep(time.Minute)
				for _, p := range look {
					is.Equal(p.Take(), []topic.Member{{Subject: who, Left: true}})
				}
			}
			for _, p := range look {
				p.Leave()
			}
			synctest.Wait()
			for _, h := range hubs {
				is.NoErr(lab.Vacated(h))
			}
		})
	}
}

// A key that nobody had subscribed to was forgotten before the broker brought
// what had just been published to it.
func TestBroker_historyOfWhatComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		hubs, _, servers := nastyHubs(func(m *typedrpc.Mux, h *topic.Hub) { topic.Handle(m, h, lab.TopicChat, topic.Everybody) })
		for _, h := range hubs {
			defer h.Close()
		}
		for _, v := range []string{"a", "b", "c"} {
			is.NoErr(topic.Publish(ctx, hubs[0], lab.TopicChat, "x", v))
			time.Sleep(time.Second)
		}
		s := lab.SubscribeTo(ctx, lab.TopicDial(t, servers[0], "ann", typedrpc.DialOptions{}), lab.TopicChat, "x", nil)
		time.Sleep(time.Second)
		is.Equal(s.Take(), []topic.Event[string]{{Value: "a", History: true}, {Value: "b", History: true}, {Value: "c", History: true}})
		s.Leave()
		synctest.Wait()
		is.NoErr(lab.Vacated(hubs[0]))
	})
}

// stuckBroker publishes nothing before the context ends, and is not closed
// before what is being published has been.
type stuckBroker struct {
	*nastyClient
	publishing sync.WaitGroup
}

func (b *stuckBroker) Publish(ctx context.Context, _ string, _ []byte) error {
	b.publishing.Add(1)
	defer b.publishing.Done()
	<-ctx.Done()
	return ctx.Err()
}

func (b *stuckBroker) Close() error {
	b.publishing.Wait()
	return b.nastyClient.Close()
}

func newStuckHub() (*topic.Hub, *typedrpc.Server) {
	hub := &topic.Hub{Broker: &stuckBroker{nastyClient: (&nastyBroker{}).client()}}
	return hub, lab.TopicServer(func(m *typedrpc.Mux) { topic.Handle(m, hub, lab.TopicNews, topic.Everybody) })
}

// Close had the broker closed, which waited for a notice that was being
// published, and ended the notice only afterwards: it hung.
func TestHub_closeWhileTheBrokerIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		hub, srv := newStuckHub()
		s := lab.SubscribeTo(t.Context(), lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{}), lab.TopicNews, "x", nil)
		time.Sleep(time.Second)
		is.True(lab.Vacated(hub) != nil) // the notice is on its way
		began := time.Now()
		is.NoErr(hub.Close())
		is.Equal(time.Since(began), time.Duration(0))
		<-s.Done
		is.Equal(typedrpc.CodeOf(s.Err), typedrpc.Unavailable)
		synctest.Wait()
		is.NoErr(lab.Vacated(hub))
	})
}

// A notice could wait for ever, and all keys that came and went meanwhile were
// held until they had been announced.
func TestHub_stuckBrokerHoldsNoKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		hub, srv := newStuckHub()
		defer hub.Close()
		c := lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{})
		for i := range 20 {
			s := lab.SubscribeTo(t.Context(), c, lab.TopicNews, fmt.Sprint(i), nil)
			time.Sleep(time.Second)
			s.Leave()
		}
		time.Sleep(time.Hour)
		is.NoErr(lab.Vacated(hub))
	})
}

// panicBroker panics when it is to publish a notice.
type panicBroker struct{ *nastyClient }

func (b panicBroker) Publish(ctx context.Context, channel string, msg []byte) error {
	if strings.HasPrefix(channel, "presence ") {
		panic("out of cards")
	}
	return b.nastyClient.Publish(ctx, channel, msg)
}

// A broker that panicked on the hub's own goroutine took the process with it.
func TestHub_brokerPanicsOnANotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var logged bytes.Buffer
		old := log.Writer()
		log.SetOutput(&logged)
		defer log.SetOutput(old)
		ctx := t.Context()
		hub := &topic.Hub{Broker: panicBroker{(&nastyBroker{}).client()}}
		srv := lab.TopicServer(func(m *typedrpc.Mux) { topic.Handle(m, hub, lab.TopicNews, topic.Everybody) })
		s := lab.SubscribeTo(ctx, lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{}), lab.TopicNews, "x", nil)
		time.Sleep(time.Second)
		is.NoErr(topic.Publish(ctx, hub, lab.TopicNews, "x", "hello"))
		time.Sleep(time.Second)
		is.Equal(s.Take(), []topic.Event[string]{{Value: "hello"}})
		s.Leave()
		synctest.Wait()
		is.NoErr(lab.Vacated(hub))
		is.NoErr(hub.Close())
		is.True(strings.Contains(logged.String(), "out of cards"))
	})
}

// sayingBroker takes nothing, and says why.
type sayingBroker struct {
	*nastyClient
	says error
}

func (b sayingBroker) Publish(context.Context, string, []byte) error { return b.says }

func (b sayingBroker) Subscribe(context.Context, string, func([]byte)) (func(), error) {
	return nil, b.says
}

// Nobody knows what a broker has done that fails, in whatever form it says so: publishing again
// may repeat a message.
func TestBroker_failsWithoutAnOutcome(t *testing.T) {
	for says, code := range map[error]typedrpc.Code{
		typedrpc.Aborted:                          typedrpc.Aborted,
		fmt.Errorf("acks: %w", typedrpc.Aborted):  typedrpc.Aborted,
		typedrpc.Errorf(typedrpc.Aborted, "acks"): typedrpc.Aborted,
		typedrpc.OK:            typedrpc.Unknown,
		(*typedrpc.Error)(nil): typedrpc.Unavailable,
		io.EOF:                 typedrpc.Unavailable,
	} {
		t.Run(says.Error(), func(t *testing.T) {
			is := is.New(t)
			hub := &topic.Hub{Broker: sayingBroker{(&nastyBroker{}).client(), says}}
			defer hub.Close()
			errs := []error{topic.Publish(t.Context(), hub, lab.TopicNews, "a", "x")}
			for _, err := range topic.Listen(t.Context(), hub, lab.TopicNews, "a") {
				errs = append(errs, err)
			}
			is.Equal(len(errs), 2)
			for _, err := range errs {
				is.Equal(typedrpc.CodeOf(err), code)
				is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
			}
		})
	}
}
