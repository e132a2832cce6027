package link

import (
	"net/http"
	"net/url"
)

// DialOptions are what a WebSocket is dialled with.
type DialOptions struct {
	Subprotocols []string
	HTTPClient   *http.Client // nil: http.DefaultClient. Ignored in a browser, as is all that follows.
	Header       http.Header  // by canonical names, none of those that the handshake needs
	Host         string       // of the request, "": that of the URL
	Compress     bool

	// Carries names the credentials that the server gets, in the request or later;
	// nil: there are none. Trusted reports whether the server at an address may
	// have them, besides the one that is dialled; nil: no other may.
	Carries []string
	Trusted func(*url.URL) bool
}
