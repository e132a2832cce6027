package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// trail notes where a call has been, in order.
type trail struct {
	mu    sync.Mutex
	steps []string
}

func (l *trail) add(step string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.steps = append(l.steps, step)
}

func (l *trail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.steps, " ")
}

func (l *trail) interceptor(name string) typedrpc.Interceptor {
	return func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		l.add(name + ">")
		raw, err := next(ctx, r)
		l.add("<" + name)
		return raw, err
	}
}

func TestInterceptor_orderOfCall(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		var l trail
		mux := typedrpc.NewMux(l.interceptor("s1"), l.interceptor("s2"))
		typedrpc.Handle(mux.Group(l.interceptor("group")), lab.Sum, func(ctx context.Context, p lab.Pair) (lab.Total, error) {
			l.add("handler")
			return lab.HandleSum(ctx, p)
		})
		typedrpc.Handle(mux, lab.Shout, lab.HandleShout)
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{
			OutgoingInterceptors: []typedrpc.Interceptor{l.interceptor("c1"), l.interceptor("c2")},
		})
		caller := client.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{l.interceptor("o1")}}).
			With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{l.interceptor("o2")}})
		r, err := typedrpc.Call(t.Context(), caller, lab.Sum, lab.Pair{A: 1, B: 2})
		is.NoErr(err)
		is.Equal(r.Sum, 3)
		want := "c1> c2> o1> o2> s1> s2> group> handler <group <s2 <s1 <o2 <o1 <c2 <c1"
		is.Equal(l.String(), want)
		r, err = typedrpc.Go(t.Context(), caller, lab.Sum, lab.Pair{A: 1, B: 3}).Await(t.Context())
		is.NoErr(err)
		is.Equal(r.Sum, 4)
		is.Equal(l.String(), want+" "+want) // the same for a future
	})
}

func TestInterceptor_orderOfNotification(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		var l trail
		got := make(chan int, 1)
		mux := typedrpc.NewMux(l.interceptor("s"))
		typedrpc.Handle(mux, lab.Tell, func(context.Context, int) error { l.add("first"); return nil })
		typedrpc.Handle(mux.Group(l.interceptor("group")), lab.Tell, func(_ context.Context, n int) error {
			l.add("second")
			got <- n
			return nil
		})
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{
			OutgoingInterceptors: []typedrpc.Interceptor{func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
				l.add("c")
				return next(ctx, r)
			}},
		})
		is.NoErr(typedrpc.Notify(t.Context(), client, lab.Tell, 4))
		is.Equal(<-got, 4)
		is.True(strings.HasPrefix(l.String(), "c s> first <s s> group> second")) // each handler is wrapped
	})
}

func TestInterceptor_sees(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		seen := make(chan string, 4)
		look := func(side string) typedrpc.Interceptor {
			return func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
				seen <- fmt.Sprint(side, " ", r.Kind, " ", r.Method, " ", string(r.Payload), " ", r.Metadata["k"], " ", r.Conn != nil)
				return next(ctx, r)
			}
		}
		mux := typedrpc.NewMux(look("in"))
		typedrpc.Handle(mux, lab.Sum, lab.HandleSum)
		typedrpc.Handle(mux, lab.Tell, func(context.Context, int) error { return nil })
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{OutgoingInterceptors: []typedrpc.Interceptor{look("out")}})
		caller := client.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"k": "v"}})
		k, number := "v", "5"
		if o.Plain() {
			k = "" // no metadata
		}
		if o.Dialect != typedrpc.Binary {
			number = "[5]" // what JSON-RPC allows as params
		}
		_, err := typedrpc.Call(t.Context(), caller, lab.Sum, lab.Pair{A: 1, B: 2})
		is.NoErr(err)
		is.Equal(<-seen, `out method math.sum {"A":1,"B":2} v true`)
		is.Equal(<-seen, `in method math.sum {"A":1,"B":2} `+k+` true`)
		is.NoErr(typedrpc.Notify(t.Context(), caller, lab.Tell, 5))
		is.Equal(<-seen, `out notification tell 5 v true`)
		is.Equal(<-seen, `in notification tell `+number+` `+k+` true`)
	})
}

