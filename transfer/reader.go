package transfer

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"
	"iter"
	"math"

	"github.com/typedrpc/typedrpc"
)

// ReceiveOptions are what the receiver of a transfer can be told. The zero value of
// every field is its default.
type ReceiveOptions struct {
	// MaxBytes is how many bytes a transfer may have, those of Prefix among them: more
	// fail with ResourceExhausted, at once if the sender's total says so. 0: any
	// number; a negative one fails the transfer with InvalidArgument.
	MaxBytes int64
	// Prefix reads what this side has already, of a transfer that broke off. It is
	// read to its end, for the checksum, when the transfer begins. The sender has to
	// go on behind it, see SendOptions.Offset: one that begins elsewhere fails with
	// FailedPrecondition. The Reader reads what comes behind it, while total, progress
	// and checksum are of the whole. nil: there is nothing yet.
	Prefix io.Reader
	// Progress is called when the transfer begins, with the number of bytes of Prefix,
	// and then after each piece: how many bytes are here, of how many; total is -1
	// when it is unknown. It runs on the goroutine that reads, which it holds up.
	Progress func(done, total int64)
}

// Reader reads what the other side of a transfer sends. Close may be called by any
// goroutine at any time, everything else by one at a time.
type Reader struct {
	opts  ReceiveOptions
	next  func(*typedrpc.Bytes) error // io.EOF after the last item
	leave func()
	bad   typedrpc.Code // of an item that makes no sense
	whole bool          // the stream is the transfer: its end is awaited

	item        typedrpc.Bytes // the latest; its memory may be used again
	data        []byte         // what of it has not been read
	sum         hash.Hash      // nil: the transfer has not begun
	done, total int64
	err         error // why there is no more data; io.EOF: all of it was right
}

// NewReader receives a transfer over a bidirectional stream, from its Stream.All.
// Any other sequence must go on where the loop before was left, as these do. The
// reader takes no item after the transfer's last, so that another transfer may
// follow. An upload's handler is given its Reader.
func NewReader(items iter.Seq2[typedrpc.Bytes, error]) *Reader {
	if items == nil {
		return &Reader{}
	}
	return &Reader{
		bad:   typedrpc.InvalidArgument,
		leave: func() {},
		next: func(b *typedrpc.Bytes) error {
			*b = nil // while it waits for the next one
			for item, err := range items {
				*b = item
				return err
			}
			return io.EOF
		},
	}
}

// Begin waits for the beginning of the transfer, and says how it is to be received.
// Without it the first Read begins, with no options. A Reader that Receive returned has
// begun, with the options that Receive was given. Begin's error is Read's from then on,
// too. Calling it again, or after a Read, fails with FailedPrecondition.
func (r *Reader) Begin(o *ReceiveOptions) error {
	switch {
	case r == nil || r.next == nil:
		return typedrpc.Errorf(typedrpc.FailedPrecondition, "transfer: a Reader is made by NewReader or Receive, or given to a handler")
	case r.sum != nil:
		return typedrpc.Errorf(typedrpc.FailedPrecondition, "the transfer has begun")
	}
	r.sum, r.total = sha256.New(), -1
	if o != nil {
		r.opts = *o
	}
	if r.err = r.begin(); r.err != nil {
		if r.leave != nil {
			r.leave()
		}
		return r.err
	}
	r.tell()
	return nil
}

func (r *Reader) tell() {
	if r.opts.Progress != nil {
		r.opts.Progress(r.done, r.total)
	}
}

func (o *ReceiveOptions) check() *typedrpc.Error {
	if o != nil && o.MaxBytes < 0 {
		return typedrpc.Errorf(typedrpc.InvalidArgument, "transfer: ReceiveOptions.MaxBytes is %d, it must not be negative", o.MaxBytes)
	}
	return nil
}

// begin receives the first item.
func (r *Reader) begin() error {
	if err := r.opts.check(); err != nil {
		return err
	}
	if p := r.opts.Prefix; p != nil {
		r.opts.Prefix = nil
		var err error
		if r.done, err = bufio.NewReaderSize(p, defaultPiece).WriteTo(r.sum); err != nil {
			return typedrpc.Errorf(typedrpc.Internal, "cannot read what of the transfer is here: %w", err)
		}
	}
	if err := r.receive(); err != nil {
		return err
	}
	if len(r.item) == 0 || r.item[0] != itemHead {
		return r.malformed("it does not begin with its head")
	}
	var total, offset uint64
	switch head := r.item[1:]; len(head) {
	case 0:
		total = unknown
	case 8:
		if total = binary.BigEndian.Uint64(head); total > math.MaxInt64 {
			return r.malformed("it announces %d bytes", total)
		}
	case 16:
		total, offset = binary.BigEndian.Uint64(head), binary.BigEndian.Uint64(head[8:])
		if offset > min(total, math.MaxInt64) || total > math.MaxInt64 && total != unknown {
			return r.malformed("it announces %d bytes, from %d on", total, offset)
		}
	default:
		return r.malformed("its head has %d bytes", len(r.item))
	}
	if offset != uint64(r.done) {
		return r.fault(typedrpc.FailedPrecondition, "it begins at byte %d, and %d bytes are here", offset, r.done)
	}
	if total != unknown {
		r.total = int64(total)
	}
	return r.bounded(max(r.total, r.done))
}

