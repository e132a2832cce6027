package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// subject is a context with all that may happen to it.
type subject struct {
	ctx    context.Context
	cancel func() // its parent, or its caller, ends it
	close  func() // what it derives from ends for another reason
}

type contextKey struct{}

// standard is a context of package context, as a handler's is to be.
func standard(life time.Duration) subject {
	base, closes := context.WithCancelCause(context.WithValue(context.Background(), contextKey{}, 5))
	ctx, cancel := context.WithCancel(base)
	if life > 0 {
		ctx, cancel = context.WithTimeout(base, life)
	}
	return subject{ctx, cancel, func() { closes(typedrpc.Unavailable) }}
}

var ofContext = typedrpc.NewMethod[struct{}, struct{}]("context.of")

// handlers is the same of a handler.
func handlers(t *testing.T, d typedrpc.Dialect, life time.Duration) subject {
	srv := lab.New().Server
	base := context.WithValue(context.Background(), contextKey{}, 5)
	srv.SignIn = lab.Sign.Verify(func(context.Context, *http.Request, *string) (typedrpc.Identity, int, error) {
		return typedrpc.Identity{Context: base}, 0, nil
	})
	ctxs, hold := make(chan context.Context, 1), make(chan struct{})
	typedrpc.Handle(srv.Mux, ofContext, func(ctx context.Context, _ struct{}) (struct{}, error) {
		ctxs <- ctx
		<-hold
		return struct{}{}, nil
	})
	o := &typedrpc.DialOptions{Dialect: d}
	lab.Quiet(srv, o)
	client, server, err := typedrpctest.Dial(srv, o)
	is.New(t).NoErr(err)
	t.Cleanup(func() {
		close(hold)
		client.Close()
		srv.Shutdown(context.Background())
	})
	ctx, cancel := context.WithCancel(context.Background())
	if life > 0 {
		ctx, cancel = context.WithTimeout(context.Background(), life)
	}
	go typedrpc.Call(ctx, client, ofContext, struct{}{})
	return subject{<-ctxs, func() { cancel(); synctest.Wait() }, func() { server.Close() }}
}

// observed is what a program sees of a context.
func observed(ctx context.Context) string {
	done := "open"
	select {
	case <-ctx.Done():
		done = "closed"
	default:
	}
	deadline, ok := ctx.Deadline()
	return fmt.Sprint(done, " ", ctx.Err(), " cause=", context.Cause(ctx), " deadline=", ok, deadline.Sub(epoch), " value=", ctx.Value(contextKey{}), ctx.Value("none"))
}

var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // when bubbles begin

