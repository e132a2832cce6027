package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/topic"
)

func TestTopic_presence(t *testing.T) {
	for _, d := range topicDialects {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			ctx := t.Context()
			hub := new(topic.Hub)
			srv := lab.TopicServer(func(m *typedrpc.Mux) { topic.Handle(m, hub, lab.TopicNews, topic.Everybody) })
			o := typedrpc.DialOptions{Dialect: d}
			ann, ann2, bob := lab.TopicDial(t, srv, "ann", o), lab.TopicDial(t, srv, "ann", o), lab.TopicDial(t, srv, "bob", o)
			nobody := lab.TopicDial(t, srv, "", o)
			one := lab.SubscribeTo(ctx, ann, lab.TopicNews, "x", nil)
			synctest.Wait()
			p := lab.PresenceOf(ctx, bob, lab.TopicNews, "x")
			is.Equal(p.Take(), []topic.Member{{Subject: "ann", History: true}})
			two := lab.SubscribeTo(ctx, ann2, lab.TopicNews, "x", nil)
			three := lab.SubscribeTo(ctx, ann, lab.TopicNews, "x", nil)
			is.Equal(len(p.Take()), 0)
			lab.SubscribeTo(ctx, bob, lab.TopicNews, "x", nil)
			is.Equal(p.Take(), []topic.Member{{Subject: "bob"}})
			lab.SubscribeTo(ctx, nobody, lab.TopicNews, "x", nil)
			is.Equal(p.Take(), []topic.Member{{Subject: ""}})
			one.Leave()
			two.Leave()
			is.Equal(len(p.Take()), 0)
			three.Leave()
			is.Equal(p.Take(), []topic.Member{{Subject: "ann", Left: true}})
			nobody.Close()
			is.Equal(p.Take(), []topic.Member{{Subject: "", Left: true}})
			bob.Close()
			<-p.Done
			synctest.Wait()
			is.NoErr(lab.Vacated(hub))
		})
	}
}

// TestTopic_presenceCoalesces stalls one who looks on while others come and go.
func TestTopic_presenceCoalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		hub := new(topic.Hub)
		srv := lab.TopicServer(func(m *typedrpc.Mux) { topic.Handle(m, hub, lab.TopicNews, topic.Everybody) })
		c := lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{})
		gate := make(chan struct{})
		p := lab.Gather(ctx, gate, func(ctx context.Context) func(func(topic.Member, error) bool) {
			return topic.Watch(ctx, c, lab.TopicNews, "x")
		})
		synctest.Wait()
		change := func(who string, by int) { hook.Present(hub, "test.news", "x", by, who) }
		for range 5000 {
			change("stays", 1)
			change("stays", -1)
			change("goes", 1)
			change("goes", -1)
		}
		change("stays", 1)
		synctest.Wait()
		is.True(hook.Room(hub, "test.news", "x").Pending <= 2)
		close(gate)
		here := map[string]bool{}
		for _, m := range p.Take() {
			is.Equal(here[m.Subject], m.Left) // they alternate
			here[m.Subject] = !m.Left
		}
		is.True(here["stays"])
		is.True(!here["goes"]) // nobody need have been told that it came
		p.Leave()
	})
}

// Some who look on stall, each at another place: what they have not been told is
// bounded, and those who are the furthest behind end. One alone never does.
func TestTopic_presenceTooSlow(t *testing.T) {
	for readers, lost := range map[int]bool{1: false, 30: true} {
		testkit.Bubble(t, fmt.Sprint(readers), func(t *testing.T, is *is.I) {
			ctx := t.Context()
			hub := new(topic.Hub)
			defer hub.Close()
			srv := lab.TopicServer(func(m *typedrpc.Mux) { topic.Handle(m, hub, lab.TopicNews, topic.Everybody) })
			c := lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{Limits: typedrpc.Limits{Window: 1000}})
			gate, by := make(chan struct{}), 1
			var names []string
			for i := range 200 {
				names = append(names, fmt.Sprint("guest ", i))
			}
			var all []*lab.Events[topic.Member]
			for i := range 30 {
				if i < readers {
					all = append(all, lab.Gather(ctx, gate, func(ctx context.Context) func(func(topic.Member, error) bool) {
						return topic.Watch(ctx, c, lab.TopicNews, "x")
					}))
				}
				synctest.Wait()
				hook.Present(hub, "test.news", "x", by, names...)
				by = -by
				synctest.Wait()
			}
			close(gate)
			synctest.Wait()
			ended := 0
			for i, p := range all {
				here := 0
				for _, m := range p.Take() {
					here++
					if m.Left {
						here -= 2
					}
				}
				select {
				case <-p.Done:
					ended++
					is.Equal(ended, i+1) // the furthest behind
					is.Equal(typedrpc.CodeOf(p.Err), typedrpc.ResourceExhausted)
					is.True(strings.Contains(p.Err.Error(), "too slow"))
				default:
					is.Equal(here, 0) // nobody is left
					p.Leave()
				}
			}
			is.Equal(ended > 0, lost)
			is.True(ended < len(all))
			time.Sleep(5 * time.Second) // acknowledgements
			synctest.Wait()
			is.NoErr(lab.Vacated(hub))
			is.Equal(hook.Server(srv).Budget, int64(0))
		})
	}
}

// What a peer gives no credit for is not looked up: everything but what it was
// sent still waits where it waits for all.
func TestTopic_presenceWithoutCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		hub := new(topic.Hub)
		defer hub.Close()
		mux := typedrpc.NewMux()
		topic.Handle(mux, hub, lab.TopicNews, topic.Everybody)
		p, _ := lab.RawClient(t, typedrpc.Binary, &typedrpc.Server{Mux: mux})
		call := wire.Frame{Type: wire.Call, ID: 1, Kind: wire.ServerStream, Method: "test.news", Payload: []byte(`"x"`)}
		is.NoErr(p.Send(call))
		synctest.Wait()
		const members = 20_000
		var names []string
		for i := range members - 1 {
			names = append(names, fmt.Sprint("guest ", i))
		}
		hook.Present(hub, "test.news", "x", 1, names...)
		call.ID, call.Method = 2, "test.news.presence"
		is.NoErr(p.Send(call))
		n := len(p.Got(wire.Item))
		is.True(n > 1000 && n < members-1000) // a window
		is.Equal(hook.Room(hub, "test.news", "x").Pending, members-n)
		hook.Present(hub, "test.news", "x", -1, names...)
		is.Equal(len(p.Got(wire.Item)), 0)
		is.NoErr(p.Send(wire.Frame{Type: wire.Credit, Flags: wire.FromCaller, ID: 2, Items: uint64(n)}))
		left := p.Got(wire.Item)
		is.Equal(len(left), n-1) // those that it was told of, but who subscribes still
		for _, f := range left {
			is.Equal(string(f.Payload[:2]), `"-`)
		}
		is.Equal(hook.Room(hub, "test.news", "x").Pending, 0)
	})
}
