package e2e_test

import (
	"context"
	"fmt"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/transfer"
)

// Whose context ended before the connection did is told so: "defer conn.Close();
// defer cancel()" is how programs end.
func TestCancel_thenTheConnectionEnds(t *testing.T) {
	up := typedrpc.NewClientStream[int, string, int]("first.up")
	down := typedrpc.NewServerStream[int, int]("first.down")
	both := typedrpc.NewBidiStream[int, int, int]("first.both")
	slow := typedrpc.NewNotification[string]("first.slow")
	file := transfer.NewUpload[int, int]("first.file")
	news := topic.New[int]("first.news", topic.Restartable)
	retry := &typedrpc.RetryPolicy{MaxAttempts: 9, Backoff: typedrpc.Backoff{Min: time.Hour}}
	verbs := map[string]func(ctx context.Context, c *typedrpc.Conn) error{
		"a call": func(ctx context.Context, c *typedrpc.Conn) error {
			_, err := typedrpc.Call(ctx, c, lab.Hang, struct{}{})
			return err
		},
		"a call with a retry policy": func(ctx context.Context, c *typedrpc.Conn) error {
			_, err := typedrpc.Call(ctx, c.With(typedrpc.CallOptions{Retry: retry}), lab.Hang, struct{}{})
			return err
		},
		"a call behind an interceptor": func(ctx context.Context, c *typedrpc.Conn) error {
			pass := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
				return next(ctx, r)
			}
			_, err := typedrpc.Call(ctx, c.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{pass}}), lab.Hang, struct{}{})
			return err
		},
		"a future": func(ctx context.Context, c *typedrpc.Conn) error {
			_, err := typedrpc.Go(ctx, c, lab.Hang, struct{}{}).Await(context.Background())
			return err
		},
		"a stream that receives": func(ctx context.Context, c *typedrpc.Conn) (last error) {
			for _, err := range typedrpc.Receive(ctx, c, down, 1) {
				last = err
			}
			return last
		},
		"a stream that sends": func(ctx context.Context, c *typedrpc.Conn) error {
			_, err := typedrpc.SendAll(ctx, c, up, 1, func(yield func(string, error) bool) {
				for yield(string(make([]byte, 10_000)), nil) {
				}
			})
			return err
		},
		"an open stream": func(ctx context.Context, c *typedrpc.Conn) error {
			s, err := typedrpc.Open(ctx, c, both, 1)
			if err != nil {
				return err
			}
			_, err = s.Recv()
			return err
		},
		"a notification": func(ctx context.Context, c *typedrpc.Conn) error {
			for {
				if err := typedrpc.Notify(ctx, c, slow, string(make([]byte, 10_000))); err != nil {
					return err
				}
			}
		},
		"a broadcast": func(ctx context.Context, c *typedrpc.Conn) error {
			for {
				one := func(yield func(*typedrpc.Conn) bool) { yield(c) }
				if err := typedrpc.Broadcast(ctx, one, slow, string(make([]byte, 10_000))); err != nil {
					return err
				}
			}
		},
		"CallAll": func(ctx context.Context, c *typedrpc.Conn) (last error) {
			one := func(yield func(*typedrpc.Conn) bool) { yield(c) }
			for _, f := range typedrpc.CallAll(ctx, one, lab.Hang, struct{}{}) {
				_, last = f.Await(context.Background())
			}
			return last
		},
		"an upload": func(ctx context.Context, c *typedrpc.Conn) error {
			_, err := transfer.Send(ctx, c, file, 1, endless{}, nil)
			return err
		},
		"a Restartable subscription": func(ctx context.Context, c *typedrpc.Conn) (last error) {
			for _, last = range topic.Subscribe(ctx, c, news, "x") {
			}
			return last
		},
		"a refresh": func(ctx context.Context, c *typedrpc.Conn) error { return c.Reauthenticate(ctx) },
	}
	ends := map[string]func(w *lab.Town, c, server *typedrpc.Conn){
		"closed here":  func(_ *lab.Town, c, _ *typedrpc.Conn) { c.Close() },
		"closed there": func(w *lab.Town, c, server *typedrpc.Conn) { server.Close(); synctest.Wait() },
		"shut down": func(_ *lab.Town, c, _ *typedrpc.Conn) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			c.Shutdown(ctx)
		},
		"lost": func(w *lab.Town, _, _ *typedrpc.Conn) { w.Cable().A.Kill() },
	}
	for verb, do := range verbs {
		for how, end := range ends {
			for _, away := range []bool{false, true} {
				if away && how != "closed here" {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/away=%v", verb, how, away), func(t *testing.T) {
					lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
						is := is.New(t)
						r := newRevocable()
						r.On(func(ctx context.Context, n int, _ *typedrpc.Identity) error {
							if n > 1 {
								<-ctx.Done()
							}
							return nil
						})
						typedrpc.Handle(r.Mux, up, func(ctx context.Context, _ int, _ iter.Seq2[string, error]) (int, error) {
							<-ctx.Done()
							return 0, nil
						})
						typedrpc.Handle(r.Mux, down, func(ctx context.Context, _ int, _ func(int) error) error { <-ctx.Done(); return nil })
						typedrpc.Handle(r.Mux, both, func(ctx context.Context, _ int, _ *typedrpc.Stream[int, int]) error { <-ctx.Done(); return nil })
						typedrpc.Handle(r.Mux, slow, func(ctx context.Context, _ string) error { <-ctx.Done(); return nil })
						typedrpc.Handle(r.Mux, file, func(ctx context.Context, _ int, _ *transfer.Reader) (int, error) { <-ctx.Done(); return 0, nil })
						hub := new(topic.Hub)
						defer hub.Close()
						topic.Handle(r.Mux, hub, news, topic.Everybody)
						w := &lab.Town{Srv: r.Server}
						c := w.Dial(t, &typedrpc.DialOptions{Dialect: d, SignIn: named("ann"), Backoff: lab.Steady})
						defer c.Close()
						server := <-r.came
						if away {
							w.Serve(nil)
							w.Cable().Cut()
							time.Sleep(time.Second)
						}
						ctx, cancel := context.WithCancel(t.Context())
						result := make(chan error, 1)
						go func() { result <- do(ctx, c) }()
						time.Sleep(time.Second)
						is.Equal(len(result), 0)
						cancel()
						end(w, c, server)
						err := <-result
						is.Equal(typedrpc.CodeOf(err), typedrpc.Canceled)
						is.True(ctx.Err() != nil)
					})
				})
			}
		}
	}
}

