package typedrpc

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// revocable is a server that knows whom it does not want any more.
type revocable struct {
	*lab
	*porch
	banned atomic.Bool // ann
	came   chan *Conn
	went   chan error
}

func newRevocable() *revocable {
	r := &revocable{lab: newLab(), porch: new(porch), came: make(chan *Conn, 99), went: make(chan error, 99)}
	r.guard(r.lab)
	r.on(func(_ context.Context, n int, id *Identity) error {
		if id.Subject == "ann" && r.banned.Load() {
			return Errorf(Unauthenticated, "banned")
		}
		return nil
	})
	r.OnConnect = func(c *Conn) { r.came <- c }
	r.OnDisconnect = func(_ *Conn, err error) { r.went <- err }
	return r
}

// checking is how many authentications the server believes to be under way.
func (r *revocable) checking() int {
	r.Server.mu.Lock()
	defer r.Server.mu.Unlock()
	return len(r.checks)
}

func (r *revocable) revoke() int {
	r.banned.Store(true)
	return r.Revoke("ann")
}

func named(who string) Credential {
	return Credentials(porchSign, func(context.Context) (string, error) { return who, nil })
}

func patient(d Dialect, who string) *DialOptions {
	return &DialOptions{Dialect: d, Auth: named(who), Backoff: steady, Limits: Limits{Grace: time.Minute}}
}

func TestRevoke_liveAndBusy(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := newRevocable()
		w := &town{srv: r.Server}
		var fs []*Future[Empty]
		var anns []*Conn
		for range 3 {
			c := w.dial(t, patient(d, "ann"))
			defer c.Close()
			anns = append(anns, c)
			for range 5 {
				fs = append(fs, Go(t.Context(), c, labHang, Empty{}))
			}
		}
		bob := w.dial(t, patient(d, "bob"))
		defer bob.Close()
		still := Go(t.Context(), bob, labHang, Empty{})
		synctest.Wait()
		is.Equal(r.running.Load(), int64(16))
		began := time.Now()
		is.Equal(r.revoke(), 3)
		is.Equal(time.Since(began), time.Duration(0))
		synctest.Wait()
		is.Equal(r.running.Load(), int64(1)) // bob's
		for _, f := range fs {
			_, err := f.Await(t.Context())
			is.Equal(CodeOf(err), Unavailable)
			is.Equal(outcomeOf(err), MayHaveRun)
		}
		time.Sleep(time.Minute)
		for _, c := range anns { // one try with fresh credentials, refused
			<-c.Done()
			is.Equal(CodeOf(c.Err()), Unauthenticated)
			is.True(strings.Contains(c.Err().Error(), "banned"))
		}
		is.Equal(w.dialled(), 3+1+3)
		for range 3 {
			is.True(errors.Is(<-r.went, errRevoked))
		}
		is.Equal(len(r.went), 0) // once for each
		is.Equal(r.Revoke("ann"), 0)
		is.Equal(r.Revoke("nobody"), 0)
		close(r.release)
		_, err := still.Await(t.Context())
		is.NoErr(err)
	})
}

var labWatch = NewMethod[Empty, Empty]("lab.watch")

