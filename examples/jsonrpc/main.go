// Command jsonrpc serves the methods that the JSON-RPC 2.0 specification uses
// in its examples, to any JSON-RPC client, over HTTP POST, GET and WebSocket, and a clock
// to subscribe to.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/typedrpc/typedrpc"
)

// Operands are the params of subtract.
type Operands struct {
	Minuend    float64 `json:"minuend"`
	Subtrahend float64 `json:"subtrahend"`
}

// Clock are the params of ticks.
type Clock struct {
	Every int `json:"every"` // milliseconds, 0: a second's
	From  int `json:"from"`  // the first number
}

// Validate is asked before the handler.
func (c Clock) Validate() error {
	if c.Every < 0 || c.Every > 60_000 {
		return errors.New("every is from 0 to 60,000 milliseconds")
	}
	return nil
}

var (
	// Subtract may be called with named params, or with positional ones in
	// the order that Params gives.
	// It has no side effects, so a GET may ask for it.
	Subtract = typedrpc.NewMethod[Operands, float64]("subtract", typedrpc.Params("minuend", "subtrahend"), typedrpc.Safe)
	Sum      = typedrpc.NewMethod[[]float64, float64]("sum")
	// GetData answers values of several types, as JSON can and Go would not.
	GetData = typedrpc.NewMethod[struct{}, []any]("get_data")

	// Ticks counts. Who comes back goes on behind the last one that it had.
	Ticks = typedrpc.NewServerStream[Clock, int]("ticks", typedrpc.Safe).Restartable(func(c Clock, last *int) Clock {
		if last != nil {
			c.From = *last + 1
		}
		return c
	})

	Update      = typedrpc.NewNotification[[]float64]("update")
	NotifyHello = typedrpc.NewNotification[[]float64]("notify_hello")
	NotifySum   = typedrpc.NewNotification[[]float64]("notify_sum")
)

func handlers(log *slog.Logger) *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Subtract, func(_ context.Context, o Operands) (float64, error) {
		return o.Minuend - o.Subtrahend, nil
	})
	typedrpc.Handle(mux, Sum, func(_ context.Context, terms []float64) (total float64, _ error) {
		for _, term := range terms {
			total += term
		}
		return total, nil
	})
	typedrpc.Handle(mux, GetData, func(context.Context, struct{}) ([]any, error) {
		return []any{"hello", 5}, nil
	})
	typedrpc.Handle(mux, Ticks, func(ctx context.Context, c Clock, send func(int) error) error {
		ticker := time.NewTicker(time.Duration(cmp.Or(c.Every, 1000)) * time.Millisecond)
		defer ticker.Stop()
		for n := c.From; ; n++ {
			if err := send(n); err != nil {
				return err
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	// A notification is not answered, so the log is where it can be seen.
	for _, n := range []typedrpc.Notification[[]float64]{Update, NotifyHello, NotifySum} {
		typedrpc.Handle(mux, n, func(_ context.Context, params []float64) error {
			log.Info("notification", "method", n.Name(), "params", params)
			return nil
		})
	}
	return mux
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "address to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt does not wait for anything
	if err := run(ctx, *addr, slog.Default()); err != nil {
		fmt.Fprintln(os.Stderr, "jsonrpc:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, addr string, log *slog.Logger) error {
	rpc := &typedrpc.Server{Mux: handlers(log), Logger: log}
	if err := rpc.Check(); err != nil {
		return err
	}
	routes := http.NewServeMux()
	routes.Handle("/rpc", rpc)
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("%w (choose another address with -addr)", err)
	}
	web := &http.Server{Handler: routes, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- web.Serve(ln) }()
	log.Info("serving JSON-RPC 2.0 by POST and WebSocket", "url", "http://"+ln.Addr().String()+"/rpc")

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	log.Info("shutting down")
	patience, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	// typedrpc first: http.Server knows nothing of upgraded connections.
	return errors.Join(rpc.Shutdown(patience), web.Shutdown(patience))
}
