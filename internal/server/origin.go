package server

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/typedrpc/typedrpc/internal/logs"
)

// origin is a web origin (RFC 6454): what the browser says that a page comes
// from. Scheme and host are in lower case, and the port is a number.
type origin struct{ scheme, host, port string }

// parseOrigin reads what browsers write, and no more: net/url takes an empty port,
// query or fragment, user names, zones and hosts in any script, none of which a page
// can come from.
func parseOrigin(s string) (origin, error) {
	scheme, hostport, _ := strings.Cut(s, "://")
	if o, ok := newOrigin(scheme, hostport); ok {
		return o, nil
	}
	return origin{}, fmt.Errorf("%q is no origin; write scheme://host or scheme://host:port, in ASCII", logs.Clip(s))
}

// newOrigin makes an origin of a scheme and a host that may have a port.
func newOrigin(scheme, hostport string) (o origin, ok bool) {
	o.scheme = strings.ToLower(scheme)
	usual := map[string]string{"http": "80", "https": "443"}[o.scheme]
	if o.host, o.port, ok = splitHost(hostport, usual); !ok || usual == "" {
		return origin{}, false
	}
	return o, true
}

// splitHost takes a host, which is a name or an address in brackets, and its port
// apart. A name with a dot at its end is the same host.
func splitHost(s, usualPort string) (host, port string, ok bool) {
	if len(s) > maxHost+len(":65535") {
		return "", "", false
	}
	host, port = s, usualPort
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') {
		host, port = s[:i], s[i+1:]
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' {
			return "", "", false
		}
	}
	if in, ok := strings.CutPrefix(host, "["); ok {
		in, closed := strings.CutSuffix(in, "]")
		a, err := netip.ParseAddr(in)
		if !closed || err != nil || !a.Is6() || a.Zone() != "" {
			return "", "", false
		}
		return a.String(), port, true
	}
	for _, c := range []byte(host) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return "", "", false
		}
	}
	if host = strings.ToLower(strings.TrimSuffix(host, ".")); host == "" {
		return "", "", false
	}
	return host, port, true
}

// maxHost is how long a name can be in the DNS, with its last dot.
const maxHost = 254

// checkOrigin refuses pages of foreign origins, compared exactly, and, on a
// loopback address, pages of foreign host names: a page can point its own name there.
// What is no browser may come by any name, through a proxy on this machine for
// example.
//
// What the browser itself says of where a page comes from (Sec-Fetch-Site) is asked
// too: of a request without an origin there is nothing else, and one's own origin is
// a guess, since a proxy may have changed the scheme. An origin that is listed needs
// no more.
func (s *Server) checkOrigin(r *http.Request) error {
	if s.o.AnyOrigin {
		return nil
	}
	texts := r.Header.Values("Origin")
	if len(texts) > 1 {
		return errors.New("a request with several origins is not allowed")
	}
	if len(texts) == 0 {
		if isForeign(r) {
			return errors.New("a request that a page of another site makes without an origin is not allowed")
		}
		if isBrowser(r) {
			return s.checkHost(r)
		}
		return nil
	}
	text := logs.Clip(texts[0])
	got, err := parseOrigin(texts[0])
	if err != nil {
		return fmt.Errorf("origin %q is not allowed", text)
	}
	if slices.Contains(s.origins, got) {
		return nil
	}
	if err := s.checkHost(r); err != nil {
		return err
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	own, ok := newOrigin(scheme, r.Host)
	switch {
	case ok && got == own && !isForeign(r):
		return nil
	case ok && got.host == own.host && got.scheme == "https" && r.TLS == nil:
		return fmt.Errorf("origin %q is not allowed here: over TLS it would be this server's own; if a proxy ends TLS, list it in Server.Origins", text)
	}
	return fmt.Errorf("origin %q is not allowed here; Server.Origins can allow it", text)
}

// isBrowser reports whether a request without an origin may be a browser's all the
// same: old ones left it out of a POST to where their page came from.
func isBrowser(r *http.Request) bool {
	return strings.HasPrefix(r.UserAgent(), "Mozilla/") || r.Header.Get("Sec-Fetch-Site") != ""
}

// isForeign reports whether a browser says that the page is of another origin. What
// it may say besides, today or one day, is the same.
func isForeign(r *http.Request) bool {
	for _, v := range r.Header.Values("Sec-Fetch-Site") {
		if v != "" && v != "same-origin" && v != "none" {
			return true
		}
	}
	return false
}

// checkHost refuses the pages of names that are not this machine's where only this
// machine can connect.
func (s *Server) checkHost(r *http.Request) error {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if local == nil || !isLoopback(local.String()) {
		return nil
	}
	host, _, ok := splitHost(r.Host, "")
	if ok && (host == "localhost" || strings.HasSuffix(host, ".localhost") || isLoopback(host)) {
		return nil
	}
	for _, o := range s.origins {
		if ok && o.host == host {
			return nil
		}
	}
	return fmt.Errorf("a page of host %q is not allowed on a loopback address; if a proxy on this machine serves that host, list its origin in Server.Origins", logs.Clip(r.Host))
}

// isLoopback reports whether s is a loopback address, with or without port.
func isLoopback(s string) bool {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().IsLoopback()
	}
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return err == nil && a.Unmap().IsLoopback()
}