// A handler's context keeps the contract of context.Context: each line is a story,
// told of a context of package context and of a handler's.
func TestContext_likeTheStandardOnes(t *testing.T) {
	stories := map[string]struct {
		life time.Duration
		tell func(s subject, note func(context.Context))
	}{
		"nothing happens": {0, func(s subject, note func(context.Context)) { time.Sleep(time.Hour) }},
		"cancelled":       {0, func(s subject, note func(context.Context)) { s.cancel() }},
		"cancelled, then what it derives from ends": {0, func(s subject, note func(context.Context)) {
			s.cancel()
			note(s.ctx)
			s.close()
		}},
		"the deadline passes, unnoticed, then it is cancelled": {time.Second, func(s subject, note func(context.Context)) {
			time.Sleep(2 * time.Second)
			s.cancel()
		}},
		"the deadline passes": {time.Second, func(s subject, note func(context.Context)) {
			time.Sleep(time.Second - 1)
			note(s.ctx)
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			note(s.ctx)
			s.cancel()
			note(s.ctx)
			s.close()
		}},
		"the deadline passes while somebody waits": {time.Second, func(s subject, note func(context.Context)) {
			<-s.ctx.Done()
			note(s.ctx)
			s.close()
		}},
		"cancelled before the deadline, which passes": {time.Second, func(s subject, note func(context.Context)) {
			s.cancel()
			note(s.ctx)
			time.Sleep(time.Minute)
		}},
		"what it derives from ends": {0, func(s subject, note func(context.Context)) {
			s.close()
			note(context.WithoutCancel(s.ctx))
			s.cancel()
		}},
		"derived contexts": {time.Minute, func(s subject, note func(context.Context)) {
			value := context.WithValue(s.ctx, contextKey{}, 7)
			sooner, stop := context.WithTimeout(value, time.Second)
			defer stop()
			later, stop := context.WithTimeout(s.ctx, time.Hour)
			defer stop()
			child, end := context.WithCancelCause(later)
			defer end(nil)
			time.Sleep(time.Second)
			synctest.Wait()
			all := []context.Context{value, sooner, later, child, context.WithoutCancel(child)}
			for _, ctx := range all {
				note(ctx)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			for _, ctx := range all {
				note(ctx)
			}
		}},
		"derived contexts of one that is cancelled": {0, func(s subject, note func(context.Context)) {
			child, stop := context.WithTimeout(s.ctx, time.Hour)
			defer stop()
			s.cancel()
			synctest.Wait()
			note(child)
			after, stop := context.WithCancel(s.ctx) // of one that has ended
			defer stop()
			note(after)
		}},
	}
	for name, story := range stories {
		t.Run(name, func(t *testing.T) {
			lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
				is := is.New(t)
				told := func(s subject) (told []string) {
					note := func(ctx context.Context) { told = append(told, observed(ctx)) }
					began := time.Now()
					note(s.ctx)
					story.tell(s, note)
					note(s.ctx)
					note(s.ctx)
					for i := range told {
						told[i] = strings.ReplaceAll(told[i], fmt.Sprint(began.Add(story.life).Sub(epoch)), "then")
						told[i] = strings.ReplaceAll(told[i], fmt.Sprint(began.Add(time.Second).Sub(epoch)), "soon")
						told[i], _, _ = strings.Cut(told[i], " cause=unavailable")
					}
					return told
				}
				want := told(standard(story.life))
				is.Equal(told(handlers(t, d, story.life)), want)
			})
		})
	}
}

// A deadline that has passed was the cause, also where nobody had looked when the connection ended.
func TestContext_deadlineBeforeTheConnectionsEnd(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		l, ctxs, conns := lab.New(), make(chan context.Context, 1), make(chan *typedrpc.Conn, 9)
		typedrpc.Handle(l.Mux, ofContext, func(ctx context.Context, _ struct{}) (n struct{}, _ error) {
			ctxs <- ctx
			time.Sleep(time.Minute)
			return n, nil
		})
		l.OnConnect = func(c *typedrpc.Conn) { conns <- c }
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, &typedrpc.DialOptions{Dialect: d, Backoff: lab.Steady})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		typedrpc.Go(ctx, c, ofContext, struct{}{})
		handlers := <-ctxs
		w.Cable().Swallow() // its CANCEL
		time.Sleep(2 * time.Second)
		is.NoErr((<-conns).Close())
		is.Equal(handlers.Err(), context.DeadlineExceeded)
		is.Equal(context.Cause(handlers), context.DeadlineExceeded)
		is.NoErr(c.Close())
		time.Sleep(time.Minute)
	})
}

// AfterFunc of a handler's context, beside one of package context.
func TestContext_afterFunc(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		tell := func(s subject) (told []any) {
			var ran, stopped, late atomic.Int64
			context.AfterFunc(s.ctx, func() { ran.Add(1) })
			stop := context.AfterFunc(s.ctx, func() { stopped.Add(1) })
			told = append(told, stop(), stop())
			stop = context.AfterFunc(s.ctx, func() { ran.Add(1) })
			time.Sleep(time.Minute)
			synctest.Wait()
			told = append(told, stop())
			stop = context.AfterFunc(s.ctx, func() { late.Add(1) }) // at once
			synctest.Wait()
			return append(told, stop(), ran.Load(), stopped.Load(), late.Load())
		}
		want := tell(standard(time.Second))
		is.Equal(tell(handlers(t, d, time.Second)), want)
	})
}

