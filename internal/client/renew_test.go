package client

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// guarded is a client with credentials, connected to a server that is driven by
// hand, and what the server said of their expiry.
func guarded(t *testing.T, expires time.Duration) (*world, *testkit.Peer) {
	t.Helper()
	p := &testkit.Peer{Dialect: session.Binary, Answers: true}
	w := newWorld(t, func(o *Options) {
		o.Plain, o.Offers = false, []string{testkit.BinaryProtocol}
		o.Config.Limits.KeepAlive = time.Hour
		o.Credentials = func(context.Context) ([]byte, int, error) { return []byte(`"pw"`), 4, nil }
	})
	ran := make(chan *status.Error, 1)
	go func() { ran <- w.Run(t.Context()) }()
	synctest.Wait()
	p.T = w.far[0]
	f, err := p.Until(wire.Hello)
	if err != nil {
		t.Fatal(err)
	}
	h, err := wire.ParseHello(f.Payload)
	if err != nil || string(h.Credentials) != `"pw"` {
		t.Fatal(h, err)
	}
	b := wire.WelcomeBody{Token: "token", Limits: testkit.Roomy, Features: testkit.EveryFeature, Expires: uint64(expires / time.Millisecond), Reply: []byte(`"hi"`)}
	if err := p.Send(wire.Frame{Type: wire.Welcome, Payload: b.Append(nil)}); err != nil {
		t.Fatal(err)
	}
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	return w, p
}

// auth is the time until the next AUTH, which is answered with b.
func auth(is *is.I, p *testkit.Peer, b wire.AuthOKBody) time.Duration {
	began := time.Now()
	f, err := p.Until(wire.Auth)
	is.NoErr(err)
	a, err := wire.ParseAuth(f.Payload)
	is.NoErr(err)
	is.Equal(string(a.Credentials), `"pw"`)
	is.NoErr(p.Send(wire.Frame{Type: wire.AuthOK, Payload: b.Append(nil)}))
	return time.Since(began)
}

func TestClient_refreshes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, p := guarded(t, 100*time.Second)
		is.Equal(string(w.Welcome()), `"hi"`)
		took := auth(is, p, wire.AuthOKBody{Expires: 10_000, Reply: []byte(`"again"`)})
		is.True(took >= 70*time.Second && took <= 90*time.Second)
		synctest.Wait()
		is.Equal(string(w.Welcome()), `"again"`)
		took = auth(is, p, wire.AuthOKBody{Expires: 1})
		is.True(took >= 7*time.Second && took <= 9*time.Second)
		is.Equal(auth(is, p, wire.AuthOKBody{}), betweenRefreshes) // no server makes it faster
		w.states()
		time.Sleep(30 * time.Minute) // never again
		is.True(w.refresh == nil)
		go p.CloseCode()
		w.close()
	})
}

// When refreshing fails the program is told, and it is tried again at half of the
// time that is left.
func TestClient_refreshFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, p := guarded(t, 100*time.Second)
		began := time.Now()
		refused := wire.AuthOKBody{Error: &wire.ErrorBody{Code: int64(status.Unavailable), Message: "not now"}}
		auth(is, p, refused)
		for range 3 {
			left := 100*time.Second - time.Since(began)
			w.states()
			is.Equal(auth(is, p, refused), left/2)
			synctest.Wait()
			last := w.seen[len(w.seen)-1]
			is.Equal(last.State, Connected)
			is.Equal(last.Err.(*status.Error).Message, "not now")
			is.Equal(last.Err.(*status.Error).Outcome, status.Answered)
		}
		go p.CloseCode()
		w.close()
	})
}

func TestClient_authOKThatNobodyAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		_, p := guarded(t, 0)
		b := wire.AuthOKBody{}
		is.NoErr(p.Send(wire.Frame{Type: wire.AuthOK, Payload: b.Append(nil)}))
		is.Equal(p.CloseCode(), session.CloseProtocol)
	})
}

func TestClient_reauthenticate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		is.Equal(newWorld(t, nil).Reauthenticate(t.Context()).Code, status.FailedPrecondition)

		w, p := guarded(t, 0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := w.Reauthenticate(ctx) // the server says nothing
		is.Equal(err.Code, status.DeadlineExceeded)
		is.Equal(err.Outcome, status.MayHaveRun)
		done := make(chan *status.Error, 1)
		go func() { done <- w.Reauthenticate(t.Context()) }()
		synctest.Wait()
		auth(is, p, wire.AuthOKBody{}) // the first one's answer, …
		auth(is, p, wire.AuthOKBody{}) // … and then the second's AUTH
		is.True(<-done == nil)

		small := w.o.Credentials
		w.o.Credentials = func(ctx context.Context) ([]byte, int, error) {
			creds, _, err := small(ctx)
			return creds, maxCredentials + 1, err
		}
		is.Equal(w.Reauthenticate(t.Context()).Code, status.InvalidArgument)

		w.o.Credentials = small
		w.fails(&link.CloseError{Code: session.CloseDone})
		p.T.Kill()
		synctest.Wait()
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = w.Reauthenticate(ctx) // there is no link
		is.Equal(err.Code, status.DeadlineExceeded)
		is.Equal(err.Outcome, status.NotSent)
		w.close()
		is.Equal(w.Reauthenticate(t.Context()).Code, w.conn.Err().Code)
	})
}
