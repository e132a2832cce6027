package e2e_test

import (
	"context"
	"fmt"
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

// uncomparableCodec panics when one is compared with another.
type uncomparableCodec struct {
	typedrpc.Codec
	_ []int
}

func (uncomparableCodec) Name() string { return "uncomparable" }

// Codecs were compared as values, which panics for some types.
func TestTopic_codecsThatCannotBeCompared(t *testing.T) {
	odd := uncomparableCodec{Codec: typedrpc.JSON}
	for name, codec := range map[string]typedrpc.Codec{"subscribers": nil, "hub and subscribers": odd} {
		testkit.Bubble(t, name, func(t *testing.T, is *is.I) {
			ctx := t.Context()
			hub := &topic.Hub{Codec: codec}
			defer hub.Close()
			srv := lab.TopicServer(func(m *typedrpc.Mux) { topic.Handle(m, hub, lab.TopicChat, topic.Everybody) }, odd, typedrpc.JSON)
			var all []*lab.Events[topic.Event[string]]
			for _, c := range []typedrpc.Codec{odd, odd, typedrpc.JSON} {
				all = append(all, lab.SubscribeTo(ctx, lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{Codecs: []typedrpc.Codec{c}}), lab.TopicChat, "x", nil))
			}
			synctest.Wait()
			is.NoErr(topic.Publish(ctx, hub, lab.TopicChat, "x", "hello"))
			for _, e := range all {
				is.Equal(e.Take(), []topic.Event[string]{{Value: "hello"}})
				e.Leave()
			}
			late := lab.SubscribeTo(ctx, lab.TopicDial(t, srv, "bob", typedrpc.DialOptions{Codecs: []typedrpc.Codec{odd}}), lab.TopicChat, "x", nil)
			is.Equal(late.Take(), []topic.Event[string]{{Value: "hello", History: true}})
			late.Leave()
		})
	}
}

// One subscription of a connection that did not receive used up what all of
// them may have waiting. Another whose window was full for a moment was then
// never given a message again, or ended for being slow, with nothing in its
// queue and an open window.
func TestTopic_neighbourOfAStalledSubscription(t *testing.T) {
	for name, policy := range map[string]topic.Trait{
		"drop newest": topic.DropNewest, "drop oldest": topic.DropOldest, "latest only": topic.LatestOnly, "wait": topic.WaitAtMost(5 * time.Second),
	} {
		stalled := topic.New[string]("test.stalled", topic.DropNewest, topic.MaxQueued(1<<20))
		tp := topic.New[string]("test.neighbour", policy)
		testkit.Bubble(t, name, func(t *testing.T, is *is.I) {
			ctx := t.Context()
			hub := new(topic.Hub)
			defer hub.Close()
			srv := lab.TopicServer(func(m *typedrpc.Mux) {
				topic.Handle(m, hub, stalled, topic.Everybody)
				topic.Handle(m, hub, tp, topic.Everybody)
			})
			srv.Limits.MaxBuffered = 64 << 10
			c := lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{Limits: typedrpc.Limits{Window: 2000}})
			s := lab.SubscribeTo(ctx, c, stalled, "x", make(chan struct{}))
			synctest.Wait()
			for i := range 400 {
				v := fmt.Sprint(i)
				if i < 200 {
					v = fmt.Sprintf("%0400d", i)
				}
				is.NoErr(topic.Publish(ctx, hub, stalled, "x", v))
				synctest.Wait()
			}
			accounts := hook.Hub(hub).Accounts
			is.Equal(len(accounts), 1)
			is.True(accounts[0].Used+testkit.MessageOverhead+3 > accounts[0].Max)

			f := lab.SubscribeTo(ctx, c, tp, "x", nil)
			synctest.Wait()
			for i := range 10 { // more than the window at once
				is.NoErr(topic.Publish(ctx, hub, tp, "x", fmt.Sprintf("%0400d", i)))
			}
			time.Sleep(time.Minute)
			got := f.Take()
			is.True(len(got) > 0)
			if name == "wait" {
				is.Equal(len(got), 10)
			}
			told := len(got)
			for _, e := range got {
				told += e.Missed
			}
			for i := range 10 {
				is.NoErr(topic.Publish(ctx, hub, tp, "x", fmt.Sprint(i)))
				time.Sleep(time.Minute)
				got := f.Take()
				is.Equal(len(got), 1)
				is.Equal(got[0].Value, fmt.Sprint(i))
				told += got[0].Missed
			}
			is.Equal(told, 10) // all of them were received or told as missed
			is.Equal(typedrpc.CodeOf(f.Leave()), typedrpc.Canceled)
			s.Leave()
			synctest.Wait()
			is.NoErr(lab.Vacated(hub))
			time.Sleep(2 * time.Second) // what was sent is acknowledged
			is.Equal(hook.Server(srv).Budget, int64(0))
		})
	}
}

