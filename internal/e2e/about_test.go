package e2e_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// introduces is a function for topic.Handle that says names of those that it knows.
func introduces(names map[string]string) func(context.Context, topic.Access) error {
	return func(ctx context.Context, _ topic.Access) error {
		return topic.Introduce(ctx, names[typedrpc.ConnFrom(ctx).Identity().Subject])
	}
}

func TestAbout_presence(t *testing.T) {
	for _, d := range topicDialects {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			ctx, hub := t.Context(), new(topic.Hub)
			srv := lab.TopicServer(func(m *typedrpc.Mux) {
				topic.Handle(m, hub, lab.TopicNews, introduces(map[string]string{"ann": "Ann Lee", "eve": "Eve"}))
			})
			o := typedrpc.DialOptions{Dialect: d}
			ann, annToo := lab.TopicDial(t, srv, "ann", o), lab.TopicDial(t, srv, "ann", o)
			bob, eve := lab.TopicDial(t, srv, "bob", o), lab.TopicDial(t, srv, "eve", o)
			one := lab.SubscribeTo(ctx, ann, lab.TopicNews, "x", nil)
			synctest.Wait()
			p := lab.PresenceOf(ctx, eve, lab.TopicNews, "x") // which is no member, whatever is said
			is.Equal(p.Take(), []topic.Member{{Subject: "ann", About: "Ann Lee", History: true}})
			two := lab.SubscribeTo(ctx, bob, lab.TopicNews, "x", nil)
			is.Equal(p.Take(), []topic.Member{{Subject: "bob"}})

			set := func(subject, about string) error { return topic.SetAbout(hub, lab.TopicNews, "x", subject, about) }
			is.NoErr(set("bob", "away"))
			is.Equal(p.Take(), []topic.Member{{Subject: "bob", About: "away", Changed: true}})
			is.NoErr(set("bob", "away"))
			is.Equal(len(p.Take()), 0) // nothing new
			is.NoErr(set("ann", "Ann Lee, busy"))
			is.Equal(p.Take(), []topic.Member{{Subject: "ann", About: "Ann Lee, busy", Changed: true}})
			three := lab.SubscribeTo(ctx, annToo, lab.TopicNews, "x", nil) // introduced again
			is.Equal(p.Take(), []topic.Member{{Subject: "ann", About: "Ann Lee", Changed: true}})
			here, err := topic.Members(hub, lab.TopicNews, "x")
			is.NoErr(err)
			is.Equal(here, []topic.Member{{Subject: "ann", About: "Ann Lee"}, {Subject: "bob", About: "away"}})
			is.NoErr(set("bob", ""))
			is.Equal(p.Take(), []topic.Member{{Subject: "bob", Changed: true}})

			for subject, about := range map[string]string{"eve": "x", "nobody": "x"} {
				err := set(subject, about)
				is.True(errors.Is(err, typedrpc.NotFound))
				is.True(strings.Contains(err.Error(), subject))
			}
			is.True(errors.Is(topic.SetAbout(hub, lab.TopicNews, "y", "ann", "x"), typedrpc.NotFound))
			is.True(errors.Is(set("ann", strings.Repeat("x", 256)), typedrpc.InvalidArgument))
			is.True(errors.Is(set("ann", "\xff"), typedrpc.InvalidArgument))

			one.Leave()
			three.Leave()
			is.Equal(p.Take(), []topic.Member{{Subject: "ann", Left: true}})
			two.Leave()
			p.Leave()
			for _, c := range []*typedrpc.Conn{ann, annToo, bob, eve} {
				c.Close()
			}
			synctest.Wait()
			is.NoErr(lab.Vacated(hub))
			is.Equal(hook.Server(srv).Budget, int64(0))
			is.NoErr(hub.Close())
			is.True(errors.Is(set("ann", "x"), typedrpc.Unavailable))
		})
	}
}

// What is too long to be said refuses the subscription, when the function returns that.
func TestAbout_tooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		hub := new(topic.Hub)
		defer hub.Close()
		srv := lab.TopicServer(func(m *typedrpc.Mux) {
			topic.Handle(m, hub, lab.TopicNews, introduces(map[string]string{"ann": strings.Repeat("x", 256), "bob": strings.Repeat("x", 255)}))
		})
		ann, bob := lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{}), lab.TopicDial(t, srv, "bob", typedrpc.DialOptions{})
		for _, err := range topic.Subscribe(t.Context(), ann, lab.TopicNews, "x") {
			is.True(errors.Is(err, typedrpc.InvalidArgument))
		}
		lab.SubscribeTo(t.Context(), bob, lab.TopicNews, "x", nil)
		synctest.Wait()
		here, err := topic.Members(hub, lab.TopicNews, "x")
		is.NoErr(err)
		is.Equal(len(here), 1)
		is.Equal(len(here[0].About), 255)
	})
}

// The function is tested like any handler: what it says is for the hub that asked.
func TestAbout_functionAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		allow := introduces(map[string]string{"ann": "Ann", "eve": strings.Repeat("x", 256)})
		is.NoErr(allow(typedrpctest.Context(t, typedrpc.Identity{Subject: "ann"}, nil), topic.Access{Key: "x", Action: topic.ActionSubscribe}))
		err := allow(typedrpctest.Context(t, typedrpc.Identity{Subject: "eve"}, nil), topic.Access{Key: "x", Action: topic.ActionSubscribe})
		is.True(errors.Is(err, typedrpc.InvalidArgument))
	})
}