func TestInterceptor_changesContext(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		mux := typedrpc.NewMux(func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
			return next(context.WithValue(ctx, lab.TenantKey{}, "acme"), r)
		})
		typedrpc.Handle(mux, lab.Shout, func(ctx context.Context, s string) (string, error) {
			return fmt.Sprint(ctx.Value(lab.TenantKey{}), typedrpc.RequestFrom(ctx).Method), nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		got, err := typedrpc.Call(ctx, client, lab.Shout, "")
		is.NoErr(err)
		is.Equal(got, "acmetext.shout")

		cancel()
		giveUp := client.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{
			func(_ context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
				return next(ctx, r) // ended
			},
		}})
		_, err = typedrpc.Call(t.Context(), giveUp, lab.Shout, "")
		is.True(errors.Is(err, context.Canceled))
	})
}

func TestInterceptor_changesMetadata(t *testing.T) {
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		mux := typedrpc.NewMux(func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
			raw, err := next(ctx, r)
			r.ReplyMetadata.Set("in", "yes")
			return raw, err
		})
		typedrpc.Handle(mux, lab.Shout, func(ctx context.Context, s string) (string, error) {
			return typedrpc.RequestFrom(ctx).Metadata["token"], nil
		})
		var seen string
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{OutgoingInterceptors: []typedrpc.Interceptor{
			func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
				r.Metadata.Set("token", "t0k")
				raw, err := next(ctx, r)
				seen = r.ReplyMetadata["in"]
				r.ReplyMetadata.Set("out", "yes")
				return raw, err
			},
		}})
		var reply typedrpc.Metadata
		got, err := typedrpc.Call(t.Context(), client.With(typedrpc.CallOptions{ReplyMetadata: &reply}), lab.Shout, "")
		is.NoErr(err)
		is.Equal(got, "t0k")
		is.Equal(seen, "yes")
		is.Equal(reply, typedrpc.Metadata{"in": "yes", "out": "yes"})
	})
}

// Calls of one Caller share its metadata. An interceptor that added to it wrote
// into that shared map, for all calls and in a data race.
func TestInterceptor_metadataIsItsOwn(t *testing.T) {
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Ask, func(ctx context.Context, _ int) (int, error) {
			return len(typedrpc.RequestFrom(ctx).Metadata), nil
		})
		got := make(chan int, 1)
		typedrpc.Handle(mux, lab.Tell, func(ctx context.Context, _ int) error { got <- len(typedrpc.RequestFrom(ctx).Metadata); return nil })
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{OutgoingInterceptors: []typedrpc.Interceptor{
			func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
				r.Metadata.Set(string(r.Payload), "only here")
				raw, err := next(ctx, r)
				r.Metadata.Set("later", "too late")
				return raw, err
			},
		}})
		given := typedrpc.Metadata{"given": "once"}
		caller := client.With(typedrpc.CallOptions{Metadata: given})
		counts := make(chan int, 20)
		for i := range cap(counts) {
			go func() {
				n, _ := typedrpc.Call(t.Context(), caller, lab.Ask, i)
				counts <- n
			}()
		}
		for range cap(counts) {
			is.Equal(<-counts, 2)
		}
		is.NoErr(typedrpc.Notify(t.Context(), caller, lab.Tell, 1))
		is.Equal(<-got, 2)
		is.Equal(len(given), 1)
	})
}

// Too much metadata from an interceptor once ended the link, by a notification
// that could not be encoded.
func TestInterceptor_metadataOverLimit(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Ask, func(_ context.Context, n int) (int, error) { return n, nil })
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		caller := client.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{
			func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
				r.Metadata.Set("big", strings.Repeat("x", 20<<10))
				return next(ctx, r)
			},
		}})
		_, err := typedrpc.Call(t.Context(), caller, lab.Ask, 1)
		is.True(errors.Is(err, typedrpc.InvalidArgument))
		is.True(errors.Is(typedrpc.Notify(t.Context(), caller, lab.Tell, 1), typedrpc.InvalidArgument))
		_, err = typedrpc.Call(t.Context(), client, lab.Ask, 1)
		is.NoErr(err)
	})
}