// A handler whose time was over before its session was lost is told so by its stream, too.
func TestCancel_thenTheHandlersSessionIsLost(t *testing.T) {
	both := typedrpc.NewBidiStream[int, int, int]("first.both")
	for how, end := range map[string]func(w *lab.Town, server *typedrpc.Conn){
		"lost":   func(w *lab.Town, _ *typedrpc.Conn) { w.Cable().B.Kill() },
		"closed": func(_ *lab.Town, server *typedrpc.Conn) { server.Close() },
	} {
		t.Run(how, func(t *testing.T) {
			lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
				is := is.New(t)
				l, told := lab.New(), make(chan error, 3)
				typedrpc.Handle(l.Mux, both, func(ctx context.Context, _ int, s *typedrpc.Stream[int, int]) error {
					time.Sleep(time.Minute)
					_, err := s.Recv()
					told <- err
					told <- s.Send(1)
					told <- ctx.Err()
					return nil
				})
				conns := make(chan *typedrpc.Conn, 9)
				l.OnConnect = func(c *typedrpc.Conn) { conns <- c }
				w := &lab.Town{Srv: l.Server}
				c := w.Dial(t, &typedrpc.DialOptions{Dialect: d, Backoff: lab.Steady})
				defer c.Close()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := typedrpc.Open(ctx, c, both, 1)
				is.NoErr(err)
				synctest.Wait()
				w.Cable().Swallow() // its CANCEL
				time.Sleep(2 * time.Second)
				end(w, <-conns)
				for range 3 {
					is.Equal(typedrpc.CodeOf(<-told), typedrpc.DeadlineExceeded)
				}
			})
		})
	}
}

// endless is a file without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// The same of a loop in the hub's own process, whose body was busy when both ended.
func TestCancel_thenTheHubEnds(t *testing.T) {
	news := topic.New[int]("first.news")
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		hub := new(topic.Hub)
		ctx, cancel := context.WithCancel(t.Context())
		results := make(chan error, 32)
		for range cap(results) { // either end is seen first, by chance
			go func() {
				var last error
				for _, last = range topic.Listen(ctx, hub, news, "x") {
					time.Sleep(time.Second)
				}
				results <- last
			}()
		}
		synctest.Wait()
		is.NoErr(topic.Publish(ctx, hub, news, "x", 1))
		synctest.Wait()
		cancel()
		is.NoErr(hub.Close())
		for range cap(results) {
			is.Equal(typedrpc.CodeOf(<-results), typedrpc.Canceled)
		}
	})
}

// A handler that calls its caller is told of the lost connection, although its own
// context has ended with it.
func TestNested_connectionLost(t *testing.T) {
	for how, end := range map[string]func(*lab.Town, *typedrpc.Conn){
		"closed":  func(_ *lab.Town, c *typedrpc.Conn) { c.Close() },
		"lost":    func(w *lab.Town, _ *typedrpc.Conn) { w.Cable().A.Kill() },
		"far end": func(w *lab.Town, _ *typedrpc.Conn) { w.Cable().B.Kill() },
	} {
		t.Run(how, func(t *testing.T) {
			lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
				is := is.New(t)
				result := make(chan error, 2)
				ask := func(ctx context.Context, _ string) (struct{}, error) {
					_, err := typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), lab.Hang, struct{}{})
					result <- err
					return struct{}{}, err
				}
				l, theirs := lab.New(), lab.New()
				typedrpc.Handle(l.Mux, behind.work, ask)
				typedrpc.Handle(theirs.Mux, behind.serial, ask)
				conns := make(chan *typedrpc.Conn, 9)
				l.OnConnect = func(c *typedrpc.Conn) { conns <- c }
				w := &lab.Town{Srv: l.Server}
				c := w.Dial(t, &typedrpc.DialOptions{Dialect: d, Mux: theirs.Mux, Backoff: lab.Steady})
				defer c.Close()
				server := <-conns
				typedrpc.Go(t.Context(), c, behind.work, "")
				typedrpc.Go(t.Context(), server, behind.serial, "")
				synctest.Wait()
				end(w, server)
				for range 2 {
					is.Equal(typedrpc.CodeOf(<-result), typedrpc.Unavailable)
				}
			})
		})
	}
}
