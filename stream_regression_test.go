package typedrpc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
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

// A client whose own window is larger than the server's must not take it for
// the server's while its CALL has not left.
func TestFlow_windowBeforeTheCallLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		p, c, again := rawServer(t, wire.Limits{Window: 1000}, &DialOptions{Limits: Limits{Window: 1 << 20}})
		p.t.Kill()
		synctest.Wait()
		stream, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		go func() {
			for range 100 {
				stream.Send(letters(100))
			}
		}()
		p = again()
		is.Equal(len(p.got(wire.Item)), 1000/(100+2+64)) // the server's window
		stream.Close()
		is.NoErr(p.send(wire.Frame{Type: wire.Fail, ID: 1, Code: 1}))
		synctest.Wait()
		settled(t, c)
	})
}

// An item may be offered before anything else has run.
func TestFlow_itemsBeforeTheCallLeft(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		mux := bidi(echoItems)
		srv := &Server{Mux: mux, Limits: Limits{Window: 1000}}
		c, s, err := dialPipe(t.Context(), srv, &DialOptions{Dialect: d, Limits: Limits{Window: 1 << 20}})
		is.NoErr(err)
		defer c.Close()
		for range 20 {
			stream, err := Open(t.Context(), c, flowBoth, "")
			is.NoErr(err)
			go func() {
				for range 500 {
					stream.Send(letters(100))
				}
				stream.CloseSend()
			}()
			n := 0
			for _, err := range stream.All() {
				is.NoErr(err)
				n++
			}
			is.Equal(n, 500)
		}
		settled(t, c, s)
	})
}

func TestStream_outcomeOfOneThatNeverLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		l.Mux = bidi(lingers)
		w := &town{srv: l.Server}
		c := w.dial(t, nil)
		defer c.Close()
		w.serve(nil)
		w.cable().cut()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		stream, err := Open(ctx, c, flowBoth, "")
		is.NoErr(err)
		_, err = stream.Recv()
		is.True(errors.Is(err, DeadlineExceeded))
		is.Equal(OutcomeOf(err), NotSent) // there was no link
		is.True(errors.Is(stream.Send("x"), DeadlineExceeded))
		for _, err = range Receive(ctx, c, flowDown, 1) {
		}
		is.True(errors.Is(err, DeadlineExceeded))
		is.Equal(OutcomeOf(err), NotSent)
	})
}

func TestStream_contextFreesWhatWasNotReceived(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		mux := bidi(func(_ context.Context, _ string, s *Stream[string, string]) error {
			for range 10 {
				if err := s.Send("unread"); err != nil {
					return err
				}
			}
			return nil
		})
		c, s := joined(t, d, mux, Limits{})
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := Open(ctx, c, flowBoth, "")
		is.NoErr(err)
		synctest.Wait() // it has ended
		is.True(c.unread > 0)
		cancel()
		synctest.Wait()
		is.Equal(c.unread, 0) // as Open says
		_, err = stream.Recv()
		is.True(errors.Is(err, Canceled))
		settled(t, c, s)
	})
}

func TestStream_creditAfterTheLastItem(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		mux := bidi(func(ctx context.Context, _ string, s *Stream[string, string]) error {
			for range s.All() {
			}
			return lingers(ctx, "", s) // a download after an upload
		})
		c, s := joined(t, d, mux, Limits{})
		stream, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		for range 100 {
			is.NoErr(stream.Send(letters(500)))
		}
		stream.CloseSend()
		synctest.Wait()
		is.Equal(c.sentItems, 0) // all was taken; it counts in what other streams may send
		stream.Close()
		settled(t, c, s)
	})
}

// A handler that closes its stream ends a Send that waits for the budget of
// the connection, and not of the stream.
func TestStream_closeEndsSendThatWaitsForTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		sent := make(chan error, 1)
		mux := bidi(func(ctx context.Context, req string, s *Stream[string, string]) error {
			if req == "fill" {
				s.Send(letters(900))
				return lingers(ctx, "", s)
			}
			s.Send("first") // one may always be out
			go func() { sent <- s.Send(letters(500)) }()
			synctest.Wait()
			s.Close()
			return lingers(ctx, "", s)
		})
		c, s := joined(t, Binary, mux, Limits{MaxBuffered: 1000})
		one, err := Open(t.Context(), c, flowBoth, "fill")
		is.NoErr(err)
		synctest.Wait()
		two, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		select {
		case err = <-sent:
		case <-time.After(500 * time.Millisecond): // before anything else moves
			t.Error("Send still waits")
		}
		is.True(errors.Is(err, Canceled))
		one.Close()
		two.Close()
		settled(t, c, s)
	})
}

