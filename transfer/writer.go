package transfer

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"
	"io/fs"

	"github.com/typedrpc/typedrpc"
)

// What an item is, by its first byte.
const (
	itemHead = iota
	itemData
	itemEnd
)

// unknown is a total that a head with an offset does not know.
const unknown = ^uint64(0)

// SendOptions are what the sender of a transfer can be told. The zero value of every
// field is its default; a negative one fails the transfer with InvalidArgument.
type SendOptions struct {
	// Total is how many bytes the source has: one with more or fewer fails the
	// transfer with DataLoss. By default it is asked of sources that know it (those
	// with a method Len, and regular files), and unknown for all others.
	Total int64
	// Offset is how many bytes the receiver has already, of a transfer that broke off.
	// So many are read from the source, for the checksum, which is of the whole, and
	// not sent. The receiver gives those that it has as its Prefix; how the sender
	// learns their number is the program's affair, a field of the request for example.
	// One behind the source's end fails the transfer with DataLoss, behind Total with
	// InvalidArgument.
	Offset int64
	// Progress is called with Offset when the transfer begins and then after each
	// piece: how many bytes the receiver has with that, of how many; total is -1 when
	// it is unknown. It runs on the goroutine that sends, which it holds up.
	Progress func(done, total int64)
	// PieceSize is how many bytes are put into an item: no more than the receiver takes
	// of one (typedrpc.Limits.MaxMessage), and 16 MiB at most. Default 32,000 bytes, two of
	// which fit the window that a stream begins with.
	PieceSize int
}

const (
	defaultPiece = 32_000
	mostPiece    = 16 << 20 // a message has less
)

// Writer sends a transfer: all of it with Send, or piece by piece with Write. It is
// not safe for concurrent use.
type Writer struct {
	send        func(typedrpc.Bytes) error
	item        typedrpc.Bytes // the memory of all; nil: nothing was sent
	sum         hash.Hash
	done, total int64
	progress    func(done, total int64)
	err         error // of all that follows
	ended       bool
}

// NewWriter makes a Writer that gives its items to send, for transfers over a
// bidirectional stream, by its Send. An item is valid until send returns. A
// download's handler is given its Writer.
func NewWriter(send func(typedrpc.Bytes) error) *Writer { return &Writer{send: send} }

func errEnded() error {
	return typedrpc.Errorf(typedrpc.FailedPrecondition, "the transfer has ended, or has begun: Send sends the whole of one")
}

// Send sends all that src reads, as the whole transfer. It returns the first error of
// src or of the stream as it is. nil options are fine.
func (w *Writer) Send(src io.Reader, o *SendOptions) error {
	w = w.made()
	switch {
	case w.err != nil:
		return w.err
	case w.item != nil || w.ended:
		return errEnded()
	}
	if err := o.check(src); err != nil {
		w.err = err
		return err
	}
	if o == nil {
		o = &SendOptions{}
	}
	total := o.total(src)
	w.progress = o.Progress
	if err := w.begin(cmp.Or(o.PieceSize, defaultPiece), o.Offset, total); err != nil {
		return err
	}
	if w.err = w.copy(src, o.Offset); w.err != nil {
		return w.err
	}
	return w.Close()
}

// check says what is wrong with a transfer before it begins.
func (o *SendOptions) check(src io.Reader) *typedrpc.Error {
	switch {
	case src == nil:
		return typedrpc.Errorf(typedrpc.InvalidArgument, "transfer: the source is nil")
	case o == nil:
		return nil
	case o.PieceSize < 0 || o.Total < 0 || o.Offset < 0:
		return typedrpc.Errorf(typedrpc.InvalidArgument, "transfer: SendOptions has PieceSize %d, Total %d and Offset %d, they must not be negative", o.PieceSize, o.Total, o.Offset)
	case o.PieceSize > mostPiece:
		return typedrpc.Errorf(typedrpc.InvalidArgument, "transfer: SendOptions.PieceSize is %d, at most %d bytes fit an item", o.PieceSize, mostPiece)
	case o.Total > 0 && o.Offset > o.Total:
		return typedrpc.Errorf(typedrpc.InvalidArgument, "transfer: SendOptions has the Offset %d, behind the Total %d", o.Offset, o.Total)
	}
	if total := o.total(src); total >= 0 && o.Offset > total {
		return typedrpc.Errorf(typedrpc.DataLoss, "the source has %d bytes, and the Offset is %d", total, o.Offset)
	}
	return nil
}

