package strangers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
)

var (
	shout = typedrpc.NewMethod[string, string]("shout")
	tell  = typedrpc.NewServerStream[int, int]("tell", typedrpc.Safe)
	add   = typedrpc.NewClientStream[struct{}, int, int]("add")
)

// keepAlive is short, so that a proxy's time for idle connections, made short as
// well, is above it.
const keepAlive = time.Second

func newServer(log io.Writer) *typedrpc.Server {
	m := typedrpc.NewMux()
	typedrpc.Handle(m, shout, func(_ context.Context, s string) (string, error) { return strings.ToUpper(s), nil })
	return &typedrpc.Server{
		Mux: m, Logger: slog.New(slog.NewTextHandler(log, nil)), Origins: []string{"https://" + host},
		Limits: typedrpc.Limits{KeepAlive: keepAlive},
	}
}

// proxy is a program in front of a backend.
type proxy struct {
	port    string
	said    *output
	reload  func() // as an operator does it
	restart func()
}

// proxies are the programs of docs/deploy.md.
var proxies = map[string]func(t *testing.T, a authority, b *backend) *proxy{
	"nginx": nginx, "haproxy": haproxy, "caddy": caddy,
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// nginxConfig is what surrounds a server's configuration.
func nginxConfig(t *testing.T, dir, inner string) string {
	user := ""
	if os.Getuid() == 0 {
		user = "user root;" // whose directories are those of tests
	}
	return write(t, filepath.Join(dir, "nginx.conf"), fmt.Sprintf(`daemon off; %[3]s
error_log stderr warn;
pid %[1]s/nginx.pid;
events {}
http {
access_log off;
client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
%[2]s
}
`, dir, inner, user))
}

func nginx(t *testing.T, a authority, b *backend) *proxy {
	path, dir := program(t, "nginx"), t.TempDir()
	p := &proxy{port: freePort(t)}
	conf := nginxConfig(t, dir, changed(t, fragment(t, "nginx"),
		"listen 443 ssl", "listen 127.0.0.1:"+p.port+" ssl", "127.0.0.1:8080", "127.0.0.1:"+b.port,
		"/etc/ssl/api.example.com.pem", a.cert, "/etc/ssl/api.example.com.key", a.key,
		"proxy_read_timeout 75s", "proxy_read_timeout 8s", "proxy_send_timeout 75s", "proxy_send_timeout 8s"))
	run(t, p, path, "-p", dir, "-c", conf)
	return p
}

// run starts a program that reloads on SIGHUP.
func run(t *testing.T, p *proxy, path string, args ...string) {
	cmd, said, stop := start(t, path, args...)
	p.said = said
	p.reload = func() { cmd.Process.Signal(syscall.SIGHUP) }
	p.restart = func() {
		stop()
		cmd, said, stop = start(t, path, args...)
		listening(t, p.port, said)
	}
	listening(t, p.port, said)
}

func haproxy(t *testing.T, a authority, b *backend) *proxy {
	path, dir := program(t, "haproxy"), t.TempDir()
	p := &proxy{port: freePort(t)}
	conf := write(t, filepath.Join(dir, "haproxy.cfg"), changed(t, fragment(t, "haproxy"),
		"bind :443 ssl", "bind 127.0.0.1:"+p.port+" ssl", "127.0.0.1:8080", "127.0.0.1:"+b.port,
		"/etc/ssl/api.example.com.both.pem", a.both,
		"timeout client  75s", "timeout client  8s", "timeout server  75s", "timeout server  8s", "timeout tunnel  75s", "timeout tunnel  8s"))
	run(t, p, path, "-W", "-db", "-f", conf)
	return p
}

func caddy(t *testing.T, a authority, b *backend) *proxy {
	path, dir := program(t, "caddy"), t.TempDir()
	p := &proxy{port: freePort(t)}
	admin := freePort(t)
	conf := write(t, filepath.Join(dir, "Caddyfile"), fmt.Sprintf("{\n\tadmin 127.0.0.1:%s\n\tauto_https disable_redirects\n\thttps_port %s\n\tstorage file_system %s\n}\n", admin, p.port, dir)+
		changed(t, fragment(t, "caddyfile"),
			"127.0.0.1:8080", "127.0.0.1:"+b.port, "/etc/ssl/api.example.com.pem", a.cert, "/etc/ssl/api.example.com.key", a.key))
	run(t, p, "/usr/bin/env", "HOME="+dir, path, "run", "--config", conf, "--adapter", "caddyfile")
	p.reload = func() {
		out, err := exec.Command(path, "reload", "--force", "--address", "127.0.0.1:"+admin, "--config", conf, "--adapter", "caddyfile").CombinedOutput()
		if err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	return p
}

// TestProxy runs each program with its configuration, in front of a server, and
// does through it what clients do.
func TestProxy(t *testing.T) {
	for name, begin := range proxies {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			a, b := newAuthority(t), newBackend(t)
			p := begin(t, a, b)
			hc := client(a, &p.port)
			t.Run("calls", func(t *testing.T) { calls(t, hc) })
			t.Run("posts", func(t *testing.T) { posts(t, hc) })
			t.Run("events", func(t *testing.T) { events(t, hc, b) })
			t.Run("items", func(t *testing.T) { items(t, hc, b) })
			t.Run("pages", func(t *testing.T) { pages(t, hc) })
			t.Run("idle", func(t *testing.T) { idle(t, hc) })
			t.Run("reload and restart", func(t *testing.T) { outage(t, hc, p, b) })
			if log := b.log.String(); strings.Contains(log, "upgrade") {
				t.Error(log)
			}
		})
	}
}