// Handlers' contexts have ended when Revoke returns, whatever the connection is
// doing.
func TestRevoke_contextsEndBeforeItReturns(t *testing.T) {
	for _, state := range []string{"live", "away", "draining", "closing"} {
		t.Run(state, func(t *testing.T) {
			bothDialects(t, func(t *testing.T, d Dialect) {
				is := is.New(t)
				r := newRevocable()
				ctxs := make(chan context.Context, 9)
				Handle(r.Mux, labWatch, func(ctx context.Context, _ Empty) (Empty, error) {
					ctxs <- ctx
					<-ctx.Done()
					return Empty{}, ctx.Err()
				})
				HandleNotification(r.Mux, laneNumber, func(ctx context.Context, _ int) { // on the lane
					ctxs <- ctx
					<-ctx.Done()
				})
				w := &town{srv: r.Server}
				c := w.dial(t, patient(d, "ann"))
				defer c.Close()
				server := <-r.came
				Go(t.Context(), c, labWatch, Empty{})
				is.NoErr(Notify(t.Context(), c, laneNumber, 1))
				synctest.Wait()
				switch state {
				case "away":
					w.serve(nil)
					w.cable().cut()
				case "draining":
					go server.Shutdown(t.Context())
				case "closing":
					w.cable().swallow()
					is.NoErr(Notify(t.Context(), server, labNote, 1)) // is never acknowledged
					go server.Close()
				}
				synctest.Wait()
				is.Equal(r.revoke(), 1)
				for range 2 {
					is.True((<-ctxs).Err() != nil)
				}
				began := time.Now()
				<-server.Done()
				is.True(time.Since(began) <= time.Second)
				synctest.Wait()
				is.Equal(len(r.went), 1)
				is.Equal(r.Revoke("ann"), 0)
			})
		})
	}
}

// A link whose other end reads nothing is no reason to keep it.
func TestRevoke_deafPeer(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := newRevocable()
		p, err := join(r.Server, []string{codecProtocol(JSON), helloProtocol}[d])
		is.NoErr(err)
		defer p.t.Kill()
		h := wire.HelloBody{Attempt: 1, Limits: roomy, Features: everyFeature, Credentials: []byte(`"ann"`)}
		is.NoErr(p.send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
		server := <-r.came
		for range 100 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			Notify(ctx, server, labNote, 1)
			cancel()
		}
		large := NewNotification[string]("large")
		go Notify(t.Context(), server, large, strings.Repeat("x", 900<<10))
		synctest.Wait()
		began := time.Now()
		is.Equal(r.revoke(), 1)
		<-server.Done()
		is.True(time.Since(began) <= time.Second)
	})
}

func TestRevoke_awayTokenIsVoid(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := newRevocable()
		w := &town{srv: r.Server}
		c := w.dial(t, patient(d, "ann"))
		f := Go(t.Context(), c, labHang, Empty{})
		synctest.Wait()
		w.serve(nil)
		w.cable().cut()
		server := <-r.came
		is.Equal(server.State(), Waiting)
		is.Equal(r.Revoke("ann"), 1) // and is not banned: the token has to be worth nothing by itself
		is.True(errors.Is(<-r.went, errRevoked))
		synctest.Wait()
		is.Equal(len(conns(r.Server)), 0)
		is.Equal(r.running.Load(), int64(0))
		w.serve(r.Server)
		_, err := f.Await(t.Context())
		is.Equal(outcomeOf(err), MayHaveRun)
		_, err = Call(t.Context(), c, labEcho, 1)
		is.NoErr(err)
		is.Equal(len(conns(r.Server)), 1) // a new one
		is.True(<-r.came != server)
		is.NoErr(c.Close())
	})
}

func conns(s *Server) (all []*Conn) {
	for c := range s.Conns() {
		all = append(all, c)
	}
	return all
}

// An authentication that began before Revoke does not get in after it: of a new
// connection, of a resume, on a live link, of a plain peer.
func TestRevoke_authenticationUnderWay(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := newRevocable()
		hold := make(chan struct{})
		r.on(func(context.Context, int, *Identity) error { <-hold; return nil })
		w := &town{srv: r.Server}
		result := make(chan error, 1)
		go func() {
			_, err := w.tryDial(t.Context(), patient(d, "ann"))
			result <- err
		}()
		others := make(chan *Conn, 1)
		go func() { others <- w.dial(t, patient(d, "bob")) }()
		synctest.Wait()
		is.Equal(r.Revoke("ann"), 0)
		close(hold)
		is.Equal(CodeOf(<-result), Unauthenticated)
		bob := <-others
		is.NoErr(bob.Close())
		synctest.Wait()
		is.Equal(len(r.came), 1)
		is.Equal(r.checking(), 0)
		c := w.dial(t, patient(d, "ann")) // who is not banned
		is.NoErr(c.Close())
	})
}

