// Command calculator serves a web page whose buttons call Go functions, and
// which the Go functions can call back. api/api.go says what can be called.
package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/examples/calculator/api"
	"github.com/typedrpc/typedrpc/examples/internal/web"
)

func multiply(ctx context.Context, f api.Factors) (float64, error) {
	if math.Abs(f.A) > 1e6 {
		question := fmt.Sprintf("%s is a large number. Multiply it by %s all the same?", text(f.A), text(f.B))
		ok, err := typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), api.PageConfirm, question)
		if err != nil {
			// Not returned as it is: a caller without page.confirm would read
			// "no such method", and believe that it is this one.
			return 0, typedrpc.Errorf(typedrpc.FailedPrecondition, "cannot ask whether to multiply %s: %w", text(f.A), err)
		}
		if !ok {
			return 0, typedrpc.Errorf(typedrpc.Aborted, "not multiplied, since you said no")
		}
	}
	product := f.A * f.B
	if math.IsInf(product, 0) { // JSON has no infinity
		return 0, typedrpc.Errorf(typedrpc.OutOfRange, "%s times %s is more than a float64 can hold", text(f.A), text(f.B))
	}
	return product, nil
}

func squareRoot(_ context.Context, x float64) (float64, error) {
	if x < 0 {
		return 0, typedrpc.Errorf(typedrpc.InvalidArgument, "%s is negative: it has no real square root", text(x))
	}
	return math.Sqrt(x), nil
}

// text writes a number as the page does, 2000000 where Go would say 2e+06.
func text(x float64) string {
	b, _ := json.Marshal(x)
	return string(b)
}

// logged is an interceptor: code around every call, whatever its types.
func logged(log *slog.Logger, msg string) typedrpc.Interceptor {
	return func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		began := time.Now()
		result, err := next(ctx, r)
		attrs := []slog.Attr{slog.String("method", r.Method), slog.String("params", string(r.Payload)), slog.Duration("took", time.Since(began))}
		if err != nil {
			log.LogAttrs(ctx, slog.LevelWarn, msg, append(attrs, slog.Any("error", err))...)
		} else {
			log.LogAttrs(ctx, slog.LevelInfo, msg, append(attrs, slog.String("result", string(result)))...)
		}
		return result, err
	}
}

//go:embed web
var files embed.FS

// routes returns the page at / and the procedures at /rpc.
func routes(log *slog.Logger) (*typedrpc.Server, http.Handler, error) {
	mux := typedrpc.NewMux(logged(log, "call from the page"))
	typedrpc.Handle(mux, api.Multiply, multiply)
	typedrpc.Handle(mux, api.SquareRoot, squareRoot)
	everybody := func(context.Context) error { return nil } // may know what there is: it is a demonstration
	rpc := &typedrpc.Server{Mux: mux, Schema: api.Schema, Describe: everybody, OutgoingInterceptors: []typedrpc.Interceptor{logged(log, "call to the page")}, Logger: log}

	page, err := fs.Sub(files, "web")
	if err != nil {
		return nil, nil, err
	}
	routes := http.NewServeMux()
	routes.Handle("/rpc", rpc)
	routes.Handle("/", web.Handler(page))
	return rpc, routes, rpc.Check()
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "address to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt does not wait for anything
	if err := run(ctx, *addr, slog.Default()); err != nil {
		fmt.Fprintln(os.Stderr, "calculator:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, addr string, log *slog.Logger) error {
	rpc, handler, err := routes(log)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("%w (choose another address with -addr)", err)
	}
	pages := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- pages.Serve(ln) }()
	log.Info("open this page in a browser", "url", "http://"+ln.Addr().String()+"/")

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	log.Info("shutting down")
	patience, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	// typedrpc first: http.Server knows nothing of upgraded connections. An
	// unanswered question, or a browser that keeps a connection in reserve,
	// uses up the patience; that is no failure.
	err = errors.Join(rpc.Shutdown(patience), pages.Shutdown(patience))
	if errors.Is(err, context.DeadlineExceeded) {
		log.Warn("closing what was still open")
		return pages.Close()
	}
	return err
}
