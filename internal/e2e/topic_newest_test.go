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

// oneByOne lets the items of what it wraps pass one by one.
func oneByOne(gate chan struct{}) typedrpc.Interceptor {
	return func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		r.OnItem(func(typedrpc.Raw, bool) error {
			select {
			case <-gate:
			case <-ctx.Done():
			}
			return nil
		})
		return next(ctx, r)
	}
}

// exact fails the test unless what came and what is said to be missing is all of the
// numbers from from to last.
func exact(is *is.I, got []topic.Event[string], from, last int) (missed int) {
	is.Helper()
	next := from
	for _, e := range got {
		n, err := strconv.Atoi(e.Value)
		is.NoErr(err)
		is.Equal(n, next+e.Missed)
		next = n + 1
		missed += e.Missed
	}
	is.Equal(next, last+1) // the newest came
	return missed
}

// Policies that drop for the sake of the newest never drop it, also while an item is in
// the hands of an OnItem function and what is behind that passes the bound.
func TestTopic_newestSurvivesOnItem(t *testing.T) {
	for name, traits := range map[string][]topic.Trait{
		"drop oldest": {topic.DropOldest, topic.MaxQueued(500)},
		"latest only": {topic.LatestOnly},
	} {
		for _, account := range []bool{false, true} {
			tp := topic.New[string]("test.held", traits...)
			testkit.Bubble(t, fmt.Sprint(name, "/", account), func(t *testing.T, is *is.I) {
				ctx := t.Context()
				hub := new(topic.Hub)
				gate := make(chan struct{})
				srv := lab.TopicServer(func(m *typedrpc.Mux) { topic.Handle(m.Group(oneByOne(gate)), hub, tp, topic.Everybody) })
				if account { // what the connection may have waiting is the bound
					srv.Limits.MaxBuffered = 500
				}
				s := lab.SubscribeTo(ctx, lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{}), tp, "x", nil)
				synctest.Wait()
				for i := range 20 {
					is.NoErr(topic.Publish(ctx, hub, tp, "x", fmt.Sprintf("%0300d", i)))
					synctest.Wait()
				}
				close(gate)
				is.True(exact(is, s.Take(), 0, 19) > 0)
				s.Leave()
				synctest.Wait()
				is.NoErr(lab.Vacated(hub))
				is.NoErr(hub.Close())
				time.Sleep(2 * time.Second)
				is.Equal(hook.Server(srv).Budget, int64(0))
			})
		}
	}
}

// While there is no link LatestOnly replaces what has not left: behind what had left
// comes the newest, and nothing of what was published in between.
func TestTopic_latestOnlyAfterAnOutage(t *testing.T) {
	for name, around := range map[string][]typedrpc.Interceptor{"": nil, "interceptors": {watching}} {
		testkit.Bubble(t, name, func(t *testing.T, is *is.I) {
			ctx := t.Context()
			tp := topic.New[string]("test.outage", topic.LatestOnly)
			hub := new(topic.Hub)
			srv := lab.TopicServer(func(m *typedrpc.Mux) { topic.Handle(m.Group(around...), hub, tp, topic.Everybody) })
			w := &lab.Town{Srv: srv}
			c := w.Dial(t, &typedrpc.DialOptions{
				Limits: typedrpc.Limits{Grace: time.Hour}, Backoff: lab.Steady,
				SignIn: lab.TopicLogin.Present(func(context.Context) (string, error) { return "ann", nil }),
			})
			defer c.Close()
			s := lab.SubscribeTo(ctx, c, tp, "x", nil)
			synctest.Wait()
			publish := func(from, to int) {
				for i := from; i < to; i++ {
					is.NoErr(topic.Publish(ctx, hub, tp, "x", strconv.Itoa(i)))
					time.Sleep(time.Millisecond)
				}
			}
			publish(0, 10)
			is.Equal(exact(is, s.Take(), 0, 9), 0)
			w.Serve(nil)
			w.Cable().Cut()
			time.Sleep(time.Second)
			publish(10, 1000)
			w.Serve(srv)
			time.Sleep(time.Minute)
			got := s.Take()
			is.True(len(got) <= 2)
			is.True(exact(is, got, 10, 999) >= 988)
			s.Leave()
			synctest.Wait()
			is.NoErr(lab.Vacated(hub))
			is.NoErr(hub.Close())
		})
	}
}

// A loop over a LatestOnly topic that was busy is given the newest of what has come, and
// told how many came before it. A history it is given in whole.
func TestTopic_latestOnlyLoopIsGivenTheNewest(t *testing.T) {
	for _, d := range topicDialects {
		testkit.Bubble(t, fmt.Sprint(d), func(t *testing.T, is *is.I) {
			ctx := t.Context()
			tp := topic.New[string]("test.busy", topic.LatestOnly, topic.History(5, 0))
			hub := new(topic.Hub)
			srv := lab.TopicServer(func(m *typedrpc.Mux) { topic.Handle(m, hub, tp, topic.Everybody) })
			publish := func(from, to int) {
				for i := from; i < to; i++ {
					is.NoErr(topic.Publish(ctx, hub, tp, "x", strconv.Itoa(i)))
				}
			}
			publish(0, 10)
			gate := make(chan struct{})
			c := lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{Dialect: d})
			s := lab.SubscribeTo(ctx, c, tp, "x", gate)
			synctest.Wait()
			publish(10, 20)
			for range 5 {
				gate <- struct{}{}
			}
			got := s.Take()
			is.Equal(len(got), 6)
			for i, e := range got {
				is.Equal(e.History, i < 5)
			}
			is.Equal(exact(is, got, 5, 19), 9)
			close(gate)
			publish(20, 100)
			exact(is, s.Take(), 20, 99)
			s.Leave()
			is.Equal(hook.Conn(c).Unread, 0)
			synctest.Wait()
			is.NoErr(lab.Vacated(hub))
			is.NoErr(hub.Close())
		})
	}
}

// LatestOnly takes back what has not left. Where the writer finds nothing in its place then,
// it learns all the same of what comes next: the connection's calls do not wait.
func TestTopic_takenBackBeforeItLeft(t *testing.T) {
	tp := topic.New[string]("test.taken.back", topic.LatestOnly)
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		ctx := t.Context()
		hub := new(topic.Hub)
		mux := lab.Bidi(lab.EchoItems)
		topic.Handle(mux, hub, tp, topic.Everybody)
		c, s := lab.TwoWays(t, d, lab.Bidi(lab.EchoItems), mux, typedrpc.Limits{Window: 1000})
		for range 30 {
			loop, stop := context.WithCancel(ctx)
			go func() {
				for range topic.Subscribe(loop, c, tp, "x") {
					<-loop.Done()
				}
			}()
			synctest.Wait()
			publish := func(n int) { is.NoErr(topic.Publish(ctx, hub, tp, "x", testkit.Letters(n))) }
			for range 2 { // one that the loop has, and one that waits for it
				publish(300)
				synctest.Wait()
			}
			publish(300)
			publish(600) // which has no room, without the last one neither
			synctest.Wait()
			began := time.Now()
			for _, conn := range []*typedrpc.Conn{s, c} {
				_, err := typedrpc.Call(ctx, conn, lab.FlowCall, "")
				is.NoErr(err)
			}
			is.Equal(time.Since(began), time.Duration(0))
			stop()
			time.Sleep(5 * time.Second)
		}
		is.NoErr(c.Close())
		is.NoErr(hub.Close())
		lab.Settled(t, c, s)
	})
}
