package typedrpc

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/matryer/is"
)

var (
	bytesPut  = NewClientStream[Empty, Bytes, string]("bytes.put")
	bytesGet  = NewServerStream[int, Bytes]("bytes.get")
	bytesBoth = NewBidiStream[Empty, Bytes, Bytes]("bytes.both")
)

// noise is n bytes of which no two pieces are alike.
func noise(n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{}).Read(p)
	return p
}

func hashOf(p []byte) string { return fmt.Sprintf("%x", sha256.Sum256(p)) }

// bytesMux takes uploads, and answers their checksum, and sends the same
// noise as often as it is asked.
func bytesMux() *Mux {
	mux := NewMux()
	HandleClientStream(mux, bytesPut, func(_ context.Context, _ Empty, items iter.Seq2[Bytes, error]) (string, error) {
		r, err := NewReader(items, nil)
		if err != nil {
			return "", err
		}
		p, err := io.ReadAll(r)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%d %x %s", r.Total(), r.Sum(), hashOf(p)), nil
	})
	HandleServerStream(mux, bytesGet, func(_ context.Context, n int, send func(Bytes) error) error {
		return SendReader(send, bytes.NewReader(noise(n)), nil)
	})
	return mux
}

// bytesPair connects two sides that both serve mux.
func bytesPair(t *testing.T, d Dialect, mux *Mux) (client, server *Conn) {
	t.Helper()
	client, server, err := dialPipe(t.Context(), &Server{Mux: mux}, &DialOptions{Dialect: d, Mux: mux})
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

// unsized hides what its reader knows of its size.
type unsized struct{ io.Reader }

func TestUpload(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		c, s := bytesPair(t, d, bytesMux())
		defer c.Close()
		for _, n := range []int{0, 1, defaultPiece - 1, defaultPiece, defaultPiece + 1, 5_000_000} {
			data := noise(n)
			for _, conn := range []*Conn{c, s} {
				answer, err := Upload(t.Context(), conn, bytesPut, Empty{}, bytes.NewReader(data), nil)
				is.NoErr(err)
				is.Equal(answer, fmt.Sprintf("%d %s %[2]s", n, hashOf(data)))
				answer, err = Upload(t.Context(), conn, bytesPut, Empty{}, unsized{bytes.NewReader(data)}, nil)
				is.NoErr(err)
				is.Equal(answer, fmt.Sprintf("-1 %s %[1]s", hashOf(data)))
			}
		}
		idle(is, c, s)
	})
}

// idle checks that no transfer has left anything behind.
func idle(is *is.I, conns ...*Conn) {
	is.Helper()
	synctest.Wait()
	for _, conn := range conns {
		conn.mu.Lock()
		is.Equal(conn.unread, 0)
		is.Equal(conn.sentItems, 0)
		is.Equal(conn.queued, 0)
		is.Equal(len(conn.pending), 0)
		is.Equal(len(conn.inbound), 0)
		conn.mu.Unlock()
	}
}

func TestDownload(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		c, s := bytesPair(t, d, bytesMux())
		defer c.Close()
		for _, n := range []int{0, 1, defaultPiece, 5_000_000} {
			data := noise(n)
			for _, conn := range []*Conn{c, s} {
				r, err := Download(t.Context(), conn, bytesGet, n, nil)
				is.NoErr(err)
				is.Equal(r.Total(), int64(n))
				got, err := io.ReadAll(iotest.HalfReader(r))
				is.NoErr(err)
				is.True(bytes.Equal(got, data))
				is.Equal(fmt.Sprintf("%x", r.Sum()), hashOf(data))
				_, err = r.Read(make([]byte, 1))
				is.Equal(err, io.EOF) // again
				is.NoErr(r.Close())

				r, err = Download(t.Context(), conn, bytesGet, n, nil)
				is.NoErr(err)
				var all bytes.Buffer
				k, err := io.Copy(&all, r) // by WriteTo
				is.NoErr(err)
				is.Equal(k, int64(n))
				is.True(bytes.Equal(all.Bytes(), data))
			}
		}
		idle(is, c, s)
	})
}

