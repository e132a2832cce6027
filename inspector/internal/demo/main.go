// Command demo serves something to inspect, and the inspector: a shop with procedures of
// each kind, and guests who use it. The inspector's tests run in its page.
package main

import (
	"context"
	"crypto/subtle"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/inspector"
	"github.com/typedrpc/typedrpc/inspector/internal/demo/api"
	"github.com/typedrpc/typedrpc/topic"
)

//go:embed api.json
var schema []byte

// shop takes orders.
type shop struct {
	hub topic.Hub

	mu     sync.Mutex
	orders []api.Receipt
}

func (s *shop) place(_ context.Context, o api.Order) (api.Receipt, error) {
	if len(o.Items) == 0 {
		return api.Receipt{}, typedrpc.Errorf(typedrpc.InvalidArgument, "an order has items")
	}
	total := 0.0
	for _, i := range o.Items {
		total += 2.5 * float64(i.Count)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := api.Receipt{Number: len(s.orders) + 1, Total: total, Order: o}
	s.orders = append(s.orders, r)
	return r, nil
}

func (s *shop) get(_ context.Context, f api.Find) (api.Receipt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Number < 1 || f.Number > len(s.orders) {
		return api.Receipt{}, api.NotThere.Errorf(api.Missing{Last: len(s.orders)}, "there is no order %d", f.Number)
	}
	return s.orders[f.Number-1], nil
}

func ticks(ctx context.Context, p api.Pace, send func(api.Tick) error) error {
	if p.Millis < 10 {
		return typedrpc.Errorf(typedrpc.InvalidArgument, "a clock does not tick every %d ms", p.Millis)
	}
	ticker := time.NewTicker(time.Duration(p.Millis) * time.Millisecond)
	defer ticker.Stop()
	for n := 1; p.Count == 0 || n <= p.Count; n++ {
		select {
		case at := <-ticker.C:
			if err := send(api.Tick{N: n, At: at.UTC()}); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func sum(_ context.Context, _ struct{}, items iter.Seq2[int, error]) (int, error) {
	total := 0
	for n, err := range items {
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

func echo(_ context.Context, _ struct{}, x *typedrpc.Stream[string, string]) error {
	for word, err := range x.All() {
		if err == nil {
			err = x.Send(word)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// server serves the shop to guests who say their names, and to those who say none.
func (s *shop) server() *typedrpc.Server {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, api.Place, s.place)
	typedrpc.Handle(mux, api.Get, s.get)
	typedrpc.Handle(mux, api.Seen, func(context.Context, struct{}) error { return nil })
	typedrpc.Handle(mux, api.Ticks, ticks)
	typedrpc.Handle(mux, api.Sum, sum)
	typedrpc.Handle(mux, api.Echo, echo)
	topic.Handle(mux, &s.hub, api.Talk, topic.Everybody)
	return &typedrpc.Server{Mux: mux, Schema: schema, SignIn: api.SignIn.Verify(func(_ context.Context, _ *http.Request, l *api.Login) (typedrpc.Identity, struct{}, error) {
		if l == nil {
			return typedrpc.Identity{}, struct{}{}, nil
		}
		return typedrpc.Identity{Subject: l.Name}, struct{}{}, nil
	})}
}

// guest uses the shop until ctx ends, or the shop has sent it away.
func (s *shop) guest(ctx context.Context, url, name string, dialect typedrpc.Dialect) error {
	conn, err := typedrpc.Dial(ctx, url, &typedrpc.DialOptions{
		Dialect: dialect, Logger: slog.New(slog.DiscardHandler),
		SignIn: api.SignIn.Present(func(context.Context) (api.Login, error) { return api.Login{Name: name}, nil }),
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	var all sync.WaitGroup
	all.Go(func() {
		for range topic.Subscribe(conn.Context(), conn, api.Talk, "lobby") {
		}
	})
	all.Go(func() {
		for range typedrpc.Receive(conn.Context(), conn, api.Ticks, api.Pace{Millis: 700}) {
		}
	})
	ticker := time.NewTicker(300 * time.Millisecond)
	defer ticker.Stop()
	for n := 1; ; n++ {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			conn.Close()
			all.Wait()
			return nil
		case <-conn.Context().Done():
			all.Wait()
			return nil
		}
		switch n % 4 {
		case 0:
			_, err = typedrpc.Call(ctx, conn, api.Place, api.Order{Table: n % 9, Items: []api.Item{{Article: "coffee", Size: api.Small, Count: 1 + n%3}}})
		case 1:
			_, err = typedrpc.Call(ctx, conn, api.Get, api.Find{Number: n})
		case 2:
			err = typedrpc.Notify(ctx, conn, api.Seen, struct{}{})
		case 3:
			err = topic.Publish(ctx, &s.hub, api.Talk, "lobby", api.Line{From: name, Text: fmt.Sprint("hello ", n)})
		}
		if _, missing := api.NotThere.From(err); err != nil && !missing {
			slog.Debug("a guest is disappointed", "error", err)
		}
	}
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "address to listen on")
	guests := flag.Int("guests", 6, "who use the shop")
	secret := flag.String("secret", "", "that the inspector asks for; none: it lets in who is on this machine")
	payloads := flag.Bool("payloads", false, "show payloads of frames")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *addr, *guests, *secret, *payloads); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// knows lets in who knows a secret. It may look, and try methods.
func knows(secret string) func(context.Context, *http.Request, string) (inspector.Visitor, error) {
	return func(_ context.Context, _ *http.Request, said string) (inspector.Visitor, error) {
		if subtle.ConstantTimeCompare([]byte(said), []byte(secret)) != 1 {
			return inspector.Visitor{}, typedrpc.Errorf(typedrpc.Unauthenticated, "that is not the secret")
		}
		return inspector.Visitor{Name: "who knows the secret", Rights: inspector.Look | inspector.Call}, nil
	}
}

func run(ctx context.Context, addr string, guests int, secret string, payloads bool) error {
	s := new(shop)
	rpc := s.server()
	look := &inspector.Handler{Server: rpc, Hubs: []*topic.Hub{&s.hub}, Authorize: inspector.Loopback, Payloads: payloads}
	if secret != "" {
		look.Authorize = knows(secret)
	}
	if err := errors.Join(rpc.Check(), look.Check()); err != nil {
		return err
	}
	routes := http.NewServeMux()
	routes.Handle("/rpc", rpc)
	routes.Handle("/inspect/", look)
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	web := &http.Server{Handler: routes, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- web.Serve(ln) }()
	slog.Info("open this page in a browser", "url", "http://"+ln.Addr().String()+"/inspect/")
	visits, leave := context.WithCancel(ctx)
	defer leave()
	var all sync.WaitGroup
	names := []string{"ada", "ben", "cleo", "dan", "eve", "finn"}
	for i := range guests {
		dialect := typedrpc.Binary
		if i%3 == 2 {
			dialect = typedrpc.Text
		}
		all.Go(func() {
			if err := s.guest(visits, "http://"+ln.Addr().String()+"/rpc", names[i%len(names)], dialect); err != nil && ctx.Err() == nil {
				slog.Warn("a guest could not come", "error", err)
			}
		})
	}
	select {
	case err = <-served:
	case <-ctx.Done():
	}
	leave()
	all.Wait()
	patience, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	err = errors.Join(err, look.Shutdown(patience), rpc.Shutdown(patience), s.hub.Close(), web.Shutdown(patience))
	if errors.Is(err, context.DeadlineExceeded) {
		return web.Close()
	}
	return err
}
