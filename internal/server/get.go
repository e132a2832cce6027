package server

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Readable is what a GET may ask for, and a POST that sends items.
type Readable struct {
	Safe    bool // else it may not
	Stream  bool // its items come as events; else it is a method, or nothing that can be Safe
	Takes   bool // a client stream: its items may be POSTed
	Resumes bool // a stream: it goes on behind an item's place
}

// getVerb is what begins the stream that a GET asks for. No method has such a name.
const getVerb = "GET a stream"

// isRead reports whether a request is a GET that names what it wants, or asks for the head
// of its answer.
func (s *Server) isRead(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && !isUpgrade(r) && r.URL.Query().Has("method")
}

// serveGet answers a GET of something that is Safe: a method as a POST of the one call is
// answered, a stream by Server-Sent Events. It runs through a connection that lasts for this
// one request.
func (s *Server) serveGet(w http.ResponseWriter, r *http.Request) {
	x := s.newExchange(w, r)
	defer s.endExchange(x)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	refused := s.guard(r)
	if refused == nil {
		allowOrigin(w, r)
		refused = s.drains(false)
	}
	if refused != nil {
		x.refuse(refused)
		return
	}
	x.until(x.w.SetReadDeadline, time.Time{}, 0) // the answer may take any time, and a body is not read
	name, params, refused := s.query(r)
	if refused != nil {
		x.refuse(refused)
		return
	}
	check := s.beginCheck()
	g, refused := s.authenticateRequest(r.Context(), r)
	defer g.release(context.Canceled)
	if p := s.owned(x, g.id.Subject, check); p != nil && refused == nil {
		refused = p.refusal()
	}
	var what Readable
	if refused == nil {
		what, refused = s.readable(name)
	}
	if refused != nil {
		x.refuse(refused)
		return
	}
	x.account.Own(ownerOf(g.id, r))
	if what.Stream {
		s.serveEvents(x, r, g.id, name, params, what)
		return
	}
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Type", "application/json")
		return
	}
	s.serveBody(x, r, g.id, x.request(`"method":`, name, `,"params":`, list(params)))
}

// readable says what a name stands for, or why it cannot be read.
func (s *Server) readable(name string) (Readable, *HTTPRefusal) {
	what, known := s.o.Readable(name)
	switch {
	case !known:
		return what, refuse(http.StatusNotFound, "there is no method %q", name)
	case !what.Safe:
		h := refuse(http.StatusMethodNotAllowed, "%q may have side effects: it is not declared Safe, and cannot be read with a GET; POST it, or connect with a WebSocket", name)
		h.Header.Set("Allow", "POST")
		return what, h
	}
	return what, nil
}

// query is what a request names in its URL, or why that cannot be read.
func (s *Server) query(r *http.Request) (name, params string, refused *HTTPRefusal) {
	if n := len(r.URL.RawQuery); n > maxHeaders {
		return "", "", refuse(http.StatusRequestURITooLong, "the query has %d bytes, at most %d are taken; POST the request", n, maxHeaders)
	}
	name, params, bad := readQuery(r.URL.RawQuery, s.o.Config.Limits.MaxDepth)
	if bad != "" {
		return "", "", refuse(http.StatusBadRequest, "%s", bad)
	}
	return name, params, nil
}

// readQuery reads what a GET asks for.
func readQuery(query string, maxDepth int) (name, params, bad string) {
	q, err := url.ParseQuery(query)
	switch {
	case err != nil:
		return "", "", "the query is malformed"
	case len(q["method"]) != 1 || q["method"][0] == "" || len(q["method"][0]) > wire.MaxMethod:
		return "", "", "the query has no method, or several, or one that is too long"
	case len(q["params"]) > 1:
		return "", "", "the query has params more than once"
	}
	params = q.Get("params")
	if params != "" && wire.Valid([]byte(params), maxDepth) != nil {
		return "", "", "params are no JSON"
	}
	return q.Get("method"), params, ""
}

// list is params as a request may have them: null, or a list of a value that is neither
// list nor object.
func list(params string) string {
	for _, c := range params {
		switch c {
		case ' ', '\t', '\n', '\r':
			continue
		case '{', '[', 'n':
			return params
		}
		return "[" + params + "]"
	}
	return "null"
}

