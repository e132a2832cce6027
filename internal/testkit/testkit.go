// Package testkit has what the tests of several packages share and what needs no
// public API: a peer driven by hand, cables that break, bubbles, sizes. What goes
// through the public API is in package lab. Tests inside package typedrpc can
// import this package, and not that one.
package testkit

import "time"

// What package typedrpc does not export, and tests of its edges must know.
const (
	BinaryProtocol  = "typedrpc.v1.json" // the subprotocol of the binary dialect with JSON
	HelloProtocol   = "typedrpc.jsonrpc" // and of JSON-RPC with HELLO
	ClosePatience   = 4 * time.Second    // how long Close waits for the peer
	Lived           = 10 * time.Second   // a link that lived so long starts the backoff over
	MaxResends      = 8                  // of a call, on new links
	MessageOverhead = 64                 // what a message costs besides its bytes
	FloodBurst      = 2048               // offences at once that are forgiven
	Fragment        = 64 << 10           // larger messages are cut
)
