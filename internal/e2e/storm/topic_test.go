package storm_test

import (
	"encoding/binary"
	"fmt"
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
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// numbered is a message of any size without reflection: a number, then zeros.
type numbered struct{ N, Size int }

// plainCodec carries what the tests and benchmarks of topics need.
type plainCodec struct{}

func (plainCodec) Name() string { return "plain" }

func (plainCodec) Check(any) error { return nil }

func (plainCodec) Append(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case *numbered:
		dst = binary.LittleEndian.AppendUint64(dst, uint64(v.N))
		return append(dst, make([]byte, v.Size-8)...), nil
	case *string:
		return append(dst, *v...), nil
	case *struct{}:
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

var stormPolicies = map[string]topic.Trait{
	"disconnect": topic.Disconnect, "dropOldest": topic.DropOldest, "dropNewest": topic.DropNewest,
	"latestOnly": topic.LatestOnly, "waitAtMost": topic.WaitAtMost(stormWait),
}

// stormRound is how much a storm publishes before it waits for the readers.
const stormRound = 50

// stormRounds make 20,000 messages of it, and 2,000 under the race detector,
// which takes thirty times as long for each.
func stormRounds() int { return testkit.Crowd(400, 100, 40) }

// TestTopic_storm has 200 subscribers on four connections, one of which never
// reads. The others receive everything in order; what is held for that one
// stays within its bound and its window.
func TestTopic_storm(t *testing.T) {
	for name, policy := range stormPolicies {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				traits := []topic.Trait{policy}
				if name != "latestOnly" {
					traits = append(traits, topic.MaxQueued(stormCap))
				}
				storm(t, name, traits)
			})
		})
	}
}

func storm(t *testing.T, name string, traits []topic.Trait) {
	const readers = 199
	rounds := stormRounds()
	items := rounds * stormRound
	is := is.New(t)
	ctx := t.Context()
	tp := topic.New[numbered]("storm", traits...)
	hub := &topic.Hub{Codec: plainCodec{}}
	mux := typedrpc.NewMux()
	topic.Handle(mux, hub, tp, topic.Everybody)
	srv := &typedrpc.Server{Mux: mux, Codecs: []typedrpc.Codec{plainCodec{}}}
	var conns []*typedrpc.Conn
	for range 4 {
		c, _, err := typedrpctest.Dial(srv, &typedrpc.DialOptions{Codecs: []typedrpc.Codec{plainCodec{}}})
		is.NoErr(err)
		defer c.Close()
		conns = append(conns, c)
	}
	gate := make(chan struct{})
	stalled := lab.SubscribeTo(ctx, conns[0], tp, "x", gate)
	synctest.Wait()

	failed := make([]error, readers)
	var all sync.WaitGroup
	for i := range readers {
		all.Go(func() {
			next := 0
			for e, err := range topic.Subscribe(ctx, conns[i%len(conns)], tp, "x") {
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
			is.NoErr(topic.Publish(ctx, hub, tp, "x", numbered{n*stormRound + i, 1 << 10}))
			if held := hook.Room(hub, "storm", "x").Held; len(held) == readers+1 { // the stalled one is there, and the first
				most = max(most, held[0])
			}
		}
		if name != "waitAtMost" { // there the publisher waits for them itself
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
	got, lost := len(stalled.Got), 0
	is.True(got > 50)
	for i, e := range stalled.Got {
		lost += e.Missed
		is.Equal(e.Value.N, i+lost) // in order, and what is missing is counted
	}
	switch name {
	case "disconnect", "waitAtMost":
		is.Equal(typedrpc.CodeOf(stalled.Err), typedrpc.ResourceExhausted)
		is.Equal(lost, 0)
		waited := time.Since(began)
		is.Equal(waited >= stormWait, name == "waitAtMost")
		is.True(waited < 2*stormWait)
	case "dropOldest":
		is.Equal(got+lost, items)
		is.True(got > 60+25) // the window, and what was queued
	case "latestOnly":
		is.Equal(got+lost, items)
		is.True(got <= 62)
	case "dropNewest":
		is.Equal(lost, 0)
		is.NoErr(topic.Publish(ctx, hub, tp, "x", numbered{items, 8}))
		synctest.Wait()
		last := stalled.Got[len(stalled.Got)-1]
		is.Equal(last.Value.N, items)
		is.Equal(last.Missed, items-got)
	}
	stalled.Leave()
	for _, c := range conns {
		c.Close()
	}
	synctest.Wait()
	is.NoErr(lab.Vacated(hub))
}
