// Command dashboard serves a page with live prices and an upload, and a button that cuts
// the page's link. The page counts what arrives, and shows that nothing was lost.
// market.go has the prices, visitor.go what is known of a page, cable.go the scissors;
// this file serves it all.
package main

import (
	"context"
	"embed"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/examples/dashboard/api"
	"github.com/typedrpc/typedrpc/examples/internal/web"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/transfer"
)

//go:embed web
var files embed.FS

// dashboard is a server of one dashboard.
type dashboard struct {
	hub    *topic.Hub
	market *market
	rpc    *typedrpc.Server
	routes http.Handler // the page at / and the procedures at /rpc
}

func newDashboard(log *slog.Logger) (*dashboard, error) {
	hub := new(topic.Hub)
	market := newMarket(hub)
	guests := &visitors{most: 1000, all: map[string]*visitor{}}
	rpc := &typedrpc.Server{Mux: newMux(hub, market), SignIn: api.SignIn.Verify(guests.signIn), Logger: log}
	page, err := fs.Sub(files, "web")
	if err != nil {
		return nil, err
	}
	routes := http.NewServeMux()
	routes.Handle("/rpc", rpc)
	routes.Handle("/", web.Handler(page))
	return &dashboard{hub, market, rpc, routes}, rpc.Check()
}

func newMux(hub *topic.Hub, market *market) *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, api.Ticks, market.follow)
	topic.Handle(mux, hub, api.Trades, func(_ context.Context, a topic.Access) error {
		return open(api.Market(a.Key))
	})
	typedrpc.Handle(mux, api.Pulse, func(ctx context.Context, n int) error {
		visitorFrom(ctx).pulse(n)
		return nil
	})
	typedrpc.Handle(mux, api.Count, func(ctx context.Context, n int) (api.Book, error) {
		book := visitorFrom(ctx).count(n)
		_, book.Trade = market.newest()
		return book, nil
	})
	typedrpc.Handle(mux, api.Cut, func(ctx context.Context, c api.Cutting) (api.Cutting, error) {
		visitorFrom(ctx).cut(c)
		return c, nil
	})
	typedrpc.Handle(mux, api.Put, put)
	return mux
}

const (
	mostBytes = 256 << 20
	// uploadRate is how many bytes a second an upload is read at: there shall be time to
	// cut the link.
	uploadRate = 4 << 20
)

// put reads an upload, and keeps its checksum.
func put(ctx context.Context, _ string, r *transfer.Reader) (api.Receipt, error) {
	if err := r.Begin(&transfer.ReceiveOptions{MaxBytes: mostBytes}); err != nil {
		return api.Receipt{}, err
	}
	n, err := io.Copy(io.Discard, &slow{ctx: ctx, r: r, began: time.Now()})
	if err != nil {
		return api.Receipt{}, err
	}
	return api.Receipt{Bytes: int(n), SHA256: hex.EncodeToString(r.Sum())}, nil
}

// slow reads at uploadRate.
type slow struct {
	ctx   context.Context
	r     io.Reader
	began time.Time
	n     int64
}

func (s *slow) Read(p []byte) (int, error) {
	due := s.began.Add(time.Duration(s.n) * time.Second / uploadRate)
	select {
	case <-time.After(time.Until(due)):
	case <-s.ctx.Done():
		return 0, s.ctx.Err()
	}
	n, err := s.r.Read(p)
	s.n += int64(n)
	return n, err
}

func notFound(m api.Market) error {
	return typedrpc.Errorf(typedrpc.NotFound, "there is no market %q", m)
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "address to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt does not wait for anything
	if err := run(ctx, *addr, slog.Default()); err != nil {
		fmt.Fprintln(os.Stderr, "dashboard:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, addr string, log *slog.Logger) error {
	d, err := newDashboard(log)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("%w (choose another address with -addr)", err)
	}
	web := d.server()
	served := make(chan error, 2)
	trading, stop := context.WithCancel(ctx)
	defer stop()
	go func() { served <- web.Serve(cables{ln}) }()
	go func() { served <- d.market.run(trading) }()
	log.Info("open this page in a browser", "url", "http://"+ln.Addr().String()+"/")

	select {
	case err := <-served: // nil: ctx has ended
		if err != nil {
			return errors.Join(err, web.Close())
		}
	case <-ctx.Done():
	}
	log.Info("shutting down")
	patience, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	// typedrpc first: http.Server knows nothing of upgraded connections. Prices never end,
	// and a browser that keeps a connection in reserve uses up the patience; that is no
	// failure.
	err = errors.Join(d.rpc.Shutdown(patience), d.hub.Close(), web.Shutdown(patience))
	if errors.Is(err, context.DeadlineExceeded) {
		log.Warn("closing what was still open")
		return web.Close()
	}
	return err
}

// server returns what serves the routes. Their requests know which cable they came by.
func (d *dashboard) server() *http.Server {
	return &http.Server{
		Handler:           d.routes,
		ReadHeaderTimeout: 10 * time.Second,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, cableKey{}, c)
		},
	}
}
