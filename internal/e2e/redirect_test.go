package e2e_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

const secret = "s3cret"

// places are hosts that one server is reached by, at any port: with TLS at those
// that end in 443. Some of its addresses lead to others.
type places struct {
	srv    *typedrpc.Server
	client *http.Client

	mu    sync.Mutex
	leads map[string]string   // "host:port/path": Location
	asked []string            // addresses, in order
	seen  map[string][]string // host:port: what came there, heads and HELLOs
}

func newPlaces(t *testing.T, srv *typedrpc.Server) *places {
	s := &places{srv: srv, leads: map[string]string{}, seen: map[string][]string{}}
	lab.Quiet(srv, &typedrpc.DialOptions{})
	plain, secure := httptest.NewServer(s), httptest.NewTLSServer(s)
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	s.client = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			to := plain.Listener.Addr()
			if strings.HasSuffix(addr, "443") {
				to = secure.Listener.Addr()
			}
			return new(net.Dialer).DialContext(ctx, to.Network(), to.String())
		},
	}}
	return s
}

// at is host and port of a request.
func at(r *http.Request) string {
	if strings.Contains(r.Host, ":") {
		return r.Host
	}
	if r.TLS != nil {
		return r.Host + ":443"
	}
	return r.Host + ":80"
}

func (s *places) note(where, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[where] = append(s.seen[where], what)
}

func (s *places) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.note(at(r), fmt.Sprint(r.RequestURI, r.Header))
	s.mu.Lock()
	s.asked = append(s.asked, at(r)+r.URL.Path)
	to := s.leads[at(r)+r.URL.Path]
	s.mu.Unlock()
	if to != "" {
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusFound)
		return
	}
	s.srv.ServeHTTP(w, r)
}

func (s *places) lead(from, to string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leads[from] = to
}

