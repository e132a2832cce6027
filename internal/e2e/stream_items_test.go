package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

func TestReceive_leaving(t *testing.T) {
	overStreams(t, func(t *testing.T, s scene) {
		const endless = 1 << 40
		leave := map[string]func(ctx context.Context, cancel func()) error{
			"break": func(ctx context.Context, _ func()) error {
				for v, err := range typedrpc.Receive(ctx, s.c, countTo, endless) {
					if err != nil {
						return err
					}
					if v == 10 {
						break
					}
				}
				return nil
			},
			"return": func(ctx context.Context, _ func()) error {
				for v, err := range typedrpc.Receive(ctx, s.c, countTo, endless) {
					if err != nil {
						return err
					}
					if v == 10 {
						return nil
					}
				}
				return errors.New("the loop ended")
			},
			"panic": func(ctx context.Context, _ func()) (err error) {
				defer func() {
					if p := recover(); p != "of the body" {
						err = fmt.Errorf("recovered %v", p)
					}
				}()
				for v, err := range typedrpc.Receive(ctx, s.c, countTo, endless) {
					if err != nil {
						return err
					}
					if v == 10 {
						panic("of the body")
					}
				}
				return errors.New("the loop ended")
			},
			"context": func(ctx context.Context, cancel func()) error {
				for v, err := range typedrpc.Receive(ctx, s.c, countTo, endless) {
					if err != nil {
						if !errors.Is(err, context.Canceled) {
							return err
						}
						return nil
					}
					if v == 10 {
						cancel()
					}
				}
				return errors.New("the loop ended without an error")
			},
		}
		for name, f := range leave {
			t.Run(name, func(t *testing.T) {
				is := is.New(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				is.NoErr(f(ctx, cancel))
				s.canceled(t)
			})
		}
		t.Run("again", func(t *testing.T) { // each loop is a call
			is := is.New(t)
			items := typedrpc.Receive(t.Context(), s.c, streamOut, []int{1, 2})
			for range 2 {
				n := 0
				for _, err := range items {
					is.NoErr(err)
					n++
				}
				is.Equal(n, 2)
			}
		})
	})
}

func TestSendAll_ends(t *testing.T) {
	overStreams(t, func(t *testing.T, s scene) {
		t.Run("early answer", func(t *testing.T) {
			is := is.New(t)
			pulled := 0
			n, err := typedrpc.SendAll(t.Context(), s.c, addUp, 10, func(yield func(positive, error) bool) {
				for { // for ever
					if pulled++; !yield(1, nil) {
						return
					}
				}
			})
			is.NoErr(err)
			is.Equal(n, 10)
			is.True(pulled >= 10)
		})
		t.Run("failing source", func(t *testing.T) {
			is := is.New(t)
			broken := errors.New("the disk is gone")
			_, err := typedrpc.SendAll(t.Context(), s.c, addUp, 10, func(yield func(positive, error) bool) {
				if yield(1, nil) && !yield(0, broken) {
					return
				}
				t.Error("pulled after the error")
			})
			is.True(errors.Is(err, broken))
			is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
			s.canceled(t)
		})
		t.Run("panicking source", func(t *testing.T) {
			is := is.New(t)
			func() {
				defer func() { is.Equal(recover(), "of the source") }()
				typedrpc.SendAll(t.Context(), s.c, addUp, 10, func(yield func(positive, error) bool) {
					yield(1, nil)
					panic("of the source")
				})
			}()
			s.canceled(t)
		})
	})
}

func TestStream_validates(t *testing.T) {
	overStreams(t, func(t *testing.T, s scene) {
		is := is.New(t)
		for _, err := range typedrpc.Receive(t.Context(), s.c, countTo, -1) {
			is.True(errors.Is(err, typedrpc.InvalidArgument)) // the request
			is.True(strings.Contains(err.Error(), "must not be negative"))
		}
		_, err := typedrpc.SendAll(t.Context(), s.c, addUp, 100, func(yield func(positive, error) bool) {
			_ = yield(1, nil) && yield(-1, nil) && yield(1, nil)
		})
		is.True(errors.Is(err, typedrpc.InvalidArgument)) // an item
		is.True(strings.Contains(err.Error(), "must not be negative"))
		is.True(errors.Is(<-s.ended, typedrpc.InvalidArgument)) // its handler saw it too
	})
}

func TestStream_itemsThatDoNotDecode(t *testing.T) {
	overStreams(t, func(t *testing.T, s scene) {
		is := is.New(t)
		wrongUp := typedrpc.NewClientStream[positive, string, int]("stream.add")
		_, err := typedrpc.SendAll(t.Context(), s.c, wrongUp, 100, func(yield func(string, error) bool) { yield("no number", nil) })
		is.True(errors.Is(err, typedrpc.InvalidArgument))
		is.True(errors.Is(<-s.ended, typedrpc.InvalidArgument))

		wrongDown := typedrpc.NewServerStream[positive, string]("stream.count")
		for _, err = range typedrpc.Receive(t.Context(), s.c, wrongDown, 1<<40) {
		}
		is.True(errors.Is(err, typedrpc.Internal))
		s.canceled(t)

		_, err = typedrpc.SendAll(t.Context(), s.c, typedrpc.NewClientStream[struct{}, func(), int]("nobody"), struct{}{},
			func(yield func(func(), error) bool) { yield(func() {}, nil) })
		is.True(err != nil) // it cannot even be encoded
	})
}

func TestStream_limits(t *testing.T) {
	overStreams(t, func(t *testing.T, s scene) {
		t.Run("MaxMessage", func(t *testing.T) {
			is := is.New(t)
			stream, err := typedrpc.Open(t.Context(), s.c, talk, "")
			is.NoErr(err)
			is.True(errors.Is(stream.Send(strings.Repeat("x", 100_000)), typedrpc.ResourceExhausted)) // 2 more for the quotes
			is.NoErr(stream.Send(strings.Repeat("x", 99_998)))                                        // the stream lives on
			v, err := stream.Recv()
			is.NoErr(err)
			is.Equal(len(v), 99_998)
			stream.Cancel()
		})
		t.Run("MaxSize", func(t *testing.T) {
			is := is.New(t)
			stream, err := typedrpc.Open(t.Context(), s.c, smallItems, "")
			is.NoErr(err)
			is.True(errors.Is(stream.Send(strings.Repeat("x", 99)), typedrpc.ResourceExhausted))
			is.NoErr(stream.Send(strings.Repeat("x", 98)))
			stream.Cancel()
			stream, err = typedrpc.Open(t.Context(), s.c, smallItems, strings.Repeat("x", 99))
			if err == nil {
				_, err = stream.Recv()
			}
			is.True(errors.Is(err, typedrpc.ResourceExhausted)) // the request
			is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		})
		t.Run("MaxSize of the receiver", func(t *testing.T) {
			is := is.New(t)
			loose := typedrpc.NewBidiStream[string, string, string]("stream.small")
			stream, err := typedrpc.Open(t.Context(), s.c, loose, "")
			is.NoErr(err)
			is.NoErr(stream.Send(strings.Repeat("x", 99)))
			_, err = stream.Recv()
			is.True(errors.Is(err, typedrpc.ResourceExhausted))
		})
	})
}

func TestStream_names(t *testing.T) {
	overStreams(t, func(t *testing.T, s scene) {
		is := is.New(t)
		check := func(err error, text string) {
			t.Helper()
			is.True(errors.Is(err, typedrpc.Unimplemented))
			is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
			is.True(strings.Contains(err.Error(), text)) // what it is instead
		}
		_, err := typedrpc.Call(t.Context(), s.c, typedrpc.NewMethod[string, string]("stream.chat"), "")
		check(err, `"stream.chat" is a bidirectional stream, not a method`)
		for _, err = range typedrpc.Receive(t.Context(), s.c, typedrpc.NewServerStream[lab.Pair, lab.Total]("math.sum"), lab.Pair{}) {
		}
		check(err, `"math.sum" is a method, not a server stream`)
		for _, err = range typedrpc.Receive(t.Context(), s.c, typedrpc.NewServerStream[lab.Pair, lab.Total]("nobody"), lab.Pair{}) {
		}
		check(err, `no method "nobody"`)
		_, err = typedrpc.SendAll(t.Context(), s.c, typedrpc.NewClientStream[string, string, string]("stream.chat"), "", func(func(string, error) bool) {})
		check(err, "is a bidirectional stream, not a client stream")
		is.NoErr(typedrpc.Notify(t.Context(), s.c, typedrpc.NewNotification[string]("stream.chat"), "")) // dropped
	})
}

func TestStream_metadata(t *testing.T) {
	overStreams(t, func(t *testing.T, s scene) {
		is := is.New(t)
		var reply typedrpc.Metadata
		c := s.c.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"say": "moin ☃"}, ReplyMetadata: &reply})
		stream, err := typedrpc.Open(t.Context(), c, talk, "metadata")
		is.NoErr(err)
		_, err = stream.Recv()
		is.Equal(err, io.EOF)
		want := typedrpc.Metadata{"kind": "bidirectional stream", "echo": "moin ☃"}
		is.Equal(reply, want)

		_, err = typedrpc.Open(t.Context(), s.c.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"k": strings.Repeat("x", 20_000)}}), talk, "")
		is.True(errors.Is(err, typedrpc.InvalidArgument))
	})
}

