package engine

import (
	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// line is what a stream has to send, in its order. It shares the writer with
// the other streams and calls by turns.
type line struct {
	turn   item            // in the writer's queue while the line may send; it says whose it is
	pieces flow.Ring[Item] // its items …
	last   *item           // … and what comes after them: END, or the terminal frame; nil: nothing yet
	sent   int32           // bytes of the first one that left in fragments
}

func (l *line) empty() bool { return l.pieces.Len() == 0 && l.last == nil }

// piece is the payload of one stream item: n bytes of buf, which it holds a
// reference to.
type Item struct {
	buf     *buf.Buf
	off, n  uint32
	Flags   wire.Flags
	Dropped uint64 // before it
}

// bytes are the payload. Called under the lock that guards the packer.
func (p *Item) bytes() []byte {
	if p.n == 0 {
		return nil
	}
	return p.buf.B[p.off : p.off+p.n : p.off+p.n]
}

// Release gives back the reference to its bytes.
func (p *Item) Release() { p.buf.Release() }

// cost is what the item takes of a window (PROTOCOL.md section 3).
func (p *Item) cost() int { return int(p.n) + flow.MessageOverhead }

// packer puts small payloads side by side into shared buffers, so that a queue
// of many tiny items takes little more memory than the window that bounds it.
type packer struct{ buf *buf.Buf }

const (
	packMost  = 1 << 10 // larger payloads have a buffer of their own
	packBlock = 8 << 10
)

// put returns a piece with a copy of data. With crowded, others of the same
// queue are waiting.
func (k *packer) put(data []byte, crowded bool) Item {
	if len(data) > packMost {
		return Item{buf: buf.Copy(data), n: uint32(len(data))}
	}
	if k.buf == nil || cap(k.buf.B)-len(k.buf.B) < len(data) {
		k.buf.Release()
		size := len(data)
		if crowded {
			size = packBlock
		}
		k.buf = buf.Sized(size)
	}
	off := len(k.buf.B)
	k.buf.B = append(k.buf.B, data...)
	return Item{buf: k.buf.Retain(), off: uint32(off), n: uint32(len(data))}
}

// rest gives up the buffer that is being filled.
func (k *packer) rest() {
	k.buf.Release()
	k.buf = nil
}

// pushLocked gives a line that has something its place in the queue.
func (l *line) pushLocked(c *outbox) {
	if l.turn.list == nil {
		c.queue.push(&l.turn)
	}
}

// dropLocked gives up what a line has not sent.
func (l *line) dropLocked(c *outbox) {
	if l.turn.list != nil {
		l.turn.list.remove(&l.turn)
	}
	cut := l.sent > 0
	l.sent = 0
	for l.pieces.Len() > 0 {
		p := l.pieces.Pop()
		c.free(p.cost())
		if cut {
			c.uncutLocked(p.buf.Len())
			cut = false
		}
		p.buf.Release()
	}
	if it := l.last; it != nil {
		l.last = nil
		c.free(it.cost)
		if cut {
			c.uncutLocked(it.body.Len())
		}
		it.body.Release()
	}
}
