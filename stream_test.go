package typedrpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
)

// The sizes of gRPC's interoperability tests.
var (
	sizesUp   = []int{27182, 8, 1828, 45904}
	sizesDown = []int{31415, 9, 2653, 58979}
)

// part is an item; Want asks for one of that size.
type part struct {
	Want int
	Body []byte
}

func partOf(n int) part { return part{Body: bytes.Repeat([]byte{'a'}, n)} }

// positive is an item and a request that validates itself.
type positive int

func (p positive) Validate() error {
	if p < 0 {
		return errors.New("must not be negative")
	}
	return nil
}

var (
	streamOut   = typedrpc.NewServerStream[[]int, part]("stream.out")
	streamIn    = typedrpc.NewClientStream[typedrpc.Empty, part, int]("stream.in")
	pingPongs   = typedrpc.NewBidiStream[typedrpc.Empty, part, part]("stream.pingpong")
	countTo     = typedrpc.NewServerStream[positive, int]("stream.count")
	addUp       = typedrpc.NewClientStream[positive, positive, int]("stream.add")
	talk        = typedrpc.NewBidiStream[string, string, string]("stream.chat")
	sleeping    = typedrpc.NewBidiStream[string, string, string]("stream.sleeping", typedrpc.Timeout(20*time.Millisecond))
	smallItems  = typedrpc.NewBidiStream[string, string, string]("stream.small", typedrpc.MaxSize(100))
	turns       = typedrpc.NewServerStream[int, int]("stream.turns", typedrpc.Serial)
	streamFault = typedrpc.NewFault[int](1234, "so far")
)

// scene is one cell of the table: c calls, mux is its peer's.
type scene struct {
	c, peer *typedrpc.Conn
	ended   chan error // why a handler's context ended
}

// overStreams runs a test over every transport and dialect, and with either
// side as the caller.
func overStreams(t *testing.T, test func(t *testing.T, s scene)) {
	t.Helper()
	overTyped(t, func(t *testing.T, o over) {
		for _, up := range []bool{true, false} {
			name := "from the server"
			if up {
				name = "from the client"
			}
			t.Run(name, func(t *testing.T) {
				s := scene{ended: make(chan error, 100)}
				mux := s.mux()
				limits := typedrpc.Limits{MaxMessage: 100_000}
				s.c, s.peer = o.connect(t, &typedrpc.Server{Mux: mux, Limits: limits}, &typedrpc.DialOptions{Mux: mux, Limits: limits})
				if !up {
					s.c, s.peer = s.peer, s.c
				}
				test(t, s)
				nothingLeft(t, s.c, s.peer)
			})
		}
	})
}

// nothingLeft waits until nothing of any stream is held by conns.
func nothingLeft(t *testing.T, conns ...*typedrpc.Conn) {
	t.Helper()
	for _, c := range conns {
		deadline := time.Now().Add(10 * time.Second)
		for left := typedrpc.Unsettled(c); left != ""; left = typedrpc.Unsettled(c) {
			if time.Now().After(deadline) {
				t.Fatal("left: " + left)
			}
			<-time.After(time.Millisecond)
		}
	}
}