// toldSecret reports which hosts have seen the secret.
func (s *places) toldSecret() (hosts []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for host, all := range s.seen {
		if strings.Contains(strings.Join(all, "\n"), secret) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// carried are the ways in which a program has a secret, and whether the server that
// is dialled gets it in HELLO or in the request.
func carried(signIn typedrpc.SignIn[string, struct{}]) map[string]func(s *places, o *typedrpc.DialOptions, url string) string {
	header := func(name, value string) func(*places, *typedrpc.DialOptions, string) string {
		return func(_ *places, o *typedrpc.DialOptions, url string) string {
			o.Header = http.Header{name: {value}}
			return url
		}
	}
	return map[string]func(s *places, o *typedrpc.DialOptions, url string) string{
		"SignIn": func(_ *places, o *typedrpc.DialOptions, url string) string {
			o.SignIn = signIn.Present(func(context.Context) (string, error) { return secret, nil })
			return url
		},
		"SignIn over Text": func(_ *places, o *typedrpc.DialOptions, url string) string {
			o.Dialect = typedrpc.Text
			o.SignIn = signIn.Present(func(context.Context) (string, error) { return secret, nil })
			return url
		},
		"Authorization":                  header("Authorization", "Bearer "+secret),
		"authorization":                  header("authorization", "Bearer "+secret),
		"Cookie":                         header("Cookie", "session="+secret),
		"X-Api-Key":                      header("X-Api-Key", secret),
		"Proxy":                          header("Proxy-Authorization", secret),
		"a token among the subprotocols": header("Sec-WebSocket-Protocol", "token."+secret),
		"URL": func(_ *places, _ *typedrpc.DialOptions, url string) string {
			return strings.Replace(url, "://", "://user:"+secret+"@", 1)
		},
	}
}

// TestRedirect_credentials is the table of redirects: where from, where to, and
// whether somebody with credentials is led there, and somebody without.
func TestRedirect_credentials(t *testing.T) {
	signIn := typedrpc.NewSignIn[string, struct{}]()
	for _, tt := range []struct {
		from, to   string
		allow      []string
		with, bare bool
		says       string // of what is not followed
		landed     string
	}{
		{from: "ws://a.example/", to: "/rpc", with: true, bare: true, landed: "a.example:80"},
		{from: "wss://a.example/", to: "/rpc", with: true, bare: true, landed: "a.example:443"},
		{from: "wss://a.example/", to: "wss://a.example/rpc", with: true, bare: true, landed: "a.example:443"},
		{from: "wss://a.example/", to: "https://A.EXAMPLE:443/rpc", with: true, bare: true, landed: "A.EXAMPLE:443"},
		{from: "wss://a.example:8443/", to: "wss://a.example:8443/rpc", with: true, bare: true, landed: "a.example:8443"},
		{from: "ws://a.example/", to: "wss://a.example/rpc", with: true, bare: true, landed: "a.example:443"},
		{from: "ws://a.example:8080/", to: "https://a.example:8443/rpc", with: true, bare: true, landed: "a.example:8443"},
		{from: "http://a.example/", to: "//a.example/rpc", with: true, bare: true, landed: "a.example:80"},

		// Encryption is not given up, whatever is allowed.
		{from: "wss://a.example/", to: "ws://a.example/rpc", says: "not encrypted"},
		{from: "wss://a.example/", to: "http://a.example:443/rpc", says: "not encrypted"},
		{from: "https://a.example/", to: "http://b.example/rpc", says: "not encrypted"},
		{from: "wss://a.example/", to: "ws://b.example/rpc", allow: []string{"b.example"}, says: "not encrypted"},

		// Another host, or another port, is another server.
		{from: "wss://a.example/", to: "wss://b.example/rpc", bare: true, landed: "b.example:443", says: `"b.example" in DialOptions.RedirectHosts`},
		{from: "ws://a.example/", to: "ws://b.example/rpc", bare: true, landed: "b.example:80", says: `"b.example" in DialOptions.RedirectHosts`},
		{from: "ws://a.example/", to: "wss://b.example/rpc", bare: true, landed: "b.example:443", says: `"b.example" in`},
		{from: "wss://a.example/", to: "wss://a.example:8443/rpc", bare: true, landed: "a.example:8443", says: `"a.example:8443" in`},
		{from: "ws://a.example:8080/", to: "ws://a.example:8081/rpc", bare: true, landed: "a.example:8081", says: `"a.example:8081" in`},
		{from: "wss://a.example/", to: "wss://x.a.example/rpc", bare: true, landed: "x.a.example:443", says: `"x.a.example" in`},
		{from: "wss://x.a.example/", to: "wss://a.example/rpc", bare: true, landed: "a.example:443", says: `"a.example" in`},
		{from: "wss://a.example/", to: "wss://a.example.b.example/rpc", bare: true, landed: "a.example.b.example:443", says: `"a.example.b.example" in`},
		{from: "wss://a.example/", to: "wss://a.example@b.example/rpc", bare: true, landed: "b.example:443", says: `"b.example" in`},
		{from: "ws://127.0.0.1:8080/", to: "ws://localhost:8080/rpc", bare: true, landed: "localhost:8080", says: `"localhost:8080" in`},

		// Unless it is allowed, by name and port.
		{from: "wss://a.example/", to: "wss://b.example/rpc", allow: []string{"B.example"}, with: true, bare: true, landed: "b.example:443"},
		{from: "wss://a.example/", to: "wss://b.example/rpc", allow: []string{"c.example", "b.example:443"}, with: true, bare: true, landed: "b.example:443"},
		{from: "wss://a.example/", to: "wss://b.example:8443/rpc", allow: []string{"b.example:8443"}, with: true, bare: true, landed: "b.example:8443"},
		{from: "wss://a.example/", to: "wss://b.example:8443/rpc", allow: []string{"b.example"}, bare: true, landed: "b.example:8443", says: `"b.example:8443" in`},
		{from: "wss://a.example/", to: "wss://n1.b.example/rpc", allow: []string{"*.b.example"}, with: true, bare: true, landed: "n1.b.example:443"},
		{from: "wss://a.example/", to: "wss://b.example/rpc", allow: []string{"*.b.example"}, bare: true, landed: "b.example:443", says: `"b.example" in`},
		{from: "wss://a.example/", to: "wss://evilb.example/rpc", allow: []string{"*.b.example", "b.example"}, bare: true, landed: "evilb.example:443", says: `"evilb.example" in`},

		// What is no WebSocket's address.
		{from: "wss://a.example/", to: "ftp://a.example/rpc", says: "no address of a WebSocket"},
		{from: "wss://a.example/", to: "file:///etc/passwd", says: "no address of a WebSocket"},
	} {
		ways := carried(signIn)
		ways["nothing"] = func(_ *places, _ *typedrpc.DialOptions, url string) string { return url }
		ways["a query and public headers"] = func(_ *places, o *typedrpc.DialOptions, url string) string {
			o.Header = http.Header{"User-Agent": {"u"}, "Origin": {"https://app.example"}}
			return url + "?token=" + secret
		}
		ways["a jar"] = func(s *places, _ *typedrpc.DialOptions, target string) string {
			jar, _ := cookiejar.New(nil)
			u, _ := url.Parse(strings.Replace(target, "ws", "http", 1))
			jar.SetCookies(u, []*http.Cookie{{Name: "session", Value: secret}})
			s.client.Jar = jar
			return target
		}
		for way, take := range ways {
			t.Run(fmt.Sprintf("%s to %s, allowed %v, with %s", tt.from, tt.to, tt.allow, way), func(t *testing.T) {
				is := is.New(t)
				var s *places
				srv := &typedrpc.Server{
					Origins: []string{"https://app.example"},
					SignIn: signIn.Verify(func(_ context.Context, r *http.Request, c *string) (typedrpc.Identity, struct{}, error) {
						s.note(at(r), lab.Or(c))
						return typedrpc.Identity{}, struct{}{}, nil
					}),
				}
				s = newPlaces(t, srv)
				from, err := url.Parse(tt.from)
				is.NoErr(err)
				port := from.Port()
				if port == "" {
					port = map[bool]string{true: "443", false: "80"}[from.Scheme == "wss" || from.Scheme == "https"]
				}
				s.lead(from.Hostname()+":"+port+"/", tt.to)
				o := &typedrpc.DialOptions{HTTPClient: s.client, RedirectHosts: tt.allow}
				bare := way == "nothing" || way == "a query and public headers"
				if to, err := from.Parse(tt.to); way == "a jar" && err == nil {
					bare = to.Hostname() != from.Hostname() // else the jar gives its cookies away, at any port
				}
				c, err := typedrpc.Dial(t.Context(), take(s, o, tt.from), o)
				if err == nil {
					c.Close()
				}
				follows := bare && tt.bare || !bare && tt.with
				if !follows {
					e := lab.AsError(t, err)
					is.True(strings.Contains(e.Message, tt.says) || tt.says == "")
					is.True(!strings.Contains(e.Message, secret))
					is.Equal(e.Outcome, typedrpc.NotSent)
					var u *typedrpc.UpgradeError
					is.True(errors.As(err, &u))
					is.Equal(u.Status, http.StatusFound)
					is.Equal(u.Header.Get("Location"), tt.to)
				} else {
					is.NoErr(err)
					is.Equal(s.last(), tt.landed+"/rpc")
				}
				for _, host := range s.toldSecret() {
					if host != from.Hostname()+":"+port && !(tt.with && strings.EqualFold(host, tt.landed)) {
						t.Errorf("%s was told the secret", host)
					}
				}
				if !bare && follows && way != "URL" && way != "a jar" && !strings.Contains(strings.Join(s.toldSecret(), " "), tt.landed) {
					t.Errorf("%s was not told the secret, and may be", tt.landed)
				}
			})
		}
	}
}

func (s *places) last() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[len(s.asked)-1]
}

func TestRedirect_loops(t *testing.T) {
	for name, script := range map[string]func(s *places){
		"to itself": func(s *places) { s.lead("a.example:443/", "/") },
		"to and fro": func(s *places) {
			s.lead("a.example:443/", "wss://b.example/")
			s.lead("b.example:443/", "wss://a.example/")
		},
		"ever on": func(s *places) {
			for i := range 40 {
				s.lead(fmt.Sprintf("a.example:443/%s", strings.Repeat("x", i)), "/"+strings.Repeat("x", i+1))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			s := newPlaces(t, &typedrpc.Server{})
			script(s)
			_, err := typedrpc.Dial(t.Context(), "wss://a.example/", &typedrpc.DialOptions{HTTPClient: s.client})
			e := lab.AsError(t, err)
			is.True(strings.Contains(e.Message, "stopped after 10 redirects"))
			is.Equal(e.Code, typedrpc.Unavailable)
			is.Equal(len(s.asked), 10)
		})
	}
	t.Run("nine are followed", func(t *testing.T) {
		is := is.New(t)
		s := newPlaces(t, &typedrpc.Server{})
		for i := range 9 {
			s.lead("a.example:443/"+strings.Repeat("x", i), "/"+strings.Repeat("x", i+1))
		}
		c, err := typedrpc.Dial(t.Context(), "wss://a.example/", &typedrpc.DialOptions{HTTPClient: s.client})
		is.NoErr(err)
		is.NoErr(c.Close())
	})
}

// The program's own rule holds besides.
func TestRedirect_ownRule(t *testing.T) {
	is := is.New(t)
	s := newPlaces(t, &typedrpc.Server{})
	s.lead("a.example:443/", "/rpc")
	s.client.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		is.Equal(r.URL.String(), "https://a.example/rpc")
		is.Equal(len(via), 1)
		return http.ErrUseLastResponse
	}
	_, err := typedrpc.Dial(t.Context(), "wss://a.example/", &typedrpc.DialOptions{HTTPClient: s.client})
	var u *typedrpc.UpgradeError
	is.True(errors.As(err, &u))
	is.Equal(u.Status, http.StatusFound)
	is.Equal(len(s.asked), 1)
}

