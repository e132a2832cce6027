package e2e_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// upgrade sends an upgrade request with a head of the test's choice, without a
// socket: a request that is admitted fails later, since a recorder cannot be
// hijacked.
func upgrade(srv *typedrpc.Server, change func(*http.Request)) (status int, body string) {
	r := httptest.NewRequest(http.MethodGet, "http://example.com/rpc", nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Sec-WebSocket-Version", "13")
	r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	change(r)
	w := httptest.NewRecorder()
	lab.Quiet(srv, &typedrpc.DialOptions{})
	srv.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestServer_origins(t *testing.T) {
	for _, tt := range []struct {
		name, origin, host string
		tls                bool
		allowed            bool
	}{
		{name: "no browser", origin: "", allowed: true},
		{name: "same origin", origin: "http://example.com", allowed: true},
		{name: "same origin, default port", origin: "http://example.com:80", allowed: true},
		{name: "same origin, other case", origin: "HTTP://EXAMPLE.com", allowed: true},
		{name: "same origin with port", origin: "http://example.com:8080", host: "example.com:8080", allowed: true},
		{name: "same origin over TLS", origin: "https://example.com", tls: true, allowed: true},
		{name: "same origin over TLS, port", origin: "https://example.com:443", tls: true, allowed: true},
		{name: "same origin, IPv6", origin: "http://[2001:db8::1]:8080", host: "[2001:db8::1]:8080", allowed: true},
		{name: "other scheme", origin: "https://example.com"},
		{name: "plain page of a TLS server", origin: "http://example.com", tls: true},
		{name: "other port", origin: "http://example.com:8080"},
		{name: "server on another port", origin: "http://example.com", host: "example.com:8080"},
		{name: "subdomain", origin: "http://evil.example.com"},
		{name: "suffix", origin: "http://example.com.evil.com"},
		{name: "prefix", origin: "http://evilexample.com"},
		{name: "user info", origin: "http://example.com@evil.com"},
		{name: "user info that looks right", origin: "http://evil@example.com"},
		{name: "path", origin: "http://example.com/"},
		{name: "null", origin: "null"},
		{name: "no scheme", origin: "example.com"},
		{name: "file", origin: "file://"},
		{name: "extension", origin: "chrome-extension://abcdef"},
		{name: "two origins", origin: "http://example.com http://evil.com"},
		{name: "garbage", origin: "http://[::1"},
		{name: "listed", origin: "https://app.example.org", allowed: true},
		{name: "listed, default port", origin: "https://app.example.org:443", allowed: true},
		{name: "listed, other case", origin: "https://APP.example.ORG", allowed: true},
		{name: "listed with port", origin: "http://dev.example.org:3000", allowed: true},
		{name: "listed, other scheme", origin: "http://app.example.org"},
		{name: "listed, other port", origin: "http://dev.example.org"},
		{name: "listed, suffix", origin: "https://app.example.org.evil.com"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			change := func(r *http.Request) {
				r.Header.Set("Content-Type", "application/json")
				if tt.origin != "" {
					r.Header.Set("Origin", tt.origin)
				}
				if tt.host != "" {
					r.Host = tt.host
				}
				if tt.tls {
					r.TLS = new(tls.ConnectionState)
				}
			}
			srv := &typedrpc.Server{Origins: []string{"https://app.example.org", "http://dev.example.org:3000"}}
			status, body := upgrade(srv, change)
			is.Equal(status != http.StatusForbidden, tt.allowed)
			is.Equal(strings.Contains(body, "is not allowed"), !tt.allowed)

			status, _ = upgrade(srv, func(r *http.Request) { // the same rule for POST
				change(r)
				r.Method = http.MethodPost
				r.Body = io.NopCloser(strings.NewReader(`{"jsonrpc":"2.0","method":"x"}`))
			})
			want := http.StatusForbidden
			if tt.allowed {
				want = http.StatusNoContent
			}
			is.Equal(status, want)

			open := &typedrpc.Server{DangerouslyAllowAnyOrigin: true}
			status, _ = upgrade(open, change)
			is.True(status != http.StatusForbidden)
		})
	}
}

// A page may come by names that are this machine's alone, and what is no browser by
// any.
func TestServer_loopbackHost(t *testing.T) {
	srv := &typedrpc.Server{Origins: []string{"https://app.example.org"}}
	url := serve(t, srv)
	for host, allowed := range map[string]bool{
		"localhost":         true,
		"LOCALHOST:1234":    true,
		"app.localhost":     true,
		"127.0.0.1":         true,
		"127.1.2.3:80":      true,
		"[::1]:80":          true,
		"app.example.org":   true, // listed
		"evil.com":          false,
		"localhost.evil.co": false,
		"evillocalhost":     false,
		"192.168.1.1":       false,
	} {
		for name, h := range map[string]http.Header{
			"a page":                    {"Origin": {"http://" + host}},
			"a page of an old browser":  {"User-Agent": {"Mozilla/5.0 (X11; Linux)"}},
			"a page that says its site": {"Sec-Fetch-Site": {"same-origin"}},
			"no browser":                {"User-Agent": {"curl/8"}},
		} {
			t.Run(host+", "+name, func(t *testing.T) {
				is := is.New(t)
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(`{"jsonrpc":"2.0","method":"x"}`))
				is.NoErr(err)
				r.Host = host
				r.Header = h
				r.Header.Set("Content-Type", "application/json")
				resp, err := http.DefaultClient.Do(r)
				is.NoErr(err)
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if allowed || name == "no browser" {
					is.Equal(resp.StatusCode, http.StatusNoContent)
					return
				}
				is.Equal(resp.StatusCode, http.StatusForbidden)
				is.True(strings.Contains(string(body), "on a loopback address"))
			})
		}
	}
}

