package strangers

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
)

// node is a JavaScript with a WebSocket, and the arguments that it needs.
func node(t *testing.T) []string {
	t.Helper()
	path := program(t, "node")
	for _, args := range [][]string{{path}, {path, "--experimental-websocket"}} { // Node 20 asks for it
		if out, err := exec.Command(args[0], append(args[1:], "-e", "process.stdout.write(typeof WebSocket)")...).Output(); err == nil && string(out) == "function" {
			return args
		}
	}
	if os.Getenv("TYPEDRPC_STRANGERS") != "" {
		t.Fatal("this Node has no WebSocket")
	}
	t.Skip("this Node has no WebSocket")
	return nil
}

// A client in WebAssembly, with the WebSocket of browsers: it closes as they let it.
func TestBrowser(t *testing.T) {
	is := is.New(t)
	js := node(t)
	prog := filepath.Join(t.TempDir(), "client.wasm")
	build := exec.Command("go", "build", "-o", prog, "./testdata/browser")
	build.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	ends := make(chan error, 10)
	offers := make(chan string, 10)
	b := newBackend(t)
	typedrpc.Handle(b.srv.Mux, typedrpc.NewMethod[int, int]("leave"), func(ctx context.Context, n int) (int, error) {
		go typedrpc.ConnFrom(ctx).Close()
		<-ctx.Done()
		return n, ctx.Err()
	})
	b.srv.OnDisconnect = func(_ *typedrpc.Conn, err error) { ends <- err }
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		offers <- r.Header.Get("Sec-WebSocket-Protocol")
		b.srv.ServeHTTP(w, r)
	}))
	defer hs.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and says nothing
	is.NoErr(err)
	defer silent.Close()
	go func() { // the stream is held up in its middle
		<-b.paused
		b.resume <- struct{}{}
	}()

	root, err := exec.Command("go", "env", "GOROOT").Output()
	is.NoErr(err)
	args := append(js, filepath.Join(strings.TrimSpace(string(root)), "lib/wasm/wasm_exec_node.js"), prog, strings.Replace(hs.URL, "http", "ws", 1), "ws://"+silent.Addr().String()+"/?token=s3cret")
	client := exec.Command(args[0], args[1:]...)
	client.Env = []string{"PATH=" + os.Getenv("PATH")} // of all that there is room for little
	out, err := client.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	is.Equal(string(out), `answered 1
answered 200000
received 1000
resumed true
left: unavailable
closed 1000 closed
refused true false
refused true false
refused true false
`)
	is.True(strings.HasSuffix(strings.ReplaceAll(<-offers, " ", ""), ",token.abc")) // a browser can send that much
	<-ends                                                                          // this side closed the first connection …
	var ce *typedrpc.CloseError
	is.True(errors.As(<-ends, &ce)) // … and the client the second
	is.Equal(*ce, typedrpc.CloseError{Code: 1000, Reason: "closed"})
	is.Equal(len(ends), 0)
}
