package session

import (
	"sync"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// A batch is at most batchBytes, or one frame that is larger (PROTOCOL.md
// section 1), and a container of the JSON dialect has at most maxBatch elements
// (section 4).
const (
	batchBytes = 64 << 10
	maxBatch   = wire.MaxBatch
)

// Batch is what the writer takes in one go: frames, by value, and the buffers
// that their payloads live in. It belongs to the writer.
type Batch struct {
	dialect Dialect
	max     int  // frames
	limit   int  // bytes
	strict  bool // the first frame has at most …
	most    int  // … so many bytes
	refused bool // and was larger
	frames  []wire.Frame
	bufs    []*buf.Buf
	whole   *buf.Buf // a message written already, alone in its batch
	size    int
}

// Batches are pooled: a large one may hold a thousand frames, too much to keep
// on every connection.
var batches = sync.Pool{New: func() any { return new(Batch) }}

func getBatch(d Dialect) *Batch {
	b := batches.Get().(*Batch)
	b.dialect, b.max, b.limit, b.strict, b.refused = d, maxBatch, batchBytes, false, false
	if d == Plain {
		b.max = 1 // to a plain peer arrays are answers to arrays
	}
	return b
}

func (b *Batch) free() {
	b.reset()
	batches.Put(b)
}

// within leaves room bytes for frames that are new: what the replay log takes.
// While the log is empty one frame may always go, whatever its size.
func (b *Batch) within(l *replay) {
	room := l.room()
	b.strict = l.bytes > 0
	if room < batchBytes {
		b.limit = max(room, 0)
	}
	b.most = room
}

// Fits reports whether f with a payload of n bytes still fits.
func (b *Batch) Fits(f *wire.Frame, n int) bool {
	size := b.size + b.sizeOf(f) + n
	if b.Len() == 0 {
		b.refused = b.strict && size > b.most
		return !b.refused
	}
	return !b.Full() && size <= b.limit
}

// sizeOf is an upper bound on f's encoding.
func (b *Batch) sizeOf(f *wire.Frame) int {
	if b.dialect == Binary {
		return wire.BinarySize(f)
	}
	return wire.JSONSize(f)
}

// Add appends f, whose payload lives in p. It takes over the caller's
// reference to p, which may be nil.
func (b *Batch) Add(f *wire.Frame, p *buf.Buf) {
	b.frames = append(b.frames, *f)
	b.bufs = append(b.bufs, p)
	b.size += b.sizeOf(f)
}

// AddMessage makes p the whole message: the answer to a plain peer's array. It
// takes over the caller's reference.
func (b *Batch) AddMessage(p *buf.Buf) { b.whole = p }

// Full reports that nothing more fits.
func (b *Batch) Full() bool {
	return b.whole != nil || len(b.frames) >= b.max || b.size >= b.limit
}

// Len is the number of frames, or 1 for a whole message.
func (b *Batch) Len() int {
	if b.whole != nil {
		return 1
	}
	return len(b.frames)
}

// counted says how many frames count, whether all do, and whether any tells a
// time: what it has left, or how old it is.
func (b *Batch) counted() (n int, pure, timed bool) {
	for i := range b.frames {
		if b.frames[i].Type.Counted() {
			n++
			timed = timed || b.frames[i].TimeLeft > 0 || len(b.frames[i].Meta) > 0 && b.frames[i].Meta[wire.MetaAge] != ""
		}
	}
	return n, n == len(b.frames), timed
}

func (b *Batch) reset() {
	for _, p := range b.bufs {
		p.Release()
	}
	b.whole.Release()
	clear(b.frames)
	clear(b.bufs)
	b.frames, b.bufs, b.whole, b.size = b.frames[:0], b.bufs[:0], nil, 0
}

func (b *Batch) encode(dst []byte) ([]byte, error) {
	d := b.dialect
	var err error
	array := d == JSON && len(b.frames) > 1
	if array {
		dst = append(dst, '[')
	}
	for i := range b.frames {
		switch {
		case d == Binary:
			dst, err = wire.AppendBinary(dst, &b.frames[i])
		case i > 0:
			dst = append(dst, ',')
			fallthrough
		default:
			dst, err = wire.AppendJSON(dst, &b.frames[i], d == JSON)
		}
		if err != nil {
			return dst, err
		}
	}
	if array {
		dst = append(dst, ']')
	}
	return dst, nil
}
