// Package transfer carries files, or whatever an io.Reader reads, over a connection,
// with progress and a checksum:
//
//	var (
//		Put = transfer.NewUpload[string, Receipt]("files.put")
//		Get = transfer.NewDownload[string]("files.get")
//	)
//
// A transfer is a stream whose items are bytes that no codec sees. It takes turns with
// other calls of its connection, waits while its receiver is behind, and ends with the
// SHA-256 of everything, which the receiver compares. Transfers that broke off can go
// on where they ended: see SendOptions.Offset and ReceiveOptions.Prefix.
package transfer

import (
	"context"
	"errors"
	"io"
	"iter"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/schema"
	"github.com/typedrpc/typedrpc/internal/seam"
)

// Upload declares a call whose caller sends a file behind its request, and which is
// answered by a response. It is declared once, in a package that both sides import,
// and is safe for concurrent use. Send calls it.
//
// Its handlers, which typedrpc.Handle takes, read what the caller sends from r, and call
// r.Begin first if they have options, such as ReceiveOptions.MaxBytes: without it the
// size has no bound. They may answer before they have read everything: the caller then
// sends no more. Only io.EOF says that all came and is right. r is of no use when they
// have returned.
type Upload[Req, Resp any] struct {
	typedrpc.Declared[func(ctx context.Context, req Req, r *Reader) (Resp, error)]
	stream typedrpc.ClientStream[Req, typedrpc.Bytes, Resp]
}

// Download declares a call that is answered by a file. It is declared once, in a
// package that both sides import, and is safe for concurrent use. Receive calls it.
//
// Its handlers, which typedrpc.Handle takes, send with w, by Send or by Write, and end the
// transfer by returning: nil for a good end, or an error, which the caller gets after
// all that was sent before it. One that sends nothing and returns nil has sent an
// empty file.
type Download[Req any] struct {
	typedrpc.Declared[func(ctx context.Context, req Req, w *Writer) error]
	stream typedrpc.ServerStream[Req, typedrpc.Bytes]
}

// NewUpload declares an upload. It panics like typedrpc.NewClientStream, and on the
// wire it is a client stream.
func NewUpload[Req, Resp any](name string, traits ...typedrpc.CallTrait) Upload[Req, Resp] {
	u := Upload[Req, Resp]{stream: typedrpc.NewClientStream[Req, typedrpc.Bytes, Resp](name, traits...)}
	seam.Declared(u.stream).Described(schema.Registered{Kind: "upload"})
	seam.Declare(&u.Declared, name, func(f any) any {
		fn := f.(func(context.Context, Req, *Reader) (Resp, error))
		below := func(ctx context.Context, req Req, items iter.Seq2[typedrpc.Bytes, error]) (Resp, error) {
			return fn(ctx, req, NewReader(items))
		}
		if fn == nil {
			below = nil // which is refused
		}
		return seam.Handler(u.stream, below)
	})
	return u
}

// NewDownload declares a download. It panics like typedrpc.NewServerStream, and on
// the wire it is a server stream.
func NewDownload[Req any](name string, traits ...typedrpc.ServerStreamTrait) Download[Req] {
	d := Download[Req]{stream: typedrpc.NewServerStream[Req, typedrpc.Bytes](name, traits...)}
	seam.Declared(d.stream).Described(schema.Registered{Kind: "download"})
	seam.Declare(&d.Declared, name, func(f any) any {
		fn := f.(func(context.Context, Req, *Writer) error)
		below := func(ctx context.Context, req Req, send func(typedrpc.Bytes) error) error {
			w := NewWriter(send)
			if err := fn(ctx, req, w); err != nil {
				return err
			}
			return w.Close()
		}
		if fn == nil {
			below = nil
		}
		return seam.Handler(d.stream, below)
	})
	return d
}

// unsent is the error of a call that was not made.
func unsent(e *typedrpc.Error) error {
	e.Outcome = typedrpc.NotSent
	return e
}

// errLeft ends a transfer whose items are not wanted any more.
var errLeft = errors.New("the items are not wanted any more")

// Send calls an upload, sends it all that src reads, and returns the response. An
// error of src ends the call with that error; the handler sees that the caller left.
// When the handler answers early, the rest of src is not read. Send returns when src
// does: ctx does not end a Read. nil options are fine.
func Send[Req, Resp any](ctx context.Context, c typedrpc.Caller, u Upload[Req, Resp], req Req, src io.Reader, o *SendOptions) (Resp, error) {
	if err := o.check(src); err != nil {
		var none Resp
		return none, unsent(err)
	}
	return typedrpc.SendAll(ctx, c, u.stream, req, func(yield func(typedrpc.Bytes, error) bool) {
		w := NewWriter(func(item typedrpc.Bytes) error {
			if !yield(item, nil) {
				return errLeft
			}
			return nil
		})
		if err := w.Send(src, o); err != nil && err != errLeft {
			yield(nil, err)
		}
	})
}

// Receive calls a download. It returns when the transfer begins, or with the
// handler's error. The caller must read until an error, Close the reader, or end ctx;
// otherwise the call lives as long as its connection. nil options are fine.
func Receive[Req any](ctx context.Context, c typedrpc.Caller, d Download[Req], req Req, o *ReceiveOptions) (*Reader, error) {
	if err := o.check(); err != nil {
		return nil, unsent(err)
	}
	recv, leave, err := seam.Open(ctx, c, d.stream, &req)
	if err != nil {
		return nil, err
	}
	r := &Reader{
		bad:   typedrpc.Internal,
		leave: leave,
		whole: true,
		next:  func(b *typedrpc.Bytes) error { return recv(b) },
	}
	if err := r.Begin(o); err != nil {
		return nil, err
	}
	return r, nil
}