func TestStream_handlersReturnAfterTheConnectionClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		release := make(chan struct{})
		var left sync.WaitGroup
		mux := bidi(func(context.Context, string, *Stream[string, string]) error {
			defer left.Done()
			<-release
			return nil
		})
		c, s := joined(t, Binary, mux, Limits{MaxBuffered: 2000})
		for range 5 {
			left.Add(1)
			_, err := Open(t.Context(), c, flowBoth, "")
			is.NoErr(err)
		}
		synctest.Wait()
		is.NoErr(s.Close())
		is.NoErr(c.Close())
		time.Sleep(time.Minute)
		close(release)
		left.Wait()
		settled(t, s, c) // and the bubble sees that nobody waits
	})
}

func TestStream_shutdownEndsThoseThatHaveNotLeft(t *testing.T) {
	bubble(t, "queued", func(t *testing.T, is *is.I) {
		mux := bidi(lingers)
		c, _ := joined(t, Binary, mux, Limits{})
		stream, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		is.NoErr(c.Shutdown(ctx))
		_, err = stream.Recv()
		is.True(errors.Is(err, Unavailable))
	})
	bubble(t, "waiting for a place", func(t *testing.T, is *is.I) {
		mux := bidi(lingers)
		c, _ := joined(t, Binary, mux, Limits{MaxCalls: 1})
		one, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		two, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		call := Go(t.Context(), c, flowCall, "behind them")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		is.NoErr(c.Shutdown(ctx))
		for _, stream := range []*Stream[string, string]{one, two} {
			_, err = stream.Recv()
			is.True(errors.Is(err, Unavailable))
		}
		got, err := call.Await(t.Context())
		is.NoErr(err) // it was made before, and gets its place
		is.Equal(got, "behind them")
	})
	bubble(t, "waiting for a link", func(t *testing.T, is *is.I) {
		l := newLab()
		w := &town{srv: l.Server}
		c := w.dial(t, nil)
		defer c.Close()
		w.serve(nil)
		w.cable().cut()
		stream, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		is.NoErr(c.Shutdown(ctx))
		_, err = stream.Recv()
		is.True(errors.Is(err, Unavailable))
		is.Equal(OutcomeOf(err), NotSent)
	})
}

// An interceptor that calls next again must not go on with a loop that was
// left.
func TestReceive_interceptorCallsNextAgainAfterBreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		mux := NewMux()
		HandleServerStream(mux, flowDown, func(_ context.Context, n int, send func(string) error) error {
			for range n {
				if err := send("x"); err != nil {
					return err
				}
			}
			return nil
		})
		c, s := joined(t, Binary, mux, Limits{})
		again := c.With(CallOptions{Interceptors: []Interceptor{func(ctx context.Context, r *Request, next RawHandler) (Raw, error) {
			if raw, err := next(ctx, r); err == nil {
				return raw, nil
			}
			return next(ctx, r)
		}}})
		n := 0
		for _, err := range Receive(t.Context(), again, flowDown, 5) {
			is.NoErr(err)
			if n++; n == 2 {
				break
			}
		}
		is.Equal(n, 2)
		settled(t, c, s)
	})
}

func TestOpen_replyMetadata(t *testing.T) {
	pass := func(ctx context.Context, r *Request, next RawHandler) (Raw, error) { return next(ctx, r) }
	for name, more := range map[string][]Interceptor{"plain": nil, "intercepted": {pass}} {
		bubble(t, name, func(t *testing.T, is *is.I) {
			mux := bidi(func(ctx context.Context, _ string, s *Stream[string, string]) error {
				RequestFrom(ctx).Reply.Set("k", "v")
				return nil
			})
			c, s := joined(t, Binary, mux, Limits{})
			for range 20 {
				var reply Metadata
				stream, err := Open(t.Context(), c.With(CallOptions{Reply: &reply, Interceptors: more}), flowBoth, "")
				is.NoErr(err)
				_, err = stream.Recv()
				is.Equal(err, io.EOF)
				is.Equal(reply.Get("k"), "v")
				is.Equal(stream.Metadata().Get("k"), "v")
			}
			settled(t, c, s)
		})
	}
}

// OnItem's functions see the items of one direction one after another, however
// many goroutines send and receive, and in the order of the items.
func TestOnItem_oneAfterAnother(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		var up, down int // the race detector looks on
		watch := func(ctx context.Context, r *Request, next RawHandler) (Raw, error) {
			r.OnItem(func(_ Raw, sent bool) error {
				if sent {
					up++
				} else {
					down++
				}
				return nil
			})
			return next(ctx, r)
		}
		mux := bidi(echoItems)
		c, s := joined(t, d, mux, Limits{})
		stream, err := Open(t.Context(), c.With(CallOptions{Interceptors: []Interceptor{watch}}), flowBoth, "")
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
		settled(t, c, s)
	})
}