// A bidirectional stream carries several transfers, one after another.
func TestTransfer_overBidiStream(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		mux := NewMux()
		HandleBidiStream(mux, bytesBoth, func(_ context.Context, _ Empty, s *Stream[Bytes, Bytes]) error {
			for {
				r, err := NewReader(s.All(), nil)
				if errors.Is(err, io.ErrUnexpectedEOF) {
					return nil // no more
				}
				if err != nil {
					return err
				}
				if err := SendReader(s.Send, r, &TransferOptions{Total: r.Total()}); err != nil {
					return err
				}
			}
		})
		c, _ := bytesPair(t, d, mux)
		defer c.Close()
		s, err := Open(t.Context(), c, bytesBoth, Empty{})
		is.NoErr(err)
		defer s.Close()
		for _, n := range []int{10, 100_000, 1} {
			sent := make(chan error, 1)
			go func() { sent <- SendReader(s.Send, bytes.NewReader(noise(n)), nil) }()
			r, err := NewReader(s.All(), nil)
			is.NoErr(err)
			p, err := io.ReadAll(r)
			is.NoErr(err)
			is.NoErr(<-sent)
			is.True(bytes.Equal(p, noise(n)))
		}
		s.CloseSend()
		_, err = s.Recv()
		is.Equal(err, io.EOF)
	})
}

func TestTransfer_progress(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		var seen []int64 // by the handler, done and total in turn
		mux := bytesMux()
		far := NewClientStream[Empty, Bytes, Empty]("far")
		HandleClientStream(mux, far, func(_ context.Context, _ Empty, items iter.Seq2[Bytes, error]) (Empty, error) {
			r, err := NewReader(items, &TransferOptions{Progress: func(done, total int64) { seen = append(seen, done, total) }})
			if err != nil {
				return Empty{}, err
			}
			_, err = io.Copy(io.Discard, r)
			return Empty{}, err
		})
		c, _ := bytesPair(t, d, mux)
		defer c.Close()

		var sent []int64
		o := &TransferOptions{PieceSize: 100, Progress: func(done, total int64) { sent = append(sent, done, total) }}
		_, err := Upload(t.Context(), c, far, Empty{}, bytes.NewReader(noise(250)), o)
		is.NoErr(err)
		is.Equal(sent, []int64{0, 250, 100, 250, 200, 250, 250, 250})
		is.Equal(seen, sent)

		sent, seen = nil, nil
		_, err = Upload(t.Context(), c, far, Empty{}, unsized{bytes.NewReader(noise(100))}, o)
		is.NoErr(err)
		is.Equal(sent, []int64{0, -1, 100, -1})
		is.Equal(seen, sent)

		sent, seen = nil, nil
		_, err = Upload(t.Context(), c, far, Empty{}, strings.NewReader(""), o)
		is.NoErr(err)
		is.Equal(sent, []int64{0, 0}) // a bar has something to show
		is.Equal(seen, sent)
	})
}

func TestSizeOf(t *testing.T) {
	is := is.New(t)
	name := filepath.Join(t.TempDir(), "file")
	is.NoErr(os.WriteFile(name, make([]byte, 100), 0o600))
	f, err := os.Open(name)
	is.NoErr(err)
	defer f.Close()
	is.Equal(sizeOf(f), int64(100))
	_, err = f.Seek(30, io.SeekStart)
	is.NoErr(err)
	is.Equal(sizeOf(f), int64(70)) // what is left
	is.Equal(sizeOf(strings.NewReader("abc")), int64(3))
	is.Equal(sizeOf(new(bytes.Buffer)), int64(0))
	is.Equal(sizeOf(unsized{f}), int64(-1))
	r, w, err := os.Pipe()
	is.NoErr(err)
	defer r.Close()
	defer w.Close()
	is.Equal(sizeOf(r), int64(-1))
}

