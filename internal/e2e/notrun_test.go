package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/topic"
)

// A server that closes one connection takes a moment for it, and refuses what is asked
// meanwhile. That did not run, so it goes to the next session, as behind a GOAWAY.
func TestClose_whatItRefusesIsSentAgain(t *testing.T) {
	items := typedrpc.NewServerStream[int, int]("refused.items")
	serial := typedrpc.NewMethod[int, int]("refused.serial", typedrpc.Serial)
	news := topic.New[int]("refused.news", topic.History(1, time.Hour))
	verbs := map[string]func(ctx context.Context, c typedrpc.Caller) error{
		"a call": func(ctx context.Context, c typedrpc.Caller) error {
			_, err := typedrpc.Call(ctx, c, lab.Echo, 5)
			return err
		},
		"a Serial call": func(ctx context.Context, c typedrpc.Caller) error {
			_, err := typedrpc.Call(ctx, c, serial, 5)
			return err
		},
		"a future": func(ctx context.Context, c typedrpc.Caller) error {
			_, err := typedrpc.Go(ctx, c, lab.Echo, 5).Await(ctx)
			return err
		},
		"a stream": func(ctx context.Context, c typedrpc.Caller) error {
			for _, err := range typedrpc.Receive(ctx, c, items, 5) {
				if err != nil {
					return err
				}
			}
			return nil
		},
		"a subscription": func(ctx context.Context, c typedrpc.Caller) error {
			for _, err := range topic.Subscribe(ctx, c, news, "") {
				return err
			}
			return nil
		},
	}
	ends := map[string]func(l *lab.Lab, c *typedrpc.Conn){
		"Close":                      func(_ *lab.Lab, c *typedrpc.Conn) { c.Close() },
		"Shutdown of the connection": func(_ *lab.Lab, c *typedrpc.Conn) { c.Shutdown(context.Background()) },
	}
	for verb, do := range verbs {
		for how, end := range ends {
			t.Run(verb+"/"+how, func(t *testing.T) {
				lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
					is := is.New(t)
					l := lab.New()
					typedrpc.Handle(l.Mux, items, func(_ context.Context, n int, send func(int) error) error { return send(n) })
					typedrpc.Handle(l.Mux, serial, func(_ context.Context, n int) (int, error) { return n, nil })
					hub := new(topic.Hub)
					defer hub.Close()
					topic.Handle(l.Mux, hub, news, topic.Everybody)
					is.NoErr(topic.Publish(t.Context(), hub, news, "", 1))
					conns := make(chan *typedrpc.Conn, 9)
					l.OnConnect = func(c *typedrpc.Conn) { conns <- c }
					hold := make(chan struct{})
					told := make(chan int, 9)
					mux := typedrpc.NewMux()
					typedrpc.Handle(mux, lab.Note, func(_ context.Context, n int) error { <-hold; told <- n; return nil })
					w := &lab.Town{Srv: l.Server}
					c := w.Dial(t, &typedrpc.DialOptions{Dialect: d, Mux: mux, Backoff: lab.Steady})
					defer c.Close()
					server := <-conns
					for n := range 3 {
						is.NoErr(typedrpc.Notify(t.Context(), server, lab.Note, n))
					}
					go end(l, server) // waits until the notifications were taken
					synctest.Wait()
					result := make(chan error, 2)
					go func() { result <- do(t.Context(), c) }()
					go func() { result <- do(t.Context(), c.With(typedrpc.CallOptions{FailFast: true})) }()
					synctest.Wait()
					is.Equal(len(result), 1) // the other waits for the next session
					err := <-result
					is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable)
					is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
					close(hold)
					is.NoErr(<-result)
					for n := range 3 { // what was sent before Close has arrived
						if how == "Close" {
							is.Equal(<-told, n)
						}
					}
					is.True(<-conns != server)
					is.Equal(w.Dialled(), 2)
				})
			})
		}
	}
}

