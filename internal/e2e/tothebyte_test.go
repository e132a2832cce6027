package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// What is told after a reply is what the caller is told: an error also where the
// reply that the handler made could not be sent.
func TestAfterReply_replyThatCannotBeSent(t *testing.T) {
	for _, array := range []int{0, 1, 3} {
		t.Run(fmt.Sprint(array), func(t *testing.T) {
			mux := typedrpc.NewMux()
			var told chan error
			var ran atomic.Int64
			typedrpc.Handle(mux, lab.Ask, func(ctx context.Context, n int) (int, error) { return 0, nil })
			big := typedrpc.NewMethod[int, string]("big")
			typedrpc.Handle(mux, big, func(ctx context.Context, n int) (string, error) {
				ran.Add(1)
				typedrpc.RequestFrom(ctx).AfterReply = func(_ context.Context, err error) { told <- err }
				return strings.Repeat("x", n), nil
			})
			for _, n := range []int{600 << 10, 900 << 10, 2 << 20} {
				lab.Strangers(t, mux, typedrpc.Limits{MaxMessage: 1 << 20, MaxBuffered: 1 << 20}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, _ *lab.Logs) {
					told = make(chan error, 9)
					ran.Store(0)
					one := `{"jsonrpc":"2.0","id":1,"method":"big","params":[` + fmt.Sprint(n) + `]}`
					text := one
					if array > 0 {
						text = "[" + strings.TrimSuffix(strings.Repeat(one+",", array), ",") + "]"
					}
					s.Send(text)
					got := s.Got()
					failed := 0
					for _, g := range got {
						failed += strings.Count(g, `"error":`)
					}
					// Once one has answered so much another may be refused before it runs.
					heard := max(array, 1) - int(ran.Load())
					for range ran.Load() {
						select {
						case err := <-told:
							if err != nil {
								heard++
							}
						case <-time.After(time.Minute):
							t.Fatalf("not told; got %d messages, %v", len(got), c.Err())
						}
					}
					if heard != failed {
						t.Errorf("size %d: %d answers are errors, AfterReply heard of %d", n, failed, heard)
					}
				})
			}
		})
	}
}

// A reply and items of a stream of just the limit arrive, and one byte more fails at
// the sender, in every dialect.
func TestLimits_repliesToTheByte(t *testing.T) {
	const limit = 1000
	for _, by := range []string{"MaxMessage", "MaxSize"} {
		lab.OverAll(t, func(t *testing.T, o lab.Over) {
			var m typedrpc.Method[int, typedrpc.Raw]
			var limits typedrpc.Limits
			if by == "MaxSize" {
				m = typedrpc.NewMethod[int, typedrpc.Raw]("m", typedrpc.MaxSize(limit))
			} else {
				m, limits = typedrpc.NewMethod[int, typedrpc.Raw]("m"), typedrpc.Limits{MaxMessage: limit}
			}
			mux := typedrpc.NewMux()
			var kind string
			typedrpc.Handle(mux, m, func(_ context.Context, n int) (typedrpc.Raw, error) { return typedrpc.Raw(loneValues(n)[kind]), nil })
			client, server := o.Connect(t, &typedrpc.Server{Mux: mux, Limits: limits}, &typedrpc.DialOptions{Mux: mux, Limits: limits})
			for side, c := range map[string]*typedrpc.Conn{"client": client, "server": server} {
				for n := limit - 3; n <= limit+3; n++ {
					for kind = range loneValues(limit) {
						r, err := typedrpc.Call(t.Context(), c, m, n)
						if n <= limit && (err != nil || len(r) != n) || n > limit && typedrpc.CodeOf(err) != typedrpc.ResourceExhausted {
							t.Errorf("%s %s %s %d: %d, %v", by, side, kind, n, len(r), err)
						}
					}
				}
			}
		})
	}
}

// Requests of strangers with params of just the limit are taken, however much
// surrounds them.
func TestLimits_strangersRequestsToTheByte(t *testing.T) {
	const limit = 1000
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, typedrpc.NewMethod[typedrpc.Raw, int]("m"), func(_ context.Context, r typedrpc.Raw) (int, error) { return len(r), nil })
	lab.Strangers(t, mux, typedrpc.Limits{MaxMessage: limit}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, _ *lab.Logs) {
		for n := limit - 2; n <= limit+4; n++ {
			for kind, v := range loneValues(n) {
				params := v
				if kind == "string" || kind == "number" {
					params = "[" + v + "]"
				}
				s.Send(`{ "jsonrpc" : "2.0" , "id" : "` + strings.Repeat("i", 200) + `", "method" : "m", "params" : ` + params + `}`)
				got := s.Only(t)
				ok := strings.Contains(got, `"result"`)
				if want := n <= limit || kind == "list" && n <= limit+2; ok != want {
					t.Errorf("%s %d: %s", kind, n, got[len(got)-60:])
				}
			}
		}
	})
}

// The user of the URL goes on to the same server, however the redirect says it.
func TestRedirect_userOfTheURL(t *testing.T) {
	for _, to := range []string{"/rpc", "wss://a.example/rpc", "https://a.example:443/rpc", "//a.example/rpc"} {
		is := is.New(t)
		s := newPlaces(t, &typedrpc.Server{})
		s.lead("a.example:443/", to)
		c, err := typedrpc.Dial(t.Context(), "wss://u:p4ss@a.example/", &typedrpc.DialOptions{HTTPClient: s.client, Header: http.Header{"host": nil}})
		_ = err
		if err != nil {
			c, err = typedrpc.Dial(t.Context(), "wss://u:p4ss@a.example/", &typedrpc.DialOptions{HTTPClient: s.client})
			is.NoErr(err)
		}
		c.Close()
		seen := s.seen["a.example:443"]
		for i, what := range seen {
			if strings.HasPrefix(what, "/") && !strings.Contains(what, "Authorization") {
				t.Errorf("%s: request %d went without: %s", to, i, what)
			}
		}
	}
}

// Host in any case is the request's, and goes to no other server by a redirect.
func TestRedirect_hostHeader(t *testing.T) {
	for _, name := range []string{"Host", "host", "HOST"} {
		for _, to := range []string{"/rpc", "wss://real.example/rpc", "wss://other.example/rpc"} {
			s := newPlaces(t, &typedrpc.Server{Origins: []string{"*"}})
			s.lead("virtual.example:443/", to)
			c, err := typedrpc.Dial(t.Context(), "wss://real.example/", &typedrpc.DialOptions{HTTPClient: s.client, Header: http.Header{name: {"virtual.example"}}})
			t.Log(name, to, s.asked, err)
			if err == nil {
				c.Close()
			}
			if strings.Contains(to, "other") && s.last() != "other.example:443/rpc" {
				t.Errorf("%s %s: %v", name, to, s.asked)
			}
			if to == "/rpc" && s.last() != "virtual.example:443/rpc" {
				t.Errorf("%s %s: %v", name, to, s.asked)
			}
		}
	}
}