func (sc *scene) mux() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.HandleServerStream(mux, streamOut, func(_ context.Context, sizes []int, send func(part) error) error {
		for _, n := range sizes {
			if err := send(partOf(n)); err != nil {
				return err
			}
		}
		return nil
	})
	typedrpc.HandleClientStream(mux, streamIn, func(_ context.Context, _ typedrpc.Empty, items iter.Seq2[part, error]) (int, error) {
		n := 0
		for p, err := range items {
			if err != nil {
				return 0, err
			}
			n += len(p.Body)
		}
		return n, nil
	})
	typedrpc.HandleBidiStream(mux, pingPongs, func(_ context.Context, _ typedrpc.Empty, s *typedrpc.Stream[part, part]) error {
		for p, err := range s.All() {
			if err != nil {
				return err
			}
			if err := s.Send(partOf(p.Want)); err != nil {
				return err
			}
		}
		return nil
	})
	typedrpc.HandleServerStream(mux, countTo, func(ctx context.Context, n positive, send func(int) error) error {
		for i := range int(n) {
			if err := send(i); err != nil {
				sc.ended <- err
				return err
			}
		}
		return streamFault.New(int(n))
	})
	typedrpc.HandleClientStream(mux, addUp, func(ctx context.Context, most positive, items iter.Seq2[positive, error]) (int, error) {
		n := 0
		for p, err := range items {
			if err != nil {
				sc.ended <- err
				return 0, err
			}
			if n += int(p); n >= int(most) {
				break
			}
		}
		return n, nil
	})
	converse := func(ctx context.Context, req string, s *typedrpc.Stream[string, string]) error {
		switch req {
		case "sleep":
			<-ctx.Done()
			sc.ended <- ctx.Err()
			return ctx.Err()
		case "say hello, sleep":
			if err := s.Send("hello"); err != nil {
				return err
			}
			<-ctx.Done()
			sc.ended <- ctx.Err()
			return ctx.Err()
		case "metadata":
			r := typedrpc.RequestFrom(ctx)
			r.Reply.Set("kind", r.Kind.String())
			r.Reply.Set("echo", r.Metadata.Get("say"))
			return nil
		case "fail":
			for i := range 3 {
				if err := s.Send(fmt.Sprint(i)); err != nil {
					return err
				}
			}
			return typedrpc.Errorf(4711, "that is all")
		case "foreign":
			return errors.New("a secret")
		case "panic":
			panic("in a stream")
		}
		for v, err := range s.All() {
			if err != nil {
				sc.ended <- err
				return err
			}
			if err := s.Send(v); err != nil {
				return err
			}
		}
		return nil
	}
	typedrpc.HandleBidiStream(mux, talk, converse)
	typedrpc.HandleBidiStream(mux, sleeping, converse)
	typedrpc.HandleBidiStream(mux, smallItems, converse)
	typedrpc.Handle(mux, sum, handleSum)
	return mux
}

func TestStream_sizes(t *testing.T) {
	overStreams(t, func(t *testing.T, s scene) {
		is := is.New(t)
		var got []int
		for p, err := range typedrpc.Receive(t.Context(), s.c, streamOut, sizesDown) {
			is.NoErr(err)
			is.Equal(p, partOf(len(p.Body)))
			got = append(got, len(p.Body))
		}
		is.Equal(got, sizesDown) // server stream

		n, err := typedrpc.SendAll(t.Context(), s.c, streamIn, typedrpc.Empty{}, typedrpc.Items(func(yield func(part) bool) {
			for _, n := range sizesUp {
				if !yield(partOf(n)) {
					return
				}
			}
		}))
		is.NoErr(err)
		is.Equal(n, 27182+8+1828+45904) // client stream

		stream, err := typedrpc.Open(t.Context(), s.c, pingPongs, typedrpc.Empty{})
		is.NoErr(err)
		for i := range sizesUp {
			p := partOf(sizesUp[i])
			p.Want = sizesDown[i]
			is.NoErr(stream.Send(p))
			p, err = stream.Recv()
			is.NoErr(err)
			is.Equal(len(p.Body), sizesDown[i]) // ping-pong
		}
		stream.CloseSend()
		_, err = stream.Recv()
		is.Equal(err, io.EOF)
	})
}

func TestStream_empty(t *testing.T) {
	overStreams(t, func(t *testing.T, s scene) {
		is := is.New(t)
		for range typedrpc.Receive(t.Context(), s.c, streamOut, nil) {
			t.Error("an item, or an error")
		}
		n, err := typedrpc.SendAll(t.Context(), s.c, streamIn, typedrpc.Empty{}, func(func(part, error) bool) {})
		is.NoErr(err)
		is.Equal(n, 0)
		stream, err := typedrpc.Open(t.Context(), s.c, pingPongs, typedrpc.Empty{})
		is.NoErr(err)
		stream.CloseSend()
		_, err = stream.Recv()
		is.Equal(err, io.EOF)
	})
}

// canceled checks what a handler saw of a caller who left.
func (s scene) canceled(t *testing.T) {
	t.Helper()
	is := is.New(t)
	is.Helper()
	select {
	case err := <-s.ended:
		is.True(errors.Is(err, context.Canceled) || errors.Is(err, typedrpc.Canceled)) // the handler's error
	case <-time.After(10 * time.Second):
		t.Fatal("the handler's context did not end")
	}
}

