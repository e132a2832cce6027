package server

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/logs"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// HTTPRefusal is an answer to a request that is not served.
type HTTPRefusal struct {
	Status int
	Text   string
	Header http.Header
	// Error is what a reader of events is told, whose head has left; nil: Text, with
	// the code of what it was ended by.
	Error *wire.ErrorBody
}

func refuse(code int, format string, args ...any) *HTTPRefusal {
	return &HTTPRefusal{Status: code, Text: fmt.Sprintf(format, args...), Header: http.Header{}}
}

// Write answers the request with it.
func (h *HTTPRefusal) Write(w http.ResponseWriter) {
	for k, vs := range h.Header {
		w.Header()[k] = vs
	}
	http.Error(w, h.Text, h.Status)
}

// Admission is what a request's head decides about its connection.
type Admission struct {
	Subprotocol string // as it is selected
	meant       string // what an own name of the program's stands for; "": it is none
	dialect     session.Dialect
	codec       int
	grant       grant  // plain peers: authenticated already …
	check       *check // … and not open yet
}

// Admit decides about an upgrade request.
func (s *Server) Admit(r *http.Request, offers []string) (Admission, *HTTPRefusal) {
	var a Admission
	if refused := s.guard(r); refused != nil {
		return a, refused
	}
	a, ok := s.negotiate(offers)
	if refused := s.drains(ok && a.dialect != session.Plain); refused != nil {
		return a, refused
	}
	if !ok {
		return a, refuse(http.StatusBadRequest, "none of the offered subprotocols is spoken here; supported are %q", s.supported())
	}
	if a.dialect != session.Plain {
		return a, nil
	}
	if !s.reservePlain() {
		return a, refuse(http.StatusServiceUnavailable, "too many plain JSON-RPC connections; use one with the subprotocol %q, or try again later", session.HelloProtocol)
	}
	a.check = s.beginCheck()
	g, refused := s.authenticateRequest(context.WithoutCancel(r.Context()), r)
	a.grant = g
	if refused != nil {
		s.release(a)
	}
	return a, refused
}

// reservePlain takes one of the places for plain peers.
func (s *Server) reservePlain() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.plain >= s.o.MaxPlain {
		return false
	}
	s.plain++
	return true
}

// release gives back what admit reserved.
func (s *Server) release(a Admission) {
	if a.dialect == session.Plain {
		s.endCheck(a.check)
		a.grant.release(context.Canceled)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.plain--
	}
}

// guard refuses what must not be served at all: POSTs and upgrades alike.
func (s *Server) guard(r *http.Request) *HTTPRefusal {
	if err := s.checkOrigin(r); err != nil {
		s.o.Config.Logger.Warn("typedrpc: request refused", "remote", r.RemoteAddr, "error", err)
		return refuse(http.StatusForbidden, "%s", err.Error())
	}
	if n := headerCost(r.Header); n > maxHeaders {
		return refuse(http.StatusRequestHeaderFieldsTooLarge, "the request's headers take %d bytes of memory, at most %d are taken", n, maxHeaders)
	}
	return nil
}

// maxHeaders bounds the headers of a request by what they take, since they are kept
// for as long as the connection: net/http takes a megabyte, of which short ones take
// fourteen.
const maxHeaders = 64 << 10

func headerCost(h http.Header) (n int) {
	for name, values := range h {
		n += len(name) + 96
		for _, v := range values {
			n += len(v) + 32
		}
	}
	return n
}

// drains refuses new work while the server shuts down. What may be a session that
// comes back for its answers is let in.
func (s *Server) drains(mayResume bool) *HTTPRefusal {
	s.mu.Lock()
	draining := s.draining && !(mayResume && len(s.accepted) > 0)
	s.mu.Unlock()
	if !draining {
		return nil
	}
	return drainingRefusal()
}

func (s *Server) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

func drainingRefusal() *HTTPRefusal {
	h := refuse(http.StatusServiceUnavailable, "shutting down")
	h.Header.Set("Retry-After", "1")
	h.Header.Set("Connection", "close") // what else came over it would be answered one by one
	return h
}

// negotiate takes the client's first offer that is supported, and none when
// none was offered.
func (s *Server) negotiate(offers []string) (a Admission, ok bool) {
	if len(offers) == 0 {
		return Admission{dialect: session.Plain, codec: JSONCodec}, true
	}
	for _, name := range offers {
		meant, own := s.o.Subprotocols[name]
		if !own {
			meant = name
		}
		if a, ok = s.speaks(meant); ok {
			if a.Subprotocol = name; own {
				a.meant = meant
			}
			return a, true
		}
	}
	return a, false
}

