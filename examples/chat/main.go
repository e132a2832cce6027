// Command chat serves a web page with rooms: messages with their history, who is
// present, and who is typing. api.go says what can be called, chat.go has the chat, and
// this file serves it.
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
	"os/signal"
	"syscall"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/examples/internal/web"
	"github.com/typedrpc/typedrpc/topic"
)

//go:embed web
var files embed.FS

// chat is a server of one chat.
type chat struct {
	hub    *topic.Hub
	rpc    *typedrpc.Server
	routes http.Handler // the page at / and the procedures at /rpc
}

func newChat(log *slog.Logger) (*chat, error) {
	hub := new(topic.Hub)
	rpc := &typedrpc.Server{
		Mux:          newMux(hub),
		SignIn:       SignIn.Verify(signIn),
		Limits:       typedrpc.Limits{MaxMessage: 64 << 10, MaxCalls: 32, MaxBuffered: 1 << 20},
		Logger:       log,
		OnConnect:    func(c *typedrpc.Conn) { log.Info("connected", "name", c.Identity().Subject) },
		OnDisconnect: func(c *typedrpc.Conn, _ error) { log.Info("disconnected", "name", c.Identity().Subject) },
	}
	page, err := fs.Sub(files, "web")
	if err != nil {
		return nil, err
	}
	routes := http.NewServeMux()
	routes.Handle("/rpc", rpc)
	routes.Handle("/", web.Handler(page))
	return &chat{hub, rpc, routes}, rpc.Check()
}

// shutdown ends the chat within ctx. The server is first: what is in flight may
// still publish, and subscriptions end when the calls are done.
func (c *chat) shutdown(ctx context.Context) error {
	return errors.Join(c.rpc.Shutdown(ctx), c.hub.Close())
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "address to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt does not wait for anything
	if err := run(ctx, *addr, slog.Default()); err != nil {
		fmt.Fprintln(os.Stderr, "chat:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, addr string, log *slog.Logger) error {
	chat, err := newChat(log)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("%w (choose another address with -addr)", err)
	}
	pages := &http.Server{Handler: chat.routes, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- pages.Serve(ln) }()
	log.Info("open this page in a browser, twice", "url", "http://"+ln.Addr().String()+"/")

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	log.Info("shutting down")
	patience, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	// typedrpc first: http.Server knows nothing of upgraded connections. A
	// browser that keeps a connection in reserve uses up the patience; that is
	// no failure.
	err = errors.Join(chat.shutdown(patience), pages.Shutdown(patience))
	if errors.Is(err, context.DeadlineExceeded) {
		log.Warn("closing what was still open")
		return pages.Close()
	}
	return err
}
