//go:build !js

package link

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/typedrpc/typedrpc/internal/logs"
)

// Dial opens a WebSocket. It returns the subprotocol that the server selected
// and, when the server refused the upgrade, its response, of whose body at
// most 1,024 bytes can be read.
func Dial(ctx context.Context, url string, o DialOptions) (Transport, string, *http.Response, error) {
	t := new(ws)
	c, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{
		HTTPClient:      watching(o.HTTPClient, &t.below),
		HTTPHeader:      o.Header,
		Subprotocols:    o.Subprotocols,
		CompressionMode: compression(o.Compress),
		OnPingReceived:  func(context.Context, []byte) bool { return t.below.control() },
		OnPongReceived:  func(context.Context, []byte) { t.below.control() },
	})
	if err != nil {
		return nil, "", resp, unexpected(err)
	}
	t.c = c
	return t, c.Subprotocol(), resp, nil
}

// Accept upgrades r. The caller has checked the origin and chosen subprotocol,
// which may be empty. On an error the response was written.
func Accept(w http.ResponseWriter, r *http.Request, subprotocol string, compress bool) (Transport, error) {
	t := new(ws)
	o := &websocket.AcceptOptions{
		InsecureSkipVerify: true, // the server checks origins itself, exactly
		CompressionMode:    compression(compress),
		OnPingReceived:     func(context.Context, []byte) bool { return t.below.control() },
		OnPongReceived:     func(context.Context, []byte) { t.below.control() },
	}
	if subprotocol != "" {
		o.Subprotocols = []string{subprotocol}
	}
	if !hijackable(w) { // the library would have answered 101 already
		http.Error(w, http.StatusText(http.StatusNotImplemented), http.StatusNotImplemented)
		return nil, errHijack
	}
	c, err := websocket.Accept(leanWriter{w, &t.below}, r, o)
	if err != nil {
		return nil, err
	}
	t.c = c
	return t, nil
}

// Offers lists the subprotocols that a request offers, in the client's order.
func Offers(h http.Header) []string {
	var names []string
	for _, v := range h.Values("Sec-WebSocket-Protocol") {
		for name := range strings.SplitSeq(v, ",") {
			if name = strings.TrimSpace(name); name != "" {
				names = append(names, name)
			}
		}
	}
	return names
}

func compression(on bool) websocket.CompressionMode {
	if on {
		// No context takeover: takeover keeps some 0.2 MB for each connection.
		return websocket.CompressionNoContextTakeover
	}
	return websocket.CompressionDisabled
}

// Ping does not wait for the pong, which arrives at OnPongReceived; the
// library does, so a goroutine stands in for it.
func (t *ws) Ping() {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), pingPatience)
		defer cancel()
		t.c.Ping(ctx)
	}()
}

// pingPatience bounds how long the goroutine of one ping can stay.
const pingPatience = 10 * time.Second

var errHijack = errors.New("typedrpc: the http.ResponseWriter cannot be hijacked: a middleware hides it, or the request is HTTP/2")

// hijackable reports whether http.ResponseController can hijack w.
func hijackable(w http.ResponseWriter) bool {
	for {
		switch v := w.(type) {
		case http.Hijacker:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			w = v.Unwrap()
		default:
			return false
		}
	}
}

// hijackBuffer is the size of a server connection's buffers. net/http's own
// are 4 KiB each and stay for the life of the connection: 6 kB of the memory
// of an idle one. Messages larger than the buffer bypass it.
const hijackBuffer = 1 << 10

// leanWriter replaces the buffers of a hijacked connection by small ones.
type leanWriter struct {
	http.ResponseWriter
	below *below
}

func (w leanWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Write is what refuses an upgrade. The library quotes the headers that it did not
// like there, and those may be large.
func (w leanWriter) Write(p []byte) (int, error) {
	if _, err := io.WriteString(w.ResponseWriter, logs.Clip(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (w leanWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if errors.Is(err, http.ErrNotSupported) {
		return nil, nil, errHijack
	}
	if err != nil {
		return nil, nil, err
	}
	early, _ := rw.Reader.Peek(rw.Reader.Buffered())
	w.below.conn = c
	c = &watchedConn{c, w.below, bytes.Clone(early)}
	return c, bufio.NewReadWriter(bufio.NewReaderSize(c, hijackBuffer), bufio.NewWriterSize(c, hijackBuffer)), nil
}

// watchedConn is a hijacked connection that says what has come and when reading
// has failed. It first gives back what the client sent before the upgrade was
// answered.
type watchedConn struct {
	net.Conn
	below *below
	early []byte
}

func (c *watchedConn) Read(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		if c.early = c.early[n:]; len(c.early) == 0 {
			c.early = nil
		}
		return n, c.below.came(n)
	}
	return c.below.read(c.Conn, p)
}

// watching returns a copy of c, nil for http.DefaultClient, whose upgraded
// connection says what has come and when reading has failed.
func watching(c *http.Client, b *below) *http.Client {
	if c == nil {
		c = http.DefaultClient
	}
	upgrader := *c
	upgrader.Transport = watchingTransport{c.Transport, b}
	return &upgrader
}

type watchingTransport struct {
	base  http.RoundTripper
	below *below
}

func (t watchingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	base := t.base
	if base == nil {
		base = http.DefaultTransport
	}
	resp, err := base.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		return resp, err
	}
	if body, ok := resp.Body.(io.ReadWriteCloser); ok {
		t.below.conn = body
		resp.Body = watchedBody{body, t.below}
	}
	return resp, nil
}

type watchedBody struct {
	io.ReadWriteCloser
	below *below
}

func (b watchedBody) Read(p []byte) (int, error) {
	return b.below.read(b.ReadWriteCloser, p)
}
