package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

var (
	inlineNow  = typedrpc.NewMethod[string, string]("inline.now", typedrpc.Inline)
	inlineElse = typedrpc.NewMethod[string, string]("inline.else")
	inlineNote = typedrpc.NewNotification[string]("inline.note")
)

// inlineMux has now for the Inline method, and answers else with what it was asked.
func inlineMux(now func(ctx context.Context, text string) (string, error)) *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, inlineNow, now)
	typedrpc.Handle(mux, inlineElse, func(_ context.Context, text string) (string, error) { return text, nil })
	return mux
}

// An Inline method is a method like others: answers, errors, faults, panics, metadata
// and deadlines, both ways and in all dialects.
func TestInline_answers(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		mux := inlineMux(func(ctx context.Context, text string) (string, error) {
			switch text {
			case "error":
				return "", typedrpc.Errorf(typedrpc.NotFound, "no %s", text)
			case "panic":
				panic(text)
			case "bound":
				_, bound := ctx.Deadline()
				return map[bool]string{true: "bound", false: "endless"}[bound], ctx.Err()
			}
			return text + "!", nil
		})
		client, server := o.Connect(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{Mux: mux})
		for _, c := range []*typedrpc.Conn{client, server} {
			got, err := typedrpc.Call(t.Context(), c, inlineNow, "hello")
			is.NoErr(err)
			is.Equal(got, "hello!")
			_, err = typedrpc.Call(t.Context(), c, inlineNow, "error")
			is.True(errors.Is(err, typedrpc.NotFound))
			_, err = typedrpc.Call(t.Context(), c, inlineNow, "panic")
			is.True(errors.Is(err, typedrpc.Internal))
			if !o.Plain() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				got, err = typedrpc.Call(ctx, c, inlineNow, "bound")
				cancel()
				is.NoErr(err)
				is.Equal(got, "bound")
			}
			fs := make([]*typedrpc.Future[string], 500)
			for i := range fs {
				fs[i] = typedrpc.Go(t.Context(), c, inlineNow, strings.Repeat("x", i))
			}
			for i, f := range fs {
				got, err := f.Await(t.Context())
				is.NoErr(err)
				is.Equal(len(got), i+1)
			}
		}
	})
}

// While a small one runs nothing is read, which is how it can be told that the reader runs
// it; a large request or answer, and what comes behind answers that nobody reads, does not
// keep the reader.
func TestInline_runsWhereItIsRead(t *testing.T) {
	large := strings.Repeat("x", 1<<20)
	for name, tt := range map[string]struct {
		text  string
		first string // what it answered before
		reads bool
	}{
		"small":         {"now", "now", false},
		"large request": {large, "now", true},
		"large answers": {"now", large, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				var first bool
				mux := inlineMux(func(ctx context.Context, text string) (string, error) {
					if !first {
						first = true
						return tt.first, nil
					}
					time.Sleep(time.Second) // what it has said that it never does
					return "", nil
				})
				client, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: mux}, nil)
				_, err := typedrpc.Call(t.Context(), client, inlineNow, "first")
				is.NoErr(err)
				slow := typedrpc.Go(t.Context(), client, inlineNow, tt.text)
				synctest.Wait()
				began := time.Now()
				_, err = typedrpc.Call(t.Context(), client, inlineElse, "x")
				is.NoErr(err)
				is.Equal(time.Since(began) == 0, tt.reads)
				_, err = slow.Await(t.Context())
				is.NoErr(err)
			})
		})
	}
}

// What its handler would wait for is refused at once, but for what does not come over
// the connection that waits, or is not part of the handler.
func TestInline_waitsForNothing(t *testing.T) {
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		var other *typedrpc.Conn
		later := make(chan error, 1)
		mux := inlineMux(func(ctx context.Context, text string) (string, error) {
			conn := typedrpc.ConnFrom(ctx)
			switch text {
			case "call":
				return typedrpc.Call(ctx, conn, inlineElse, "x")
			case "future":
				return typedrpc.Go(ctx, conn, inlineElse, "x").Await(ctx)
			case "ping":
				_, err := conn.Ping(ctx)
				return "", err
			case "stream":
				for _, err := range typedrpc.Receive(ctx, conn, lab.FlowDown, 1) {
					return "", err
				}
			case "notify":
				for {
					if err := typedrpc.Notify(ctx, conn, inlineNote, strings.Repeat("x", 1000)); err != nil {
						return "", err
					}
				}
			case "other":
				return typedrpc.Call(ctx, other, inlineElse, "other")
			case "after":
				typedrpc.RequestFrom(ctx).AfterReply = func(ctx context.Context, err error) {
					if err == nil {
						_, err = typedrpc.Call(ctx, conn, inlineElse, "x")
					}
					later <- err
				}
			}
			return text, nil
		})
		block := make(chan struct{})
		page := inlineMux(inlineSilent)
		typedrpc.Handle(page, inlineNote, func(context.Context, string) error { <-block; return nil })
		defer close(block)
		elsewhere, _ := o.Connect(t, &typedrpc.Server{Mux: inlineMux(inlineSilent)}, nil)
		other = elsewhere
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{Mux: page})
		for _, what := range []string{"call", "future", "stream", "ping"} {
			_, err := typedrpc.Call(t.Context(), client, inlineNow, what)
			is.True(errors.Is(err, typedrpc.FailedPrecondition)) // what
			is.True(strings.Contains(err.Error(), "Inline"))
		}
		got, err := typedrpc.Call(t.Context(), client, inlineNow, "other")
		is.NoErr(err)
		is.Equal(got, "other")
		_, err = typedrpc.Call(t.Context(), client, inlineNow, "after")
		is.NoErr(err)
		is.NoErr(<-later)
		_, err = typedrpc.Call(t.Context(), client, inlineNow, "notify")
		is.True(errors.Is(err, typedrpc.FailedPrecondition)) // when the window is spent
		is.True(strings.Contains(err.Error(), "Inline"))
	})
}

