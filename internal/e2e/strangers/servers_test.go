package strangers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
)

// caller is a connection to a foreign server, and what that has said.
type caller struct {
	*typedrpc.Conn
	log    *output
	heard  chan string
	states chan typedrpc.StateChange
}

// reversal takes its text by name and by position.
type reversal struct{ Text string }

// call dials a foreign server.
func callForeign(t *testing.T, url string, compress bool) *caller {
	t.Helper()
	c := &caller{log: new(output), heard: make(chan string, 1000), states: make(chan typedrpc.StateChange, 100)}
	m := typedrpc.NewMux()
	typedrpc.Handle(m, typedrpc.NewMethod[reversal, string]("reverse", typedrpc.Params("text")), func(_ context.Context, r reversal) (string, error) {
		b := []byte(r.Text)
		slices.Reverse(b)
		return string(b), nil
	})
	typedrpc.Handle(m, typedrpc.NewMethod[string, string]("broken"), func(context.Context, string) (string, error) {
		return "", &typedrpc.Error{Code: typedrpc.Aborted, Number: 3, Message: "execution reverted", Data: typedrpc.Raw(`{"why":"no"}`)}
	})
	m.HandleFallback(func(_ context.Context, r *typedrpc.Request) (typedrpc.Raw, error) {
		c.heard <- r.Method + string(r.Payload)
		return nil, nil
	})
	var err error
	c.Conn, err = typedrpc.Dial(t.Context(), url, &typedrpc.DialOptions{
		Dialect: typedrpc.JSONRPC, Mux: m, Limits: patient, Compress: compress, Logger: slog.New(slog.NewTextHandler(c.log, nil)),
		OnState: func(s typedrpc.StateChange) { c.states <- s },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if t.Failed() {
			t.Logf("the client's log:\n%s", c.log)
		}
	})
	return c
}

// call calls a method by its name.
func call[Resp, Req any](t *testing.T, c *caller, name string, req Req) (Resp, error) {
	t.Helper()
	return typedrpc.Call(t.Context(), c, typedrpc.NewMethod[Req, Resp](name), req)
}

// lost waits for the end of a link, and is its reason.
func (c *caller) lost() error {
	for s := range c.states {
		if s.State == typedrpc.StateWaiting {
			return s.Err
		}
	}
	return nil
}

