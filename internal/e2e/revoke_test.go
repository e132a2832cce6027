package e2e_test

import (
	"context"
	"errors"
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
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
)

func TestRevoke_plainPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		r := newRevocable()
		w := &lab.Town{Srv: r.Server}
		hold := make(chan struct{})
		r.On(func(_ context.Context, n int, id *typedrpc.Identity) error {
			id.Subject = "ann"
			if n == 2 {
				<-hold
			}
			return nil
		})
		o := &typedrpc.DialOptions{Dialect: typedrpc.JSONRPC, Backoff: lab.Steady}
		c := w.Dial(t, o)
		defer c.Close()
		late := make(chan int, 1)
		go func() {
			p, err := testkit.Join(r.Server, "")
			if err != nil {
				late <- 0
				return
			}
			late <- p.CloseCode()
		}()
		synctest.Wait()
		server := <-r.came
		is.Equal(r.Revoke("ann", nil), 1)
		<-server.Context().Done()
		close(hold)
		is.Equal(<-late, session.CloseUnauthed) // authenticated before, let in after
		synctest.Wait()
		is.Equal(r.checking(), 0)
		time.Sleep(2 * time.Second)
		is.Equal(len(conns(r.Server)), 1) // the first has come back: it is not banned
	})
}

func TestRevoke_postBeingAuthenticated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		r := newRevocable()
		hold := make(chan struct{})
		r.On(func(_ context.Context, n int, id *typedrpc.Identity) error {
			id.Subject = "ann"
			<-hold
			return nil
		})
		w := httptest.NewRecorder()
		post := httptest.NewRequest("POST", "http://town/", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"lab.echo","params":[1]}`))
		post.Header.Set("Content-Type", "application/json")
		go func() {
			synctest.Wait()
			r.Revoke("ann", nil)
			close(hold)
		}()
		r.ServeHTTP(w, post)
		is.Equal(w.Code, 401)
		is.Equal(r.checking(), 0)
	})
}

// Revoke of one among many, while they come and go: nobody of it is left, and
// nobody else is touched.
func TestRevoke_amongMany(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		r := newRevocable()
		w := &lab.Town{Srv: r.Server}
		var all []*typedrpc.Conn
		for i := range 60 {
			c := w.Dial(t, patient(d, []string{"ann", "bob", "cy"}[i%3]))
			defer c.Close()
			all = append(all, c)
		}
		for i, l := range w.Lines {
			if i%2 == 0 {
				l.A.Kill()
			}
		}
		go func() {
			for range 100 {
				r.Revoke("bob", nil)
			}
		}()
		n := r.revoke()
		is.True(n > 0 && n <= 20)
		time.Sleep(2 * time.Minute)
		for i, c := range all {
			is.Equal(c.State(), []typedrpc.State{typedrpc.StateClosed, typedrpc.StateConnected, typedrpc.StateConnected}[i%3])
		}
		is.Equal(len(conns(r.Server)), 40)
		for _, c := range conns(r.Server) {
			is.True(c.Identity().Subject != "ann")
		}
	})
}

// revocable is a server that knows whom it does not want any more.
type revocable struct {
	*lab.Lab
	*lab.Porch
	banned atomic.Bool // ann
	came   chan *typedrpc.Conn
	went   chan error
}

func newRevocable() *revocable {
	r := &revocable{Lab: lab.New(), Porch: new(lab.Porch), came: make(chan *typedrpc.Conn, 99), went: make(chan error, 99)}
	r.Guard(r.Lab)
	r.On(func(_ context.Context, n int, id *typedrpc.Identity) error {
		if id.Subject == "ann" && r.banned.Load() {
			return typedrpc.Errorf(typedrpc.Unauthenticated, "banned")
		}
		return nil
	})
	r.OnConnect = func(c *typedrpc.Conn) { r.came <- c }
	r.OnDisconnect = func(_ *typedrpc.Conn, err error) { r.went <- err }
	return r
}

// checking is how many authentications the server believes to be under way.
func (r *revocable) checking() int {
	return hook.Server(r.Server).Checks
}

func (r *revocable) revoke() int {
	r.banned.Store(true)
	return r.Revoke("ann", nil)
}

func named(who string) typedrpc.Presenter {
	return lab.Sign.Present(func(context.Context) (string, error) { return who, nil })
}

func patient(d typedrpc.Dialect, who string) *typedrpc.DialOptions {
	return &typedrpc.DialOptions{Dialect: d, SignIn: named(who), Backoff: lab.Steady, Limits: typedrpc.Limits{Grace: time.Minute}}
}

func TestRevoke_liveAndBusy(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		r := newRevocable()
		w := &lab.Town{Srv: r.Server}
		var fs []*typedrpc.Future[struct{}]
		var anns []*typedrpc.Conn
		for range 3 {
			c := w.Dial(t, patient(d, "ann"))
			defer c.Close()
			anns = append(anns, c)
			for range 5 {
				fs = append(fs, typedrpc.Go(t.Context(), c, lab.Hang, struct{}{}))
			}
		}
		bob := w.Dial(t, patient(d, "bob"))
		defer bob.Close()
		still := typedrpc.Go(t.Context(), bob, lab.Hang, struct{}{})
		synctest.Wait()
		is.Equal(r.Running.Load(), int64(16))
		began := time.Now()
		is.Equal(r.revoke(), 3)
		is.Equal(time.Since(began), time.Duration(0))
		synctest.Wait()
		is.Equal(r.Running.Load(), int64(1)) // bob's
		for _, f := range fs {
			_, err := f.Await(t.Context())
			is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable)
			is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun)
		}
		time.Sleep(time.Minute)
		for _, c := range anns { // one try with fresh credentials, refused
			<-c.Context().Done()
			is.Equal(typedrpc.CodeOf(c.Err()), typedrpc.Unauthenticated)
			is.True(strings.Contains(c.Err().Error(), "banned"))
		}
		is.Equal(w.Dialled(), 3+1+3)
		for range 3 {
			is.True(isRevoked(<-r.went))
		}
		is.Equal(len(r.went), 0) // once for each
		is.Equal(r.Revoke("ann", nil), 0)
		is.Equal(r.Revoke("nobody", nil), 0)
		close(r.Release)
		_, err := still.Await(t.Context())
		is.NoErr(err)
	})
}

var labWatch = typedrpc.NewMethod[struct{}, struct{}]("lab.watch")

// Handlers' contexts have ended when Revoke returns, whatever the connection is
// doing.
func TestRevoke_contextsEndBeforeItReturns(t *testing.T) {
	for _, state := range []string{"live", "away", "draining", "closing"} {
		t.Run(state, func(t *testing.T) {
			lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
				is := is.New(t)
				r := newRevocable()
				ctxs := make(chan context.Context, 9)
				typedrpc.Handle(r.Mux, labWatch, func(ctx context.Context, _ struct{}) (struct{}, error) {
					ctxs <- ctx
					<-ctx.Done()
					return struct{}{}, ctx.Err()
				})
				typedrpc.Handle(r.Mux, lab.LaneNumber, func(ctx context.Context, _ int) error { // on the lane
					ctxs <- ctx
					<-ctx.Done()
					return nil
				})
				w := &lab.Town{Srv: r.Server}
				c := w.Dial(t, patient(d, "ann"))
				defer c.Close()
				server := <-r.came
				typedrpc.Go(t.Context(), c, labWatch, struct{}{})
				is.NoErr(typedrpc.Notify(t.Context(), c, lab.LaneNumber, 1))
				synctest.Wait()
				switch state {
				case "away":
					w.Serve(nil)
					w.Cable().Cut()
				case "draining":
					go server.Shutdown(t.Context())
				case "closing":
					w.Cable().Swallow()
					is.NoErr(typedrpc.Notify(t.Context(), server, lab.Note, 1)) // is never acknowledged
					go server.Close()
				}
				synctest.Wait()
				is.Equal(r.revoke(), 1)
				for range 2 {
					is.True((<-ctxs).Err() != nil)
				}
				began := time.Now()
				<-server.Context().Done()
				is.True(time.Since(began) <= time.Second)
				synctest.Wait()
				is.Equal(len(r.went), 1)
				is.Equal(r.Revoke("ann", nil), 0)
			})
		})
	}
}

// A link whose other end reads nothing is no reason to keep it.
func TestRevoke_deafPeer(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		r := newRevocable()
		p, err := testkit.Join(r.Server, []string{testkit.BinaryProtocol, testkit.HelloProtocol}[d])
		is.NoErr(err)
		defer p.T.Kill()
		h := wire.HelloBody{Attempt: 1, Limits: testkit.Roomy, Features: testkit.EveryFeature, Credentials: []byte(`"ann"`)}
		is.NoErr(p.Send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
		server := <-r.came
		for range 100 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			typedrpc.Notify(ctx, server, lab.Note, 1)
			cancel()
		}
		large := typedrpc.NewNotification[string]("large")
		go typedrpc.Notify(t.Context(), server, large, strings.Repeat("x", 900<<10))
		synctest.Wait()
		began := time.Now()
		is.Equal(r.revoke(), 1)
		<-server.Context().Done()
		is.True(time.Since(began) <= time.Second)
	})
}

func TestRevoke_awayTokenIsVoid(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		r := newRevocable()
		w := &lab.Town{Srv: r.Server}
		c := w.Dial(t, patient(d, "ann"))
		f := typedrpc.Go(t.Context(), c, lab.Hang, struct{}{})
		synctest.Wait()
		w.Serve(nil)
		w.Cable().Cut()
		server := <-r.came
		is.Equal(server.State(), typedrpc.StateWaiting)
		is.Equal(r.Revoke("ann", nil), 1) // and is not banned: the token has to be worth nothing by itself
		is.True(isRevoked(<-r.went))
		synctest.Wait()
		is.Equal(len(conns(r.Server)), 0)
		is.Equal(r.Running.Load(), int64(0))
		w.Serve(r.Server)
		_, err := f.Await(t.Context())
		is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun)
		_, err = typedrpc.Call(t.Context(), c, lab.Echo, 1)
		is.NoErr(err)
		is.Equal(len(conns(r.Server)), 1) // a new one
		is.True(<-r.came != server)
		is.NoErr(c.Close())
	})
}

func conns(s *typedrpc.Server) (all []*typedrpc.Conn) {
	for c := range s.Conns() {
		all = append(all, c)
	}
	return all
}

// An authentication that began before Revoke does not get in after it: of a new
// connection, of a resume, on a live link, of a plain peer.
func TestRevoke_authenticationUnderWay(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		r := newRevocable()
		hold := make(chan struct{})
		r.On(func(context.Context, int, *typedrpc.Identity) error { <-hold; return nil })
		w := &lab.Town{Srv: r.Server}
		result := make(chan error, 1)
		go func() {
			_, err := w.TryDial(t.Context(), patient(d, "ann"))
			result <- err
		}()
		others := make(chan *typedrpc.Conn, 1)
		go func() { others <- w.Dial(t, patient(d, "bob")) }()
		synctest.Wait()
		is.Equal(r.Revoke("ann", nil), 0)
		close(hold)
		is.Equal(typedrpc.CodeOf(<-result), typedrpc.Unauthenticated)
		bob := <-others
		is.NoErr(bob.Close())
		synctest.Wait()
		is.Equal(len(r.came), 1)
		is.Equal(r.checking(), 0)
		c := w.Dial(t, patient(d, "ann")) // who is not banned
		is.NoErr(c.Close())
	})
}

func TestRevoke_inTheMiddleOfAResume(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		r := newRevocable()
		w := &lab.Town{Srv: r.Server}
		c := w.Dial(t, patient(d, "ann"))
		defer c.Close()
		f := typedrpc.Go(t.Context(), c, lab.Hang, struct{}{})
		synctest.Wait()
		hold := make(chan struct{})
		r.On(func(context.Context, int, *typedrpc.Identity) error { <-hold; return nil })
		w.Cable().Cut()
		time.Sleep(time.Second)
		is.Equal(len(r.Seen()), 2)
		is.Equal((<-r.came).State(), typedrpc.StateWaiting)
		is.Equal(r.Revoke("ann", nil), 1)
		synctest.Wait()
		is.Equal(r.Running.Load(), int64(0))
		close(hold)
		<-c.Context().Done()
		is.Equal(typedrpc.CodeOf(c.Err()), typedrpc.Unauthenticated)
		_, err := f.Await(t.Context())
		is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun)
		is.Equal(len(r.went), 1)
	})
}

func TestRevoke_duringAnAUTH(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		r := newRevocable()
		w := &lab.Town{Srv: r.Server}
		c := w.Dial(t, patient(d, "ann"))
		defer c.Close()
		hold := make(chan struct{})
		r.On(func(ctx context.Context, n int, id *typedrpc.Identity) error {
			if n == 2 {
				<-hold
				id.Context = ctx
				return nil
			}
			return typedrpc.Unauthenticated
		})
		result := make(chan error, 1)
		go func() { result <- c.Reauthenticate(t.Context()) }()
		synctest.Wait()
		is.Equal(r.Revoke("ann", nil), 1)
		close(hold)
		is.True(<-result != nil)
		<-c.Context().Done()
		is.Equal(typedrpc.CodeOf(c.Err()), typedrpc.Unauthenticated)
		synctest.Wait()
		is.Equal(len(conns(r.Server)), 0)
		is.Equal(len(r.went), 1)
	})
}

// isRevoked reports that err, a connection's end, has Revoke as its cause.
func isRevoked(err error) bool {
	return errors.Is(err, typedrpc.Unauthenticated) && strings.Contains(fmt.Sprint(errors.Unwrap(err)), "the identity was revoked")
}

// Revoke left keyed handlers alone whose sessions were lost.
func TestRevoke_detachedRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := lab.NewLedger()
		l.Limits = typedrpc.Limits{Grace: -1}
		l.SignIn = lab.Sign.Verify(func(_ context.Context, _ *http.Request, who *string) (typedrpc.Identity, int, error) {
			return typedrpc.Identity{Subject: *who}, 1, nil
		})
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, &typedrpc.DialOptions{SignIn: lab.Ann, Backoff: lab.Steady})
		f := typedrpc.Go(t.Context(), c, lab.KeyHang, 5)
		synctest.Wait()
		w.Serve(nil)
		w.Cable().Cut()
		synctest.Wait()
		l.Revoke("ann", nil)
		synctest.Wait()
		if n := l.Running.Load(); n != 0 {
			t.Errorf("%d handlers of a revoked subject still run", n)
		}
		close(l.Release)
		c.Close()
		f.Await(t.Context())
	})
}

// prying is an Identity.Context that tells when somebody looks at its end, which
// accept does while it makes a connection.
type prying struct {
	context.Context
	look func()
}

func (p prying) Done() <-chan struct{} {
	p.look()
	return p.Context.Done()
}

// A connection that was ended while it was being made was never over, and
// Shutdown waited for it for ever.
func TestRevoke_whileAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		var busy, hit atomic.Bool
		look := func() {
			if hit.Load() || !busy.CompareAndSwap(false, true) {
				return
			}
			defer busy.Store(false)
			if hook.Server(l.Server).Accepted > 0 && l.Revoke("ann", nil) > 0 {
				hit.Store(true)
			}
		}
		l.SignIn = lab.Sign.Verify(func(ctx context.Context, _ *http.Request, who *string) (typedrpc.Identity, int, error) {
			return typedrpc.Identity{Subject: *who, Context: prying{ctx, look}}, 1, nil
		})
		p, err := testkit.Join(l.Server, testkit.BinaryProtocol)
		is.NoErr(err)
		h := testkit.HelloOf(1)
		h.Credentials = []byte(`"ann"`)
		is.NoErr(p.Send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
		is.Equal(p.CloseCode(), 4401)
		is.True(hit.Load()) // it came in between
		synctest.Wait()
		is.Equal(hook.Server(l.Server).Accepted, 0)
		is.NoErr(l.Shutdown(t.Context()))
	})
}

// An AUTH whose connection ends while it is checked is not answered with "accepted":
// the client would believe that the server goes by it.
func TestReauthenticate_connectionEndsMeanwhile(t *testing.T) {
	for how, end := range map[string]func(r *revocable, c *typedrpc.Conn, over context.CancelFunc){
		"revoked":        func(r *revocable, _ *typedrpc.Conn, _ context.CancelFunc) { r.Revoke("ann", nil) },
		"closed":         func(_ *revocable, c *typedrpc.Conn, _ context.CancelFunc) { c.Close() },
		"identity's end": func(_ *revocable, c *typedrpc.Conn, over context.CancelFunc) { over(); <-c.Context().Done() },
		"expired":        func(_ *revocable, c *typedrpc.Conn, _ context.CancelFunc) { <-c.Context().Done() },
		"server shutdown": func(r *revocable, _ *typedrpc.Conn, _ context.CancelFunc) {
			go r.Shutdown(context.Background())
			synctest.Wait()
		},
	} {
		t.Run(how, func(t *testing.T) {
			lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
				for range 20 {
					answeredAfter(t, d, end)
				}
			})
		})
	}
}

func answeredAfter(t *testing.T, d typedrpc.Dialect, end func(*revocable, *typedrpc.Conn, context.CancelFunc)) {
	is := is.New(t)
	r := newRevocable()
	hold := make(chan struct{})
	ctx, over := context.WithCancel(t.Context())
	defer over()
	r.On(func(_ context.Context, n int, id *typedrpc.Identity) error {
		if n == 2 {
			<-hold
			return nil
		}
		id.Context, id.Expires = ctx, time.Now().Add(time.Minute)
		return nil
	})
	p, err := testkit.Join(r.Server, []string{testkit.BinaryProtocol, testkit.HelloProtocol}[d])
	is.NoErr(err)
	h := testkit.HelloOf(1)
	h.Credentials = []byte(`"ann"`)
	is.NoErr(p.Send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
	a := wire.AuthBody{Credentials: []byte(`"ann"`)}
	_, err = p.Until(wire.Welcome)
	is.NoErr(err)
	is.NoErr(p.Send(wire.Frame{Type: wire.Ack}))
	is.NoErr(p.Send(wire.Frame{Type: wire.Auth, Payload: a.Append(nil)}))
	synctest.Wait()
	is.Equal(len(r.Seen()), 2) // it is being checked
	code := make(chan bool, 1)
	go func() {
		_, err := p.Until(wire.AuthOK)
		code <- err == nil
		p.CloseCode()
	}()
	end(r, <-r.came, over)
	close(hold)
	is.Equal(<-code, false) // answered
	is.NoErr(r.Shutdown(t.Context()))
}
