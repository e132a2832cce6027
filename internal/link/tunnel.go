//go:build !js

package link

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// tunnel is what carries r: base itself, unless that would send the upgrade to an
// HTTP proxy as a request for it to make. Proxies do not forward upgrades, so a
// WebSocket goes through one with CONNECT, encrypted or not (RFC 6455 section
// 4.1). net/http does so where it is encrypted.
func tunnel(base http.RoundTripper, r *http.Request) http.RoundTripper {
	t, ok := base.(*http.Transport)
	if !ok || t.Proxy == nil {
		return base // which decides about proxies itself
	}
	proxy, err := t.Proxy(r)
	if err != nil || proxy == nil || proxy.Scheme != "http" && proxy.Scheme != "https" {
		return base
	}
	if r.URL.Scheme != "http" {
		return viaProxy{base, proxy}
	}
	through := t.Clone()
	through.Proxy = nil
	through.DisableKeepAlives = true // nobody else comes this way
	through.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return connect(ctx, t, proxy, addr)
	}
	return viaProxy{through, proxy}
}

// viaProxy names the proxy in errors: net/http says no more of its refusal than
// the status, and who reads that takes it for the server's.
type viaProxy struct {
	http.RoundTripper
	proxy *url.URL
}

func (v viaProxy) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := v.RoundTripper.RoundTrip(r)
	if err != nil {
		err = fmt.Errorf("through the proxy %s://%s: %w", v.proxy.Scheme, v.proxy.Host, err)
	}
	return resp, err
}

// connect opens a connection to addr through an HTTP proxy, as t would one with TLS.
func connect(ctx context.Context, t *http.Transport, proxy *url.URL, addr string) (net.Conn, error) {
	c, err := dialProxy(ctx, t, proxy)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	resp, err := ask(ctx, t, proxy, addr, c)
	if err != nil {
		c.Close()
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		c.Close()
		return nil, fmt.Errorf("it answered %d %s to CONNECT %s", resp.StatusCode, http.StatusText(resp.StatusCode), addr)
	}
	return c, nil
}

// ask sends the CONNECT and reads the answer.
func ask(ctx context.Context, t *http.Transport, proxy *url.URL, addr string, c net.Conn) (*http.Response, error) {
	head := t.ProxyConnectHeader.Clone()
	if t.GetProxyConnectHeader != nil {
		var err error
		if head, err = t.GetProxyConnectHeader(ctx, proxy, addr); err != nil {
			return nil, err
		}
		head = head.Clone()
	}
	if head == nil {
		head = http.Header{}
	}
	if u := proxy.User; u != nil && head.Get("Proxy-Authorization") == "" {
		password, _ := u.Password()
		head.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	r := (&http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: head}).WithContext(ctx)
	if err := r.Write(c); err != nil {
		return nil, err
	}
	// The server says nothing before it is asked, so nothing of it is in the buffer.
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(c, cmp.Or(t.MaxResponseHeaderBytes, 256<<10))), r)
	if err != nil {
		return nil, fmt.Errorf("no answer to CONNECT %s: %w", addr, err)
	}
	if t.OnProxyConnectResponse != nil {
		err = t.OnProxyConnectResponse(ctx, proxy, r, resp)
	}
	return resp, err
}

// dialProxy connects to the proxy itself.
func dialProxy(ctx context.Context, t *http.Transport, proxy *url.URL) (net.Conn, error) {
	host, port := Authority(proxy)
	addr := net.JoinHostPort(host, port)
	if proxy.Scheme == "https" && t.DialTLSContext != nil {
		return t.DialTLSContext(ctx, "tcp", addr)
	}
	dial := t.DialContext
	//lint:ignore SA1019 programs have it still
	if old := t.Dial; dial == nil && old != nil {
		dial = func(_ context.Context, network, addr string) (net.Conn, error) { return old(network, addr) }
	}
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	c, err := dial(ctx, "tcp", addr)
	if err != nil || proxy.Scheme != "https" {
		return c, err
	}
	cfg := t.TLSClientConfig.Clone()
	if cfg == nil {
		cfg = new(tls.Config)
	}
	if cfg.ServerName == "" {
		cfg.ServerName = host
	}
	cfg.NextProtos = nil // it is HTTP/1.1 that is spoken
	secure := tls.Client(c, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return secure, nil
}
