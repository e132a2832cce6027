package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
)

func TestServer_negotiate(t *testing.T) {
	s, _ := echoServer(t, nil)
	for _, tt := range []struct {
		offers  string
		name    string
		dialect session.Dialect
		codec   int
		ok      bool
	}{
		{"", "", session.Plain, JSONCodec, true},
		{"typedrpc.v1.json", "typedrpc.v1.json", session.Binary, 0, true},
		{"typedrpc.v1.other", "typedrpc.v1.other", session.Binary, 1, true},
		{"typedrpc.jsonrpc", "typedrpc.jsonrpc", session.JSON, JSONCodec, true},
		{"jsonrpc-2.0", "jsonrpc-2.0", session.Plain, JSONCodec, true},
		{"jsonrpc2 typedrpc.v1.json", "jsonrpc2", session.Plain, JSONCodec, true}, // the client's first
		{"typedrpc.v1.cbor mqtt typedrpc.v1.other typedrpc.v1.json", "typedrpc.v1.other", session.Binary, 1, true},
		{"mqtt", "", 0, 0, false},
		{"typedrpc.v1. typedrpc.v2.json json TYPEDRPC.V1.JSON", "", 0, 0, false},
	} {
		t.Run(tt.offers, func(t *testing.T) {
			is := is.New(t)
			a, ok := s.negotiate(strings.Fields(tt.offers))
			is.Equal(ok, tt.ok)
			if ok {
				is.Equal(a, Admission{Subprotocol: tt.name, dialect: tt.dialect, codec: tt.codec})
			}
		})
	}
	is := is.New(t)
	for _, name := range s.supported() { // what is named to strangers is taken
		a, ok := s.negotiate([]string{name})
		is.True(ok)
		is.Equal(a.Subprotocol, name)
	}
}

