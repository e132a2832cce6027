package typedrpc

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"
	"io/fs"
	"iter"
	"math"
)

const (
	transferHead = iota
	transferData
	transferEnd
)

// TransferOptions are what one side of a transfer wants. nil, and the zero value
// of every field, are fine.
type TransferOptions struct {
	// Total is how many bytes the sender's source has: one with more or fewer
	// fails the transfer. By default it is asked of sources that know it (those
	// with a method Len, and regular files), and unknown for all others.
	Total int64
	// MaxBytes is how many bytes the receiver takes: a transfer of more fails
	// with ResourceExhausted, at once if its total says so. Default no bound.
	MaxBytes int64
	// Progress is called with 0 when the transfer begins and then after each
	// piece: how many bytes were sent or received, of how many; total is -1
	// when it is unknown. It runs on the goroutine that sends or reads, which
	// it holds up.
	Progress func(done, total int64)
	// PieceSize is how many bytes the sender puts into an item. Default
	// 32,000 bytes, two of which fit the window that a stream begins with.
	PieceSize int
}

const defaultPiece = 32_000

func (o *TransferOptions) orDefault() TransferOptions {
	if o == nil {
		return TransferOptions{}
	}
	return *o
}

func (o *TransferOptions) progress(done, total int64) {
	if o.Progress != nil {
		o.Progress(done, total)
	}
}

// Upload calls a client stream, sends it all that r reads, and returns the
// response. An error of r ends the call with that error; the handler sees that
// the caller left. When the handler answers early, the rest of r is not read.
// Upload returns when r does: ctx does not end a Read. The handler receives
// with NewReader.
func Upload[Req, Resp any](ctx context.Context, c Caller, s ClientStream[Req, Bytes, Resp], req Req, r io.Reader, o *TransferOptions) (Resp, error) {
	return SendAll(ctx, c, s, req, transfer(r, o))
}

// SendReader sends all that r reads, from the handler of a server stream, whose
// caller receives with Download; or with the Send of a Stream, whose other side
// receives with NewReader. It returns the first error of r or send as it is.
func SendReader(send func(Bytes) error, r io.Reader, o *TransferOptions) error {
	for item, err := range transfer(r, o) {
		if err != nil {
			return err
		}
		if err := send(item); err != nil {
			return err
		}
	}
	return nil
}

