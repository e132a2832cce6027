package e2e_test

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// A handler's Close left what was queued to be sent.
func TestStream_handlersCloseDropsWhatHasNotLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		mux := lab.Bidi(func(_ context.Context, _ string, s *typedrpc.Stream[string, string]) error {
			for range 3 {
				s.Send("x")
			}
			queued := hook.Stream(s).Pieces // the writer may have been quicker
			s.Cancel()
			if left := hook.Stream(s); left.Pieces != 0 || left.Used != 0 {
				t.Errorf("%d items of %d are queued still", left.Pieces, queued)
			}
			return nil
		})
		c, s := lab.Joined(t, typedrpc.Binary, mux, typedrpc.Limits{})
		stream, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
		is.NoErr(err)
		for _, err := range stream.All() {
			is.NoErr(err)
		}
		lab.Settled(t, c, s)
	})
}

func TestStream_outcomeOfOneThatNeverLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		l.Mux = lab.Bidi(lab.Lingers)
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, nil)
		defer c.Close()
		w.Serve(nil)
		w.Cable().Cut()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		stream, err := typedrpc.Open(ctx, c, lab.FlowBoth, "")
		is.NoErr(err)
		_, err = stream.Recv()
		is.True(errors.Is(err, typedrpc.DeadlineExceeded))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent) // there was no link
		is.True(errors.Is(stream.Send("x"), typedrpc.DeadlineExceeded))
		for _, err = range typedrpc.Receive(ctx, c, lab.FlowDown, 1) {
		}
		is.True(errors.Is(err, typedrpc.DeadlineExceeded))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
	})
}

func TestStream_contextFreesWhatWasNotReceived(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		mux := lab.Bidi(func(_ context.Context, _ string, s *typedrpc.Stream[string, string]) error {
			for range 10 {
				if err := s.Send("unread"); err != nil {
					return err
				}
			}
			return nil
		})
		c, s := lab.Joined(t, d, mux, typedrpc.Limits{})
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := typedrpc.Open(ctx, c, lab.FlowBoth, "")
		is.NoErr(err)
		synctest.Wait() // it has ended
		is.True(hook.Conn(c).Unread > 0)
		cancel()
		synctest.Wait()
		is.Equal(hook.Conn(c).Unread, 0) // as Open says
		_, err = stream.Recv()
		is.True(errors.Is(err, typedrpc.Canceled))
		lab.Settled(t, c, s)
	})
}

func TestStream_creditAfterTheLastItem(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		mux := lab.Bidi(func(ctx context.Context, _ string, s *typedrpc.Stream[string, string]) error {
			for range s.All() {
			}
			return lab.Lingers(ctx, "", s) // a download after an upload
		})
		c, s := lab.Joined(t, d, mux, typedrpc.Limits{})
		stream, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
		is.NoErr(err)
		for range 100 {
			is.NoErr(stream.Send(testkit.Letters(500)))
		}
		stream.CloseSend()
		synctest.Wait()
		is.Equal(hook.Conn(c).SentItems, 0) // all was taken; it counts in what other streams may send
		stream.Cancel()
		lab.Settled(t, c, s)
	})
}

// A handler that has consumed a client stream and does not return holds no more of what
// others may send than the slack.
func TestStream_creditAfterTheLastItemOfAClientStream(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		read := make(chan bool)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.FlowUp, func(ctx context.Context, _ int, items iter.Seq2[string, error]) (int, error) {
			<-read
			for range items {
			}
			<-ctx.Done()
			return 0, ctx.Err()
		})
		c, s := lab.Joined(t, d, mux, typedrpc.Limits{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 1)
		go func() {
			_, err := typedrpc.SendAll(ctx, c, lab.FlowUp, 0, typedrpc.Items(slices.Values(slices.Repeat([]string{testkit.Letters(500)}, 100))))
			ended <- err
		}()
		synctest.Wait()
		is.Equal(hook.Conn(c).SentItems, 100*(502+64))
		close(read)
		synctest.Wait()
		is.True(hook.Conn(c).SentItems <= 4<<10)
		cancel()
		is.True(errors.Is(<-ended, typedrpc.Canceled))
		lab.Settled(t, c, s)
	})
}