func TestIsUpgrade(t *testing.T) {
	is := is.New(t)
	ask := func(upgrade ...string) *http.Request {
		return &http.Request{ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Upgrade": upgrade, "Connection": {"keep-alive, Upgrade"}}}
	}
	for _, vs := range [][]string{{"websocket"}, {"WebSocket"}, {"h2c, websocket"}, {"h2c", " websocket "}} {
		is.True(isUpgrade(ask(vs...)))
	}
	for _, vs := range [][]string{nil, {""}, {"h2c"}, {"websockets"}, {"web socket"}} {
		is.True(!isUpgrade(ask(vs...)))
	}
}

// A request of which a proxy has passed on what it should not, and not what it should.
func TestServer_upgradeThatAProxyHasChanged(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(r *http.Request)
		says   string
	}{
		"no Upgrade":             {func(r *http.Request) { r.Header.Del("Upgrade") }, "has no header Upgrade: websocket"},
		"neither":                {func(r *http.Request) { r.Header.Del("Upgrade"); r.Header.Set("Connection", "close") }, "has no header Upgrade: websocket"},
		"another Upgrade":        {func(r *http.Request) { r.Header.Set("Upgrade", "h2c") }, "has no header Upgrade: websocket"},
		"no Connection":          {func(r *http.Request) { r.Header.Del("Connection") }, "has no header Connection: Upgrade"},
		"Connection: close":      {func(r *http.Request) { r.Header.Set("Connection", "close") }, "has no header Connection: Upgrade"},
		"neither, and no key":    {func(r *http.Request) { r.Header.Del("Upgrade"); r.Header.Del("Sec-WebSocket-Key") }, "has no header Upgrade: websocket"},
		"HTTP/1.0":               {func(r *http.Request) { r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/1.0", 1, 0 }, "came over HTTP/1.0"},
		"HTTP/2":                 {func(r *http.Request) { r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0 }, "came over HTTP/2.0"},
		"HTTP/2 without Upgrade": {func(r *http.Request) { r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0; r.Header.Del("Upgrade") }, "came over HTTP/2.0"},
		"a person":               {func(r *http.Request) { r.Header = http.Header{} }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			s, _ := echoServer(t, nil)
			r := httptest.NewRequest(http.MethodGet, "http://pipe/", nil)
			r.Header.Set("Upgrade", "websocket")
			r.Header.Set("Connection", "Upgrade")
			r.Header.Set("Sec-WebSocket-Version", "13")
			r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
			tt.change(r)
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			is.Equal(w.Code, http.StatusUpgradeRequired)
			is.Equal(w.Header().Get("Upgrade"), "websocket")
			is.Equal(strings.Contains(w.Body.String(), "proxy"), tt.says != "")
			is.True(strings.Contains(w.Body.String(), tt.says))
			is.True(strings.Contains(w.Body.String(), "typedrpc endpoint")) // and what it is
			is.Equal(s.Snapshot(), Snapshot{})
		})
	}
}

func TestServer_methods(t *testing.T) {
	s, _ := echoServer(t, nil)
	for _, tt := range []struct {
		method, upgrade, offer string
		status                 int
		header, value          string
	}{
		{"GET", "", "", http.StatusUpgradeRequired, "Upgrade", "websocket"},
		{"GET", "h2c", "", http.StatusUpgradeRequired, "Connection", "Upgrade"},
		{"GET", "websocket", "mqtt", http.StatusBadRequest, "", ""},
		{"HEAD", "websocket", "", http.StatusMethodNotAllowed, "Allow", "GET, POST"},
		{"PUT", "", "", http.StatusMethodNotAllowed, "Allow", "GET, POST"},
		{"OPTIONS", "", "", http.StatusMethodNotAllowed, "Allow", "GET, POST"},
		{"get", "websocket", "", http.StatusMethodNotAllowed, "Allow", "GET, POST"},
		{"GET", "websocket", "jsonrpc", http.StatusNotImplemented, "", ""}, // the recorder cannot be upgraded
	} {
		t.Run(tt.method+" "+tt.upgrade+" "+tt.offer, func(t *testing.T) {
			is := is.New(t)
			r := httptest.NewRequest(tt.method, "http://pipe/", nil)
			r.Header.Set("Upgrade", tt.upgrade)
			r.Header.Set("Connection", "Upgrade")
			r.Header.Set("Sec-WebSocket-Version", "13")
			r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
			r.Header.Set("Sec-WebSocket-Protocol", tt.offer)
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			is.Equal(w.Code, tt.status)
			is.Equal(w.Header().Get(tt.header), tt.value)
			is.Equal(s.Snapshot(), Snapshot{}) // also of an upgrade that failed
		})
	}
}

func TestHTTPRefusal_response(t *testing.T) {
	is := is.New(t)
	h := refuse(http.StatusTeapot, "%d pots", 2)
	h.Header.Set("Retry-After", "1")
	w := httptest.NewRecorder()
	h.Write(w)
	is.Equal(w.Code, http.StatusTeapot)
	is.Equal(w.Body.String(), "2 pots\n")
	is.Equal(w.Header().Get("Retry-After"), "1")
	resp := h.Response()
	text, err := io.ReadAll(resp.Body)
	is.NoErr(err)
	is.NoErr(resp.Body.Close())
	is.Equal(string(text), "2 pots")
	is.Equal(resp.StatusCode, http.StatusTeapot)
	is.Equal(resp.Header.Get("Retry-After"), "1")
}

func post(s *Server, contentType, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "http://pipe/", strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func TestPost(t *testing.T) {
	for _, tt := range []struct {
		name, contentType, body, answer string
		status                          int
	}{
		{"call", "application/json", `{"jsonrpc":"2.0","id":1,"method":"echo","params":[7]}`, `{"jsonrpc":"2.0","id":1,"result":[7]}`, http.StatusOK},
		{"charset", "Application/JSON; charset=utf-8", `{"jsonrpc":"2.0","id":"a","method":"echo","params":{}}`, `{"jsonrpc":"2.0","id":"a","result":{}}`, http.StatusOK},
		{"batch", "application/json", `[{"jsonrpc":"2.0","id":1,"method":"x","params":[1]},{"jsonrpc":"2.0","method":"x"}]`, `[{"jsonrpc":"2.0","id":1,"result":[1]}]`, http.StatusOK},
		{"notification", "application/json", `{"jsonrpc":"2.0","method":"echo"}`, "", http.StatusNoContent},
		{"as large as it may be", "application/json", `{"jsonrpc":"2.0","method":"echo"}` + strings.Repeat(" ", 67), "", http.StatusNoContent},
		{"too large", "application/json", strings.Repeat(" ", 101), "the request has more than 100 bytes\n", http.StatusRequestEntityTooLarge},
		{"form", "text/plain", `{}`, "POST JSON-RPC 2.0 with Content-Type: application/json, or the items of a client stream with application/json-seq or application/x-ndjson\n", http.StatusUnsupportedMediaType},
		{"no type", "", `{}`, "POST JSON-RPC 2.0 with Content-Type: application/json, or the items of a client stream with application/json-seq or application/x-ndjson\n", http.StatusUnsupportedMediaType},
		{"longer type", "application/jsonp", `{}`, "POST JSON-RPC 2.0 with Content-Type: application/json, or the items of a client stream with application/json-seq or application/x-ndjson\n", http.StatusUnsupportedMediaType},
		{"two types", "text/plain, application/json", `{}`, "POST JSON-RPC 2.0 with Content-Type: application/json, or the items of a client stream with application/json-seq or application/x-ndjson\n", http.StatusUnsupportedMediaType},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			s, _ := echoServer(t, func(o *Options) { o.Config.Limits.MaxMessage = 100 })
			w := post(s, tt.contentType, tt.body)
			is.Equal(w.Code, tt.status)
			is.Equal(w.Body.String(), tt.answer)
			is.Equal(s.Snapshot(), Snapshot{})
		})
	}
}

