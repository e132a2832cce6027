package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/transfer"
)

var (
	gapDown  = typedrpc.NewServerStream[string, int]("gap.down")
	gapUp    = typedrpc.NewClientStream[struct{}, int, int]("gap.up")
	gapWait  = typedrpc.NewClientStream[struct{}, int, int]("gap.wait")
	gapBoth  = typedrpc.NewBidiStream[string, int, int]("gap.both")
	gapFetch = transfer.NewDownload[struct{}]("gap.fetch")
	gapStore = transfer.NewUpload[struct{}, struct{}]("gap.store")
	gapTopic = topic.New[string]("gap.topic", topic.WithPresence)
)

// gapMux has handlers that send one item and wait, and tell what their streams
// ended with.
func gapMux(ended chan<- error) *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, gapDown, func(ctx context.Context, how string, send func(int) error) error {
		if err := send(1); err != nil {
			return err
		}
		switch how {
		case "fail":
			return typedrpc.Errorf(typedrpc.Unavailable, "try again")
		case "shut down": // an answer of its own when the server ends the stream
			<-ctx.Done()
			return typedrpc.NotFound
		}
		<-ctx.Done()
		ended <- send(2)
		return ctx.Err()
	})
	typedrpc.Handle(mux, gapUp, func(_ context.Context, _ struct{}, items iter.Seq2[int, error]) (int, error) {
		n := 0
		for _, err := range items {
			if err != nil {
				ended <- err
				return 0, err
			}
			n++
		}
		return n, nil
	})
	typedrpc.Handle(mux, gapWait, func(ctx context.Context, _ struct{}, items iter.Seq2[int, error]) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	})
	typedrpc.Handle(mux, gapBoth, func(_ context.Context, _ string, s *typedrpc.Stream[int, int]) error {
		if err := s.Send(1); err != nil {
			return err
		}
		_, err := s.Recv()
		ended <- err
		return err
	})
	typedrpc.Handle(mux, gapFetch, func(_ context.Context, _ struct{}, w *transfer.Writer) error {
		return w.Send(io.MultiReader(strings.NewReader("begin"), never{}), nil)
	})
	typedrpc.Handle(mux, gapStore, func(_ context.Context, _ struct{}, r *transfer.Reader) (struct{}, error) {
		_, err := io.Copy(io.Discard, r)
		ended <- err
		return struct{}{}, err
	})
	return mux
}

// never reads nothing, slowly.
type never struct{}

func (never) Read(p []byte) (int, error) {
	time.Sleep(time.Second)
	return copy(p, "."), nil
}

// gapCallers are all that calls a stream: each returns the last error.
var gapCallers = map[string]func(ctx context.Context, c typedrpc.Caller) error{
	"Receive": func(ctx context.Context, c typedrpc.Caller) error {
		for _, err := range typedrpc.Receive(ctx, c, gapDown, "") {
			if err != nil {
				return err
			}
		}
		return nil
	},
	"Recv": func(ctx context.Context, c typedrpc.Caller) error {
		s, err := typedrpc.Open(ctx, c, gapBoth, "")
		for err == nil {
			_, err = s.Recv()
		}
		return err
	},
	"Send": func(ctx context.Context, c typedrpc.Caller) error {
		s, err := typedrpc.Open(ctx, c, gapBoth, "")
		if err != nil {
			return err
		}
		for err == nil {
			_, err = s.Recv()
		}
		return s.Send(1)
	},
	"SendAll": func(ctx context.Context, c typedrpc.Caller) error {
		_, err := typedrpc.SendAll(ctx, c, gapUp, struct{}{}, typedrpc.Items(func(yield func(int) bool) {
			for yield(1) {
				time.Sleep(time.Second)
			}
		}))
		return err
	},
	"SendAll, all sent": func(ctx context.Context, c typedrpc.Caller) error {
		_, err := typedrpc.SendAll(ctx, c, gapWait, struct{}{}, typedrpc.Items(func(yield func(int) bool) { yield(1) }))
		return err
	},
	"Subscribe": func(ctx context.Context, c typedrpc.Caller) error {
		for _, err := range topic.Subscribe(ctx, c, gapTopic, "") {
			if err != nil {
				return err
			}
		}
		return nil
	},
	"Presence": func(ctx context.Context, c typedrpc.Caller) error {
		for _, err := range topic.Watch(ctx, c, gapTopic, "") {
			if err != nil {
				return err
			}
		}
		return nil
	},
	"Download": func(ctx context.Context, c typedrpc.Caller) error {
		r, err := transfer.Receive(ctx, c, gapFetch, struct{}{}, nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(new(bytes.Buffer), r)
		return err
	},
	"Upload": func(ctx context.Context, c typedrpc.Caller) error {
		_, err := transfer.Send(ctx, c, gapStore, struct{}{}, never{}, nil)
		return err
	},
	"Receive, intercepted": func(ctx context.Context, c typedrpc.Caller) error {
		pass := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
			return next(ctx, r)
		}
		for _, err := range typedrpc.Receive(ctx, c.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{pass}}), gapDown, "") {
			if err != nil {
				return err
			}
		}
		return nil
	},
	"Recv, intercepted": func(ctx context.Context, c typedrpc.Caller) error {
		pass := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
			return next(ctx, r)
		}
		s, err := typedrpc.Open(ctx, c.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{pass}}), gapBoth, "")
		for err == nil {
			_, err = s.Recv()
		}
		return err
	},
}