func TestRevoke_inTheMiddleOfAResume(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := newRevocable()
		w := &town{srv: r.Server}
		c := w.dial(t, patient(d, "ann"))
		defer c.Close()
		f := Go(t.Context(), c, labHang, Empty{})
		synctest.Wait()
		hold := make(chan struct{})
		r.on(func(context.Context, int, *Identity) error { <-hold; return nil })
		w.cable().cut()
		time.Sleep(time.Second)
		is.Equal(len(r.seen()), 2)
		is.Equal((<-r.came).State(), Waiting)
		is.Equal(r.Revoke("ann"), 1)
		synctest.Wait()
		is.Equal(r.running.Load(), int64(0))
		close(hold)
		<-c.Done()
		is.Equal(CodeOf(c.Err()), Unauthenticated)
		_, err := f.Await(t.Context())
		is.Equal(outcomeOf(err), MayHaveRun)
		is.Equal(len(r.went), 1)
	})
}

func TestRevoke_duringAnAUTH(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := newRevocable()
		w := &town{srv: r.Server}
		c := w.dial(t, patient(d, "ann"))
		defer c.Close()
		hold := make(chan struct{})
		r.on(func(ctx context.Context, n int, id *Identity) error {
			if n == 2 {
				<-hold
				id.Context = ctx
				return nil
			}
			return Unauthenticated
		})
		result := make(chan error, 1)
		go func() { result <- c.Reauthenticate(t.Context()) }()
		synctest.Wait()
		is.Equal(r.Revoke("ann"), 1)
		close(hold)
		is.True(<-result != nil)
		<-c.Done()
		is.Equal(CodeOf(c.Err()), Unauthenticated)
		synctest.Wait()
		is.Equal(len(conns(r.Server)), 0)
		is.Equal(len(r.went), 1)
	})
}

func TestRevoke_plainPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		r := newRevocable()
		w := &town{srv: r.Server}
		hold := make(chan struct{})
		r.on(func(_ context.Context, n int, id *Identity) error {
			id.Subject = "ann"
			if n == 2 {
				<-hold
			}
			return nil
		})
		o := &DialOptions{Dialect: PlainJSONRPC, Backoff: steady}
		c := w.dial(t, o)
		defer c.Close()
		late := make(chan int, 1)
		go func() {
			p, err := join(r.Server, "")
			if err != nil {
				late <- 0
				return
			}
			late <- p.closeCode()
		}()
		synctest.Wait()
		server := <-r.came
		is.Equal(r.Revoke("ann"), 1)
		<-server.Done()
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
		r.on(func(_ context.Context, n int, id *Identity) error {
			id.Subject = "ann"
			<-hold
			return nil
		})
		w := httptest.NewRecorder()
		post := httptest.NewRequest("POST", "http://town/", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"lab.echo","params":[1]}`))
		post.Header.Set("Content-Type", "application/json")
		go func() {
			synctest.Wait()
			r.Revoke("ann")
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
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := newRevocable()
		w := &town{srv: r.Server}
		var all []*Conn
		for i := range 60 {
			c := w.dial(t, patient(d, []string{"ann", "bob", "cy"}[i%3]))
			defer c.Close()
			all = append(all, c)
		}
		for i, l := range w.lines {
			if i%2 == 0 {
				l.a.Kill()
			}
		}
		go func() {
			for range 100 {
				r.Revoke("bob")
			}
		}()
		n := r.revoke()
		is.True(n > 0 && n <= 20)
		time.Sleep(2 * time.Minute)
		for i, c := range all {
			is.Equal(c.State(), []State{Closed, Connected, Connected}[i%3])
		}
		is.Equal(len(conns(r.Server)), 40)
		for _, c := range conns(r.Server) {
			is.True(c.Identity().Subject != "ann")
		}
	})
}
