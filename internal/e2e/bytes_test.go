package e2e_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/transfer"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

var (
	bytesPut  = transfer.NewUpload[struct{}, string]("bytes.put")
	bytesGet  = transfer.NewDownload[int]("bytes.get")
	bytesBoth = typedrpc.NewBidiStream[struct{}, typedrpc.Bytes, typedrpc.Bytes]("bytes.both")
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
func bytesMux() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, bytesPut, func(_ context.Context, _ struct{}, r *transfer.Reader) (string, error) {
		p, err := io.ReadAll(r)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%d %x %s", r.Total(), r.Sum(), hashOf(p)), nil
	})
	typedrpc.Handle(mux, bytesGet, func(_ context.Context, n int, w *transfer.Writer) error {
		return w.Send(bytes.NewReader(noise(n)), nil)
	})
	return mux
}

// bytesPair connects two sides that both serve mux.
func bytesPair(t *testing.T, d typedrpc.Dialect, mux *typedrpc.Mux) (client, server *typedrpc.Conn) {
	t.Helper()
	client, server, err := typedrpctest.Dial(&typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{Dialect: d, Mux: mux})
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

// unsized hides what its reader knows of its size.
type unsized struct{ io.Reader }

func TestUpload(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		c, s := bytesPair(t, d, bytesMux())
		defer c.Close()
		for _, n := range []int{0, 1, pieceSize - 1, pieceSize, pieceSize + 1, 5_000_000} {
			data := noise(n)
			for _, conn := range []*typedrpc.Conn{c, s} {
				answer, err := transfer.Send(t.Context(), conn, bytesPut, struct{}{}, bytes.NewReader(data), nil)
				is.NoErr(err)
				is.Equal(answer, fmt.Sprintf("%d %s %[2]s", n, hashOf(data)))
				answer, err = transfer.Send(t.Context(), conn, bytesPut, struct{}{}, unsized{bytes.NewReader(data)}, nil)
				is.NoErr(err)
				is.Equal(answer, fmt.Sprintf("-1 %s %[1]s", hashOf(data)))
			}
		}
		idle(is, c, s)
	})
}

// idle checks that no transfer has left anything behind.
func idle(is *is.I, conns ...*typedrpc.Conn) {
	is.Helper()
	synctest.Wait()
	for _, conn := range conns {
		s := hook.Conn(conn)
		is.Equal(s.Unread+s.SentItems+s.Queued+s.Pending+s.Inbound, 0)
	}
}

