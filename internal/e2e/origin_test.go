package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// malformed are texts that no page can come from, though a lenient parser finds an
// allowed origin in some.
var malformed = []string{
	"http://example.com?", "http://example.com#", "http://example.com?#", "http://example.com/?", "http://example.com/#",
	"http://example.com/", "http://example.com//", "http://example.com?a=b", "http://example.com#a",
	"http://example.com:", "http://example.com:0", "http://example.com:00080", "http://example.com:080",
	"http://example.com:65616", "http://example.com:99999999999999999999", "http://example.com:+80", "http://example.com:http",
	"http://example.com:80:80", "http://example.com: 80",
	"http://@example.com", "http://:@example.com", "http://a@example.com", "http://a:b@example.com", "http://example.com@",
	"http://", "http:", "http", "http:/example.com", "http:///example.com", "http:example.com", "//example.com", "://example.com", "http://:80",
	"http:\\\\example.com", "http://example.com\\", "http://evil.com\\example.com",
	"http://exam%70le.com", "http://example.com%00", "http://example.com%2f", "http://%65xample.com",
	"http://exämple.com", "http://example。com", "http://EXAMPLE.ſom",
	"http://[::1%25eth0]", "http://[::1%eth0]", "http://[fe80::1%25lo]:80", "http://[::1", "http://::1", "http://::1]", "http://[]", "http://[example.com]", "http://[127.0.0.1]", "http://[::1]a", "http://[[::1]]", "http://[::1]:",
	" http://example.com", "http://example.com ", "http:// example.com", "http://example.com\t", "http://exam\tple.com",
	"http://example.com\x00", "http://example.com\x7f", "http://example.com\n", "http://example.com\r\nX: y",
	"http://example.com http://example.com", "http://example.com,http://example.com", "http://example.com, http://example.com",
	"null", "NULL", "*", "http://*", "http://*.example.com", "file://", "ws://example.com", "data:text/html,x", "blob:http://example.com",
	"http://.", "http://.:80", "http://" + strings.Repeat("a", 270), "http://example.com" + strings.Repeat("\x00", 900<<10),
}

func TestOrigin_malformed(t *testing.T) {
	for _, text := range malformed {
		t.Run(fmt.Sprintf("%.40q", text), func(t *testing.T) {
			is := is.New(t)
			err := (&typedrpc.Server{Origins: []string{text}}).Check()
			is.True(err != nil)                                 // not to be listed
			is.True(strings.Contains(err.Error(), "no origin")) // and the program is told
			is.True(len(err.Error()) < 2<<10)                   // briefly
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				status, body := upgrade(&typedrpc.Server{}, func(r *http.Request) {
					r.Method = method
					r.Header.Set("Origin", text)
				})
				is.Equal(status, http.StatusForbidden)
				is.True(strings.Contains(body, "is not allowed"))
				is.True(len(body) < 2<<10) // what is echoed is cut
			}
		})
	}
}

