package main

import (
	"context"
	"slices"
)

// attack is one of them.
type attack struct {
	name string
	what string // in one sentence
	run  func(a *arena) error

	server settings
	// goroutines is the most that the server may have while what the attackers
	// began is there; 0: any number.
	goroutines int
	// beside runs in the process that measures while the attackers are there.
	beside func(ctx context.Context, addr string, full bool) error
	// after runs there when the attackers have done what they can, and hold it.
	after func(srv *process) error
	// ends: the server is shut down in it, and nothing is asked of it then.
	ends bool
}

// attacks are all there are, in the order of the table.
var attacks = slices.Concat(
	[]attack{{name: "nothing", what: "nobody attacks: what the others are compared with", run: func(*arena) error { return nil }}},
	unread, back, halfDone, slowPeers, posts, metadata, presence, subscriptions, notifications,
	sessions, logs, handshakes, floods, frames, streams, keyed, shutdowns, origins,
	plainSubscriptions, gets, feeds, describes,
)