func TestDownload(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		c, s := bytesPair(t, d, bytesMux())
		defer c.Close()
		for _, n := range []int{0, 1, pieceSize, 5_000_000} {
			data := noise(n)
			for _, conn := range []*typedrpc.Conn{c, s} {
				r, err := transfer.Receive(t.Context(), conn, bytesGet, n, nil)
				is.NoErr(err)
				is.Equal(r.Total(), int64(n))
				got, err := io.ReadAll(iotest.HalfReader(r))
				is.NoErr(err)
				is.True(bytes.Equal(got, data))
				is.Equal(fmt.Sprintf("%x", r.Sum()), hashOf(data))
				_, err = r.Read(make([]byte, 1))
				is.Equal(err, io.EOF) // again
				is.NoErr(r.Close())

				r, err = transfer.Receive(t.Context(), conn, bytesGet, n, nil)
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
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, bytesBoth, func(_ context.Context, _ struct{}, s *typedrpc.Stream[typedrpc.Bytes, typedrpc.Bytes]) error {
			for {
				r := transfer.NewReader(s.All())
				err := r.Begin(nil)
				if errors.Is(err, io.ErrUnexpectedEOF) {
					return nil // no more
				}
				if err != nil {
					return err
				}
				if err := transfer.NewWriter(s.Send).Send(r, &transfer.SendOptions{Total: r.Total()}); err != nil {
					return err
				}
			}
		})
		c, _ := bytesPair(t, d, mux)
		defer c.Close()
		s, err := typedrpc.Open(t.Context(), c, bytesBoth, struct{}{})
		is.NoErr(err)
		defer s.Cancel()
		for _, n := range []int{10, 100_000, 1} {
			sent := make(chan error, 1)
			go func() { sent <- transfer.NewWriter(s.Send).Send(bytes.NewReader(noise(n)), nil) }()
			p, err := io.ReadAll(transfer.NewReader(s.All()))
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
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		var seen []int64 // by the handler, done and total in turn
		mux := bytesMux()
		far := transfer.NewUpload[struct{}, struct{}]("far")
		typedrpc.Handle(mux, far, func(_ context.Context, _ struct{}, r *transfer.Reader) (struct{}, error) {
			if err := r.Begin(&transfer.ReceiveOptions{Progress: func(done, total int64) { seen = append(seen, done, total) }}); err != nil {
				return struct{}{}, err
			}
			_, err := io.Copy(io.Discard, r)
			return struct{}{}, err
		})
		c, _ := bytesPair(t, d, mux)
		defer c.Close()

		var sent []int64
		o := &transfer.SendOptions{PieceSize: 100, Progress: func(done, total int64) { sent = append(sent, done, total) }}
		_, err := transfer.Send(t.Context(), c, far, struct{}{}, bytes.NewReader(noise(250)), o)
		is.NoErr(err)
		is.Equal(sent, []int64{0, 250, 100, 250, 200, 250, 250, 250})
		is.Equal(seen, sent)

		sent, seen = nil, nil
		_, err = transfer.Send(t.Context(), c, far, struct{}{}, unsized{bytes.NewReader(noise(100))}, o)
		is.NoErr(err)
		is.Equal(sent, []int64{0, -1, 100, -1})
		is.Equal(seen, sent)

		sent, seen = nil, nil
		_, err = transfer.Send(t.Context(), c, far, struct{}{}, strings.NewReader(""), o)
		is.NoErr(err)
		is.Equal(sent, []int64{0, 0}) // a bar has something to show
		is.Equal(seen, sent)
	})
}

func TestTransfer_sourceFails(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		failure := errors.New("the disk is on fire")
		broken := func() io.Reader {
			return io.MultiReader(bytes.NewReader(noise(100_000)), iotest.ErrReader(failure))
		}
		received, sent := make(chan error, 1), make(chan error, 1)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, bytesPut, func(ctx context.Context, _ struct{}, r *transfer.Reader) (string, error) {
			_, err := io.Copy(io.Discard, r)
			received <- err
			return "", err
		})
		typedrpc.Handle(mux, bytesGet, func(_ context.Context, _ int, w *transfer.Writer) error {
			err := w.Send(broken(), nil)
			sent <- err
			return typedrpc.Errorf(typedrpc.DataLoss, "cannot read: %w", err)
		})
		c, s := bytesPair(t, d, mux)
		defer c.Close()

		_, err := transfer.Send(t.Context(), c, bytesPut, struct{}{}, broken(), nil)
		is.True(errors.Is(err, failure))
		is.True(errors.Is(<-received, typedrpc.Canceled))

		r, err := transfer.Receive(t.Context(), c, bytesGet, 0, nil)
		is.NoErr(err)
		n, err := io.Copy(io.Discard, r)
		is.Equal(n, int64(100_000)) // all that was sent before
		is.Equal(err.Error(), "data loss: cannot read: the disk is on fire")
		is.Equal(<-sent, failure)
		idle(is, c, s)
	})
}

func TestTransfer_totalIsWrong(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		c, _ := bytesPair(t, d, bytesMux())
		defer c.Close()
		for _, total := range []int64{99, 101} {
			_, err := transfer.Send(t.Context(), c, bytesPut, struct{}{}, bytes.NewReader(noise(100)), &transfer.SendOptions{Total: total})
			is.True(errors.Is(err, typedrpc.DataLoss)) // the sender sees it itself
			is.True(strings.Contains(err.Error(), fmt.Sprintf("than the %d bytes", total)))
		}
		_, err := transfer.Send(t.Context(), c, bytesPut, struct{}{}, strings.NewReader(""), &transfer.SendOptions{PieceSize: -1})
		is.True(errors.Is(err, typedrpc.InvalidArgument))
	})
}