// A context may be printed, and logged, while it lives.
func TestContext_string(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		s := handlers(t, typedrpc.Binary, time.Second)
		is.Equal(fmt.Sprint(s.ctx), "typedrpc.Context(context.of)")
		is.True(strings.HasPrefix(fmt.Sprint(context.WithoutCancel(s.ctx)), "typedrpc.Context(context.of)"))
	})
}

var behind = struct {
	work   typedrpc.Method[string, struct{}]
	back   typedrpc.Method[int, int]
	items  typedrpc.ServerStream[int, int]
	note   typedrpc.Notification[string]
	serial typedrpc.Method[string, struct{}]
}{
	typedrpc.NewMethod[string, struct{}]("nested.work"),
	typedrpc.NewMethod[int, int]("nested.back"),
	typedrpc.NewServerStream[int, int]("nested.items"),
	typedrpc.NewNotification[string]("nested.note"),
	typedrpc.NewMethod[string, struct{}]("nested.serial", typedrpc.Serial),
}

// What a handler leaves behind when it returns, with the values of its context, is
// nested no more: it waits as everybody else does.
func TestNested_notOnceTheHandlerHasReturned(t *testing.T) {
	verbs := map[string]func(ctx context.Context, c *typedrpc.Conn) error{
		"a call": func(ctx context.Context, c *typedrpc.Conn) error {
			_, err := typedrpc.Call(ctx, c, behind.back, 1)
			return err
		},
		"a future": func(ctx context.Context, c *typedrpc.Conn) error {
			_, err := typedrpc.Go(ctx, c, behind.back, 1).Await(ctx)
			return err
		},
		"a stream": func(ctx context.Context, c *typedrpc.Conn) error {
			for _, err := range typedrpc.Receive(ctx, c, behind.items, 1) {
				if err != nil {
					return err
				}
			}
			return nil
		},
		"a notification": func(ctx context.Context, c *typedrpc.Conn) error {
			return typedrpc.Notify(ctx, c, behind.note, strings.Repeat("x", 900))
		},
	}
	for verb, do := range verbs {
		for _, from := range []string{"call", "notification", "serial call"} {
			t.Run(verb+"/of a "+from, func(t *testing.T) {
				lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) { leftBehind(t, d, do, from) })
			})
		}
	}
}

func leftBehind(t *testing.T, d typedrpc.Dialect, do func(context.Context, *typedrpc.Conn) error, from string) {
	is := is.New(t)
	full := make(chan struct{}) // closed when there is room again
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, behind.back, func(_ context.Context, n int) (int, error) { <-full; return n, nil })
	typedrpc.Handle(mux, behind.items, func(_ context.Context, n int, send func(int) error) error { return send(n) })
	typedrpc.Handle(mux, behind.note, func(context.Context, string) error { <-full; return nil })
	server := lab.New().Server
	result := make(chan error, 9)
	begin := func(ctx context.Context) {
		go func() {
			time.Sleep(time.Second) // the handler has returned
			result <- do(context.WithoutCancel(ctx), typedrpc.ConnFrom(ctx))
		}()
	}
	server.Mux = typedrpc.NewMux()
	work := func(ctx context.Context, _ string) (struct{}, error) { begin(ctx); return struct{}{}, nil }
	typedrpc.Handle(server.Mux, behind.work, work)
	typedrpc.Handle(server.Mux, behind.serial, work)
	typedrpc.Handle(server.Mux, behind.note, func(ctx context.Context, _ string) error { begin(ctx); return nil })
	o := &typedrpc.DialOptions{Dialect: d, Mux: mux, Limits: typedrpc.Limits{MaxCalls: 8, Window: 1 << 10}}
	lab.Quiet(server, o)
	client, far, err := typedrpctest.Dial(server, o)
	is.NoErr(err)
	defer client.Close()
	for range 8 { // every place, and the window
		typedrpc.Go(t.Context(), far, behind.back, 1)
	}
	is.NoErr(typedrpc.Notify(t.Context(), far, behind.note, strings.Repeat("x", 900)))
	switch from {
	case "call":
		_, err = typedrpc.Call(t.Context(), client, behind.work, "")
	case "serial call":
		_, err = typedrpc.Call(t.Context(), client, behind.serial, "")
	default:
		err = typedrpc.Notify(t.Context(), client, behind.note, "")
	}
	is.NoErr(err)
	time.Sleep(time.Minute)
	is.Equal(len(result), 0) // it waits
	close(full)
	is.NoErr(<-result)
}

