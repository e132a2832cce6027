package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// A plain peer that never answers costs its callers their time, and no places: from a
// server to a page, and from a client to a foreign server.
func TestPlain_callsGivenUpFreeTheirPlaces(t *testing.T) {
	for name, giveUp := range map[string]func(t *testing.T, c *typedrpc.Conn) error{
		"deadline": func(t *testing.T, c *typedrpc.Conn) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			_, err := typedrpc.Call(ctx, c, lab.Ask, 1)
			return err
		},
		"context": func(t *testing.T, c *typedrpc.Conn) error {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Millisecond, cancel)
			_, err := typedrpc.Call(ctx, c, lab.Ask, 1)
			return err
		},
		"future": func(t *testing.T, c *typedrpc.Conn) error {
			f := typedrpc.Go(t.Context(), c, lab.Ask, 1)
			synctest.Wait()
			f.Cancel()
			_, err := f.Await(t.Context())
			return err
		},
		"policy": func(t *testing.T, c *typedrpc.Conn) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			_, err := typedrpc.Call(ctx, c.With(typedrpc.CallOptions{Retry: &typedrpc.RetryPolicy{}}), lab.Ask, 1)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			lab.Strangers(t, nil, typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, log *lab.Logs) {
				is := is.New(t)
				var ids []string
				for range 3000 { // places are 1,024
					err := giveUp(t, c)
					is.True(errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled))
					is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
					got := s.Got()
					is.Equal(len(got), 2)
					ids = append(ids, callID(t, got[0]))
					is.Equal(got[1], `{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":`+ids[len(ids)-1]+`}}`)
				}
				f := typedrpc.Go(t.Context(), c, lab.Ask, 1)
				last := callID(t, s.Only(t))
				// Late answers are nobody's, and no offence: each call may have one.
				for _, id := range ids {
					s.Send(`{"jsonrpc":"2.0","id":` + id + `,"result":66}`)
				}
				s.Send(`{"jsonrpc":"2.0","id":` + last + `,"result":7}`)
				n, err := f.Await(t.Context())
				is.NoErr(err)
				is.Equal(n, 7)
				is.True(!log.Has("WARN"))
				is.Equal(len(s.Got()), 0)

				// A connection with nothing but forgotten calls has nothing in flight.
				is.True(giveUp(t, c) != nil)
				is.NoErr(c.Shutdown(t.Context()))
			})
		})
	}
}

// All at once, and more than there are places for.
func TestPlain_thousandsOfTimeoutsAtOnce(t *testing.T) {
	lab.Strangers(t, nil, typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, _ *lab.Logs) {
		is := is.New(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var all []*typedrpc.Future[int]
		for range 5000 {
			all = append(all, typedrpc.Go(ctx, c, lab.Ask, 1))
		}
		is.Equal(len(s.Got()), 1024)
		for _, f := range all {
			_, err := f.Await(t.Context())
			is.True(errors.Is(err, context.DeadlineExceeded))
		}
		s.Got()
		f := typedrpc.Go(t.Context(), c, lab.Ask, 1)
		s.Send(`{"jsonrpc":"2.0","id":` + callID(t, s.Only(t)) + `,"result":7}`)
		_, err := f.Await(t.Context())
		is.NoErr(err)
	})
}

// The bytes of requests that were given up are free, too.
func TestPlain_callsGivenUpFreeTheirBytes(t *testing.T) {
	lab.Strangers(t, nil, typedrpc.Limits{MaxBuffered: 64 << 10}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, _ *lab.Logs) {
		is := is.New(t)
		for range 50 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := typedrpc.Call(ctx, c, lab.Shout, strings.Repeat("x", 40<<10))
			is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun) // it was sent
			cancel()
		}
	})
}

// Answers to calls that were given up are forgiven once for each.
func TestPlain_answersAgainAndAgain(t *testing.T) {
	lab.Strangers(t, nil, typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, _ *lab.Logs) {
		is := is.New(t)
		for range 10 {
			f := typedrpc.Go(t.Context(), c, lab.Ask, 1)
			s.Only(t)
			f.Cancel()
			s.Got()
		}
		for range 5000 {
			s.Send(`{"jsonrpc":"2.0","id":1,"result":1}`)
		}
		is.True(s.Ended() != nil)
	})
}

