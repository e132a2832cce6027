// Package hook lets typedrpctest and tests reach what package typedrpc does not
// export.
package hook

import (
	"net/http"

	"github.com/typedrpc/typedrpc/internal/link"
)

// Dial connects a *typedrpc.Server and a client with *typedrpc.DialOptions in
// memory. Set by package typedrpc; the types are any because this package
// cannot import it.
var Dial func(srv, dialOptions any) (client, server any, err error)

// Tap returns a copy of *typedrpc.DialOptions with which every attempt to
// connect passes what came of it to tap, and uses the transport that tap
// returns, which is nil if t is. tap is a func(t link.Transport, subprotocol
// string, err error) link.Transport. Set by package typedrpc.
var Tap func(dialOptions, tap any) any

// Connect returns a copy of *typedrpc.DialOptions whose links are made by
// connect, which is a func(ctx context.Context, url string, offers []string)
// (link.Transport, string, *http.Response, error): the transport, the
// subprotocol, and the response of a server that refused the upgrade. Set by
// package typedrpc.
var Connect func(dialOptions, connect any) any

// Accept gives a *typedrpc.Server the far end of a link, as if r had been
// upgraded: the subprotocol that it has chosen, or its refusal. Set by package
// typedrpc.
var Accept func(srv any, far link.Transport, r *http.Request, offers []string) (subprotocol string, refused *http.Response)

// SessionLost is the error with which a stream ends when its session is lost.
// Set by package typedrpc.
var SessionLost func(cause error) error