func dial(t *testing.T, o *typedrpc.DialOptions) *typedrpc.Conn {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := typedrpc.Dial(ctx, "wss://"+host+"/rpc", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func calls(t *testing.T, hc *http.Client) {
	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text, typedrpc.JSONRPC} {
		for _, compress := range []bool{false, true} {
			is := is.New(t)
			c := dial(t, &typedrpc.DialOptions{HTTPClient: hc, Dialect: d, Compress: compress})
			for _, size := range []int{1, 3000, 3 << 20} {
				got, err := typedrpc.Call(t.Context(), c, shout, strings.Repeat("x", size))
				is.NoErr(err)
				is.Equal(len(got), size)
			}
		}
	}
}

func posts(t *testing.T, hc *http.Client) {
	for _, size := range []int{1, 3 << 20} { // the latter is above nginx's own limit
		is := is.New(t)
		resp, err := hc.Post("https://"+host+"/rpc", "application/json", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"shout","params":["`+strings.Repeat("x", size)+`"]}`))
		is.NoErr(err)
		answer, err := io.ReadAll(resp.Body)
		is.NoErr(err)
		resp.Body.Close()
		is.Equal(resp.StatusCode, http.StatusOK)
		is.True(strings.HasSuffix(string(answer), `X"}`))
	}
}

// events reads a stream whose handler goes on when its first half has been read.
func events(t *testing.T, hc *http.Client, b *backend) {
	is := is.New(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+host+"/rpc?method=tell&params=[6]", nil)
	is.NoErr(err)
	req.Header.Set("Accept", "text/event-stream")
	resp, err := hc.Do(req)
	is.NoErr(err)
	defer resp.Body.Close()
	is.Equal(resp.Header.Get("Content-Type"), "text/event-stream")
	lines := bufio.NewScanner(resp.Body)
	n := 0
	for lines.Scan() {
		if lines.Text() == fmt.Sprintf("data: %d", n) {
			if n++; n == 4 {
				<-b.paused
				b.resume <- struct{}{}
			}
		}
	}
	is.NoErr(lines.Err())
	is.Equal(n, 6)
}

// items sends a client stream's items, each when the one before was handled.
func items(t *testing.T, hc *http.Client, b *backend) {
	is := is.New(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // where a proxy waits for the body's end
	defer cancel()
	body, send := io.Pipe()
	go func() {
		defer send.Close()
		for i := range 3 {
			if _, err := fmt.Fprintln(send, i+1); err != nil {
				return
			}
			select {
			case <-b.taken:
			case <-ctx.Done():
				return
			}
		}
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+host+"/rpc?method=add", body)
	is.NoErr(err)
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := hc.Do(req)
	is.NoErr(err)
	answer, err := io.ReadAll(resp.Body)
	is.NoErr(err)
	resp.Body.Close()
	is.True(strings.HasSuffix(strings.TrimSpace(string(answer)), `6}`))
}

// pages is who may connect from where.
func pages(t *testing.T, hc *http.Client) {
	for origin, allowed := range map[string]bool{"https://" + host: true, "https://evil.example": false, "null": false} {
		is := is.New(t)
		c, resp, err := websocket.Dial(t.Context(), "wss://"+host+"/rpc", &websocket.DialOptions{
			HTTPClient: hc, HTTPHeader: http.Header{"Origin": {origin}, "User-Agent": {"Mozilla/5.0"}}, Subprotocols: []string{"jsonrpc"},
		})
		is.Equal(err == nil, allowed)
		if err == nil {
			c.CloseNow()
			continue
		}
		is.Equal(resp.StatusCode, http.StatusForbidden)
		text, _ := io.ReadAll(resp.Body)
		is.True(strings.Contains(string(text), "origin"))
	}
}

// idle says nothing for longer than the proxy lets a connection be idle: keepalive
// is what keeps it.
func idle(t *testing.T, hc *http.Client) {
	is := is.New(t)
	lost := make(chan error, 100)
	c := dial(t, &typedrpc.DialOptions{HTTPClient: hc, OnState: func(s typedrpc.StateChange) {
		if s.State == typedrpc.StateWaiting {
			lost <- s.Err
		}
	}})
	select {
	case err := <-lost:
		t.Errorf("the link was lost: %v", err)
	case <-time.After(12 * time.Second):
	}
	_, err := typedrpc.Call(t.Context(), c, shout, "x")
	is.NoErr(err)
}

// outage reloads and restarts the proxy in the middle of a stream, which goes on.
func outage(t *testing.T, hc *http.Client, p *proxy, b *backend) {
	for name, break_ := range map[string]func(){"reload": p.reload, "restart": p.restart} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			c := dial(t, &typedrpc.DialOptions{HTTPClient: hc, Backoff: typedrpc.Backoff{Max: 200 * time.Millisecond}})
			n := 0
			for i, err := range typedrpc.Receive(t.Context(), c, tell, 1000) {
				is.NoErr(err)
				is.Equal(i, n)
				if n++; n == 500 {
					<-b.paused
					break_()
					b.resume <- struct{}{}
				}
			}
			is.Equal(n, 1000)
			got, err := typedrpc.Call(t.Context(), c, shout, "x")
			is.NoErr(err)
			is.Equal(got, "X")
		})
	}
}

