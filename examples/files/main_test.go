package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/transfer"
)

func TestRun_demo(t *testing.T) {
	is := is.New(t)
	var out bytes.Buffer
	is.NoErr(run(t.Context(), []string{"-size", "3000000"}, &out))
	rest := out.String()
	t.Logf("output:\n%s", rest)
	for _, line := range []string{
		"The server listens on 127.0.0.1:",
		"put holiday.mp4 [##..................]  10 % of 3.0 MB",
		"put holiday.mp4 [####################] 100 % of 3.0 MB",
		"stored holiday.mp4: 3000000 bytes, SHA-256 ",
		"get holiday.mp4 [####################] 100 % of 3.0 MB",
		"fetched holiday.mp4: 3000000 bytes, SHA-256 ",
		"is it the same file? true",
		"get holiday.mp4 [############........]  60 % of 3.0 MB",
		"fetched holiday.mp4: 3000000 bytes, SHA-256 ",
		`a name that is taken: already exists: there is a file "holiday.mp4" already`,
		"a file that is too large: resource exhausted: ",
		"a path: invalid argument: ",
		"a file that is not there: not found: ",
	} {
		_, after, found := strings.Cut(rest, line)
		is.True(found) // the line is there, and in its place
		rest = after
	}
}

func TestRun_serveAndPutAndGet(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	far, near := filepath.Join(dir, "far"), filepath.Join(dir, "near.txt")
	is.NoErr(os.Mkdir(far, 0o755))
	is.NoErr(os.WriteFile(near, []byte("Hello, world!"), 0o644))

	r, w := io.Pipe()
	ctx, interrupt := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, []string{"-addr", "127.0.0.1:0", "-max", "20", "serve", far}, w) }()
	line, err := bufio.NewReader(r).ReadString('\n')
	is.NoErr(err)
	_, addr, found := strings.Cut(strings.TrimSpace(line), " at ")
	is.True(found)

	var out bytes.Buffer
	is.NoErr(run(t.Context(), []string{"-addr", addr, "put", near}, &out))
	is.True(strings.Contains(out.String(), "stored near.txt: 13 bytes, SHA-256 315f5bdb"))
	back := filepath.Join(dir, "back.txt")
	is.NoErr(run(t.Context(), []string{"-addr", addr, "get", "near.txt", back}, &out))
	text, err := os.ReadFile(back)
	is.NoErr(err)
	is.Equal(string(text), "Hello, world!")

	err = run(t.Context(), []string{"-addr", addr, "get", "near.txt", back}, &out)
	is.True(strings.Contains(err.Error(), "is there already"))
	err = run(t.Context(), []string{"-addr", addr, "put", near}, &out)
	is.True(errors.Is(err, typedrpc.AlreadyExists))
	err = run(t.Context(), []string{"-addr", addr, "get", "else.txt", filepath.Join(dir, "else.txt")}, &out)
	is.True(errors.Is(err, typedrpc.NotFound))
	_, err = os.Stat(filepath.Join(dir, "else.txt"))
	is.True(errors.Is(err, os.ErrNotExist)) // nothing is left behind

	interrupt()
	is.NoErr(<-ended)
	is.Equal(names(t, far), []string{"near.txt"})
}

func TestRun_commandLine(t *testing.T) {
	for _, args := range []string{"put", "get one", "serve", "steal one", "-nonsense"} {
		is := is.New(t)
		is.Equal(run(t.Context(), strings.Fields(args), io.Discard), errUsage)
	}
}

