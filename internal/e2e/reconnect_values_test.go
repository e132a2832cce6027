package e2e_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
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
		auth := lab.Sign.Present(func(ctx context.Context) (string, error) {
			seen, last = append(seen, ctx.Value(key{})), ctx
			return "ann", nil
		})
		c, err := w.TryDial(context.WithValue(t.Context(), key{}, 1), &typedrpc.DialOptions{SignIn: auth, Backoff: lab.Steady})
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

// A call that breaks the link, in a proxy for example, was sent again and again
// for ever: after sixteen links through which nothing got, the session is given
// up, and the call with it.
func TestReconnect_whatBreaksTheLinkIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w := &lab.Town{Script: func(n int, far *testkit.Peer) {
			defer far.T.Kill()
			f, err := far.Until(wire.Hello)
			if err != nil {
				return
			}
			h, err := wire.ParseHello(f.Payload)
			if err != nil {
				return
			}
			b := wire.WelcomeBody{Token: "token", Limits: testkit.Roomy, Features: testkit.EveryFeature, Grace: 3_600_000, Resumed: h.Token != ""}
			if far.Send(wire.Frame{Type: wire.Welcome, Payload: b.Append(nil)}) == nil {
				far.Until(wire.Call)
			}
		}}
		c := w.Dial(t, &typedrpc.DialOptions{Backoff: lab.Steady, Limits: typedrpc.Limits{Grace: time.Hour}})
		_, err := typedrpc.Call(t.Context(), c, lab.Echo, 1)
		is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable)
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
		is.True(w.Dialled() >= 16)
		is.True(w.Dialled() < 20)
		is.NoErr(c.Close())
	})
}
