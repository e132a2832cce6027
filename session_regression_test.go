package typedrpc

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Faults that sessions had, each with what showed it.

var errDone = &link.CloseError{Code: session.CloseDone, Reason: "the test is over"}

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
		l := newLab()
		var busy, hit atomic.Bool
		look := func() {
			if hit.Load() || !busy.CompareAndSwap(false, true) {
				return
			}
			defer busy.Store(false)
			l.mu.Lock()
			noted := len(l.Server.accepted) > 0
			l.mu.Unlock()
			if noted && l.Revoke("ann") > 0 {
				hit.Store(true)
			}
		}
		l.Authenticate = Authenticate(porchSign, func(ctx context.Context, _ *http.Request, who string) (Identity, int, error) {
			return Identity{Subject: who, Context: prying{ctx, look}}, 1, nil
		})
		p, err := join(l.Server, codecProtocol(JSON))
		is.NoErr(err)
		h := helloOf(1)
		h.Credentials = []byte(`"ann"`)
		is.NoErr(p.send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
		is.Equal(p.closeCode(), 4401)
		is.True(hit.Load()) // it came in between
		synctest.Wait()
		is.Equal(len(l.Server.accepted), 0)
		is.NoErr(l.Shutdown(t.Context()))
	})
}

// What kept sessions hold did not count their handlers.
func TestSession_handlersOfKeptSessionsCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		p, err := join(l.Server, codecProtocol(JSON))
		is.NoErr(err)
		h := helloOf(1)
		is.NoErr(p.send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
		_, err = p.until(wire.Welcome)
		is.NoErr(err)
		for i := range uint64(100) {
			is.NoErr(p.send(wire.Frame{Type: wire.Call, ID: i + 1, Method: "lab.hang", Payload: []byte("{}")}))
		}
		synctest.Wait()
		p.t.Kill()
		synctest.Wait()
		n, bytes := l.registry.Away()
		is.Equal(n, 1)
		is.True(bytes > 100*5<<10)
		is.Equal(l.Revoke(""), 1)
		close(l.release)
	})
}

// AUTHs that waited were copies of up to the largest message, in no budget.
func TestAuth_largeOnesEndTheSession(t *testing.T) {
	everyHello(t, func(t *testing.T, p *wirePeer) {
		is := is.New(t)
		b := wire.AuthBody{Credentials: []byte(`"` + strings.Repeat("x", 70<<10) + `"`)}
		is.NoErr(p.send(wire.Frame{Type: wire.Auth, Payload: b.Append(nil)}))
		is.Equal(p.closeCode(), 4400)
	})
}

// everyHello runs test with a peer that has said hello, in each dialect.
func everyHello(t *testing.T, test func(t *testing.T, p *wirePeer)) {
	for _, offer := range []string{codecProtocol(JSON), helloProtocol} {
		t.Run(offer, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				l := newLab()
				l.Authenticate = Authenticate(porchSign, func(_ context.Context, _ *http.Request, who string) (Identity, int, error) {
					return Identity{Subject: who}, 1, nil
				})
				p, err := join(l.Server, offer)
				is.NoErr(err)
				defer p.t.Kill()
				h := helloOf(1)
				h.Features = everyFeature
				is.NoErr(p.send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
				_, err = p.until(wire.Welcome)
				is.NoErr(err)
				test(t, p)
			})
		})
	}
}

// A client whose askers did not wait for the answers was taken for a flood.
func TestReauthenticate_impatientAskers(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		l := newLab()
		var slow atomic.Bool
		l.Authenticate = Authenticate(porchSign, func(ctx context.Context, _ *http.Request, who string) (Identity, int, error) {
			if slow.Load() {
				time.Sleep(5 * time.Second)
			}
			return Identity{Subject: who}, 1, nil
		})
		w := &town{srv: l.Server}
		c := w.dial(t, patient(d, "ann"))
		f := Go(t.Context(), c, labHang, Empty{})
		slow.Store(true)
		for range 50 {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			is.True(errors.Is(c.Reauthenticate(ctx), context.DeadlineExceeded))
			cancel()
		}
		is.NoErr(c.Reauthenticate(t.Context())) // when that of the first one has been answered
		close(l.release)
		_, err := f.Await(t.Context())
		is.NoErr(err)
		is.Equal(w.dialled(), 1)
		is.NoErr(c.Close())
	})
}

// A server could make a client ask for credentials without a pause.
func TestReauthenticate_tinyExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var asked atomic.Int64
		w := &town{script: func(_ int, far *wirePeer) {
			if _, err := far.until(wire.Hello); err != nil {
				return
			}
			b := wire.WelcomeBody{Token: "token", Limits: roomy, Features: everyFeature, Expires: 1}
			far.send(wire.Frame{Type: wire.Welcome, Payload: b.Append(nil)})
			for {
				if _, err := far.until(wire.Auth); err != nil {
					return
				}
				ok := wire.AuthOKBody{Expires: 1}
				far.send(wire.Frame{Type: wire.AuthOK, Payload: ok.Append(nil)})
			}
		}}
		c := w.dial(t, &DialOptions{Auth: Credentials(porchSign, func(context.Context) (string, error) {
			asked.Add(1)
			return "ann", nil
		})})
		time.Sleep(10 * time.Second)
		is.True(asked.Load() > 10)
		is.True(asked.Load() < 50)
		c.expel(errDone) // a scripted server answers no PING
	})
}

