package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"
	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/examples/calculator/api"
)

func serve(t *testing.T, log *slog.Logger) *httptest.Server {
	is := is.New(t)
	rpc, handler, err := routes(log)
	is.NoErr(err)
	hs := httptest.NewServer(handler)
	t.Cleanup(hs.Close)
	t.Cleanup(func() { rpc.Shutdown(context.Background()) })
	return hs
}

var quiet = slog.New(slog.DiscardHandler)

// dial connects as the page does, with confirm for page.confirm if not nil.
func dial(t *testing.T, url string, confirm func(context.Context, string) (bool, error)) *typedrpc.Conn {
	is := is.New(t)
	var mux *typedrpc.Mux
	if confirm != nil {
		mux = typedrpc.NewMux()
		typedrpc.Handle(mux, api.PageConfirm, confirm)
	}
	c, err := typedrpc.Dial(t.Context(), url+"/rpc", &typedrpc.DialOptions{Dialect: typedrpc.JSONRPC, Mux: mux})
	is.NoErr(err)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestPage(t *testing.T) {
	hs := serve(t, quiet)
	for path, want := range map[string]struct{ contentType, text string }{
		"/":            {"text/html; charset=utf-8", "Multiply by 1000"},
		"/style.css":   {"text/css; charset=utf-8", "color-scheme"},
		"/page.css":    {"text/css; charset=utf-8", "output"},
		"/page.js":     {"text/javascript; charset=utf-8", "client.math.multiply("},
		"/api.js":      {"text/javascript; charset=utf-8", `typedrpc.method("math.multiply")`},
		"/typedrpc.js": {"text/javascript; charset=utf-8", "WebSocket"},
	} {
		t.Run(path, func(t *testing.T) {
			is := is.New(t)
			resp, err := http.Get(hs.URL + path)
			is.NoErr(err)
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			is.NoErr(err)
			is.Equal(resp.StatusCode, http.StatusOK)
			is.Equal(resp.Header.Get("Content-Type"), want.contentType)
			is.True(strings.Contains(string(body), want.text))
			is.True(strings.HasPrefix(resp.Header.Get("Content-Security-Policy"), "default-src 'none'; script-src 'self';"))
			is.True(!strings.Contains(string(body), "<script>")) // none inline
		})
	}
}

func TestCalls(t *testing.T) {
	c := dial(t, serve(t, quiet).URL, nil)

	t.Run("results", func(t *testing.T) {
		is := is.New(t)
		y, err := typedrpc.Call(t.Context(), c, api.Multiply, api.Factors{A: 1.5, B: 1000})
		is.NoErr(err)
		is.Equal(y, 1500.0)
		y, err = typedrpc.Call(t.Context(), c, api.SquareRoot, 2.25)
		is.NoErr(err)
		is.Equal(y, 1.5)
	})
	t.Run("negative root", func(t *testing.T) {
		is := is.New(t)
		_, err := typedrpc.Call(t.Context(), c, api.SquareRoot, -4)
		is.True(errors.Is(err, typedrpc.InvalidArgument))
		is.True(strings.Contains(err.Error(), "-4 is negative"))
	})
	t.Run("unknown method", func(t *testing.T) {
		is := is.New(t)
		_, err := typedrpc.Call(t.Context(), c, typedrpc.NewMethod[float64, float64]("cubeRoot"), 8)
		is.True(errors.Is(err, typedrpc.Unimplemented))
		is.True(strings.Contains(err.Error(), "cubeRoot"))
	})
	t.Run("nobody to ask", func(t *testing.T) {
		is := is.New(t)
		_, err := typedrpc.Call(t.Context(), c, api.Multiply, api.Factors{A: 2e6, B: 1000})
		is.True(errors.Is(err, typedrpc.FailedPrecondition))
	})
}

func TestConfirm(t *testing.T) {
	questions := make(chan string, 1)
	var answer atomic.Bool
	c := dial(t, serve(t, quiet).URL, func(_ context.Context, question string) (bool, error) {
		questions <- question
		return answer.Load(), nil
	})

	t.Run("yes", func(t *testing.T) {
		is := is.New(t)
		answer.Store(true)
		y, err := typedrpc.Call(t.Context(), c, api.Multiply, api.Factors{A: -2e6, B: 1000})
		is.NoErr(err)
		is.Equal(y, -2e9)
		is.True(strings.HasPrefix(<-questions, "-2000000 is a large number"))
	})
	t.Run("no", func(t *testing.T) {
		is := is.New(t)
		answer.Store(false)
		_, err := typedrpc.Call(t.Context(), c, api.Multiply, api.Factors{A: 2e6, B: 1000})
		is.True(errors.Is(err, typedrpc.Aborted))
		is.True(strings.HasPrefix(<-questions, "2000000 is a large number"))
	})
	t.Run("not asked", func(t *testing.T) {
		is := is.New(t)
		answer.Store(false)
		_, err := typedrpc.Call(t.Context(), c, api.Multiply, api.Factors{A: 1e6, B: 1000})
		is.NoErr(err)
		is.Equal(len(questions), 0)
	})
	t.Run("too large", func(t *testing.T) {
		is := is.New(t)
		answer.Store(true)
		_, err := typedrpc.Call(t.Context(), c, api.Multiply, api.Factors{A: 1e307, B: 1000})
		is.True(errors.Is(err, typedrpc.OutOfRange))
		<-questions
	})
}

// What the page's script sends and receives, as text.
func TestRawJSON(t *testing.T) {
	hs := serve(t, quiet)
	for _, test := range []struct {
		name string
		text []string // > is sent, < must come
	}{
		{"square root", []string{
			`> {"jsonrpc":"2.0","id":1,"method":"math.squareRoot","params":[9]}`,
			`< {"jsonrpc":"2.0","id":1,"result":3}`,
		}},
		{"multiply", []string{
			`> {"jsonrpc":"2.0","id":2,"method":"math.multiply","params":{"a":1500,"b":1000}}`,
			`< {"jsonrpc":"2.0","id":2,"result":1500000}`,
		}},
		{"negative root", []string{
			`> {"jsonrpc":"2.0","id":3,"method":"math.squareRoot","params":[-4]}`,
			`< {"jsonrpc":"2.0","id":3,"error":{"code":-32602,"message":"-4 is negative: it has no real square root"}}`,
		}},
		{"unknown method", []string{
			`> {"jsonrpc":"2.0","id":4,"method":"cubeRoot","params":[8]}`,
			`< {"jsonrpc":"2.0","id":4,"error":{"code":-32601,"message":"no method \"cubeRoot\""}}`,
		}},
		{"confirmed", []string{
			`> {"jsonrpc":"2.0","id":5,"method":"math.multiply","params":{"a":2000000,"b":1000}}`,
			`< {"jsonrpc":"2.0","id":1,"method":"page.confirm","params":["2000000 is a large number. Multiply it by 1000 all the same?"]}`,
			`> {"jsonrpc":"2.0","id":1,"result":true}`,
			`< {"jsonrpc":"2.0","id":5,"result":2000000000}`,
		}},
		{"declined", []string{
			`> {"jsonrpc":"2.0","id":6,"method":"math.multiply","params":{"a":2000000,"b":1000}}`,
			`< {"jsonrpc":"2.0","id":1,"method":"page.confirm","params":["2000000 is a large number. Multiply it by 1000 all the same?"]}`,
			`> {"jsonrpc":"2.0","id":1,"result":false}`,
			`< {"jsonrpc":"2.0","id":6,"error":{"code":10,"message":"not multiplied, since you said no"}}`,
		}},
		{"withdrawn", []string{ // the page gives up, so the server takes its question back
			`> {"jsonrpc":"2.0","id":7,"method":"math.multiply","params":{"a":2000000,"b":1000}}`,
			`< {"jsonrpc":"2.0","id":1,"method":"page.confirm","params":["2000000 is a large number. Multiply it by 1000 all the same?"]}`,
			`> {"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":7}}`,
			`< {"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":1}}`,
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			is := is.New(t)
			ws, _, err := websocket.Dial(t.Context(), hs.URL+"/rpc", nil)
			is.NoErr(err)
			defer ws.CloseNow()
			for _, line := range test.text {
				if text, mine := strings.CutPrefix(line, "> "); mine {
					is.NoErr(ws.Write(t.Context(), websocket.MessageText, []byte(text)))
					continue
				}
				_, got, err := ws.Read(t.Context())
				is.NoErr(err)
				is.Equal(value(t, string(got)), value(t, strings.TrimPrefix(line, "< ")))
			}
		})
	}
}

// value reads JSON, so that two texts of one value are equal.
func value(t *testing.T, text string) map[string]any {
	is := is.New(t)
	var v map[string]any
	is.NoErr(json.Unmarshal([]byte(text), &v))
	return v
}

func TestLog(t *testing.T) {
	is := is.New(t)
	r, w := io.Pipe()
	lines := bufio.NewScanner(r)
	c := dial(t, serve(t, slog.New(slog.NewTextHandler(w, nil))).URL, nil)
	f := typedrpc.Go(t.Context(), c, api.SquareRoot, 16)
	is.True(lines.Scan())
	is.True(strings.Contains(lines.Text(), "method=math.squareRoot params=[16]"))
	is.True(strings.Contains(lines.Text(), "result=4"))
	_, err := f.Await(t.Context())
	is.NoErr(err)
}

func TestRun(t *testing.T) {
	is := is.New(t)
	r, w := io.Pipe()
	ctx, interrupt := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, "127.0.0.1:0", slog.New(slog.NewTextHandler(w, nil))) }()
	line, err := bufio.NewReader(r).ReadString('\n')
	is.NoErr(err)
	rest := make(chan string, 1)
	go func() {
		log, _ := io.ReadAll(r)
		rest <- string(log)
	}()
	_, url, found := strings.Cut(strings.TrimSpace(line), "url=")
	is.True(found)

	c := dial(t, strings.TrimSuffix(url, "/"), nil)
	y, err := typedrpc.Call(t.Context(), c, api.SquareRoot, 16)
	is.NoErr(err)
	is.Equal(y, 4.0)

	interrupt()
	is.NoErr(<-ended)
	w.Close()
	is.True(!strings.Contains(<-rest, "closing what was still open")) // it did not wait for a client that wants nothing
}

func TestRun_portTaken(t *testing.T) {
	is := is.New(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	is.NoErr(err)
	defer taken.Close()
	err = run(t.Context(), taken.Addr().String(), quiet)
	is.True(err != nil)
	is.True(strings.Contains(err.Error(), "-addr")) // says what to do
}
