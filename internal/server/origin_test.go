package server

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/matryer/is"
)

func TestParseOrigin(t *testing.T) {
	for text, want := range map[string]origin{
		"http://a.example":           {"http", "a.example", "80"},
		"https://a.example":          {"https", "a.example", "443"},
		"https://a.example:80":       {"https", "a.example", "80"},
		"HTTPS://A.Example.:8443":    {"https", "a.example", "8443"},
		"http://[2001:DB8::1]:8080":  {"http", "2001:db8::1", "8080"},
		"http://[::1]":               {"http", "::1", "80"},
		"":                           {},
		"null":                       {},
		"a.example":                  {},
		"//a.example":                {},
		"ftp://a.example":            {},
		"ws://a.example":             {},
		"https://":                   {},
		"https:a.example":            {},
		"https://a.example/":         {},
		"https://a.example/x":        {},
		"https://a.example?x":        {},
		"https://a.example#x":        {},
		"https://u@a.example":        {},
		"https://a.example:port":     {},
		"https://a.example https://": {},
		"https://[::1":               {},
	} {
		t.Run(text, func(t *testing.T) {
			is := is.New(t)
			got, err := parseOrigin(text)
			is.Equal(got, want)
			is.Equal(err != nil, want == origin{})
		})
	}
}

func TestNew_originsThatAreNone(t *testing.T) {
	is := is.New(t)
	_, err := New(Options{Origins: []string{"https://a.example", "a.example/x"}})
	is.True(err != nil)
	is.True(strings.HasPrefix(err.Error(), "typedrpc: Server.Origins: "))
	is.True(strings.Contains(err.Error(), "a.example/x"))
}

func TestIsLoopback(t *testing.T) {
	is := is.New(t)
	for _, s := range []string{"127.0.0.1", "127.9.9.9:80", "::1", "[::1]", "[::1]:80", "::ffff:127.0.0.1", "[::ffff:127.0.0.1]:80"} {
		is.True(isLoopback(s))
	}
	for _, s := range []string{"", "localhost", "128.0.0.1", "126.255.255.255:80", "0.0.0.0", "::", "[2001:db8::1]:80", "127.0.0.1.example", "@"} {
		is.True(!isLoopback(s))
	}
}

func TestServer_checkOrigin(t *testing.T) {
	const loopback, public = "127.0.0.1:80", "192.0.2.1:80"
	for _, tt := range []struct {
		name, host, origin, local string
		tls, ok                   bool
		agent                     string
	}{
		{name: "no browser", host: "srv.example", ok: true},
		{name: "own", host: "srv.example", origin: "http://srv.example:80", ok: true},
		{name: "own over TLS", host: "srv.example:443", origin: "https://srv.example", tls: true, ok: true},
		{name: "other scheme", host: "srv.example", origin: "https://srv.example"},
		{name: "other scheme over TLS", host: "srv.example", origin: "http://srv.example", tls: true},
		{name: "its scheme and the other's port", host: "srv.example:443", origin: "https://srv.example"},
		{name: "other port", host: "srv.example", origin: "http://srv.example:81"},
		{name: "listed", host: "srv.example", origin: "https://app.example:443", ok: true},
		{name: "listed second", host: "srv.example", origin: "http://dev.example:3000", ok: true},
		{name: "listed, other scheme", host: "srv.example", origin: "http://app.example:443"},
		{name: "listed, other port", host: "srv.example", origin: "http://dev.example"},
		{name: "below a listed one", host: "srv.example", origin: "https://x.app.example"},
		{name: "null", host: "srv.example", origin: "null"},
		{name: "public address, any host", host: "evil.example", local: public, ok: true},
		{name: "loopback", host: "localhost:80", local: loopback, ok: true},
		{name: "loopback by address", host: "127.0.0.2", local: loopback, ok: true},
		{name: "loopback, IPv6", host: "[::1]:80", local: "[::1]:80", ok: true},
		{name: "loopback, IPv6 without port", host: "[::1]", local: "[::1]:80", ok: true},
		{name: "loopback, name below", host: "App.Localhost.", local: loopback, ok: true},
		{name: "loopback, listed host on any port", host: "app.example:9", local: loopback, ok: true},
		{name: "loopback, foreign host", host: "evil.example", local: loopback, ok: true}, // through a proxy, say
		{name: "loopback, foreign host, old browser", host: "evil.example", local: loopback, agent: "Mozilla/5.0 (X11)"},
		{name: "loopback, own host, old browser", host: "localhost", local: loopback, agent: "Mozilla/5.0 (X11)", ok: true},
		{name: "loopback, proxy's host, listed page", host: "backend", origin: "https://app.example", local: loopback, ok: true},
		{name: "loopback, proxy's host, its own page", host: "proxied.example", origin: "https://proxied.example", local: loopback},
		{name: "loopback, foreign host that is its own origin", host: "evil.example", origin: "http://evil.example", local: loopback},
		{name: "loopback, suffix without a dot", host: "evillocalhost", origin: "http://evillocalhost", local: loopback},
		{name: "loopback, no host", host: "", origin: "http://localhost", local: loopback},
		{name: "loopback, foreign page", host: "localhost", origin: "http://evil.example", local: loopback},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			r := httptest.NewRequest(http.MethodGet, "http://pipe/", nil)
			r.Host = tt.host
			if tt.tls {
				r.TLS = new(tls.ConnectionState)
			}
			if tt.origin != "" {
				r.Header.Set("Origin", tt.origin)
			}
			r.Header.Set("User-Agent", tt.agent)
			if tt.local != "" {
				addr, err := net.ResolveTCPAddr("tcp", tt.local)
				is.NoErr(err)
				r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(addr)))
			}
			s, _ := echoServer(t, func(o *Options) { o.Origins = []string{"https://app.example", "http://dev.example:3000"} })
			is.Equal(s.checkOrigin(r) == nil, tt.ok)
			s, _ = echoServer(t, func(o *Options) { o.AnyOrigin = true })
			is.NoErr(s.checkOrigin(r))
		})
	}
}

// What a refusal says is what to do about it.
func TestServer_checkOriginSaysWhatToSet(t *testing.T) {
	is := is.New(t)
	s, _ := echoServer(t, nil)
	r := httptest.NewRequest(http.MethodGet, "http://pipe/", nil)
	r.Host = "app.example"
	r.Header.Set("Origin", "https://app.example")
	is.Equal(s.checkOrigin(r).Error(), `origin "https://app.example" is not allowed here: over TLS it would be this server's own; if a proxy ends TLS, list it in Server.Origins`)
	r.Header.Set("Origin", "https://other.example")
	is.Equal(s.checkOrigin(r).Error(), `origin "https://other.example" is not allowed here; Server.Origins can allow it`)
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: net.IPv6loopback})))
	r.Header.Set("Origin", "http://app.example")
	is.Equal(s.checkOrigin(r).Error(), `a page of host "app.example" is not allowed on a loopback address; if a proxy on this machine serves that host, list its origin in Server.Origins`)
}
