// Package hook lets typedrpctest reach what package typedrpc does not export.
package hook

// Dial connects a *typedrpc.Server and a client with *typedrpc.DialOptions in
// memory. Set by package typedrpc; the types are any because this package
// cannot import it.
var Dial func(srv, dialOptions any) (client, server any, err error)

// Tap returns a copy of *typedrpc.DialOptions with which every attempt to
// connect passes what came of it to tap, and uses the transport that tap
// returns, which is nil if t is. tap is a func(t link.Transport, subprotocol
// string, err error) link.Transport. Set by package typedrpc.
var Tap func(dialOptions, tap any) any
