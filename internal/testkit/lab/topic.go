package lab

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

var (
	TopicNews = topic.New[string]("test.news", topic.WithPresence)
	TopicChat = topic.New[string]("test.chat", topic.History(3, 0), topic.WithPresence)
)

// TopicServer is a server that serves topics over pipes; authentication makes
// the subject of the credentials.
func TopicServer(register func(*typedrpc.Mux), codecs ...typedrpc.Codec) *typedrpc.Server {
	mux := typedrpc.NewMux()
	register(mux)
	srv := &typedrpc.Server{Mux: mux, Codecs: codecs, Logger: slog.New(slog.DiscardHandler)}
	srv.SignIn = TopicLogin.Verify(func(_ context.Context, _ *http.Request, who *string) (typedrpc.Identity, struct{}, error) {
		return typedrpc.Identity{Subject: *who}, struct{}{}, nil
	})
	return srv
}

var TopicLogin = typedrpc.NewSignIn[string, struct{}]()

func TopicDial(t *testing.T, srv *typedrpc.Server, who string, o typedrpc.DialOptions) *typedrpc.Conn {
	t.Helper()
	o.SignIn = TopicLogin.Present(func(context.Context) (string, error) { return who, nil })
	c, _, err := typedrpctest.Dial(srv, &o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Events collects a subscription on a goroutine of its own.
type Events[E any] struct {
	mu   sync.Mutex
	Got  []E
	Err  error
	stop context.CancelFunc
	gate chan struct{} // nil: receives at once; each value lets one pass
	Done chan struct{}
}

func Gather[E any](ctx context.Context, gate chan struct{}, seq func(context.Context) func(func(E, error) bool)) *Events[E] {
	e := &Events[E]{Done: make(chan struct{}), gate: gate}
	ctx, e.stop = context.WithCancel(ctx)
	go func() {
		defer close(e.Done)
		for v, err := range seq(ctx) {
			if err != nil {
				e.Err = err
				return
			}
			e.mu.Lock()
			e.Got = append(e.Got, v)
			e.mu.Unlock()
			if e.gate != nil {
				select {
				case <-e.gate:
				case <-ctx.Done():
				}
			}
		}
	}()
	return e
}

func SubscribeTo[T any](ctx context.Context, c typedrpc.Caller, tp topic.Topic[T], key string, gate chan struct{}) *Events[topic.Event[T]] {
	return Gather(ctx, gate, func(ctx context.Context) func(func(topic.Event[T], error) bool) {
		return topic.Subscribe(ctx, c, tp, key)
	})
}

func PresenceOf[T any](ctx context.Context, c typedrpc.Caller, tp topic.Topic[T], key string) *Events[topic.Member] {
	return Gather(ctx, nil, func(ctx context.Context) func(func(topic.Member, error) bool) {
		return topic.Watch(ctx, c, tp, key)
	})
}

func (e *Events[E]) Leave() error {
	e.stop()
	<-e.Done
	return e.Err
}

// Take returns what has come since the last time.
func (e *Events[E]) Take() []E {
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	got := e.Got
	e.Got = nil
	return got
}