func TestStream_serial(t *testing.T) {
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		var running atomic.Int64
		var order []int // one handler at a time: the race detector watches
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, turns, func(_ context.Context, n int, send func(int) error) error {
			if running.Add(1) != 1 {
				t.Error("two handlers of the lane at once")
			}
			defer running.Add(-1)
			order = append(order, n)
			for i := range 10 {
				if err := send(i); err != nil {
					return err
				}
			}
			return nil
		})
		typedrpc.Handle(mux, lab.Ordered, func(_ context.Context, n int) (int, error) {
			order = append(order, -n)
			return n, nil
		})
		c, s := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				n := 0
				for _, err := range typedrpc.Receive(t.Context(), c, turns, i) {
					if err != nil {
						t.Error(err)
					}
					n++
				}
				if n != 10 {
					t.Errorf("%d items", n)
				}
			})
			f := typedrpc.Go(t.Context(), c, lab.Ordered, i)
			all.Go(func() {
				if _, err := f.Await(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		is.Equal(len(order), 40)
		nothingLeft(t, c, s)
	})
}

func TestStream_concurrentSendAndRecv(t *testing.T) {
	overStreams(t, func(t *testing.T, s scene) {
		is := is.New(t)
		stream, err := typedrpc.Open(t.Context(), s.c, talk, "")
		is.NoErr(err)
		const senders, items = 4, 300
		var sending, receiving sync.WaitGroup
		var mu sync.Mutex
		seen := map[string]bool{}
		for who := range senders {
			sending.Go(func() {
				for i := range items {
					if err := stream.Send(fmt.Sprint(who, " ", i)); err != nil {
						t.Error(err)
					}
				}
			})
			receiving.Go(func() {
				for v, err := range stream.All() {
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					seen[v] = true
					mu.Unlock()
				}
			})
		}
		sending.Wait()
		stream.CloseSend()
		receiving.Wait()
		is.Equal(len(seen), senders*items)
	})
}

