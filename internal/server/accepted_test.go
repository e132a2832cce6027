package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/wire"
)

func TestServer_revoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		subject := "ann"
		var revoked atomic.Int32
		s, _ := echoServer(t, func(o *Options) {
			o.Authenticate = func(context.Context, *http.Request, []byte, int) (Identity, []byte, error) {
				return Identity{Subject: subject}, nil, nil
			}
			o.OnDisconnect = func(c *engine.Conn, err error) {
				if errors.Is(err, errRevoked) {
					is.Equal(c.Keeper().(*Accepted).Identity().Subject, "ann")
					revoked.Add(1)
				}
			}
		})
		linked, _ := join(t, s, testkit.HelloOf(1))
		away, w := join(t, s, testkit.HelloOf(1))
		away.T.Kill()
		subject = "bob"
		bob, _ := join(t, s, testkit.HelloOf(1))
		synctest.Wait()
		is.Equal(s.Snapshot().Links, 2)
		is.Equal(s.Snapshot().Kept, 1)
		is.Equal(len(s.Conns()), 3)

		is.Equal(s.Revoke("eve", nil), 0)
		is.Equal(s.Revoke("ann", nil), 2)
		is.Equal(linked.CloseCode(), session.CloseUnauthed)
		synctest.Wait()
		is.Equal(revoked.Load(), int32(2))
		is.Equal(s.Snapshot(), Snapshot{Links: 1, Accepted: 1})
		subject = "ann"
		h := testkit.HelloOf(2)
		h.Token = w.Token
		again, w := join(t, s, h)
		is.True(!w.Resumed) // the token is void
		go again.CloseCode()
		go bob.CloseCode()
		is.NoErr(s.Shutdown(t.Context()))
		is.Equal(revoked.Load(), int32(2))
		is.Equal(s.Snapshot(), Snapshot{})
	})
}

// A subject that is revoked while it is authenticated is not let in.
func TestServer_revokedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var s *Server
		s, _ = echoServer(t, func(o *Options) {
			o.Authenticate = func(context.Context, *http.Request, []byte, int) (Identity, []byte, error) {
				is.Equal(s.Snapshot().Checks, 1)
				s.Revoke("ann", nil)
				return Identity{Subject: "ann"}, nil, nil
			}
		})
		p, _, _ := knock(s, testkit.BinaryProtocol)
		h := testkit.HelloOf(1)
		is.NoErr(p.Send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
		f, err := p.Until(wire.AuthOK)
		is.NoErr(err)
		b, err := wire.ParseAuthOK(f.Payload)
		is.NoErr(err)
		is.Equal(status.Code(b.Error.Code), status.Unauthenticated)
		is.Equal(p.CloseCode(), session.CloseUnauthed)
		synctest.Wait() // the first one's check is over
		plain, _, refused := knock(s, "")
		is.True(refused == nil)
		is.Equal(plain.CloseCode(), session.CloseUnauthed)
		synctest.Wait()
		is.Equal(s.Snapshot(), Snapshot{})
	})
}

func TestServer_plainPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		s, _ := echoServer(t, nil)
		first, _, _ := knock(s, "")
		_, l, _ := knock(s, "jsonrpc")
		is.True(l.Wait() != nil)
		_, _, refused := knock(s, "")
		is.Equal(refused.Status, http.StatusServiceUnavailable) // MaxPlain
		is.True(strings.Contains(refused.Text, session.HelloProtocol))
		is.Equal(s.Snapshot(), Snapshot{Links: 2, Accepted: 2, Plain: 2})
		hello, _ := join(t, s, testkit.HelloOf(1)) // others do not count
		hello.T.Kill()
		first.T.Kill()
		synctest.Wait()
		is.Equal(s.Snapshot().Plain, 1) // a plain peer's session ends with its link
		is.Equal(s.Snapshot().Kept, 1)
		p, _, refused := knock(s, "")
		is.True(refused == nil)
		is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: 1, RawID: []byte("1"), Method: "echo", Payload: []byte(`[7]`)}))
		f, err := p.Until(wire.Result)
		is.NoErr(err)
		is.Equal(string(f.Payload), `[7]`)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s.Shutdown(ctx)
		time.Sleep(time.Minute)
		is.Equal(s.Snapshot(), Snapshot{})
	})
}

