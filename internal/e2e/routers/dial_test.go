package routers

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
)

var (
	shout = typedrpc.NewMethod[string, string]("shout", typedrpc.Safe)
	count = typedrpc.NewServerStream[int, int]("count", typedrpc.Safe)
)

func handleShout(_ context.Context, s string) (string, error) { return strings.ToUpper(s), nil }

func handleCount(_ context.Context, n int, send func(int) error) error {
	for i := range n {
		if err := send(i); err != nil {
			return err
		}
	}
	return nil
}

// lines are what a server logs.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func serve(t *testing.T, m mounted) (url string, logged, std *lines) {
	logged, std = new(lines), new(lines)
	srv := newServer(logged)
	hs := httptest.NewUnstartedServer(m.handler(srv))
	hs.Config.ErrorLog = log.New(std, "", 0)
	hs.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		srv.Shutdown(ctx)
		hs.Close()
	})
	return hs.URL + "/rpc", logged, std
}

// TestDial_inEveryRouter makes calls over a WebSocket through every router and
// middleware, in every dialect, with compression and without; and where that cannot
// be, has the error say why.
func TestDial_inEveryRouter(t *testing.T) {
	for _, m := range all() {
		t.Run(m.name, func(t *testing.T) {
			url, log, std := serve(t, m)
			for _, o := range []*typedrpc.DialOptions{{}, {Compress: true}, {Dialect: typedrpc.Text}, {Dialect: typedrpc.JSONRPC}} {
				is := is.New(t)
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				c, err := typedrpc.Dial(ctx, url, o)
				if m.hides != "" {
					is.True(err != nil)
					is.True(ctx.Err() == nil) // it did not hang
					var u *typedrpc.UpgradeError
					is.True(errors.As(err, &u))
					is.True(strings.Contains(err.Error(), m.hides))
					is.True(strings.Contains(log.String(), "upgrade failed"))
					continue
				}
				is.NoErr(err)
				got, err := typedrpc.Call(ctx, c, shout, strings.Repeat("x", 3000))
				is.NoErr(err)
				is.Equal(got, strings.Repeat("X", 3000))
				if o.Dialect != typedrpc.JSONRPC {
					n := 0
					for i, err := range typedrpc.Receive(ctx, c, count, 100) {
						is.NoErr(err)
						is.Equal(i, n)
						n++
					}
					is.Equal(n, 100)
					c.Reconnect() // the session goes on, through the same door
				}
				_, err = typedrpc.Call(ctx, c, shout, "x")
				is.NoErr(err)
				is.NoErr(c.Close())
				is.Equal(log.String(), "")
			}
			if m.hides == "" && std.String() != "" {
				t.Errorf("net/http says: %s", std)
			}
		})
	}
}

// TestPost_inEveryRouter is the same for JSON-RPC over POST, which nothing hides.
func TestPost_inEveryRouter(t *testing.T) {
	for _, m := range all() {
		t.Run(m.name, func(t *testing.T) {
			is := is.New(t)
			url, _, _ := serve(t, m)
			for _, size := range []int{1, 3000, 100_000} {
				body := `{"jsonrpc":"2.0","id":1,"method":"shout","params":["` + strings.Repeat("x", size) + `"]}`
				resp, err := http.Post(url, "application/json", strings.NewReader(body))
				is.NoErr(err)
				answer, err := io.ReadAll(resp.Body)
				is.NoErr(err)
				resp.Body.Close()
				is.Equal(resp.StatusCode, http.StatusOK)
				is.Equal(string(answer), `{"jsonrpc":"2.0","id":1,"result":"`+strings.Repeat("X", size)+`"}`)
			}
			resp, err := http.Post(url, "application/json", strings.NewReader(`{"jsonrpc":"2.0","method":"shout"}`))
			is.NoErr(err)
			resp.Body.Close()
			is.Equal(resp.StatusCode, http.StatusNoContent)
			resp, err = http.Get(url)
			is.NoErr(err)
			text, err := io.ReadAll(resp.Body)
			is.NoErr(err)
			resp.Body.Close()
			is.Equal(resp.StatusCode, http.StatusUpgradeRequired)
			is.True(strings.Contains(string(text), "typedrpc endpoint"))
		})
	}
}

// TestGet_inEveryRouter reads a method and a stream with a GET. Where answers are kept back
// until they are whole a stream is refused, and the log says what keeps them.
func TestGet_inEveryRouter(t *testing.T) {
	for _, m := range all() {
		t.Run(m.name, func(t *testing.T) {
			is := is.New(t)
			url, logged, std := serve(t, m)
			get := func(query string) (int, string) {
				resp, err := http.Get(url + query)
				is.NoErr(err)
				defer resp.Body.Close()
				text, err := io.ReadAll(resp.Body)
				is.NoErr(err)
				return resp.StatusCode, string(text)
			}
			status, text := get("?method=shout&params=%22x%22")
			is.Equal(status, http.StatusOK)
			is.Equal(text, `{"jsonrpc":"2.0","id":1,"result":"X"}`)
			status, text = get("?method=count&params=2")
			if m.hides != "" {
				is.Equal(status, http.StatusInternalServerError)
				is.True(strings.Contains(text, "cannot be sent as they come"))
				is.True(strings.Contains(logged.String(), "*http.timeoutWriter"))
				return
			}
			is.Equal(status, http.StatusOK)
			is.True(strings.HasSuffix(text, "data: 0\n\ndata: 1\n\nevent: done\nid: end\ndata: {}\n\n"))
			is.Equal(logged.String()+std.String(), "")
		})
	}
}