func TestTransfer_sourceFails(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		failure := errors.New("the disk is on fire")
		broken := func() io.Reader {
			return io.MultiReader(bytes.NewReader(noise(100_000)), iotest.ErrReader(failure))
		}
		received, sent := make(chan error, 1), make(chan error, 1)
		mux := NewMux()
		HandleClientStream(mux, bytesPut, func(ctx context.Context, _ Empty, items iter.Seq2[Bytes, error]) (string, error) {
			r, err := NewReader(items, nil)
			if err == nil {
				_, err = io.Copy(io.Discard, r)
			}
			received <- err
			return "", err
		})
		HandleServerStream(mux, bytesGet, func(_ context.Context, _ int, send func(Bytes) error) error {
			err := SendReader(send, broken(), nil)
			sent <- err
			return Errorf(DataLoss, "cannot read: %w", err)
		})
		c, s := bytesPair(t, d, mux)
		defer c.Close()

		_, err := Upload(t.Context(), c, bytesPut, Empty{}, broken(), nil)
		is.True(errors.Is(err, failure))
		is.True(errors.Is(<-received, Canceled))

		r, err := Download(t.Context(), c, bytesGet, 0, nil)
		is.NoErr(err)
		n, err := io.Copy(io.Discard, r)
		is.Equal(n, int64(100_000)) // all that was sent before
		is.Equal(err.Error(), "data loss: cannot read: the disk is on fire")
		is.Equal(<-sent, failure)
		idle(is, c, s)
	})
}

func TestTransfer_totalIsWrong(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		c, _ := bytesPair(t, d, bytesMux())
		defer c.Close()
		for _, total := range []int64{99, 101} {
			_, err := Upload(t.Context(), c, bytesPut, Empty{}, bytes.NewReader(noise(100)), &TransferOptions{Total: total})
			is.True(errors.Is(err, DataLoss)) // the sender sees it itself
			is.True(strings.Contains(err.Error(), fmt.Sprintf("than the %d bytes", total)))
		}
		_, err := Upload(t.Context(), c, bytesPut, Empty{}, strings.NewReader(""), &TransferOptions{PieceSize: -1})
		is.True(errors.Is(err, InvalidArgument))
	})
}

func TestDownload_handlerRefuses(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		mux := NewMux()
		HandleServerStream(mux, bytesGet, func(_ context.Context, n int, send func(Bytes) error) error {
			if n == 0 {
				return NotFound
			}
			if err := SendReader(send, bytes.NewReader(noise(n)), nil); err != nil {
				return err
			}
			return Aborted // after all of it
		})
		c, s := bytesPair(t, d, mux)
		defer c.Close()
		_, err := Download(t.Context(), c, bytesGet, 0, nil)
		is.True(errors.Is(err, NotFound)) // at once
		r, err := Download(t.Context(), c, bytesGet, 10, nil)
		is.NoErr(err)
		p, err := io.ReadAll(r)
		is.Equal(len(p), 10)
		is.True(errors.Is(err, Aborted))
		idle(is, c, s)
	})
}

func TestDownload_leftEarly(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		ended := make(chan error, 1)
		mux := NewMux()
		HandleServerStream(mux, bytesGet, func(ctx context.Context, _ int, send func(Bytes) error) error {
			err := SendReader(send, rand.NewChaCha8([32]byte{}), nil) // for ever
			ended <- errors.Join(err, ctx.Err())
			return err
		})
		c, s := bytesPair(t, d, mux)
		defer c.Close()

		r, err := Download(t.Context(), c, bytesGet, 0, nil)
		is.NoErr(err)
		_, err = io.ReadFull(r, make([]byte, 100_000))
		is.NoErr(err)
		is.NoErr(r.Close())
		is.NoErr(r.Close()) // again
		is.True(errors.Is(<-ended, context.Canceled))
		_, err = io.Copy(io.Discard, r)
		is.True(errors.Is(err, Canceled))

		ctx, cancel := context.WithCancel(t.Context())
		r, err = Download(ctx, c, bytesGet, 0, nil)
		is.NoErr(err)
		cancel()
		_, err = io.Copy(io.Discard, r)
		is.True(errors.Is(err, context.Canceled))
		is.True(errors.Is(<-ended, context.Canceled))

		r, err = Download(t.Context(), c, bytesGet, 0, &TransferOptions{MaxBytes: 50_000})
		is.NoErr(err)
		n, err := io.Copy(io.Discard, r)
		is.True(n <= 50_000)
		is.True(errors.Is(err, ResourceExhausted))
		is.True(errors.Is(<-ended, context.Canceled)) // the handler knows without Close
		idle(is, c, s)
	})
}

