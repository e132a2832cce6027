package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/transfer"
)

// Of a transfer that goes on, only the rest is sent, and total, progress and
// checksum are of the whole, at both ends.
func TestTransfer_goesOn(t *testing.T) {
	whole := noise(100_000)
	up := transfer.NewUpload[int, string]("test.up")
	down := transfer.NewDownload[int]("test.down")
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		ctx := t.Context()
		var sent, seen []int64
		source := func() io.Reader { return bytes.NewReader(whole) }
		sending := func(offset int) *transfer.SendOptions {
			sent = nil
			return &transfer.SendOptions{Offset: int64(offset), Progress: func(done, total int64) { sent = append(sent, done, total) }}
		}
		receiving := func(prefix io.Reader) *transfer.ReceiveOptions {
			seen = nil
			return &transfer.ReceiveOptions{Prefix: prefix, MaxBytes: int64(len(whole)), Progress: func(done, total int64) { seen = append(seen, done, total) }}
		}
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, up, func(_ context.Context, here int, r *transfer.Reader) (string, error) {
			if err := r.Begin(receiving(bytes.NewReader(whole[:here]))); err != nil {
				return "", err
			}
			rest, err := io.ReadAll(r)
			return fmt.Sprintf("%d %d %x", len(rest), r.Total(), r.Sum()), err
		})
		typedrpc.Handle(mux, down, func(_ context.Context, offset int, w *transfer.Writer) error {
			return w.Send(source(), sending(offset))
		})
		c, s := bytesPair(t, d, mux)
		defer c.Close()
		for _, here := range []int{0, 1, 40_000, 99_999, 100_000} {
			answer, err := transfer.Send(ctx, c, up, here, source(), sending(here))
			is.NoErr(err)
			is.Equal(answer, fmt.Sprintf("%d 100000 %s", len(whole)-here, hashOf(whole)))
			is.Equal(seen, sent)
			is.Equal(sent[:2], []int64{int64(here), 100_000})
			is.Equal(sent[len(sent)-2:], []int64{100_000, 100_000})

			r, err := transfer.Receive(ctx, c, down, here, receiving(bytes.NewReader(whole[:here])))
			is.NoErr(err)
			rest, err := io.ReadAll(r)
			is.NoErr(err)
			is.True(bytes.Equal(rest, whole[here:]))
			is.Equal(fmt.Sprintf("%d %x", r.Total(), r.Sum()), "100000 "+hashOf(whole))
			is.Equal(seen, sent)
		}

		_, err := transfer.Send(ctx, c, up, 10, unsized{source()}, sending(10)) // of unknown length
		is.NoErr(err)
		is.Equal(sent[:2], []int64{10, -1})
		synctest.Wait() // the handler before has returned
		_, err = transfer.Send(ctx, c, up, 10, source(), sending(11))
		is.True(errors.Is(err, typedrpc.FailedPrecondition))
		is.True(strings.Contains(err.Error(), "begins at byte 11, and 10 bytes are here"))
		synctest.Wait()                                       // the handler before has returned
		_, err = transfer.Send(ctx, c, up, 10, source(), nil) // which does not know of it
		is.True(errors.Is(err, typedrpc.FailedPrecondition))
		synctest.Wait() // the handler before has returned
		_, err = transfer.Send(ctx, c, up, 0, strings.NewReader("abc"), sending(4))
		is.True(errors.Is(err, typedrpc.FailedPrecondition) || errors.Is(err, typedrpc.DataLoss) || errors.Is(err, typedrpc.InvalidArgument))
		synctest.Wait() // the handler before has returned
		_, err = transfer.Receive(ctx, c, down, 10, receiving(iotest.ErrReader(io.ErrClosedPipe)))
		is.True(errors.Is(err, io.ErrClosedPipe))
		synctest.Wait() // the handler before has returned
		_, err = transfer.Receive(ctx, c, down, 10, receiving(&idleReader{}))
		is.True(errors.Is(err, io.ErrNoProgress))
		synctest.Wait() // the handler before has returned
		r, err := transfer.Receive(ctx, c, down, 10, receiving(strings.NewReader("not those!")))
		is.NoErr(err)
		_, err = io.ReadAll(r)
		is.True(errors.Is(err, typedrpc.DataLoss)) // what was here is in the checksum
		idle(is, c, s)
	})
}

