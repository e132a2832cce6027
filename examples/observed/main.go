// Observed is a server that can be watched while it works: metrics at /metrics, traces on
// standard output, an inspector at /inspect/, and discovery for whoever asks from this
// machine. Clients of its own give it something to do.
//
//	go run .
//
// observe.go has what makes it visible, serve.go what it serves, visit.go its clients.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	o := options{traces: os.Stdout, log: slog.Default()}
	addr := flag.String("addr", "127.0.0.1:8090", "`address` to listen on")
	flag.IntVar(&o.visitors, "visitors", 3, "`number` of clients in this process, which call now and then")
	quiet := flag.Bool("quiet", false, "no traces")
	flag.Parse()
	if *quiet {
		o.traces = io.Discard
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt does not wait for anything
	if err := run(ctx, *addr, o); err != nil {
		fmt.Fprintln(os.Stderr, "observed:", err)
		os.Exit(1)
	}
}

type options struct {
	visitors int
	traces   io.Writer
	log      *slog.Logger
}

// run serves until ctx ends.
func run(ctx context.Context, addr string, o options) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	addr = ln.Addr().String()
	s, err := newSite(o)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	hs := &http.Server{Handler: s.routes, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- hs.Serve(ln) }()
	fmt.Fprintf(os.Stderr, "inspector  http://%s/inspect/\nmetrics    http://%[1]s/metrics\ncalls      ws://%[1]s/rpc\n", addr)
	visits := visitAll(ctx, "ws://"+addr+"/rpc", s.tel, o)
	select {
	case err = <-served:
		return err
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	visits.Wait()
	return errors.Join(s.inspector.Shutdown(last), s.rpc.Shutdown(last), hs.Shutdown(last), s.close(last))
}
