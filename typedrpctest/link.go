package typedrpctest

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// segment is how many bytes travel together.
	segment = 1400
	// maxChunks bounds the bookkeeping of tiny writes.
	maxChunks = 4096
	// defaultBuffer is that of Conditions.
	defaultBuffer = 256 << 10
)

// Link is one connection of a Network or through a Proxy. Its methods may be
// called from any goroutine, and wait for nothing.
type Link struct {
	faults           *Faults
	number           int
	host             *Host // nil: a proxy's
	dialer, listener *conn
	received         [2]atomic.Int64

	mu    sync.Mutex
	lanes [2]lane // up, down
	limit [2]int64
	sum   int64 // limit of both together
	how   Cut   // … and how it is kept
	cut   bool
}

// Number returns the connection's number, from 1.
func (l *Link) Number() int { return l.made().number }

// Host returns the name that was dialled, "" of a Proxy's connection.
func (l *Link) Host() string {
	if l.made().host == nil {
		return ""
	}
	return l.host.name
}

// Received returns how many bytes have been received in d.
func (l *Link) Received(d Direction) int64 {
	l.made()
	var n int64
	for i, lane := range [...]Direction{Up, Down} {
		if d&lane != 0 {
			n += l.received[i].Load()
		}
	}
	return n
}

// Set sets the conditions of d. What is on its way arrives when it would have.
func (l *Link) Set(d Direction, c Conditions) {
	l.made().mu.Lock()
	defer l.mu.Unlock()
	for i, lane := range [...]Direction{Up, Down} {
		if d&lane != 0 {
			l.lanes[i].c = c
			l.lanes[i].moved.Broadcast()
		}
	}
}

// Cut ends the connection now. It does nothing, and returns false, when the
// connection was cut already or closed by either end.
func (l *Link) Cut(how Cut) bool {
	l.made().mu.Lock()
	defer l.mu.Unlock()
	if !l.openLocked() {
		return false
	}
	l.cutLocked(how)
	return true
}

// CutAfter cuts the connection when n bytes in all, counted from its
// beginning, have been received in d; with Both, in both directions together.
// No byte after them is received in d. There is one such bound at a time; a
// negative n takes it back.
func (l *Link) CutAfter(d Direction, n int64, how Cut) {
	l.made().mu.Lock()
	defer l.mu.Unlock()
	l.limit, l.sum, l.how = [2]int64{-1, -1}, -1, how
	switch d & Both {
	case Up:
		l.limit[0] = n
	case Down:
		l.limit[1] = n
	case Both:
		l.sum = n
	}
	l.enforceLocked()
}

func (l *Link) open() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.openLocked()
}

func (l *Link) openLocked() bool { return !l.cut && !l.dialer.closed && !l.listener.closed }

func (l *Link) cutLocked(how Cut) {
	l.cut = true
	l.faults.cuts.Add(1)
	up, down := &l.lanes[0], &l.lanes[1]
	switch how {
	case CutClose:
		for _, c := range []*conn{l.dialer, l.listener} {
			c.out.finish()
			c.broken = true
		}
	case CutDialer, CutListener:
		gone := l.dialer
		if how == CutListener {
			gone = l.listener
		}
		gone.fault = syscall.ECONNRESET
		up.lose()
		down.lose()
	default:
		l.resetLocked()
	}
	l.wakeLocked()
}

// reset ends the connection at both ends, whatever was done to it before.
func (l *Link) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.resetLocked()
	l.wakeLocked()
}

func (l *Link) resetLocked() {
	for i := range l.lanes {
		l.lanes[i].drop()
	}
	l.dialer.fault, l.listener.fault = syscall.ECONNRESET, syscall.ECONNRESET
}

func (l *Link) wakeLocked() {
	l.lanes[0].moved.Broadcast()
	l.lanes[1].moved.Broadcast()
}

// leftLocked returns how many bytes lane i may receive before the link is cut,
// -1 for any number.
func (l *Link) leftLocked(i int) int64 {
	switch {
	case l.limit[i] >= 0:
		return max(0, l.limit[i]-l.received[i].Load())
	case l.sum >= 0:
		return max(0, l.sum-l.received[0].Load()-l.received[1].Load())
	}
	return -1
}

// enforceLocked cuts the link when its bound is reached.
func (l *Link) enforceLocked() {
	reached := false
	for i := range l.lanes {
		if l.leftLocked(i) == 0 && !l.cut {
			l.lanes[i].drop()
			reached = true
		}
	}
	if reached {
		l.cutLocked(l.how)
	}
}

// unplug holds up both directions, or lets them go on.
func (l *Link) unplug(yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lanes[0].unplugged, l.lanes[1].unplugged = yes, yes
	l.wakeLocked()
}