func TestStream_cancel(t *testing.T) {
	overStreams(t, func(t *testing.T, s scene) {
		for _, req := range []string{"sleep", "say hello, sleep"} {
			t.Run(req, func(t *testing.T) {
				is := is.New(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				stream, err := typedrpc.Open(ctx, s.c, talk, req)
				is.NoErr(err)
				if req != "sleep" {
					v, err := stream.Recv()
					is.NoErr(err)
					is.Equal(v, "hello")
				} else {
					_, err := typedrpc.Call(t.Context(), s.c, sum, pairOf{}) // the CALL before it has left
					is.NoErr(err)
				}
				cancel()
				_, err = stream.Recv()
				is.True(errors.Is(err, context.Canceled))
				is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
				is.True(errors.Is(stream.Send("x"), typedrpc.Canceled))
				s.canceled(t)
			})
		}
		t.Run("ended before", func(t *testing.T) {
			is := is.New(t)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, err := typedrpc.Open(ctx, s.c, talk, "")
			is.True(errors.Is(err, typedrpc.Canceled))
			is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
			_, err = typedrpc.SendAll(ctx, s.c, addUp, 1, func(func(positive, error) bool) { t.Error("pulled") })
			is.True(errors.Is(err, typedrpc.Canceled))
			n := 0
			for _, err := range typedrpc.Receive(ctx, s.c, countTo, 3) {
				is.True(errors.Is(err, typedrpc.Canceled))
				n++
			}
			is.Equal(n, 1)
		})
	})
}

func TestStream_deadline(t *testing.T) {
	overStreams(t, func(t *testing.T, s scene) {
		check := func(t *testing.T, open func() (*typedrpc.Stream[string, string], error)) {
			is := is.New(t)
			began := time.Now()
			stream, err := open()
			is.NoErr(err)
			_, err = stream.Recv()
			is.True(errors.Is(err, context.DeadlineExceeded))
			is.True(time.Since(began) < 5*time.Second)
			select {
			case err = <-s.ended:
				is.True(errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled))
			case <-time.After(10 * time.Second):
				t.Fatal("the handler's context did not end")
			}
		}
		t.Run("context", func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			check(t, func() (*typedrpc.Stream[string, string], error) { return typedrpc.Open(ctx, s.c, talk, "sleep") })
		})
		t.Run("trait", func(t *testing.T) {
			check(t, func() (*typedrpc.Stream[string, string], error) {
				return typedrpc.Open(t.Context(), s.c, sleeping, "sleep")
			})
		})
	})
}

func TestStream_status(t *testing.T) {
	overStreams(t, func(t *testing.T, s scene) {
		t.Run("after all items", func(t *testing.T) {
			is := is.New(t)
			const n = 5000 // more than a window
			next := 0
			var last error
			for v, err := range typedrpc.Receive(t.Context(), s.c, countTo, n) {
				if err != nil {
					last = err
					continue // it is the last
				}
				is.Equal(v, next)
				next++
			}
			is.Equal(next, n)
			far, ok := streamFault.From(last)
			is.True(ok)
			is.Equal(far, n)
			is.Equal(typedrpc.CodeOf(last), typedrpc.Code(1234))
			is.Equal(typedrpc.OutcomeOf(last), typedrpc.Answered)
		})
		t.Run("code and text", func(t *testing.T) {
			is := is.New(t)
			stream, err := typedrpc.Open(t.Context(), s.c, talk, "fail")
			is.NoErr(err)
			for i := range 3 {
				v, err := stream.Recv()
				is.NoErr(err)
				is.Equal(v, fmt.Sprint(i))
			}
			for range 2 { // it says so for ever
				_, err = stream.Recv()
				e := asError(t, err)
				is.Equal(e.Code, typedrpc.Code(4711))
				is.Equal(e.Message, "that is all")
			}
			is.Equal(typedrpc.CodeOf(stream.Send("x")), typedrpc.Code(4711))
		})
		for req, code := range map[string]typedrpc.Code{"foreign": typedrpc.Internal, "panic": typedrpc.Internal} {
			t.Run(req, func(t *testing.T) {
				is := is.New(t)
				stream, err := typedrpc.Open(t.Context(), s.c, talk, req)
				is.NoErr(err)
				_, err = stream.Recv()
				is.Equal(typedrpc.CodeOf(err), code)
				is.True(!strings.Contains(err.Error(), "secret"))
			})
		}
	})
}

