package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/stats"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/transfer"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// turnstile is where handlers wait that do not look at their contexts. It knows who
// came after the end.
type turnstile struct {
	hold  chan struct{}
	over  atomic.Bool
	began atomic.Int64
	late  atomic.Int64
	ctxs  chan context.Context
}

func newTurnstile() *turnstile {
	return &turnstile{hold: make(chan struct{}), ctxs: make(chan context.Context, 1000)}
}

func (g *turnstile) pass(ctx context.Context) {
	g.began.Add(1)
	if g.over.Load() {
		g.late.Add(1)
	}
	g.ctxs <- ctx
	<-g.hold
}

// slowly is a request whose decoding takes until its gate opens.
type slowly struct{}

var decoding atomic.Pointer[turnstile]

func (*slowly) UnmarshalJSON([]byte) error {
	if g := decoding.Load(); g != nil {
		g.began.Add(1)
		<-g.hold
	}
	return nil
}

func (slowly) MarshalJSON() ([]byte, error) { return []byte(`{}`), nil }

var (
	overNote   = typedrpc.NewNotification[int]("over.note")
	overCall   = typedrpc.NewMethod[int, int]("over.call")
	overSerial = typedrpc.NewMethod[int, int]("over.serial", typedrpc.Serial)
	overItems  = typedrpc.NewServerStream[int, int]("over.items")
	overSlow   = typedrpc.NewMethod[slowly, int]("over.slow")
	overSlowly = typedrpc.NewNotification[slowly]("over.slowly")
)

func (g *turnstile) mux(around ...typedrpc.Interceptor) *typedrpc.Mux {
	mux := typedrpc.NewMux(around...)
	call := func(ctx context.Context, n int) (int, error) { g.pass(ctx); return n, nil }
	note := func(ctx context.Context, _ int) error { g.pass(ctx); return nil }
	typedrpc.Handle(mux, overNote, note)
	typedrpc.Handle(mux, overNote, note) // two for each
	typedrpc.Handle(mux, overCall, call)
	typedrpc.Handle(mux, overSerial, call)
	typedrpc.Handle(mux, overItems, func(ctx context.Context, _ int, _ func(int) error) error { g.pass(ctx); return nil })
	typedrpc.Handle(mux, overSlow, func(ctx context.Context, _ slowly) (int, error) { g.pass(ctx); return 0, nil })
	typedrpc.Handle(mux, overSlowly, func(ctx context.Context, _ slowly) error { g.pass(ctx); return nil })
	return mux
}

// ends are the ways in which a side ends a connection at once.
var ends = map[string]func(srv *typedrpc.Server, c *typedrpc.Conn){
	"Close": func(_ *typedrpc.Server, c *typedrpc.Conn) { c.Close() },
	"Shutdown whose time is over": func(_ *typedrpc.Server, c *typedrpc.Conn) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		c.Shutdown(ctx)
	},
	"Revoke": func(srv *typedrpc.Server, _ *typedrpc.Conn) { srv.Revoke("", nil) },
	"Server.Shutdown whose time is over": func(srv *typedrpc.Server, _ *typedrpc.Conn) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		srv.Shutdown(ctx)
	},
}

// requests are what waits for its turn when the end comes. Each is made often.
var requests = map[string]func(ctx context.Context, c *typedrpc.Conn){
	"notifications": func(ctx context.Context, c *typedrpc.Conn) {
		for n := range 200 {
			typedrpc.Notify(ctx, c, overNote, n)
		}
	},
	"a notification being decoded": func(ctx context.Context, c *typedrpc.Conn) { typedrpc.Notify(ctx, c, overSlowly, slowly{}) },
	"a call being decoded":         func(ctx context.Context, c *typedrpc.Conn) { go typedrpc.Call(ctx, c, overSlow, slowly{}) },
	"Serial calls": func(ctx context.Context, c *typedrpc.Conn) {
		for n := range 50 {
			typedrpc.Go(ctx, c, overSerial, n)
		}
	},
	"calls that wait for room for their replies": func(ctx context.Context, c *typedrpc.Conn) {
		for n := range 100 {
			typedrpc.Go(ctx, c, overCall, n)
		}
	},
	"streams": func(ctx context.Context, c *typedrpc.Conn) {
		for n := range 50 {
			go func() {
				for range typedrpc.Receive(ctx, c, overItems, n) {
				}
			}()
		}
	},
}

