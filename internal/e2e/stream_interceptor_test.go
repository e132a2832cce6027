package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// proxied connects a client to a front server that forwards all to a back one.
func proxied(t *testing.T, o lab.Over, back *typedrpc.Mux) (client, front, inner, server *typedrpc.Conn) {
	t.Helper()
	inner, server = lab.Over{Dialect: o.Dialect}.Connect(t, &typedrpc.Server{Mux: back}, nil)
	mux := typedrpc.NewMux()
	mux.HandleFallback(func(ctx context.Context, r *typedrpc.Request) (typedrpc.Raw, error) {
		return typedrpc.Forward(ctx, inner, r)
	})
	client, front = o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
	return client, front, inner, server
}

func TestForward_streams(t *testing.T) {
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		s := scene{ended: make(chan error, 100)}
		client, front, inner, server := proxied(t, o, s.mux())
		s.c = client
		t.Run("items", func(t *testing.T) {
			is := is.New(t)
			var got []int
			for p, err := range typedrpc.Receive(t.Context(), client, streamOut, sizesDown) {
				is.NoErr(err)
				got = append(got, len(p.Body))
			}
			is.Equal(got, sizesDown)
			n, err := typedrpc.SendAll(t.Context(), client, streamIn, struct{}{}, func(yield func(part, error) bool) {
				_ = yield(partOf(1000), nil) && yield(partOf(2000), nil)
			})
			is.NoErr(err)
			is.Equal(n, 3000)
			stream, err := typedrpc.Open(t.Context(), client, talk, "")
			is.NoErr(err)
			for i := range 1000 {
				is.NoErr(stream.Send(fmt.Sprint(i)))
				v, err := stream.Recv()
				is.NoErr(err)
				is.Equal(v, fmt.Sprint(i))
			}
			stream.CloseSend()
			_, err = stream.Recv()
			is.Equal(err, io.EOF)
		})
		t.Run("error", func(t *testing.T) {
			is := is.New(t)
			n := 0
			for _, err := range typedrpc.Receive(t.Context(), client, countTo, 2000) {
				if n++; n > 2000 {
					far, ok := streamFault.From(err)
					is.True(ok)
					is.Equal(far, 2000)
				}
			}
			is.Equal(n, 2001)
		})
		t.Run("metadata", func(t *testing.T) {
			is := is.New(t)
			var reply typedrpc.Metadata
			c := client.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"say": "hi"}, ReplyMetadata: &reply})
			stream, err := typedrpc.Open(t.Context(), c, talk, "metadata")
			is.NoErr(err)
			_, err = stream.Recv()
			is.Equal(err, io.EOF)
			is.Equal(reply["echo"], "hi")
		})
		t.Run("cancel", func(t *testing.T) {
			for range typedrpc.Receive(t.Context(), client, countTo, 1<<40) {
				break
			}
			s.canceled(t)
			stream, err := typedrpc.Open(t.Context(), client, talk, "sleep")
			is.New(t).NoErr(err)
			_, err = typedrpc.Call(t.Context(), client, lab.Sum, lab.Pair{})
			is.New(t).NoErr(err)
			stream.Cancel()
		})
		t.Run("early answer", func(t *testing.T) {
			is := is.New(t)
			n, err := typedrpc.SendAll(t.Context(), client, addUp, 10, func(yield func(positive, error) bool) {
				for yield(1, nil) {
				}
			})
			is.NoErr(err)
			is.Equal(n, 10)
		})
		nothingLeft(t, client, front, inner, server)
	})
}

// journal is what interceptors saw, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

// all returns the lines that begin with a prefix.
func (j *journal) all(prefix string) (lines []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, l := range j.lines {
		if strings.HasPrefix(l, prefix) {
			lines = append(lines, strings.TrimPrefix(l, prefix))
		}
	}
	return lines
}

// logging notes a stream's life and its items.
func (j *journal) logging(where, name string) typedrpc.Interceptor {
	return func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		if r.Kind == typedrpc.KindMethod {
			return next(ctx, r)
		}
		j.add("%s life %s begins %s", where, name, r.Kind)
		r.OnItem(func(item typedrpc.Raw, sent bool) error {
			way := "receives"
			if sent {
				way = "sends"
			}
			j.add("%s %s %s %s", where, way, name, item)
			return nil
		})
		raw, err := next(ctx, r)
		j.add("%s life %s ends %v", where, name, typedrpc.CodeOf(err))
		return raw, err
	}
}