func TestStream_saysWhyItEnded(t *testing.T) {
	overStreams(t, func(t *testing.T, s scene) {
		t.Run("well", func(t *testing.T) {
			is := is.New(t)
			stream, err := typedrpc.Open(t.Context(), s.c, talk, "")
			is.NoErr(err)
			is.NoErr(stream.Send("x"))
			v, err := stream.Recv()
			is.NoErr(err)
			is.Equal(v, "x")
			stream.CloseSend()
			is.True(errors.Is(stream.Send("y"), typedrpc.FailedPrecondition)) // closed
			for range 2 {
				_, err = stream.Recv()
				is.Equal(err, io.EOF)
			}
			err = stream.Send("z")
			is.True(errors.Is(err, typedrpc.FailedPrecondition))
			is.True(errors.Is(err, io.EOF))
			stream.CloseSend()
			stream.Close()
			_, err = stream.Recv()
			is.True(errors.Is(err, typedrpc.Canceled))
		})
		t.Run("closed here", func(t *testing.T) {
			is := is.New(t)
			stream, err := typedrpc.Open(t.Context(), s.c, talk, "")
			is.NoErr(err)
			received := make(chan error)
			go func() { _, err := stream.Recv(); received <- err }()
			is.NoErr(stream.Send("not read"))
			is.NoErr(<-received)
			go func() { _, err := stream.Recv(); received <- err }()
			stream.Close()
			stream.Close()
			is.True(errors.Is(<-received, typedrpc.Canceled))
			is.True(errors.Is(stream.Send("x"), typedrpc.Canceled))
			s.canceled(t)
		})
	})
}

func TestReceive_leaving(t *testing.T) {
	overStreams(t, func(t *testing.T, s scene) {
		const endless = 1 << 40
		leave := map[string]func(ctx context.Context, cancel func()) error{
			"break": func(ctx context.Context, _ func()) error {
				for v := range typedrpc.Receive(ctx, s.c, countTo, endless) {
					if v == 10 {
						break
					}
				}
				return nil
			},
			"return": func(ctx context.Context, _ func()) error {
				for v := range typedrpc.Receive(ctx, s.c, countTo, endless) {
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
				for v := range typedrpc.Receive(ctx, s.c, countTo, endless) {
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

		_, err = typedrpc.SendAll(t.Context(), s.c, typedrpc.NewClientStream[typedrpc.Empty, func(), int]("nobody"), typedrpc.Empty{},
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
			stream.Close()
		})
		t.Run("MaxSize", func(t *testing.T) {
			is := is.New(t)
			stream, err := typedrpc.Open(t.Context(), s.c, smallItems, "")
			is.NoErr(err)
			is.True(errors.Is(stream.Send(strings.Repeat("x", 99)), typedrpc.ResourceExhausted))
			is.NoErr(stream.Send(strings.Repeat("x", 98)))
			stream.Close()
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
		check(err, `"stream.chat" is a bidirectional stream, not a call`)
		for _, err = range typedrpc.Receive(t.Context(), s.c, typedrpc.NewServerStream[pairOf, total]("math.sum"), pairOf{}) {
		}
		check(err, `"math.sum" is a call, not a server stream`)
		for _, err = range typedrpc.Receive(t.Context(), s.c, typedrpc.NewServerStream[pairOf, total]("nobody"), pairOf{}) {
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
		c := s.c.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"say": "moin ☃"}, Reply: &reply})
		stream, err := typedrpc.Open(t.Context(), c, talk, "metadata")
		is.NoErr(err)
		_, err = stream.Recv()
		is.Equal(err, io.EOF)
		want := typedrpc.Metadata{"kind": "bidirectional stream", "echo": "moin ☃"}
		is.Equal(reply, want)
		is.Equal(stream.Metadata(), want)

		_, err = typedrpc.Open(t.Context(), s.c.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"k": strings.Repeat("x", 20_000)}}), talk, "")
		is.True(errors.Is(err, typedrpc.InvalidArgument))
	})
}