// lane is one direction of a link. Link.mu guards it.
type lane struct {
	link  *Link
	index int
	moved sync.Cond // something that somebody may wait for has changed
	c     Conditions

	unplugged bool
	lost      bool // a byte was lost, so nothing comes any more
	chunks    []chunk
	size      int       // bytes in chunks
	sent      int64     // bytes written
	free      time.Time // when the sender's line is free again
	last      time.Time // when what was sent last arrives
	fin       bool      // nothing is sent after what is in chunks …
	finAt     time.Time // … and when that is known
	writing   bool      // a Write is under way
}

// chunk is what arrives together.
type chunk struct {
	data []byte
	at   time.Time
}

// random returns a generator that depends on nothing but the seed and the
// arguments.
func (f *Faults) random(link, what int, n int64) *rand.Rand {
	return rand.New(rand.NewPCG(f.seed, uint64(link)<<34^uint64(what)<<32^uint64(n)))
}

// send takes p, which Buffer has room for.
func (l *lane) send(p []byte) {
	if l.c.BlackHole {
		l.lost = true
	}
	if l.lost {
		l.sent += int64(len(p))
		return
	}
	now := time.Now()
	for len(p) > 0 {
		n := len(p)
		if l.c.Latency > 0 || l.c.Jitter > 0 || l.c.Bandwidth > 0 {
			n = min(n, segment-int(l.sent%segment))
		}
		l.add(p[:n], l.arrival(now, n), now)
		l.sent += int64(n)
		p = p[n:]
	}
	l.moved.Broadcast()
}

// arrival says when the next n bytes arrive.
func (l *lane) arrival(now time.Time, n int) time.Time {
	at := now
	if l.c.Bandwidth > 0 {
		if l.free.Before(now) {
			l.free = now
		}
		l.free = l.free.Add(time.Duration(float64(n) / float64(l.c.Bandwidth) * float64(time.Second)))
		at = l.free
	}
	at = at.Add(l.c.Latency)
	if l.c.Jitter > 0 {
		r := l.link.faults.random(l.link.number, l.index, l.sent/segment)
		at = at.Add(time.Duration(r.Int64N(int64(l.c.Jitter) + 1)))
	}
	if at.Before(l.last) {
		at = l.last
	}
	l.last = at
	return at
}

// add appends a copy of p, to the last chunk if it arrives with that.
func (l *lane) add(p []byte, at, now time.Time) {
	l.size += len(p)
	if n := len(l.chunks); n > 0 {
		c := &l.chunks[n-1]
		if c.at.Equal(at) || !c.at.After(now) && !at.After(now) {
			c.data = append(c.data, p...)
			return
		}
	}
	l.chunks = append(l.chunks, chunk{append([]byte(nil), p...), at})
}

// finish ends the direction after what was sent.
func (l *lane) finish() {
	if l.fin || l.lost || l.c.BlackHole {
		l.lost = l.lost || !l.fin
		return
	}
	l.fin = true
	l.finAt = l.arrival(time.Now(), 0)
	l.moved.Broadcast()
}

func (l *lane) drop() { l.chunks, l.size = nil, 0 }

func (l *lane) lose() {
	l.drop()
	l.lost = true
}

func (l *lane) held() bool { return l.c.Stall || l.unplugged }

// ended reports whether the end of the direction has arrived.
func (l *lane) ended(now time.Time) bool {
	return l.fin && !l.held() && !l.finAt.After(now)
}

// room returns how many bytes may be sent.
func (l *lane) room() int {
	most := l.c.Buffer
	if most <= 0 {
		most = defaultBuffer
	}
	if len(l.chunks) >= maxChunks {
		return 0
	}
	return most - l.size
}

// wait waits until something moves, until t at the latest if that is not zero.
func (l *lane) wait(t time.Time) {
	if !t.IsZero() {
		timer := time.AfterFunc(time.Until(t), func() {
			l.link.mu.Lock()
			defer l.link.mu.Unlock()
			l.moved.Broadcast()
		})
		defer timer.Stop()
	}
	l.moved.Wait()
}

// earlier returns the earlier of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// take copies what has arrived into p.
func (l *lane) take(p []byte, now time.Time) (n int) {
	if l.c.Slice > 0 {
		p = p[:min(len(p), l.c.Slice)]
	}
	if left := l.link.leftLocked(l.index); left >= 0 && !l.link.cut {
		p = p[:min(int64(len(p)), left)]
	}
	for n < len(p) && len(l.chunks) > 0 && !l.chunks[0].at.After(now) {
		c := &l.chunks[0]
		m := copy(p[n:], c.data)
		n += m
		if c.data = c.data[m:]; len(c.data) == 0 {
			l.chunks = l.chunks[1:]
		}
	}
	if n == 0 {
		return 0
	}
	l.size -= n
	if len(l.chunks) == 0 {
		l.chunks = nil
	}
	l.link.received[l.index].Add(int64(n))
	f := l.link.faults
	[...]*atomic.Int64{&f.up, &f.down}[l.index].Add(int64(n))
	l.link.enforceLocked()
	l.moved.Broadcast()
	return n
}
