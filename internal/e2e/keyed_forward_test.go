package e2e_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/idempotency"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

func TestKeyed_interceptorsSeeRepeats(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		allowed := true
		l := lab.NewLedger(func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
			if !allowed {
				return nil, typedrpc.PermissionDenied
			}
			first, err := next(ctx, r)
			again, errAgain := next(ctx, r) // once for each key
			if string(first) != string(again) || typedrpc.CodeOf(err) != typedrpc.CodeOf(errAgain) {
				return nil, typedrpc.Internal
			}
			return again, errAgain
		})
		c := (&lab.Town{Srv: l.Server}).Dial(t, o)
		k := idempotency.NewKey()
		n, err := typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyAdd, 5)
		is.NoErr(err)
		is.Equal(n, 5)
		allowed = false
		_, err = typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyAdd, 5)
		lab.ErrorOf(t, err, typedrpc.PermissionDenied, typedrpc.Answered)
		runs, _ := l.Ran()
		is.Equal(runs, 1)
		is.NoErr(c.Close())
	})
}

func TestKeyed_plainPeersAndPosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.NewLedger()
		is.NoErr(l.Check())
		p, err := testkit.Join(l.Server, "")
		is.NoErr(err)
		ask := map[string]func(string) string{
			"socket": func(text string) string {
				is.NoErr(p.T.Write([]byte(text), true, func() {}))
				m, _, err := p.T.Read(func() {})
				is.NoErr(err)
				return string(m.B)
			},
			"post": func(text string) string {
				r := httptest.NewRequest(http.MethodPost, "http://town/", strings.NewReader(text))
				r.Header.Set("Content-Type", "application/json")
				rec := httptest.NewRecorder()
				l.ServeHTTP(rec, r)
				return rec.Body.String()
			},
		}
		call := func(n, meta string) string {
			if meta != "" {
				meta = `,"meta":{` + meta + `}`
			}
			return `{"jsonrpc":"2.0","id":1,"method":"key.add","params":[` + n + `]` + meta + `}`
		}
		id := strings.Repeat("ab", 16)
		key := `"idempotency-key":"` + id + `"`
		for name, ask := range ask {
			answer := ask(call("5", key+`,"idempotency-age":"0"`))
			is.Equal(answer, `{"jsonrpc":"2.0","id":1,"result":5}`) // both together
			is.Equal(ask(call("5", key+`,"idempotency-age":"1000"`)), answer)
			is.True(strings.Contains(ask(call("6", key+`,"idempotency-age":"0"`)), "-32602"))
			for _, bad := range []string{
				key, key + `,"idempotency-age":""`, key + `,"idempotency-age":"-1"`, key + `,"idempotency-age":"1.5"`,
				key + `,"idempotency-age":"9007199254740992"`, key + `,"idempotency-age":"99999999999999999999"`,
				`"idempotency-key":"","idempotency-age":"0"`, `"idempotency-key":"ab","idempotency-age":"0"`,
				`"idempotency-key":"` + id[1:] + `x","idempotency-age":"0"`,
			} {
				if got := ask(call("5", bad)); !strings.Contains(got, "-32602") {
					t.Errorf("%s: %s is answered with %s", name, bad, got)
				}
			}
			fresh := strings.Replace(key, "ab", map[string]string{"socket": "cd", "post": "ef"}[name], 1)
			is.True(strings.Contains(ask(call("5", fresh+`,"idempotency-age":"9007199254740991"`)), "no longer known"))
		}
		runs, _ := l.Ran()
		is.Equal(runs, 1)
		for range 2 {
			ask["socket"](call("5", "")) // without a key they just run
		}
		runs, _ = l.Ran()
		is.Equal(runs, 3)
		p.T.Kill()
		synctest.Wait()
	})
}

// inFront is a proxy in front of the servers of town w.
func inFront(t *testing.T, w *lab.Town) (front *lab.Town, back *typedrpc.Conn) {
	back = w.Dial(t, &typedrpc.DialOptions{Backoff: lab.Steady})
	mux := typedrpc.NewMux()
	mux.HandleFallback(func(ctx context.Context, r *typedrpc.Request) (typedrpc.Raw, error) {
		time.Sleep(time.Second)
		return typedrpc.Forward(ctx, back, r)
	})
	return &lab.Town{Srv: &typedrpc.Server{Mux: mux, Logger: slog.New(slog.DiscardHandler)}}, back
}

func TestKeyed_forward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.NewLedger()
		w := &lab.Town{Srv: l.Server}
		front, back := inFront(t, w)
		c := front.Dial(t, &typedrpc.DialOptions{Backoff: lab.Steady})
		k := idempotency.NewKey()
		f := typedrpc.Go(t.Context(), lab.WithKey(c, k), lab.KeyHang, 5)
		time.Sleep(2 * time.Second)
		front.Cable().Cut() // either link
		time.Sleep(10 * time.Second)
		w.Cable().Cut()
		time.Sleep(10 * time.Second)
		close(l.Release)
		n, err := f.Await(t.Context())
		is.NoErr(err)
		is.Equal(n, 5)
		runs, _ := l.Ran()
		is.Equal(runs, 1)
		is.Equal(l.Ages, []string{"1000"}) // what it waited at the proxy, once

		// A key of the proxy's own would be another.
		_, err = typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyHang, 6)
		lab.ErrorOf(t, err, typedrpc.InvalidArgument, typedrpc.NotSent)

		// The client's peer is the same one, and the one behind it is not.
		g := lab.NewLedger()
		k = idempotency.NewKey()
		n, err = typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyAdd, 5)
		is.NoErr(err)
		is.Equal(n, 10)
		w.Serve(g.Server)
		w.Cable().Cut()
		time.Sleep(time.Minute)
		_, err = typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyAdd, 5)
		lab.ErrorOf(t, err, typedrpc.FailedPrecondition, typedrpc.MayHaveRun)
		runs, _ = g.Ran()
		is.Equal(runs, 0)
		n, err = typedrpc.Call(t.Context(), c, lab.KeyAdd, 5)
		is.NoErr(err)
		is.Equal(n, 5)
		is.NoErr(c.Close())
		is.NoErr(back.Close())
	})
}

// A handler that forwarded one request twice at once ended the process.
func TestKeyed_forwardTwiceAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.NewLedger()
		w := &lab.Town{Srv: l.Server}
		back := w.Dial(t, &typedrpc.DialOptions{Backoff: lab.Steady})
		mux := typedrpc.NewMux()
		panics := make(chan any, 2)
		mux.HandleFallback(func(ctx context.Context, r *typedrpc.Request) (typedrpc.Raw, error) {
			var wg sync.WaitGroup
			var raw typedrpc.Raw
			for i := range 2 {
				mine := *r
				wg.Go(func() {
					defer func() {
						if p := recover(); p != nil {
							panics <- p
						}
					}()
					b, err := typedrpc.Forward(ctx, back, &mine)
					if i == 0 && err == nil {
						raw = b
					}
				})
			}
			wg.Wait()
			return raw, nil
		})
		front := &lab.Town{Srv: &typedrpc.Server{Mux: mux}}
		c := front.Dial(t, &typedrpc.DialOptions{Backoff: lab.Steady})
		f := typedrpc.Go(t.Context(), c, lab.KeyHang, 5)
		time.Sleep(time.Second)
		close(l.Release)
		_, err := f.Await(t.Context())
		is.NoErr(err)
		select {
		case p := <-panics:
			t.Errorf("Forward panicked: %v", p)
		default:
		}
		c.Close()
		back.Close()
	})
}
