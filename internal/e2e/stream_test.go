package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
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
	streamIn    = typedrpc.NewClientStream[struct{}, part, int]("stream.in")
	pingPongs   = typedrpc.NewBidiStream[struct{}, part, part]("stream.pingpong")
	countTo     = typedrpc.NewServerStream[positive, int]("stream.count")
	addUp       = typedrpc.NewClientStream[positive, positive, int]("stream.add")
	talk        = typedrpc.NewBidiStream[string, string, string]("stream.chat")
	smallItems  = typedrpc.NewBidiStream[string, string, string]("stream.small", typedrpc.MaxSize(100))
	turns       = typedrpc.NewServerStream[int, int]("stream.turns", typedrpc.Serial)
	streamFault = typedrpc.NewFault[int]("so-far", 1234)
)

func sleeping(timeout time.Duration) typedrpc.BidiStream[string, string, string] {
	return typedrpc.NewBidiStream[string, string, string]("stream.sleeping", typedrpc.Timeout(timeout))
}

// scene is one cell of the table: c calls, mux is its peer's.
type scene struct {
	c, peer *typedrpc.Conn
	ended   chan error // why a handler's context ended
}

// overStreams runs a test over every transport and dialect, and with either
// side as the caller.
func overStreams(t *testing.T, test func(t *testing.T, s scene)) {
	t.Helper()
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		for _, up := range []bool{true, false} {
			name := "from the server"
			if up {
				name = "from the client"
			}
			t.Run(name, func(t *testing.T) {
				s := scene{ended: make(chan error, 100)}
				mux := s.mux()
				limits := typedrpc.Limits{MaxMessage: 100_000}
				s.c, s.peer = o.Connect(t, &typedrpc.Server{Mux: mux, Limits: limits}, &typedrpc.DialOptions{Mux: mux, Limits: limits})
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
		deadline := time.Now().Add(time.Minute)
		for left := lab.Unsettled(c); left != ""; left = lab.Unsettled(c) {
			if time.Now().After(deadline) {
				t.Fatal("left: " + left)
			}
			<-time.After(time.Millisecond)
		}
	}
}

func (sc *scene) mux() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, streamOut, func(_ context.Context, sizes []int, send func(part) error) error {
		for _, n := range sizes {
			if err := send(partOf(n)); err != nil {
				return err
			}
		}
		return nil
	})
	typedrpc.Handle(mux, streamIn, func(_ context.Context, _ struct{}, items iter.Seq2[part, error]) (int, error) {
		n := 0
		for p, err := range items {
			if err != nil {
				return 0, err
			}
			n += len(p.Body)
		}
		return n, nil
	})
	typedrpc.Handle(mux, pingPongs, func(_ context.Context, _ struct{}, s *typedrpc.Stream[part, part]) error {
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
	typedrpc.Handle(mux, countTo, func(ctx context.Context, n positive, send func(int) error) error {
		for i := range int(n) {
			if err := send(i); err != nil {
				sc.ended <- err
				return err
			}
		}
		return streamFault.Errorf(int(n), "%d so far", n)
	})
	typedrpc.Handle(mux, addUp, func(ctx context.Context, most positive, items iter.Seq2[positive, error]) (int, error) {
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
			r.ReplyMetadata.Set("kind", r.Kind.String())
			r.ReplyMetadata.Set("echo", r.Metadata["say"])
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
	typedrpc.Handle(mux, talk, converse)
	typedrpc.Handle(mux, sleeping(time.Hour), converse)
	typedrpc.Handle(mux, smallItems, converse)
	typedrpc.Handle(mux, lab.Sum, lab.HandleSum)
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

		n, err := typedrpc.SendAll(t.Context(), s.c, streamIn, struct{}{}, typedrpc.Items(func(yield func(part) bool) {
			for _, n := range sizesUp {
				if !yield(partOf(n)) {
					return
				}
			}
		}))
		is.NoErr(err)
		is.Equal(n, 27182+8+1828+45904) // client stream

		stream, err := typedrpc.Open(t.Context(), s.c, pingPongs, struct{}{})
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
		n, err := typedrpc.SendAll(t.Context(), s.c, streamIn, struct{}{}, func(func(part, error) bool) {})
		is.NoErr(err)
		is.Equal(n, 0)
		stream, err := typedrpc.Open(t.Context(), s.c, pingPongs, struct{}{})
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
	case <-time.After(time.Minute):
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
					_, err := typedrpc.Call(t.Context(), s.c, lab.Sum, lab.Pair{}) // the CALL before it has left
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
		check := func(t *testing.T, open func(time.Duration) (*typedrpc.Stream[string, string], error)) {
			is := is.New(t)
			for patience := 20 * time.Millisecond; patience < time.Minute; patience *= 2 {
				stream, err := open(patience)
				if err == nil {
					_, err = stream.Recv()
				}
				is.True(errors.Is(err, context.DeadlineExceeded))
				select {
				case err = <-s.ended:
					is.True(errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled))
					return
				case <-time.After(patience): // on a busy machine it may not have begun in its time
				}
			}
			t.Fatal("no handler's context has ended")
		}
		t.Run("context", func(t *testing.T) {
			check(t, func(patience time.Duration) (*typedrpc.Stream[string, string], error) {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				t.Cleanup(cancel)
				return typedrpc.Open(ctx, s.c, talk, "sleep")
			})
		})
		t.Run("trait", func(t *testing.T) {
			check(t, func(patience time.Duration) (*typedrpc.Stream[string, string], error) {
				return typedrpc.Open(t.Context(), s.c, sleeping(patience), "sleep")
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
				e := lab.AsError(t, err)
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
			stream.Cancel()
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
			stream.Cancel()
			stream.Cancel()
			is.True(errors.Is(<-received, typedrpc.Canceled))
			is.True(errors.Is(stream.Send("x"), typedrpc.Canceled))
			s.canceled(t)
		})
	})
}
