package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

var shut = typedrpc.NewFault[string]("e2e.banned", typedrpc.FailedPrecondition)

// house is a server whose peers are who they say.
func house(mux *typedrpc.Mux) (*typedrpc.Server, *lab.Town) {
	srv := &typedrpc.Server{Mux: mux, Logger: slog.New(slog.DiscardHandler), SignIn: lab.Sign.Verify(func(_ context.Context, r *http.Request, name *string) (typedrpc.Identity, int, error) {
		if name == nil {
			return typedrpc.Identity{Subject: r.Header.Get("User")}, 0, nil
		}
		return typedrpc.Identity{Subject: *name}, 0, nil
	})}
	return srv, &lab.Town{Srv: srv}
}

// everyway runs f over both dialects and a plain peer's.
func everyway(t *testing.T, f func(t *testing.T, d typedrpc.Dialect)) {
	for name, d := range map[string]typedrpc.Dialect{"binary": typedrpc.Binary, "text": typedrpc.Text, "plain": typedrpc.JSONRPC} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, d) })
		})
	}
}

func visitor(d typedrpc.Dialect, name string) *typedrpc.DialOptions {
	o := &typedrpc.DialOptions{Dialect: d, Backoff: lab.Steady, Limits: typedrpc.Limits{Grace: time.Minute}}
	if d != typedrpc.JSONRPC {
		o.SignIn = lab.Sign.Present(func(context.Context) (string, error) { return name, nil })
	}
	return o
}

// One that is told to stay away gets what was sent before, and ends with the reason.
func TestCloseWith_stayAway(t *testing.T) {
	everyway(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		srv, w := house(lab.New().Mux)
		var noted []int
		o := visitor(d, "ann")
		o.Mux = typedrpc.NewMux()
		typedrpc.Handle(o.Mux, lab.Tell, func(_ context.Context, n int) error { noted = append(noted, n); return nil })
		states := make(chan typedrpc.StateChange, 100)
		o.OnState = func(s typedrpc.StateChange) { states <- s }
		c := w.Dial(t, o)
		defer c.Close()
		synctest.Wait()
		call := typedrpc.Go(t.Context(), c, lab.Hang, struct{}{})
		synctest.Wait()
		for s := range srv.Conns() {
			for n := range 3 {
				is.NoErr(typedrpc.Notify(t.Context(), s, lab.Tell, n))
			}
			is.NoErr(s.CloseWith(&typedrpc.CloseOptions{Err: shut.Errorf("until Sunday", "you are banned"), StayAway: true}))
			is.True(errors.Is(s.Err(), typedrpc.FailedPrecondition)) // this side knows it too
		}
		<-c.Context().Done()
		is.Equal(noted, []int{0, 1, 2})
		err := lab.AsError(t, c.Err())
		is.True(strings.Contains(err.Message, "you are banned"))
		var ce *typedrpc.CloseError
		is.True(errors.As(c.Err(), &ce))
		is.Equal(ce.Code, session.CloseForbidden)
		if d != typedrpc.JSONRPC {
			is.Equal(err.Code, typedrpc.FailedPrecondition)
			until, ok := shut.From(c.Err())
			is.True(ok)
			is.Equal(until, "until Sunday")
			is.True(saysShut(context.Cause(c.Context())))
		}
		_, failed := call.Await(t.Context())
		is.Equal(typedrpc.OutcomeOf(failed), typedrpc.MayHaveRun)
		is.True(strings.Contains(failed.Error(), "you are banned"))
		is.Equal(strings.Count(failed.Error(), "may have run"), 1) // which is said of the call
		if d != typedrpc.JSONRPC {
			until, ok := shut.From(failed)
			is.True(ok) // it is a cause
			is.Equal(until, "until Sunday")
		}
		time.Sleep(time.Hour)
		is.Equal(w.Dialled(), 1) // it has stayed away
		var last typedrpc.StateChange
		for len(states) > 0 {
			last = <-states
			is.True(last.State != typedrpc.StateWaiting)
		}
		is.Equal(last.State, typedrpc.StateClosed)
		is.True(errors.As(last.Err, &ce))
	})
}