// speaks finds what a subprotocol of ours is.
func (s *Server) speaks(name string) (a Admission, ok bool) {
	switch {
	case name == session.HelloProtocol:
		return Admission{dialect: session.JSON, codec: JSONCodec}, true
	case slices.Contains(session.PlainProtocols, name):
		return Admission{dialect: session.Plain, codec: JSONCodec}, true
	}
	for i, c := range s.o.Codecs {
		if session.BinaryPrefix+c == name {
			return Admission{dialect: session.Binary, codec: i}, true
		}
	}
	return a, false
}

// checkSubprotocols refuses own names that cannot be told, or that stand for nothing.
func (s *Server) checkSubprotocols() error {
	for _, name := range slices.Sorted(maps.Keys(s.o.Subprotocols)) {
		meant := s.o.Subprotocols[name]
		if err := session.CheckOwn(name); err != nil {
			return fmt.Errorf("typedrpc: Server.Subprotocols: %w", err)
		}
		if _, ok := s.speaks(meant); !ok {
			return fmt.Errorf("typedrpc: Server.Subprotocols: %q stands for %q, which is not spoken here; there are %q", name, meant, s.supported()[:len(s.supported())-len(s.o.Subprotocols)])
		}
	}
	return nil
}

func (s *Server) supported() []string {
	var names []string
	for _, c := range s.o.Codecs {
		names = append(names, session.BinaryPrefix+c)
	}
	names = append(append(names, session.HelloProtocol), session.PlainProtocols...)
	return append(names, slices.Sorted(maps.Keys(s.o.Subprotocols))...)
}

// ServeHTTP answers an upgrade with a connection that lives on after it
// returns, a POST with JSON-RPC 2.0, a GET that names something Safe, and anything else with a text that helps.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodPost:
		s.servePost(w, r)
	case s.isRead(r):
		s.serveGet(w, r)
	case r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "":
		s.preflight(w, r)
	case r.Method != http.MethodGet:
		h := refuse(http.StatusMethodNotAllowed, "typedrpc: connect with a WebSocket, or POST JSON-RPC 2.0")
		h.Header.Set("Allow", "GET, POST")
		h.Write(w)
	case !isUpgrade(r):
		s.noUpgrade(r).Write(w)
	default:
		a, refused := s.Admit(r, link.Offers(r.Header))
		if refused != nil {
			refused.Write(w)
			return
		}
		t, err := link.Accept(w, r, a.Subprotocol, s.o.Compress)
		if err != nil {
			s.release(a)
			s.o.Config.Logger.Warn("typedrpc: upgrade failed", "remote", r.RemoteAddr, "error", err)
			return
		}
		s.Start(t, a, r)
	}
}

// Response is the refusal as a client in memory gets it.
func (h *HTTPRefusal) Response() *http.Response {
	return &http.Response{StatusCode: h.Status, Header: h.Header, Body: readCloser{strings.NewReader(h.Text)}}
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

// isUpgrade reports whether a request asks for a WebSocket. What a proxy may have
// left of one does not.
func isUpgrade(r *http.Request) bool {
	return r.ProtoMajor == 1 && r.ProtoMinor == 1 && hasToken(r.Header, "Upgrade", "websocket") && hasToken(r.Header, "Connection", "upgrade")
}

// hasToken reports whether a header that is a list has a token, in any case.
func hasToken(h http.Header, name, token string) bool {
	for _, v := range h.Values(name) {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// noUpgrade answers a GET that asks for no WebSocket, or did before a proxy took that
// away: Upgrade and Connection are for the next hop, and what is beside them is not.
func (s *Server) noUpgrade(r *http.Request) *HTTPRefusal {
	text := fmt.Sprintf("This is a typedrpc endpoint. Connect with a WebSocket (subprotocols %q), or POST JSON-RPC 2.0 with Content-Type: application/json.", s.supported())
	lacks := ""
	switch {
	case r.Header.Get("Sec-WebSocket-Key") == "" && r.Header.Get("Sec-WebSocket-Version") == "" && !hasToken(r.Header, "Upgrade", "websocket"):
	case r.ProtoMajor > 1:
		lacks = "came over " + r.Proto + ", which has none"
	case !hasToken(r.Header, "Upgrade", "websocket"):
		lacks = "has no header Upgrade: websocket"
	case !hasToken(r.Header, "Connection", "upgrade"):
		lacks = "has no header Connection: Upgrade"
	default:
		lacks = "came over " + r.Proto + ", an upgrade needs HTTP/1.1"
	}
	if lacks != "" {
		text = "The request for an upgrade to a WebSocket " + lacks + ". A proxy in between may have changed it: it has to pass Upgrade and Connection on, over HTTP/1.1 (docs/deploy.md of typedrpc has configurations). " + text
		s.o.Config.Logger.Warn("typedrpc: upgrade without its headers; a proxy may have removed them", "remote", r.RemoteAddr, "lacks", logs.Clip(lacks))
	}
	h := refuse(http.StatusUpgradeRequired, "%s", text)
	h.Header.Set("Upgrade", "websocket")
	h.Header.Set("Connection", "Upgrade")
	return h
}