// serveScript runs a foreign server, and is its URL.
func serveScript(t *testing.T, needs, name string, args ...string) string {
	t.Helper()
	cmd := script(t, needs, name, append([]string{"serve"}, args...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	said := new(output)
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	port, err := r.ReadString('\n')
	read := make(chan struct{})
	go func() {
		defer close(read)
		io.Copy(said, r)
	}()
	t.Cleanup(func() {
		in.Close()
		<-read
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s says:\n%s", name, said)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return "ws://127.0.0.1:" + strings.TrimSpace(port) + "/"
}

// TestForeignServers calls servers of other libraries.
func TestForeignServers(t *testing.T) {
	for _, tt := range []struct {
		name, needs, script string
		args                []string
		run                 func(t *testing.T, c *caller)
	}{
		{"jayson", "jayson", "jayson.mjs", []string{"2"}, toJayson},
		{"jayson, version 1", "jayson", "jayson.mjs", []string{"1"}, toJayson},
		{"rpc-websockets", "rpc-websockets", "rpc-websockets.mjs", nil, toRPCWebsockets},
		{"ws", "ws", "ws.mjs", nil, toWS},
		{"vscode-jsonrpc", "vscode-ws-jsonrpc", "vscode-serve.mjs", nil, toLanguageServer},
		{"websockets", "websockets", "websockets_peer.py", nil, toWebsockets},
		{"aiohttp", "aiohttp", "aiohttp_peer.py", nil, toAiohttp},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.run(t, callForeign(t, serveScript(t, tt.needs, tt.script, tt.args...), false))
		})
	}
}

// refusals has a server refuse calls with numbers of all kinds, and checks what
// becomes of them.
func refusals(t *testing.T, c *caller, data string) {
	t.Helper()
	for number, code := range map[int64]typedrpc.Code{
		1: typedrpc.Unknown, 3: 3, 4: typedrpc.Unknown, 14: typedrpc.Unknown, -32000: -32000,
		-32602: typedrpc.InvalidArgument, -32601: typedrpc.Unimplemented, -32603: typedrpc.Internal,
	} {
		is := is.New(t)
		_, err := call[string](t, c, "fail", number)
		var e *typedrpc.Error
		is.True(errors.As(err, &e))
		is.Equal(e.Number, number)
		is.Equal(e.Code, code)
		is.Equal(e.Message, "refused")
		is.Equal(string(e.Data), data)
		is.Equal(e.Outcome, typedrpc.Answered)
		is.True(!errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded))
	}
}

// basics are calls by position and by name.
func basics(t *testing.T, c *caller) {
	t.Helper()
	is := is.New(t)
	got, err := call[string](t, c, "shout", "hello")
	is.NoErr(err)
	is.Equal(got, "HELLO")
	n, err := call[int](t, c, "subtract", map[string]int{"minuend": 42, "subtrahend": 23})
	is.NoErr(err)
	is.Equal(n, 19)
}

func toJayson(t *testing.T, c *caller) {
	is := is.New(t)
	n, err := call[int](t, c, "subtract", []int{42, 23})
	is.NoErr(err)
	is.Equal(n, 19)
	if !strings.Contains(t.Name(), "version_1") {
		basics(t, c)
	}
	refusals(t, c, `{"why":"because"}`)
	_, err = call[string](t, c, "missing", []int{})
	is.Equal(typedrpc.CodeOf(err), typedrpc.Unimplemented)
	_, err = call[struct{}](t, c, "nothing", []int{})
	is.NoErr(err)
}

func toRPCWebsockets(t *testing.T, c *caller) {
	is := is.New(t)
	basics(t, c)
	refusals(t, c, `{"why":"because"}`)
	_, err := call[string](t, c, "throw", struct{}{})
	is.Equal(told(err), `code -32000: TypeError, number -32000, data "no such thing", answered`)
	_, err = call[string](t, c, "account", struct{}{})
	is.Equal(told(err), "code -32605: Method forbidden, number -32605, data , answered")
	ok, err := typedrpc.Call(t.Context(), c, login, map[string]string{"user": "ada"})
	is.NoErr(err)
	is.True(ok)
	secret, err := call[string](t, c, "account", struct{}{})
	is.NoErr(err)
	is.Equal(secret, "secret")

	// Its events have another envelope than notifications.
	answer, err := typedrpc.Call(t.Context(), c, listen, []string{"ticks", "noted", "names", "other"})
	is.NoErr(err)
	is.Equal(fmt.Sprint(answer), "map[names:ok noted:ok other:provided event invalid ticks:ok]")
	is.NoErr(typedrpc.Notify(t.Context(), c, note, 7))
	is.Equal(<-c.heard, `noted[7]`)
	n, err := call[int](t, c, "tick", 3000) // more than a flood may have
	is.NoErr(err)
	is.Equal(n, 3000)
	for i := range 3000 {
		is.Equal(<-c.heard, fmt.Sprintf(`ticks[%d,"tick"]`, i))
	}
	_, err = call[bool](t, c, "name", map[string]string{"name": "ada"})
	is.NoErr(err)
	is.Equal(<-c.heard, `names{"name":"ada"}`)
	_, err = typedrpc.Call(t.Context(), c, unlisten, []string{"names"})
	is.NoErr(err)
	is.Equal(c.log.String(), "")

	is.NoErr(typedrpc.Notify(t.Context(), c, typedrpc.NewNotification[struct{}]("drop"), struct{}{}))
	var ce *typedrpc.CloseError
	is.True(errors.As(c.lost(), &ce))
	is.Equal(*ce, typedrpc.CloseError{Code: 1012, Reason: "back soon"})
	basics(t, c)
}

func toWS(t *testing.T, c *caller) {
	is := is.New(t)
	for range 3 {
		got, err := call[string](t, c, "shout", "binary, and without jsonrpc")
		is.NoErr(err)
		is.Equal(got, "BINARY, AND WITHOUT JSONRPC")
		got, err = call[string](t, c, "text", "the id is a string")
		is.NoErr(err)
		is.Equal(got, "the id is a string")
	}
	refusals(t, c, "")
	_, err := call[string](t, c, "string", struct{}{})
	is.Equal(told(err), `internal: just a string (the peer's answer is malformed: its error is no object), number 0, data , answered`)
	_, err = call[string](t, c, "undefined", struct{}{})
	is.Equal(told(err), `internal: the peer's answer cannot be read: it has neither a result nor an error, number 0, data , answered`)
	is.NoErr(typedrpc.Notify(t.Context(), c, typedrpc.NewNotification[struct{}]("ping"), struct{}{}))
	is.Equal(<-c.heard, "pushed[7]")
	departures(t, c)
	bye, err := call[string](t, c, "bye", struct{}{})
	is.NoErr(err)
	is.Equal(bye, "bye")
	for i := range 100 {
		is.Equal(<-c.heard, fmt.Sprintf("pushed[%d]", i))
	}
	_, err = call[string](t, c, "terminate", struct{}{})
	is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable)
	is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
	_, err = call[string](t, c, "shout", "again")
	is.NoErr(err)
}