func TestRun_portTaken(t *testing.T) {
	is := is.New(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	is.NoErr(err)
	defer taken.Close()
	err = run(t.Context(), []string{"-addr", taken.Addr().String(), "serve", t.TempDir()}, io.Discard)
	is.True(err != nil)
	is.True(strings.Contains(err.Error(), "-addr")) // says what to do
}

// names lists a directory, hidden files too.
func names(t *testing.T, dir string) (all []string) {
	is := is.New(t)
	entries, err := os.ReadDir(dir)
	is.NoErr(err)
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// serveDir serves a new directory and connects to it.
func serveDir(t *testing.T, most int64) (dir string, c *typedrpc.Conn) {
	is := is.New(t)
	dir = t.TempDir()
	s, err := open("127.0.0.1:0", dir, most)
	is.NoErr(err)
	t.Cleanup(func() { is.NoErr(s.close()) })
	c, err = typedrpc.Dial(t.Context(), "ws://"+s.addr+"/rpc", nil)
	is.NoErr(err)
	t.Cleanup(func() { c.Close() })
	return dir, c
}

func TestStore_names(t *testing.T) {
	is := is.New(t)
	dir, c := serveDir(t, 1000)
	is.NoErr(os.Mkdir(filepath.Join(dir, "folder"), 0o755))
	is.NoErr(os.Symlink("/etc/passwd", filepath.Join(dir, "passwd")))
	for _, name := range []string{"", ".", "..", "../up", "a/b", "/etc/passwd", `a\b`, "C:x", ".hidden", "a\nb", "a\x00b", "\x1b[31m", strings.Repeat("x", 201)} {
		_, err := transfer.Send(t.Context(), c, Put, name, strings.NewReader("x"), nil)
		is.True(errors.Is(err, typedrpc.InvalidArgument)) // put
		_, err = transfer.Receive(t.Context(), c, Get, Fetch{Name: name}, nil)
		is.True(errors.Is(err, typedrpc.InvalidArgument)) // get
	}
	for _, name := range []string{"folder", "passwd"} {
		_, err := transfer.Send(t.Context(), c, Put, name, strings.NewReader("x"), nil)
		is.True(errors.Is(err, typedrpc.AlreadyExists))
		_, err = transfer.Receive(t.Context(), c, Get, Fetch{Name: name}, nil)
		is.True(err != nil) // no way out of the directory
	}
	receipt, err := transfer.Send(t.Context(), c, Put, "größe 1.txt", strings.NewReader("x"), nil)
	is.NoErr(err)
	is.Equal(receipt.Bytes, int64(1))
}

func TestStore_keepsNothingOfWhatFails(t *testing.T) {
	is := is.New(t)
	dir, c := serveDir(t, 100_000)
	items := typedrpc.NewClientStream[string, typedrpc.Bytes, Receipt](Put.Name()) // what it is on the wire
	put := func(all ...typedrpc.Bytes) error {
		_, err := typedrpc.SendAll(t.Context(), c, items, "x", typedrpc.Items(slices.Values(all)))
		return err
	}
	is.True(errors.Is(put(), typedrpc.DataLoss))
	is.True(errors.Is(put(typedrpc.Bytes{0}, typedrpc.Bytes("\x01abc")), typedrpc.DataLoss))
	is.True(errors.Is(put(typedrpc.Bytes{0}, typedrpc.Bytes("\x01abc"), append(typedrpc.Bytes{2}, make([]byte, 32)...)), typedrpc.DataLoss))

	var endless iter.Seq2[typedrpc.Bytes, error] = func(yield func(typedrpc.Bytes, error) bool) {
		item := make(typedrpc.Bytes, 10_000)
		for ok := yield(typedrpc.Bytes{0}, nil); ok; ok = yield(item, nil) {
			item[0] = 1
		}
	}
	_, err := typedrpc.SendAll(t.Context(), c, items, "x", endless)
	is.True(errors.Is(err, typedrpc.ResourceExhausted))

	ctx, cancel := context.WithCancel(t.Context())
	_, err = transfer.Send(ctx, c, Put, "x", source(func(p []byte) (int, error) { cancel(); return len(p), nil }), nil)
	is.True(errors.Is(err, context.Canceled))

	deadline := time.Now().Add(time.Minute) // the last handler may still be at it
	for len(names(t, dir)) > 0 && time.Now().Before(deadline) {
		<-time.After(time.Millisecond)
	}
	is.Equal(names(t, dir), nil)
}

type source func([]byte) (int, error)

func (s source) Read(p []byte) (int, error) { return s(p) }

// Two uploads of one name at the same time: one is stored.
func TestStore_race(t *testing.T) {
	is := is.New(t)
	dir, c := serveDir(t, 1000)
	r1, w1 := io.Pipe()
	r2, w2 := io.Pipe()
	ended := make(chan error, 2)
	for _, r := range []io.Reader{r1, r2} {
		go func() {
			_, err := transfer.Send(t.Context(), c, Put, "x", r, nil)
			ended <- err
		}()
	}
	for _, w := range []*io.PipeWriter{w1, w2} { // both have begun
		_, err := w.Write([]byte("x"))
		is.NoErr(err)
	}
	deadline := time.Now().Add(time.Minute)
	for len(names(t, dir)) < 2 && time.Now().Before(deadline) {
		<-time.After(time.Millisecond)
	}
	w1.Close()
	w2.Close()
	errs := []error{<-ended, <-ended}
	is.True((errs[0] == nil) != (errs[1] == nil))
	is.True(errors.Is(errors.Join(errs...), typedrpc.AlreadyExists))
	is.Equal(names(t, dir), []string{"x"})
}

func TestBar_terminal(t *testing.T) {
	is := is.New(t)
	var out bytes.Buffer
	b := newBar(&out, "put x")
	b.terminal = true
	for done := range int64(1001) {
		b.progress(done, 1000)
	}
	b.end()
	is.True(strings.HasPrefix(out.String(), "\r\x1b[Kput x [....................]   0 % of 1.0 kB"))
	is.True(strings.Contains(out.String(), "\r\x1b[Kput x [####################] 100 % of 1.0 kB"))
	is.True(strings.HasSuffix(out.String(), "/s\n"))
	is.True(strings.Count(out.String(), "\r") < 100) // not for each piece
}

func TestSize(t *testing.T) {
	is := is.New(t)
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1500: "1.5 kB", 2_500_000: "2.5 MB", 3e9: "3.0 GB"} {
		is.Equal(size(n), want)
	}
}
