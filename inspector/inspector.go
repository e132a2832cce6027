// Package inspector serves a page that shows what a running typedrpc server does: its
// methods, which may be tried, its connections with their numbers and their frames, its
// topics. It is off unless a program mounts it, and lets nobody in unless the program says
// whom.
//
//	http.Handle("/inspect/", &inspector.Handler{Server: rpc, Authorize: inspector.Loopback})
//
// The page needs nothing from elsewhere, and no build step.
package inspector

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/inspector/api"
	"github.com/typedrpc/typedrpc/topic"
)

// Rights are what a visitor may do. They are added with |.
type Rights uint8

const (
	// Look shows methods, connections, topics, and frames as far as Handler.Payloads
	// allows. Without it nobody is let in.
	Look Rights = 1 << iota
	// Call lets the page connect to the inspected server, through the inspector's path,
	// as whom the visitor gives credentials for: to call methods, open streams and
	// subscribe to topics, by the server's own rules.
	Call
	// End lets the visitor end connections, and all that a subject has.
	End
)

// Visitor is who looks.
type Visitor struct {
	// Name is for the log, of what the visitor ends. It may be empty.
	Name string
	// Rights are what the visitor may do.
	Rights Rights
	// Expires is when the visitor is asked for again; zero is never.
	Expires time.Time
}

// Handler serves the page, for any path that ends in a slash. Its fields must not be
// changed after the first request. Any number of goroutines may use it.
type Handler struct {
	// Server is what is inspected.
	Server *typedrpc.Server
	// Hubs are those whose topics are shown.
	Hubs []*topic.Hub
	// Authorize says who may look. It is called for each file of the page and for each
	// connection of it, with the request: its cookies, its headers, its address. secret is
	// what the visitor has typed into the page, "" at first; it comes in a message and is
	// neither stored nor in any URL. An error with code Unauthenticated has the page ask
	// for a secret, any other refuses with 403, and so does a Visitor without the right
	// to Look. nil refuses everybody; Loopback lets in who is on this machine.
	//
	// It is called by many goroutines at once, and bounded in time by ctx.
	Authorize func(ctx context.Context, r *http.Request, secret string) (Visitor, error)
	// Payloads has frames shown with their payloads and the values of their metadata:
	// whatever users send. Credentials and tokens of handshakes are never shown. Default
	// off: sizes and keys alone.
	Payloads bool
	// Origins are the web origins besides the handler's own from which the page may
	// connect: "https://admin.example.com", compared exactly. Behind a proxy that ends TLS
	// name the page's here.
	Origins []string
	// Logger is told who ended what, and what the inspector's own server logs. Default
	// slog.Default().
	Logger *slog.Logger

	setup   sync.Once
	fault   error
	rpc     *typedrpc.Server // its own
	tickets tickets
	conns   cached[[]row]
	sums    cached[api.Overview]
}

// Check reports what is wrong with the handler's fields. Without it the first request finds
// out, and every request is answered with 500.
func (h *Handler) Check() error {
	h.setup.Do(func() {
		if h.Server == nil {
			h.fault = errors.New("inspector: Handler.Server is nil")
			return
		}
		for _, hub := range h.Hubs {
			if hub == nil {
				h.fault = errors.New("inspector: a hub of Handler.Hubs is nil")
				return
			}
		}
		h.rpc = &typedrpc.Server{
			Mux:       h.mux(),
			SignIn:    api.SignIn.Verify(h.signIn),
			Origins:   h.Origins,
			Limits:    typedrpc.Limits{MaxCalls: 64, MaxMessage: 1 << 20, MaxBuffered: 4 << 20},
			MaxMemory: 64 << 20,
			Logger:    h.Logger,
		}
		h.fault = errors.Join(h.Server.Check(), h.rpc.Check())
	})
	return h.fault
}

// Shutdown ends the page's connections. Call it before the inspected server's Shutdown, or
// those that try methods are waited for. It returns ctx's error when ctx ends first.
func (h *Handler) Shutdown(ctx context.Context) error {
	if err := h.Check(); err != nil {
		return err
	}
	return h.rpc.Shutdown(ctx)
}

func (h *Handler) logger() *slog.Logger {
	if h.Logger != nil {
		return h.Logger
	}
	return slog.Default()
}

// authorize asks the program, and takes no right for granted.
func (h *Handler) authorize(ctx context.Context, r *http.Request, secret string) (Visitor, error) {
	if h.Authorize == nil {
		return Visitor{}, typedrpc.Errorf(typedrpc.PermissionDenied, "the inspector lets nobody in: its Authorize is not set")
	}
	v, err := h.Authorize(ctx, r, secret)
	if err != nil {
		return Visitor{}, err
	}
	if v.Rights&Look == 0 {
		return Visitor{}, typedrpc.Errorf(typedrpc.PermissionDenied, "you may not look")
	}
	return v, nil
}

// Loopback lets in who is on this machine, and allows everything. It refuses what has come
// through a proxy that says so, and what asks for a host of another name. A proxy on this
// machine that says nothing looks like a neighbour: behind one write a function of your own.
func Loopback(_ context.Context, r *http.Request, _ string) (Visitor, error) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.Unmap().IsLoopback() || !loopbackName(r.Host) {
		return Visitor{}, typedrpc.Errorf(typedrpc.PermissionDenied, "this page is for those on the server's machine")
	}
	for _, name := range []string{"Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip"} {
		if r.Header.Get(name) != "" {
			return Visitor{}, typedrpc.Errorf(typedrpc.PermissionDenied, "this page is for those on the server's machine, and not behind a proxy")
		}
	}
	return Visitor{Name: "loopback", Rights: Look | Call | End}, nil
}

// loopbackName reports whether a Host header names this machine.
func loopbackName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
