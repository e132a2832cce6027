//go:build !js

package link

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/typedrpc/typedrpc/internal/logs"
)

// Dial opens a WebSocket. It returns the subprotocol that the server selected
// and, when the server refused the upgrade, its response, of whose body at
// most 1,024 bytes can be read. A redirect that is not followed is a
// *RedirectError.
func Dial(ctx context.Context, url string, o DialOptions) (Transport, string, *http.Response, error) {
	t := new(ws)
	u := &upgrader{below: &t.below, compress: o.Compress}
	opts := &websocket.DialOptions{
		HTTPClient:     o.client(u),
		HTTPHeader:     o.Header,
		Host:           o.Host,
		Subprotocols:   o.Subprotocols,
		OnPingReceived: t.pinged,
		OnPongReceived: t.ponged,
	}
	if o.Compress {
		// What is really offered is what upgrader makes of this.
		opts.CompressionMode = websocket.CompressionContextTakeover
	}
	c, resp, err := websocket.Dial(ctx, url, opts)
	if err != nil {
		return nil, "", resp, unexpected(err)
	}
	t.c = c
	u.done.Store(true)
	return t, c.Subprotocol(), resp, nil
}

func (t *ws) pinged(context.Context, []byte) bool { return t.below.control() }

func (t *ws) ponged(context.Context, []byte) { t.below.control() }

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

// Ping does not wait for the pong, which arrives at OnPongReceived; the
// library does, so a goroutine stands in for it.
func (t *ws) Ping(answered func()) bool {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), pingPatience)
		defer cancel()
		if t.c.Ping(ctx) == nil && answered != nil {
			answered()
		}
	}()
	return true
}

// pingPatience bounds how long the goroutine of one ping can stay.
const pingPatience = 10 * time.Second

// client is the HTTP client for one dial: the program's, with rules for redirects,
// and u in front of its transport.
func (o *DialOptions) client(u *upgrader) *http.Client {
	base := o.HTTPClient
	if base == nil {
		base = http.DefaultClient
	}
	if u.base = base.Transport; u.base == nil {
		u.base = http.DefaultTransport
	}
	c := *base
	c.CheckRedirect = o.checkRedirect(base.CheckRedirect)
	c.Transport = u
	return &c
}

// upgrader makes the requests of one dial, and connections that say what has come
// and when reading has failed.
type upgrader struct {
	base     http.RoundTripper
	below    *below
	compress bool
	done     atomic.Bool // the library is content with the handshake
}

const extensions = "Sec-Websocket-Extensions"

// offer is what is said of compression: each message on its own, because a context
// costs some 0.2 MB to keep for who compresses.
const offer = "permessage-deflate; client_no_context_takeover; server_no_context_takeover"

func (u *upgrader) RoundTrip(r *http.Request) (*http.Response, error) {
	if u.compress {
		r = r.Clone(r.Context())
		r.Header.Set(extensions, offer)
	}
	resp, err := tunnel(u.base, r).RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		return resp, err
	}
	if err := u.agreed(resp.Header); err != nil {
		resp.Body.Close()
		return nil, err
	}
	if body, ok := resp.Body.(io.ReadWriteCloser); ok {
		u.below.conn = body
		resp.Body = watchedBody{body, u}
	}
	return resp, nil
}

// agreed reads what the server said of compression. The library was told that it
// may keep contexts, so that it does for a server that has not said that it does
// without. This side does without in any case, which nobody has to agree to.
func (u *upgrader) agreed(h http.Header) error {
	said := strings.Join(h.Values(extensions), ", ")
	if said == "" {
		return nil
	}
	name, params, _ := strings.Cut(said, ";")
	ok := u.compress && strings.TrimSpace(name) == "permessage-deflate"
	text := "permessage-deflate; client_no_context_takeover"
	var seen []string
	for p := range strings.SplitSeq(params, ";") {
		key, value, valued := strings.Cut(strings.TrimSpace(p), "=")
		ok = ok && !slices.Contains(seen, key) // RFC 7692 section 7.1
		switch seen = append(seen, key); {
		case key == "client_no_context_takeover" && !valued:
		case key == "server_no_context_takeover" && !valued:
			text += "; " + key
		case key == "server_max_window_bits" && windowBits(strings.Trim(value, `"`)):
		case key != "" || valued:
			ok = false
		}
	}
	if !ok {
		return fmt.Errorf("the server answered with the WebSocket extension %q, which was not offered so", logs.Clip(said))
	}
	h.Set(extensions, text)
	return nil
}

// windowBits reports whether a window is one that there is. Any is taken.
func windowBits(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n >= 8 && n <= 15 && strconv.Itoa(n) == s
}

type watchedBody struct {
	io.ReadWriteCloser
	u *upgrader
}

// Read reads what comes after the handshake. One that the library does not like it
// would wait for the end of, to show it.
func (b watchedBody) Read(p []byte) (int, error) {
	if !b.u.done.Load() {
		return 0, io.EOF
	}
	return b.u.below.read(b.ReadWriteCloser, p)
}
