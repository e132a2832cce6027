// Package buf pools the byte buffers that messages live in. A Buf is counted
// by reference, so that a resend, a queue and a broadcast can share one
// encoding of a message without copying it.
package buf

import (
	"sync"
	"sync/atomic"
)

// maxKept is the largest buffer that goes back into the pool. One constant:
// a pool that keeps giants turns a rare large message into resident memory.
const maxKept = 128 << 10

// Buf is a byte buffer with a reference count. Its owner fills B; from the
// moment it is shared its bytes are immutable.
type Buf struct {
	B    []byte
	refs atomic.Int32
}

var pool = sync.Pool{New: func() any { return &Buf{B: make([]byte, 0, 512)} }}

// Get returns an empty buffer that the caller owns: one reference.
func Get() *Buf {
	b := pool.Get().(*Buf)
	b.B = b.B[:0]
	b.refs.Store(1)
	return b
}

// Copy returns a buffer holding a copy of p: one reference.
func Copy(p []byte) *Buf {
	b := Get()
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
	case n == 0:
		if cap(b.B) <= maxKept {
			pool.Put(b)
		}
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