// When Close, Revoke or the end of a Shutdown's time has ended a connection, no
// handler begins for its peer, and the contexts of those that run have ended.
func TestOver_nothingBegins(t *testing.T) {
	for how, end := range ends {
		for what, ask := range requests {
			for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text, typedrpc.JSONRPC} {
				for _, atServer := range []bool{true, false} {
					if !atServer && strings.Contains(how, "Re") || !atServer && strings.Contains(how, "Server") {
						continue
					}
					t.Run(fmt.Sprintf("%s/%s/%v/server=%v", how, what, d, atServer), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { nothingBegins(t, d, atServer, end, ask) })
					})
				}
			}
		}
	}
}

func nothingBegins(t *testing.T, d typedrpc.Dialect, atServer bool, end func(*typedrpc.Server, *typedrpc.Conn), ask func(context.Context, *typedrpc.Conn)) {
	is := is.New(t)
	g := newTurnstile()
	srv := lab.New().Server
	o := &typedrpc.DialOptions{Dialect: d, Backoff: lab.Steady}
	if atServer {
		srv.Mux = g.mux()
	} else {
		o.Mux = g.mux()
	}
	lab.Quiet(srv, o)
	client, server, err := typedrpctest.Dial(srv, o)
	is.NoErr(err)
	decoding.Store(g)         // not before: the declarations are checked, which decodes as well
	defer decoding.Store(nil) // and will be again
	defer func() {
		client.Close()
		srv.Shutdown(t.Context())
	}()
	asker, ender := client, server
	if !atServer {
		asker, ender = server, client
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ask(ctx, asker)
	synctest.Wait()
	if d != typedrpc.JSONRPC || g.began.Load() > 0 { // a plain peer has no streams
		is.True(g.began.Load() > 0)
	}
	end(srv, ender)
	g.over.Store(true)
	for range len(g.ctxs) {
		is.True((<-g.ctxs).Err() != nil)
	}
	close(g.hold)
	synctest.Wait()
	time.Sleep(time.Second)
	is.Equal(g.late.Load(), int64(0)) // of handlers that began
}

// An interceptor may let what it wraps wait until the connection is gone. What is behind it
// does not begin then, whatever it is.
func TestOver_behindAnInterceptor(t *testing.T) {
	type none = struct{}
	undeclared := typedrpc.NewMethod[int, int]("over.undeclared")
	news := topic.New[int]("over.news", topic.WithPresence)
	file := transfer.NewUpload[int, none]("over.file")
	asks := map[string]func(ctx context.Context, c *typedrpc.Conn){
		"a method":       func(ctx context.Context, c *typedrpc.Conn) { typedrpc.Call(ctx, c, overCall, 1) },
		"a notification": func(ctx context.Context, c *typedrpc.Conn) { typedrpc.Notify(ctx, c, overNote, 1) },
		"a stream": func(ctx context.Context, c *typedrpc.Conn) {
			for range typedrpc.Receive(ctx, c, overItems, 1) {
			}
		},
		"an upload": func(ctx context.Context, c *typedrpc.Conn) {
			transfer.Send(ctx, c, file, 1, strings.NewReader("x"), nil)
		},
		"a fallback":           func(ctx context.Context, c *typedrpc.Conn) { typedrpc.Call(ctx, c, undeclared, 1) },
		"a fallback, notified": func(ctx context.Context, c *typedrpc.Conn) { typedrpc.Notify(ctx, c, lab.Note, 1) },
		"who allows to subscribe": func(ctx context.Context, c *typedrpc.Conn) {
			for range topic.Subscribe(ctx, c, news, "x") {
			}
		},
		"who allows to watch": func(ctx context.Context, c *typedrpc.Conn) {
			for range topic.Watch(ctx, c, news, "x") {
			}
		},
	}
	for how, end := range ends {
		for what, ask := range asks {
			t.Run(how+"/"+what, func(t *testing.T) {
				lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
					is := is.New(t)
					var seen, began atomic.Int64
					gate := make(chan struct{})
					g := newTurnstile()
					close(g.hold)
					mux := g.mux(func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
						seen.Add(1)
						<-gate
						return next(ctx, r)
					})
					hub := new(topic.Hub)
					defer hub.Close()
					topic.Handle(mux, hub, news, func(context.Context, topic.Access) error { began.Add(1); return nil })
					typedrpc.Handle(mux, file, func(context.Context, int, *transfer.Reader) (n none, err error) { began.Add(1); return })
					mux.HandleFallback(func(context.Context, *typedrpc.Request) (typedrpc.Raw, error) {
						began.Add(1)
						return typedrpc.Raw("1"), nil
					})
					srv, o := lab.New().Server, &typedrpc.DialOptions{Dialect: d, Backoff: lab.Steady}
					srv.Mux = mux
					lab.Quiet(srv, o)
					client, server, err := typedrpctest.Dial(srv, o)
					is.NoErr(err)
					ctx, cancel := context.WithCancel(t.Context())
					go ask(ctx, client)
					synctest.Wait()
					is.True(seen.Load() > 0)
					end(srv, server)
					cancel()
					close(gate)
					synctest.Wait()
					is.Equal(began.Load()+g.began.Load(), int64(0))
					client.Close()
					srv.Shutdown(t.Context())
				})
			})
		}
	}
}

