package link

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/matryer/is"
)

// proxy is an HTTP proxy that makes tunnels, and forwards no upgrade.
type proxy struct {
	to     string // whatever was asked for
	answer string // instead of a tunnel
	mu     sync.Mutex
	asked  []string
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, r.Method+" "+r.Host+" "+r.Header.Get("Proxy-Authorization")+" "+r.Header.Get("X-Extra"))
	p.mu.Unlock()
	if r.Method != http.MethodConnect {
		http.Error(w, "this proxy forwards no upgrades", http.StatusBadGateway)
		return
	}
	c, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	if p.to == "" {
		io.WriteString(c, p.answer)
		return
	}
	far, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer far.Close()
	io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() {
		io.Copy(far, c)
		far.Close()
	}()
	io.Copy(c, far)
}

func TestDial_throughAnHTTPProxy(t *testing.T) {
	for _, secure := range []bool{false, true} { // the server
		for _, proxySecure := range []bool{false, true} {
			t.Run(fmt.Sprintf("TLS %v, proxy's TLS %v", secure, proxySecure), func(t *testing.T) {
				is := is.New(t)
				accept := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					is.Equal(r.RequestURI, "/rpc?a=b") // as without a proxy
					if tr, err := Accept(w, r, "", false); err == nil {
						t.Cleanup(tr.Kill)
					}
				})
				start := func(h http.Handler, secure bool) *httptest.Server {
					hs := httptest.NewUnstartedServer(h)
					if secure {
						hs.StartTLS()
					} else {
						hs.Start()
					}
					t.Cleanup(hs.Close)
					return hs
				}
				p := &proxy{to: start(accept, secure).Listener.Addr().String()}
				u, err := url.Parse(start(p, proxySecure).URL)
				is.NoErr(err)
				u.User = url.UserPassword("ann", "pw")
				client := &http.Client{Transport: &http.Transport{
					Proxy: http.ProxyURL(u), TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
					ProxyConnectHeader: http.Header{"X-Extra": {"extra"}},
				}}
				scheme, port := "ws", "80"
				if secure {
					scheme, port = "wss", "443"
				}
				for range 2 { // and again
					tr, _, _, err := Dial(t.Context(), scheme+"://srv.example/rpc?a=b", DialOptions{HTTPClient: client})
					is.NoErr(err)
					tr.Kill()
				}
				want := "CONNECT srv.example:" + port + " Basic YW5uOnB3 extra"
				is.Equal(p.asked, []string{want, want})
			})
		}
	}
}

// What a proxy says is not taken for what the server says.
func TestDial_proxyThatRefuses(t *testing.T) {
	for _, scheme := range []string{"ws", "wss"} {
		for answer, says := range map[string]string{
			"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n":                     "Forbidden",
			"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n": "Proxy Authentication Required",
			"nonsense\r\n\r\n": "malformed HTTP",
			"":                 "EOF",
		} {
			t.Run(scheme+" "+says, func(t *testing.T) {
				is := is.New(t)
				hs := httptest.NewServer(&proxy{answer: answer})
				defer hs.Close()
				u, err := url.Parse(hs.URL)
				is.NoErr(err)
				u.User = url.UserPassword("ann", "pw")
				client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(u)}}
				_, _, resp, err := Dial(t.Context(), scheme+"://srv.example/", DialOptions{HTTPClient: client})
				is.True(err != nil)
				is.Equal(resp, nil)
				is.True(strings.Contains(err.Error(), "through the proxy http://"+u.Host))
				is.True(strings.Contains(err.Error(), says))
				is.True(!strings.Contains(err.Error(), "pw"))
			})
		}
	}
}

// The program's own dialler reaches the proxy, and what it thinks of a response
// counts.
func TestDial_transportsHooks(t *testing.T) {
	is := is.New(t)
	p := &proxy{}
	hs := httptest.NewServer(p)
	defer hs.Close()
	refusal := errors.New("not through this one")
	var dialled []string
	client := &http.Client{Transport: &http.Transport{
		Proxy: func(*http.Request) (*url.URL, error) { return url.Parse("http://proxy.example:3128") },
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			dialled = append(dialled, addr)
			return new(net.Dialer).DialContext(ctx, network, hs.Listener.Addr().String())
		},
		GetProxyConnectHeader: func(_ context.Context, _ *url.URL, target string) (http.Header, error) {
			return http.Header{"X-Extra": {target}}, nil
		},
		OnProxyConnectResponse: func(_ context.Context, _ *url.URL, r *http.Request, resp *http.Response) error {
			is.Equal(r.Method, http.MethodConnect)
			return refusal
		},
	}}
	p.answer = "HTTP/1.1 200 OK\r\n\r\n"
	_, _, _, err := Dial(t.Context(), "ws://srv.example:81/", DialOptions{HTTPClient: client})
	is.True(errors.Is(err, refusal))
	is.Equal(dialled, []string{"proxy.example:3128"})
	is.Equal(p.asked, []string{"CONNECT srv.example:81  srv.example:81"})

	wrong := errors.New("no proxy today")
	client.Transport.(*http.Transport).Proxy = func(*http.Request) (*url.URL, error) { return nil, wrong }
	_, _, _, err = Dial(t.Context(), "ws://srv.example/", DialOptions{HTTPClient: client})
	is.True(errors.Is(err, wrong))
}

// A proxy that does not answer is waited for as long as the context says.
func TestDial_proxyThatIsSilent(t *testing.T) {
	is := is.New(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	is.NoErr(err)
	defer l.Close()
	asked := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		bufio.NewReader(c).ReadString('\n')
		close(asked)
		cancel()
		io.Copy(io.Discard, c)
		c.Close()
	}()
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: l.Addr().String()})}}
	_, _, _, err = Dial(ctx, "ws://srv.example/", DialOptions{HTTPClient: client})
	is.True(errors.Is(err, context.Canceled))
	<-asked
}
