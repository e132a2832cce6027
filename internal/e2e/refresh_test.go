package e2e_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// A hundred who ask at once are one refresh, the end of one's context is nobody else's, and
// who asks when the credentials have been said has others.
func TestReauthenticate_shared(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		asked := 0
		var seen context.Context
		srv := &typedrpc.Server{SignIn: lab.Sign.Verify(func(context.Context, *http.Request, *string) (typedrpc.Identity, int, error) {
			time.Sleep(time.Second)
			return typedrpc.Identity{Subject: "ann"}, 0, nil
		})}
		w := &lab.Town{Srv: srv}
		c := w.Dial(t, &typedrpc.DialOptions{Dialect: d, SignIn: lab.Sign.Present(func(ctx context.Context) (string, error) {
			asked++
			seen = ctx
			if asked == 4 {
				<-ctx.Done()
				return "", ctx.Err()
			}
			time.Sleep(time.Second)
			return "ann", nil
		})})
		defer c.Close()
		asked = 0
		first, cancel := context.WithCancel(t.Context())
		results := make(chan error, 100)
		for i := range 100 {
			ctx := t.Context()
			if i == 0 {
				ctx = first
			}
			go func() { results <- c.Reauthenticate(ctx) }()
			if i == 0 {
				synctest.Wait() // whose context the refresh has is the first's
			}
		}
		synctest.Wait()
		cancel()
		is.True(errors.Is(<-results, context.Canceled))
		time.Sleep(1500 * time.Millisecond) // the server has them
		is.Equal(asked, 1)
		late := make(chan error, 2)
		go func() { late <- c.Reauthenticate(t.Context()) }()
		for range 99 {
			is.NoErr(<-results)
		}
		is.NoErr(<-late)
		is.Equal(asked, 2)

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		is.NoErr(c.Reauthenticate(ctx))
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() { late <- c.Reauthenticate(short) }()
		is.True(errors.Is(c.Reauthenticate(short), context.DeadlineExceeded))
		is.True(errors.Is(<-late, context.DeadlineExceeded))
		synctest.Wait()
		is.True(seen.Err() != nil) // nobody waits any more
		is.NoErr(c.Reauthenticate(ctx))
		is.Equal(asked, 5)

		go func() { late <- c.Reauthenticate(ctx) }()
		synctest.Wait()
		c.Close()
		is.Equal(typedrpc.CodeOf(<-late), typedrpc.Unavailable)
		time.Sleep(2 * time.Second) // the function ends by itself
	})
}