// A history that is not sent to its end, whatever ends it, gives its bytes of
// the server's budget back.
func TestTopic_leavingInTheMiddleOfHistory(t *testing.T) {
	tp := topic.New[string]("test.long", topic.History(50, 0))
	for how, code := range map[string]typedrpc.Code{
		"break": 0, "cancel": typedrpc.Canceled, "deadline": typedrpc.DeadlineExceeded, "close": typedrpc.Unavailable, "hub": typedrpc.Unavailable, "shutdown": typedrpc.Unavailable,
	} {
		testkit.Bubble(t, how, func(t *testing.T, is *is.I) {
			hub := new(topic.Hub)
			defer hub.Close()
			srv := lab.TopicServer(func(m *typedrpc.Mux) { topic.Handle(m, hub, tp, topic.Everybody) })
			for i := range 50 {
				is.NoErr(topic.Publish(t.Context(), hub, tp, "x", fmt.Sprintf("%0300d", i)))
			}
			c := lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{Limits: typedrpc.Limits{Window: 1000}})
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			gate, left := make(chan struct{}), make(chan error, 1)
			go func() {
				for _, err := range topic.Subscribe(ctx, c, tp, "x") {
					if err != nil {
						left <- err
						return
					}
					<-gate
					if how == "break" {
						break
					}
				}
				left <- nil
			}()
			synctest.Wait()
			is.True(hook.Server(srv).Budget > 40*(300+testkit.MessageOverhead)) // most of it waits
			is.NoErr(topic.Publish(ctx, hub, tp, "x", "behind it"))
			switch how {
			case "cancel":
				cancel()
			case "deadline":
				time.Sleep(time.Hour)
			case "close":
				is.NoErr(c.Close())
			case "hub":
				is.NoErr(hub.Close())
			case "shutdown":
				short, stop := context.WithTimeout(ctx, time.Minute)
				srv.Shutdown(short)
				stop()
			}
			synctest.Wait()
			close(gate)
			err := <-left
			if code == 0 {
				is.NoErr(err)
			} else {
				is.Equal(typedrpc.CodeOf(err), code)
			}
			time.Sleep(5 * time.Second)
			synctest.Wait()
			is.Equal(hook.Server(srv).Budget, int64(0))
			is.Equal(len(hook.Hub(hub).Accounts), 0)
			if how != "hub" {
				is.NoErr(lab.Vacated(hub))
			}
		})
	}
}

// Every policy tells in the right place how many messages are missing, in the
// middle of a history too.
func TestTopic_missedIsExact(t *testing.T) {
	for name, policy := range map[string]topic.Trait{"drop oldest": topic.DropOldest, "drop newest": topic.DropNewest, "latest only": topic.LatestOnly} {
		traits := []topic.Trait{topic.History(5, 0), policy}
		if policy != topic.LatestOnly {
			traits = append(traits, topic.MaxQueued(2000))
		}
		tp := topic.New[string]("test.exact", traits...)
		testkit.Bubble(t, name, func(t *testing.T, is *is.I) {
			ctx := t.Context()
			hub := new(topic.Hub)
			defer hub.Close()
			srv := lab.TopicServer(func(m *typedrpc.Mux) { topic.Handle(m, hub, tp, topic.Everybody) })
			publish := func(from, to int) {
				for i := from; i < to; i++ {
					is.NoErr(topic.Publish(ctx, hub, tp, "x", fmt.Sprintf("%0300d", i)))
				}
			}
			publish(0, 10)
			gate := make(chan struct{})
			s := lab.SubscribeTo(ctx, lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{Limits: typedrpc.Limits{Window: 1000}}), tp, "x", gate)
			synctest.Wait()
			publish(10, 100)
			close(gate)
			synctest.Wait()
			publish(100, 101)
			next, missed := 5, 0
			for _, e := range s.Take() {
				n, err := strconv.Atoi(e.Value)
				is.NoErr(err)
				is.True(e.Missed >= 0)
				is.Equal(n, next+e.Missed)
				is.Equal(e.History, n < 10)
				next = n + 1
				missed += e.Missed
			}
			is.Equal(next, 101)
			is.True(missed > 0)
			s.Leave()
			synctest.Wait()
			is.NoErr(lab.Vacated(hub))
		})
	}
}