func TestServer_subprotocols(t *testing.T) {
	url := serve(t, &typedrpc.Server{})
	for _, tt := range []struct {
		offers []string
		want   string
	}{
		{nil, ""},
		{[]string{"jsonrpc"}, "jsonrpc"},
		{[]string{"jsonrpc2"}, "jsonrpc2"},
		{[]string{"graphql-ws", "jsonrpc-2.0", "jsonrpc"}, "jsonrpc-2.0"},
		{[]string{"typedrpc.v1.msgpack", "typedrpc.jsonrpc", "typedrpc.v1.json"}, "typedrpc.jsonrpc"},
		{[]string{"typedrpc.v1.json", "typedrpc.jsonrpc"}, "typedrpc.v1.json"},
	} {
		is := is.New(t)
		is.Equal(dialRaw(t, url, tt.offers...).c.Subprotocol(), tt.want) // the client's first that is supported
	}
	is := is.New(t)
	_, resp, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{Subprotocols: []string{"typedrpc.v2.json", "soap"}})
	is.True(err != nil)
	is.Equal(resp.StatusCode, http.StatusBadRequest)
	body, _ := io.ReadAll(resp.Body)
	for _, name := range []string{"typedrpc.v1.json", "typedrpc.jsonrpc", "jsonrpc", "jsonrpc2", "jsonrpc-2.0"} {
		is.True(strings.Contains(string(body), `"`+name+`"`))
	}
}

func TestServer_plainRequests(t *testing.T) {
	is := is.New(t)
	url := serve(t, &typedrpc.Server{})
	resp, err := http.Get(url)
	is.NoErr(err)
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	is.Equal(resp.StatusCode, http.StatusUpgradeRequired)
	is.Equal(resp.Header.Get("Upgrade"), "websocket")
	is.True(strings.Contains(string(body), "typedrpc endpoint"))
	is.True(strings.Contains(string(body), "POST JSON-RPC 2.0"))

	r, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, url, nil)
	is.NoErr(err)
	resp, err = http.DefaultClient.Do(r)
	is.NoErr(err)
	resp.Body.Close()
	is.Equal(resp.StatusCode, http.StatusMethodNotAllowed)
	is.Equal(resp.Header.Get("Allow"), "GET, POST")
}

func TestServer_cannotHijack(t *testing.T) {
	is := is.New(t)
	var log lab.Logs
	status, _ := upgrade(&typedrpc.Server{Logger: log.Logger()}, func(*http.Request) {})
	is.Equal(status, http.StatusNotImplemented)
	is.True(log.Has("upgrade failed"))
	is.True(log.Has("the connection cannot be upgraded: the http.ResponseWriter is *httptest.ResponseRecorder"))
}

func TestServer_overTLS(t *testing.T) {
	is := is.New(t)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Sum, lab.HandleSum)
	srv := &typedrpc.Server{Mux: mux}
	lab.Quiet(srv, &typedrpc.DialOptions{})
	hs := httptest.NewTLSServer(srv)
	defer hs.Close()
	url := strings.Replace(hs.URL, "https", "wss", 1)
	client, err := typedrpc.Dial(t.Context(), url, &typedrpc.DialOptions{HTTPClient: hs.Client()})
	is.NoErr(err)
	defer client.Close()
	r, err := typedrpc.Call(t.Context(), client, lab.Sum, lab.Pair{A: 1, B: 2})
	is.NoErr(err)
	is.Equal(r.Sum, 3)

	hs.Config.ErrorLog = nil
	_, err = typedrpc.Dial(t.Context(), url, nil) // does not know the certificate
	is.True(errors.Is(err, typedrpc.Unavailable))
	var unknown *tls.CertificateVerificationError
	is.True(errors.As(err, &unknown))
}