// A panic in the function that makes credentials ended the program.
func TestCredentials_panic(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		l := newLab()
		var log strings.Builder
		w := &town{srv: l.Server}
		_, err := w.tryDial(t.Context(), &DialOptions{
			Dialect: d, Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Auth: Credentials(porchSign, func(context.Context) (string, error) { panic("no token") }),
		})
		is.Equal(CodeOf(err), Internal)
		is.True(strings.Contains(log.String(), "no token"))
	})
}

// What was sent and is not acknowledged counts in what may wait for the socket.
func TestLimits_unackedCountsInMaxBuffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		l.Limits = Limits{MaxBuffered: 128 << 10, MaxUnacked: 64 << 10}
		accepted := make(chan *Conn, 1)
		l.OnConnect = func(c *Conn) { accepted <- c }
		p, err := join(l.Server, codecProtocol(JSON))
		is.NoErr(err)
		h := helloOf(1)
		h.Limits.Window = 1 << 20
		is.NoErr(p.send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
		_, err = p.until(wire.Welcome)
		is.NoErr(err)
		is.NoErr(p.send(wire.Frame{Type: wire.Ack}))
		c := <-accepted
		text := NewNotification[string]("regression.text")
		sent := 0
		for { // to a peer that acknowledges nothing
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err := Notify(ctx, c, text, strings.Repeat("x", 4000))
			cancel()
			if err != nil {
				break
			}
			sent += 4000
			synctest.Wait()
		}
		is.True(sent > 110<<10)
		is.True(sent < 140<<10)
		p.t.Kill()
		synctest.Wait()
		l.Revoke("")
	})
}

// A client that opened sessions and confirmed none pushed out everybody's.
func TestSession_unconfirmedOnesAreEvictedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		l.MaxKept = 10
		begin := func(confirm bool) string {
			p, err := join(l.Server, codecProtocol(JSON))
			is.NoErr(err)
			h := helloOf(1)
			is.NoErr(p.send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
			f, err := p.until(wire.Welcome)
			is.NoErr(err)
			w, err := wire.ParseWelcome(f.Payload)
			is.NoErr(err)
			if confirm {
				is.NoErr(p.send(wire.Frame{Type: wire.Ping}))
				_, err = p.until(wire.Ack)
				is.NoErr(err)
			}
			p.t.Kill()
			synctest.Wait()
			return w.Token
		}
		token := begin(true)
		for range 30 {
			begin(false)
		}
		p, err := join(l.Server, codecProtocol(JSON))
		is.NoErr(err)
		h := helloOf(2)
		h.Token = token
		is.NoErr(p.send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
		f, err := p.until(wire.Welcome)
		is.NoErr(err)
		w, err := wire.ParseWelcome(f.Payload)
		is.NoErr(err)
		is.True(w.Resumed)
		p.t.Kill()
		synctest.Wait()
		l.Revoke("")
	})
}

// Shutdown said that all was well when its context had cut a keyed call off.
func TestShutdown_cutsADetachedRunOff(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		slow := NewMethod[Empty, Empty]("regression.slow", Keyed)
		l := newLab()
		Handle(l.Mux, slow, func(ctx context.Context, _ Empty) (Empty, error) {
			<-ctx.Done()
			return Empty{}, ctx.Err()
		})
		w := &town{srv: l.Server}
		c := w.dial(t, &DialOptions{Dialect: d, Backoff: Backoff{Min: time.Hour, Max: time.Hour}})
		f := Go(t.Context(), c, slow, Empty{})
		synctest.Wait()
		w.cable().cut() // and the session is lost
		w.serve(nil)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		is.True(errors.Is(l.Shutdown(ctx), context.DeadlineExceeded))
		f.Cancel()
		is.NoErr(c.Close())
	})
}

// A session that was given up as the next one began took that one away.
func TestSession_lostAsTheNextBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		w := &town{srv: l.Server}
		c := w.dial(t, nil)
		c.mu.Lock()
		old := c.sess
		c.mu.Unlock()
		next := c.newSession(features{})
		c.opened(next, c.peerLimits(), features{}) // before lost was called for the old one
		c.lost(old, errDone)
		c.mu.Lock()
		is.Equal(c.sess, next)
		is.True(c.lane != nil)
		c.mu.Unlock()
		c.lost(next, errDone)
		old.End(errDone)
		is.NoErr(c.Close())
	})
}
