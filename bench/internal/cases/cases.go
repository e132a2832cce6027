// Package cases has what is measured, the same for every peer.
package cases

import (
	"context"
	"slices"
	"time"

	"github.com/typedrpc/typedrpc/bench/internal/peer"
)

// Case is one thing that is measured.
type Case struct {
	Name    string
	Title   string
	Group   string // cases of one group share a table
	Note    string // what is to be known of the group, at its first case
	Columns []Column
	Can     peer.Can // what a peer has to be capable of
	Floors  bool     // bare connections are measured, too
	run     func(ctx context.Context, s Settings, p peer.Peer) (Sample, error)
}

// Column is one figure of a case.
type Column struct {
	Name string // "calls/s"
	Low  bool   // less is better
	Fact bool   // nothing to compare
}

// Sample is what one round measured, a figure for each column.
type Sample []float64

// Settings are sizes and times.
type Settings struct {
	Time        time.Duration // of one measurement
	Most        int           // callers on a connection, and connections with callers; 0: as the case has it
	Idle        int           // idle connections
	Subscribers int
	Burst       int           // messages that are published at once
	Items       int           // of a stream, at most
	Bulk        int           // bytes of a transfer
	Settle      time.Duration // between two looks at what a process holds, until they agree
}

// Usual and Quick are the settings of a whole run and of a look.
var (
	Usual = Settings{Time: 200 * time.Millisecond, Idle: 10_000, Subscribers: 1000, Burst: 200, Items: 500_000, Bulk: 64 << 20, Settle: 500 * time.Millisecond}
	Quick = Settings{Time: 50 * time.Millisecond, Idle: 500, Subscribers: 100, Burst: 50, Items: 50_000, Bulk: 64 << 20, Settle: 500 * time.Millisecond}
)

// Takes reports whether the case is measured for that peer.
func (c Case) Takes(p peer.Peer) bool {
	i := p.Info()
	return i.Can&c.Can == c.Can && (c.Floors || !i.Floor)
}

// few is n, or Most if that is less.
func (s Settings) few(n int) int {
	if s.Most > 0 {
		return min(n, s.Most)
	}
	return n
}

// Run measures once.
func (c Case) Run(ctx context.Context, s Settings, p peer.Peer) (Sample, error) {
	ctx, stop := context.WithTimeout(ctx, 2*time.Minute)
	defer stop()
	return c.run(ctx, s, p)
}

// All returns all cases, in the order in which they are measured and shown.
func All() []Case {
	return slices.Concat(callCases(), streamCases(), broadcastCases(), idleCases())
}
