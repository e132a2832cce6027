package e2e_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

var (
	endBoth = typedrpc.NewBidiStream[struct{}, int, int]("end.both")
	endUp   = typedrpc.NewClientStream[struct{}, int, int]("end.up")
)

// A connection that was hung up is no end of the items, neither to == nor to
// errors.Is.
func TestStream_lostLinkIsNoEOF(t *testing.T) {
	for _, how := range []typedrpctest.Cut{typedrpctest.CutClose, typedrpctest.CutReset} {
		t.Run(how.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				ended := make(chan error, 1)
				mux := typedrpc.NewMux()
				typedrpc.Handle(mux, endBoth, func(_ context.Context, _ struct{}, s *typedrpc.Stream[int, int]) error {
					_, err := s.Recv()
					ended <- err
					return err
				})
				n := typedrpctest.NewNetwork(nil)
				defer n.Close()
				limits := typedrpc.Limits{Grace: -1}
				logger := slog.New(slog.DiscardHandler)
				n.Host("shop").Serve(&typedrpc.Server{Mux: mux, Limits: limits, Logger: logger})
				c, err := typedrpc.Dial(t.Context(), n.Host("shop").URL(), &typedrpc.DialOptions{HTTPClient: n.HTTPClient(), Limits: limits, Logger: logger})
				is.NoErr(err)
				defer c.Close()
				s, err := typedrpc.Open(t.Context(), c, endBoth, struct{}{})
				is.NoErr(err)
				synctest.Wait()
				n.CutAll(how)
				_, err = s.Recv()
				for _, err := range []error{err, <-ended} {
					is.True(errors.Is(err, typedrpc.Gap))
					is.True(!errors.Is(err, io.EOF))
				}
			})
		})
	}
}

// A stream whose time is over while it sends fails with that, however the two
// meet.
func TestSendAll_endsWhileItSends(t *testing.T) {
	is := is.New(t)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, endUp, func(ctx context.Context, _ struct{}, _ iter.Seq2[int, error]) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	})
	c, srv, err := typedrpctest.Dial(&typedrpc.Server{Mux: mux, Logger: slog.New(slog.DiscardHandler)}, nil)
	is.NoErr(err)
	defer srv.Close()
	defer c.Close()
	endless := func(yield func(int, error) bool) {
		for yield(1, nil) {
		}
	}
	n := testkit.Size(4000, 4000)
	var g sync.WaitGroup
	for range 4 {
		g.Go(func() {
			for i := range n / 4 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%200)*time.Microsecond)
				_, err := typedrpc.SendAll(ctx, c, endUp, struct{}{}, endless)
				cancel()
				if typedrpc.CodeOf(err) != typedrpc.DeadlineExceeded {
					t.Errorf("%v (%v)", err, typedrpc.OutcomeOf(err))
				}
			}
		})
	}
	g.Wait()
}
