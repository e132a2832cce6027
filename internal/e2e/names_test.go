package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// freeNames are of JSON-RPC's extensions and of the Language Server Protocol.
var freeNames = []string{"rpc.on", "rpc.off", "rpc.discover", "rpc.", "rpc.hello2", "rpc.Ping", "$/progress", "$/setTrace", "$/", "$/canceLRequest"}

// keptNames are the wire's own.
var keptNames = []string{
	"rpc.hello", "rpc.auth", "rpc.ping", "rpc.ack", "rpc.goaway", "rpc.cancel", "rpc.item", "rpc.end", "rpc.credit", "rpc.head", "$/cancelRequest",
}

func TestNames_freeOnesCross(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		told := make(chan string, len(freeNames))
		mux := typedrpc.NewMux()
		var calls []typedrpc.Method[int, string]
		var notes []typedrpc.Notification[int]
		for _, name := range freeNames {
			m := typedrpc.NewMethod[int, string](name)
			typedrpc.Handle(mux, m, func(_ context.Context, n int) (string, error) {
				told <- fmt.Sprint(name, n)
				return name, nil
			})
			calls, notes = append(calls, m), append(notes, typedrpc.NewNotification[int](name))
		}
		client, server := o.Connect(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{Mux: mux})
		for _, c := range []*typedrpc.Conn{client, server} {
			for i, name := range freeNames {
				got, err := typedrpc.Call(t.Context(), c, calls[i], 1)
				is.NoErr(err)
				is.Equal(got, name)
				is.Equal(<-told, name+"1")
				is.NoErr(typedrpc.Notify(t.Context(), c, notes[i], 2)) // a method may be notified
				is.Equal(<-told, name+"2")
			}
		}
	})
}

func TestNames_notificationsAndStreams(t *testing.T) {
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		progress := typedrpc.NewNotification[string]("$/progress")
		events := typedrpc.NewServerStream[int, int]("rpc.events")
		told := make(chan string, 1)
		typedrpc.Handle(mux, progress, func(_ context.Context, s string) error { told <- s; return nil })
		typedrpc.Handle(mux, events, func(_ context.Context, n int, send func(int) error) error { return send(n) })
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		is.NoErr(typedrpc.Notify(t.Context(), client, progress, "half"))
		is.Equal(<-told, "half")
		for n, err := range typedrpc.Receive(t.Context(), client, events, 7) {
			is.NoErr(err)
			is.Equal(n, 7)
		}
	})
}

func TestNames_keptOnesCannotBeDeclared(t *testing.T) {
	for _, name := range keptNames {
		is := is.New(t)
		for _, text := range []string{
			panicText(func() { typedrpc.NewMethod[int, int](name) }), panicText(func() { typedrpc.NewNotification[int](name) }),
			panicText(func() { typedrpc.NewServerStream[int, int](name) }),
		} {
			is.True(strings.Contains(text, name) && strings.Contains(text, "typedrpc uses it on the wire"))
			is.True(!strings.Contains(text, "JSON-RPC keeps"))
		}
		is.Equal(panicText(func() { typedrpc.NewFault[int](name, 200) }), "no panic") // the name of a fault is no method's
	}
}

// What a subscriber of another server's asks and is told: both ways, with plain peers.
func TestNames_withStrangers(t *testing.T) {
	on := typedrpc.NewMethod[[]string, typedrpc.Raw]("rpc.on")
	progress := typedrpc.NewNotification[typedrpc.Raw]("$/progress")
	discover := typedrpc.NewMethod[struct{}, string]("rpc.discover")
	mux := typedrpc.NewMux()
	var told []string
	typedrpc.Handle(mux, progress, func(_ context.Context, r typedrpc.Raw) error { told = append(told, string(r)); return nil })
	typedrpc.Handle(mux, discover, func(context.Context, struct{}) (string, error) { return "openrpc", nil })
	lab.Strangers(t, mux, typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, _ *lab.Logs) {
		is := is.New(t)
		told = nil
		f := typedrpc.Go(t.Context(), c, on, []string{"feedUpdated"})
		is.Equal(s.Only(t), `{"jsonrpc":"2.0","id":1,"method":"rpc.on","params":["feedUpdated"]}`)
		s.Send(`{"jsonrpc":"2.0","id":1,"result":{"feedUpdated":"ok"}}`)
		got, err := f.Await(t.Context())
		is.NoErr(err)
		is.Equal(string(got), `{"feedUpdated":"ok"}`)
		is.NoErr(typedrpc.Notify(t.Context(), c, progress, typedrpc.Raw(`{"token":1}`)))
		is.Equal(s.Only(t), `{"jsonrpc":"2.0","method":"$/progress","params":{"token":1}}`)
		s.Send(`{"jsonrpc":"2.0","method":"$/progress","params":{"token":2}}`)
		s.Send(`{"jsonrpc":"2.0","id":9,"method":"rpc.discover"}`)
		is.Equal(s.Only(t), `{"jsonrpc":"2.0","id":9,"result":"openrpc"}`)
		is.Equal(told, []string{`{"token":2}`})
	})
}

// A proxy hands free names on, and none that would become a frame at the other peer: a
// client could cancel others' calls with it.
func TestNames_throughAProxy(t *testing.T) {
	for _, name := range append([]string{"rpc.on"}, keptNames...) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				foreign, up, _ := lab.ForeignServer(t, &typedrpc.DialOptions{})
				behind := typedrpc.NewMux()
				behind.HandleFallback(func(_ context.Context, r *typedrpc.Request) (typedrpc.Raw, error) {
					return typedrpc.Raw(`"` + r.Method + `"`), nil
				})
				text, textServer := typedrpctest.Pair(t, &typedrpc.Server{Mux: behind}, &typedrpc.DialOptions{Dialect: typedrpc.Text})
				for _, to := range []*typedrpc.Conn{up, text} {
					mux := typedrpc.NewMux()
					mux.HandleFallback(func(ctx context.Context, r *typedrpc.Request) (typedrpc.Raw, error) {
						return typedrpc.Forward(ctx, to, r)
					})
					page, c := lab.Page(t, &typedrpc.Server{Mux: mux})
					page.Send(`{"jsonrpc":"2.0","id":5,"method":"` + name + `","params":{"x":1}}`)
					got, came := page.Got(), foreign.Got()
					page.Send(`{"jsonrpc":"2.0","method":"` + name + `","params":{"x":1}}`)
					came = append(came, foreign.Got()...)
					free := name == "rpc.on" || to == up && name != "rpc.cancel" && name != "$/cancelRequest"
					switch {
					case to == up && free:
						is.Equal(len(came), 2)
						foreign.Send(`{"jsonrpc":"2.0","id":` + callID(t, came[0]) + `,"result":1}`)
						is.Equal(page.Only(t), `{"jsonrpc":"2.0","id":5,"result":1}`)
					case free:
						is.Equal(got, []string{`{"jsonrpc":"2.0","id":5,"result":"rpc.on"}`})
					default:
						is.Equal(len(came), 0)
						is.Equal(len(got), 1)
						is.True(strings.Contains(got[0], `"code":-32601`))
					}
					is.Equal(to.State(), typedrpc.StateConnected) // no frame that cannot be
					c.Close()
				}
				text.Close()
				textServer.Close()
				up.Close()
			})
		})
	}
}