func TestServer_compression(t *testing.T) {
	is := is.New(t)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Shout, lab.HandleShout)
	srv := &typedrpc.Server{Mux: mux, Compress: true}
	client, _ := lab.Over{Socket: true}.Connect(t, srv, &typedrpc.DialOptions{Compress: true})
	text := strings.Repeat("all work and no play ", 10_000)
	got, err := typedrpc.Call(t.Context(), client, lab.Shout, text)
	is.NoErr(err)
	is.Equal(got, strings.ToUpper(text))
}

// The message limit holds for what a message decompresses to.
func TestServer_zipBomb(t *testing.T) {
	is := is.New(t)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Sum, lab.HandleSum)
	url := serve(t, &typedrpc.Server{Mux: mux, Compress: true, Limits: typedrpc.Limits{MaxMessage: 100_000}})
	c, _, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{CompressionMode: websocket.CompressionNoContextTakeover})
	is.NoErr(err)
	p := rawPeer{t, c}
	defer c.CloseNow()
	p.send(`{"jsonrpc":"2.0","id":1,"method":"math.sum","params":{"A":1,"x":"` + strings.Repeat("0", 50_000) + `"}}`)
	is.Equal(p.receive(), `{"jsonrpc":"2.0","id":1,"result":{"Sum":1}}`) // within the limit
	p.send(`{"jsonrpc":"2.0","id":1,"method":"math.sum","params":["` + strings.Repeat("0", 64<<20) + `"]}`)
	code, _ := p.closeCode()
	is.Equal(code, 1009)
	stillServes(t, url)
}

func TestServer_plainConnsAreCapped(t *testing.T) {
	is := is.New(t)
	url := serve(t, &typedrpc.Server{MaxPlainConns: 2})
	first := dialRaw(t, url)
	dialRaw(t, url, "jsonrpc")
	_, resp, err := websocket.Dial(t.Context(), url, nil)
	is.True(err != nil)
	is.Equal(resp.StatusCode, http.StatusServiceUnavailable)
	body, _ := io.ReadAll(resp.Body)
	is.True(strings.Contains(string(body), "typedrpc.jsonrpc")) // the way out
	typed, err := typedrpc.Dial(t.Context(), url, nil)
	is.NoErr(err) // they are not capped
	typed.Close()

	first.c.Close(websocket.StatusNormalClosure, "")
	for { // its place is free as soon as the server has noticed
		c, resp, err := websocket.Dial(t.Context(), url, nil)
		if err == nil {
			c.CloseNow()
			break
		}
		is.Equal(resp.StatusCode, http.StatusServiceUnavailable)
	}
}

// A refused login does not keep a plain peer's place.
func TestServer_refusedPeersFreeTheirPlace(t *testing.T) {
	is := is.New(t)
	url := serve(t, &typedrpc.Server{MaxPlainConns: 1, SignIn: signedIn()})
	for range 3 {
		_, resp, err := websocket.Dial(t.Context(), url, nil)
		is.True(err != nil)
		is.Equal(resp.StatusCode, http.StatusUnauthorized)
	}
}

func TestServer_check(t *testing.T) {
	is := is.New(t)
	is.NoErr((&typedrpc.Server{}).Check())
	is.NoErr((&typedrpc.Server{Origins: []string{"https://example.com", "http://localhost:3000"}}).Check())
	for want, srv := range map[string]*typedrpc.Server{
		"Limits.MaxMessage is -1":                                             {Limits: typedrpc.Limits{MaxMessage: -1}},
		"Limits.MaxMessage is 16777216":                                       {Limits: typedrpc.Limits{MaxMessage: 16 << 20}},
		"Limits.MaxDepth is 20000":                                            {Limits: typedrpc.Limits{MaxDepth: 20_000}},
		"Limits.KeepAlive is negative":                                        {Limits: typedrpc.Limits{KeepAlive: -1}},
		"MaxPlainConns, MaxMemory, MaxKept, MaxKeptBytes and ReconnectSpread": {MaxPlainConns: -1},
		`"example.com" is no origin`:                                          {Origins: []string{"example.com"}},
		`"https://a.com/" is no origin`:                                       {Origins: []string{"https://a.com/"}},
		`"*" is no origin`:                                                    {Origins: []string{"*"}},
		"Server.OutgoingRetry: RetryPolicy: MaxAtte":                          {OutgoingRetry: &typedrpc.RetryPolicy{MaxAttempts: -1}},
	} {
		t.Run(want, func(t *testing.T) {
			is := is.New(t)
			err := srv.Check()
			is.True(err != nil)
			is.True(strings.Contains(err.Error(), want))
			var log lab.Logs
			srv.Logger = log.Logger()
			status, body := upgrade(srv, func(*http.Request) {})
			is.Equal(status, http.StatusInternalServerError)
			is.True(!strings.Contains(body, want)) // for the log, not for strangers
			is.True(log.Has("misconfigured"))
			is.True(srv.Shutdown(t.Context()) != nil)
		})
	}
}
