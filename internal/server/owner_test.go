package server

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/wire"
)

func TestOwnerOf(t *testing.T) {
	for _, tt := range []struct{ subject, remote, want string }{
		{"ann", "192.0.2.1:1234", "subject ann"},
		{"", "192.0.2.1:1234", "address 192.0.2.1"},
		{"", "192.0.2.1:99", "address 192.0.2.1"},
		{"", "[::ffff:192.0.2.1]:99", "address 192.0.2.1"}, // the same one
		{"", "[2001:db8:1:2:3:4:5:6]:1234", "address 2001:db8:1:2::/64"},
		{"", "[2001:db8:1:2:ffff::1]:1", "address 2001:db8:1:2::/64"},
		{"", "[2001:db8:1:3::1]:1", "address 2001:db8:1:3::/64"},
		{"", "[fe80::1%eth0]:1234", "address fe80::/64"},
		{"", "2001:db8:1:2::7", "address 2001:db8:1:2::/64"}, // without a port
		{"", "192.0.2.1", "address 192.0.2.1"},
		{"", "@", "address @"}, // a Unix socket's
		{"", "pipe", "address pipe"},
		{"", "", "address "},
		{"address 192.0.2.1", "192.0.2.2:1", "subject address 192.0.2.1"}, // is nobody's address
	} {
		t.Run(tt.subject+" "+tt.remote, func(t *testing.T) {
			is := is.New(t)
			is.Equal(ownerOf(Identity{Subject: tt.subject}, &http.Request{RemoteAddr: tt.remote}), tt.want)
		})
	}
}

// What connections and requests of one owner hold is looked at together.
func TestServer_accountsHaveOwners(t *testing.T) {
	for _, known := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			var made []*engine.Conn
			s, gate := echoServer(t, func(o *Options) {
				o.Made = func(_ engine.Owner, c *engine.Conn) { made = append(made, c) }
				if known {
					o.Authenticate = func(_ context.Context, r *http.Request, _ []byte, _ int) (Identity, []byte, error) {
						return Identity{Subject: map[string]string{"192.0.2.1:1": "ann", "192.0.2.3:3": "ann", "192.0.2.2:2": "ben"}[r.RemoteAddr]}, nil, nil
					}
				}
			})
			from := "192.0.2.1:5"
			if known {
				from = "192.0.2.3:3" // another address, the same subject
			}
			ben, _ := joinFrom(t, s, testkit.HelloOf(1), "192.0.2.2:2")
			ann, _ := joinFrom(t, s, testkit.HelloOf(1), "192.0.2.1:1")
			posted := make(chan int)
			go func() {
				r := httptest.NewRequest(http.MethodPost, "http://pipe/", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"hang","params":[1]}`))
				r.Header.Set("Content-Type", "application/json")
				r.RemoteAddr = from
				w := httptest.NewRecorder()
				s.ServeHTTP(w, r)
				posted <- w.Code
			}()
			synctest.Wait()
			is.Equal(len(made), 3)
			made[0].Account().Force(350 << 10) // of a MiB: ben has the most of all connections, …
			made[2].Account().Force(200 << 10)
			made[1].Account().Force(300 << 10) // … and ann of all owners
			synctest.Wait()
			is.True(made[0].Err() == nil)
			is.True(made[1].Err() != nil)
			made[0].Account().Give(350 << 10)
			close(gate)
			<-posted
			go ben.CloseCode()
			go ann.CloseCode()
			s.Shutdown(t.Context())
		})
	}
}

// begin says HELLO, and returns what it got.
func begin(t *testing.T, s *Server, h wire.HelloBody, remote string) (refused status.Code, closed int) {
	t.Helper()
	is := is.New(t)
	p, _, _ := knockFrom(s, testkit.BinaryProtocol, remote)
	is.NoErr(p.Send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
	f, err := p.Next()
	is.NoErr(err)
	if f.Type == wire.Welcome {
		p.T.Kill()
		return 0, 0
	}
	b, err := wire.ParseAuthOK(f.Payload)
	is.NoErr(err)
	return status.Code(b.Error.Code), p.CloseCode()
}

func TestServer_beginRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		s, _ := echoServer(t, func(o *Options) { o.BeginRate = 2 })
		_, w := joinFrom(t, s, testkit.HelloOf(1), "192.0.2.1:1")
		for range 19 {
			code, _ := begin(t, s, testkit.HelloOf(1), "192.0.2.1:7")
			is.Equal(code, status.Code(0))
		}
		code, closed := begin(t, s, testkit.HelloOf(1), "192.0.2.1:9")
		is.Equal(code, status.ResourceExhausted)
		is.Equal(closed, session.CloseOverload)
		h := testkit.HelloOf(1)
		h.Token = "guessed"
		code, _ = begin(t, s, h, "192.0.2.1:9") // that begins one, too
		is.Equal(code, status.ResourceExhausted)
		h.Attempt, h.Token = 2, w.Token
		code, _ = begin(t, s, h, "192.0.2.1:9") // and this goes on with one
		is.Equal(code, status.Code(0))
		code, _ = begin(t, s, testkit.HelloOf(1), "192.0.2.2:9")
		is.Equal(code, status.Code(0))
		time.Sleep(500 * time.Millisecond)
		code, _ = begin(t, s, testkit.HelloOf(1), "192.0.2.1:9")
		is.Equal(code, status.Code(0))
		synctest.Wait()
		s.Revoke("", nil)
		synctest.Wait()
		is.Equal(s.Snapshot(), Snapshot{})
	})
}