// A handler that closes its stream ends a Send that waits for the budget of
// the connection, and not of the stream.
func TestStream_closeEndsSendThatWaitsForTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		sent := make(chan error, 1)
		mux := lab.Bidi(func(ctx context.Context, req string, s *typedrpc.Stream[string, string]) error {
			if req == "fill" {
				s.Send(testkit.Letters(900))
				return lab.Lingers(ctx, "", s)
			}
			s.Send("first") // one may always be out
			go func() { sent <- s.Send(testkit.Letters(500)) }()
			synctest.Wait()
			s.Cancel()
			return lab.Lingers(ctx, "", s)
		})
		c, s := lab.Joined(t, typedrpc.Binary, mux, typedrpc.Limits{MaxBuffered: 1000})
		one, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "fill")
		is.NoErr(err)
		synctest.Wait()
		two, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
		is.NoErr(err)
		select {
		case err = <-sent:
		case <-time.After(500 * time.Millisecond): // before anything else moves
			t.Error("Send still waits")
		}
		is.True(errors.Is(err, typedrpc.Canceled))
		one.Cancel()
		two.Cancel()
		lab.Settled(t, c, s)
	})
}

func TestStream_handlersReturnAfterTheConnectionClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		release := make(chan struct{})
		var left sync.WaitGroup
		mux := lab.Bidi(func(context.Context, string, *typedrpc.Stream[string, string]) error {
			defer left.Done()
			<-release
			return nil
		})
		c, s := lab.Joined(t, typedrpc.Binary, mux, typedrpc.Limits{MaxBuffered: 2000})
		for range 5 {
			left.Add(1)
			_, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
			is.NoErr(err)
		}
		synctest.Wait()
		is.NoErr(s.Close())
		is.NoErr(c.Close())
		time.Sleep(time.Minute)
		close(release)
		left.Wait()
		lab.Settled(t, s, c) // and the bubble sees that nobody waits
	})
}

func TestStream_shutdownEndsThoseThatHaveNotLeft(t *testing.T) {
	testkit.Bubble(t, "queued", func(t *testing.T, is *is.I) {
		mux := lab.Bidi(lab.Lingers)
		c, _ := lab.Joined(t, typedrpc.Binary, mux, typedrpc.Limits{})
		stream, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
		is.NoErr(err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		is.NoErr(c.Shutdown(ctx))
		_, err = stream.Recv()
		is.True(errors.Is(err, typedrpc.Unavailable))
	})
	testkit.Bubble(t, "waiting for a place", func(t *testing.T, is *is.I) {
		mux := lab.Bidi(lab.Lingers)
		c, _ := lab.Joined(t, typedrpc.Binary, mux, typedrpc.Limits{MaxCalls: 1})
		one, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
		is.NoErr(err)
		two, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
		is.NoErr(err)
		call := typedrpc.Go(t.Context(), c, lab.FlowCall, "behind them")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		is.NoErr(c.Shutdown(ctx))
		for _, stream := range []*typedrpc.Stream[string, string]{one, two} {
			_, err = stream.Recv()
			is.True(errors.Is(err, typedrpc.Unavailable))
		}
		got, err := call.Await(t.Context())
		is.NoErr(err) // it was made before, and gets its place
		is.Equal(got, "behind them")
	})
	testkit.Bubble(t, "waiting for a link", func(t *testing.T, is *is.I) {
		l := lab.New()
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, nil)
		defer c.Close()
		w.Serve(nil)
		w.Cable().Cut()
		stream, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
		is.NoErr(err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		is.NoErr(c.Shutdown(ctx))
		_, err = stream.Recv()
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
	})
}
