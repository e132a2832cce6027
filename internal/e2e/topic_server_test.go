package e2e_test

import (
	"context"
	"errors"
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
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// Who may subscribe is asked what for, and without anybody to ask nobody may.
func TestTopic_access(t *testing.T) {
	plain := topic.New[string]("test.plain", topic.WithPresence)
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		var hub topic.Hub
		defer hub.Close()
		var asked []topic.Access
		allow := func(_ context.Context, a topic.Access) error {
			asked = append(asked, a)
			if a.Action == topic.ActionWatch {
				return typedrpc.PermissionDenied
			}
			return nil
		}
		srv := lab.TopicServer(func(m *typedrpc.Mux) {
			topic.Handle(m, &hub, plain, allow)
			topic.Handle(m, &hub, lab.TopicChat, allow)
			topic.Handle(m, &hub, lab.TopicNews, nil)
		})
		c := lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{})
		for _, tp := range []topic.Topic[string]{plain, lab.TopicChat, lab.TopicNews} {
			e := lab.SubscribeTo(ctx, c, tp, "x", nil)
			synctest.Wait()
			p := lab.PresenceOf(ctx, c, tp, "y")
			<-p.Done
			is.Equal(typedrpc.CodeOf(p.Err), typedrpc.PermissionDenied)
			err := e.Leave()
			if tp != lab.TopicNews {
				is.Equal(typedrpc.CodeOf(err), typedrpc.Canceled)
				is.Equal(asked[0], topic.Access{Key: "x", Action: topic.ActionSubscribe, History: tp == lab.TopicChat})
				is.Equal(asked[1], topic.Access{Key: "y", Action: topic.ActionWatch})
				asked = nil
				continue
			}
			is.Equal(typedrpc.CodeOf(err), typedrpc.PermissionDenied)
			is.True(strings.Contains(err.Error(), "topic.Everybody"))
		}
	})
}

// Who is told of the tags of a topic sees them where somebody wants its presence, too.
func TestTopic_tags(t *testing.T) {
	type level int
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var hub topic.Hub
		defer hub.Close()
		mux := typedrpc.NewMux(func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
			if l, _ := typedrpc.TagOf[level](r); l > 3 {
				return nil, typedrpc.PermissionDenied
			}
			return next(ctx, r)
		})
		secret := topic.New[string]("test.secret", topic.WithPresence, typedrpc.Tag(level(5)))
		topic.Handle(mux, &hub, secret, topic.Everybody)
		srv := lab.TopicServer(func(*typedrpc.Mux) {})
		srv.Mux = mux
		c := lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{})
		e, p := lab.SubscribeTo(t.Context(), c, secret, "x", nil), lab.PresenceOf(t.Context(), c, secret, "x")
		<-e.Done
		<-p.Done
		is.Equal(typedrpc.CodeOf(e.Err), typedrpc.PermissionDenied)
		is.Equal(typedrpc.CodeOf(p.Err), typedrpc.PermissionDenied)
	})
}

// Without WithPresence nobody is listed: a client of the declaration is told before
// it asks, another one by the server, and the broker carries nothing of it.
func TestTopic_withoutPresence(t *testing.T) {
	quiet := topic.New[string]("test.quiet")
	curious := topic.New[string]("test.quiet", topic.WithPresence)
	testkit.Bubble(t, "", func(t *testing.T, is *is.I) {
		ctx := t.Context()
		hubs, brokers, servers := nastyHubs(func(m *typedrpc.Mux, h *topic.Hub) { topic.Handle(m, h, quiet, topic.Everybody) })
		c := lab.TopicDial(t, servers[0], "ann", typedrpc.DialOptions{})
		s := lab.SubscribeTo(ctx, c, quiet, "x", nil)
		time.Sleep(time.Minute)
		brokers[0].b.mu.Lock()
		channels := len(brokers[0].b.subs)
		brokers[0].b.mu.Unlock()
		is.Equal(channels, 1) // the messages alone
		p := lab.PresenceOf(ctx, c, quiet, "x")
		<-p.Done
		is.Equal(typedrpc.CodeOf(p.Err), typedrpc.FailedPrecondition)
		is.Equal(typedrpc.OutcomeOf(p.Err), typedrpc.NotSent)
		p = lab.PresenceOf(ctx, c, curious, "x")
		<-p.Done
		is.Equal(typedrpc.CodeOf(p.Err), typedrpc.Unimplemented)
		is.True(strings.Contains(p.Err.Error(), "WithPresence"))
		is.NoErr(topic.Publish(ctx, hubs[1], quiet, "x", "still"))
		time.Sleep(time.Second)
		is.Equal(len(s.Take()), 1)
		s.Leave()
		synctest.Wait()
		for _, h := range hubs {
			is.NoErr(lab.Vacated(h))
			is.NoErr(h.Close())
		}
	})
}