func TestInterceptor_streams(t *testing.T) {
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		var j journal
		var sc scene
		mux := typedrpc.NewMux(j.logging("handler", "outer"), j.logging("handler", "inner"))
		typedrpc.Handle(mux, talk, func(_ context.Context, _ string, s *typedrpc.Stream[string, string]) error {
			for v, err := range s.All() {
				if err != nil {
					return err
				}
				if err := s.Send(strings.ToUpper(v)); err != nil {
					return err
				}
			}
			return typedrpc.NotFound
		})
		c, s := o.Connect(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{
			Mux: sc.mux(), OutgoingInterceptors: []typedrpc.Interceptor{j.logging("caller", "outer"), j.logging("caller", "inner")},
		})
		stream, err := typedrpc.Open(t.Context(), c, talk, "")
		is.NoErr(err)
		is.NoErr(stream.Send("a"))
		v, err := stream.Recv()
		is.NoErr(err)
		is.Equal(v, "A")
		stream.CloseSend()
		_, err = stream.Recv()
		is.True(errors.Is(err, typedrpc.NotFound))
		nothingLeft(t, c, s)

		is.Equal(j.all("caller sends "), []string{`outer "a"`, `inner "a"`})
		is.Equal(j.all("handler receives "), []string{`outer "a"`, `inner "a"`})
		is.Equal(j.all("handler sends "), []string{`inner "A"`, `outer "A"`})
		is.Equal(j.all("caller receives "), []string{`inner "A"`, `outer "A"`})
		life := []string{"outer begins bidirectional stream", "inner begins bidirectional stream", "inner ends not found", "outer ends not found"}
		is.Equal(j.all("caller life "), life)
		is.Equal(j.all("handler life "), life)
	})
}

// stopping refuses the nth item of one direction.
func stopping(sent bool, nth int) typedrpc.Interceptor {
	return func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		n := 0
		r.OnItem(func(_ typedrpc.Raw, s bool) error {
			if s == sent {
				if n++; n == nth {
					return typedrpc.Errorf(typedrpc.PermissionDenied, "not this one")
				}
			}
			return nil
		})
		return next(ctx, r)
	}
}

func TestInterceptor_stopsItems(t *testing.T) {
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		for _, at := range []string{"caller", "handler"} {
			for _, sent := range []bool{true, false} {
				t.Run(fmt.Sprint(at, "/sent ", sent), func(t *testing.T) {
					is := is.New(t)
					var handlers, callers []typedrpc.Interceptor
					if at == "caller" {
						callers = append(callers, stopping(sent, 3))
					} else {
						handlers = append(handlers, stopping(sent, 3))
					}
					seen := make(chan error, 1)
					mux := typedrpc.NewMux(handlers...)
					typedrpc.Handle(mux, talk, func(_ context.Context, _ string, s *typedrpc.Stream[string, string]) error {
						for {
							v, err := s.Recv()
							if err == nil {
								err = s.Send(v)
							}
							if err != nil {
								seen <- err
								return nil // whatever it returns
							}
						}
					})
					c, s := o.Connect(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{OutgoingInterceptors: callers})
					stream, err := typedrpc.Open(t.Context(), c, talk, "")
					is.NoErr(err)
					n := 0
					for ; err == nil; n++ {
						if err = stream.Send("x"); err == nil {
							_, err = stream.Recv()
						}
					}
					is.Equal(n, 3)
					is.True(errors.Is(err, typedrpc.PermissionDenied)) // the caller's error
					if at == "handler" {
						is.True(errors.Is(<-seen, typedrpc.PermissionDenied))
					} else {
						is.True(errors.Is(<-seen, typedrpc.Canceled))
					}
					nothingLeft(t, c, s)
				})
			}
		}
	})
}

