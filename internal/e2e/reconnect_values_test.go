package e2e_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// What the context given to Dial carries is for the first attempt: later ones, and
// refreshes, are nobody's. They end with the connection all the same.
func TestReconnect_withoutTheValuesOfDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		type key struct{}
		var seen []any
		var last context.Context
		l, porch := lab.New(), &lab.Porch{Life: time.Hour}
		porch.Guard(l)
		w := &lab.Town{Srv: l.Server}
		auth := typedrpc.Credentials(lab.Sign, func(ctx context.Context) (string, error) {
			seen, last = append(seen, ctx.Value(key{})), ctx
			return "ann", nil
		})
		c, err := w.TryDial(context.WithValue(t.Context(), key{}, 1), &typedrpc.DialOptions{Auth: auth, Backoff: lab.Steady})
		is.NoErr(err)
		w.Healed()                // a redial …
		time.Sleep(2 * time.Hour) // … and refreshes
		synctest.Wait()
		is.True(len(seen) > 2)
		is.Equal(seen[0], 1)
		for _, v := range seen[1:] {
			is.Equal(v, nil)
		}
		is.NoErr(c.Close())
		synctest.Wait()
		is.True(last.Err() != nil)
	})
}