// One that is only told why comes back, no sooner than it was told.
func TestCloseWith_comesBack(t *testing.T) {
	everyway(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		srv, w := house(lab.New().Mux)
		o := visitor(d, "ann")
		waits := make(chan typedrpc.StateChange, 10)
		o.OnState = func(s typedrpc.StateChange) {
			if s.State == typedrpc.StateWaiting {
				waits <- s
			}
		}
		c := w.Dial(t, o)
		defer c.Close()
		synctest.Wait()
		began := time.Now()
		for s := range srv.Conns() {
			is.NoErr(s.CloseWith(&typedrpc.CloseOptions{Err: &typedrpc.Error{Code: typedrpc.ResourceExhausted, Message: "moving house", RetryAfter: time.Minute}}))
		}
		synctest.Wait()
		is.NoErr(func() error { _, err := typedrpc.Call(t.Context(), c, lab.Echo, 1); return err }())
		is.Equal(w.Dialled(), 2)
		s := <-waits
		is.True(strings.Contains(s.Err.Error(), "moving house"))
		if d != typedrpc.JSONRPC {
			is.True(time.Since(began) >= time.Minute)
			is.True(errors.Is(s.Err, typedrpc.ResourceExhausted))
		}
	})
}

// The client's word reaches the server, and ends nothing but its own connection.
func TestCloseWith_ofClient(t *testing.T) {
	everyway(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		srv, w := house(lab.New().Mux)
		ended := make(chan error, 2)
		srv.OnDisconnect = func(_ *typedrpc.Conn, err error) { ended <- err }
		other := w.Dial(t, visitor(d, "bob"))
		defer other.Close()
		c := w.Dial(t, visitor(d, "ann"))
		is.NoErr(c.CloseWith(&typedrpc.CloseOptions{Err: shut.Errorf("now", "I have had enough"), StayAway: true}))
		err := <-ended
		var ce *typedrpc.CloseError
		is.True(errors.As(err, &ce))
		is.Equal(ce.Reason, "I have had enough")
		if d != typedrpc.JSONRPC {
			why, ok := shut.From(err)
			is.True(ok)
			is.Equal(why, "now")
		}
		_, err = typedrpc.Call(t.Context(), other, lab.Echo, 1)
		is.NoErr(err)
		time.Sleep(time.Hour)
		is.Equal(len(conns(srv)), 1)
		again := w.Dial(t, visitor(d, "ann")) // and it is nobody's ban
		again.Close()
	})
}

// Those without a link are told when they come for their session, and nobody else is.
func TestRevoke_detached(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		srv, w := house(lab.New().Mux)
		srv.Limits.Grace = time.Minute
		o := visitor(d, "ann")
		c := w.Dial(t, o)
		defer c.Close()
		bob := w.Dial(t, visitor(d, "bob"))
		defer bob.Close()
		synctest.Wait()
		w.Serve(nil)
		for _, line := range w.Lines {
			line.Cut()
		}
		synctest.Wait()
		is.Equal(srv.Revoke("ann", &typedrpc.CloseOptions{Err: shut.Errorf("x", "you are banned"), StayAway: true}), 1)
		w.Serve(srv)
		<-c.Context().Done()
		is.True(saysShut(c.Err()))
		var ce *typedrpc.CloseError
		is.True(errors.As(c.Err(), &ce))
		is.Equal(ce.Code, session.CloseForbidden)
		_, err := typedrpc.Call(t.Context(), bob, lab.Echo, 1)
		is.NoErr(err)
		fresh := w.Dial(t, visitor(d, "ann")) // the sign-in function lets it in
		_, err = typedrpc.Call(t.Context(), fresh, lab.Echo, 1)
		is.NoErr(err)
		fresh.Close()
	})
}

// Revoking reaches whoever is being let in, whatever it speaks.
func TestRevoke_handshake(t *testing.T) {
	everyway(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		hold := make(chan struct{})
		srv := &typedrpc.Server{Logger: slog.New(slog.DiscardHandler), SignIn: lab.Sign.Verify(func(context.Context, *http.Request, *string) (typedrpc.Identity, int, error) {
			<-hold
			return typedrpc.Identity{Subject: "ann"}, 0, nil
		})}
		w := &lab.Town{Srv: srv}
		dialled := make(chan error, 1)
		go func() {
			c, err := w.TryDial(t.Context(), visitor(d, "ann"))
			if err == nil { // a plain peer learns it a moment later
				<-c.Context().Done()
				err = c.Err()
			}
			dialled <- err
		}()
		synctest.Wait()
		is.Equal(srv.Revoke("ann", &typedrpc.CloseOptions{Err: shut.Errorf("x", "you are banned"), StayAway: true}), 0)
		close(hold)
		err := <-dialled
		is.True(strings.Contains(err.Error(), "you are banned"))
		if d != typedrpc.JSONRPC {
			is.True(saysShut(err))
		}
		time.Sleep(time.Hour)
		is.Equal(w.Dialled(), 1)
	})
}