// Members are those of this hub, and Remove ends what one of them has of a key.
func TestTopic_membersAndRemove(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		ctx := t.Context()
		hub := new(topic.Hub)
		srv := lab.TopicServer(func(m *typedrpc.Mux) {
			topic.Handle(m, hub, lab.TopicNews, topic.Everybody)
			topic.Handle(m, hub, newsAside, topic.Everybody)
		})
		o := typedrpc.DialOptions{Dialect: d}
		ann, ann2, bob := lab.TopicDial(t, srv, "ann", o), lab.TopicDial(t, srv, "ann", o), lab.TopicDial(t, srv, "bob", o)
		nobody := lab.TopicDial(t, srv, "", o)
		members := func(key string) (all []string) {
			synctest.Wait()
			who, err := topic.Members(hub, lab.TopicNews, key)
			is.NoErr(err)
			for _, m := range who {
				is.Equal(m, topic.Member{Subject: m.Subject})
				all = append(all, m.Subject)
			}
			return all
		}
		is.Equal(members("x"), nil)
		bobs := lab.SubscribeTo(ctx, bob, lab.TopicNews, "x", nil)
		anns := []*lab.Events[topic.Event[string]]{lab.SubscribeTo(ctx, ann, lab.TopicNews, "x", nil), lab.SubscribeTo(ctx, ann2, lab.TopicNews, "x", nil)}
		lab.SubscribeTo(ctx, nobody, lab.TopicNews, "x", nil)
		other, aside := lab.SubscribeTo(ctx, ann, lab.TopicNews, "y", nil), lab.SubscribeTo(ctx, ann, newsAside, "x", nil)
		looks := lab.PresenceOf(ctx, ann, lab.TopicNews, "x")
		bobLooks := lab.PresenceOf(ctx, bob, lab.TopicNews, "x")
		heard, stop := listen(ctx, hub, lab.TopicNews, "x")
		is.Equal(members("x"), []string{"", "ann", "bob"})

		n, err := topic.Remove(hub, lab.TopicNews, "x", "nobody", nil)
		is.NoErr(err)
		is.Equal(n, 0)
		n, err = topic.Remove(hub, lab.TopicNews, "nowhere", "ann", nil)
		is.NoErr(err)
		is.Equal(n, 0)
		n, err = topic.Remove(hub, lab.TopicNews, "x", "ann", typedrpc.Errorf(typedrpc.Aborted, "the room is for bobs"))
		is.NoErr(err)
		is.Equal(n, 3) // two subscriptions, and where she looks on
		for _, e := range anns {
			<-e.Done
			is.Equal(typedrpc.CodeOf(e.Err), typedrpc.Aborted)
			is.True(strings.Contains(e.Err.Error(), "for bobs"))
		}
		<-looks.Done
		is.Equal(typedrpc.CodeOf(looks.Err), typedrpc.Aborted)
		is.Equal(members("x"), []string{"", "bob"})
		is.Equal(members("y"), []string{"ann"})
		n, err = topic.Remove(hub, lab.TopicNews, "x", "", nil)
		is.NoErr(err)
		is.Equal(n, 1) // the listener has no subject, and is nobody's
		is.NoErr(topic.Publish(ctx, hub, lab.TopicNews, "x", "hello"))
		is.Equal(len(bobs.Take()), 1)
		is.Equal(heard(), []string{"hello"})
		gone := bobLooks.Take()
		is.Equal(gone[len(gone)-2:], []topic.Member{{Subject: "ann", Left: true}, {Left: true}})

		again := lab.SubscribeTo(ctx, ann, lab.TopicNews, "x", nil) // nothing is remembered of it
		is.Equal(members("x"), []string{"ann", "bob"})
		n, err = topic.Remove(hub, lab.TopicNews, "x", "ann", nil)
		is.NoErr(err)
		is.Equal(n, 1)
		<-again.Done
		is.Equal(typedrpc.CodeOf(again.Err), typedrpc.PermissionDenied)
		_, err = topic.Members(hub, lab.TopicNews, strings.Repeat("k", 256))
		is.Equal(typedrpc.CodeOf(err), typedrpc.InvalidArgument)

		stop()
		is.Equal(typedrpc.CodeOf(other.Leave()), typedrpc.Canceled)
		aside.Leave()
		bobs.Leave()
		bobLooks.Leave()
		synctest.Wait()
		is.NoErr(lab.Vacated(hub))
		is.NoErr(hub.Close())
		_, err = topic.Members(hub, lab.TopicNews, "x")
		is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable)
	})
}