func TestDownload_handlerRefuses(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, bytesGet, func(_ context.Context, n int, w *transfer.Writer) error {
			if n == 0 {
				return typedrpc.NotFound
			}
			if err := w.Send(bytes.NewReader(noise(n)), nil); err != nil {
				return err
			}
			return typedrpc.Aborted // after all of it
		})
		c, s := bytesPair(t, d, mux)
		defer c.Close()
		_, err := transfer.Receive(t.Context(), c, bytesGet, 0, nil)
		is.True(errors.Is(err, typedrpc.NotFound)) // at once
		r, err := transfer.Receive(t.Context(), c, bytesGet, 10, nil)
		is.NoErr(err)
		p, err := io.ReadAll(r)
		is.Equal(len(p), 10)
		is.True(errors.Is(err, typedrpc.Aborted))
		idle(is, c, s)
	})
}

func TestDownload_leftEarly(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		ended := make(chan error, 1)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, bytesGet, func(ctx context.Context, _ int, w *transfer.Writer) error {
			err := w.Send(rand.NewChaCha8([32]byte{}), nil) // for ever
			ended <- errors.Join(err, ctx.Err())
			return err
		})
		c, s := bytesPair(t, d, mux)
		defer c.Close()

		r, err := transfer.Receive(t.Context(), c, bytesGet, 0, nil)
		is.NoErr(err)
		_, err = io.ReadFull(r, make([]byte, 100_000))
		is.NoErr(err)
		is.NoErr(r.Close())
		is.NoErr(r.Close()) // again
		is.True(errors.Is(<-ended, context.Canceled))
		_, err = io.Copy(io.Discard, r)
		is.True(errors.Is(err, typedrpc.Canceled))

		ctx, cancel := context.WithCancel(t.Context())
		r, err = transfer.Receive(ctx, c, bytesGet, 0, nil)
		is.NoErr(err)
		cancel()
		_, err = io.Copy(io.Discard, r)
		is.True(errors.Is(err, context.Canceled))
		is.True(errors.Is(<-ended, context.Canceled))

		r, err = transfer.Receive(t.Context(), c, bytesGet, 0, &transfer.ReceiveOptions{MaxBytes: 50_000})
		is.NoErr(err)
		n, err := io.Copy(io.Discard, r)
		is.True(n <= 50_000)
		is.True(errors.Is(err, typedrpc.ResourceExhausted))
		is.True(errors.Is(<-ended, context.Canceled)) // the handler knows without Close
		idle(is, c, s)
	})
}

func TestUpload_answeredEarly(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, bytesPut, func(_ context.Context, _ struct{}, r *transfer.Reader) (string, error) {
			if err := r.Begin(&transfer.ReceiveOptions{MaxBytes: 1000}); err != nil {
				return "", err
			}
			_, err := io.Copy(io.Discard, r)
			return "", err
		})
		c, s := bytesPair(t, d, mux)
		defer c.Close()
		_, err := transfer.Send(t.Context(), c, bytesPut, struct{}{}, rand.NewChaCha8([32]byte{}), nil) // for ever
		is.True(errors.Is(err, typedrpc.ResourceExhausted))
		source := bytes.NewReader(noise(5_000_000))
		_, err = transfer.Send(t.Context(), c, bytesPut, struct{}{}, source, nil)
		is.True(errors.Is(err, typedrpc.ResourceExhausted)) // its total said so
		is.True(strings.Contains(err.Error(), "5000000 bytes"))
		is.True(source.Len() > 4_000_000)
		idle(is, c, s)
	})
}

