package typedrpc

import (
	"encoding/binary"
	"fmt"
	"runtime/debug"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
)

// numbered is a message of any size without reflection: a number, then zeros.
type numbered struct{ N, Size int }

// plainCodec carries what the tests and benchmarks of topics need.
type plainCodec struct{}

func (plainCodec) Name() string    { return "plain" }
func (plainCodec) Check(any) error { return nil }

func (plainCodec) Append(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case *numbered:
		dst = binary.LittleEndian.AppendUint64(dst, uint64(v.N))
		return append(dst, make([]byte, v.Size-8)...), nil
	case *string:
		return append(dst, *v...), nil
	case *Empty:
		return dst, nil
	}
	return dst, fmt.Errorf("no %T", v)
}

func (plainCodec) Decode(data []byte, v any) error {
	switch v := v.(type) {
	case *numbered:
		*v = numbered{int(binary.LittleEndian.Uint64(data)), len(data)}
	case *string:
		*v = string(data)
	}
	return nil
}

const (
	stormCap  = 32 << 10
	stormWait = time.Second
)

var stormPolicies = map[string]SlowPolicy{
	"disconnect": Disconnect, "dropOldest": DropOldest, "dropNewest": DropNewest,
	"latestOnly": LatestOnly, "waitAtMost": WaitAtMost(stormWait),
}

// stormRound is how much a storm publishes before it waits for the readers;
// stormRounds make 20,000 messages of it, and 2,000 under the race detector,
// which takes thirty times as long for each.
const stormRound = 50

func stormRounds() int {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "-race" && s.Value == "true" {
				return 40
			}
		}
	}
	return 400
}

// TestTopic_storm has 200 subscribers on four connections, one of which never
// reads. The others receive everything in order; what is held for that one
// stays within its bound and its window.
func TestTopic_storm(t *testing.T) {
	for name, policy := range stormPolicies {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { storm(t, policy.Within(stormCap)) })
		})
	}
}

func storm(t *testing.T, policy SlowPolicy) {
	const readers = 199
	rounds := stormRounds()
	items := rounds * stormRound
	is := is.New(t)
	ctx := t.Context()
	topic := NewTopic[numbered]("storm", Slow(policy))
	hub := NewHub(&HubOptions{Codec: plainCodec{}})
	mux := NewMux()
	HandleTopic(mux, hub, topic, nil)
	srv := &Server{Mux: mux, Codecs: []Codec{plainCodec{}}}
	var conns []*Conn
	for range 4 {
		c, _, err := dialPipe(ctx, srv, &DialOptions{Codecs: []Codec{plainCodec{}}})
		is.NoErr(err)
		defer c.Close()
		conns = append(conns, c)
	}
	gate := make(chan struct{})
	stalled := subscribeTo(ctx, conns[0], topic, "x", gate)
	synctest.Wait()
	slow := hub.rooms[roomID{topic.spec, "x"}].subs[0]

	failed := make([]error, readers)
	var all sync.WaitGroup
	for i := range readers {
		all.Go(func() {
			next := 0
			for e, err := range Subscribe(ctx, conns[i%len(conns)], topic, "x") {
				if err == nil && (e.Value.N != next || e.Missed != 0) {
					err = fmt.Errorf("got %d with %d missed, want %d", e.Value.N, e.Missed, next)
				}
				if err != nil {
					failed[i] = err
					return
				}
				if next++; next == items {
					return
				}
			}
		})
	}
	synctest.Wait()
	began, most := time.Now(), 0
	for n := range rounds {
		for i := range stormRound {
			is.NoErr(Publish(ctx, hub, topic, "x", numbered{n*stormRound + i, 1 << 10}))
			most = max(most, slow.holds())
		}
		if policy.do != waitAtMost { // there the publisher waits for them itself
			synctest.Wait() // they have it, and their credit has come back
		}
	}
	all.Wait()
	for _, err := range failed {
		is.NoErr(err)
	}
	is.True(most > 32<<10)           // it was stalled,
	is.True(most <= stormCap+64<<10) // and bounded

	close(gate)
	synctest.Wait()
	got, lost := len(stalled.got), 0
	is.True(got > 50)
	for i, e := range stalled.got {
		lost += e.Missed
		is.Equal(e.Value.N, i+lost) // in order, and what is missing is counted
	}
	switch policy.do {
	case disconnect, waitAtMost:
		is.Equal(CodeOf(stalled.err), ResourceExhausted)
		is.Equal(lost, 0)
		waited := time.Since(began)
		is.Equal(waited >= stormWait, policy.do == waitAtMost)
		is.True(waited < 2*stormWait)
	case dropOldest:
		is.Equal(got+lost, items)
		is.True(got > 60+25) // the window, and what was queued
	case latestOnly:
		is.Equal(got+lost, items)
		is.True(got <= 62)
	case dropNewest:
		is.Equal(lost, 0)
		is.NoErr(Publish(ctx, hub, topic, "x", numbered{items, 8}))
		synctest.Wait()
		last := stalled.got[len(stalled.got)-1]
		is.Equal(last.Value.N, items)
		is.Equal(last.Missed, items-got)
	}
	stalled.leave()
	for _, c := range conns {
		c.Close()
	}
	synctest.Wait()
	is.NoErr(hub.isEmpty())
}

