package storm_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
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

// page is a plain peer with one subscription, which goes on behind the last message that it
// had, over other links too.
type page struct {
	*lab.Stranger
	topic  int
	at     string // of the last that it had; "": it had none
	prev   int    // that was this one
	start  int    // the first that there is for it, where it had none
	id     string // of the subscription
	over   bool
	resume func() // not nil: it reads nothing
}

// pageSaid is what a page is told.
type pageSaid struct {
	ID     int
	Result string
	Params struct {
		Subscription string
		Result       string
		Missed       int
		At           string
		Error        *struct{ Code int }
	}
}

type places struct {
	*rand.Rand
	t      *testing.T
	seed   uint64
	srv    *typedrpc.Server
	topics []topic.Topic[string]
	last   []int
	count  []int // by topic, what was published
	pages  []*page
}

// join gives p a link.
func (x *places) join(p *page) {
	x.srv.OnConnect = nil // of a page before
	p.Stranger, _ = lab.Page(x.t, x.srv)
	p.id, p.resume = "", nil
	x.subscribe(p)
}

func (x *places) subscribe(p *page) {
	x.read(p)
	if p.id != "" && !p.over && p.Ended() == nil {
		p.Send(`{"jsonrpc":"2.0","id":2,"method":"rpc.unsubscribe","params":["` + p.id + `"]}`)
		x.read(p)
	}
	if p.at == "" {
		p.start = max(0, x.count[p.topic]-x.last[p.topic])
	}
	p.over, p.id = false, ""
	p.Send(fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"rpc.subscribe","params":{"method":%q,"params":["x"],"from":%q}}`, x.topics[p.topic].Name(), p.at))
	x.read(p)
	if p.id == "" && p.Ended() == nil {
		x.t.Errorf("seed %d: not subscribed", x.seed)
	}
}

// read looks at what has come to p.
func (x *places) read(p *page) {
	if p.resume != nil {
		p.resume()
		p.resume = nil
	}
	for _, text := range p.Got() {
		var m pageSaid
		json.Unmarshal([]byte(text), &m) // of an answer that is true it is the id that counts
		switch {
		case m.ID == 1:
			p.id = m.Result
			continue
		case m.ID != 0 || m.Params.Subscription != p.id:
			continue
		case m.Params.Error != nil:
			p.over = true
			continue
		}
		n, _ := strconv.Atoi(m.Params.Result[:8])
		first := p.prev + 1
		if p.at == "" {
			first = p.start
		}
		if n != first+m.Params.Missed || m.Params.At == "" {
			x.t.Errorf("seed %d: got %d behind %d, %d missed, of topic %d: %.200s", x.seed, n, first-1, m.Params.Missed, p.topic, text)
		}
		p.prev, p.at = n, m.Params.At
	}
}

func (x *places) publish(hub *topic.Hub, k, size int) {
	if err := topic.Publish(x.t.Context(), hub, x.topics[k], "x", fmt.Sprintf("%08d%s", x.count[k], testkit.Letters(size))); err != nil {
		x.t.Error(err)
	}
	x.count[k]++
}

func (x *places) step(hub *topic.Hub) {
	p := x.pages[x.IntN(len(x.pages))]
	switch n := x.IntN(20); {
	case n < 10:
		for range 1 + x.IntN(6) {
			k := x.IntN(len(x.topics))
			x.publish(hub, k, min(x.IntN([]int{50, 2000, 20_000}[x.IntN(3)]), 100_000/max(x.last[k], 1))) // each history fits
		}
	case n < 13:
		x.read(p)
	case n < 15 && p.resume == nil:
		p.resume = p.Stop()
	case n < 16:
		x.subscribe(p)
	case n < 18:
		if x.IntN(2) == 0 {
			x.read(p)
		}
		if p.over || x.IntN(3) == 0 {
			p.T.Kill() // with what has come and was not looked at
			if p.resume != nil {
				p.resume()
			}
			for range x.IntN(20) {
				x.publish(hub, p.topic, x.IntN(100))
			}
			synctest.Wait()
			x.join(p)
		}
	default:
		time.Sleep(time.Duration(x.IntN(2000)) * time.Millisecond)
	}
}

// A plain peer that comes back with the place of its last message is given what came behind
// it, in order, once, and is told exactly what it missed, however it went and whatever was
// dropped for it.
func TestTopic_modelOfPlaces(t *testing.T) {
	for seed := range uint64(testkit.Crowd(400, 40, 10)) {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			x := &places{Rand: rand.New(rand.NewPCG(seed, 6)), t: t, seed: seed, last: []int{5, 2, 0, 3, 1 + int(seed%30)}}
			few := topic.MaxQueued(1 + x.IntN(30_000))
			for i, traits := range [][]topic.Trait{{topic.DropOldest, few}, {topic.LatestOnly}, {topic.DropNewest, few}, {topic.Disconnect, few}, {topic.DropOldest}} {
				if x.last[i] > 0 {
					traits = append(traits, topic.History(x.last[i], 0))
				}
				x.topics = append(x.topics, topic.New[string](fmt.Sprint("places.", i), traits...))
			}
			x.count = make([]int, len(x.topics))
			hub, mux := new(topic.Hub), typedrpc.NewMux()
			for _, tp := range x.topics {
				topic.Handle(mux, hub, tp, topic.Everybody)
				stays := lab.Gather(t.Context(), nil, topicListen(hub, tp)) // so that the key is not forgotten
				defer stays.Leave()
			}
			x.srv = &typedrpc.Server{Mux: mux, Limits: typedrpc.Limits{MaxBuffered: 150_000 + x.IntN(100_000), MinRate: -1}}
			for range 1 + x.IntN(6) {
				p := &page{topic: x.IntN(len(x.topics))}
				x.pages = append(x.pages, p)
				x.join(p)
			}
			for range 200 {
				if x.step(hub); t.Failed() {
					break
				}
			}
			for _, p := range x.pages {
				if x.read(p); p.over || p.Ended() != nil {
					p.T.Kill()
					x.join(p)
				}
			}
			for k := range x.topics {
				x.publish(hub, k, 0)
			}
			for _, p := range x.pages {
				x.read(p)
				is.Equal(p.prev, x.count[p.topic]-1) // it has the newest
				p.T.Kill()
			}
			synctest.Wait()
			is.Equal(hook.Server(x.srv).Budget, int64(0))
			is.Equal(len(hook.Hub(hub).Accounts), 0)
			is.NoErr(hub.Close())
		})
		if t.Failed() {
			return
		}
	}
}

func topicListen(hub *topic.Hub, tp topic.Topic[string]) func(context.Context) func(func(topic.Event[string], error) bool) {
	return func(ctx context.Context) func(func(topic.Event[string], error) bool) {
		return topic.Listen(ctx, hub, tp, "x")
	}
}
