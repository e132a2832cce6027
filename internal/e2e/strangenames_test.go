package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// Names of strangers both ways, beside struct{}.
func TestPlain_strangeNames(t *testing.T) {
	for _, name := range []string{"rpc.on", "rpc.discover", "$/progress", "$/x", "rpc.hello", "rpc.ping", "rpc.item", "rpc.ack", "rpc.auth", "rpc.goaway", "rpc.end", "rpc.credit", "rpc.head", "", "é", "a b"} {
		func() {
			defer func() {
				if p := recover(); p != nil {
					t.Logf("%q: %v", name, p)
				}
			}()
			call, note := typedrpc.NewMethod[struct{}, int](name), typedrpc.NewNotification[struct{}](name+"n")
			came := 0
			mux := typedrpc.NewMux()
			typedrpc.Handle(mux, call, func(context.Context, struct{}) (int, error) { return 7, nil })
			typedrpc.Handle(mux, note, func(context.Context, struct{}) error { came++; return nil })
			lab.Strangers(t, mux, typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, _ *lab.Logs) {
				is := is.New(t)
				came = 0
				s.Send(fmt.Sprintf(`{"jsonrpc":"2.0","id":null,"method":%q}`, name))
				is.Equal(s.Only(t), `{"jsonrpc":"2.0","id":null,"result":7}`)
				s.Send(fmt.Sprintf(`{"jsonrpc":"2.0","method":%q,"params":null}`, name+"n"))
				s.Send(fmt.Sprintf(`[{"jsonrpc":"2.0","method":%q,"params":[]}]`, name+"n"))
				s.Send(fmt.Sprintf(`{"jsonrpc":"2.0","method":%q,"params":{}}`, name+"n"))
				is.Equal(len(s.Got()), 0)
				is.Equal(came, 3)
				f := typedrpc.Go(t.Context(), c, call, struct{}{})
				text := s.Only(t)
				is.True(!strings.Contains(text, "params"))
				s.Send(`{"id":` + callID(t, text) + `,"result":1}`)
				_, err := f.Await(t.Context())
				is.NoErr(err)
				is.NoErr(typedrpc.Notify(t.Context(), c, note, struct{}{}))
				is.True(!strings.Contains(s.Only(t), "params"))
			})
		}()
	}
}

// A page's calls before its orderly close: handlers that take long have a bound.
func TestLeave_stuckHandlerAndClose(t *testing.T) {
	mux := typedrpc.NewMux()
	ended := make(chan error, 9)
	typedrpc.Handle(mux, lab.Ask, func(ctx context.Context, n int) (int, error) { <-ctx.Done(); ended <- ctx.Err(); return n, nil })
	lab.Strangers(t, mux, typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, _ *lab.Logs) {
		is := is.New(t)
		ended = make(chan error, 9)
		s.Send(`[{"jsonrpc":"2.0","id":1,"method":"ask","params":[1]},{"jsonrpc":"2.0","id":1.5,"method":"ask","params":[1]}]`)
		s.T.Close(1000, strings.Repeat("é", 100))
		time.Sleep(time.Minute)
		is.Equal(len(ended), 2)
	})
}