func TestUpload_answeredEarly(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		mux := NewMux()
		HandleClientStream(mux, bytesPut, func(_ context.Context, _ Empty, items iter.Seq2[Bytes, error]) (string, error) {
			r, err := NewReader(items, &TransferOptions{MaxBytes: 1000})
			if err != nil {
				return "", err
			}
			_, err = io.Copy(io.Discard, r)
			return "", err
		})
		c, s := bytesPair(t, d, mux)
		defer c.Close()
		_, err := Upload(t.Context(), c, bytesPut, Empty{}, rand.NewChaCha8([32]byte{}), nil) // for ever
		is.True(errors.Is(err, ResourceExhausted))
		source := bytes.NewReader(noise(5_000_000))
		_, err = Upload(t.Context(), c, bytesPut, Empty{}, source, nil)
		is.True(errors.Is(err, ResourceExhausted)) // its total said so
		is.True(strings.Contains(err.Error(), "5000000 bytes"))
		is.True(source.Len() > 4_000_000)
		idle(is, c, s)
	})
}

// head, data and end are items as any peer may write them.
func head(total uint64) Bytes { return binary.BigEndian.AppendUint64(Bytes{transferHead}, total) }

func data(text string) Bytes { return append(Bytes{transferData}, text...) }

func end(text string) Bytes {
	sum := sha256.Sum256([]byte(text))
	return append(Bytes{transferEnd}, sum[:]...)
}

var badTransfers = map[string]struct {
	items []Bytes
	code  Code
	text  string
}{
	"nothing":           {nil, DataLoss, "breaks off after 0 bytes"},
	"only a head":       {[]Bytes{head(3)}, DataLoss, "breaks off after 0 bytes"},
	"no end":            {[]Bytes{head(3), data("abc")}, DataLoss, "breaks off after 3 bytes"},
	"wrong sum":         {[]Bytes{head(3), data("abd"), end("abc")}, DataLoss, "checksum of its 3 bytes is wrong"},
	"fewer":             {[]Bytes{head(4), data("abc"), end("abc")}, DataLoss, "3 bytes, 4 were announced"},
	"more":              {[]Bytes{head(2), data("a"), data("bc"), end("abc")}, DataLoss, "more than the 2 bytes"},
	"no head":           {[]Bytes{data("abc"), end("abc")}, InvalidArgument, "does not begin"},
	"empty item first":  {[]Bytes{{}}, InvalidArgument, "does not begin"},
	"empty item":        {[]Bytes{head(3), {}}, InvalidArgument, "is empty"},
	"short head":        {[]Bytes{head(3)[:8]}, InvalidArgument, "head has 8 bytes"},
	"negative":          {[]Bytes{head(1 << 63)}, InvalidArgument, "announces 9223372036854775808 bytes"},
	"two heads":         {[]Bytes{head(3), head(3)}, InvalidArgument, "kind 0"},
	"unknown kind":      {[]Bytes{head(3), {3}}, InvalidArgument, "kind 3"},
	"short sum":         {[]Bytes{head(3), data("abc"), end("abc")[:32]}, InvalidArgument, "checksum has 31 bytes"},
	"too much":          {[]Bytes{head(2000)}, ResourceExhausted, "at most 1000"},
	"too much, unknown": {[]Bytes{{transferHead}, data(strings.Repeat("x", 1001))}, ResourceExhausted, "at most 1000"},
}

