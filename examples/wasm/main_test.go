package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/examples/wasm/api"
)

var quiet = slog.New(slog.DiscardHandler)

func start(t *testing.T) (url string) {
	is := is.New(t)
	compiled := fstest.MapFS{"page.wasm": {Data: []byte("\x00asm\x01\x00\x00\x00")}, "wasm_exec.js": {Data: []byte("// Go's")}}
	rpc, handler, err := routes(compiled, quiet)
	is.NoErr(err)
	hs := httptest.NewServer(handler)
	t.Cleanup(hs.Close)
	t.Cleanup(func() { rpc.Shutdown(context.Background()) })
	return hs.URL
}

// dial connects as the page does.
func dial(t *testing.T, url string) *typedrpc.Conn {
	is := is.New(t)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, api.About, func(context.Context, string) (api.Machine, error) {
		return api.Machine{Go: "go1", OS: "js", Arch: "wasm"}, nil
	})
	c, err := typedrpc.Dial(t.Context(), url+"/rpc", &typedrpc.DialOptions{Mux: mux, Logger: quiet})
	is.NoErr(err)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestFactor(t *testing.T) {
	is := is.New(t)
	c := dial(t, start(t))
	for n, want := range map[int][]int{2: {2}, 5040: {2, 2, 2, 2, 3, 3, 5, 7}, 999_999_999_989: {999_999_999_989}, most: slices.Concat(slices.Repeat([]int{2}, 12), slices.Repeat([]int{5}, 12))} {
		got, err := typedrpc.Call(t.Context(), c, api.Factor, n)
		is.NoErr(err)
		is.Equal(got, want)
	}
	for _, n := range []int{-1, 0, 1, most + 1} {
		_, err := typedrpc.Call(t.Context(), c, api.Factor, n)
		is.True(errors.Is(err, typedrpc.InvalidArgument))
	}
}

func TestMeet(t *testing.T) {
	is := is.New(t)
	url := start(t)
	server, err := typedrpc.Call(t.Context(), dial(t, url), api.Meet, "")
	is.NoErr(err)
	is.True(strings.HasPrefix(server.Go, "go"))

	c, err := typedrpc.Dial(t.Context(), url+"/rpc", &typedrpc.DialOptions{Logger: quiet}) // it cannot be asked
	is.NoErr(err)
	defer c.Close()
	_, err = typedrpc.Call(t.Context(), c, api.Meet, "")
	is.True(errors.Is(err, typedrpc.FailedPrecondition))
}

// A stream goes on over other links.
func TestTicks_linkGivenUp(t *testing.T) {
	is := is.New(t)
	c := dial(t, start(t))
	last := 0
	for n, err := range typedrpc.Receive(t.Context(), c, api.Ticks, 0) {
		is.NoErr(err)
		is.Equal(n, last+1)
		if last = n; n == 10 {
			break
		}
		c.Reconnect()
	}
}

func TestPage(t *testing.T) {
	url := start(t)
	for path, want := range map[string]struct{ contentType, text string }{
		"/":             {"text/html; charset=utf-8", "start.js"},
		"/style.css":    {"text/css; charset=utf-8", "color-scheme"},
		"/page.css":     {"text/css; charset=utf-8", "main"},
		"/start.js":     {"text/javascript; charset=utf-8", "page.wasm"},
		"/wasm_exec.js": {"text/javascript; charset=utf-8", "Go's"},
		"/page.wasm":    {"application/wasm", "asm"}, // else a browser does not compile it while it comes
	} {
		t.Run(path, func(t *testing.T) {
			is := is.New(t)
			resp, err := http.Get(url + path)
			is.NoErr(err)
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			is.NoErr(err)
			is.Equal(resp.StatusCode, http.StatusOK)
			is.Equal(resp.Header.Get("Content-Type"), want.contentType)
			is.Equal(resp.Header.Get("X-Content-Type-Options"), "nosniff")
			is.True(strings.HasPrefix(resp.Header.Get("Content-Security-Policy"), "default-src 'none';"))
			is.True(strings.Contains(string(body), want.text))
		})
	}
	is := is.New(t)
	resp, err := http.Get(url)
	is.NoErr(err)
	resp.Body.Close()
	policy := resp.Header.Get("Content-Security-Policy")
	is.True(strings.Contains(policy, "script-src 'self' 'wasm-unsafe-eval';"))
	is.True(!strings.Contains(policy, "'unsafe-eval'"))
}

// The page's program is compiled in a test of .ci/browser, and run.
func TestCompile_saysWhatIsWrong(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	err := compile(t.Context(), program+"/nowhere", dir)
	is.True(err != nil)
	is.True(strings.Contains(err.Error(), "cannot compile the page's program"))
	is.True(strings.Contains(err.Error(), "nowhere")) // what the compiler says
	is.True(strings.Contains(err.Error(), "a directory in the repository"))
	left, err := os.ReadDir(dir)
	is.NoErr(err)
	is.Equal(len(left), 0)

	t.Setenv("PATH", filepath.Join(dir, "empty"))
	err = compile(t.Context(), program, dir)
	is.True(err != nil)
	is.True(strings.Contains(err.Error(), "needs the go command"))
}

func TestServe_stops(t *testing.T) {
	is := is.New(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	is.NoErr(err)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, ln, fstest.MapFS{}, quiet) }()
	c := dial(t, "http://"+ln.Addr().String())
	for _, err := range typedrpc.Receive(t.Context(), c, api.Ticks, 0) {
		if err != nil {
			is.True(errors.Is(err, typedrpc.Gap)) // it may go on in the next session
			break
		}
		interrupt()
	}
	is.NoErr(<-ended)
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