// TestOrigin_doors are requests by all that can be said of where they come from.
func TestOrigin_doors(t *testing.T) {
	own, listed := "http://example.com", "https://app.example.org"
	for _, tt := range []struct {
		name    string
		origins []string
		fetch   []string // Sec-Fetch-Site
		host    string
		allowed bool
	}{
		{name: "no browser", allowed: true},
		{name: "own", origins: []string{own}, allowed: true},
		{name: "own twice", origins: []string{own, own}},
		{name: "own, then another", origins: []string{own, "http://evil.com"}},
		{name: "another, then own", origins: []string{"http://evil.com", own}},
		{name: "listed twice", origins: []string{listed, listed}},
		{name: "own and none", origins: []string{own, ""}},
		{name: "an empty one", origins: []string{""}},

		{name: "no origin, cross-site", fetch: []string{"cross-site"}},
		{name: "no origin, same-site", fetch: []string{"same-site"}},
		{name: "no origin, same-origin", fetch: []string{"same-origin"}, allowed: true},
		{name: "no origin, none", fetch: []string{"none"}, allowed: true},
		{name: "no origin, empty", fetch: []string{""}, allowed: true},
		{name: "no origin, unheard of", fetch: []string{"next-door"}},
		{name: "no origin, other case", fetch: []string{"Same-Origin"}},
		{name: "no origin, two that contradict", fetch: []string{"same-origin", "cross-site"}},
		{name: "no origin, a list", fetch: []string{"same-origin, cross-site"}},

		{name: "own, same-origin", origins: []string{own}, fetch: []string{"same-origin"}, allowed: true},
		{name: "own, none", origins: []string{own}, fetch: []string{"none"}, allowed: true},
		{name: "own by name, but the browser knows better", origins: []string{own}, fetch: []string{"cross-site"}},
		{name: "own by name, of another scheme", origins: []string{own}, fetch: []string{"same-site"}},
		{name: "listed, cross-site", origins: []string{listed}, fetch: []string{"cross-site"}, allowed: true},
		{name: "listed, same-site", origins: []string{listed}, fetch: []string{"same-site"}, allowed: true},
		{name: "foreign, same-origin", origins: []string{"http://evil.com"}, fetch: []string{"same-origin"}},
		{name: "foreign, none", origins: []string{"http://evil.com"}, fetch: []string{"none"}},
		{name: "foreign, cross-site", origins: []string{"http://evil.com"}, fetch: []string{"cross-site"}},
		{name: "null, same-origin", origins: []string{"null"}, fetch: []string{"same-origin"}},

		{name: "upper case", origins: []string{"HTTP://EXAMPLE.COM:80"}, allowed: true},
		{name: "a last dot", origins: []string{"http://example.com."}, allowed: true},
		{name: "a last dot on both", origins: []string{"http://example.com."}, host: "example.com.", allowed: true},
		{name: "punycode", origins: []string{"http://xn--bcher-kva.example"}, host: "xn--bcher-kva.example", allowed: true},
		{name: "underscore", origins: []string{"http://my_host:8080"}, host: "my_host:8080", allowed: true},
		{name: "IPv6, spelled otherwise", origins: []string{"http://[2001:DB8:0:0::1]"}, host: "[2001:db8::1]", allowed: true},
		{name: "IPv6, another port", origins: []string{"http://[2001:db8::1]:81"}, host: "[2001:db8::1]"},
		{name: "a host with a user", origins: []string{own}, host: "a@example.com"},
		{name: "a host with an empty port", origins: []string{own}, host: "example.com:"},
		{name: "a host with a path", origins: []string{own}, host: "example.com/"},
		{name: "no host", origins: []string{own}, host: " "},
		{name: "listed, whatever the host", origins: []string{listed}, host: "a@b:c", allowed: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				change := func(r *http.Request) {
					r.Method = method
					r.Header["Origin"], r.Header["Sec-Fetch-Site"] = tt.origins, tt.fetch
					r.Header.Set("Content-Type", "application/json")
					if r.Host = "example.com"; tt.host != "" {
						r.Host = tt.host
					}
					r.Body = io.NopCloser(strings.NewReader(`{"jsonrpc":"2.0","method":"x"}`))
				}
				status, body := upgrade(&typedrpc.Server{Origins: []string{listed}}, change)
				is.Equal(status != http.StatusForbidden, tt.allowed)
				is.Equal(strings.Contains(body, "is not allowed"), !tt.allowed)
				status, _ = upgrade(&typedrpc.Server{DangerouslyAllowAnyOrigin: true}, change)
				is.True(status != http.StatusForbidden)
			}
		})
	}
}

// TestOrigin_hosts sends what is no Host to a server on a loopback address: for a
// page that says it comes from there, and for what is no browser.
func TestOrigin_hosts(t *testing.T) {
	srv := &typedrpc.Server{Origins: []string{"http://[2001:db8::1]:3000"}}
	lab.Quiet(srv, &typedrpc.DialOptions{})
	addr := strings.TrimPrefix(strings.TrimSuffix(serve(t, srv), "/rpc"), "http://")
	addr, _, _ = strings.Cut(addr, "/")
	for head, want := range map[string]int{
		"Host: localhost":                  http.StatusNoContent,
		"Host: localhost.":                 http.StatusNoContent,
		"Host: LOCALHOST:80":               http.StatusNoContent,
		"Host: [::1]":                      http.StatusNoContent,
		"Host: [::ffff:127.0.0.1]:1":       http.StatusNoContent,
		"Host: [2001:DB8::1]":              http.StatusNoContent, // listed
		"Host: evil.com":                   http.StatusForbidden,
		"Host: localhost:":                 http.StatusForbidden,
		"Host: localhost:0":                http.StatusForbidden,
		"Host: ::1":                        http.StatusForbidden,
		"Host: [::1%25lo]":                 http.StatusForbidden,
		"Host: [localhost]":                http.StatusForbidden,
		"Host: evil.com@localhost":         http.StatusBadRequest, // by net/http
		"Host: evil.com?.localhost":        http.StatusBadRequest,
		"Host: evil.com:80:localhost":      http.StatusForbidden,
		"Host: 2130706433":                 http.StatusForbidden,
		"Host: ":                           http.StatusForbidden,
		"Host: localhost\r\nHost: evil.co": http.StatusBadRequest,
		"Host: localhost\r\nHost: ":        http.StatusBadRequest,
		"X: y":                             http.StatusBadRequest,
	} {
		for _, browser := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, browser %v", head, browser), func(t *testing.T) {
				is := is.New(t)
				head, want := head, want
				switch {
				case browser:
					_, host, _ := strings.Cut(head, ": ")
					head += "\r\nOrigin: http://" + host
				case want == http.StatusForbidden:
					want = http.StatusNoContent // nobody has led it here
				}
				c, err := net.Dial("tcp", addr)
				is.NoErr(err)
				defer c.Close()
				const body = `{"jsonrpc":"2.0","method":"x"}`
				fmt.Fprintf(c, "POST / HTTP/1.1\r\n%s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", head, len(body), body)
				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				is.NoErr(err)
				resp.Body.Close()
				is.Equal(resp.StatusCode, want)
			})
		}
	}
}