func inlineSilent(context.Context, string) (string, error) { return "", nil }

// Nor does it wait for what a refresh of the credentials would be told.
func TestInline_reauthenticates(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		g := lab.NewGated(t, d, time.Hour, &typedrpc.DialOptions{SignIn: lab.Ann, Mux: inlineMux(func(ctx context.Context, text string) (string, error) {
			return "", typedrpc.ConnFrom(ctx).Reauthenticate(ctx)
		})})
		_, err := typedrpc.Call(t.Context(), g.Server, inlineNow, "x")
		is.True(errors.Is(err, typedrpc.FailedPrecondition))
		is.True(strings.Contains(err.Error(), "Inline"))
		is.NoErr(g.Client.Reauthenticate(t.Context())) // nothing is the matter with the connection
	})
}

// A handler that ends its goroutine ends the session, at once and in order: its own caller
// is answered, others learn that their calls may have run, and both sides go on with
// another session.
func TestInline_handlerThatEndsItsGoroutine(t *testing.T) {
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		mux := inlineMux(func(_ context.Context, text string) (string, error) {
			if text == "end" {
				runtime.Goexit() // as t.FailNow does
			}
			return text, nil
		})
		block := make(chan struct{})
		waits := typedrpc.NewMethod[string, string]("inline.waits")
		typedrpc.Handle(mux, waits, func(ctx context.Context, text string) (string, error) {
			select {
			case <-block:
			case <-ctx.Done():
			}
			return text, ctx.Err()
		})
		defer close(block)
		conns := make(chan *typedrpc.Conn, 10)
		srv := &typedrpc.Server{Mux: mux, OnConnect: func(c *typedrpc.Conn) { conns <- c }}
		client, err := o.Dial(t, srv, &typedrpc.DialOptions{Mux: mux, Backoff: typedrpc.Backoff{Min: time.Millisecond, Max: time.Millisecond}})
		is.NoErr(err)
		server := <-conns
		for i := range 4 {
			c := []*typedrpc.Conn{client, server}[i%2]
			waiting := typedrpc.Go(t.Context(), c, waits, "x")
			_, err := typedrpc.Call(t.Context(), c, inlineElse, "before") // the call that waits has left
			is.NoErr(err)
			_, err = typedrpc.Call(t.Context(), c, inlineNow, "end")
			is.True(errors.Is(err, typedrpc.Internal) || errors.Is(err, typedrpc.Unavailable))
			_, err = waiting.Await(t.Context())
			is.True(errors.Is(err, typedrpc.Unavailable))
			is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
			<-server.Context().Done()
			server = <-conns
			got, err := typedrpc.Call(t.Context(), client, inlineNow, "again")
			is.NoErr(err)
			is.Equal(got, "again")
		}
		is.NoErr(client.Close())
		is.NoErr(srv.Shutdown(t.Context()))
	})
}

// A peer that asks and does not read has its answers held up to the bound, as others have.
func TestInline_whoDoesNotRead(t *testing.T) {
	const bound = 1 << 20
	answer := strings.Repeat("x", 30_000)
	lab.Strangers(t, inlineMux(func(context.Context, string) (string, error) { return answer, nil }),
		typedrpc.Limits{MaxBuffered: bound}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, _ *lab.Logs) {
			is := is.New(t)
			resume := s.Stop()
			for n := range 300 {
				s.Send(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"inline.now","params":["x"]}`, n))
			}
			time.Sleep(time.Second)
			sums := hook.Conn(c)
			is.True(sums.Queued > bound/2)
			is.True(sums.Queued+sums.Unsent < bound+100_000)
			resume()
			is.Equal(len(s.Got()), 300)
			is.Equal(lab.Unsettled(c), "")
		})
}
