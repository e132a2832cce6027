package transfer_test

import (
	"context"
	"errors"
	"io"
	"math"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/transfer"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// Options that make no sense fail before there is a call.
func TestRefused_beforeTheCall(t *testing.T) {
	put := transfer.NewUpload[string, int]("put")
	get := transfer.NewDownload[string]("get")
	var calls atomic.Int32
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, put, func(context.Context, string, *transfer.Reader) (int, error) { calls.Add(1); return 0, nil })
	typedrpc.Handle(mux, get, func(_ context.Context, _ string, w *transfer.Writer) error { calls.Add(1); return w.Close() })
	c, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: mux}, nil)
	send := func(src io.Reader, o transfer.SendOptions) error {
		_, err := transfer.Send(t.Context(), c, put, "", src, &o)
		return err
	}
	receive := func(o transfer.ReceiveOptions) error {
		_, err := transfer.Receive(t.Context(), c, get, "", &o)
		return err
	}
	four := func() io.Reader { return strings.NewReader("four") }
	for what, tt := range map[string]struct {
		err  error
		code typedrpc.Code
	}{
		"no source":                    {send(nil, transfer.SendOptions{}), typedrpc.InvalidArgument},
		"negative total":               {send(four(), transfer.SendOptions{Total: -1}), typedrpc.InvalidArgument},
		"negative offset":              {send(four(), transfer.SendOptions{Offset: -1}), typedrpc.InvalidArgument},
		"a piece that fits no item":    {send(four(), transfer.SendOptions{PieceSize: math.MaxInt}), typedrpc.InvalidArgument},
		"negative piece":               {send(four(), transfer.SendOptions{PieceSize: -1}), typedrpc.InvalidArgument},
		"offset behind total":          {send(four(), transfer.SendOptions{Total: 4, Offset: 5}), typedrpc.InvalidArgument},
		"offset behind a source's end": {send(four(), transfer.SendOptions{Offset: 5}), typedrpc.DataLoss},
		"negative bound":               {receive(transfer.ReceiveOptions{MaxBytes: -1}), typedrpc.InvalidArgument},
	} {
		t.Run(what, func(t *testing.T) {
			is := is.New(t)
			is.Equal(typedrpc.CodeOf(tt.err), tt.code)
			is.Equal(typedrpc.OutcomeOf(tt.err), typedrpc.NotSent)
		})
	}
	is.New(t).Equal(calls.Load(), int32(0))
}

// A handler that does not look at the error has not sent an empty file.
func TestRefused_isNoEmptyFile(t *testing.T) {
	is := is.New(t)
	get := transfer.NewDownload[string]("get")
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, get, func(_ context.Context, _ string, w *transfer.Writer) error {
		w.Send(strings.NewReader("four"), &transfer.SendOptions{Offset: -1})
		return nil
	})
	c, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: mux}, nil)
	_, err := transfer.Receive(t.Context(), c, get, "", nil)
	is.True(errors.Is(err, typedrpc.InvalidArgument))
}

// What is nil, or was not made as it should be, says so.
func TestRefused_zero(t *testing.T) {
	readers := map[string]*transfer.Reader{"nil": nil, "zero": new(transfer.Reader), "of nothing": transfer.NewReader(nil)}
	for who, r := range readers {
		t.Run("Reader "+who, func(t *testing.T) {
			is := is.New(t)
			for range 2 {
				is.True(errors.Is(r.Begin(nil), typedrpc.FailedPrecondition))
				_, err := r.Read(make([]byte, 1))
				is.True(errors.Is(err, typedrpc.FailedPrecondition))
				is.True(strings.Contains(err.Error(), "a Reader is made by"))
				_, err = r.WriteTo(io.Discard)
				is.True(errors.Is(err, typedrpc.FailedPrecondition))
			}
			is.Equal(r.Total(), int64(-1))
			is.Equal(len(r.Sum()), 32)
			is.NoErr(r.Close())
		})
	}
	for who, w := range map[string]*transfer.Writer{"nil": nil, "zero": new(transfer.Writer), "of nothing": transfer.NewWriter(nil)} {
		t.Run("Writer "+who, func(t *testing.T) {
			is := is.New(t)
			_, err := w.Write([]byte("x"))
			is.True(errors.Is(err, typedrpc.FailedPrecondition))
			is.True(strings.Contains(err.Error(), "a Writer is made by"))
			is.True(errors.Is(w.Send(strings.NewReader("x"), nil), typedrpc.FailedPrecondition))
			is.True(errors.Is(w.Close(), typedrpc.FailedPrecondition))
		})
	}
}
