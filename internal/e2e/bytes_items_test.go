package e2e_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/transfer"
)

// What is in each item of a transfer, by its first byte.
const (
	partHead = 0
	partData = 1
	partEnd  = 2

	pieceSize = 32_000 // bytes in an item, by default
)

// itemsPut and itemsGet are the streams that bytesPut and bytesGet are on the wire.
var (
	itemsPut = typedrpc.NewClientStream[struct{}, typedrpc.Bytes, string](bytesPut.Name())
	itemsGet = typedrpc.NewServerStream[int, typedrpc.Bytes](bytesGet.Name())
)

// head, data and end are items as any peer may write them.
func head(total uint64) typedrpc.Bytes {
	return binary.BigEndian.AppendUint64(typedrpc.Bytes{partHead}, total)
}

// headFrom is the head of one that goes on at a byte.
func headFrom(total, at uint64) typedrpc.Bytes { return binary.BigEndian.AppendUint64(head(total), at) }

func data(text string) typedrpc.Bytes { return append(typedrpc.Bytes{partData}, text...) }

func end(text string) typedrpc.Bytes {
	sum := sha256.Sum256([]byte(text))
	return append(typedrpc.Bytes{partEnd}, sum[:]...)
}

var badTransfers = map[string]struct {
	items []typedrpc.Bytes
	code  typedrpc.Code
	text  string
}{
	"nothing":           {nil, typedrpc.DataLoss, "breaks off after 0 bytes"},
	"only a head":       {[]typedrpc.Bytes{head(3)}, typedrpc.DataLoss, "breaks off after 0 bytes"},
	"no end":            {[]typedrpc.Bytes{head(3), data("abc")}, typedrpc.DataLoss, "breaks off after 3 bytes"},
	"wrong sum":         {[]typedrpc.Bytes{head(3), data("abd"), end("abc")}, typedrpc.DataLoss, "checksum of its 3 bytes is wrong"},
	"fewer":             {[]typedrpc.Bytes{head(4), data("abc"), end("abc")}, typedrpc.DataLoss, "3 bytes, 4 were announced"},
	"more":              {[]typedrpc.Bytes{head(2), data("a"), data("bc"), end("abc")}, typedrpc.DataLoss, "more than the 2 bytes"},
	"no head":           {[]typedrpc.Bytes{data("abc"), end("abc")}, typedrpc.InvalidArgument, "does not begin"},
	"empty item first":  {[]typedrpc.Bytes{{}}, typedrpc.InvalidArgument, "does not begin"},
	"empty item":        {[]typedrpc.Bytes{head(3), {}}, typedrpc.InvalidArgument, "is empty"},
	"short head":        {[]typedrpc.Bytes{head(3)[:8]}, typedrpc.InvalidArgument, "head has 8 bytes"},
	"begins elsewhere":  {[]typedrpc.Bytes{headFrom(5, 2)}, typedrpc.FailedPrecondition, "begins at byte 2, and 0 bytes are here"},
	"offset too large":  {[]typedrpc.Bytes{headFrom(5, 6)}, typedrpc.InvalidArgument, "announces 5 bytes, from 6 on"},
	"offset, negative":  {[]typedrpc.Bytes{headFrom(1<<64-1, 1<<63)}, typedrpc.InvalidArgument, "from 9223372036854775808 on"},
	"negative":          {[]typedrpc.Bytes{head(1 << 63)}, typedrpc.InvalidArgument, "announces 9223372036854775808 bytes"},
	"two heads":         {[]typedrpc.Bytes{head(3), head(3)}, typedrpc.InvalidArgument, "kind 0"},
	"unknown kind":      {[]typedrpc.Bytes{head(3), {3}}, typedrpc.InvalidArgument, "kind 3"},
	"short sum":         {[]typedrpc.Bytes{head(3), data("abc"), end("abc")[:32]}, typedrpc.InvalidArgument, "checksum has 31 bytes"},
	"too much":          {[]typedrpc.Bytes{head(2000)}, typedrpc.ResourceExhausted, "at most 1000"},
	"too much, unknown": {[]typedrpc.Bytes{{partHead}, data(strings.Repeat("x", 1001))}, typedrpc.ResourceExhausted, "at most 1000"},
}