func TestStream_closeAtAnyTime(t *testing.T) {
	overStreams(t, func(t *testing.T, s scene) {
		for i := range 21 {
			stream, err := typedrpc.Open(t.Context(), s.c, talk, "")
			if err != nil {
				t.Fatal(err)
			}
			var users sync.WaitGroup
			users.Go(func() {
				for stream.Send(strings.Repeat("x", 500)) == nil {
				}
			})
			users.Go(func() {
				for {
					if _, err := stream.Recv(); err != nil {
						return
					}
				}
			})
			users.Go(func() {
				for range i % 7 {
					stream.Recv()
				}
				stream.Cancel()
			})
			users.Wait()
		}
	})
}

func TestStream_plainAndPost(t *testing.T) {
	is := is.New(t)
	var sc scene
	mux := sc.mux()
	for _, socket := range []bool{false, true} {
		c, s := lab.Over{Socket: socket, Dialect: typedrpc.JSONRPC}.Connect(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{Mux: mux})
		for _, conn := range []*typedrpc.Conn{c, s} {
			stream, err := typedrpc.Open(t.Context(), conn, talk, "")
			if err == nil {
				_, err = stream.Recv()
			}
			is.True(errors.Is(err, typedrpc.Unimplemented)) // a plain peer takes none
			is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
			_, err = typedrpc.Call(t.Context(), conn, typedrpc.NewMethod[string, string]("stream.chat"), "")
			is.True(errors.Is(err, typedrpc.Unimplemented))
		}
		nothingLeft(t, c, s)
	}
	hs := httptest.NewServer(&typedrpc.Server{Mux: mux})
	defer hs.Close()
	_, text := post(t, hs.URL, `{"jsonrpc":"2.0","id":1,"method":"stream.chat","params":[""]}`)
	is.True(strings.Contains(text, "-32601")) // no method
}