// departures has a server send a hundred notifications, and close.
func departures(t *testing.T, c *caller) {
	t.Helper()
	for _, code := range []int{1000, 1001, 4000} {
		is := is.New(t)
		is.NoErr(typedrpc.Notify(t.Context(), c, typedrpc.NewNotification[[]int]("leave"), []int{100, code}))
		for i := range 100 {
			is.Equal(<-c.heard, fmt.Sprintf("pushed[%d]", i))
		}
		var ce *typedrpc.CloseError
		is.True(errors.As(c.lost(), &ce))
		is.Equal(*ce, typedrpc.CloseError{Code: code, Reason: "done"})
	}
}

func toLanguageServer(t *testing.T, c *caller) {
	is := is.New(t)
	basics(t, c)
	refusals(t, c, `{"why":"because"}`)
	_, err := call[struct{}](t, c, "shutdown", struct{}{}) // without params, as the protocol wants it
	is.NoErr(err)
	_, err = call[struct{}](t, c, "work", "a token")
	is.NoErr(err)
	is.Equal(<-c.heard, `$/progress{"token":"a token","value":{"kind":"begin"}}`)
	is.Equal(<-c.heard, `$/progress{"token":"a token","value":{"kind":"end"}}`)
	got, err := call[string](t, c, "ask", struct{}{})
	is.NoErr(err)
	is.Equal(got, "cba")
	got, err = call[string](t, c, "askBroken", struct{}{})
	is.NoErr(err)
	is.Equal(got, `3 execution reverted {"why":"no"}`)
	is.NoErr(typedrpc.Notify(t.Context(), c, note, 7))
	is.Equal(<-c.heard, "pushed[8]")

	ctx, cancel := context.WithCancel(t.Context())
	slowly := typedrpc.Go(ctx, c, slow, struct{}{})
	is.Equal(<-c.heard, "begun")
	cancel()
	is.Equal(<-c.heard, "wasCancelled")
	_, err = slowly.Await(t.Context())
	is.True(errors.Is(err, context.Canceled))
	is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
	basics(t, c)
	is.Equal(c.log.String(), "")

	is.NoErr(typedrpc.Notify(t.Context(), c, typedrpc.NewNotification[struct{}]("exit"), struct{}{}))
	for i := range 100 {
		is.Equal(<-c.heard, fmt.Sprintf("pushed[%d]", i))
	}
}

func toWebsockets(t *testing.T, c *caller) {
	is := is.New(t)
	for _, kind := range []string{"str", "bytes", "bytes"} { // as the peer used last
		got, err := call[string](t, c, "kind", struct{}{})
		is.NoErr(err)
		is.Equal(got, kind)
	}
	refusals(t, c, "")
	is.NoErr(typedrpc.Notify(t.Context(), c, note, 7))
	is.Equal(<-c.heard, "pushed[7]")
	got, err := call[string](t, c, "ping", struct{}{})
	is.NoErr(err)
	is.Equal(got, "pong")
	got, err = call[string](t, c, "batch", struct{}{})
	is.NoErr(err)
	is.Equal(got, `[{"jsonrpc":"2.0","id":1,"result":"cba"},{"jsonrpc":"2.0","id":"b","error":{"code":3,"message":"execution reverted","data":{"why":"no"}}}]`)
	is.Equal(<-c.heard, "note[1]")
	departures(t, c)
	is.Equal(c.log.String(), "")
}

