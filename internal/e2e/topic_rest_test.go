package e2e_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/topic"
)

// TestTopic_slowHasNoGoroutine: a subscriber whose window is spent, and whose
// history and queue wait for it, is only woken when there is room.
func TestTopic_slowHasNoGoroutine(t *testing.T) {
	tp := topic.New[string]("test.rest", topic.History(20, 0))
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		hub := new(topic.Hub)
		defer hub.Close()
		srv := lab.TopicServer(func(m *typedrpc.Mux) { topic.Handle(m, hub, tp, topic.Everybody) })
		c := lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{Limits: typedrpc.Limits{Window: 1000}})
		publish := func(from, to int) {
			for i := from; i < to; i++ {
				is.NoErr(topic.Publish(ctx, hub, tp, "x", fmt.Sprintf("%0300d", i)))
			}
		}
		publish(0, 20)
		time.Sleep(5 * time.Second) // writers rest
		synctest.Wait()
		before := runtime.NumGoroutine()
		gate := make(chan struct{})
		var all []*lab.Events[topic.Event[string]]
		const clients = 50 // each has its goroutine at this side
		for range clients {
			all = append(all, lab.SubscribeTo(ctx, c, tp, "x", gate))
		}
		synctest.Wait()
		publish(20, 40)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		for _, held := range hook.Room(hub, "test.rest", "x").Held {
			is.True(held > 20*300) // it is behind
		}
		is.True(runtime.NumGoroutine() < before+clients+10)
		close(gate)
		synctest.Wait()
		for _, s := range all {
			got := s.Take()
			is.Equal(len(got), 40) // nothing lost, and nothing twice
			for i, e := range got {
				is.Equal(e, topic.Event[string]{Value: fmt.Sprintf("%0300d", i), History: i < 20})
			}
			s.Leave()
		}
		synctest.Wait()
		is.NoErr(lab.Vacated(hub))
		time.Sleep(5 * time.Second)
		is.Equal(hook.Server(srv).Budget, int64(0))
	})
}

// TestTopic_deadlineOfOneAtRest: the caller's time ends a subscription that has no
// goroutine to see it.
func TestTopic_deadlineOfOneAtRest(t *testing.T) {
	for _, method := range []string{"test.news", "test.news.presence"} {
		testkit.Bubble(t, method, func(t *testing.T, is *is.I) {
			hub := new(topic.Hub)
			defer hub.Close()
			mux := typedrpc.NewMux()
			topic.Handle(mux, hub, topic.New[string]("test.news", topic.WithPresence), topic.Everybody)
			srv := &typedrpc.Server{Mux: mux}
			p, err := testkit.Join(srv, testkit.BinaryProtocol)
			is.NoErr(err)
			defer p.T.Kill()
			h := wire.HelloBody{Attempt: 1, Features: testkit.HandFeatures, Limits: wire.Limits{Message: 1 << 20, Calls: 10, Window: 64 << 10, Budget: 8 << 20}}
			is.NoErr(p.Send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
			_, err = p.Until(wire.Welcome)
			is.NoErr(err)
			is.NoErr(p.Send(wire.Frame{Type: wire.Ack}, wire.Frame{Type: wire.Call, ID: 1, Kind: wire.ServerStream, Method: method, Payload: []byte(`"x"`), TimeLeft: 5000}))
			began := time.Now()
			f, err := p.Until(wire.Fail)
			is.NoErr(err)
			is.Equal(status.Code(f.Code), status.DeadlineExceeded)
			is.Equal(time.Since(began), 5*time.Second)
			synctest.Wait()
			is.NoErr(lab.Vacated(hub))
		})
	}
}

// TestTopic_interceptorSeesItsWholeLife: where interceptors wrap the handler, next
// returns when the subscription has ended, and a context of theirs ends it.
func TestTopic_interceptorSeesItsWholeLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		hub := new(topic.Hub)
		defer hub.Close()
		var began, ended []string
		mux := typedrpc.NewMux(func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
			began = append(began, r.Method)
			ctx, cancel := context.WithTimeout(ctx, time.Hour)
			defer cancel()
			raw, err := next(ctx, r)
			ended = append(ended, fmt.Sprint(r.Method, " ", typedrpc.CodeOf(err)))
			return raw, err
		})
		tp := topic.New[string]("test.wrapped", topic.WithPresence)
		topic.Handle(mux, hub, tp, topic.Everybody)
		srv := lab.TopicServer(func(*typedrpc.Mux) {})
		srv.Mux = mux
		c := lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{})
		s := lab.SubscribeTo(ctx, c, tp, "x", nil)
		synctest.Wait()
		for i := range 10 {
			is.NoErr(topic.Publish(ctx, hub, tp, "x", fmt.Sprint(i)))
			synctest.Wait()
		}
		is.Equal(len(s.Take()), 10)
		is.Equal(began, []string{"test.wrapped"})
		is.Equal(len(ended), 0)
		s.Leave()
		synctest.Wait()
		is.Equal(ended, []string{fmt.Sprint("test.wrapped ", typedrpc.Canceled)})
		p := lab.PresenceOf(ctx, c, tp, "x")
		time.Sleep(2 * time.Hour)
		<-p.Done
		is.Equal(ended[1], fmt.Sprint("test.wrapped.presence ", typedrpc.DeadlineExceeded))
		is.Equal(typedrpc.CodeOf(p.Err), typedrpc.DeadlineExceeded)
		is.NoErr(lab.Vacated(hub))
	})
}