func TestStream_serial(t *testing.T) {
	overTyped(t, func(t *testing.T, o over) {
		is := is.New(t)
		var running atomic.Int64
		var order []int // one handler at a time: the race detector watches
		mux := typedrpc.NewMux()
		typedrpc.HandleServerStream(mux, turns, func(_ context.Context, n int, send func(int) error) error {
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
		typedrpc.Handle(mux, ordered, func(_ context.Context, n int) (int, error) {
			order = append(order, -n)
			return n, nil
		})
		c, s := o.connect(t, &typedrpc.Server{Mux: mux}, nil)
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
			f := typedrpc.Go(t.Context(), c, ordered, i)
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
				stream.Close()
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
		c, s := over{socket, typedrpc.PlainJSONRPC}.connect(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{Mux: mux})
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

// proxy connects a client to a front server that forwards all to a back one.
func (o over) proxy(t *testing.T, back *typedrpc.Mux) (client, front, inner, server *typedrpc.Conn) {
	t.Helper()
	inner, server = over{false, o.dialect}.connect(t, &typedrpc.Server{Mux: back}, nil)
	mux := typedrpc.NewMux()
	mux.HandleFallback(func(ctx context.Context, r *typedrpc.Request) (typedrpc.Raw, error) {
		return typedrpc.Forward(ctx, inner, r)
	})
	client, front = o.connect(t, &typedrpc.Server{Mux: mux}, nil)
	return client, front, inner, server
}

func TestForward_streams(t *testing.T) {
	overTyped(t, func(t *testing.T, o over) {
		s := scene{ended: make(chan error, 100)}
		client, front, inner, server := o.proxy(t, s.mux())
		s.c = client
		t.Run("items", func(t *testing.T) {
			is := is.New(t)
			var got []int
			for p, err := range typedrpc.Receive(t.Context(), client, streamOut, sizesDown) {
				is.NoErr(err)
				got = append(got, len(p.Body))
			}
			is.Equal(got, sizesDown)
			n, err := typedrpc.SendAll(t.Context(), client, streamIn, typedrpc.Empty{}, func(yield func(part, error) bool) {
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
			c := client.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"say": "hi"}})
			stream, err := typedrpc.Open(t.Context(), c, talk, "metadata")
			is.NoErr(err)
			_, err = stream.Recv()
			is.Equal(err, io.EOF)
			is.Equal(stream.Metadata().Get("echo"), "hi")
		})
		t.Run("cancel", func(t *testing.T) {
			for range typedrpc.Receive(t.Context(), client, countTo, 1<<40) {
				break
			}
			s.canceled(t)
			stream, err := typedrpc.Open(t.Context(), client, talk, "sleep")
			is.New(t).NoErr(err)
			_, err = typedrpc.Call(t.Context(), client, sum, pairOf{})
			is.New(t).NoErr(err)
			stream.Close()
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
		if r.Kind == typedrpc.KindCall {
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
	overTyped(t, func(t *testing.T, o over) {
		is := is.New(t)
		var j journal
		var sc scene
		mux := typedrpc.NewMux(j.logging("handler", "outer"), j.logging("handler", "inner"))
		typedrpc.HandleBidiStream(mux, talk, func(_ context.Context, _ string, s *typedrpc.Stream[string, string]) error {
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
		c, s := o.connect(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{
			Mux: sc.mux(), Interceptors: []typedrpc.Interceptor{j.logging("caller", "outer"), j.logging("caller", "inner")},
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
	overTyped(t, func(t *testing.T, o over) {
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
					typedrpc.HandleBidiStream(mux, talk, func(_ context.Context, _ string, s *typedrpc.Stream[string, string]) error {
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
					c, s := o.connect(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{Interceptors: callers})
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
	overTyped(t, func(t *testing.T, o over) {
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				is := is.New(t)
				sc := scene{ended: make(chan error, 10)}
				c, s := o.connect(t, &typedrpc.Server{Mux: sc.mux()}, nil)
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
	overTyped(t, func(t *testing.T, o over) {
		is := is.New(t)
		var sc scene
		c, s := o.connect(t, &typedrpc.Server{Mux: sc.mux()}, nil)
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
	overTyped(t, func(t *testing.T, o over) {
		is := is.New(t)
		sc := scene{ended: make(chan error, 10)}
		c, s := o.connect(t, &typedrpc.Server{Mux: sc.mux()}, nil)
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