func toAiohttp(t *testing.T, c *caller) {
	is := is.New(t)
	refusals(t, c, "")
	got, err := call[map[string]any](t, c, "ask", struct{}{})
	is.NoErr(err)
	is.Equal(got["result"], "cba")
	is.Equal(got["id"], "q")
	departures(t, c)
	shouted, err := call[string](t, c, "shout", "again")
	is.NoErr(err)
	is.Equal(shouted, "AGAIN")
	is.Equal(c.log.String(), "")
}

// TestForeignServers_compressed has the same text cross again and again, so that a
// context that one side keeps and the other does not would be found out.
func TestForeignServers_compressed(t *testing.T) {
	for needs, name := range map[string]string{"ws": "ws.mjs", "websockets": "websockets_peer.py", "aiohttp": "aiohttp_peer.py"} {
		t.Run(needs, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			c := callForeign(t, serveScript(t, needs, name), true)
			for range 20 {
				got, err := call[string](t, c, "shout", strings.Repeat("the same words ", 200))
				is.NoErr(err)
				is.Equal(got, strings.Repeat("THE SAME WORDS ", 200))
			}
			is.NoErr(c.Close())
			n := 0
			for s := range c.states { // it was never lost
				if n++; s.State == typedrpc.StateClosed {
					break
				}
			}
			is.Equal(n, 3)
		})
	}
}

// TestAria2 drives a download manager by its JSON-RPC over a WebSocket.
func TestAria2(t *testing.T) {
	is := is.New(t)
	path := program(t, "aria2c")
	file := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "what was asked for") }))
	defer file.Close()
	dir, port := t.TempDir(), freePort(t)
	_, said, _ := start(t, path, "--no-conf", "--enable-rpc", "--rpc-listen-port="+port, "--rpc-secret=s3cret", "--dir="+dir, "--disable-ipv6", "--check-certificate=false")
	listening(t, port, said)
	c := callForeign(t, "ws://127.0.0.1:"+port+"/jsonrpc", false)

	version, err := call[map[string]any](t, c, "aria2.getVersion", []string{"token:s3cret"})
	is.NoErr(err)
	is.True(version["version"] != "")
	methods, err := call[[]string](t, c, "system.listMethods", struct{}{})
	is.NoErr(err)
	is.True(slices.Contains(methods, "aria2.addUri"))

	// Every error has the code 1, which is Canceled's here.
	_, err = call[string](t, c, "aria2.getVersion", []string{"token:wrong"})
	is.Equal(told(err), "unknown: Unauthorized, number 1, data , answered")
	is.True(!errors.Is(err, context.Canceled))
	_, err = call[string](t, c, "aria2.tellStatus", []string{"token:s3cret", "0123456789abcdef"})
	is.True(strings.HasSuffix(told(err), "number 1, data , answered"))
	_, err = call[string](t, c, "aria2.nothing", []string{"token:s3cret"})
	is.True(err != nil && !errors.Is(err, context.Canceled))
	_, err = call[string](t, c, "aria2.addUri", map[string]string{"by": "name"})
	is.Equal(typedrpc.CodeOf(err), typedrpc.InvalidArgument)

	gid, err := call[string](t, c, "aria2.addUri", []any{"token:s3cret", []string{file.URL + "/file"}})
	is.NoErr(err)
	is.Equal(<-c.heard, `aria2.onDownloadStart[{"gid":"`+gid+`"}]`)
	is.Equal(<-c.heard, `aria2.onDownloadComplete[{"gid":"`+gid+`"}]`)
	got, err := os.ReadFile(filepath.Join(dir, "file"))
	is.NoErr(err)
	is.Equal(string(got), "what was asked for")

	many, err := call[[]any](t, c, "system.multicall", []any{[]any{
		map[string]any{"methodName": "aria2.tellStatus", "params": []any{"token:s3cret", gid, []string{"status"}}},
		map[string]any{"methodName": "aria2.getVersion", "params": []any{"token:wrong"}},
	}})
	is.NoErr(err)
	is.Equal(fmt.Sprint(many), "[[map[status:complete]] map[code:1 message:Unauthorized]]")
	if log := c.log.String(); log != "" {
		t.Error(log)
	}
}
