package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// What an interceptor's function said of an item reached the caller, though it
// was no *Error and so not meant for it.
func TestOnItem_foreignErrorsStayHere(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		mux := lab.Bidi(lab.EchoItems).Group(func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
			r.OnItem(func(typedrpc.Raw, bool) error { return errors.New("the password is swordfish") })
			return next(ctx, r)
		})
		guarded := typedrpc.NewBidiStream[string, string, string]("test.guarded")
		typedrpc.Handle(mux, guarded, lab.EchoItems)
		var log strings.Builder
		srv := &typedrpc.Server{Mux: mux, Logger: slog.New(slog.NewTextHandler(&log, nil))}
		c, s, err := typedrpctest.Dial(srv, &typedrpc.DialOptions{Dialect: d})
		is.NoErr(err)
		defer c.Close()
		stream, err := typedrpc.Open(t.Context(), c, guarded, "")
		is.NoErr(err)
		is.NoErr(stream.Send("x"))
		_, err = stream.Recv()
		is.Equal(typedrpc.CodeOf(err), typedrpc.Internal)
		is.True(!strings.Contains(err.Error(), "swordfish"))
		is.True(strings.Contains(log.String(), "swordfish"))
		lab.Settled(t, c, s)
	})
}

// A panic of an interceptor's function ended the process when the item was
// forwarded by a goroutine of our own.
func TestForward_interceptorsFunctionPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		back, _, err := typedrpctest.Dial(&typedrpc.Server{Mux: lab.Bidi(lab.EchoItems)}, nil)
		is.NoErr(err)
		defer back.Close()
		mux := typedrpc.NewMux(func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
			r.OnItem(func(typedrpc.Raw, bool) error { panic("of a function") })
			return next(ctx, r)
		})
		mux.HandleFallback(func(ctx context.Context, r *typedrpc.Request) (typedrpc.Raw, error) {
			if _, err := typedrpc.Forward(ctx, back, r); err != nil {
				_, again := typedrpc.Forward(ctx, back, r) // its items are gone
				is.Equal(typedrpc.CodeOf(again), typedrpc.FailedPrecondition)
				return nil, err
			}
			return nil, nil
		})
		c, s, err := typedrpctest.Dial(&typedrpc.Server{Mux: mux, Logger: slog.New(slog.DiscardHandler)}, nil)
		is.NoErr(err)
		defer c.Close()
		stream, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
		is.NoErr(err)
		is.NoErr(stream.Send("x"))
		_, err = stream.Recv()
		is.Equal(typedrpc.CodeOf(err), typedrpc.Internal)
		lab.Settled(t, c, s)
	})
}

// An interceptor that calls next again must not go on with a loop that was
// left.
func TestReceive_interceptorCallsNextAgainAfterBreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.FlowDown, func(_ context.Context, n int, send func(string) error) error {
			for range n {
				if err := send("x"); err != nil {
					return err
				}
			}
			return nil
		})
		c, s := lab.Joined(t, typedrpc.Binary, mux, typedrpc.Limits{})
		again := c.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
			if raw, err := next(ctx, r); err == nil {
				return raw, nil
			}
			return next(ctx, r)
		}}})
		n := 0
		for _, err := range typedrpc.Receive(t.Context(), again, lab.FlowDown, 5) {
			is.NoErr(err)
			if n++; n == 2 {
				break
			}
		}
		is.Equal(n, 2)
		lab.Settled(t, c, s)
	})
}

func TestOpen_replyMetadata(t *testing.T) {
	pass := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		return next(ctx, r)
	}
	for name, more := range map[string][]typedrpc.Interceptor{"plain": nil, "intercepted": {pass}} {
		testkit.Bubble(t, name, func(t *testing.T, is *is.I) {
			mux := lab.Bidi(func(ctx context.Context, _ string, s *typedrpc.Stream[string, string]) error {
				typedrpc.RequestFrom(ctx).ReplyMetadata.Set("k", "v")
				return nil
			})
			c, s := lab.Joined(t, typedrpc.Binary, mux, typedrpc.Limits{})
			for range 20 {
				var reply typedrpc.Metadata
				stream, err := typedrpc.Open(t.Context(), c.With(typedrpc.CallOptions{ReplyMetadata: &reply, Interceptors: more}), lab.FlowBoth, "")
				is.NoErr(err)
				_, err = stream.Recv()
				is.Equal(err, io.EOF)
				is.Equal(reply["k"], "v")
			}
			lab.Settled(t, c, s)
		})
	}
}

// OnItem's functions see the items of one direction one after another, however
// many goroutines send and receive, and in the order of the items.
func TestOnItem_oneAfterAnother(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		var up, down int // the race detector looks on
		watch := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
			r.OnItem(func(_ typedrpc.Raw, sent bool) error {
				if sent {
					up++
				} else {
					down++
				}
				return nil
			})
			return next(ctx, r)
		}
		mux := lab.Bidi(lab.EchoItems)
		c, s := lab.Joined(t, d, mux, typedrpc.Limits{})
		stream, err := typedrpc.Open(t.Context(), c.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{watch}}), lab.FlowBoth, "")
		is.NoErr(err)
		var senders, receivers sync.WaitGroup
		for range 4 {
			senders.Go(func() {
				for range 200 {
					if err := stream.Send("x"); err != nil {
						t.Error(err)
					}
				}
			})
			receivers.Go(func() {
				for _, err := range stream.All() {
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		senders.Wait()
		stream.CloseSend()
		receivers.Wait()
		is.Equal(up, 800)
		is.Equal(down, 800)
		lab.Settled(t, c, s)
	})
}

// A function that panics does so on its caller's goroutine, who may recover; the stream's
// interceptors, on theirs, are not kept from their end.
func TestOnItem_panicsAtItsCaller(t *testing.T) {
	for _, sent := range []bool{false, true} {
		for how, end := range everyEnd {
			t.Run(fmt.Sprintf("%s/sent=%v", how, sent), func(t *testing.T) {
				is := is.New(t)
				c, _, err := typedrpctest.Dial(&typedrpc.Server{Mux: lab.Bidi(lab.EchoItems)}, nil) // in no bubble: it would wait for a lock
				is.NoErr(err)
				defer c.Close()
				returned := make(chan struct{})
				looks := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
					defer close(returned)
					r.OnItem(func(_ typedrpc.Raw, out bool) error {
						if out == sent {
							end()
						}
						return nil
					})
					return next(ctx, r)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				s, err := typedrpc.Open(ctx, c.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{looks}}), lab.FlowBoth, "")
				is.NoErr(err)
				over := make(chan struct{})
				go func() {
					defer close(over)
					defer func() { recover() }()
					if s.Send("x") == nil {
						s.Recv()
					}
				}()
				<-over
				s.Cancel()
				select {
				case <-returned:
				case <-ctx.Done():
					t.Error("the interceptor has not returned")
				}
			})
		}
	}
}
