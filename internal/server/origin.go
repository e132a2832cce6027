package server

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// origin is a web origin (RFC 6454): what the browser says that a page comes
// from.
type origin struct{ scheme, host, port string }

func parseOrigin(s string) (origin, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
		return origin{}, fmt.Errorf("%q is no origin; write scheme://host or scheme://host:port", s)
	}
	return newOrigin(u.Scheme, u.Host), nil
}

func newOrigin(scheme, hostport string) origin {
	u := url.URL{Host: hostport}
	o := origin{strings.ToLower(scheme), strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")), u.Port()}
	if o.port == "" {
		o.port = map[string]string{"http": "80", "https": "443"}[o.scheme]
	}
	return o
}

// checkOrigin refuses pages of foreign origins, compared exactly, and, on a
// loopback address, foreign host names: a page can point its own name there.
func (s *Server) checkOrigin(r *http.Request) error {
	if s.o.AnyOrigin {
		return nil
	}
	if err := s.checkHost(r); err != nil {
		return err
	}
	text := r.Header.Get("Origin")
	if text == "" {
		return nil // no browser
	}
	got, err := parseOrigin(text)
	if err != nil {
		return fmt.Errorf("origin %q is not allowed", text)
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	if got == newOrigin(scheme, r.Host) {
		return nil
	}
	for _, o := range s.origins {
		if got == o {
			return nil
		}
	}
	return fmt.Errorf("origin %q is not allowed here; Server.Origins can allow it", text)
}

func (s *Server) checkHost(r *http.Request) error {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if local == nil || !isLoopback(local.String()) {
		return nil
	}
	host := newOrigin("http", r.Host).host
	if host == "localhost" || strings.HasSuffix(host, ".localhost") || isLoopback(r.Host) || isLoopback(host) {
		return nil
	}
	for _, o := range s.origins {
		if o.host == host {
			return nil
		}
	}
	return fmt.Errorf("host %q is not allowed on a loopback address; Server.Origins can allow it", r.Host)
}

// isLoopback reports whether s is a loopback address, with or without port.
func isLoopback(s string) bool {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().IsLoopback()
	}
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return err == nil && a.Unmap().IsLoopback()
}