// … and waits for a link, and does not go where a connection is shut down.
func TestNested_returnedWithoutALink(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		result := make(chan error, 1)
		ctxs := make(chan context.Context, 1)
		typedrpc.Handle(mux, behind.work, func(ctx context.Context, _ string) (struct{}, error) {
			ctxs <- ctx
			return struct{}{}, nil
		})
		l := lab.New()
		conns := make(chan *typedrpc.Conn, 9)
		l.OnConnect = func(c *typedrpc.Conn) { conns <- c }
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, &typedrpc.DialOptions{Dialect: d, Mux: mux, Backoff: lab.Steady})
		defer c.Close()
		_, err := typedrpc.Call(t.Context(), <-conns, behind.work, "")
		is.NoErr(err)
		ctx := context.WithoutCancel(<-ctxs)
		w.Serve(nil)
		w.Cable().Cut()
		time.Sleep(time.Minute)
		go func() {
			_, err := typedrpc.Call(ctx, c, lab.Echo, 1)
			result <- err
		}()
		time.Sleep(time.Minute)
		is.Equal(len(result), 0)
		w.Serve(l.Server)
		is.NoErr(<-result)
		hang := typedrpc.Go(t.Context(), c, lab.Hang, struct{}{})
		go c.Shutdown(t.Context())
		synctest.Wait()
		_, err = typedrpc.Call(ctx, c, lab.Echo, 1)
		is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable) // of everybody, but handlers
		close(l.Release)
		_, err = hang.Await(t.Context())
		is.NoErr(err)
	})
}

// What decides who may subscribe has returned when the subscription goes on, perhaps for
// days: what it has left behind waits as everybody else does.
func TestNested_notOnceItWasAllowed(t *testing.T) {
	news := topic.New[int]("nested.news", topic.WithPresence)
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		full, result := make(chan struct{}), make(chan error, 2)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, behind.back, func(_ context.Context, n int) (int, error) { <-full; return n, nil })
		srv, hub := lab.New().Server, new(topic.Hub)
		topic.Handle(srv.Mux, hub, news, func(ctx context.Context, _ topic.Access) error {
			go func() {
				time.Sleep(time.Second)
				_, err := typedrpc.Call(context.WithoutCancel(ctx), typedrpc.ConnFrom(ctx), behind.back, 1)
				result <- err
			}()
			return nil
		})
		o := &typedrpc.DialOptions{Dialect: d, Mux: mux, Limits: typedrpc.Limits{MaxCalls: 8}}
		lab.Quiet(srv, o)
		client, server, err := typedrpctest.Dial(srv, o)
		is.NoErr(err)
		for range 8 { // every place
			typedrpc.Go(t.Context(), server, behind.back, 1)
		}
		subscribed := lab.SubscribeTo(t.Context(), client, news, "x", nil)
		watches := lab.PresenceOf(t.Context(), client, news, "x")
		time.Sleep(time.Minute)
		is.Equal(len(result), 0) // they wait
		close(full)
		is.NoErr(<-result)
		is.NoErr(<-result)
		subscribed.Leave()
		watches.Leave()
		client.Close()
		is.NoErr(hub.Close())
	})
}