// A peer that does not answer the goodbye, and goes on asking for the second that
// it is waited for.
func TestOver_peerGoesOn(t *testing.T) {
	for how, end := range ends {
		for name, offer := range map[string]string{"binary": testkit.BinaryProtocol, "jsonrpc": testkit.HelloProtocol, "plain": ""} {
			testkit.Bubble(t, how+"/"+name, func(t *testing.T, is *is.I) {
				g := newTurnstile()
				close(g.hold)
				srv := lab.New().Server
				srv.Mux = g.mux()
				came := make(chan *typedrpc.Conn, 1)
				srv.OnConnect = func(c *typedrpc.Conn) { came <- c }
				p, err := testkit.Join(srv, offer)
				is.NoErr(err)
				defer func() {
					p.T.Kill()
					srv.Shutdown(t.Context())
				}()
				if offer != "" {
					_, err = p.Hello()
					is.NoErr(err)
				}
				var raw []byte
				if offer == "" {
					raw = []byte("1")
				}
				ended := make(chan struct{})
				go func() {
					for id := uint64(1); ; id++ {
						for _, f := range []wire.Frame{
							{Type: wire.Notify, Method: "over.note", Payload: []byte("1")},
							{Type: wire.Call, ID: id, RawID: raw, Method: "over.call", Payload: []byte("1")},
							{Type: wire.Notify, Method: "over.note", Payload: []byte("1")},
						} {
							if p.Send(f) != nil {
								close(ended)
								return
							}
						}
						time.Sleep(10 * time.Millisecond)
					}
				}()
				server := <-came
				time.Sleep(time.Second)
				is.True(g.began.Load() > 100)
				end(srv, server)
				g.over.Store(true)
				<-ended
				synctest.Wait()
				is.Equal(g.late.Load(), int64(0))
			})
		}
	}
}