// The oldest of the sessions without a link makes room.
func TestServer_keptPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var ended []string
		s, _ := echoServer(t, func(o *Options) {
			o.MaxKept = 1
			o.Authenticate = func(_ context.Context, _ *http.Request, raw []byte, _ int) (Identity, []byte, error) {
				return Identity{Subject: string(raw)}, nil, nil
			}
			o.OnDisconnect = func(c *engine.Conn, _ error) {
				ended = append(ended, c.Keeper().(*Accepted).Identity().Subject)
			}
		})
		for i := range 3 {
			h := testkit.HelloOf(1)
			h.Credentials = fmt.Append(nil, i)
			p, _ := join(t, s, h)
			p.T.Kill()
			time.Sleep(time.Second)
			synctest.Wait()
		}
		is.Equal(ended, []string{"0", "1"})
		is.Equal(s.Snapshot().Kept, 1)
		is.Equal(s.Snapshot().Accepted, 1)
		time.Sleep(s.o.Config.Limits.Grace)
		synctest.Wait()
		is.Equal(ended, []string{"0", "1", "2"})
		is.Equal(s.Snapshot(), Snapshot{})
	})
}

// What a request holds of the budget that all share is given back.
func TestServer_budget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		s, gate := echoServer(t, nil)
		p, _ := join(t, s, testkit.HelloOf(1))
		large := testkit.Quoted(560 << 10)
		for id := range uint64(2) {
			is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: id + 1, Method: "hang", Payload: large}))
			synctest.Wait()
		}
		f, err := p.Until(wire.Fail)
		is.NoErr(err)
		is.Equal(f.ID, uint64(2))
		is.Equal(status.Code(f.Code), status.ResourceExhausted)
		is.True(f.Flags&wire.NotRun != 0)
		is.True(s.Snapshot().Budget >= 560<<10)
		close(gate)
		go p.CloseCode()
		is.NoErr(s.Shutdown(t.Context()))
		is.Equal(s.Snapshot(), Snapshot{})
	})
}

func TestAccepted_credentialsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		s, _ := echoServer(t, func(o *Options) {
			o.Authenticate = func(context.Context, *http.Request, []byte, int) (Identity, []byte, error) {
				return Identity{Subject: "ann", Expires: time.Now().Add(time.Minute)}, []byte(`"hi"`), nil
			}
		})
		began := time.Now()
		p, w := join(t, s, testkit.HelloOf(1))
		is.Equal(w.Expires, uint64(60_000))
		is.Equal(string(w.Reply), `"hi"`)
		time.Sleep(30 * time.Second)
		is.NoErr(p.Send(wire.Frame{Type: wire.Auth, Payload: []byte(`{}`)}))
		_, err := p.Until(wire.AuthOK)
		is.NoErr(err)
		is.Equal(p.CloseCode(), session.CloseUnauthed)
		is.Equal(time.Since(began), 90*time.Second) // the last ones count
		time.Sleep(time.Minute)
		is.Equal(s.Snapshot(), Snapshot{})
	})
}

func TestExpiresIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		is.Equal(expiresIn(Identity{}), uint64(0))
		is.Equal(expiresIn(Identity{Expires: time.Now().Add(1500 * time.Microsecond)}), uint64(2))
		is.Equal(expiresIn(Identity{Expires: time.Now().Add(-time.Hour)}), uint64(1)) // 0 is never
	})
}