func TestTransfer_malformed(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		limit := &transfer.ReceiveOptions{MaxBytes: 1000}
		names := slices.Collect(func(yield func(string) bool) {
			for name := range badTransfers {
				if !yield(name) {
					return
				}
			}
		})
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, bytesPut, func(_ context.Context, _ struct{}, r *transfer.Reader) (string, error) {
			err := r.Begin(limit)
			if err == nil {
				_, err = io.Copy(io.Discard, r)
			}
			return "", err
		})
		typedrpc.Handle(mux, itemsGet, func(_ context.Context, n int, send func(typedrpc.Bytes) error) error {
			for _, item := range badTransfers[names[n]].items {
				if err := send(item); err != nil {
					return err
				}
			}
			return nil
		})
		c, s := bytesPair(t, d, mux)
		defer c.Close()
		for i, name := range names {
			test := badTransfers[name]
			_, err := typedrpc.SendAll(t.Context(), c, itemsPut, struct{}{}, typedrpc.Items(slices.Values(test.items)))
			is.Equal(typedrpc.CodeOf(err), test.code)         // up
			is.True(strings.Contains(err.Error(), test.text)) // up, says why

			r, err := transfer.Receive(t.Context(), c, bytesGet, i, limit)
			if err == nil {
				_, err = io.Copy(io.Discard, r)
			}
			if test.code == typedrpc.InvalidArgument { // it is not the caller's fault
				is.Equal(typedrpc.CodeOf(err), typedrpc.Internal) // down
			} else {
				is.Equal(typedrpc.CodeOf(err), test.code) // down
			}
			is.True(strings.Contains(err.Error(), test.text)) // down, says why
			is.Equal(typedrpc.OutcomeOf(err), typedrpc.Answered)
			is.Equal(errors.Is(err, io.ErrUnexpectedEOF), strings.Contains(test.text, "breaks off"))
		}
		idle(is, c, s)
	})
}

// A download that goes on after its end is none.
func TestDownload_itemAfterTheEnd(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, itemsGet, func(_ context.Context, _ int, send func(typedrpc.Bytes) error) error {
			if err := transfer.NewWriter(send).Send(strings.NewReader("abc"), nil); err != nil {
				return err
			}
			return send(data("d"))
		})
		c, s := bytesPair(t, d, mux)
		defer c.Close()
		r, err := transfer.Receive(t.Context(), c, bytesGet, 0, nil)
		is.NoErr(err)
		_, err = io.ReadAll(r)
		is.True(errors.Is(err, typedrpc.Internal))
		idle(is, c, s)
	})
}

// What travels: the bytes themselves, or base64, whatever the codec would do.
func TestBytes_payload(t *testing.T) {
	for d, want := range map[typedrpc.Dialect]string{typedrpc.Binary: "\x00\xff?", typedrpc.Text: `"AP8/"`} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			var seen []string
			watch := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
				r.OnItem(func(item typedrpc.Raw, _ bool) error { seen = append(seen, string(item)); return nil })
				return next(ctx, r)
			}
			mux := typedrpc.NewMux(watch)
			typedrpc.Handle(mux, itemsPut, func(_ context.Context, _ struct{}, items iter.Seq2[typedrpc.Bytes, error]) (string, error) {
				var all []byte
				for item, err := range items {
					if err != nil {
						return "", err
					}
					all = append(all, item...)
				}
				return fmt.Sprintf("%x", all), nil
			})
			c, _ := bytesPair(t, d, mux)
			defer c.Close()
			answer, err := typedrpc.SendAll(t.Context(), c, itemsPut, struct{}{}, typedrpc.Items(slices.Values([]typedrpc.Bytes{{0, 0xff, '?'}, nil})))
			is.NoErr(err)
			is.Equal(answer, "00ff3f")
			is.Equal(seen, []string{want, map[typedrpc.Dialect]string{typedrpc.Binary: "", typedrpc.Text: `""`}[d]})
		})
	}
}