func TestInterceptor_freedomsWithStreams(t *testing.T) {
	type around = func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error)
	tests := map[string]struct {
		around          around
		open, end, loop typedrpc.Code // of Open; of Recv; of Receive
		recover         bool          // Receive panics as well
	}{
		"answers itself": {
			around: func(context.Context, *typedrpc.Request, typedrpc.RawHandler) (typedrpc.Raw, error) { return nil, nil },
			open:   typedrpc.FailedPrecondition,
		},
		"refuses": {
			around: func(context.Context, *typedrpc.Request, typedrpc.RawHandler) (typedrpc.Raw, error) {
				return nil, typedrpc.PermissionDenied
			},
			open: typedrpc.PermissionDenied, loop: typedrpc.PermissionDenied,
		},
		"changes the error": {
			around: func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
				next(ctx, r)
				return nil, typedrpc.Aborted
			},
			end: typedrpc.Aborted, loop: typedrpc.Aborted,
		},
		"calls next twice": {
			around: func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
				next(ctx, r)
				return next(ctx, r)
			},
			end: typedrpc.FailedPrecondition, loop: 1234, // the fault
		},
		"panics before": {
			around: func(context.Context, *typedrpc.Request, typedrpc.RawHandler) (typedrpc.Raw, error) { panic("before") },
			open:   typedrpc.Internal, recover: true,
		},
		"panics after": {
			around: func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
				next(ctx, r)
				panic("after")
			},
			end: typedrpc.Internal, recover: true,
		},
	}
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				is := is.New(t)
				sc := scene{ended: make(chan error, 10)}
				c, s := o.Connect(t, &typedrpc.Server{Mux: sc.mux()}, nil)
				with := c.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{tt.around}})
				stream, err := typedrpc.Open(t.Context(), with, talk, "")
				is.Equal(typedrpc.CodeOf(err), tt.open)
				if err == nil {
					is.NoErr(stream.Send("x"))
					stream.CloseSend()
					v, err := stream.Recv()
					is.NoErr(err)
					is.Equal(v, "x")
					_, err = stream.Recv()
					is.Equal(typedrpc.CodeOf(err), tt.end)
				}
				func() {
					defer func() { is.Equal(recover() != nil, tt.recover) }()
					var last error
					for _, err := range typedrpc.Receive(t.Context(), with, countTo, 3) {
						last = err
					}
					is.Equal(typedrpc.CodeOf(last), tt.loop)
				}()
				nothingLeft(t, c, s)
			})
		}
	})
}

func TestOpen_interceptorEndsItsGoroutine(t *testing.T) {
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		var sc scene
		c, s := o.Connect(t, &typedrpc.Server{Mux: sc.mux()}, nil)
		with := func(before bool) typedrpc.Caller {
			return c.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{
				func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
					if !before {
						next(ctx, r)
					}
					runtime.Goexit()
					return nil, nil
				},
			}})
		}
		_, err := typedrpc.Open(t.Context(), with(true), talk, "")
		is.True(errors.Is(err, typedrpc.Internal))
		stream, err := typedrpc.Open(t.Context(), with(false), talk, "")
		is.NoErr(err)
		stream.CloseSend()
		_, err = stream.Recv()
		is.True(errors.Is(err, typedrpc.Internal))
		nothingLeft(t, c, s)
	})
}

func TestSendAll_interceptorCallsNextTwice(t *testing.T) {
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		sc := scene{ended: make(chan error, 10)}
		c, s := o.Connect(t, &typedrpc.Server{Mux: sc.mux()}, nil)
		twice := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
			next(ctx, r)
			return next(ctx, r)
		}
		_, err := typedrpc.SendAll(t.Context(), c.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{twice}}), addUp, 5,
			typedrpc.Items(slices.Values([]positive{1, 2, 3})))
		is.True(errors.Is(err, typedrpc.FailedPrecondition))
		answers := func(context.Context, *typedrpc.Request, typedrpc.RawHandler) (typedrpc.Raw, error) {
			return typedrpc.Raw("77"), nil
		}
		n, err := typedrpc.SendAll(t.Context(), c.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{answers}}), addUp, 5,
			func(func(positive, error) bool) { t.Error("pulled") })
		is.NoErr(err)
		is.Equal(n, 77)
		nothingLeft(t, c, s)
	})
}