// An AUTH changes what is known of a subject, and never who it is.
func TestAccepted_renewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var ends atomic.Int32
		s, _ := echoServer(t, func(o *Options) {
			o.Authenticate = func(ctx context.Context, _ *http.Request, raw []byte, _ int) (Identity, []byte, error) {
				context.AfterFunc(ctx, func() { ends.Add(1) })
				if string(raw) == `"bad"` {
					return Identity{}, nil, errors.New("secret")
				}
				return Identity{Subject: string(raw), Context: ctx}, raw, nil
			}
		})
		h := testkit.HelloOf(1)
		h.Credentials = []byte(`"ann"`)
		p, _ := join(t, s, h)
		for _, tt := range []struct {
			creds string
			code  status.Code
			ends  int32
		}{
			{`"bob"`, status.PermissionDenied, 1}, {`"bad"`, status.Unauthenticated, 2},
			{`"ann"`, 0, 2}, {`"ann"`, 0, 3}, // what the first one gave, handlers use
		} {
			b := wire.AuthBody{Credentials: []byte(tt.creds)}
			is.NoErr(p.Send(wire.Frame{Type: wire.Auth, Payload: b.Append(nil)}))
			f, err := p.Until(wire.AuthOK)
			is.NoErr(err)
			ok, err := wire.ParseAuthOK(f.Payload)
			is.NoErr(err)
			is.Equal(ok.Error == nil, tt.code == 0)
			if ok.Error != nil {
				is.Equal(status.Code(ok.Error.Code), tt.code)
				is.True(ok.Error.Message != "secret")
			}
			synctest.Wait()
			is.Equal(ends.Load(), tt.ends)
			is.Equal(s.Conns()[0].Keeper().(*Accepted).Identity().Subject, `"ann"`)
		}
		go p.CloseCode()
		is.NoErr(s.Shutdown(t.Context()))
		synctest.Wait()
		is.Equal(ends.Load(), int32(5)) // all of them
	})
}

// What an AUTH brings over a link that is gone says nothing of the connection,
// which has another one.
func TestAccepted_renewedOverAnOldLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		gate := make(chan struct{})
		s, _ := echoServer(t, func(o *Options) {
			o.Authenticate = func(_ context.Context, _ *http.Request, raw []byte, _ int) (Identity, []byte, error) {
				id := Identity{Subject: "ann"}
				if string(raw) == `"slow"` { // and deaf
					id.Expires = time.Now().Add(time.Minute)
					<-gate
				}
				return id, nil, nil
			}
		})
		h := testkit.HelloOf(1)
		p, w := join(t, s, h)
		b := wire.AuthBody{Credentials: []byte(`"slow"`)}
		is.NoErr(p.Send(wire.Frame{Type: wire.Auth, Payload: b.Append(nil)}))
		synctest.Wait()
		p.T.Kill()
		synctest.Wait()
		h.Attempt, h.Token = 2, w.Token
		again, w := join(t, s, h)
		is.True(w.Resumed)
		close(gate)
		synctest.Wait()
		is.True(s.Conns()[0].Keeper().(*Accepted).Identity().Expires.IsZero())
		go again.CloseCode()
		is.NoErr(s.Shutdown(t.Context()))
	})
}

func TestAccepted_authFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		asked := 0
		s, _ := echoServer(t, func(o *Options) {
			o.Authenticate = func(ctx context.Context, _ *http.Request, _ []byte, _ int) (Identity, []byte, error) {
				if asked++; asked > 1 {
					<-ctx.Done()
				}
				return Identity{}, nil, ctx.Err()
			}
		})
		p, _ := join(t, s, testkit.HelloOf(1))
		for range maxRenewals + 1 { // one is being handled
			is.NoErr(p.Send(wire.Frame{Type: wire.Auth, Payload: []byte(`{}`)}))
			synctest.Wait()
		}
		is.Equal(asked, 2)
		is.NoErr(p.Send(wire.Frame{Type: wire.Auth, Payload: []byte(`{}`)}))
		is.Equal(p.CloseCode(), session.CloseFlood)
		time.Sleep(time.Minute)
		synctest.Wait()
		is.Equal(s.Snapshot(), Snapshot{})
	})
}