// holds is how many bytes are held for the subscriber: its queue, and what its
// stream has not sent or its peer has not received.
func (s *subscriber) holds() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.x.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	return s.bytes + s.x.flow.used
}

// TestTopic_waitAtMost: the publisher waits for one room only, after everybody
// else was served, and not at all for one that catches up.
func TestTopic_waitAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		topic := NewTopic[string]("test.wait", Slow(WaitAtMost(time.Minute).Within(992)))
		hub := NewHub(nil)
		srv := topicServer(func(m *Mux) { HandleTopic(m, hub, topic, nil) })
		gate := make(chan struct{})
		slow := subscribeTo(ctx, topicDial(t, srv, "ann", DialOptions{Limits: Limits{Window: 992}}), topic, "x", gate)
		bob := topicDial(t, srv, "bob", DialOptions{})
		fast, other := subscribeTo(ctx, bob, topic, "x", nil), subscribeTo(ctx, bob, topic, "y", nil)
		synctest.Wait()
		published := make(chan time.Duration)
		var n int
		go func() {
			for {
				began := time.Now()
				if err := Publish(ctx, hub, topic, "x", fmt.Sprintf("%0430d", n)); err != nil {
					close(published)
					return
				}
				n++
				published <- time.Since(began)
			}
		}()
		for range 5 { // one received, two in the window, two in the queue
			is.Equal(<-published, time.Duration(0))
		}
		synctest.Wait()
		is.Equal(len(fast.take()), 6) // also the one whose publisher waits
		is.NoErr(Publish(ctx, hub, topic, "y", "meanwhile"))
		is.Equal(len(other.take()), 1)
		time.Sleep(30 * time.Second)
		for range 4 {
			gate <- struct{}{}
			gate <- struct{}{}
			synctest.Wait()
			<-published
			<-published
			time.Sleep(30 * time.Second) // each time it has caught up
		}
		is.Equal(slow.err, nil)
		time.Sleep(time.Minute)
		close(gate)
		<-slow.done
		is.Equal(CodeOf(slow.err), ResourceExhausted)
		is.NoErr(hub.Close())
		for range published {
		}
	})
}

// TestTopic_connectionBound: the subscriptions of one connection share a bound.
func TestTopic_connectionBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		topic := NewTopic[string]("test.bound", Slow(DropOldest.Within(1<<20)))
		hub := NewHub(nil)
		srv := topicServer(func(m *Mux) { HandleTopic(m, hub, topic, nil) })
		srv.Limits.MaxBuffered = 64 << 10
		c := topicDial(t, srv, "ann", DialOptions{Limits: Limits{Window: 1000}})
		gate := make(chan struct{})
		var all []*events[Event[string]]
		for range 8 {
			all = append(all, subscribeTo(ctx, c, topic, "x", gate))
		}
		synctest.Wait()
		var a *account
		for _, a = range hub.accounts {
		}
		for i := range 1000 {
			is.NoErr(Publish(ctx, hub, topic, "x", fmt.Sprintf("%0998d", i)))
			is.True(a.own.used.Load() <= 64<<10)
		}
		is.True(a.own.used.Load() > 60<<10)
		close(gate)
		synctest.Wait()
		is.Equal(a.own.used.Load(), int64(0))
		is.NoErr(Publish(ctx, hub, topic, "x", "last"))
		for _, e := range all {
			got, lost := e.take(), 0
			for _, e := range got {
				lost += e.Missed
			}
			is.Equal(len(got)+lost, 1001)
			is.Equal(got[len(got)-1].Value, "last")
		}
		c.Close()
		synctest.Wait()
		is.NoErr(hub.isEmpty())
		is.NoErr(hub.Close())
	})
}

// TestTopic_serverBound: half of the server's budget is kept for calls.
func TestTopic_serverBound(t *testing.T) {
	is := is.New(t)
	server := &budget{max: 1000}
	a := &account{own: budget{max: 10_000}, server: server}
	is.True(a.take(300))
	is.True(a.take(300))
	is.True(!a.take(1))
	a.give(300)
	is.True(a.take(1))
	a.give(301)
	is.Equal(server.used.Load(), int64(0))
	is.Equal(a.own.used.Load(), int64(0))
}
