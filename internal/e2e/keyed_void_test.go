package e2e_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/idempotency"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// tardy is a request that a gate holds up while it is decoded.
type tardy struct{}

var tardyGate, tardyBegun chan struct{}

func (*tardy) UnmarshalJSON([]byte) error {
	if tardyGate != nil { // a check of the declarations comes before
		tardyBegun <- struct{}{}
		<-tardyGate
	}
	return nil
}

func (tardy) MarshalJSON() ([]byte, error) { return []byte(`{}`), nil }

var keyTardy = typedrpc.NewMethod[tardy, int]("key.tardy", typedrpc.Keyed)

// A call whose connection ends while its request is being decoded does not run,
// which is no answer to whoever asks with its key: they are not told for the life
// of the key that a connection is closing, be they there already or not.
func TestKeyed_whatDidNotBeginIsNoAnswer(t *testing.T) {
	for how, end := range map[string]func(w *lab.Town, server *typedrpc.Conn){
		"closed": func(_ *lab.Town, server *typedrpc.Conn) { server.Close() },
		"lost":   func(w *lab.Town, _ *typedrpc.Conn) { w.Cable().Cut() },
	} {
		for _, waits := range []bool{true, false} {
			t.Run(how+map[bool]string{true: ", and somebody waits", false: ""}[waits], func(t *testing.T) {
				lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
					tardyGate = nil
					l := lab.NewLedger()
					ran := 0
					typedrpc.Handle(l.Mux, keyTardy, func(context.Context, tardy) (int, error) { ran++; return ran, nil })
					came := make(chan *typedrpc.Conn, 2)
					l.OnConnect = func(c *typedrpc.Conn) { came <- c }
					w := &lab.Town{Srv: l.Server}
					c := w.Dial(t, o)
					first, other := <-came, w.Dial(t, o)
					tardyGate, tardyBegun = make(chan struct{}), make(chan struct{}, 2)
					k := idempotency.NewKey()
					typedrpc.Go(t.Context(), lab.WithKey(c, k), keyTardy, tardy{})
					<-tardyBegun
					end(&lab.Town{Lines: w.Lines[:1]}, first)
					c.Close() // else it asks again itself
					ask := func() *typedrpc.Future[int] {
						f := typedrpc.Go(t.Context(), lab.WithKey(other, k), keyTardy, tardy{})
						synctest.Wait()
						return f
					}
					var f *typedrpc.Future[int]
					if waits {
						f = ask()
					}
					close(tardyGate)
					synctest.Wait()
					if !waits {
						f = ask()
					}
					n, err := f.Await(t.Context())
					is.NoErr(err)
					is.Equal(n, 1)
					is.Equal(ran, 1)
					is.NoErr(other.Close())
				})
			})
		}
	}
}