// It is sudden: handlers have ended when it returns, and calls, streams and what is queued
// have their ends.
func TestRevoke_atOnce(t *testing.T) {
	everyway(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		var ended atomic.Int32
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Echo, func(ctx context.Context, _ int) (int, error) {
			<-ctx.Done()
			ended.Add(1)
			return 0, ctx.Err()
		})
		srv, w := house(mux)
		o := visitor(d, "ann")
		o.Header = http.Header{"User": {"ann"}}
		o.Mux = typedrpc.NewMux()
		typedrpc.Handle(o.Mux, lab.Echo, func(ctx context.Context, _ int) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
		if d == typedrpc.JSONRPC { // the Town sends no headers: plain peers have no subject there
			o.Header = nil
		}
		subject := "ann"
		if d == typedrpc.JSONRPC {
			subject = ""
		}
		var all []*typedrpc.Conn
		for range 20 {
			all = append(all, w.Dial(t, o))
		}
		synctest.Wait()
		var calls []*typedrpc.Future[int]
		for _, c := range all {
			calls = append(calls, typedrpc.Go(t.Context(), c, lab.Echo, 1))
		}
		for s := range srv.ConnsOf(subject) {
			calls = append(calls, typedrpc.Go(t.Context(), s, lab.Echo, 1))
		}
		synctest.Wait()
		is.Equal(srv.Revoke(subject, &typedrpc.CloseOptions{Err: typedrpc.Errorf(typedrpc.PermissionDenied, "out"), StayAway: true}), 20)
		synctest.Wait()
		is.Equal(ended.Load(), int32(20))
		for _, f := range calls {
			_, err := f.Await(t.Context())
			is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable)
			is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
		}
		for _, c := range all {
			<-c.Context().Done()
			is.True(errors.Is(c.Err(), typedrpc.PermissionDenied))
		}
		is.Equal(len(conns(srv)), 0)
		is.Equal(w.Dialled(), 20)
	})
}

// Secrets stay home, and so does what does not fit.
func TestCloseWith_foreign(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		srv, w := house(lab.New().Mux)
		var logs lab.Logs
		srv.Logger = logs.Logger()
		for _, tt := range []struct {
			err  error
			code typedrpc.Code
		}{
			{errors.New("secret"), typedrpc.Internal},
			{shut.Errorf(strings.Repeat("x", 20<<10), "large"), typedrpc.FailedPrecondition},
			{nil, typedrpc.PermissionDenied},
		} {
			c := w.Dial(t, visitor(d, "ann"))
			synctest.Wait()
			for s := range srv.Conns() {
				is.NoErr(s.CloseWith(&typedrpc.CloseOptions{Err: tt.err, StayAway: true}))
			}
			<-c.Context().Done()
			is.Equal(typedrpc.CodeOf(c.Err()), tt.code)
			is.True(!strings.Contains(c.Err().Error(), "secret"))
			is.True(!saysShut(c.Err())) // a fault without its data is none
		}
		is.True(logs.Has("secret"))
	})
}

func saysShut(err error) bool {
	_, ok := shut.From(err)
	return ok
}

// Options that say nothing end a connection as none do: for both sides it looks the same.
func TestCloseOptions_none(t *testing.T) {
	ends := map[string][]func(srv *typedrpc.Server, client, server *typedrpc.Conn){
		"client": {
			func(_ *typedrpc.Server, client, _ *typedrpc.Conn) { client.Close() },
			func(_ *typedrpc.Server, client, _ *typedrpc.Conn) { client.CloseWith(nil) },
			func(_ *typedrpc.Server, client, _ *typedrpc.Conn) { client.CloseWith(&typedrpc.CloseOptions{}) },
		},
		"server": {
			func(_ *typedrpc.Server, _, server *typedrpc.Conn) { server.Close() },
			func(_ *typedrpc.Server, _, server *typedrpc.Conn) { server.CloseWith(nil) },
			func(_ *typedrpc.Server, _, server *typedrpc.Conn) { server.CloseWith(&typedrpc.CloseOptions{}) },
		},
		"subject": {
			func(srv *typedrpc.Server, _, _ *typedrpc.Conn) { srv.Revoke("", nil) },
			func(srv *typedrpc.Server, _, _ *typedrpc.Conn) { srv.Revoke("", &typedrpc.CloseOptions{}) },
		},
	}
	for whose, ends := range ends {
		t.Run(whose, func(t *testing.T) {
			is := is.New(t)
			var want string
			for i, end := range ends {
				synctest.Test(t, func(t *testing.T) {
					srv := &typedrpc.Server{}
					client, server := typedrpctest.Pair(t, srv, &typedrpc.DialOptions{MaxAttempts: -1})
					end(srv, client, server)
					<-client.Context().Done()
					<-server.Context().Done()
					got := fmt.Sprintf("%v | %v", client.Err(), server.Err())
					if i == 0 {
						want = got
					}
					is.Equal(got, want)
				})
			}
		})
	}
}