// transfer makes items of what r reads. An item is valid until the next.
func transfer(r io.Reader, o *TransferOptions) iter.Seq2[Bytes, error] {
	return func(yield func(Bytes, error) bool) {
		o := o.orDefault()
		if o.PieceSize < 0 || o.Total < 0 {
			yield(nil, Errorf(InvalidArgument, "TransferOptions: PieceSize is %d and Total %d, they must not be negative", o.PieceSize, o.Total))
			return
		}
		if o.PieceSize == 0 {
			o.PieceSize = defaultPiece
		}
		total := o.Total
		if total == 0 {
			total = sizeOf(r)
		}
		head := Bytes{transferHead}
		if total >= 0 {
			head = binary.BigEndian.AppendUint64(head, uint64(total))
		}
		if !yield(head, nil) {
			return
		}
		o.progress(0, total)

		sum := sha256.New()
		item := make(Bytes, 1+o.PieceSize)
		item[0] = transferData
		idle := 0
		for done := int64(0); ; {
			n, err := r.Read(item[1:])
			done += int64(n)
			if idle++; n > 0 {
				idle = 0
			}
			if total >= 0 && (done > total || err == io.EOF && done < total) {
				yield(nil, Errorf(DataLoss, "the source has %s than the %d bytes that were announced", moreOrFewer(done > total), total))
				return
			}
			if n > 0 {
				sum.Write(item[1 : 1+n])
				if !yield(item[:1+n], nil) {
					return
				}
				o.progress(done, total)
			}
			switch {
			case err == io.EOF:
				yield(sum.Sum(Bytes{transferEnd}), nil)
				return
			case err != nil:
				yield(nil, err)
				return
			case idle >= mostIdle:
				yield(nil, io.ErrNoProgress)
				return
			}
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

// Download calls a server stream whose handler sends with SendReader. It returns
// when the transfer begins, or with the handler's error. The caller must read
// until an error, Close the reader, or end ctx; otherwise the stream lives as
// long as its connection.
func Download[Req any](ctx context.Context, c Caller, s ServerStream[Req, Bytes], req Req, o *TransferOptions) (*Reader, error) {
	x, err := open(ctx, c, s.spec, &req)
	if err != nil {
		return nil, err
	}
	stream := &Stream[Empty, Bytes]{x: x}
	return newReader(&Reader{
		opts:  o.orDefault(),
		bad:   Internal,
		leave: stream.Cancel,
		whole: true,
		next:  func(b *Bytes) error { _, err := x.recv(b, nil); return err },
	})
}

// NewReader receives a transfer in the handler of a client stream, from its
// items, or on either side of a bidirectional stream, from Stream.All. Any other
// sequence must go on where the loop before was left, as these do. It returns
// when the transfer begins. The reader takes no item after the transfer's last.
func NewReader(items iter.Seq2[Bytes, error], o *TransferOptions) (*Reader, error) {
	return newReader(&Reader{
		opts:  o.orDefault(),
		bad:   InvalidArgument,
		leave: func() {},
		next: func(b *Bytes) error {
			for item, err := range items {
				*b = item
				return err
			}
			return io.EOF
		},
	})
}

// Reader reads what the other side of a transfer sends. Close may be called by
// any goroutine at any time, everything else by one at a time.
type Reader struct {
	opts  TransferOptions
	next  func(*Bytes) error // io.EOF after the last item
	leave func()
	bad   Code // of an item that makes no sense
	whole bool // the stream is the transfer: its end is awaited

	item        Bytes  // the latest; its memory may be used again
	data        []byte // what of it has not been read
	sum         hash.Hash
	done, total int64
	err         error // why there is no more data; io.EOF: all of it was right
}

func newReader(r *Reader) (*Reader, error) {
	r.sum, r.total = sha256.New(), -1
	if err := r.begin(); err != nil {
		r.leave()
		return nil, err
	}
	r.opts.progress(0, r.total)
	return r, nil
}

// begin receives the first item.
func (r *Reader) begin() error {
	if err := r.receive(); err != nil {
		return err
	}
	if len(r.item) == 0 || r.item[0] != transferHead {
		return r.malformed("it does not begin with its head")
	}
	if len(r.item) == 1 {
		return nil
	}
	if len(r.item) != 9 {
		return r.malformed("its head has %d bytes", len(r.item))
	}
	total := binary.BigEndian.Uint64(r.item[1:])
	if total > math.MaxInt64 {
		return r.malformed("it announces %d bytes", total)
	}
	r.total = int64(total)
	return r.bounded(r.total)
}

// Total returns how many bytes the sender announced, -1 if it did not know.
func (r *Reader) Total() int64 { return r.total }

// Sum returns the SHA-256 of what was received. It is the sender's after Read
// has returned io.EOF.
func (r *Reader) Sum() []byte { return r.sum.Sum(nil) }

// Read implements io.Reader. It returns io.EOF only after everything has come
// and its checksum was right. A transfer that breaks off, or of which there is
// less or more than announced or with another checksum, ends with DataLoss, and
// one that breaks off is an io.ErrUnexpectedEOF too. Every other error is an
// *Error: the sender's, the stream's, or that of MaxBytes. All data that came
// before is returned first, unverified.
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
	r.leave()
	return nil
}

// fill returns when there is data.
func (r *Reader) fill() error {
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
	case transferData:
		done := r.done + int64(len(data))
		if r.total >= 0 && done > r.total {
			return r.lost("it has more than the %d bytes that were announced", r.total)
		}
		if err := r.bounded(done); err != nil {
			return err
		}
		r.done, r.data = done, data
		r.sum.Write(data)
		r.opts.progress(r.done, r.total)
		return nil
	case transferEnd:
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
	err := r.next(&r.item)
	if err == io.EOF {
		return r.lost("it breaks off after %d bytes: %w", r.done, io.ErrUnexpectedEOF)
	}
	return err
}

// bounded refuses a transfer of n bytes that are too many.
func (r *Reader) bounded(n int64) error {
	if most := r.opts.MaxBytes; most > 0 && n > most {
		return r.fault(ResourceExhausted, "it has at least %d bytes, at most %d are taken", n, most)
	}
	return nil
}

func (r *Reader) malformed(format string, args ...any) error { return r.fault(r.bad, format, args...) }

func (r *Reader) lost(format string, args ...any) error { return r.fault(DataLoss, format, args...) }

// fault is what is wrong with what the other side sends.
func (r *Reader) fault(code Code, format string, args ...any) error {
	return Errorf(code, "cannot receive the transfer: "+format, args...).with(Answered)
}