func TestTransfer_malformed(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		limit := &TransferOptions{MaxBytes: 1000}
		receive := func(items iter.Seq2[Bytes, error]) error {
			r, err := NewReader(items, limit)
			if err == nil {
				_, err = io.Copy(io.Discard, r)
			}
			return err
		}
		names := slices.Collect(func(yield func(string) bool) {
			for name := range badTransfers {
				if !yield(name) {
					return
				}
			}
		})
		mux := NewMux()
		HandleClientStream(mux, bytesPut, func(_ context.Context, _ Empty, items iter.Seq2[Bytes, error]) (string, error) {
			return "", receive(items)
		})
		HandleServerStream(mux, bytesGet, func(_ context.Context, n int, send func(Bytes) error) error {
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
			_, err := SendAll(t.Context(), c, bytesPut, Empty{}, Items(slices.Values(test.items)))
			is.Equal(CodeOf(err), test.code)                  // up
			is.True(strings.Contains(err.Error(), test.text)) // up, says why

			r, err := Download(t.Context(), c, bytesGet, i, limit)
			if err == nil {
				_, err = io.Copy(io.Discard, r)
			}
			if test.code == InvalidArgument { // it is not the caller's fault
				is.Equal(CodeOf(err), Internal) // down
			} else {
				is.Equal(CodeOf(err), test.code) // down
			}
			is.True(strings.Contains(err.Error(), test.text)) // down, says why
			is.Equal(OutcomeOf(err), Answered)
			is.Equal(errors.Is(err, io.ErrUnexpectedEOF), strings.Contains(test.text, "breaks off"))
		}
		idle(is, c, s)
	})
}

// A download that goes on after its end is none.
func TestDownload_itemAfterTheEnd(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		mux := NewMux()
		HandleServerStream(mux, bytesGet, func(_ context.Context, _ int, send func(Bytes) error) error {
			if err := SendReader(send, strings.NewReader("abc"), nil); err != nil {
				return err
			}
			return send(data("d"))
		})
		c, s := bytesPair(t, d, mux)
		defer c.Close()
		r, err := Download(t.Context(), c, bytesGet, 0, nil)
		is.NoErr(err)
		_, err = io.ReadAll(r)
		is.True(errors.Is(err, Internal))
		idle(is, c, s)
	})
}

// What travels: the bytes themselves, or base64, whatever the codec would do.
func TestBytes_payload(t *testing.T) {
	for d, want := range map[Dialect]string{Binary: "\x00\xff?", JSONRPC: `"AP8/"`} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			var seen []string
			watch := func(ctx context.Context, r *Request, next RawHandler) (Raw, error) {
				r.OnItem(func(item Raw, _ bool) error { seen = append(seen, string(item)); return nil })
				return next(ctx, r)
			}
			mux := NewMux(watch)
			HandleClientStream(mux, bytesPut, func(_ context.Context, _ Empty, items iter.Seq2[Bytes, error]) (string, error) {
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
			answer, err := SendAll(t.Context(), c, bytesPut, Empty{}, Items(slices.Values([]Bytes{{0, 0xff, '?'}, nil})))
			is.NoErr(err)
			is.Equal(answer, "00ff3f")
			is.Equal(seen, []string{want, map[Dialect]string{Binary: "", JSONRPC: `""`}[d]})
		})
	}
}

func TestBytes_decodeJSON(t *testing.T) {
	for text, want := range map[string]string{
		`"AP8/"`: "\x00\xff?", `"AP8\/"`: "\x00\xff?", `""`: "", `null`: "", ``: "",
		`"AP8"`: "want base64 in a string", `"_w=="`: "want base64 in a string", `7`: "want base64 in a string, have a number",
	} {
		is := is.New(t)
		b := Bytes("left over")
		if err := b.decode([]byte(text), 1); err != nil {
			is.Equal(err.Error(), want)
			continue
		}
		is.Equal(string(b), want)
	}
}