// A foreign reason reached the subscriber with its text, which is nobody's but this
// side's.
func TestRemove_reasons(t *testing.T) {
	out := typedrpc.Errorf(typedrpc.Aborted, "enough")
	for what, tt := range map[string]struct {
		reason error
		code   typedrpc.Code
		text   string
	}{
		"foreign":   {errors.New("secret"), typedrpc.Internal, "internal error"},
		"around":    {fmt.Errorf("secret: %w", out), typedrpc.Aborted, "enough"},
		"code":      {fmt.Errorf("secret: %w", typedrpc.NotFound), typedrpc.NotFound, "not found"},
		"a context": {fmt.Errorf("secret: %w", context.Canceled), typedrpc.Canceled, "canceled"},
		"nil error": {(*typedrpc.Error)(nil), typedrpc.Internal, "internal error"},
		"OK":        {typedrpc.OK, typedrpc.Unknown, ""},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				var hub topic.Hub
				defer hub.Close()
				mux := typedrpc.NewMux()
				topic.Handle(mux, &hub, lab.TopicNews, topic.Everybody)
				client, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: mux}, nil)
				defer client.Close()
				events := lab.SubscribeTo(t.Context(), client, lab.TopicNews, "x", nil)
				looks := lab.PresenceOf(t.Context(), client, lab.TopicNews, "x")
				synctest.Wait()
				n, err := topic.Remove(&hub, lab.TopicNews, "x", "", tt.reason)
				is.NoErr(err)
				is.Equal(n, 2)
				<-events.Done
				<-looks.Done
				for _, err := range []error{events.Err, looks.Err} {
					var e *typedrpc.Error
					is.True(errors.As(err, &e))
					is.Equal(e.Code, tt.code)
					is.True(strings.Contains(e.Message, tt.text))
					is.True(!strings.Contains(err.Error(), "secret"))
				}
			})
		})
	}
}

var newsAside = topic.New[string]("test.aside")

// listen collects what a listener hears until stop is called.
func listen(ctx context.Context, hub *topic.Hub, tp topic.Topic[string], key string) (heard func() []string, stop func()) {
	e := lab.Gather(ctx, nil, func(ctx context.Context) func(func(topic.Event[string], error) bool) {
		return topic.Listen(ctx, hub, tp, key)
	})
	return func() (all []string) {
		for _, v := range e.Take() {
			all = append(all, told(v))
		}
		return all
	}, func() { e.Leave() }
}

