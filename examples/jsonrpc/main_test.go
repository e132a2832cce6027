package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
)

// examples are those of https://www.jsonrpc.org/specification, section 7, with
// the specification's answers; "" is none.
var examples = []struct{ name, request, response string }{
	{"positional params", `{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}`,
		`{"jsonrpc": "2.0", "result": 19, "id": 1}`},
	{"positional params, the other way round", `{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}`,
		`{"jsonrpc": "2.0", "result": -19, "id": 2}`},
	{"named params", `{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}`,
		`{"jsonrpc": "2.0", "result": 19, "id": 3}`},
	{"named params, the other way round", `{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}`,
		`{"jsonrpc": "2.0", "result": 19, "id": 4}`},
	{"notification", `{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}`, ``},
	{"notification nobody handles", `{"jsonrpc": "2.0", "method": "foobar"}`, ``},
	{"unknown method", `{"jsonrpc": "2.0", "method": "foobar", "id": "1"}`,
		`{"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "1"}`},
	{"invalid JSON", `{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]`,
		`{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": null}`},
	{"invalid request", `{"jsonrpc": "2.0", "method": 1, "params": "bar"}`,
		`{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}`},
	{"batch of invalid JSON", `[
			{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
			{"jsonrpc": "2.0", "method"
		]`,
		`{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": null}`},
	{"empty batch", `[]`,
		`{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}`},
	{"invalid batch", `[1]`,
		`[{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}]`},
	{"longer invalid batch", `[1,2,3]`,
		`[
			{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
			{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
			{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}
		]`},
	{"batch", `[
			{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
			{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
			{"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
			{"foo": "boo"},
			{"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
			{"jsonrpc": "2.0", "method": "get_data", "id": "9"}
		]`,
		`[
			{"jsonrpc": "2.0", "result": 7, "id": "1"},
			{"jsonrpc": "2.0", "result": 19, "id": "2"},
			{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
			{"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "5"},
			{"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"}
		]`},
	{"batch of notifications", `[
			{"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},
			{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}
		]`, ``},
}

func TestSpecification_post(t *testing.T) {
	hs := serve(t)
	for _, ex := range examples {
		t.Run(ex.name, func(t *testing.T) {
			is := is.New(t)
			resp, err := http.Post(hs.URL, "application/json", strings.NewReader(ex.request))
			is.NoErr(err)
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			is.NoErr(err)
			if ex.response == "" {
				is.Equal(resp.StatusCode, http.StatusNoContent)
				is.Equal(string(body), "")
				return
			}
			is.Equal(resp.StatusCode, http.StatusOK)
			is.Equal(normal(t, string(body)), normal(t, ex.response))
		})
	}
}

func TestSpecification_webSocket(t *testing.T) {
	hs := serve(t)
	for _, ex := range examples {
		t.Run(ex.name, func(t *testing.T) {
			is := is.New(t)
			ws, _, err := websocket.Dial(t.Context(), hs.URL, nil)
			is.NoErr(err)
			defer ws.CloseNow()
			request, response := ex.request, ex.response
			is.NoErr(ws.Write(t.Context(), websocket.MessageText, []byte(request)))
			if response == "" { // then the next answer is that of the next request
				request, response = examples[0].request, examples[0].response
				is.NoErr(ws.Write(t.Context(), websocket.MessageText, []byte(request)))
			}
			_, answer, err := ws.Read(t.Context())
			is.NoErr(err)
			is.Equal(normal(t, string(answer)), normal(t, response))
		})
	}
}

func serve(t *testing.T) *httptest.Server {
	log := slog.New(slog.DiscardHandler)
	rpc := &typedrpc.Server{Mux: handlers(log), Logger: log}
	hs := httptest.NewServer(rpc)
	t.Cleanup(hs.Close)
	t.Cleanup(func() { rpc.Shutdown(context.Background()) })
	return hs
}

// normal writes an answer so that two can be compared: the specification leaves
// the order of a batch and the words of an error open.
func normal(t *testing.T, answer string) string {
	t.Helper()
	is := is.New(t)
	var parts []map[string]any
	one := !strings.HasPrefix(answer, "[")
	if one {
		answer = "[" + answer + "]"
	}
	is.NoErr(json.Unmarshal([]byte(answer), &parts))
	lines := []string{}
	for _, part := range parts {
		if e, ok := part["error"].(map[string]any); ok {
			is.True(e["message"] != "") // but words there must be
			delete(e, "message")
		}
		line, err := json.Marshal(part)
		is.NoErr(err)
		lines = append(lines, string(line))
	}
	slices.Sort(lines)
	text := strings.Join(lines, "\n")
	if !one {
		text = "[" + text + "]"
	}
	return text
}

func TestRun(t *testing.T) {
	is := is.New(t)
	r, w := io.Pipe()
	ctx, interrupt := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, "127.0.0.1:0", slog.New(slog.NewTextHandler(w, nil))) }()
	line, err := bufio.NewReader(r).ReadString('\n')
	is.NoErr(err)
	go io.Copy(io.Discard, r)
	_, url, found := strings.Cut(strings.TrimSpace(line), "url=")
	is.True(found)

	c, err := typedrpc.Dial(t.Context(), url, &typedrpc.DialOptions{Dialect: typedrpc.JSONRPC})
	is.NoErr(err)
	defer c.Close()
	d, err := typedrpc.Call(t.Context(), c, Subtract, Operands{Minuend: 42, Subtrahend: 23})
	is.NoErr(err)
	is.Equal(d, 19.0)

	interrupt()
	is.NoErr(<-ended)
}

func TestRun_portTaken(t *testing.T) {
	is := is.New(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	is.NoErr(err)
	defer taken.Close()
	err = run(t.Context(), taken.Addr().String(), slog.New(slog.DiscardHandler))
	is.True(err != nil)
	is.True(strings.Contains(err.Error(), "-addr")) // says what to do
}

// TestTicks reads the clock with a GET, and goes on with the last id.
func TestTicks(t *testing.T) {
	is := is.New(t)
	srv := &typedrpc.Server{Mux: handlers(slog.New(slog.DiscardHandler))}
	web := httptest.NewServer(srv)
	defer web.Close()
	read := func(last string) string {
		r, err := http.NewRequestWithContext(t.Context(), "GET", web.URL+`?method=ticks&params={"every":1}`, nil)
		is.NoErr(err)
		r.Header.Set("Last-Event-ID", last)
		resp, err := http.DefaultClient.Do(r)
		is.NoErr(err)
		defer resp.Body.Close()
		var lines []string
		for scan := bufio.NewScanner(resp.Body); len(lines) < 4 && scan.Scan(); {
			if line := scan.Text(); strings.HasPrefix(line, "id") || strings.HasPrefix(line, "data") {
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, " ")
	}
	is.Equal(read(""), `id: {"every":1,"from":1} data: 0 id: {"every":1,"from":2} data: 1`)
	is.Equal(read(`{"every":1,"from":2}`), `id: {"every":1,"from":3} data: 2 id: {"every":1,"from":4} data: 3`)
	is.NoErr(srv.Shutdown(t.Context()))
}