// Bytes are not forwarded to the other dialect: a proxy does not know that an
// item is of them. That ends the call, and not the link that others share.
func TestForward_bytesToTheOtherDialect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		backend, _ := bytesPair(t, typedrpc.Text, bytesMux())
		defer backend.Close()
		proxy := typedrpc.NewMux()
		proxy.HandleFallback(func(ctx context.Context, r *typedrpc.Request) (typedrpc.Raw, error) {
			return typedrpc.Forward(ctx, backend, r)
		})
		c, _ := bytesPair(t, typedrpc.Binary, proxy)
		defer c.Close()
		for _, item := range []string{"plain", `""},"id":1,"x":{}`} {
			_, err := typedrpc.SendAll(t.Context(), c, itemsPut, struct{}{}, typedrpc.Items(slices.Values([]typedrpc.Bytes{typedrpc.Bytes(item)})))
			is.True(errors.Is(err, typedrpc.InvalidArgument))
			is.True(strings.Contains(err.Error(), "cannot forward"))
		}
		_, err := transfer.Send(t.Context(), backend, bytesPut, struct{}{}, strings.NewReader("x"), nil)
		is.NoErr(err) // the link is well
	})
}

// noCodec can carry nothing but struct{} and text.
type noCodec struct{ typedrpc.Codec }

func (noCodec) Name() string { return "text-only" }

func (noCodec) Check(v any) error {
	switch v.(type) {
	case *struct{}, *string, *int:
		return nil
	}
	return fmt.Errorf("%T is no text", v)
}

func TestBytes_codecIsNotAsked(t *testing.T) {
	is := is.New(t)
	is.NoErr((&typedrpc.Server{Mux: bytesMux(), Codecs: []typedrpc.Codec{noCodec{typedrpc.JSON}}}).Check())
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, typedrpc.NewMethod[typedrpc.Bytes, struct{}]("m"), func(context.Context, typedrpc.Bytes) (struct{}, error) { return struct{}{}, nil })
	is.True((&typedrpc.Server{Mux: mux, Codecs: []typedrpc.Codec{noCodec{typedrpc.JSON}}}).Check() != nil) // a request is the codec's
}

// FuzzBytes receives a transfer of any items. It never panics, and what it calls
// right is.
func FuzzBytes(f *testing.F) {
	// The items are cut from one string: a byte says how long the next is.
	join := func(items ...typedrpc.Bytes) (all []byte) {
		for _, item := range items {
			all = append(append(all, byte(len(item))), item...)
		}
		return all
	}
	f.Add(join(head(3), data("ab"), data("c"), end("abc")))
	f.Add(join(typedrpc.Bytes{partHead}, end("")))
	for _, test := range badTransfers {
		f.Add(join(test.items...))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		is := is.New(t)
		rest := in
		items := func(yield func(typedrpc.Bytes, error) bool) {
			for len(rest) > 0 {
				n := min(int(rest[0]), len(rest)-1)
				item := typedrpc.Bytes(rest[1 : 1+n])
				rest = rest[1+n:]
				if !yield(item, nil) {
					return
				}
			}
		}
		last := int64(-1)
		r := transfer.NewReader(items)
		err := r.Begin(&transfer.ReceiveOptions{MaxBytes: 500, Progress: func(done, total int64) {
			is.True(done >= last)
			last = done
		}})
		var got []byte
		if err == nil {
			got, err = io.ReadAll(r)
			is.Equal(int64(len(got)), last)
		}
		is.True(len(got) <= 500)
		if err != nil {
			var e *typedrpc.Error
			is.True(errors.As(err, &e))
			return
		}
		is.Equal(fmt.Sprintf("%x", r.Sum()), hashOf(got))
		is.True(r.Total() == -1 || r.Total() == int64(len(got)))
	})
}