// Bytes are not forwarded to the other dialect: a proxy does not know that an
// item is of them. That ends the call, and not the link that others share.
func TestForward_bytesToTheOtherDialect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		backend, _ := bytesPair(t, JSONRPC, bytesMux())
		defer backend.Close()
		proxy := NewMux()
		proxy.HandleFallback(func(ctx context.Context, r *Request) (Raw, error) { return Forward(ctx, backend, r) })
		c, _ := bytesPair(t, Binary, proxy)
		defer c.Close()
		for _, item := range []string{"plain", `""},"id":1,"x":{}`} {
			_, err := SendAll(t.Context(), c, bytesPut, Empty{}, Items(slices.Values([]Bytes{Bytes(item)})))
			is.True(errors.Is(err, InvalidArgument))
			is.True(strings.Contains(err.Error(), "cannot forward"))
		}
		_, err := Upload(t.Context(), backend, bytesPut, Empty{}, strings.NewReader("x"), nil)
		is.NoErr(err) // the link is well
	})
}

// noCodec can carry nothing but Empty and text.
type noCodec struct{ Codec }

func (noCodec) Name() string { return "text-only" }

func (noCodec) Check(v any) error {
	switch v.(type) {
	case *Empty, *string, *int:
		return nil
	}
	return fmt.Errorf("%T is no text", v)
}

func TestBytes_codecIsNotAsked(t *testing.T) {
	is := is.New(t)
	is.NoErr((&Server{Mux: bytesMux(), Codecs: []Codec{noCodec{JSON}}}).Check())
	mux := NewMux()
	Handle(mux, NewMethod[Bytes, Empty]("m"), func(context.Context, Bytes) (Empty, error) { return Empty{}, nil })
	is.True((&Server{Mux: mux, Codecs: []Codec{noCodec{JSON}}}).Check() != nil) // a request is the codec's
}

// FuzzBytes receives a transfer of any items. It never panics, and what it calls
// right is.
func FuzzBytes(f *testing.F) {
	// The items are cut from one string: a byte says how long the next is.
	join := func(items ...Bytes) (all []byte) {
		for _, item := range items {
			all = append(append(all, byte(len(item))), item...)
		}
		return all
	}
	f.Add(join(head(3), data("ab"), data("c"), end("abc")))
	f.Add(join(Bytes{transferHead}, end("")))
	for _, test := range badTransfers {
		f.Add(join(test.items...))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		is := is.New(t)
		rest := in
		items := func(yield func(Bytes, error) bool) {
			for len(rest) > 0 {
				n := min(int(rest[0]), len(rest)-1)
				item := Bytes(rest[1 : 1+n])
				rest = rest[1+n:]
				if !yield(item, nil) {
					return
				}
			}
		}
		last := int64(-1)
		r, err := NewReader(items, &TransferOptions{MaxBytes: 500, Progress: func(done, total int64) {
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
			var e *Error
			is.True(errors.As(err, &e))
			return
		}
		is.Equal(fmt.Sprintf("%x", r.Sum()), hashOf(got))
		is.True(r.Total() == -1 || r.Total() == int64(len(got)))
	})
}

// BenchmarkTransfer moves bytes over loopback, both ends in this process.
func BenchmarkTransfer(b *testing.B) {
	mux := NewMux()
	HandleClientStream(mux, bytesPut, func(_ context.Context, _ Empty, items iter.Seq2[Bytes, error]) (string, error) {
		r, err := NewReader(items, nil)
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		return "", err
	})
	HandleServerStream(mux, bytesGet, func(_ context.Context, n int, send func(Bytes) error) error {
		return SendReader(send, io.LimitReader(zeros{}, int64(n)), nil)
	})
	hs := httptest.NewServer(&Server{Mux: mux})
	defer hs.Close()
	const size = 16 << 20
	for name, d := range map[string]Dialect{"binary": Binary, "jsonrpc": JSONRPC} {
		c, err := Dial(b.Context(), hs.URL, &DialOptions{Dialect: d})
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		b.Run("upload/"+name, func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Upload(b.Context(), c, bytesPut, Empty{}, io.LimitReader(zeros{}, size), nil); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("download/"+name, func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				r, err := Download(b.Context(), c, bytesGet, size, nil)
				if err == nil {
					_, err = io.Copy(io.Discard, r)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// zeros reads zero bytes for ever.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