// Over another link of a dialled connection calls have places, too.
func TestPlain_forgottenCallsOfAnEarlierLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		s, c, again := lab.ForeignServer(t, &typedrpc.DialOptions{})
		for range 2 {
			for range 1500 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
				_, err := typedrpc.Call(ctx, c, lab.Ask, 1)
				is.True(errors.Is(err, context.DeadlineExceeded))
				cancel()
			}
			s.T.Kill()
			s = again()
		}
		f := typedrpc.Go(t.Context(), c, lab.Ask, 1)
		s.Send(`{"jsonrpc":"2.0","id":` + callID(t, fmt.Sprint(s.Only(t))) + `,"result":7}`)
		_, err := f.Await(t.Context())
		is.NoErr(err)
		c.Close()
	})
}

// A peer with HELLO owes every call an end, and keeps the place until then.
func TestCancel_placeOfAPeerWithHello(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		h := lab.NewHanging()
		block := make(chan struct{})
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Stay, func(ctx context.Context, _ struct{}) (struct{}, error) {
			h.Begun <- struct{}{}
			<-block
			return struct{}{}, nil
		})
		client, server := lab.TwoWays(t, d, nil, mux, typedrpc.Limits{MaxCalls: 1})
		f := typedrpc.Go(t.Context(), client, lab.Stay, struct{}{})
		<-h.Begun
		f.Cancel()
		next := typedrpc.Go(t.Context(), client, lab.Stay, struct{}{})
		synctest.Wait()
		is.Equal(len(h.Begun), 0) // it waits for the end of the first
		close(block)
		_, err := next.Await(t.Context())
		is.NoErr(err)
		client.Close()
		server.Close()
	})
}

// A plain peer's cancel names the call as a number, whatever the form, or as a text.
func TestPlain_cancelNamesNumbers(t *testing.T) {
	for _, tt := range []struct {
		id, cancel string
		hits       bool
	}{
		{`1`, `1`, true}, {`1`, `1.0`, true}, {`1.0`, `1`, true}, {`10`, `1e1`, true}, {`1e1`, `10.0`, true}, {`-0`, `0`, true},
		{`1.5`, `1.5`, true}, {`"a"`, `"\u0061"`, true}, {`"\u0061"`, `"a"`, true}, {`"a\/"`, `"a/"`, true},
		{`1`, `"1"`, false}, {`"1"`, `1`, false}, {`1`, `2`, false}, {`"a"`, `"b"`, false}, {`"a"`, `"A"`, false},
		{`9007199254740993`, `9007199254740992`, false}, {`null`, `null`, false},
	} {
		t.Run(tt.id+" "+tt.cancel, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				h := lab.NewHanging()
				mux := typedrpc.NewMux()
				typedrpc.Handle(mux, lab.Stay, h.Handle)
				s, c := lab.Page(t, &typedrpc.Server{Mux: mux})
				s.Send(`{"jsonrpc":"2.0","method":"hang","id":` + tt.id + `}`)
				<-h.Begun
				s.Send(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":` + tt.cancel + `}}`)
				if tt.hits {
					is.Equal(s.Only(t), `{"jsonrpc":"2.0","id":`+tt.id+`,"error":{"code":-32800,"message":"canceled"}}`)
				} else {
					is.Equal(len(s.Got()), 0)
				}
				c.Close()
			})
		})
	}
}

// The number of a cancelled request is for those who cancel as editors do, and for what
// was cancelled; in a batch, too.
func TestPlain_numberOfCancelledRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Ask, func(ctx context.Context, n int) (int, error) {
			<-ctx.Done()
			switch n {
			case 1:
				return n, nil // it was done already
			case 2:
				return 0, typedrpc.Errorf(typedrpc.NotFound, "no")
			case 3:
				return 0, &typedrpc.Error{Code: typedrpc.Canceled, Number: -32802, Message: "the server canceled"}
			}
			return 0, fmt.Errorf("reading: %w", ctx.Err())
		})
		s, c := lab.Page(t, &typedrpc.Server{Mux: mux})
		s.Send(`[{"jsonrpc":"2.0","id":1,"method":"ask","params":[1]},{"jsonrpc":"2.0","id":2,"method":"ask","params":[2]},` +
			`{"jsonrpc":"2.0","id":3,"method":"ask","params":[3]},{"jsonrpc":"2.0","id":4,"method":"ask","params":[4]}]`)
		is.Equal(len(s.Got()), 0)
		for id := range 4 {
			s.Send(fmt.Sprintf(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":%d}}`, id+1))
		}
		is.Equal(s.Only(t), `[{"jsonrpc":"2.0","id":1,"result":1},{"jsonrpc":"2.0","id":2,"error":{"code":5,"message":"no"}},`+
			`{"jsonrpc":"2.0","id":3,"error":{"code":-32802,"message":"the server canceled"}},{"jsonrpc":"2.0","id":4,"error":{"code":-32800,"message":"canceled"}}]`)
		c.Close()
	})
}
