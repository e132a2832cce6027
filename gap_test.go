package typedrpc

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
)

var (
	gapDown  = NewServerStream[string, int]("gap.down")
	gapUp    = NewClientStream[Empty, int, int]("gap.up")
	gapWait  = NewClientStream[Empty, int, int]("gap.wait")
	gapBoth  = NewBidiStream[string, int, int]("gap.both")
	gapFetch = NewServerStream[Empty, Bytes]("gap.fetch")
	gapStore = NewClientStream[Empty, Bytes, Empty]("gap.store")
	gapTopic = NewTopic[string]("gap.topic")
)

// gapMux has handlers that send one item and wait, and tell what their streams
// ended with.
func gapMux(ended chan<- error) *Mux {
	mux := NewMux()
	HandleServerStream(mux, gapDown, func(ctx context.Context, how string, send func(int) error) error {
		if err := send(1); err != nil {
			return err
		}
		switch how {
		case "fail":
			return Errorf(Unavailable, "try again")
		case "shut down": // an answer of its own when the server ends the stream
			<-ctx.Done()
			return NotFound
		}
		<-ctx.Done()
		ended <- send(2)
		return ctx.Err()
	})
	HandleClientStream(mux, gapUp, func(_ context.Context, _ Empty, items iter.Seq2[int, error]) (int, error) {
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
	HandleClientStream(mux, gapWait, func(ctx context.Context, _ Empty, items iter.Seq2[int, error]) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	})
	HandleBidiStream(mux, gapBoth, func(_ context.Context, _ string, s *Stream[int, int]) error {
		if err := s.Send(1); err != nil {
			return err
		}
		_, err := s.Recv()
		ended <- err
		return err
	})
	HandleServerStream(mux, gapFetch, func(_ context.Context, _ Empty, send func(Bytes) error) error {
		return SendReader(send, io.MultiReader(strings.NewReader("begin"), never{}), nil)
	})
	HandleClientStream(mux, gapStore, func(_ context.Context, _ Empty, items iter.Seq2[Bytes, error]) (Empty, error) {
		r, err := NewReader(items, nil)
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		ended <- err
		return Empty{}, err
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
var gapCallers = map[string]func(ctx context.Context, c Caller) error{
	"Receive": func(ctx context.Context, c Caller) error {
		for _, err := range Receive(ctx, c, gapDown, "") {
			if err != nil {
				return err
			}
		}
		return nil
	},
	"Recv": func(ctx context.Context, c Caller) error {
		s, err := Open(ctx, c, gapBoth, "")
		for err == nil {
			_, err = s.Recv()
		}
		return err
	},
	"Send": func(ctx context.Context, c Caller) error {
		s, err := Open(ctx, c, gapBoth, "")
		if err != nil {
			return err
		}
		for err == nil {
			_, err = s.Recv()
		}
		return s.Send(1)
	},
	"SendAll": func(ctx context.Context, c Caller) error {
		_, err := SendAll(ctx, c, gapUp, Empty{}, Items(func(yield func(int) bool) {
			for yield(1) {
				time.Sleep(time.Second)
			}
		}))
		return err
	},
	"SendAll, all sent": func(ctx context.Context, c Caller) error {
		_, err := SendAll(ctx, c, gapWait, Empty{}, Items(func(yield func(int) bool) { yield(1) }))
		return err
	},
	"Subscribe": func(ctx context.Context, c Caller) error {
		for _, err := range Subscribe(ctx, c, gapTopic, "") {
			if err != nil {
				return err
			}
		}
		return nil
	},
	"Presence": func(ctx context.Context, c Caller) error {
		for _, err := range Presence(ctx, c, gapTopic, "") {
			if err != nil {
				return err
			}
		}
		return nil
	},
	"Download": func(ctx context.Context, c Caller) error {
		r, err := Download(ctx, c, gapFetch, Empty{}, nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(new(bytes.Buffer), r)
		return err
	},
	"Upload": func(ctx context.Context, c Caller) error {
		_, err := Upload(ctx, c, gapStore, Empty{}, never{}, nil)
		return err
	},
	"Receive, intercepted": func(ctx context.Context, c Caller) error {
		pass := func(ctx context.Context, r *Request, next RawHandler) (Raw, error) { return next(ctx, r) }
		for _, err := range Receive(ctx, c.With(CallOptions{Interceptors: []Interceptor{pass}}), gapDown, "") {
			if err != nil {
				return err
			}
		}
		return nil
	},
	"Recv, intercepted": func(ctx context.Context, c Caller) error {
		pass := func(ctx context.Context, r *Request, next RawHandler) (Raw, error) { return next(ctx, r) }
		s, err := Open(ctx, c.With(CallOptions{Interceptors: []Interceptor{pass}}), gapBoth, "")
		for err == nil {
			_, err = s.Recv()
		}
		return err
	},
}

// gapTown is a town whose server, and the client that is dialled, handle
// gapMux.
func gapTown(t *testing.T, d Dialect, ended chan error) (*town, *lab, *Conn) {
	t.Helper()
	l := newLab()
	l.Mux = gapMux(ended)
	hub := NewHub(nil)
	t.Cleanup(func() { hub.Close() })
	HandleTopic(l.Mux, hub, gapTopic, nil)
	w := &town{srv: l.Server}
	c := w.dial(t, &DialOptions{Dialect: d, Backoff: steady, Mux: gapMux(ended)})
	t.Cleanup(func() { c.Close() })
	return w, l, c
}

// flying runs a caller until it returns.
func flying(ctx context.Context, c Caller, call func(context.Context, Caller) error) <-chan error {
	failed := make(chan error, 1)
	go func() { failed <- call(ctx, c) }()
	time.Sleep(time.Minute) // it is on its way, and idle
	return failed
}

func TestGap_lostSessionAtTheCaller(t *testing.T) {
	for name, call := range gapCallers {
		t.Run(name, func(t *testing.T) {
			bothDialects(t, func(t *testing.T, d Dialect) {
				is := is.New(t)
				w, _, c := gapTown(t, d, make(chan error, 10))
				failed := flying(t.Context(), c, call)
				w.cable().cut()
				err := <-failed
				is.True(errors.Is(err, Gap))
				is.True(errors.Is(err, Unavailable))
				is.Equal(OutcomeOf(err), MayHaveRun)
				is.True(strings.Contains(err.Error(), "the session was lost, items may be missing"))
				settled(t, c)
				is.NoErr(c.Close())
			})
		})
	}
}

// A server calls its client, too.
func TestGap_lostSessionAtAServerThatCalls(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		ended := make(chan error, 10)
		w, l, c := gapTown(t, d, ended)
		var far *Conn
		for far = range l.Conns() {
		}
		failed := flying(t.Context(), far, gapCallers["Receive"])
		w.cable().cut()
		is.True(errors.Is(<-failed, Gap))
		is.True(errors.Is(<-ended, Gap)) // the client's handler
		is.NoErr(c.Close())
	})
}

func TestGap_lostSessionAtTheHandler(t *testing.T) {
	for _, name := range []string{"Receive", "Recv", "SendAll", "Upload"} { // send, Recv, items, Reader
		t.Run(name, func(t *testing.T) {
			bothDialects(t, func(t *testing.T, d Dialect) {
				is := is.New(t)
				ended := make(chan error, 10)
				w, _, c := gapTown(t, d, ended)
				failed := flying(t.Context(), c, gapCallers[name])
				w.cable().cut()
				<-failed
				err := <-ended
				is.True(errors.Is(err, Gap))
				is.True(errors.Is(err, Unavailable))
				is.Equal(OutcomeOf(err), MayHaveRun)
				is.NoErr(c.Close())
			})
		})
	}
}

// The peer ends the stream itself, because it is going away.
func TestGap_peersShutdown(t *testing.T) {
	for _, how := range []string{"", "shut down"} {
		t.Run(how, func(t *testing.T) {
			bothDialects(t, func(t *testing.T, d Dialect) {
				is := is.New(t)
				ended := make(chan error, 10)
				_, l, c := gapTown(t, d, ended)
				failed := flying(t.Context(), c, func(ctx context.Context, c Caller) error {
					for _, err := range Receive(ctx, c, gapDown, how) {
						if err != nil {
							return err
						}
					}
					return nil
				})
				is.NoErr(l.Shutdown(t.Context()))
				err := <-failed
				is.True(errors.Is(err, Gap))
				is.True(errors.Is(err, Unavailable))
				is.Equal(OutcomeOf(err), Answered)
				is.True(strings.Contains(err.Error(), "shutting down, items may be missing"))
				if how == "" {
					is.True(!errors.Is(<-ended, Gap)) // at the side that shuts down it is none
				}
				is.NoErr(c.Close())
			})
		})
	}
}

// Ends that somebody meant.
func TestGap_isNone(t *testing.T) {
	receive := gapCallers["Receive"]
	handlers := func(t *testing.T, name string, end func(c, far *Conn)) {
		t.Run(name, func(t *testing.T) {
			bothDialects(t, func(t *testing.T, d Dialect) {
				is := is.New(t)
				ended := make(chan error, 10)
				_, l, c := gapTown(t, d, ended)
				var far *Conn
				for far = range l.Conns() {
				}
				down, both := flying(t.Context(), c, receive), flying(t.Context(), c, gapCallers["Recv"])
				end(c, far)
				for range 2 {
					err := <-ended
					is.True(err != nil)
					is.True(!errors.Is(err, Gap)) // the handler's
				}
				<-down
				<-both
				is.NoErr(c.Close())
			})
		})
	}
	callers := func(t *testing.T, name string, want Code, call func(ctx context.Context, c Caller) error, end func(c *Conn)) {
		t.Run(name, func(t *testing.T) {
			bothDialects(t, func(t *testing.T, d Dialect) {
				is := is.New(t)
				_, _, c := gapTown(t, d, make(chan error, 10))
				failed := flying(t.Context(), c, call)
				end(c)
				err := <-failed
				is.Equal(CodeOf(err), want)
				is.True(!errors.Is(err, Gap))
				is.NoErr(c.Close())
			})
		})
	}
	callers(t, "handler's error", Unavailable, func(ctx context.Context, c Caller) error {
		for _, err := range Receive(ctx, c, gapDown, "fail") {
			if err != nil {
				return err
			}
		}
		return nil
	}, func(*Conn) {})
	callers(t, "caller's deadline", DeadlineExceeded, func(ctx context.Context, c Caller) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return receive(ctx, c)
	}, func(*Conn) {})
	callers(t, "caller's Close", Unavailable, receive, func(c *Conn) { c.Close() })
	callers(t, "caller's Shutdown", Unavailable, receive, func(c *Conn) { c.Shutdown(context.Background()) })
	handlers(t, "handler's Close", func(_, far *Conn) { far.Close() })
	handlers(t, "handler's Shutdown", func(_, far *Conn) { far.Shutdown(context.Background()) })
	handlers(t, "peer's Shutdown", func(c, _ *Conn) { c.Shutdown(context.Background()) }) // it left
}

// What never left has lost nothing.
func TestGap_notOfWhatNeverLeft(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		w, l, c := gapTown(t, d, make(chan error, 10))
		w.serve(nil)
		w.cable().cut()
		err := gapCallers["Receive"](t.Context(), c.With(CallOptions{FailFast: true}))
		is.Equal(OutcomeOf(err), NotSent)
		is.True(!errors.Is(err, Gap))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		failed := flying(ctx, c, gapCallers["Receive"])
		w.serve(l.Server)
		synctest.Wait()
		err = <-failed // it left on the next session, and lasted
		is.True(errors.Is(err, DeadlineExceeded))
		is.True(!errors.Is(err, Gap))
		is.NoErr(c.Close())
	})
}

// A handler passes on another stream's gap: its caller sees an answer.
func TestGap_doesNotCrossTheWire(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		mux := bidi(func(context.Context, string, *Stream[string, string]) error { return sessionLost(nil) })
		c, _ := joined(t, d, mux, Limits{})
		s, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		_, err = s.Recv()
		is.Equal(CodeOf(err), Unavailable)
		is.Equal(OutcomeOf(err), Answered)
		is.True(!errors.Is(err, Gap))
		is.NoErr(c.Close())
	})
}
