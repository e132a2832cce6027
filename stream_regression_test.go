package typedrpc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// Faults that streams and fragments had, each with what showed it.

// A caller that left in the middle of a fragmented answer dropped the rest of
// it, the last part too, and kept the call's place for ever.
func TestFragments_leavingAnAnswerFreesItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		p, c := rawClient(t, Binary, &Server{})
		ctx, cancel := context.WithCancel(t.Context())
		answered := make(chan error, 1)
		go func() {
			_, err := Call(ctx, c, flowCall, "")
			answered <- err
		}()
		call := p.got(wire.Call)[0]
		is.NoErr(p.send(wire.Frame{Type: wire.Result, Flags: wire.More, ID: call.ID, Payload: []byte(`"a`)}))
		synctest.Wait()
		cancel()
		is.True(errors.Is(<-answered, Canceled))
		is.Equal(len(p.got(wire.Cancel)), 0) // its handler has returned
		is.NoErr(p.send(wire.Frame{Type: wire.Chunk, ID: call.ID, Payload: []byte(`b"`)}))
		settled(t, c)
		is.True(p.alive())
	})
}

// An item that CANCEL cut off, and then a large RESULT, which ends it, was taken
// for two messages at once.
func TestFragments_resultEndsAnItem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		p, c := rawClient(t, Binary, &Server{})
		s, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		id := p.got(wire.Call)[0].ID
		is.NoErr(p.send(
			wire.Frame{Type: wire.Item, Flags: wire.More, ID: id, Payload: []byte(`"a`)},
			wire.Frame{Type: wire.Result, Flags: wire.More, ID: id, Payload: []byte(`nu`)},
			wire.Frame{Type: wire.Chunk, ID: id, Payload: []byte(`ll`)},
		))
		_, err = s.Recv()
		is.Equal(err, io.EOF)
		is.True(p.alive())
		settled(t, c)
	})
}

// What an interceptor's function said of an item reached the caller, though it
// was no *Error and so not meant for it.
func TestOnItem_foreignErrorsStayHere(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		mux := bidi(echoItems).With(func(ctx context.Context, r *Request, next RawHandler) (Raw, error) {
			r.OnItem(func(Raw, bool) error { return errors.New("the password is swordfish") })
			return next(ctx, r)
		})
		guarded := NewBidiStream[string, string, string]("regression.guarded")
		HandleBidiStream(mux, guarded, echoItems)
		var log strings.Builder
		srv := &Server{Mux: mux, Logger: slog.New(slog.NewTextHandler(&log, nil))}
		c, s, err := dialPipe(t.Context(), srv, &DialOptions{Dialect: d})
		is.NoErr(err)
		defer c.Close()
		stream, err := Open(t.Context(), c, guarded, "")
		is.NoErr(err)
		is.NoErr(stream.Send("x"))
		_, err = stream.Recv()
		is.Equal(CodeOf(err), Internal)
		is.True(!strings.Contains(err.Error(), "swordfish"))
		is.True(strings.Contains(log.String(), "swordfish"))
		settled(t, c, s)
	})
}

// A handler's Close left what was queued to be sent.
func TestStream_handlersCloseDropsWhatHasNotLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		mux := bidi(func(_ context.Context, _ string, s *Stream[string, string]) error {
			c := s.x.conn
			for range 3 {
				s.Send("x")
			}
			c.mu.Lock()
			queued := s.x.line.pieces.len() // the writer may have been quicker
			c.mu.Unlock()
			s.Close()
			c.mu.Lock()
			defer c.mu.Unlock()
			if s.x.line.pieces.len() != 0 || s.x.flow.used != 0 {
				t.Errorf("%d items of %d are queued still", s.x.line.pieces.len(), queued)
			}
			return nil
		})
		c, s := joined(t, Binary, mux, Limits{})
		stream, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		for _, err := range stream.All() {
			is.NoErr(err)
		}
		settled(t, c, s)
	})
}

// A panic of an interceptor's function ended the process when the item was
// forwarded by a goroutine of our own.
func TestForward_interceptorsFunctionPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		back, _, err := dialPipe(t.Context(), &Server{Mux: bidi(echoItems)}, nil)
		is.NoErr(err)
		defer back.Close()
		mux := NewMux(func(ctx context.Context, r *Request, next RawHandler) (Raw, error) {
			r.OnItem(func(Raw, bool) error { panic("of a function") })
			return next(ctx, r)
		})
		mux.HandleFallback(func(ctx context.Context, r *Request) (Raw, error) {
			if _, err := Forward(ctx, back, r); err != nil {
				_, again := Forward(ctx, back, r) // its items are gone
				is.Equal(CodeOf(again), FailedPrecondition)
				return nil, err
			}
			return nil, nil
		})
		c, s, err := dialPipe(t.Context(), &Server{Mux: mux, Logger: slog.New(slog.DiscardHandler)}, nil)
		is.NoErr(err)
		defer c.Close()
		stream, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		is.NoErr(stream.Send("x"))
		_, err = stream.Recv()
		is.Equal(CodeOf(err), Internal)
		settled(t, c, s)
	})
}

// Many streams with one large item each kept to the rules and failed at the
// receiver's budget.
func TestFlow_largeItemsOfManyStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		free := make(chan struct{})
		mux := bidi(func(ctx context.Context, req string, s *Stream[string, string]) error {
			<-free
			return echoItems(ctx, req, s)
		})
		c, s := joined(t, Binary, mux, Limits{MaxMessage: 400_000, MaxBuffered: 800_000})
		failed := make(chan error, 20)
		for range 20 {
			go func() {
				stream, err := Open(t.Context(), c, flowBoth, "")
				if err == nil {
					err = stream.Send(letters(350_000))
				}
				if err == nil {
					stream.CloseSend()
					_, err = stream.Recv()
				}
				if err == nil {
					stream.Close()
				}
				failed <- err
			}()
		}
		time.Sleep(time.Second)
		close(free)
		for range 20 {
			is.NoErr(<-failed)
		}
		settled(t, c, s)
	})
}

// A peer that announces a window without end, and never credits, made a sender
// keep accounts without end.
func TestFlow_hugeWindowsAreNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		c := newConn(t.Context(), config{limits: Limits{MaxBuffered: 1 << 20}})
		c.config.logger = slog.New(slog.DiscardHandler)
		c.opened(nil, wire.Limits{Message: 1 << 20, Calls: 1 << 10, Window: 1 << 40, Budget: 1 << 40, Depth: 64}, features{})
		is.Equal(c.notify.window, mostWindow)
		is.Equal(c.peer.Budget, uint64(mostBudget))
	})
}