// What comes first decides: a foreign page learns nothing of a server's state, and
// nobody is authenticated for what is not read.
func TestPost_refusalsInTurn(t *testing.T) {
	is := is.New(t)
	asked := 0
	s, _ := echoServer(t, func(o *Options) {
		o.Authenticate = func(context.Context, *http.Request, []byte, int) (Identity, []byte, error) {
			asked++
			return Identity{}, nil, errors.New("secret")
		}
	})
	is.Equal(post(s, "text/plain", `{}`).Code, http.StatusUnsupportedMediaType)
	is.Equal(asked, 0)
	w := post(s, "application/json", `{}`)
	is.Equal(w.Code, http.StatusUnauthorized)
	is.Equal(w.Body.String(), "not authenticated\n")
	is.Equal(asked, 1)
	is.NoErr(s.Shutdown(t.Context()))
	w = post(s, "text/plain", `{}`)
	is.Equal(w.Code, http.StatusServiceUnavailable)
	is.Equal(w.Header().Get("Retry-After"), "1")
	r := httptest.NewRequest(http.MethodPost, "http://pipe/", nil)
	r.Header.Set("Origin", "http://evil.example")
	w = httptest.NewRecorder()
	s.ServeHTTP(w, r)
	is.Equal(w.Code, http.StatusForbidden)
	is.Equal(asked, 1)
	is.Equal(s.Snapshot(), Snapshot{})
}

// A subject that is revoked while it is authenticated is not served.
func TestPost_revokedMeanwhile(t *testing.T) {
	is := is.New(t)
	var s *Server
	ends := 0
	s, _ = echoServer(t, func(o *Options) {
		o.Authenticate = func(context.Context, *http.Request, []byte, int) (Identity, []byte, error) {
			is.Equal(s.Snapshot().Checks, 1)
			s.Revoke("ann", nil)
			return Identity{Subject: "ann"}, nil, nil
		}
		o.Up = func(err error) error { ends++; return err }
	})
	w := post(s, "application/json", `{"jsonrpc":"2.0","id":1,"method":"echo"}`)
	is.Equal(w.Code, http.StatusUnauthorized)
	is.Equal(w.Body.String(), errRevoked.Message+"\n")
	is.Equal(ends, 1) // its grant was given back
	is.Equal(s.Snapshot(), Snapshot{})
}

func TestAuthenticateRequest_statuses(t *testing.T) {
	for _, tt := range []struct {
		err    error
		status int
		text   string
	}{
		{status.Errorf(status.PermissionDenied, "not you"), http.StatusForbidden, "not you"},
		{status.Errorf(status.ResourceExhausted, "later"), http.StatusServiceUnavailable, "later"},
		{status.Errorf(status.NotFound, "who?"), http.StatusUnauthorized, "who?"},
		{errors.New("secret"), http.StatusUnauthorized, "not authenticated"},
		{nil, http.StatusUnauthorized, "not authenticated"}, // a panic
	} {
		is := is.New(t)
		s, _ := echoServer(t, func(o *Options) {
			o.Authenticate = func(context.Context, *http.Request, []byte, int) (Identity, []byte, error) {
				if tt.err == nil {
					panic("secret")
				}
				return Identity{}, nil, tt.err
			}
		})
		_, _, refused := knock(s, "")
		is.Equal(refused.Status, tt.status)
		is.Equal(refused.Text, tt.text)
		is.Equal(s.Snapshot(), Snapshot{}) // and its place is free again
	}
}