// What waits for its turn when a connection is closed did not run, and its caller is told so:
// Serial calls behind one that runs, and calls for whose replies there is no room yet.
func TestClose_whatWaitsForItsTurn(t *testing.T) {
	for what, m := range map[string]typedrpc.Method[int, int]{
		"on the lane": typedrpc.NewMethod[int, int]("waits.serial", typedrpc.Serial),
		"for room":    typedrpc.NewMethod[int, int]("waits.call"),
	} {
		for _, atServer := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/atServer=%v", what, atServer), func(t *testing.T) {
				lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
					is := is.New(t)
					var mu sync.Mutex
					ran := map[int]int{}
					l, theirs := lab.New(), lab.New()
					for _, mux := range []*typedrpc.Mux{l.Mux, theirs.Mux} {
						typedrpc.Handle(mux, m, func(ctx context.Context, n int) (int, error) {
							mu.Lock()
							ran[n]++
							mu.Unlock()
							<-ctx.Done()
							return n, ctx.Err()
						})
					}
					conns := make(chan *typedrpc.Conn, 9)
					l.OnConnect = func(c *typedrpc.Conn) { conns <- c }
					w := &lab.Town{Srv: l.Server}
					c := w.Dial(t, &typedrpc.DialOptions{Dialect: d, Mux: theirs.Mux, Backoff: lab.Steady})
					defer c.Close()
					near, far := c, <-conns
					if !atServer {
						near, far = far, near
					}
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					var all []*typedrpc.Future[int]
					for n := range 60 {
						all = append(all, typedrpc.Go(ctx, near, m, n))
					}
					synctest.Wait()
					mu.Lock()
					began := len(ran)
					mu.Unlock()
					is.True(began > 0 && began < 60)
					far.Close()
					unsent := 0
					for n, f := range all {
						_, err := f.Await(ctx)
						is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable)
						mu.Lock()
						is.Equal(ran[n] == 0, typedrpc.OutcomeOf(err) == typedrpc.NotSent)
						mu.Unlock()
						if typedrpc.OutcomeOf(err) == typedrpc.NotSent {
							unsent++
						}
					}
					is.Equal(unsent, 60-began)
				})
			})
		}
	}
}

// What a client that closes refuses fails at the server, which has no next session.
func TestClose_whatAClientRefuses(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		l := lab.New()
		hold := make(chan struct{})
		conns := make(chan *typedrpc.Conn, 9)
		l.OnConnect = func(c *typedrpc.Conn) { conns <- c }
		typedrpc.Handle(l.Mux, lab.LaneNumber, func(context.Context, int) error { <-hold; return nil })
		theirs := lab.New()
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, &typedrpc.DialOptions{Dialect: d, Mux: theirs.Mux, Backoff: lab.Steady})
		server := <-conns
		is.NoErr(typedrpc.Notify(t.Context(), c, lab.LaneNumber, 1))
		go c.Close()
		synctest.Wait()
		_, err := typedrpc.Call(t.Context(), server, lab.Echo, 1)
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
		close(hold)
		<-c.Context().Done()
		time.Sleep(time.Minute)
		is.Equal(w.Dialled(), 1)
	})
}

// On the wire: GOAWAY comes before the first refusal, and only then.
func TestClose_saysGoAwayBeforeItRefuses(t *testing.T) {
	for name, offer := range map[string]string{"binary": testkit.BinaryProtocol, "jsonrpc": testkit.HelloProtocol} {
		for _, asks := range []bool{true, false} {
			testkit.Bubble(t, name, func(t *testing.T, is *is.I) {
				l := lab.New()
				conns := make(chan *typedrpc.Conn, 1)
				l.OnConnect = func(c *typedrpc.Conn) { conns <- c }
				p, err := testkit.Join(l.Server, offer)
				is.NoErr(err)
				defer p.T.Kill()
				_, err = p.Hello()
				is.NoErr(err)
				server := <-conns
				is.NoErr(typedrpc.Notify(t.Context(), server, lab.Note, 1))
				go server.Close()
				synctest.Wait()
				if asks {
					is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: 1, Method: "lab.echo", Payload: []byte("1")}))
					is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: 2, Method: "lab.echo", Payload: []byte("1")}))
				}
				var seen []wire.Type
				for {
					f, err := p.Next()
					if err != nil {
						break
					}
					if f.Type == wire.GoAway || f.Type == wire.Fail {
						seen = append(seen, f.Type)
					}
				}
				var want []wire.Type
				if asks {
					want = []wire.Type{wire.GoAway, wire.Fail, wire.Fail}
				}
				is.Equal(seen, want)
				l.Shutdown(t.Context())
			})
		}
	}
}
