package e2e_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
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

// crowded is a client with subscriptions to topics that drop, whose readers are slow at times.
type crowded struct {
	limits  typedrpc.Limits // of the client
	conn    *typedrpc.Conn
	topics  []topic.Topic[string]
	newest  []int // of each topic, that was published
	readers []*reader

	mu  sync.Mutex
	rng *rand.Rand
}

// reader is a subscriber. Its fields are under crowded.mu.
type reader struct {
	topic int
	last  int  // that it was given
	waits bool // for the next
	over  bool
}

func (x *crowded) pick(n int) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.rng.IntN(n)
}

func (x *crowded) read(ctx context.Context, r *reader) {
	slow := x.pick(3)
	note := func(f func()) {
		x.mu.Lock()
		defer x.mu.Unlock()
		f()
	}
	defer note(func() { r.over = true })
	for e, err := range topic.Subscribe(ctx, x.conn, x.topics[r.topic], "x") {
		if err != nil {
			return
		}
		note(func() {
			r.last, _ = strconv.Atoi(e.Value[:8])
			r.waits = false
		})
		if slow > 0 && x.pick(4/slow) == 0 {
			time.Sleep(time.Duration(x.pick(3000*slow)) * time.Millisecond)
		}
		note(func() { r.waits = true })
	}
}

// publish publishes something to one of the topics.
func (x *crowded) publish(ctx context.Context, hub *topic.Hub) error {
	k := x.pick(len(x.topics))
	most := []int{100, 1000, 20_000, 100_000}[x.pick(4)]
	x.newest[k]++
	value := fmt.Sprintf("%08d%s", x.newest[k], testkit.Letters(x.pick(min(most, x.limits.MaxMessage-20))))
	return topic.Publish(ctx, hub, x.topics[k], "x", value)
}

// stuck says who waits for a message that nothing keeps from coming. "" is nobody.
func (x *crowded) stuck() string {
	s := hook.Conn(x.conn)
	if !s.Open || x.conn.State() != typedrpc.StateConnected {
		return ""
	}
	out := s.Unread + min(s.Spent, x.limits.MaxBuffered/16) // that is not returned, for good reasons
	if out > x.limits.MaxBuffered/16 && out+x.limits.MaxMessage+testkit.MessageOverhead > x.limits.MaxBuffered {
		return ""
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, r := range x.readers {
		if newest := x.newest[r.topic]; !r.over && r.waits && r.last != newest {
			return fmt.Sprintf("a reader of %s has %d, and %d was published; %d bytes are out for good reasons", x.topics[r.topic].Name(), r.last, newest, out)
		}
	}
	return ""
}

// Who waits for the newest is given it at once, whatever others have not taken, however the
// sizes fall, and where links are cut.
func TestTopic_nobodyIsStuck(t *testing.T) {
	for seed := range uint64(testkit.Crowd(300, 60, 20)) {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			rng := rand.New(rand.NewPCG(seed, 0))
			x := &crowded{rng: rng, topics: []topic.Topic[string]{
				topic.New[string]("stuck.latest", topic.LatestOnly),
				topic.New[string]("stuck.latest.history", topic.LatestOnly, topic.History(3, 0)),
				topic.New[string]("stuck.oldest", topic.DropOldest, topic.MaxQueued(1+rng.IntN(2000))),
				topic.New[string]("stuck.oldest.history", topic.DropOldest, topic.History(3, 0)),
			}}
			x.newest = make([]int, len(x.topics))
			buffered := 2000 + rng.IntN([]int{3000, 60_000, 1_000_000}[rng.IntN(3)])
			x.limits = typedrpc.Limits{
				Window: 80 + rng.IntN([]int{500, 5000, 100_000}[rng.IntN(3)]), MaxBuffered: buffered,
				MaxMessage: 600 + rng.IntN(min(buffered, 100_000)), Grace: time.Minute, MinRate: -1,
			}
			hub := new(topic.Hub)
			mux := typedrpc.NewMux()
			for _, tp := range x.topics {
				topic.Handle(mux, hub, tp, topic.Everybody)
			}
			quiet := slog.New(slog.DiscardHandler)
			w := &lab.Town{Srv: &typedrpc.Server{Mux: mux, Logger: quiet, Limits: typedrpc.Limits{Grace: time.Minute, MinRate: -1}}}
			d := []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text}[seed%2]
			x.conn = w.Dial(t, &typedrpc.DialOptions{Dialect: d, Limits: x.limits, Backoff: lab.Steady})
			ctx, cancel := context.WithCancel(t.Context())
			var all sync.WaitGroup
			for range 1 + rng.IntN(10) {
				r := &reader{topic: rng.IntN(len(x.topics)), waits: true}
				x.readers = append(x.readers, r)
			}
			for _, r := range x.readers {
				all.Go(func() { x.read(ctx, r) })
			}
			time.Sleep(time.Second)
			for cuts := x.pick(2) == 0; x.newest[0] < 100; {
				time.Sleep([]time.Duration{0, 0, time.Duration(x.pick(5000)) * time.Microsecond, time.Duration(x.pick(1500)) * time.Millisecond}[x.pick(4)])
				for range 1 + x.pick(3) {
					is.NoErr(x.publish(ctx, hub))
				}
				synctest.Wait()
				if cuts && x.pick(30) == 0 {
					w.Cable().Cut()
				} else if why := x.stuck(); why != "" {
					t.Errorf("seed %d: %s; %+v", seed, why, x.limits)
					break
				}
			}
			cancel()
			all.Wait()
			lab.Settled(t, x.conn)
			x.conn.Close()
			is.NoErr(hub.Close())
		})
		if t.Failed() {
			return
		}
	}
}