// request is a JSON-RPC request of a GET, paid for: its members after the id.
func (x *exchange) request(before, name, between, params string) *buf.Buf {
	b := buf.Sized(64 + len(before) + 6*len(name) + len(between) + len(params))
	b.B = append(b.B, `{"jsonrpc":"2.0","id":1,`...)
	b.B = wire.AppendString(append(b.B, before...), name)
	b.B = append(append(b.B, between...), params...)
	b.B = append(b.B, '}')
	x.account.Force(cap(b.B))
	x.body = cap(b.B)
	return b
}

// serveEvents answers with the items of a stream.
func (s *Server) serveEvents(x *exchange, r *http.Request, id Identity, name, params string, what Readable) {
	last := r.Header.Get("Last-Event-ID")
	h := x.w.Header()
	switch {
	case last == endID: // it has ended well: the page's EventSource is not to come again
		x.w.WriteHeader(http.StatusNoContent)
		return
	case r.Method == http.MethodHead:
		h.Set("Content-Type", "text/event-stream")
		return
	}
	if err := x.w.flushes(); err != nil {
		s.o.Config.Logger.Warn("typedrpc: items cannot be sent as they come", "remote", r.RemoteAddr, "error", err)
		x.refuse(refuse(http.StatusInternalServerError, "items cannot be sent as they come: middleware of the server, such as a timeout, keeps answers back"))
		return
	}
	if !s.reservePlain() {
		x.refuse(refuse(http.StatusServiceUnavailable, "too many plain connections; try again later"))
		return
	}
	defer s.unreservePlain()
	between, after := `,"params":`, params
	if after == "" {
		after = "null"
	}
	if what.Resumes {
		after += string(wire.AppendString([]byte(`,"from":`), last))
	}
	body := x.request(`"method":`+string(wire.AppendString(nil, getVerb))+`,"params":{"method":`, name, between, after+"}")
	x.mu.Lock()
	x.streams = true
	x.events = &events{x: x, spread: s.o.ReconnectSpread, every: s.o.Config.Limits.KeepAlive}
	x.writing = true // at any time: who reads nothing is not waited for when it is ended
	x.mu.Unlock()
	defer x.expires(id)()
	s.serveBody(x, r, id, body)
}

// expires ends a stream with the credentials that it was begun with. stop has to be called.
func (x *exchange) expires(id Identity) (stop func() bool) {
	if id.Expires.IsZero() {
		return func() bool { return true }
	}
	return time.AfterFunc(max(time.Until(id.Expires), 1), func() {
		x.end(refuse(http.StatusUnauthorized, "%s", errExpired.Message), errExpired)
	}).Stop
}

var errExpired = status.Errorf(status.Unauthenticated, "the credentials have expired")

func (s *Server) unreservePlain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plain--
}

// allowOrigin lets the page read the answer whose origin guard has let in.
func allowOrigin(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Add("Vary", "Origin")
	if origin := r.Header.Get("Origin"); origin != "" {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
	}
}

// preflight answers a browser that asks whether a page may GET with headers of its own.
func (s *Server) preflight(w http.ResponseWriter, r *http.Request) {
	if refused := s.guard(r); refused != nil {
		refused.Write(w)
		return
	}
	allowOrigin(w, r)
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", "GET, HEAD")
	if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" { // credentials have any name
		h.Set("Access-Control-Allow-Headers", asked)
	}
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
}

// statusOf is what a GET is answered whose stream was refused with a code of JSON-RPC.
func statusOf(code int64) int {
	switch code {
	case wire.CodeToJSON(int64(status.InvalidArgument)), int64(status.OutOfRange), int64(status.FailedPrecondition):
		return http.StatusBadRequest
	case wire.CodeToJSON(int64(status.Unimplemented)), int64(status.NotFound):
		return http.StatusNotFound
	case int64(status.Unauthenticated):
		return http.StatusUnauthorized
	case int64(status.PermissionDenied):
		return http.StatusForbidden
	case int64(status.ResourceExhausted), int64(status.Unavailable):
		return http.StatusServiceUnavailable
	case int64(status.DeadlineExceeded):
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}

var errGone = errors.New("the answer has ended")
