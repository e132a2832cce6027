// Command wasm serves a web page whose program is Go, too: compiled to WebAssembly, it calls
// the server with the same declarations that the server handles. Package api has those,
// package page the page's program, and this file the server.
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/examples/internal/web"
	"github.com/typedrpc/typedrpc/examples/wasm/api"
)

//go:embed web
var files embed.FS

// program is the page's program.
const program = "github.com/typedrpc/typedrpc/examples/wasm/page"

// compile puts a package that it builds for the browser into a directory, and beside it
// the script that Go needs there, which must be of the same version as the compiler.
func compile(ctx context.Context, program, dir string) error {
	out := filepath.Join(dir, "page.wasm")
	build := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w", "-o", out, program)
	build.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot compile the page's program: %w\n%s\n"+
			"It is compiled when this program starts, which needs the go command, and a directory in the repository to run in", err, text)
	}
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("cannot find out where Go is: %w", err)
	}
	script := filepath.Join(strings.TrimSpace(string(root)), "lib", "wasm", "wasm_exec.js")
	data, err := os.ReadFile(script)
	if err != nil {
		return fmt.Errorf("this Go has no script for WebAssembly: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, "wasm_exec.js"), data, 0o644)
}

// routes returns the page at / and the procedures at /rpc. compiled has the page's program.
func routes(compiled fs.FS, log *slog.Logger) (*typedrpc.Server, http.Handler, error) {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, api.Factor, factor)
	typedrpc.Handle(mux, api.Ticks, ticks)
	typedrpc.Handle(mux, api.Meet, func(ctx context.Context, _ string) (api.Machine, error) {
		page, err := typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), api.About, "")
		if err != nil {
			return api.Machine{}, typedrpc.Errorf(typedrpc.FailedPrecondition, "cannot ask who is there: %w", err)
		}
		log.Info("met a page", "go", page.Go, "os", page.OS, "arch", page.Arch)
		return api.Machine{Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}, nil
	})
	rpc := &typedrpc.Server{Mux: mux, Logger: log, OnDisconnect: func(_ *typedrpc.Conn, err error) {
		log.Info("a session has ended", "reason", err)
	}}
	page, err := fs.Sub(files, "web")
	if err != nil {
		return nil, nil, err
	}
	routes := http.NewServeMux()
	routes.Handle("/rpc", rpc)
	routes.Handle("/page.wasm", web.Guard(http.FileServerFS(compiled)))
	routes.Handle("/wasm_exec.js", web.Guard(http.FileServerFS(compiled)))
	routes.Handle("/", web.Handler(page, "'wasm-unsafe-eval'"))
	return rpc, routes, rpc.Check()
}

// most is a number whose factors are found in no time.
const most = 1_000_000_000_000

func factor(_ context.Context, n int) ([]int, error) {
	if n < 2 || n > most {
		return nil, typedrpc.Errorf(typedrpc.InvalidArgument, "%d is not between 2 and %d", n, most)
	}
	var all []int
	for p := 2; p*p <= n; p++ {
		for ; n%p == 0; n /= p {
			all = append(all, p)
		}
	}
	if n > 1 {
		all = append(all, n)
	}
	return all, nil
}

// ticks counts until nobody listens.
func ticks(ctx context.Context, after int, send func(int) error) error {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for n := after + 1; ; n++ {
		if err := send(n); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "address to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt does not wait for anything
	if err := run(ctx, *addr, slog.Default()); err != nil {
		fmt.Fprintln(os.Stderr, "wasm:", err)
		os.Exit(1)
	}
}

// run compiles the page's program, and serves until ctx ends.
func run(ctx context.Context, addr string, log *slog.Logger) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("%w (choose another address with -addr)", err)
	}
	dir, err := os.MkdirTemp("", "typedrpc-wasm-")
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	defer os.RemoveAll(dir)
	log.Info("compiling the page's program")
	if err := compile(ctx, program, dir); err != nil {
		return errors.Join(err, ln.Close())
	}
	return serve(ctx, ln, os.DirFS(dir), log)
}

func serve(ctx context.Context, ln net.Listener, compiled fs.FS, log *slog.Logger) error {
	rpc, handler, err := routes(compiled, log)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	web := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- web.Serve(ln) }()
	log.Info("open this page in a browser", "url", "http://"+ln.Addr().String()+"/")

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	log.Info("shutting down")
	patience, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	// typedrpc first: http.Server knows nothing of upgraded connections. A browser that keeps
	// a connection in reserve uses up the patience; that is no failure.
	err = errors.Join(rpc.Shutdown(patience), web.Shutdown(patience))
	if errors.Is(err, context.DeadlineExceeded) {
		log.Warn("closing what was still open")
		return web.Close()
	}
	return err
}
