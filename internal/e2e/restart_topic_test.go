package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/topic"
)

// told is an event without its type.
func told(e topic.Event[string]) string {
	s := e.Value
	if e.Missed != 0 {
		s += fmt.Sprint(" ", e.Missed)
	}
	if e.History {
		s += " again"
	}
	return s
}

func hearEvents(ctx context.Context, c typedrpc.Caller, tp topic.Topic[string], key string) *heard {
	return hear(func(yield func(string, error) bool) {
		for e, err := range topic.Subscribe(ctx, c, tp, key) {
			if !yield(told(e), err) {
				return
			}
		}
	})
}

// topical is a town with the topics, and one client.
func topical(t *testing.T, d typedrpc.Dialect, hub *topic.Hub) (*lab.Town, *typedrpc.Conn) {
	t.Helper()
	srv := lab.TopicServer(func(mux *typedrpc.Mux) {
		topic.Handle(mux, hub, lab.TopicNews, topic.Everybody)
		topic.Handle(mux, hub, lab.TopicChat, topic.Everybody)
	})
	w := &lab.Town{Srv: srv}
	return w, dialAs(t, w, d, "me")
}

func dialAs(t *testing.T, w *lab.Town, d typedrpc.Dialect, who string) *typedrpc.Conn {
	t.Helper()
	c := w.Dial(t, &typedrpc.DialOptions{
		Dialect: d, Backoff: lab.Steady, SignIn: lab.TopicLogin.Present(func(context.Context) (string, error) { return who, nil }),
	})
	t.Cleanup(func() { c.Close() })
	return c
}

func TestRestart_subscription(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		hub := new(topic.Hub)
		w, c := topical(t, d, hub)
		once, on := hearEvents(t.Context(), c, lab.TopicNews, "a"), hearEvents(t.Context(), c, newsOn, "a")
		synctest.Wait()
		is.NoErr(topic.Publish(t.Context(), hub, newsOn, "a", "one"))
		is.Equal(once.take(), []string{"one"})
		is.Equal(on.take(), []string{"one"})
		w.Cable().Cut()
		is.NoErr(topic.Publish(t.Context(), hub, lab.TopicNews, "a", "two"))
		is.Equal(once.take(), []string{"gap", "unavailable"}) // a loop that goes on is told that it will not
		is.True(once.over())
		is.Equal(on.take(), []string{"gap"})
		time.Sleep(time.Minute)
		is.NoErr(topic.Publish(t.Context(), hub, lab.TopicNews, "b", "of another key"))
		is.Equal(on.take(), nil)
		is.NoErr(topic.Publish(t.Context(), hub, lab.TopicNews, "a", "three"))
		is.NoErr(topic.Publish(t.Context(), hub, lab.TopicNews, "a", "four"))
		is.Equal(on.take(), []string{"three -1", "four"})
		is.NoErr(c.Close())
		is.Equal(on.take(), []string{"unavailable"})
		synctest.Wait()
		is.NoErr(lab.Vacated(hub))
		is.NoErr(hub.Close())
	})
}

func TestRestart_subscriptionWithHistory(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		hub := new(topic.Hub)
		w, c := topical(t, d, hub)
		for _, s := range []string{"one", "two"} {
			is.NoErr(topic.Publish(t.Context(), hub, lab.TopicChat, "a", s))
		}
		h := hearEvents(t.Context(), c, chatOn, "a")
		is.Equal(h.take(), []string{"one again", "two again"})
		w.Healed()
		is.Equal(h.take(), []string{"gap", "one -1 again", "two again"})
		w.Cable().Cut()
		for _, s := range []string{"three", "four", "five", "six"} {
			is.NoErr(topic.Publish(t.Context(), hub, lab.TopicChat, "a", s))
		}
		time.Sleep(time.Minute)
		is.Equal(h.take(), []string{"gap", "four -1 again", "five again", "six again"})
		is.NoErr(topic.Publish(t.Context(), hub, lab.TopicChat, "a", "seven"))
		is.Equal(h.take(), []string{"seven"})
		is.NoErr(c.Close())
		is.True(h.over())
		is.NoErr(hub.Close())
	})
}

// A hub that closes, and a policy that disconnects, have ended it.
func TestRestart_subscriptionsThatEnd(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		hub := new(topic.Hub)
		_, c := topical(t, d, hub)
		h := hearEvents(t.Context(), c, newsOn, "a")
		synctest.Wait()
		is.NoErr(hub.Close())
		is.Equal(h.take(), []string{"unavailable"})
		is.True(h.over())
		is.NoErr(c.Close())
	})
}

func TestRestart_subscriptionLeftAtTheGap(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		hub := new(topic.Hub)
		w, c := topical(t, d, hub)
		sub := lab.SubscribeTo(t.Context(), c, newsOn, "a", nil) // returns on every error
		synctest.Wait()
		w.Healed()
		<-sub.Done
		is.True(errors.Is(sub.Err, typedrpc.Gap))
		lab.Settled(t, c)
		is.NoErr(lab.Vacated(hub))
		is.NoErr(c.Close())
		is.NoErr(hub.Close())
	})
}

func TestRestart_presence(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		hub := new(topic.Hub)
		w, c := topical(t, d, hub)
		mine := w.Cable()
		ann, bob := dialAs(t, w, d, "ann"), dialAs(t, w, d, "bob")
		lab.SubscribeTo(t.Context(), ann, lab.TopicNews, "a", nil)
		lab.SubscribeTo(t.Context(), bob, lab.TopicNews, "a", nil)
		synctest.Wait()
		h := hear(topic.Watch(t.Context(), c, newsOn, "a"))
		got := h.take()
		slices.Sort(got)
		is.Equal(got, []string{"{ann  false false true}", "{bob  false false true}"})
		mine.Cut()
		is.NoErr(ann.Close())
		time.Sleep(time.Minute)
		is.Equal(h.take(), []string{"gap", "{bob  false false true}"})
		is.NoErr(bob.Close())
		is.Equal(h.take(), []string{"{bob  true false false}"})
		is.NoErr(c.Close())
		is.True(h.over())
		is.NoErr(hub.Close())
	})
}

func TestRestart_declarations(t *testing.T) {
	is := is.New(t)
	is.Equal(numbersOn.Name(), numbersOnce.Name())
	is.True(numbersOn != numbersOnce) // they are comparable
	func() {
		defer func() { is.True(recover() != nil) }()
		numbersOnce.Restartable(nil)
	}()
	func() {
		defer func() { is.True(recover() != nil) }() // one name, so one handler
		mux := typedrpc.NewMux()
		none := func(context.Context, numbers, func(int) error) error { return nil }
		typedrpc.Handle(mux, numbersOnce, none)
		typedrpc.Handle(mux, numbersOn, none)
	}()
}
