//go:build js

package link

import (
	"context"
	"errors"
	"net/http"

	"github.com/coder/websocket"
)

// Dial opens a WebSocket with the browser's API, which decides headers, TLS
// and compression itself and tells nothing about a refused upgrade.
func Dial(ctx context.Context, url string, o DialOptions) (Transport, string, *http.Response, error) {
	c, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{Subprotocols: o.Subprotocols})
	if err != nil {
		return nil, "", nil, err
	}
	return &ws{c: c}, c.Subprotocol(), nil, nil
}

// Accept fails: there is no server in a browser.
func Accept(w http.ResponseWriter, r *http.Request, subprotocol string, compress bool) (Transport, error) {
	const text = "typedrpc: a browser cannot accept WebSockets"
	http.Error(w, text, http.StatusNotImplemented)
	return nil, errors.New(text)
}

// Offers lists nothing: there is no server in a browser.
func Offers(http.Header) []string { return nil }

// Ping does nothing: the browser's API has no pings.
func (t *ws) Ping() {}