// gapTown is a town whose server, and the client that is dialled, handle
// gapMux.
func gapTown(t *testing.T, d typedrpc.Dialect, ended chan error) (*lab.Town, *lab.Lab, *typedrpc.Conn) {
	t.Helper()
	l := lab.New()
	l.Mux = gapMux(ended)
	hub := new(topic.Hub)
	t.Cleanup(func() { hub.Close() })
	topic.Handle(l.Mux, hub, gapTopic, topic.Everybody)
	w := &lab.Town{Srv: l.Server}
	c := w.Dial(t, &typedrpc.DialOptions{Dialect: d, Backoff: lab.Steady, Mux: gapMux(ended)})
	t.Cleanup(func() { c.Close() })
	return w, l, c
}

// flying runs a caller until it returns.
func flying(ctx context.Context, c typedrpc.Caller, call func(context.Context, typedrpc.Caller) error) <-chan error {
	failed := make(chan error, 1)
	go func() { failed <- call(ctx, c) }()
	time.Sleep(time.Minute) // it is on its way, and idle
	return failed
}

func TestGap_lostSessionAtTheCaller(t *testing.T) {
	for name, call := range gapCallers {
		t.Run(name, func(t *testing.T) {
			lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
				is := is.New(t)
				w, _, c := gapTown(t, d, make(chan error, 10))
				failed := flying(t.Context(), c, call)
				w.Cable().Cut()
				err := <-failed
				is.True(errors.Is(err, typedrpc.Gap))
				is.True(errors.Is(err, typedrpc.Unavailable))
				is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
				is.True(strings.Contains(err.Error(), "the session was lost, items may be missing"))
				lab.Settled(t, c)
				is.NoErr(c.Close())
			})
		})
	}
}

// A server calls its client, too.
func TestGap_lostSessionAtAServerThatCalls(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		ended := make(chan error, 10)
		w, l, c := gapTown(t, d, ended)
		var far *typedrpc.Conn
		for far = range l.Conns() {
		}
		failed := flying(t.Context(), far, gapCallers["Receive"])
		w.Cable().Cut()
		is.True(errors.Is(<-failed, typedrpc.Gap))
		is.True(errors.Is(<-ended, typedrpc.Gap)) // the client's handler
		is.NoErr(c.Close())
	})
}

func TestGap_lostSessionAtTheHandler(t *testing.T) {
	for _, name := range []string{"Receive", "Recv", "SendAll", "Upload"} { // send, Recv, items, Reader
		t.Run(name, func(t *testing.T) {
			lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
				is := is.New(t)
				ended := make(chan error, 10)
				w, _, c := gapTown(t, d, ended)
				failed := flying(t.Context(), c, gapCallers[name])
				w.Cable().Cut()
				<-failed
				err := <-ended
				is.True(errors.Is(err, typedrpc.Gap))
				is.True(errors.Is(err, typedrpc.Unavailable))
				is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
				is.NoErr(c.Close())
			})
		})
	}
}