// A captive portal leads astray for a while: the connection comes back after it.
func TestRedirect_isNotTheEnd(t *testing.T) {
	is := is.New(t)
	s := newPlaces(t, &typedrpc.Server{})
	changes := make(chan typedrpc.StateChange, 100)
	c, err := typedrpc.Dial(t.Context(), "wss://a.example/", &typedrpc.DialOptions{
		HTTPClient: s.client, Backoff: typedrpc.Backoff{Min: 1, Max: 1},
		OnState: func(c typedrpc.StateChange) { changes <- c },
	})
	is.NoErr(err)
	defer c.Close()
	until(changes, func(c typedrpc.StateChange) bool { return c.State == typedrpc.StateConnected })
	s.lead("a.example:443/", "http://portal.example/")
	c.Reconnect()
	until(changes, func(c typedrpc.StateChange) bool {
		return c.Err != nil && strings.Contains(c.Err.Error(), "not encrypted")
	})
	s.lead("a.example:443/", "")
	last := until(changes, func(c typedrpc.StateChange) bool { return c.State == typedrpc.StateConnected })
	is.True(last.Resumed)
	is.Equal(s.seen["portal.example:80"], nil)
}

func until(changes chan typedrpc.StateChange, is func(typedrpc.StateChange) bool) typedrpc.StateChange {
	for c := range changes {
		if is(c) {
			return c
		}
	}
	panic("not reached: nobody closes it")
}