// A POST is a peer as well.
func TestOver_postIsRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		g := newTurnstile()
		r := newRevocable()
		r.On(func(_ context.Context, _ int, id *typedrpc.Identity) error { id.Subject = "ann"; return nil })
		r.Mux = g.mux()
		body := `[{"jsonrpc":"2.0","method":"over.note","params":[1]}` + strings.Repeat(`,{"jsonrpc":"2.0","method":"over.note","params":[1]}`, 50)
		for n := range 50 {
			body += fmt.Sprintf(`,{"jsonrpc":"2.0","method":"over.call","params":[1],"id":%d}`, n)
		}
		post := httptest.NewRequest("POST", "http://town/", strings.NewReader(body+"]"))
		post.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.ServeHTTP(w, post)
		}()
		synctest.Wait()
		is.True(g.began.Load() > 1)
		r.Revoke("bob", nil)
		is.Equal((<-g.ctxs).Err(), nil)
		is.Equal(r.Revoke("ann", nil), 0) // no connection
		g.over.Store(true)
		for range len(g.ctxs) {
			is.True((<-g.ctxs).Err() != nil)
		}
		close(g.hold)
		<-done
		is.Equal(g.late.Load(), int64(0))
		is.Equal(w.Code, http.StatusUnauthorized)
		is.NoErr(r.Shutdown(t.Context()))
	})
}

// withheld is a Recorder that keeps the library from going on with what it has begun to end.
type withheld struct {
	stats.None
	gate chan struct{}
}

func (w withheld) Call(c stats.Call) {
	if c.Outgoing {
		<-w.gate
	}
}

// Whoever ends a connection that is about to end, because of somebody else or for want of a link,
// has ended the contexts of its handlers when it returns, too. Those of Keyed calls, which go on
// when their connection is lost, end with their subject, or the server.
func TestOver_whileItEnds(t *testing.T) {
	overKeyed := typedrpc.NewMethod[int, int]("over.keyed", typedrpc.Keyed)
	first := map[string]func(w *lab.Town, c *typedrpc.Conn){
		"lost":   func(w *lab.Town, _ *typedrpc.Conn) { w.Serve(nil); w.Cable().Cut() },
		"closed": func(_ *lab.Town, c *typedrpc.Conn) { go c.Close() },
	}
	for how, begin := range first {
		for then, end := range ends {
			t.Run(how+"/"+then, func(t *testing.T) {
				lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
					is := is.New(t)
					g, gate, came := newTurnstile(), make(chan struct{}), make(chan *typedrpc.Conn, 1)
					srv := lab.New().Server
					srv.Mux, srv.Recorder, srv.Limits.Grace = g.mux(), withheld{gate: gate}, -1
					typedrpc.Handle(srv.Mux, overKeyed, func(ctx context.Context, n int) (int, error) { g.pass(ctx); return n, nil })
					srv.OnConnect = func(c *typedrpc.Conn) { came <- c }
					w := &lab.Town{Srv: srv}
					c := w.Dial(t, &typedrpc.DialOptions{Dialect: d, Mux: lab.New().Mux, Backoff: typedrpc.Backoff{Min: time.Hour, Max: time.Hour}})
					server := <-came
					ctx, cancel := context.WithCancel(t.Context())
					typedrpc.Go(t.Context(), server, lab.Hang, struct{}{}) // of whose end the Recorder is told
					typedrpc.Go(ctx, c, overCall, 1)
					synctest.Wait()
					typedrpc.Go(ctx, c, overKeyed, 1)
					synctest.Wait()
					is.Equal(len(g.ctxs), 2)
					begin(w, server)
					synctest.Wait()
					returned := make(chan bool)
					go func() {
						end(srv, server)
						call, keyed := <-g.ctxs, <-g.ctxs
						goesOn := how == "lost" && !strings.Contains(then, "Re") && !strings.Contains(then, "Server")
						returned <- call.Err() != nil && (goesOn || keyed.Err() != nil)
					}()
					time.AfterFunc(time.Second, func() { close(gate) })
					is.True(<-returned)
					close(g.hold)
					cancel()
					c.Close()
					is.NoErr(srv.Shutdown(t.Context()))
				})
			})
		}
	}
}
