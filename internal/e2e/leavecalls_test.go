package e2e_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// Whoever calls a peer that has left is told so at once, also while something of what
// that peer had sent is still being run: what had not left is not sent, whether a call
// waited in the queue, for the socket, or for an answer.
func TestLeave_callsToWhoLeaves(t *testing.T) {
	large := strings.Repeat("x", 512<<10)
	echo := typedrpc.NewMethod[string, string]("leave.echo")
	note := typedrpc.NewNotification[string]("leave.large")
	l := &stayed{takes: 2 * time.Second}
	lab.Strangers(t, l.mux(), typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, _ *lab.Logs) {
		is := is.New(t)
		*l = stayed{takes: l.takes}
		s.Send(leaveText("note", 1, ""))
		defer s.Stop()()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		one := c.With(typedrpc.CallOptions{FailFast: true}) // a client's calls wait for its next link
		var calls []*typedrpc.Future[string]
		for range 20 {
			calls = append(calls, typedrpc.Go(ctx, one, echo, large))
			typedrpc.Notify(ctx, one, note, "small")
		}
		synctest.Wait()
		began := time.Now()
		s.T.Close(1000, "")
		notSent := 0
		for _, f := range calls {
			_, err := f.Await(t.Context())
			is.True(errors.Is(err, typedrpc.Unavailable))
			if typedrpc.OutcomeOf(err) == typedrpc.NotSent {
				notSent++
			}
		}
		is.Equal(time.Since(began), time.Duration(0))
		is.True(notSent > 0) // some had not left
		is.True(len(l.count()) == 0)
		if c.Err() == nil && c.State() != typedrpc.StateConnected { // what it left is still being run
			_, err := typedrpc.Call(ctx, one, echo, "late")
			is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
			is.True(errors.Is(err, typedrpc.Unavailable))
		}
		time.Sleep(10 * time.Second)
		is.Equal(l.count(), []int{1})
		is.Equal(lab.Unsettled(c), "")
	})
}
