package typedrpc_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http/httptest"
	"runtime/debug"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc"
)

// permission is a Tag: a metadata key that a call must bring. In earnest it is what
// the Identity of r.Conn may do.
type permission string

var (
	square  = typedrpc.NewMethod[int, int]("square", typedrpc.Idempotent)
	launch  = typedrpc.NewMethod[string, struct{}]("launch", typedrpc.Serial, typedrpc.Tag(permission("key")))
	broken  = typedrpc.NewMethod[struct{}, struct{}]("broken")
	heard   = typedrpc.NewNotification[string]("heard")
	counted = typedrpc.NewServerStream[int, int]("counted")
)

// logging tells of everything that comes in, or goes out, when it has ended: of a
// stream after its last item, of a notification when its handler has returned. Next to
// slog.Info it would be given time.Since(began).
func logging(where string) typedrpc.Interceptor {
	return func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		resp, err := next(ctx, r)
		fmt.Printf("%s: %s %s: %v\n", where, r.Kind, r.Method, typedrpc.CodeOf(err))
		return resp, err
	}
}

// authorize looks at the declaration's Tag; what has none is for everybody here. The
// example of a gateway does it the other way round.
func authorize(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
	if needed, ok := typedrpc.TagOf[permission](r); ok && r.Metadata[string(needed)] == "" {
		return nil, typedrpc.Errorf(typedrpc.PermissionDenied, "%s needs the %s", r.Method, needed)
	}
	return next(ctx, r)
}

// recovery tells of panics. The library has a net of its own, outside of all
// interceptors: without this one a panic is the same Internal, and in the log.
func recovery(report func(what any, stack []byte)) typedrpc.Interceptor {
	return func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (_ typedrpc.Raw, err error) {
		defer func() {
			if p := recover(); p != nil {
				report(p, debug.Stack())
				err = typedrpc.Errorf(typedrpc.Internal, "%s failed", r.Method)
			}
		}()
		return next(ctx, r)
	}
}

// metrics are counted for calls, notifications and streams, and their items.
type metrics struct {
	mu                            sync.Mutex
	calls, failed, items, retries int
	busy                          time.Duration
}

func (m *metrics) count(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
	r.OnItem(func(item typedrpc.Raw, sent bool) error { // before next; of a stream alone is it called
		m.add(func() { m.items++ })
		return nil
	})
	began := time.Now()
	resp, err := next(ctx, r)
	m.add(func() {
		m.calls++
		m.busy += time.Since(began)
		if err != nil {
			m.failed++
		}
	})
	return resp, err
}

func (m *metrics) add(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// limit is how many requests a connection may make, and no more. In earnest it is a
// token bucket, for each Identity().Subject.
type limit struct {
	most int
	mu   sync.Mutex
	made map[*typedrpc.Conn]int
}

func (l *limit) allow(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
	l.mu.Lock()
	l.made[r.Conn]++
	made := l.made[r.Conn]
	l.mu.Unlock()
	if made > l.most {
		e := typedrpc.Errorf(typedrpc.ResourceExhausted, "not so fast")
		e.RetryAfter = time.Second // for RetryPolicies that have this code
		return nil, e
	}
	return next(ctx, r)
}

// forget is for Server.OnDisconnect.
func (l *limit) forget(c *typedrpc.Conn, _ error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.made, c)
}

// traced gives everything that goes out a trace, as metadata.
func traced(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
	r.Metadata.Set("trace", "4bf92f35")
	return next(ctx, r)
}

// Middleware of every kind. Each is an Interceptor, and sees calls, notifications and
// streams; where it is given decides whether it sees what comes in, NewMux and Group,
// or what goes out, DialOptions, Server and CallOptions. The first is the outermost.
func Example_middleware() {
	var m metrics
	l := &limit{most: 6, made: map[*typedrpc.Conn]int{}}
	crash := func(what any, stack []byte) { fmt.Println("server: crashed:", what, len(stack) > 0) }
	tries := 0

	mux := typedrpc.NewMux(logging("server"), m.count, recovery(crash), l.allow)
	typedrpc.Handle(mux, square, func(_ context.Context, n int) (int, error) {
		if tries++; tries == 1 {
			return 0, typedrpc.Unavailable // the first time
		}
		return n * n, nil
	})
	typedrpc.Handle(mux, broken, func(context.Context, struct{}) (struct{}, error) { panic("out of order") })
	typedrpc.Handle(mux, heard, func(ctx context.Context, text string) error {
		fmt.Println("heard", text, "of trace", typedrpc.RequestFrom(ctx).Metadata["trace"])
		return nil
	})
	guarded := mux.Group(authorize) // inside of mux's own
	typedrpc.Handle(guarded, launch, func(context.Context, string) (struct{}, error) { return struct{}{}, nil })
	typedrpc.Handle(guarded, counted, func(_ context.Context, n int, send func(int) error) error {
		for i := range n {
			if err := send(i); err != nil {
				return err
			}
		}
		return nil
	})
	hs := httptest.NewServer(&typedrpc.Server{Mux: mux, OnDisconnect: l.forget})
	defer hs.Close()

	ctx := context.Background()
	conn, err := typedrpc.Dial(ctx, hs.URL, &typedrpc.DialOptions{
		OutgoingInterceptors: []typedrpc.Interceptor{traced, logging("client")},
		OutgoingRetry: &typedrpc.RetryPolicy{
			Backoff: typedrpc.Backoff{Min: time.Millisecond},
			OnRetry: func(_ context.Context, method string, failed int, err error) { // the hook for each attempt
				fmt.Printf("client: %s again, after %d: %v\n", method, failed, err)
				m.add(func() { m.retries++ })
			},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	typedrpc.Call(ctx, conn, square, 7)                 // one call to the client's interceptors, two to the server's
	for range typedrpc.Receive(ctx, conn, counted, 3) { // until its end
	}
	typedrpc.Notify(ctx, conn, heard, "a bell") // to the client's it has ended when it is queued
	typedrpc.Call(ctx, conn, launch, "now")     // which is Serial, and so after the notification
	typedrpc.Call(ctx, conn, broken, struct{}{})
	_, err = typedrpc.Call(ctx, conn, square, 7)
	fmt.Println("too many:", errors.Is(err, typedrpc.ResourceExhausted))
	m.add(func() {
		fmt.Println(m.calls, "requests,", m.failed, "failed,", m.items, "items,", m.retries, "retry")
	})
	// Unordered output:
	// server: method square: unavailable
	// client: square again, after 1: unavailable
	// server: method square: ok
	// client: method square: ok
	// server: server stream counted: ok
	// client: server stream counted: ok
	// client: notification heard: ok
	// heard a bell of trace 4bf92f35
	// server: notification heard: ok
	// server: method launch: permission denied
	// client: method launch: permission denied
	// server: crashed: out of order true
	// server: method broken: internal
	// client: method broken: internal
	// server: method square: resource exhausted
	// client: method square: resource exhausted
	// too many: true
	// 7 requests, 4 failed, 3 items, 1 retry
}
