package e2e_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// flood is a peer that begins sessions and drops their links.
type flood struct {
	address func(i int) string
	confirm bool // shows that it has the token
	calls   bool // has a call in flight
}

// begin begins and drops one session. It reports false if it was refused.
func (f *flood) begin(is *is.I, srv *typedrpc.Server, i int) bool {
	p, err := testkit.JoinFrom(srv, testkit.BinaryProtocol, f.address(i))
	is.NoErr(err)
	h := testkit.HelloOf(1)
	is.NoErr(p.Send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
	answer, err := p.Next()
	is.NoErr(err)
	if answer.Type != wire.Welcome {
		is.Equal(p.CloseCode(), session.CloseOverload)
		return false
	}
	if f.confirm {
		is.NoErr(p.Send(wire.Frame{Type: wire.Ping}))
		_, err = p.Until(wire.Ack)
		is.NoErr(err)
	}
	if f.calls {
		is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: 1, Method: "lab.hang", Payload: []byte("{}")}))
		synctest.Wait()
	}
	p.T.Kill()
	return true
}

func oneAddress(host string) func(int) string {
	return func(i int) string { return fmt.Sprintf("%s:%d", host, i%65535) }
}

// Sessions begun and dropped by a stranger pushed out that of an honest client in a
// tunnel, whose call then may have run.
func TestWorth_floodOfSessions(t *testing.T) {
	many := func(i int) string { return fmt.Sprintf("[2001:db8:0:%x::1]:1", i) } // a network each
	for name, tt := range map[string]struct {
		flood
		kept, begun int
	}{
		"as many as are kept":              {flood{address: oneAddress("192.0.2.1")}, 0, 10_563},
		"begun and dropped":                {flood{address: oneAddress("192.0.2.1")}, 100, 300},
		"confirmed and idle":               {flood{address: oneAddress("192.0.2.1"), confirm: true}, 100, 300},
		"with calls in flight":             {flood{address: oneAddress("192.0.2.1"), confirm: true, calls: true}, 100, 300},
		"from the client's address":        {flood{address: oneAddress("town"), confirm: true}, 100, 300},
		"from many networks":               {flood{address: many}, 100, 300},
		"from many networks and confirmed": {flood{address: many, confirm: true}, 100, 300},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.kept == 0 {
				tt.begun = testkit.Crowd(tt.begun, tt.begun, 1000)
			}
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				l := lab.New()
				l.MaxKept = tt.kept
				town := &lab.Town{Srv: l.Server}
				c := town.Dial(t, &typedrpc.DialOptions{Backoff: lab.Steady, Limits: typedrpc.Limits{Grace: time.Minute}})
				defer c.Close()
				call := typedrpc.Go(t.Context(), c, lab.Hang, struct{}{})
				synctest.Wait()
				town.Serve(nil)
				town.Cable().Cut()
				synctest.Wait()
				is.Equal(hook.Server(l.Server).Kept, 1)

				for i := range tt.begun {
					is.True(tt.begin(is, l.Server, i))
					time.Sleep(1600 * time.Millisecond / time.Duration(tt.begun))
				}
				synctest.Wait()
				if tt.kept > 0 {
					is.Equal(hook.Server(l.Server).Kept, tt.kept)
				}
				town.Serve(l.Server)
				time.Sleep(2 * time.Second)
				is.Equal(c.State(), typedrpc.StateConnected)
				close(l.Release)
				_, err := call.Await(t.Context())
				is.NoErr(err)
				time.Sleep(time.Minute)
				synctest.Wait()
				is.Equal(hook.Server(l.Server).Kept, 0)
				is.Equal(hook.Server(l.Server).Accepted, 1)
			})
		})
	}
}

// Nobody begins any number of sessions. Clients are told when to come again, do, and
// are let in.
func TestWorth_rateOfBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		l.BeginRate = 10
		f := &flood{address: oneAddress("town")}
		begun := 0
		for i := range 300 {
			if f.begin(is, l.Server, i) {
				begun++
			}
		}
		is.Equal(begun, 100)
		town := &lab.Town{Srv: l.Server}
		_, err := town.TryDial(t.Context(), nil)
		is.Equal(typedrpc.CodeOf(err), typedrpc.ResourceExhausted)
		var e *typedrpc.Error
		is.True(errors.As(err, &e))
		is.Equal(e.RetryAfter, time.Second)
		is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
		is.True((&flood{address: oneAddress("elsewhere")}).begin(is, l.Server, 0))

		time.Sleep(time.Second)
		c := town.Dial(t, &typedrpc.DialOptions{Backoff: lab.Steady})
		defer c.Close()
		for i := range 300 {
			f.begin(is, l.Server, i)
		}
		town.Cable().Cut() // its session is lost with the link, and it needs another
		synctest.Wait()
		time.Sleep(10 * time.Second)
		is.Equal(c.State(), typedrpc.StateConnected)
		_, err = typedrpc.Call(t.Context(), c, lab.Echo, 1)
		is.NoErr(err)
		time.Sleep(time.Minute)
		close(l.Release)
	})
}
