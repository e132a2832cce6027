package typedrpc

import (
	"cmp"
	"slices"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// item is a frame that waits to be taken by the writer, or the place of a line
// among such frames.
type item struct {
	prev, next *item
	list       *items

	frame wire.Frame
	body  *buf.Buf // one reference; nil: no payload
	call  *call    // CALL: whose it is
	line  *line    // the turn of a line; all else is zero
	cost  int      // bytes of a budget: the peer's for a CALL, our own for the rest
	sent  int      // bytes of the payload that left in fragments
	whole bool     // body is a whole message, not a payload

	ordered bool // NOTIFY, and CALL of a Serial method: they do not overtake each other
}

// line is what a stream has to send, in its order. It shares the writer with
// the other streams and calls by turns.
type line struct {
	turn   item        // in the writer's queue while the line may send
	x      *exchange   // whose it is
	pieces ring[piece] // its items …
	frames items       // … and what comes after them: END, or the terminal frame
	sent   int         // bytes of the first one that left in fragments
}

func (l *line) empty() bool { return l.pieces.len() == 0 && l.frames.len == 0 }

// piece is the payload of one stream item: n bytes of buf, which it holds a
// reference to.
type piece struct {
	buf     *buf.Buf
	off, n  uint32
	flags   wire.Flags
	dropped uint64
}

// bytes are the payload. Called under the lock that guards the packer.
func (p *piece) bytes() []byte {
	if p.n == 0 {
		return nil
	}
	return p.buf.B[p.off : p.off+p.n : p.off+p.n]
}

// cost is what the item takes of a window (PROTOCOL.md section 3).
func (p *piece) cost() int { return int(p.n) + messageOverhead }

// packer puts small payloads side by side into shared buffers, so that a queue
// of many tiny items takes little more memory than the window that bounds it.
type packer struct{ buf *buf.Buf }

const (
	packMost  = 1 << 10 // larger payloads have a buffer of their own
	packBlock = 8 << 10
)

// put returns a piece with a copy of data. With crowded, others of the same
// queue are waiting.
func (k *packer) put(data []byte, crowded bool) piece {
	if len(data) > packMost {
		return piece{buf: buf.Copy(data), n: uint32(len(data))}
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
	return piece{buf: k.buf.Retain(), off: uint32(off), n: uint32(len(data))}
}

// rest gives up the buffer that is being filled.
func (k *packer) rest() {
	k.buf.Release()
	k.buf = nil
}

// ring is a queue that grows as needed and keeps its memory only while it is
// in use. The zero value is empty.
type ring[T any] struct {
	all  []T // its length is a power of two
	head int
	n    int
}

// ringKept is how much room an empty ring keeps: for a batch of small items, so
// that a stream that is busy does not make it anew for each.
const ringKept = 1 << 10

func (r *ring[T]) len() int { return r.n }

func (r *ring[T]) push(v T) {
	if r.n == len(r.all) {
		all := make([]T, max(8, 2*r.n))
		k := copy(all, r.all[r.head:])
		copy(all[k:], r.all[:r.head])
		r.all, r.head = all, 0
	}
	r.all[(r.head+r.n)&(len(r.all)-1)] = v
	r.n++
}

// front is the oldest, which must be there.
func (r *ring[T]) front() *T { return &r.all[r.head] }

func (r *ring[T]) pop() T {
	var none T
	v := r.all[r.head]
	r.all[r.head] = none
	r.head = (r.head + 1) & (len(r.all) - 1)
	if r.n--; r.n == 0 && len(r.all) > ringKept {
		*r = ring[T]{} // the memory of a burst
	}
	return v
}

// items is a queue that an item can leave from anywhere. The zero value is
// empty.
type items struct {
	head, tail *item
	len        int
}

func (l *items) push(it *item) {
	it.list, it.prev, it.next = l, l.tail, nil
	if l.tail != nil {
		l.tail.next = it
	} else {
		l.head = it
	}
	l.tail = it
	l.len++
}

// insert puts it before at; a nil at is the end.
func (l *items) insert(it, at *item) {
	if at == nil {
		l.push(it)
		return
	}
	it.list, it.prev, it.next = l, at.prev, at
	if at.prev != nil {
		at.prev.next = it
	} else {
		l.head = it
	}
	at.prev = it
	l.len++
}

// sort brings calls that were on the wire before into their old order, before
// those that never were.
func (l *items) sort() {
	var all []*item
	for it := l.pop(); it != nil; it = l.pop() {
		all = append(all, it)
	}
	slices.SortStableFunc(all, func(a, b *item) int {
		return cmp.Compare(a.call.order-1, b.call.order-1) // 0 wraps around: last
	})
	for _, it := range all {
		l.push(it)
	}
}

func (l *items) pop() *item {
	it := l.head
	if it != nil {
		l.remove(it)
	}
	return it
}

func (l *items) remove(it *item) {
	if it.prev != nil {
		it.prev.next = it.next
	} else {
		l.head = it.next
	}
	if it.next != nil {
		it.next.prev = it.prev
	} else {
		l.tail = it.prev
	}
	it.list, it.prev, it.next = nil, nil, nil
	l.len--
}

// prepend moves all of o, in order, to the front of l.
func (l *items) prepend(o *items) {
	for it := l.pop(); it != nil; it = l.pop() {
		o.push(it)
	}
	*l = *o
	*o = items{}
	for it := l.head; it != nil; it = it.next {
		it.list = l
	}
}

// messageOverhead is what every message counts beside the bytes of its payload
// and its metadata, so that empty ones are bounded too (PROTOCOL.md section 3).
const messageOverhead = 64

// flow is the sender's side of a window: of a stream, or of the notifications.
type flow struct {
	window int       // bytes granted; 0: without limit, a plain peer
	used   int       // bytes sent or queued, and not credited
	sizes  ring[int] // of what was sent, oldest first
}

// fits reports whether one more message of cost bytes may go: the first one
// always may, whatever its size.
func (f *flow) fits(cost int) bool {
	return f.window == 0 || f.used == 0 || f.used+cost <= f.window
}

// counted notes a message that left.
func (f *flow) counted(cost int) {
	if f.window > 0 {
		f.sizes.push(cost)
	}
}

// credit takes back n messages and returns their bytes; it reports false if
// they were never sent.
func (f *flow) credit(n uint64) (bytes int, ok bool) {
	if n > uint64(f.sizes.len()) {
		return 0, false
	}
	for ; n > 0; n-- {
		bytes += f.sizes.pop()
	}
	f.used -= bytes
	return bytes, true
}