// Shutdown ends subscriptions, which never end by themselves, and does not wait
// for the hub to be closed.
func TestTopic_shutdownEndsSubscriptions(t *testing.T) {
	for _, d := range topicDialects {
		testkit.Bubble(t, fmt.Sprint(d), func(t *testing.T, is *is.I) {
			ctx := t.Context()
			hub := new(topic.Hub)
			defer hub.Close()
			srv := lab.TopicServer(func(m *typedrpc.Mux) { topic.Handle(m, hub, lab.TopicNews, topic.Everybody) })
			c := lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{Dialect: d})
			s, p := lab.SubscribeTo(ctx, c, lab.TopicNews, "x", nil), lab.PresenceOf(ctx, c, lab.TopicNews, "x")
			synctest.Wait()
			is.NoErr(topic.Publish(ctx, hub, lab.TopicNews, "x", "last"))
			short, stop := context.WithTimeout(ctx, time.Minute)
			defer stop()
			is.NoErr(srv.Shutdown(short))
			<-s.Done
			<-p.Done
			is.Equal(s.Take(), []topic.Event[string]{{Value: "last"}})
			is.Equal(typedrpc.CodeOf(s.Err), typedrpc.Unavailable)
			is.Equal(typedrpc.CodeOf(p.Err), typedrpc.Unavailable)
			synctest.Wait()
			is.NoErr(lab.Vacated(hub))
		})
	}
}

// TestTopic_waitAtMost: the publisher waits for one room only, after everybody
// else was served, and not at all for one that catches up.
func TestTopic_waitAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		tp := topic.New[string]("test.wait", topic.WaitAtMost(time.Minute), topic.MaxQueued(992))
		hub := new(topic.Hub)
		srv := lab.TopicServer(func(m *typedrpc.Mux) { topic.Handle(m, hub, tp, topic.Everybody) })
		gate := make(chan struct{})
		slow := lab.SubscribeTo(ctx, lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{Limits: typedrpc.Limits{Window: 992}}), tp, "x", gate)
		bob := lab.TopicDial(t, srv, "bob", typedrpc.DialOptions{})
		fast, other := lab.SubscribeTo(ctx, bob, tp, "x", nil), lab.SubscribeTo(ctx, bob, tp, "y", nil)
		synctest.Wait()
		published := make(chan time.Duration)
		var n int
		go func() {
			for {
				began := time.Now()
				if err := topic.Publish(ctx, hub, tp, "x", fmt.Sprintf("%0430d", n)); err != nil {
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
		is.Equal(len(fast.Take()), 6) // also the one whose publisher waits
		is.NoErr(topic.Publish(ctx, hub, tp, "y", "meanwhile"))
		is.Equal(len(other.Take()), 1)
		time.Sleep(30 * time.Second)
		for range 4 {
			gate <- struct{}{}
			gate <- struct{}{}
			synctest.Wait()
			<-published
			<-published
			time.Sleep(30 * time.Second) // each time it has caught up
		}
		is.Equal(slow.Err, nil)
		time.Sleep(time.Minute)
		close(gate)
		<-slow.Done
		is.Equal(typedrpc.CodeOf(slow.Err), typedrpc.ResourceExhausted)
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
		tp := topic.New[string]("test.bound", topic.DropOldest, topic.MaxQueued(1<<20))
		hub := new(topic.Hub)
		srv := lab.TopicServer(func(m *typedrpc.Mux) { topic.Handle(m, hub, tp, topic.Everybody) })
		srv.Limits.MaxBuffered = 64 << 10
		c := lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{Limits: typedrpc.Limits{Window: 1000}})
		gate := make(chan struct{})
		var all []*lab.Events[topic.Event[string]]
		for range 8 {
			all = append(all, lab.SubscribeTo(ctx, c, tp, "x", gate))
		}
		synctest.Wait()
		used := func() int64 { return hook.Hub(hub).Accounts[0].Used }
		for i := range 1000 {
			is.NoErr(topic.Publish(ctx, hub, tp, "x", fmt.Sprintf("%0998d", i)))
			is.True(used() <= 64<<10)
		}
		is.True(used() > 60<<10)
		close(gate)
		synctest.Wait()
		is.Equal(used(), int64(0))
		is.NoErr(topic.Publish(ctx, hub, tp, "x", "last"))
		for _, e := range all {
			got, lost := e.Take(), 0
			for _, e := range got {
				lost += e.Missed
			}
			is.Equal(len(got)+lost, 1001)
			is.Equal(got[len(got)-1].Value, "last")
		}
		c.Close()
		synctest.Wait()
		is.NoErr(lab.Vacated(hub))
		is.NoErr(hub.Close())
	})
}
