// Package buf pools the byte buffers that messages live in. A Buf is counted
// by reference, so that a resend, a queue and a broadcast can share one
// encoding of a message without copying it.
package buf

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// maxKept is the largest buffer that goes back into the pool. One constant:
// a pool that keeps giants turns a rare large message into resident memory.
const maxKept = 128 << 10

// Buf is a byte buffer with a reference count. Its owner fills B; from the
// moment it is shared its bytes are immutable.
type Buf struct {
	B     []byte
	refs  atomic.Int32
	class int8 // of sized, from 1; 0: of pool; -1: of none
}

// pool has buffers that messages of unknown size are written into and that are
// soon given back: they keep what they have grown to.
var pool = sync.Pool{New: func() any { return &Buf{B: make([]byte, 0, 512)} }}

// sized has buffers for messages of known size, which may wait for long: what
// waits takes at most a quarter more than its bytes.
var sized [classes]sync.Pool

const (
	smallest = 6  // 64 bytes, and four classes for each doubling of that …
	largest  = 17 // … up to maxKept
	classes  = (largest-smallest)*4 + 1
)

// classOf is the class that n bytes fit into, and what that has room for.
func classOf(n int) (class, room int) {
	if n <= 1<<smallest {
		return 0, 1 << smallest
	}
	k := bits.Len(uint(n-1)) - 1 // n is more than 1<<k, and at most twice that
	quarters := (n - 1<<k + 1<<(k-2) - 1) >> (k - 2)
	return (k-smallest)*4 + quarters, 1<<k + quarters<<(k-2)
}

// Get returns an empty buffer that the caller owns: one reference.
func Get() *Buf {
	b := pool.Get().(*Buf)
	b.B = b.B[:0]
	b.refs.Store(1)
	return b
}

// Room is how many bytes Sized(n) has room for.
func Room(n int) int {
	if n > maxKept {
		return n
	}
	_, room := classOf(n)
	return room
}

// Sized is Get for n bytes that may be kept: filling in as many does not move
// them.
func Sized(n int) *Buf {
	if n > maxKept {
		b := &Buf{B: make([]byte, 0, n), class: -1}
		b.refs.Store(1)
		return b
	}
	class, room := classOf(n)
	b, _ := sized[class].Get().(*Buf)
	if b == nil {
		b = &Buf{B: make([]byte, 0, room), class: int8(class + 1)}
	}
	b.B = b.B[:0]
	b.refs.Store(1)
	return b
}

// record is what a buffer takes beside its bytes.
const record = 48

// SizeOf is what a buffer for n bytes takes.
func SizeOf(n int) int { return Room(n) + record }

// Size is what the buffer takes; 0 for nil.
func (b *Buf) Size() int {
	if b == nil {
		return 0
	}
	return cap(b.B) + record
}

// roomy reports that b has room for far more than it holds.
func (b *Buf) roomy() bool {
	const spare = 512
	return b != nil && cap(b.B) > len(b.B)/4*5+spare
}

// Fit returns a buffer for bytes that wait: b, or a smaller one instead of it.
func (b *Buf) Fit() *Buf {
	if !b.roomy() {
		return b
	}
	defer b.Release()
	return Copy(b.B)
}

// Keep is Retain for bytes that wait: it may return a smaller buffer.
func (b *Buf) Keep() *Buf {
	if b.roomy() {
		return Copy(b.B)
	}
	return b.Retain()
}

// Claim returns b with a reference for p alone, which is a part of it: b's bytes
// are p from then on. It returns nil where a copy of p takes less: b has much
// else, or can be used again.
func (b *Buf) Claim(p []byte) *Buf {
	if b == nil || cap(b.B) <= maxKept || len(p) < cap(b.B)/4*3 || b.refs.Load() != 1 {
		return nil
	}
	for i := range min(len(b.B)-len(p)+1, farthest) {
		if &b.B[i] == &p[0] {
			b.B = b.B[i : i+len(p)]
			return b.Retain()
		}
	}
	return nil
}

// farthest is how much of a message is looked at for where a payload begins.
const farthest = 64 << 10

// Copy returns a buffer holding a copy of p: one reference.
func Copy(p []byte) *Buf {
	b := Sized(len(p))
	b.B = append(b.B, p...)
	return b
}

// Retain adds a reference and returns b.
func (b *Buf) Retain() *Buf {
	b.refs.Add(1)
	return b
}

// Release drops a reference; the last one gives the buffer back to the pool.
// A nil Buf may be released.
func (b *Buf) Release() {
	if b == nil {
		return
	}
	switch n := b.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic("typedrpc: buffer released twice")
	case b.class > 0:
		if class, room := classOf(cap(b.B)); class == int(b.class-1) && room == cap(b.B) { // it has not grown
			sized[class].Put(b)
			return
		}
	case b.class == 0 && cap(b.B) <= maxKept:
		pool.Put(b)
		return
	}
	b.B = nil // whoever forgets to forget the record keeps the record alone
}

// Len is the length of the buffer's bytes; 0 for nil.
func (b *Buf) Len() int {
	if b == nil {
		return 0
	}
	return len(b.B)
}

// Bytes returns the buffer's bytes; nil for nil.
func (b *Buf) Bytes() []byte {
	if b == nil {
		return nil
	}
	return b.B
}
