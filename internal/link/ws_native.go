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
)

// Dial opens a WebSocket. It returns the subprotocol that the server selected
// and, when the server refused the upgrade, its response, of whose body at
// most 1,024 bytes can be read.
func Dial(ctx context.Context, url string, o DialOptions) (Transport, string, *http.Response, error) {
	t := new(ws)
	c, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{
		HTTPClient:      o.HTTPClient,
		HTTPHeader:      o.Header,
		Subprotocols:    o.Subprotocols,
		CompressionMode: compression(o.Compress),
		OnPongReceived:  func(context.Context, []byte) { t.ponged() },
	})
	if err != nil {
		return nil, "", resp, err
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
		OnPongReceived:     func(context.Context, []byte) { t.ponged() },
	}
	if subprotocol != "" {
		o.Subprotocols = []string{subprotocol}
	}
	if !hijackable(w) { // the library would have answered 101 already
		http.Error(w, http.StatusText(http.StatusNotImplemented), http.StatusNotImplemented)
		return nil, errHijack
	}
	c, err := websocket.Accept(leanWriter{w}, r, o)
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
type leanWriter struct{ http.ResponseWriter }

func (w leanWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w leanWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if errors.Is(err, http.ErrNotSupported) {
		return nil, nil, errHijack
	}
	if err != nil {
		return nil, nil, err
	}
	if n := rw.Reader.Buffered(); n > 0 {
		early, _ := rw.Reader.Peek(n)
		c = &earlyConn{Conn: c, r: io.MultiReader(bytes.NewReader(bytes.Clone(early)), c)}
	}
	return c, bufio.NewReadWriter(bufio.NewReaderSize(c, hijackBuffer), bufio.NewWriterSize(c, hijackBuffer)), nil
}

// earlyConn gives back what the client sent before the upgrade was answered.
type earlyConn struct {
	net.Conn
	r io.Reader
}

func (c *earlyConn) Read(p []byte) (int, error) { return c.r.Read(p) }