// A listener of the hub's process gets what subscribers get: the history, everything
// that is published, at other hubs too, and to what it misses the policy.
func TestListen(t *testing.T) {
	testkit.Bubble(t, "", func(t *testing.T, is *is.I) {
		ctx := t.Context()
		hubs, _, _ := nastyHubs(func(m *typedrpc.Mux, h *topic.Hub) { topic.Handle(m, h, lab.TopicChat, topic.Everybody) })
		for _, v := range []string{"a", "b", "c", "d"} {
			is.NoErr(topic.Publish(ctx, hubs[0], lab.TopicChat, "x", v))
		}
		time.Sleep(time.Second)
		heard, stop := listen(ctx, hubs[0], lab.TopicChat, "x")
		is.Equal(heard(), []string{"b again", "c again", "d again"})
		is.NoErr(topic.Publish(ctx, hubs[1], lab.TopicChat, "x", "e"))
		is.NoErr(topic.Publish(ctx, hubs[1], lab.TopicChat, "y", "of another key"))
		time.Sleep(time.Second)
		is.Equal(heard(), []string{"e"})
		hook.Deliver(hubs[0], lab.TopicChat.Name(), "x", nil)
		is.NoErr(topic.Publish(ctx, hubs[0], lab.TopicChat, "x", "f"))
		time.Sleep(time.Second)
		is.Equal(heard(), []string{"f -1"})
		who, err := topic.Members(hubs[0], lab.TopicChat, "x")
		is.NoErr(err)
		is.Equal(len(who), 0)
		stop()
		synctest.Wait()
		for _, h := range hubs {
			is.NoErr(lab.Vacated(h))
			is.NoErr(h.Close())
		}
	})
}

func TestListen_ends(t *testing.T) {
	testkit.Bubble(t, "", func(t *testing.T, is *is.I) {
		hub := new(topic.Hub)
		ctx, cancel := context.WithCancel(t.Context())
		gate := make(chan struct{})
		start := func(ctx context.Context, tp topic.Topic[string]) *lab.Events[topic.Event[string]] {
			return lab.Gather(ctx, gate, func(ctx context.Context) func(func(topic.Event[string], error) bool) {
				return topic.Listen(ctx, hub, tp, "x")
			})
		}
		left := start(ctx, lab.TopicNews)
		synctest.Wait()
		cancel()
		<-left.Done
		is.Equal(typedrpc.CodeOf(left.Err), typedrpc.Canceled)
		is.True(errors.Is(left.Err, context.Canceled))
		synctest.Wait()
		is.NoErr(lab.Vacated(hub))

		ctx = t.Context()
		publish := func(tp topic.Topic[string], n int) {
			for i := range n {
				is.NoErr(topic.Publish(ctx, hub, tp, "x", fmt.Sprintf("%0100d", i)))
				if i == 0 {
					synctest.Wait() // it is received, and the loop's body is busy
				}
			}
		}
		strict, latest := topic.New[string]("test.strict", topic.MaxQueued(1000)), topic.New[string]("test.latest", topic.LatestOnly)
		waited := topic.New[string]("test.waited", topic.WaitAtMost(time.Minute), topic.MaxQueued(1000))
		all := []*lab.Events[topic.Event[string]]{start(ctx, strict), start(ctx, latest), start(ctx, waited)}
		synctest.Wait()
		began := time.Now()
		for _, tp := range []topic.Topic[string]{strict, latest, waited} {
			publish(tp, 20)
			synctest.Wait()
		}
		is.Equal(time.Since(began), time.Minute) // for the one that publishers wait for
		close(gate)
		synctest.Wait()
		for _, e := range []*lab.Events[topic.Event[string]]{all[0], all[2]} {
			<-e.Done
			is.Equal(typedrpc.CodeOf(e.Err), typedrpc.ResourceExhausted)
			is.Equal(len(e.Got), 1+6) // all that came before: what fits is still given
		}
		got := all[1].Take()
		is.Equal(len(got), 2)
		is.Equal(got[1].Missed, 18)
		is.NoErr(hub.Close())
		<-all[1].Done
		is.Equal(typedrpc.CodeOf(all[1].Err), typedrpc.Unavailable)
		for _, err := range topic.Listen(ctx, hub, latest, "x") {
			is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable)
		}
		for _, err := range topic.Listen(ctx, hub, latest, "\xff") {
			is.Equal(typedrpc.CodeOf(err), typedrpc.InvalidArgument)
		}
		is.Equal(hook.Hub(hub).Rooms, 0)
	})
}
