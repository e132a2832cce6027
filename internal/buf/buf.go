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
	class int8 // of sized, from 1; 0: of pool
}

// pool has buffers that messages of unknown size are written into and that are
// soon given back: they keep what they have grown to.
var pool = sync.Pool{New: func() any { return &Buf{B: make([]byte, 0, 512)} }}

// sized has buffers for messages of known size, which may wait for long: what
// waits takes at most twice its bytes. Class n has 1<<(n+smallest-1) bytes.
var sized [largest - smallest + 1]sync.Pool

const (
	smallest = 6  // 64 bytes
	largest  = 17 // maxKept
)

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
	return 1 << max(bits.Len(uint(max(n, 1)-1)), smallest)
}

// Sized is Get for n bytes that may be kept: filling in as many does not move
// them.
func Sized(n int) *Buf {
	class := max(bits.Len(uint(max(n, 1)-1)), smallest)
	if class > largest {
		b := &Buf{B: make([]byte, 0, n), class: -1}
		b.refs.Store(1)
		return b
	}
	b, _ := sized[class-smallest].Get().(*Buf)
	if b == nil {
		b = &Buf{B: make([]byte, 0, 1<<class), class: int8(class - smallest + 1)}
	}
	b.B = b.B[:0]
	b.refs.Store(1)
	return b
}

// SizeOf is what a buffer for n bytes takes.
func SizeOf(n int) int {
	const record = 48
	class := max(bits.Len(uint(max(n, 1)-1)), smallest)
	if class > largest {
		return n + record
	}
	return 1<<class + record
}

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
	case n == 0 && b.class > 0 && cap(b.B) == 1<<(int(b.class)+smallest-1):
		sized[b.class-1].Put(b)
	case n == 0 && b.class == 0 && cap(b.B) <= maxKept:
		pool.Put(b)
	case n < 0:
		panic("typedrpc: buffer released twice")
	}
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