// BenchmarkTransfer moves bytes over loopback, both ends in this process.
func BenchmarkTransfer(b *testing.B) {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, bytesPut, func(_ context.Context, _ struct{}, r *transfer.Reader) (string, error) {
		_, err := io.Copy(io.Discard, r)
		return "", err
	})
	typedrpc.Handle(mux, bytesGet, func(_ context.Context, n int, w *transfer.Writer) error {
		return w.Send(io.LimitReader(zeros{}, int64(n)), nil)
	})
	hs := httptest.NewServer(&typedrpc.Server{Mux: mux})
	defer hs.Close()
	const size = 16 << 20
	for name, d := range map[string]typedrpc.Dialect{"binary": typedrpc.Binary, "jsonrpc": typedrpc.Text} {
		c, err := typedrpc.Dial(b.Context(), hs.URL, &typedrpc.DialOptions{Dialect: d})
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		b.Run("upload/"+name, func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := transfer.Send(b.Context(), c, bytesPut, struct{}{}, io.LimitReader(zeros{}, size), nil); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("download/"+name, func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				r, err := transfer.Receive(b.Context(), c, bytesGet, size, nil)
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

// A sender says how many bytes will come, if its source knows.
func TestUpload_totalOfTheSource(t *testing.T) {
	is := is.New(t)
	c, _ := bytesPair(t, typedrpc.Binary, bytesMux())
	defer c.Close()
	total := func(r io.Reader) int64 {
		var said []int64
		_, err := transfer.Send(t.Context(), c, bytesPut, struct{}{}, r, &transfer.SendOptions{Progress: func(_, total int64) {
			said = append(said, total)
		}})
		is.NoErr(err)
		return said[0]
	}
	name := filepath.Join(t.TempDir(), "file")
	is.NoErr(os.WriteFile(name, make([]byte, 100), 0o600))
	f, err := os.Open(name)
	is.NoErr(err)
	defer f.Close()
	is.Equal(total(f), int64(100))
	_, err = f.Seek(30, io.SeekStart)
	is.NoErr(err)
	is.Equal(total(f), int64(70)) // what is left
	is.Equal(total(strings.NewReader("abc")), int64(3))
	is.Equal(total(new(bytes.Buffer)), int64(0))
	_, err = f.Seek(0, io.SeekStart)
	is.NoErr(err)
	is.Equal(total(unsized{f}), int64(-1))
	r, w, err := os.Pipe()
	is.NoErr(err)
	defer r.Close()
	is.NoErr(w.Close())
	is.Equal(total(r), int64(-1))
}

// idleReader returns nothing and no error so many times before each Read of r;
// without r for ever.
type idleReader struct {
	r     io.Reader
	times int
	n     int
}

func (i *idleReader) Read(p []byte) (int, error) {
	if i.n++; i.r == nil || i.n <= i.times {
		return 0, nil
	}
	i.n = 0
	return i.r.Read(p)
}

// A source that returned nothing and no error was read again for ever, also
// when nobody wanted it any more.
func TestTransfer_sourceWithoutProgress(t *testing.T) {
	up := transfer.NewUpload[struct{}, int]("test.up")
	down := transfer.NewDownload[struct{}]("test.down")
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		ctx := t.Context()
		mux := typedrpc.NewMux()
		received, sent := make(chan error, 1), make(chan error, 1)
		typedrpc.Handle(mux, up, func(_ context.Context, _ struct{}, r *transfer.Reader) (int, error) {
			n, err := io.Copy(io.Discard, r)
			received <- err
			return int(n), err
		})
		typedrpc.Handle(mux, down, func(_ context.Context, _ struct{}, w *transfer.Writer) error {
			err := w.Send(&idleReader{}, nil)
			sent <- err
			return err
		})
		c, s, err := typedrpctest.Dial(&typedrpc.Server{Mux: mux, Logger: slog.New(slog.DiscardHandler)}, &typedrpc.DialOptions{Dialect: d})
		is.NoErr(err)
		defer c.Close()

		_, err = transfer.Send(ctx, c, up, struct{}{}, &idleReader{}, nil)
		is.True(errors.Is(err, io.ErrNoProgress))
		is.True(<-received != nil)

		r, err := transfer.Receive(ctx, c, down, struct{}{}, nil)
		if err == nil { // its head has come
			_, err = io.Copy(io.Discard, r)
		}
		is.True(err != nil)
		is.True(errors.Is(<-sent, io.ErrNoProgress))

		// One that is idle now and then is none of those.
		data := noise(300_000)
		n, err := transfer.Send(ctx, c, up, struct{}{}, &idleReader{r: bytes.NewReader(data), times: 20}, nil)
		is.NoErr(err)
		is.NoErr(<-received)
		is.Equal(n, len(data))
		idle(is, c, s)
	})
}