// A session's token is a credential, too: it goes to the server that gave it, and to
// those that may have the others.
func TestRedirect_sessionTokens(t *testing.T) {
	for _, tt := range []struct {
		name    string
		early   bool // it is led there from the beginning
		allow   []string
		resumed bool
	}{
		{name: "to a stranger"},
		{name: "to where it began", early: true, resumed: true},
		{name: "to a host that may have it", allow: []string{"b.example"}, resumed: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			s := newPlaces(t, &typedrpc.Server{}) // the same at both hosts
			changes := make(chan typedrpc.StateChange, 100)
			if tt.early {
				s.lead("a.example:443/", "wss://b.example/")
			}
			c, err := typedrpc.Dial(t.Context(), "wss://a.example/", &typedrpc.DialOptions{
				HTTPClient: s.client, Backoff: typedrpc.Backoff{Min: 1, Max: 1}, RedirectHosts: tt.allow,
				OnState: func(c typedrpc.StateChange) { changes <- c },
			})
			is.NoErr(err)
			defer c.Close()
			connected := func(c typedrpc.StateChange) bool { return c.State == typedrpc.StateConnected }
			until(changes, connected)
			s.lead("a.example:443/", "wss://b.example/")
			c.Reconnect()
			is.Equal(until(changes, connected).Resumed, tt.resumed)
			c.Reconnect() // to where it is now
			is.True(until(changes, connected).Resumed)
		})
	}
}

func TestDial_redirectHostsThatAreNone(t *testing.T) {
	for _, host := range []string{"", "*", "*.", ".", "a b", "https://a.example", "a.example/", "u@a.example", "a.example:", "a.example:0", "a.example:x", "a.*", "*.127.0.0.1", "a\nb"} {
		is := is.New(t)
		_, err := typedrpc.Dial(t.Context(), "ws://127.0.0.1:1", &typedrpc.DialOptions{RedirectHosts: []string{host}})
		is.True(errors.Is(err, typedrpc.InvalidArgument))
		is.True(strings.Contains(err.Error(), "DialOptions.RedirectHosts"))
	}
}