// total is how many bytes src has, -1 if that is unknown.
func (o *SendOptions) total(src io.Reader) int64 {
	if o != nil && o.Total > 0 {
		return o.Total
	}
	return sizeOf(src)
}

// made is w, or, for one that is nil, one that says so.
func (w *Writer) made() *Writer {
	if w == nil {
		return new(Writer)
	}
	return w
}

// copy sends what src reads behind offset.
func (w *Writer) copy(src io.Reader, offset int64) error {
	idle := 0
	for done := int64(0); ; {
		p := w.item[1:]
		if left := offset - done; left > 0 {
			p = p[:min(left, int64(len(p)))]
		}
		n, err := src.Read(p)
		done += int64(n)
		if idle++; n > 0 {
			idle = 0
		}
		if w.total >= 0 && (done > w.total || err == io.EOF && done < w.total) {
			return typedrpc.Errorf(typedrpc.DataLoss, "the source has %s than the %d bytes that were announced", moreOrFewer(done > w.total), w.total)
		}
		if done <= offset {
			w.sum.Write(p[:n])
		} else if n > 0 {
			if err := w.give(n); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF && done < offset:
			return typedrpc.Errorf(typedrpc.DataLoss, "the source has %d bytes, and the Offset is %d", done, offset)
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case idle >= mostIdle:
			return io.ErrNoProgress
		}
	}
}

// mostIdle is how often a source may read nothing and say nothing, as in bufio.
const mostIdle = 100

func moreOrFewer(more bool) string {
	if more {
		return "more"
	}
	return "fewer"
}

// Write sends p, in pieces of 32,000 bytes at most. The receiver does not learn how
// many bytes there will be. It waits while the receiver is behind.
func (w *Writer) Write(p []byte) (int, error) {
	w = w.made()
	if w.err == nil && w.ended {
		return 0, errEnded()
	}
	if err := w.begin(defaultPiece, 0, -1); err != nil {
		return 0, err
	}
	written := 0
	for len(p) > 0 {
		n := copy(w.item[1:], p)
		if w.err = w.give(n); w.err != nil {
			return written, w.err
		}
		written, p = written+n, p[n:]
	}
	return written, nil
}

// Close ends the transfer with its checksum, after Write; after Send, which ends it
// itself, it does nothing. It returns the error of what failed before. A download's
// handler need not call it.
func (w *Writer) Close() error {
	w = w.made()
	if w.ended {
		return w.err
	}
	if err := w.begin(defaultPiece, 0, -1); err != nil {
		return err
	}
	w.ended = true
	w.err = w.send(w.sum.Sum(typedrpc.Bytes{itemEnd}))
	return w.err
}

// begin sends the head, if there was none yet.
func (w *Writer) begin(piece int, offset, total int64) error {
	if w.item != nil || w.err != nil {
		return w.err
	}
	if w.send == nil {
		w.err = typedrpc.Errorf(typedrpc.FailedPrecondition, "transfer: a Writer is made by NewWriter, of a function that sends, or given to a handler")
		return w.err
	}
	w.item, w.sum, w.done, w.total = make(typedrpc.Bytes, 1+piece), sha256.New(), offset, total
	w.item[0] = itemData
	head := typedrpc.Bytes{itemHead}
	switch {
	case offset > 0:
		head = binary.BigEndian.AppendUint64(head, uint64(total)) // -1: unknown
		head = binary.BigEndian.AppendUint64(head, uint64(offset))
	case total >= 0:
		head = binary.BigEndian.AppendUint64(head, uint64(total))
	}
	if w.err = w.send(head); w.err == nil {
		w.tell()
	}
	return w.err
}

// give sends the first n bytes of the item's data.
func (w *Writer) give(n int) error {
	w.sum.Write(w.item[1 : 1+n])
	if err := w.send(w.item[:1+n]); err != nil {
		return err
	}
	w.done += int64(n)
	w.tell()
	return nil
}

func (w *Writer) tell() {
	if w.progress != nil {
		w.progress(w.done, w.total)
	}
}

// sizeOf returns how many bytes r is going to read, -1 if that is unknown.
func sizeOf(r io.Reader) int64 {
	switch r := r.(type) {
	case interface{ Len() int }:
		return int64(r.Len())
	case interface {
		Stat() (fs.FileInfo, error)
		io.Seeker
	}:
		info, err := r.Stat()
		if err != nil || !info.Mode().IsRegular() || info.Size() == 0 { // as those in /proc say
			return -1
		}
		at, err := r.Seek(0, io.SeekCurrent)
		if err != nil {
			return -1
		}
		return max(0, info.Size()-at)
	}
	return -1
}
