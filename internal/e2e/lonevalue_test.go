package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// loneValues are requests of n bytes that JSON-RPC puts into a list, and others.
func loneValues(n int) map[string]string {
	return map[string]string{
		"string": `"` + strings.Repeat("x", n-2) + `"`,
		"number": strings.Repeat("7", n),
		"list":   `["` + strings.Repeat("x", n-4) + `"]`,
		"lists":  `[["` + strings.Repeat("x", n-6) + `"]]`,
		"object": `{"x":"` + strings.Repeat("x", n-8) + `"}`,
	}
}

// What the sender lets pass arrives, to the byte, by whatever dialect; what it does not
// fails there.
func TestLimits_loneValue(t *testing.T) {
	const limit = 1000
	ways := map[string]func(trait ...typedrpc.Trait) (typedrpc.Method[typedrpc.Raw, int], typedrpc.Notification[typedrpc.Raw], typedrpc.Limits){
		"MaxMessage": func(trait ...typedrpc.Trait) (typedrpc.Method[typedrpc.Raw, int], typedrpc.Notification[typedrpc.Raw], typedrpc.Limits) {
			return typedrpc.NewMethod[typedrpc.Raw, int]("lone.call"), typedrpc.NewNotification[typedrpc.Raw]("lone.note"), typedrpc.Limits{MaxMessage: limit}
		},
		"MaxSize": func(trait ...typedrpc.Trait) (typedrpc.Method[typedrpc.Raw, int], typedrpc.Notification[typedrpc.Raw], typedrpc.Limits) {
			return typedrpc.NewMethod[typedrpc.Raw, int]("lone.call", typedrpc.MaxSize(limit)), typedrpc.NewNotification[typedrpc.Raw]("lone.note", typedrpc.MaxSize(limit)), typedrpc.Limits{}
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			lab.OverAll(t, func(t *testing.T, o lab.Over) {
				call, note, limits := way()
				noted := make(chan int, 1)
				mux := typedrpc.NewMux()
				typedrpc.Handle(mux, call, func(_ context.Context, r typedrpc.Raw) (int, error) { return len(r), nil })
				typedrpc.Handle(mux, note, func(_ context.Context, r typedrpc.Raw) error { noted <- len(r); return nil })
				client, server := o.Connect(t, &typedrpc.Server{Mux: mux, Limits: limits}, &typedrpc.DialOptions{Mux: mux, Limits: limits})
				for side, c := range map[string]*typedrpc.Conn{"client": client, "server": server} {
					for n := limit - 3; n <= limit+4; n++ {
						for kind, text := range loneValues(n) {
							t.Run(fmt.Sprint(side, n, kind), func(t *testing.T) {
								is := is.New(t)
								passes := n <= limit || kind == "list" && n <= limit+2
								got, err := typedrpc.Call(t.Context(), c, call, typedrpc.Raw(text))
								failed := typedrpc.Notify(t.Context(), c, note, typedrpc.Raw(text))
								if passes {
									is.NoErr(err)
									is.NoErr(failed)
									is.True(got >= n)
									is.Equal(<-noted, got) // it came
									return
								}
								for _, err := range []error{err, failed} {
									is.Equal(typedrpc.CodeOf(err), typedrpc.ResourceExhausted)
									is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
									is.True(strings.Contains(err.Error(), "can be sent"))
								}
							})
						}
					}
				}
			})
		})
	}
}

// Through a proxy, and in fragments, it is the same.
func TestLimits_loneValueForwarded(t *testing.T) {
	limits := typedrpc.Limits{MaxMessage: 200_000}
	dialects := []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text, typedrpc.JSONRPC}
	for _, in := range dialects {
		for _, out := range dialects {
			t.Run(fmt.Sprint(in, out), func(t *testing.T) {
				call, note := typedrpc.NewMethod[string, int]("lone.call"), typedrpc.NewNotification[string]("lone.note")
				noted := make(chan int, 1)
				mux := typedrpc.NewMux()
				typedrpc.Handle(mux, call, func(_ context.Context, s string) (int, error) { return len(s), nil })
				typedrpc.Handle(mux, note, func(_ context.Context, s string) error { noted <- len(s); return nil })
				up, _ := lab.Over{Dialect: out}.Connect(t, &typedrpc.Server{Mux: mux, Limits: limits}, &typedrpc.DialOptions{Limits: limits})
				proxy := typedrpc.NewMux()
				proxy.HandleFallback(func(ctx context.Context, r *typedrpc.Request) (typedrpc.Raw, error) {
					return typedrpc.Forward(ctx, up, r)
				})
				c, _ := lab.Over{Dialect: in}.Connect(t, &typedrpc.Server{Mux: proxy, Limits: limits}, &typedrpc.DialOptions{Limits: limits})
				for n := 199_990; n <= 199_998; n++ {
					is := is.New(t)
					got, err := typedrpc.Call(t.Context(), c, call, strings.Repeat("x", n))
					is.NoErr(err)
					is.Equal(got, n)
					is.NoErr(typedrpc.Notify(t.Context(), c, note, strings.Repeat("x", n)))
					is.Equal(<-noted, n)
				}
			})
		}
	}
}
