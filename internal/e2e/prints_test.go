package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

func withPrints(sums ...string) []byte {
	var methods []string
	for i := 0; i < len(sums); i += 2 {
		methods = append(methods, fmt.Sprintf(`{"name":%q,"x-typedrpc":{"kind":"method","handler":"client","fingerprint":%q}}`, sums[i], sums[i+1]))
	}
	return []byte(`{"methods":[` + strings.Join(methods, ",") + `]}`)
}

// TestSchema_differs has one line in the log of each side that knows, and everything works.
func TestSchema_differs(t *testing.T) {
	const message = "typedrpc: the peer's schema differs"
	lines := func(l *lab.Logs) int { return strings.Count(l.Text(), message) }
	for _, tt := range []struct {
		name          string
		near, far     []byte
		atNear, atFar int
	}{
		{"the same", withPrints("a", "01020304"), withPrints("a", "01020304"), 0, 0},
		{"another", withPrints("a", "01020304", "b", "01020304"), withPrints("a", "01020304", "b", "ffffffff"), 1, 1},
		{"names of one side", withPrints("a", "01020304"), withPrints("b", "01020304"), 0, 0},
		{"none here", nil, withPrints("a", "01020304"), 0, 0},
		{"none there", withPrints("a", "01020304"), nil, 0, 0},
	} {
		for dialect, d := range map[string]typedrpc.Dialect{"binary": typedrpc.Binary, "text": typedrpc.Text, "json-rpc": typedrpc.JSONRPC} {
			t.Run(tt.name+"/"+dialect, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					is := is.New(t)
					var near, far lab.Logs
					mux := typedrpc.NewMux()
					typedrpc.Handle(mux, lab.Shout, func(_ context.Context, s string) (string, error) { return s, nil })
					srv := &typedrpc.Server{Mux: mux, Schema: tt.far, Logger: far.Logger()}
					conn, _, err := typedrpctest.Dial(srv, &typedrpc.DialOptions{Dialect: d, Schema: tt.near, Logger: near.Logger()})
					is.NoErr(err)
					defer conn.Close()
					s, err := typedrpc.Call(t.Context(), conn, lab.Shout, "x")
					is.NoErr(err)
					is.Equal(s, "x")
					synctest.Wait()
					if d == typedrpc.JSONRPC { // which has no handshake
						is.Equal(lines(&near)+lines(&far), 0)
						return
					}
					is.Equal(lines(&near), tt.atNear)
					is.Equal(lines(&far), tt.atFar)
					if tt.atNear > 0 {
						is.True(near.Has("names=[b] differ=1"))
						is.True(far.Has("names=[b] differ=1"))
					}
				})
			})
		}
	}
}

// A connection that comes back tells its own log once; a server each session that it begins.
func TestSchema_reconnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		const message = "typedrpc: the peer's schema differs"
		var near, first, second lab.Logs
		w := &lab.Town{Srv: &typedrpc.Server{Schema: withPrints("a", "ffffffff"), Logger: first.Logger()}}
		c := w.Dial(t, &typedrpc.DialOptions{Backoff: lab.Steady, Limits: typedrpc.Limits{Grace: time.Hour}, Schema: withPrints("a", "01020304", "b", "01020304"), Logger: near.Logger()})
		defer c.Close()
		w.Healed()
		is.Equal(w.Dialled(), 2)
		is.Equal(strings.Count(first.Text(), message), 1) // the session goes on
		w.Serve(&typedrpc.Server{Schema: withPrints("b", "ffffffff"), Logger: second.Logger()})
		w.Healed()
		is.True(w.Dialled() > 2)
		is.Equal(strings.Count(second.Text(), message), 1) // it is another
		is.Equal(strings.Count(near.Text(), message), 1)
	})
}

// A thousand names fit into the handshake, with credentials; where these are too large
// for both they go alone.
func TestSchema_manyNames(t *testing.T) {
	for _, tt := range []struct {
		size  int
		lines int
	}{{1 << 10, 1}, {50 << 10, 0}} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			var near, far []string
			for i := range 3000 {
				near = append(near, fmt.Sprint("name", i), "01020304")
				far = append(far, fmt.Sprint("name", i), "ffffffff")
			}
			signIn := typedrpc.NewSignIn[string, int]()
			var logs lab.Logs
			srv := &typedrpc.Server{Schema: withPrints(far...), Logger: logs.Logger(), SignIn: signIn.Verify(func(_ context.Context, r *http.Request, s *string) (typedrpc.Identity, int, error) {
				return typedrpc.Identity{}, len(*s), nil
			})}
			conn, _, err := typedrpctest.Dial(srv, &typedrpc.DialOptions{Schema: withPrints(near...), Logger: logs.Logger(), SignIn: signIn.Present(func(context.Context) (string, error) {
				return strings.Repeat("x", tt.size), nil
			})})
			is.NoErr(err)
			defer conn.Close()
			n, err := signIn.Reply(conn)
			is.NoErr(err)
			is.Equal(n, tt.size)
			synctest.Wait()
			is.Equal(strings.Count(logs.Text(), "differ=2048"), tt.lines)
			is.Equal(strings.Count(logs.Text(), "differ=256"), tt.lines)
		})
	}
}

// A schema that is none is a mistake in the options.
func TestSchema_dialOptions(t *testing.T) {
	is := is.New(t)
	_, err := typedrpc.Dial(t.Context(), "ws://127.0.0.1:1", &typedrpc.DialOptions{Schema: []byte("[]")})
	is.Equal(typedrpc.CodeOf(err), typedrpc.InvalidArgument)
	is.True(strings.Contains(err.Error(), "typedrpc: DialOptions.Schema is no JSON object"))
	err = (&typedrpc.Server{Schema: withPrints("a", "zz")}).Check()
	is.Equal(err.Error(), `typedrpc: Server.Schema has a fingerprint of "a" that is none`)
}
