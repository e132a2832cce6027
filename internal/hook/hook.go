// Package hook lets typedrpctest reach what package typedrpc does not export.
package hook

// Dial connects a *typedrpc.Server and a client with *typedrpc.DialOptions in
// memory. Set by package typedrpc; the types are any because this package
// cannot import it.
var Dial func(srv, dialOptions any) (client, server any, err error)