// A connection that is dialled where a handler's context is not the only one of a request's has
// none of the library's values either.
func TestDial_besideAHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		other := &lab.Town{Srv: lab.New().Server}
		dialled := make(chan *typedrpc.Conn, 1)
		dial := func(ctx context.Context) error {
			c, err := other.TryDial(context.WithValue(ctx, contextKey{}, 5), nil)
			dialled <- c
			return err
		}
		l, hub := lab.New(), new(topic.Hub)
		typedrpc.Handle(l.Mux, behind.work, func(ctx context.Context, _ string) (n struct{}, err error) {
			typedrpc.RequestFrom(ctx).AfterReply = func(ctx context.Context, _ error) { dial(ctx) }
			return n, nil
		})
		news := topic.New[int]("dial.news")
		topic.Handle(l.Mux, hub, news, func(ctx context.Context, _ topic.Access) error { return dial(ctx) })
		client, _ := typedrpctest.Pair(t, l.Server, nil)
		_, err := typedrpc.Call(t.Context(), client, behind.work, "")
		is.NoErr(err)
		after := <-dialled
		s := lab.SubscribeTo(t.Context(), client, news, "x", nil)
		allowed := <-dialled
		is.NoErr(topic.Introduce(allowed.Context(), "somebody else"))
		synctest.Wait()
		here, err := topic.Members(hub, news, "x")
		is.NoErr(err)
		is.Equal(here, []topic.Member{{}})
		for _, c := range []*typedrpc.Conn{after, allowed} {
			func() {
				defer func() { is.True(recover() != nil) }() // it is no handler's
				typedrpc.ConnFrom(c.Context())
			}()
			is.Equal(c.Context().Value(contextKey{}), 5)
			is.NoErr(c.Close())
		}
		s.Leave()
		is.NoErr(hub.Close())
	})
}

// A connection that a handler dials has the values of its caller, and is not part
// of the handler's request.
func TestDial_inAHandler(t *testing.T) {
	for _, how := range []string{"the handler's context", "one derived from it"} {
		t.Run(how, func(t *testing.T) {
			is := is.New(t)
			other := &lab.Town{Srv: lab.New().Server}
			l := lab.New()
			dialled := make(chan *typedrpc.Conn, 1)
			var request weak.Pointer[typedrpc.Request]
			var payload weak.Pointer[byte]
			typedrpc.Handle(l.Mux, behind.work, func(ctx context.Context, _ string) (struct{}, error) {
				r := typedrpc.RequestFrom(ctx)
				request, payload = weak.Make(r), weak.Make(&r.Payload[0])
				if how != "the handler's context" {
					ctx = context.WithValue(ctx, contextKey{}, 5)
				}
				c, err := other.TryDial(ctx, nil)
				dialled <- c
				return struct{}{}, err
			})
			client, _ := typedrpctest.Pair(t, l.Server, nil)
			_, err := typedrpc.Call(t.Context(), client, behind.work, strings.Repeat("x", 1<<20))
			is.NoErr(err)
			c := <-dialled
			defer c.Close()
			func() {
				defer func() { is.True(recover() != nil) }() // it is no handler's
				typedrpc.ConnFrom(c.Context())
			}()
			if how != "the handler's context" {
				is.Equal(c.Context().Value(contextKey{}), 5)
			}
			// One derived from it cannot be told from its values, but holds nothing of
			// what the request brought.
			kept := func() bool { return payload.Value() != nil || how == "the handler's context" && request.Value() != nil }
			// What was asked with is the client's, too, until that has heard that it came, which
			// may take a second and more on a busy machine.
			for range 1000 {
				if runtime.GC(); !kept() {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			is.True(payload.Value() == nil) // what it was asked with
			if how == "the handler's context" {
				is.True(request.Value() == nil)
			}
		})
	}
}