// A source that ends before its Offset does not pass for a short file.
func TestTransfer_offsetBehindTheEnd(t *testing.T) {
	is := is.New(t)
	var items []typedrpc.Bytes
	w := transfer.NewWriter(func(b typedrpc.Bytes) error { items = append(items, b); return nil })
	err := w.Send(unsized{strings.NewReader("abc")}, &transfer.SendOptions{Offset: 4})
	is.True(errors.Is(err, typedrpc.DataLoss))
	is.Equal(len(items), 1) // the head
}

// A handler that writes sends a transfer of unknown length, which ends with its
// return; one that writes nothing, an empty one.
func TestWriter_write(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		ctx := t.Context()
		text := noise(70_000)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, bytesGet, func(_ context.Context, pieces int, w *transfer.Writer) error {
			for range pieces {
				if n, err := w.Write(text); err != nil || n != len(text) {
					return errors.Join(err, typedrpc.Internal)
				}
			}
			if pieces == 3 {
				return typedrpc.Aborted
			}
			return nil
		})
		c, s := bytesPair(t, d, mux)
		defer c.Close()
		for _, pieces := range []int{0, 1, 2, 3} {
			r, err := transfer.Receive(ctx, c, bytesGet, pieces, nil)
			is.NoErr(err)
			is.Equal(r.Total(), int64(-1))
			got, err := io.ReadAll(r)
			is.True(bytes.Equal(got, bytes.Repeat(text, pieces)))
			is.Equal(errors.Is(err, typedrpc.Aborted), pieces == 3)
			is.Equal(err == nil, pieces < 3)
		}
		idle(is, c, s)
	})
}

// Zero values, nil, and numbers that make no sense are errors, and no panics.
func TestTransfer_zeroValues(t *testing.T) {
	is := is.New(t)
	ctx := t.Context()
	c, _ := bytesPair(t, typedrpc.Binary, bytesMux())
	defer c.Close()
	_, err := transfer.Send(ctx, c, transfer.Upload[int, int]{}, 0, strings.NewReader(""), nil)
	is.True(err != nil)
	_, err = transfer.Send(ctx, nil, bytesPut, struct{}{}, strings.NewReader(""), nil)
	is.True(err != nil)
	is.Equal(transfer.Upload[int, int]{}.Name()+transfer.Download[int]{}.Name(), "")
	_, err = transfer.Receive(ctx, c, transfer.Download[int]{}, 0, nil)
	is.True(errors.Is(err, typedrpc.InvalidArgument))
	_, err = transfer.Receive(ctx, nil, bytesGet, 0, nil)
	is.True(errors.Is(err, typedrpc.InvalidArgument))
	_, err = transfer.Receive(ctx, c, bytesGet, 0, &transfer.ReceiveOptions{MaxBytes: -1})
	is.True(errors.Is(err, typedrpc.InvalidArgument))
	_, err = transfer.Send(ctx, c, bytesPut, struct{}{}, nil, nil)
	is.True(errors.Is(err, typedrpc.InvalidArgument))
	_, err = transfer.Send(ctx, c, bytesPut, struct{}{}, strings.NewReader(""), &transfer.SendOptions{Offset: -1})
	is.True(errors.Is(err, typedrpc.InvalidArgument))

	for _, r := range []*transfer.Reader{{}, transfer.NewReader(nil)} {
		is.Equal(r.Total(), int64(-1))
		is.Equal(fmt.Sprintf("%x", r.Sum()), hashOf(nil))
		_, err = r.Read(make([]byte, 1))
		is.True(errors.Is(err, typedrpc.FailedPrecondition))
		is.NoErr(r.Close())
	}
	for _, w := range []*transfer.Writer{{}, transfer.NewWriter(nil)} {
		_, err = w.Write([]byte("x"))
		is.True(errors.Is(err, typedrpc.FailedPrecondition))
		is.True(errors.Is(w.Send(strings.NewReader("x"), nil), typedrpc.FailedPrecondition))
		is.True(errors.Is(w.Close(), typedrpc.FailedPrecondition))
	}
	w := transfer.NewWriter(func(typedrpc.Bytes) error { return nil })
	is.NoErr(w.Send(strings.NewReader("x"), nil))
	is.True(errors.Is(w.Send(strings.NewReader("y"), nil), typedrpc.FailedPrecondition)) // it is over
	_, err = w.Write([]byte("y"))
	is.True(errors.Is(err, typedrpc.FailedPrecondition))
	is.NoErr(w.Close())
}