// Total returns how many bytes the whole transfer has, as its sender announced, -1 if
// it did not know, or if there was no beginning. In a handler it waits for the beginning
// of the transfer, as Begin and Read do, until the handler's context ends; where Receive
// returned the Reader the transfer has begun, and it does not wait.
func (r *Reader) Total() int64 {
	if r == nil || r.next == nil {
		return -1
	}
	if r.sum == nil {
		r.Begin(nil) // its error is Read's
	}
	return r.total
}

// Sum returns the SHA-256 of what is here: the Prefix, and what was received. It is
// the sender's, of the whole, after Read has returned io.EOF.
func (r *Reader) Sum() []byte {
	if r == nil || r.sum == nil {
		return sha256.New().Sum(nil)
	}
	return r.sum.Sum(nil)
}

// Read implements io.Reader. It returns io.EOF only after everything has come
// and its checksum was right: what was read before is unverified. When its session is
// lost the error is a typedrpc.Gap, and the transfer may go on, see
// ReceiveOptions.Prefix. A transfer that its sender breaks off, or of which there is
// less or more than announced or with another checksum, ends with DataLoss, and one
// that is broken off is an io.ErrUnexpectedEOF too. Every other error is a
// *typedrpc.Error: the sender's, the stream's, or that of MaxBytes.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := r.fill(); err != nil {
		return 0, err
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

// WriteTo implements io.WriterTo, for io.Copy: it writes each piece as it came.
func (r *Reader) WriteTo(w io.Writer) (n int64, err error) {
	for {
		if err := r.fill(); err != nil {
			if err == io.EOF {
				err = nil
			}
			return n, err
		}
		k, err := w.Write(r.data)
		n += int64(k)
		r.data = r.data[k:]
		if err != nil {
			return n, err
		}
	}
}

// Close leaves a download: the handler's context ends, and what has not been
// received is dropped. After the end of the transfer, and in a handler, whose
// return is the end, it does nothing. The error is always nil.
func (r *Reader) Close() error {
	if r != nil && r.leave != nil {
		r.leave()
	}
	return nil
}

// fill returns when there is data.
func (r *Reader) fill() error {
	if r == nil || r.next == nil {
		return r.Begin(nil) // which says so
	}
	if r.sum == nil {
		r.Begin(nil) // its error is kept
	}
	for len(r.data) == 0 {
		if r.err != nil {
			return r.err
		}
		if r.err = r.advance(); r.err != nil {
			r.leave() // of no consequence after a good end
		}
	}
	return nil
}

// advance takes the next item after the first.
func (r *Reader) advance() error {
	if err := r.receive(); err != nil {
		return err
	}
	if len(r.item) == 0 {
		return r.malformed("an item of it is empty")
	}
	switch kind, data := r.item[0], r.item[1:]; kind {
	case itemData:
		done := r.done + int64(len(data))
		if r.total >= 0 && done > r.total {
			return r.lost("it has more than the %d bytes that were announced", r.total)
		}
		if err := r.bounded(done); err != nil {
			return err
		}
		r.done, r.data = done, data
		r.sum.Write(data)
		r.tell()
		return nil
	case itemEnd:
		return r.finish(data)
	default:
		return r.malformed("an item of it has the kind %d", kind)
	}
}

// finish takes the last item. It returns io.EOF if all is well.
func (r *Reader) finish(sum []byte) error {
	switch {
	case len(sum) != sha256.Size:
		return r.malformed("its checksum has %d bytes", len(sum))
	case r.total >= 0 && r.done < r.total:
		return r.lost("it has %d bytes, %d were announced", r.done, r.total)
	case !bytes.Equal(sum, r.Sum()):
		return r.lost("the checksum of its %d bytes is wrong", r.done)
	case !r.whole:
		return io.EOF
	}
	if err := r.next(&r.item); err != nil {
		return err // io.EOF, or the handler failed after all
	}
	return r.malformed("it goes on after its end")
}

// receive receives the next item of the transfer.
func (r *Reader) receive() error {
	r.data = nil // the next one may be long in coming
	err := r.next(&r.item)
	if err == io.EOF {
		return r.lost("it breaks off after %d bytes: %w", r.done, io.ErrUnexpectedEOF)
	}
	return err
}

// bounded refuses a transfer of n bytes that are too many.
func (r *Reader) bounded(n int64) error {
	if most := r.opts.MaxBytes; most > 0 && n > most {
		return r.fault(typedrpc.ResourceExhausted, "it has at least %d bytes, at most %d are taken", n, most)
	}
	return nil
}

func (r *Reader) malformed(format string, args ...any) error { return r.fault(r.bad, format, args...) }

func (r *Reader) lost(format string, args ...any) error {
	return r.fault(typedrpc.DataLoss, format, args...)
}

// fault is what is wrong with what the other side sends.
func (r *Reader) fault(code typedrpc.Code, format string, args ...any) error {
	e := typedrpc.Errorf(code, "cannot receive the transfer: "+format, args...)
	e.Outcome = typedrpc.Answered
	return e
}