// The AUTHs that wait are counted, and when the link has ended none of them is looked
// at any more: a slow check of each would hold up the end of the connection.
func TestAccepted_authsThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		asked := 0
		s, _ := echoServer(t, func(o *Options) {
			o.Config.Ledger = flow.NewLedger(64 << 20)
			o.Authenticate = func(context.Context, *http.Request, []byte, int) (Identity, []byte, error) {
				if asked++; asked > 1 {
					time.Sleep(10 * time.Second) // it does not look at its context
				}
				return Identity{}, nil, nil
			}
		})
		p, _ := join(t, s, testkit.HelloOf(1))
		idle := s.Snapshot().Budget
		b := wire.AuthBody{Credentials: []byte(`"` + strings.Repeat("x", 50_000) + `"`)}
		for range 5 { // one is being handled
			is.NoErr(p.Send(wire.Frame{Type: wire.Auth, Payload: b.Append(nil)}))
			synctest.Wait()
		}
		is.True(s.Snapshot().Budget-idle >= 4*50_000)
		p.T.Kill()
		time.Sleep(time.Minute)
		synctest.Wait()
		is.Equal(asked, 2)
		is.Equal(s.Snapshot(), Snapshot{})
	})
}

// curious is a context that wants to know whose it is.
type curious struct {
	context.Context
	done func()
}

func (c curious) Done() <-chan struct{} { c.done(); return c.Context.Done() }

// The context of an Identity is the program's, and may ask for the Identity.
func TestAccepted_identityWithinItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var keeper *Accepted
		asked := 0
		s, gate := echoServer(t, nil)
		s.o.NewConn = func(k engine.Keeper, _ int) engine.Owner {
			keeper = k.(*Accepted)
			return echo{gate: gate}
		}
		s.o.Authenticate = func(ctx context.Context, _ *http.Request, _ []byte, _ int) (Identity, []byte, error) {
			return Identity{Subject: "ann", Context: curious{ctx, func() {
				if keeper != nil && keeper.Identity().Subject == "ann" {
					asked++
				}
			}}}, nil, nil
		}
		p, _ := join(t, s, testkit.HelloOf(1))
		is.True(asked > 0)
		go p.CloseCode()
		is.NoErr(s.Shutdown(t.Context()))
	})
}

func TestRefusalOf(t *testing.T) {
	for _, tt := range []struct {
		err     error
		code    status.Code
		close   int
		foreign bool
	}{
		{status.Errorf(status.Unavailable, "later"), status.Unavailable, session.CloseOverload, false},
		{status.Errorf(status.ResourceExhausted, "later"), status.ResourceExhausted, session.CloseOverload, false},
		{status.Errorf(status.DeadlineExceeded, "later"), status.DeadlineExceeded, session.CloseOverload, false},
		{fmt.Errorf("wrapped: %w", status.Errorf(status.PermissionDenied, "no")), status.PermissionDenied, session.CloseForbidden, false},
		{status.Errorf(status.Unauthenticated, "no"), status.Unauthenticated, session.CloseUnauthed, false},
		{status.Errorf(status.NotFound, "who?"), status.NotFound, session.CloseUnauthed, false},
		{context.Canceled, status.DeadlineExceeded, session.CloseOverload, false},
		{fmt.Errorf("secret: %w", context.DeadlineExceeded), status.DeadlineExceeded, session.CloseOverload, false},
		{errors.New("secret"), status.Unauthenticated, session.CloseUnauthed, true},
	} {
		is := is.New(t)
		e, code, foreign := refusalOf(tt.err)
		is.Equal(e.Code, tt.code)
		is.Equal(code, tt.close)
		is.Equal(foreign, tt.foreign)
		is.True(!strings.Contains(e.Message, "secret"))
	}
}