// TestProxy_mistakes are configurations as people have them first, and what their
// clients are told.
func TestProxy_mistakes(t *testing.T) {
	path := program(t, "nginx")
	for name, tt := range map[string]struct {
		lines string
		says  string
	}{
		"nothing is passed on":     {"", "has no header Upgrade: websocket"},
		"HTTP/1.0":                 {"proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;", "came over HTTP/1.0"},
		"Connection is left out":   {"proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;", "has no header Connection: Upgrade"},
		"Upgrade is left out":      {"proxy_http_version 1.1; proxy_set_header Connection upgrade;", "has no header Upgrade: websocket"},
		"the body must be smaller": {"proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;", ""}, // for calls it need not
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			b, dir := newBackend(t), t.TempDir()
			p := &proxy{port: freePort(t)}
			conf := nginxConfig(t, dir, fmt.Sprintf("server {\nlisten 127.0.0.1:%s;\nlocation /rpc { proxy_pass http://127.0.0.1:%s; %s }\n}", p.port, b.port, tt.lines))
			run(t, p, path, "-p", dir, "-c", conf)
			c, err := typedrpc.Dial(t.Context(), "ws://127.0.0.1:"+p.port+"/rpc", &typedrpc.DialOptions{Header: http.Header{"Host": {host}}})
			if tt.says == "" {
				is.NoErr(err)
				c.Close()
				return
			}
			var u *typedrpc.UpgradeError
			is.True(errors.As(err, &u))
			is.Equal(u.Status, http.StatusUpgradeRequired)
			is.True(strings.Contains(err.Error(), tt.says))
			is.True(strings.Contains(err.Error(), "docs/deploy.md"))
			is.True(strings.Contains(b.log.String(), "a proxy may have removed them"))
		})
	}
}
