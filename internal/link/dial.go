package link

import (
	"net/http"
)

// DialOptions are what a WebSocket is dialled with.
type DialOptions struct {
	Subprotocols []string
	HTTPClient   *http.Client // nil: http.DefaultClient. Ignored in a browser.
	Header       http.Header  // ignored in a browser, which lets nobody set any
	Compress     bool         // ignored in a browser, which decides itself
}