func TestInterceptor_answersEarly(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		cached := typedrpc.Raw(`{"Sum":42}`)
		mux := typedrpc.NewMux(func(_ context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
			return cached, nil
		})
		typedrpc.Handle(mux, lab.Sum, func(context.Context, lab.Pair) (lab.Total, error) { panic("never reached") })
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		local := client.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{
			func(context.Context, *typedrpc.Request, typedrpc.RawHandler) (typedrpc.Raw, error) {
				return cached, nil
			},
		}})
		refused := client.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{
			func(context.Context, *typedrpc.Request, typedrpc.RawHandler) (typedrpc.Raw, error) {
				return nil, errors.New("closed on Sundays")
			},
		}})
		// A cache's bytes stay its own, however often they are sent: they once
		// went into the buffer pool.
		for range 50 {
			r, err := typedrpc.Call(t.Context(), client, lab.Sum, lab.Pair{A: 1, B: 2})
			is.NoErr(err)
			is.Equal(r.Sum, 42)
			r, err = typedrpc.Go(t.Context(), local, lab.Sum, lab.Pair{A: 3, B: 4}).Await(t.Context())
			is.NoErr(err)
			is.Equal(r.Sum, 42)
			is.Equal(string(cached), `{"Sum":42}`)
		}
		_, err := typedrpc.Call(t.Context(), refused, lab.Sum, lab.Pair{})
		e := lab.AsError(t, err)
		is.Equal(e.Code, typedrpc.Internal)
		is.Equal(e.Outcome, typedrpc.NotSent)
		is.Equal(e.Message, "closed on Sundays")
		_, err = typedrpc.Go(t.Context(), refused, lab.Sum, lab.Pair{}).Await(t.Context())
		is.Equal(lab.AsError(t, err).Message, "closed on Sundays")
	})
}

func TestInterceptor_callsNextTwice(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		twice := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
			if raw, err := next(ctx, r); err == nil {
				return raw, nil
			}
			return next(ctx, r)
		}
		runs := 0
		flaky := typedrpc.NewMethod[int, int]("flaky", typedrpc.Serial)
		mux := typedrpc.NewMux(twice)
		typedrpc.Handle(mux, flaky, func(_ context.Context, n int) (int, error) {
			runs++
			if runs%4 != 0 {
				return 0, typedrpc.Aborted
			}
			return runs, nil
		})
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{OutgoingInterceptors: []typedrpc.Interceptor{twice}})
		got, err := typedrpc.Call(t.Context(), client, flaky, 1)
		is.NoErr(err)
		is.Equal(got, 4) // two on each side
	})
}

func TestInterceptor_changesResult(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		var inner error
		mux := typedrpc.NewMux(func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
			raw, err := next(ctx, r)
			if err != nil {
				inner = err
				return nil, typedrpc.Errorf(typedrpc.Unauthenticated, "who are you?")
			}
			return typedrpc.Raw(strings.ToUpper(string(raw))), nil
		})
		secret := errors.New("not for the wire")
		typedrpc.Handle(mux, lab.Shout, func(_ context.Context, s string) (string, error) {
			if s == "" {
				return "", secret
			}
			return s, nil
		})
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		got, err := typedrpc.Call(t.Context(), client, lab.Shout, "abc")
		is.NoErr(err)
		is.Equal(got, "ABC")
		_, err = typedrpc.Call(t.Context(), client, lab.Shout, "")
		is.True(errors.Is(err, typedrpc.Unauthenticated))
		is.True(errors.Is(inner, secret)) // seen before it is translated
	})
}

func TestInterceptor_ofServer(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		var l trail
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Shout, lab.HandleShout)
		got := make(chan int, 1)
		typedrpc.Handle(mux, lab.Tell, func(_ context.Context, n int) error { got <- n; return nil })
		srv := &typedrpc.Server{OutgoingInterceptors: []typedrpc.Interceptor{l.interceptor("s")}}
		_, server := o.Connect(t, srv, &typedrpc.DialOptions{Mux: mux})
		_, err := typedrpc.Call(t.Context(), server, lab.Shout, "x")
		is.NoErr(err)
		is.NoErr(typedrpc.Broadcast(t.Context(), srv.Conns(), lab.Tell, 3))
		is.Equal(<-got, 3)
		is.Equal(l.String(), "s> <s s> <s") // Broadcast goes through them too
	})
}

func TestInterceptor_stopsNotification(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		var log lab.Logs
		got := make(chan int, 2)
		mux := typedrpc.NewMux(func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
			if strings.Contains(string(r.Payload), "1") {
				return nil, errors.New("ones are not welcome")
			}
			return next(ctx, r)
		})
		typedrpc.Handle(mux, lab.Tell, func(_ context.Context, n int) error { got <- n; return nil })
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux, Logger: log.Logger()}, nil)
		is.NoErr(typedrpc.Notify(t.Context(), client, lab.Tell, 1))
		is.NoErr(typedrpc.Notify(t.Context(), client, lab.Tell, 2))
		is.Equal(<-got, 2)
		is.True(log.Has("ones are not welcome"))
	})
}