// A subscription pays for what it brought, and gets it back.
func TestAbout_account(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		used := map[string]int64{}
		for who, about := range map[string]string{"ann": strings.Repeat("x", 255), "bob": ""} {
			hub := new(topic.Hub)
			srv := lab.TopicServer(func(m *typedrpc.Mux) {
				topic.Handle(m, hub, lab.TopicNews, introduces(map[string]string{who: about}))
			})
			srv.MaxMemory = 64 << 20
			c := lab.TopicDial(t, srv, who, typedrpc.DialOptions{})
			var all []*lab.Events[topic.Event[string]]
			for range 100 {
				all = append(all, lab.SubscribeTo(t.Context(), c, lab.TopicNews, "x", nil))
			}
			synctest.Wait()
			for s := range srv.Conns() {
				used[who] = hook.Conn(s).Account
			}
			for _, s := range all {
				s.Leave()
			}
			for s := range srv.Conns() {
				lab.Settled(t, s)
			}
			c.Close()
		}
		is.True(used["ann"]-used["bob"] >= 100*255)
		is.True(used["ann"]-used["bob"] <= 100*512)
	})
}

// Hubs of one broker say the same of a member that several of them have: the latest.
// And they say it once, however often they list their members.
func TestAbout_broker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		hubs, brokers, servers := nastyHubs(func(m *typedrpc.Mux, h *topic.Hub) {
			topic.Handle(m, h, lab.TopicNews, introduces(map[string]string{"ann": "Ann", "bob": "Bob"}))
		})
		var look []*lab.Events[topic.Member]
		set := func(hub int, subject, about string) {
			is.NoErr(topic.SetAbout(hubs[hub], lab.TopicNews, "x", subject, about))
		}
		told := func(want ...topic.Member) {
			t.Helper()
			time.Sleep(time.Second)
			for i, p := range look {
				if got := p.Take(); len(got) != len(want) || len(got) > 0 && got[0] != want[0] {
					t.Errorf("those at hub %d are told %v, not %v", i, got, want)
				}
			}
			time.Sleep(5 * time.Minute) // of lists
			for _, p := range look {
				is.Equal(len(p.Take()), 0)
			}
		}
		here := lab.TopicDial(t, servers[0], "ann", typedrpc.DialOptions{})
		there := lab.TopicDial(t, servers[1], "ann", typedrpc.DialOptions{})
		for i := range hubs {
			c := lab.TopicDial(t, servers[i], "eve", typedrpc.DialOptions{})
			look = append(look, lab.PresenceOf(ctx, c, lab.TopicNews, "x"))
		}
		time.Sleep(time.Minute)
		one := lab.SubscribeTo(ctx, here, lab.TopicNews, "x", nil)
		told(topic.Member{Subject: "ann", About: "Ann"})
		set(0, "ann", "Ann, away")
		told(topic.Member{Subject: "ann", About: "Ann, away", Changed: true})
		two := lab.SubscribeTo(ctx, there, lab.TopicNews, "x", nil)
		told(topic.Member{Subject: "ann", About: "Ann", Changed: true}) // said later
		set(1, "ann", "")
		told(topic.Member{Subject: "ann", Changed: true})
		two.Leave()
		told(topic.Member{Subject: "ann", About: "Ann, away", Changed: true}) // what its other hub says

		// What is said while the connection is down is learned of afterwards.
		brokers[1].drop()
		set(0, "ann", "Ann, back")
		time.Sleep(time.Second)
		is.Equal(look[0].Take(), []topic.Member{{Subject: "ann", About: "Ann, back", Changed: true}})
		time.Sleep(5 * time.Second)
		brokers[1].back()
		time.Sleep(time.Second)
		is.Equal(look[1].Take(), []topic.Member{{Subject: "ann", About: "Ann, back", Changed: true}})
		one.Leave()
		told(topic.Member{Subject: "ann", Left: true})
		for i, p := range look {
			p.Leave()
			synctest.Wait()
			is.NoErr(lab.Vacated(hubs[i]))
		}
		for _, h := range hubs {
			is.NoErr(h.Close())
		}
	})
}

// Those who are there when the watching begins at another hub come as soon as it has
// answered, with what it says.
func TestAbout_brokerLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		hubs, _, servers := nastyHubs(func(m *typedrpc.Mux, h *topic.Hub) {
			topic.Handle(m, h, lab.TopicNews, introduces(map[string]string{"ann": "Ann"}))
		})
		ann, bob := lab.TopicDial(t, servers[0], "ann", typedrpc.DialOptions{}), lab.TopicDial(t, servers[1], "bob", typedrpc.DialOptions{})
		s := lab.SubscribeTo(ctx, ann, lab.TopicNews, "x", nil)
		time.Sleep(time.Hour) // long after anybody asked
		p := lab.PresenceOf(ctx, bob, lab.TopicNews, "x")
		time.Sleep(time.Second)
		got := p.Take()
		is.Equal(len(got), 1)
		got[0].History = false // it may have answered before or after the first look
		is.Equal(got[0], topic.Member{Subject: "ann", About: "Ann"})
		p.Leave()
		s.Leave()
		for _, h := range hubs {
			is.NoErr(h.Close())
		}
	})
}
