package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/typedrpc/typedrpc"
)

// shop is the server: an ordinary http.Server with a typedrpc.Server as its
// handler.
type shop struct {
	addr string
	rpc  *typedrpc.Server
	http *http.Server
	done chan error
}

// open starts a shop.
func open(addr string, mux *typedrpc.Mux) (*shop, error) {
	// Clients of a server that shuts down come back within ReconnectSpread. Its
	// default spreads thousands of them over two seconds; here is only one.
	rpc := &typedrpc.Server{Mux: mux, ReconnectSpread: 200 * time.Millisecond}
	if err := rpc.Check(); err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%w (choose another address with -addr)", err)
	}
	routes := http.NewServeMux()
	routes.Handle("/rpc", rpc)
	s := &shop{
		addr: ln.Addr().String(),
		rpc:  rpc,
		http: &http.Server{Handler: routes, ReadHeaderTimeout: 10 * time.Second},
		done: make(chan error, 1),
	}
	go func() {
		s.done <- s.http.Serve(ln)
		close(s.done)
	}()
	return s, nil
}

// close lets calls in flight finish. The order matters: http.Server knows
// nothing of the connections that became WebSockets.
func (s *shop) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := errors.Join(s.rpc.Shutdown(ctx), s.http.Shutdown(ctx))
	if failed := <-s.done; !errors.Is(failed, http.ErrServerClosed) {
		err = errors.Join(err, failed)
	}
	return err
}

// shelves registers the handlers: plain functions with typed arguments.
func shelves(out *log.Logger, viewed, stopped chan<- struct{}) *typedrpc.Mux {
	prices := map[string]int{"apples": 120, "pears": 150, "plums": 90}
	const stock = 10
	mux := typedrpc.NewMux()

	price := func(_ context.Context, item string) (int, error) {
		cents, ok := prices[item]
		if !ok {
			return 0, typedrpc.Errorf(typedrpc.NotFound, "we do not sell %s", item)
		}
		return cents, nil
	}
	typedrpc.Handle(mux, Price, price)

	typedrpc.Handle(mux, Buy, func(ctx context.Context, o Order) (int, error) {
		if o.Count > stock {
			return 0, OutOfStock.Errorf(Shortage{Left: stock}, "not enough in stock")
		}
		cents, err := price(ctx, o.Item)
		if err != nil {
			return 0, err
		}
		total := o.Count * cents
		// The connection that brought the call also carries calls back.
		question := fmt.Sprintf("%d %s for %d cents?", o.Count, o.Item, total)
		yes, err := typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), Confirm, question)
		if err != nil {
			return 0, err
		}
		if !yes {
			return 0, typedrpc.Errorf(typedrpc.Aborted, "the customer said no")
		}
		out.Print("   server: the customer said yes")
		return total, nil
	})

	typedrpc.Handle(mux, Count, func(ctx context.Context, _ struct{}) (int, error) {
		select {
		case <-time.After(time.Hour): // the work
			return len(prices) * stock, nil
		case <-ctx.Done(): // the caller gave up, or is gone
			out.Print("   server: nobody waits for the count any more, so I stop")
			stopped <- struct{}{}
			return 0, ctx.Err()
		}
	})

	typedrpc.Handle(mux, Viewed, func(_ context.Context, item string) error {
		out.Printf("   server: a customer looks at %s", item)
		viewed <- struct{}{}
		return nil
	})
	return mux
}
