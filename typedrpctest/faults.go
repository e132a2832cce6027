package typedrpctest

import (
	"math"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Direction says which bytes of a connection are meant. The zero value means
// none.
type Direction uint8

const (
	Up   Direction = 1 << iota // from the side that dialled
	Down                       // to the side that dialled
	Both = Up | Down
)

// String returns "up", "down", "both" or "none".
func (d Direction) String() string {
	return [...]string{"none", "up", "down", "both"}[d&Both]
}

// Cut says how a connection ends.
type Cut uint8

const (
	// CutClose ends both directions as a FIN does: what is on its way
	// arrives, then each end reads io.EOF. Writing fails at once.
	CutClose Cut = iota
	// CutReset ends both directions as an RST does: what is on its way is
	// lost, and reading and writing fail with ECONNRESET at both ends.
	CutReset
	// CutDialer ends the connection of the side that dialled, as CutReset
	// does. The other never learns of it: it reads nothing, and what it
	// writes is lost. So it is when a laptop loses power.
	CutDialer
	// CutListener is CutDialer the other way round.
	CutListener
)

// String returns the name of the constant, as in "CutReset".
func (c Cut) String() string {
	if c > CutListener {
		return "Cut(" + strconv.Itoa(int(c)) + ")"
	}
	return [...]string{"CutClose", "CutReset", "CutDialer", "CutListener"}[c]
}

// Conditions are what the network does to one direction of a connection. The
// zero value is a perfect network: everything arrives at once. Bytes always
// arrive in order.
type Conditions struct {
	// Latency is how long a byte travels.
	Latency time.Duration
	// Jitter is by how much more at most. It is drawn for every 1,400 bytes
	// of a direction, and depends on nothing but the seed, the number of the
	// connection, the direction, and which 1,400 bytes they are.
	Jitter time.Duration
	// Bandwidth is in bytes per second, for each connection. 0: no limit.
	Bandwidth int
	// Slice is how many bytes one Read returns at most. 0: no limit.
	Slice int
	// Buffer is how many bytes may have been written and not read. Then
	// writers wait. It bounds the memory of a direction, as the buffers of a
	// socket do. Default 256 KiB.
	Buffer int
	// Stall stops the direction. Nothing is lost: what is written meanwhile,
	// an end of the connection included, arrives when Stall is taken back.
	// So it is when a cable is unplugged for a while.
	Stall bool
	// BlackHole loses what is written, an end of the connection included, and
	// tells nobody. Once a byte was lost the direction carries no more, also
	// when BlackHole is taken back: no byte of TCP arrives before an earlier
	// one. What was on its way before arrives.
	BlackHole bool
}

// Stats count what happened on a network or proxy. Black holes are no cuts.
type Stats struct {
	Dialled int   // connections that were made
	Open    int   // of those, neither cut nor closed by either end
	Cuts    int   // connections that were cut
	Up      int64 // bytes that were received from the sides that dialled
	Down    int64 // bytes that were received by them
}

// Faults are how a Network or a Proxy fails: its methods say so. All of them may be called
// while connections live, from any goroutine, and wait for nothing.
//
// They are the same whenever the seed is the same and the same connections
// carry the same bytes. Connections are numbered from 1 in the order in which
// they were made.
type Faults struct {
	begun    bool // by NewNetwork or NewProxy
	seed     uint64
	up, down atomic.Int64
	cuts     atomic.Int64

	mu      sync.Mutex
	closed  bool
	now     [2]Conditions // of new connections
	each    cutEach
	dialled int
	links   []*Link       // that one end at least has not closed
	changed chan struct{} // closed when a dial that waits should look again; nil: none does
}

type cutEach struct {
	on          bool
	d           Direction
	least, most int64
	how         Cut
}

// Set sets the conditions of d, for the connections that there are and for
// those to come. What is on its way arrives when it would have.
func (f *Faults) Set(d Direction, c Conditions) {
	f.made().mu.Lock()
	for i, lane := range [...]Direction{Up, Down} {
		if d&lane != 0 {
			f.now[i] = c
		}
	}
	f.changedLocked()
	links := slices.Clone(f.links)
	f.mu.Unlock()
	for _, l := range links {
		l.Set(d, c)
	}
}

// CutAll cuts all connections that are open and returns how many.
func (f *Faults) CutAll(how Cut) int {
	n := 0
	for _, l := range f.made().all() {
		if l.Cut(how) {
			n++
		}
	}
	return n
}

// CutEach cuts every connection to come when a number of bytes between least
// and most, drawn from the seed, were received in d; with Both, in both
// together. A negative most takes it back.
func (f *Faults) CutEach(d Direction, least, most int64, how Cut) {
	f.made().mu.Lock()
	defer f.mu.Unlock()
	most = min(most, math.MaxInt64-1)
	f.each = cutEach{most >= 0, d, max(0, min(least, most)), most, how}
}

// Links returns the connections that are neither cut nor closed by one of
// their ends, in the order in which they were made.
func (f *Faults) Links() []*Link {
	return slices.DeleteFunc(f.made().all(), func(l *Link) bool { return !l.open() })
}

// Stats returns what has happened so far.
func (f *Faults) Stats() Stats {
	open := len(f.Links())
	f.mu.Lock()
	defer f.mu.Unlock()
	return Stats{Dialled: f.dialled, Open: open, Cuts: int(f.cuts.Load()), Up: f.up.Load(), Down: f.down.Load()}
}

func (f *Faults) all() []*Link {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.links)
}

// deadLocked reports whether what a dial sends, or is answered, does not arrive.
func (f *Faults) deadLocked() bool {
	return f.now[0].Stall || f.now[0].BlackHole || f.now[1].Stall || f.now[1].BlackHole
}

func (f *Faults) changedLocked() {
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// linkLocked makes the next connection, between two addresses.
func (f *Faults) linkLocked(h *Host, dialer, listener net.Addr) *Link {
	f.dialled++
	l := &Link{faults: f, host: h, number: f.dialled, limit: [2]int64{-1, -1}, sum: -1}
	for i := range l.lanes {
		l.lanes[i] = lane{link: l, index: i, c: f.now[i]}
		l.lanes[i].moved.L = &l.mu
	}
	l.dialer = &conn{link: l, in: &l.lanes[1], out: &l.lanes[0], local: dialer, remote: listener}
	l.listener = &conn{link: l, in: &l.lanes[0], out: &l.lanes[1], local: listener, remote: dialer}
	if e := f.each; e.on {
		r := f.random(l.number, 2, 0)
		l.CutAfter(e.d, e.least+r.Int64N(e.most-e.least+1), e.how)
	}
	f.links = append(f.links, l)
	return l
}

func (f *Faults) forget(l *Link) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := slices.Index(f.links, l); i >= 0 {
		f.links = slices.Delete(f.links, i, i+1)
	}
}

// end resets everything, those included that were cut in a way that one of
// their ends did not learn of.
func (f *Faults) end() {
	f.mu.Lock()
	f.closed = true
	f.changedLocked()
	f.mu.Unlock()
	for _, l := range f.all() {
		l.Cut(CutReset)
		l.reset()
	}
}
