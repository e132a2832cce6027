package link

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/typedrpc/typedrpc/internal/logs"
)

// maxRedirects is as many as net/http follows.
const maxRedirects = 10

// RedirectError says why a redirect was not followed.
type RedirectError struct {
	Status int
	Header http.Header // of the response
	Text   string
}

func (e *RedirectError) Error() string { return e.Text }

// checkRedirect makes the rule for redirects, which comes before the program's own;
// next may be nil. What the server gets after the request is as much a secret as
// what is in it, and of that net/http does not know.
func (o *DialOptions) checkRedirect(next func(*http.Request, []*http.Request) error) func(*http.Request, []*http.Request) error {
	return func(r *http.Request, via []*http.Request) error {
		from, to := via[len(via)-1].URL, r.URL
		refuse := func(format string, args ...any) error {
			e := &RedirectError{Text: fmt.Sprintf(format, args...)}
			if r.Response != nil {
				e.Status, e.Header = r.Response.StatusCode, r.Response.Header
			}
			return e
		}
		switch {
		case len(via) >= maxRedirects:
			return refuse("stopped after %d redirects, the last one to %s", maxRedirects, place(to))
		case to.Scheme != "http" && to.Scheme != "https":
			return refuse("redirected to %s, which is no address of a WebSocket", place(to))
		case from.Scheme == "https" && to.Scheme == "http":
			return refuse("redirected from %s to %s, which is not encrypted: never followed", place(from), place(to))
		}
		if r.Header.Del("Referer"); o.Header.Get("Referer") != "" { // else the address that was left, with its query
			r.Header["Referer"] = o.Header["Referer"]
		}
		first := via[0].URL
		carries := slices.Clone(o.Carries)
		if first.User != nil {
			carries = append(carries, "the user of the URL")
		}
		if c := o.HTTPClient; c != nil && c.Jar != nil && len(c.Jar.Cookies(to)) > 0 { // to which ports are all one
			carries = append(carries, "the cookies of HTTPClient.Jar")
		}
		switch {
		case SameServer(first, to), o.Trusted != nil && o.Trusted(to):
			// net/http has taken some away, on the way over another one perhaps.
			maps.Copy(r.Header, o.Header)
			if to.User == nil { // of which an address with a host says none
				to.User = first.User
			}
		case len(carries) > 0:
			return refuse("redirected to %s, another server, which would have to be given %s; dial that address, or allow it with %q in DialOptions.RedirectHosts",
				place(to), strings.Join(carries, ", "), to.Host)
		}
		if next != nil {
			return next(r, via)
		}
		return nil
	}
}

// SameServer reports whether who may have what is meant for from may have it at to:
// that is the same host and port, or the same host with encryption instead of none,
// for which it needs its certificate.
func SameServer(from, to *url.URL) bool {
	host, port := Authority(from)
	toHost, toPort := Authority(to)
	return host == toHost && (port == toPort && Encrypted(from) == Encrypted(to) || !Encrypted(from) && Encrypted(to))
}

// Encrypted reports whether a URL's scheme is one with TLS.
func Encrypted(u *url.URL) bool { return u.Scheme == "https" || u.Scheme == "wss" }

// Authority is the host and the port of a URL, with the scheme's port if it says
// none.
func Authority(u *url.URL) (host, port string) {
	host = strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if port = u.Port(); port == "" {
		port = "80"
		if Encrypted(u) {
			port = "443"
		}
	}
	return host, port
}

// place is a URL for texts: without user and query.
func place(u *url.URL) string {
	scheme := u.Scheme
	switch scheme {
	case "http":
		scheme = "ws"
	case "https":
		scheme = "wss"
	}
	return logs.Clip((&url.URL{Scheme: scheme, Host: u.Host, Path: u.Path}).String())
}
