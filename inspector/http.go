package inspector

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/js"
)

//go:embed web/*.html web/*.css web/*.js web/*.svg
var files embed.FS

const (
	ownPath    = "rpc"    // the inspector's own server
	targetPath = "target" // the inspected one
	cookieName = "typedrpc-inspector"
)

// policy lets the page run its own scripts and use its own styles, and nothing else. What
// others write is inserted as text anyway; this is for the day of a mistake.
var policy = strings.Join([]string{
	"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "img-src 'self'",
	"base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
}, "; ")

// ServeHTTP serves the page, and its connections. The last element of the path says which
// file is asked for, so a prefix may be stripped or not.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("Content-Security-Policy", policy)
	head.Set("Cross-Origin-Opener-Policy", "same-origin")
	head.Set("Cross-Origin-Resource-Policy", "same-origin")
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("X-Frame-Options", "DENY")
	head.Set("Referrer-Policy", "no-referrer")
	head.Set("Cache-Control", "no-cache")
	if err := h.Check(); err != nil {
		h.logger().Error("inspector: the handler is misconfigured", "error", err)
		http.Error(w, "the inspector is misconfigured; the server's log says how", http.StatusInternalServerError)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		head.Set("Allow", "GET, HEAD")
		http.Error(w, "the inspector is a page", http.StatusMethodNotAllowed)
		return
	}
	name := "index.html"
	if !strings.HasSuffix(r.URL.Path, "/") && r.URL.Path != "" {
		name = path.Base(r.URL.Path)
	}
	if !h.ours(r, name) {
		http.Error(w, "the inspector is not for other sites", http.StatusForbidden)
		return
	}
	switch name {
	case ownPath: // Authorize is asked by its sign-in, with the secret
		h.rpc.ServeHTTP(w, r)
	case targetPath:
		h.target(w, r)
	default:
		h.file(w, r, name)
	}
}

// ours reports whether a request comes from the page itself, from somebody who opens it, or
// from no browser at all. A link from another site may open the page, which shows nothing
// before its own connection is let in, and that has the right origin or is none.
func (h *Handler) ours(r *http.Request, name string) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		if name != "index.html" || r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Sec-Fetch-Dest") != "document" {
			return false
		}
	}
	origin := r.Header.Get("Origin")
	if origin == "" || slices.Contains(h.Origins, origin) {
		return true
	}
	o, err := url.Parse(origin)
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return err == nil && o.Scheme == scheme && strings.EqualFold(o.Host, r.Host)
}

// file serves a file of the page to those who are let in, and to those who may say a secret.
func (h *Handler) file(w http.ResponseWriter, r *http.Request, name string) {
	if _, err := h.authorize(r.Context(), r, ""); err != nil && typedrpc.CodeOf(err) != typedrpc.Unauthenticated {
		text := "you may not look"
		if code := typedrpc.CodeOf(err); code == typedrpc.PermissionDenied {
			text = err.Error()
		}
		http.Error(w, text, http.StatusForbidden)
		return
	}
	if name == "typedrpc.js" {
		js.Handler().ServeHTTP(w, r)
		return
	}
	data, err := files.ReadFile("web/" + name)
	if err != nil {
		http.Error(w, "the inspector has no such file; its page is at a path that ends in a slash", http.StatusNotFound)
		return
	}
	sum := sha256.Sum256(data)
	w.Header().Set("Etag", fmt.Sprintf(`"%x"`, sum[:8]))
	w.Header().Set("Content-Type", types[path.Ext(name)])
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(data))
}

// types are those of the page's files, whatever the machine's table says.
var types = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
}

// target hands an upgrade of the page's to the inspected server, for those who have a
// ticket. The server does not see the ticket, and no origin: that is the page's, which
// need not be one of the server's own.
func (h *Handler) target(w http.ResponseWriter, r *http.Request) {
	conn := h.tickets.of(r)
	if conn == nil || visitorFrom(conn.Context()).Rights&Call == 0 {
		http.Error(w, "ask the inspector for a ticket first", http.StatusForbidden)
		return
	}
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		http.Error(w, "the inspected server is reached by WebSocket here", http.StatusUpgradeRequired)
		return
	}
	own := r.Clone(r.Context())
	own.Header.Del("Origin")
	own.Header.Del("Cookie")
	for _, c := range r.Cookies() {
		if c.Name != cookieName {
			own.AddCookie(c)
		}
	}
	h.Server.ServeHTTP(&visit{ResponseWriter: w, page: conn.Context()}, own)
}

// visit is the answer to the page's second connection, which is cut when the first one, by
// whose leave it is there, has ended.
type visit struct {
	http.ResponseWriter
	page context.Context
}

func (v *visit) Unwrap() http.ResponseWriter { return v.ResponseWriter }

// Hijack is http.Hijacker's.
func (v *visit) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(v.ResponseWriter).Hijack()
	if err == nil {
		context.AfterFunc(v.page, func() { c.Close() })
	}
	return c, rw, err
}

// tickets let the page's second connection in: a browser can give a WebSocket no header
// but cookies. One counts as long as the inspector's connection that asked for it.
type tickets struct {
	mu   sync.Mutex
	all  map[string]*typedrpc.Conn
	held map[*typedrpc.Conn]string
}

// give returns the ticket of a connection.
func (t *tickets) give(c *typedrpc.Conn) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if held := t.held[c]; held != "" {
		return held
	}
	if t.all == nil {
		t.all, t.held = map[string]*typedrpc.Conn{}, map[*typedrpc.Conn]string{}
	}
	ticket := rand.Text()
	t.all[ticket], t.held[c] = c, ticket
	context.AfterFunc(c.Context(), func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.all, ticket)
		delete(t.held, c)
	})
	return ticket
}

// of finds whose ticket a request has; nil: it has none that counts.
func (t *tickets) of(r *http.Request) *typedrpc.Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range r.CookiesNamed(cookieName) {
		if conn := t.all[c.Value]; conn != nil {
			return conn
		}
	}
	return nil
}