// The peer ends the stream itself, because it is going away.
func TestGap_peersShutdown(t *testing.T) {
	for _, how := range []string{"", "shut down"} {
		t.Run(how, func(t *testing.T) {
			lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
				is := is.New(t)
				ended := make(chan error, 10)
				_, l, c := gapTown(t, d, ended)
				failed := flying(t.Context(), c, func(ctx context.Context, c typedrpc.Caller) error {
					for _, err := range typedrpc.Receive(ctx, c, gapDown, how) {
						if err != nil {
							return err
						}
					}
					return nil
				})
				is.NoErr(l.Shutdown(t.Context()))
				err := <-failed
				is.True(errors.Is(err, typedrpc.Gap))
				is.True(errors.Is(err, typedrpc.Unavailable))
				is.Equal(typedrpc.OutcomeOf(err), typedrpc.Answered)
				is.True(strings.Contains(err.Error(), "shutting down, items may be missing"))
				if how == "" {
					is.True(!errors.Is(<-ended, typedrpc.Gap)) // at the side that shuts down it is none
				}
				is.NoErr(c.Close())
			})
		})
	}
}

// Ends that somebody meant.
func TestGap_isNone(t *testing.T) {
	receive := gapCallers["Receive"]
	handlers := func(t *testing.T, name string, end func(c, far *typedrpc.Conn)) {
		t.Run(name, func(t *testing.T) {
			lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
				is := is.New(t)
				ended := make(chan error, 10)
				_, l, c := gapTown(t, d, ended)
				var far *typedrpc.Conn
				for far = range l.Conns() {
				}
				down, both := flying(t.Context(), c, receive), flying(t.Context(), c, gapCallers["Recv"])
				end(c, far)
				for range 2 {
					err := <-ended
					is.True(err != nil)
					is.True(!errors.Is(err, typedrpc.Gap)) // the handler's
				}
				<-down
				<-both
				is.NoErr(c.Close())
			})
		})
	}
	callers := func(t *testing.T, name string, want typedrpc.Code, call func(ctx context.Context, c typedrpc.Caller) error, end func(c *typedrpc.Conn)) {
		t.Run(name, func(t *testing.T) {
			lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
				is := is.New(t)
				_, _, c := gapTown(t, d, make(chan error, 10))
				failed := flying(t.Context(), c, call)
				end(c)
				err := <-failed
				is.Equal(typedrpc.CodeOf(err), want)
				is.True(!errors.Is(err, typedrpc.Gap))
				is.NoErr(c.Close())
			})
		})
	}
	callers(t, "handler's error", typedrpc.Unavailable, func(ctx context.Context, c typedrpc.Caller) error {
		for _, err := range typedrpc.Receive(ctx, c, gapDown, "fail") {
			if err != nil {
				return err
			}
		}
		return nil
	}, func(*typedrpc.Conn) {})
	callers(t, "caller's deadline", typedrpc.DeadlineExceeded, func(ctx context.Context, c typedrpc.Caller) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return receive(ctx, c)
	}, func(*typedrpc.Conn) {})
	callers(t, "caller's Close", typedrpc.Unavailable, receive, func(c *typedrpc.Conn) { c.Close() })
	callers(t, "caller's Shutdown", typedrpc.Unavailable, receive, func(c *typedrpc.Conn) { c.Shutdown(context.Background()) })
	handlers(t, "handler's Close", func(_, far *typedrpc.Conn) { far.Close() })
	handlers(t, "handler's Shutdown", func(_, far *typedrpc.Conn) { far.Shutdown(context.Background()) })
	handlers(t, "peer's Shutdown", func(c, _ *typedrpc.Conn) { c.Shutdown(context.Background()) }) // it left
}

// What never left has lost nothing.
func TestGap_notOfWhatNeverLeft(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		w, l, c := gapTown(t, d, make(chan error, 10))
		w.Serve(nil)
		w.Cable().Cut()
		err := gapCallers["Receive"](t.Context(), c.With(typedrpc.CallOptions{FailFast: true}))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		is.True(!errors.Is(err, typedrpc.Gap))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		failed := flying(ctx, c, gapCallers["Receive"])
		w.Serve(l.Server)
		synctest.Wait()
		err = <-failed // it left on the next session, and lasted
		is.True(errors.Is(err, typedrpc.DeadlineExceeded))
		is.True(!errors.Is(err, typedrpc.Gap))
		is.NoErr(c.Close())
	})
}

// A handler passes on another stream's gap: its caller sees an answer.
func TestGap_doesNotCrossTheWire(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		mux := lab.Bidi(func(context.Context, string, *typedrpc.Stream[string, string]) error { return hook.SessionLost(nil) })
		c, _ := lab.Joined(t, d, mux, typedrpc.Limits{})
		s, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
		is.NoErr(err)
		_, err = s.Recv()
		is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable)
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.Answered)
		is.True(!errors.Is(err, typedrpc.Gap))
		is.NoErr(c.Close())
	})
}
