package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/transfer"
)

// transfers has the shop keep photos. One that is named "slow" is sent but for its last byte,
// "wrong" with a checksum that is, "odd" from its beginning whatever the caller has.
func (s *shop) transfers(mux *typedrpc.Mux) {
	typedrpc.Handle(mux, put, func(ctx context.Context, p photo, r *transfer.Reader) (int64, error) {
		var before []byte
		if p.Offset > 0 {
			all, _ := s.photos.Load(p.Name)
			before = all.([]byte)[:p.Offset]
		}
		if p.Name == "" {
			return 0, typedrpc.Errorf(typedrpc.PermissionDenied, "no name")
		}
		s.running <- "put"
		if err := r.Begin(&transfer.ReceiveOptions{MaxBytes: 1 << 20, Prefix: bytes.NewReader(before)}); err != nil {
			s.ended <- "put"
			return 0, err
		}
		b, err := io.ReadAll(r)
		if err != nil {
			s.ended <- "put"
			return 0, err
		}
		s.photos.Store(p.Name, append(before, b...))
		return int64(len(before) + len(b)), nil
	})
	typedrpc.Handle(mux, get, func(ctx context.Context, p photo, w *transfer.Writer) error {
		v, ok := s.photos.Load(p.Name)
		if !ok {
			return typedrpc.Errorf(typedrpc.NotFound, "no photo %q", p.Name)
		}
		all := v.([]byte)
		from := p.Offset
		if p.Name == "odd" {
			from = 0
		}
		if n := s.cut.Swap(0); n > 0 {
			err := w.Send(io.MultiReader(bytes.NewReader(all[:n]), broken{}), &transfer.SendOptions{Offset: from, Total: int64(len(all))})
			if err == errBroken {
				return typedrpc.Errorf(typedrpc.Unavailable, "the disk is away")
			}
			return err
		}
		if p.Name == "slow" {
			s.running <- "get"
			if _, err := w.Write(all[:len(all)-1]); err == nil {
				<-ctx.Done()
			}
			s.ended <- "get"
			return ctx.Err()
		}
		return w.Send(bytes.NewReader(all), &transfer.SendOptions{Offset: from})
	})
}

var errBroken = fmt.Errorf("broken")

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errBroken }

// picture is a photo of n bytes.
func picture(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * i >> 3)
	}
	return b
}

// on runs the command for the shop.
func (s *shop) on(t *testing.T, r *session, args ...string) int {
	return r.run(t.Context(), append([]string{args[0], s.url}, args[1:]...)...)
}

// A file goes up, of a path and of standard input, and comes down, as it was.
func TestTransfer(t *testing.T) {
	is := is.New(t)
	s := open(t)
	dir := t.TempDir()
	want := picture(300_000)
	path := filepath.Join(dir, "a")
	is.NoErr(os.WriteFile(path, want, 0o600))

	var up, piped, down, out session
	is.Equal(s.on(t, &up, "upload", "shop.put", `{"name":"a"}`, path), 0)
	is.Equal(up.out.String(), "300000\n")
	is.Equal(up.err.String(), "") // it was soon there
	piped.in = string(want[:5])
	is.Equal(s.on(t, &piped, "upload", "shop.put", `{"name":"b"}`, "-"), 0)
	is.Equal(piped.out.String(), "5\n")

	to := filepath.Join(dir, "b")
	is.NoErr(os.WriteFile(to, picture(400_000), 0o600)) // is replaced
	is.Equal(s.on(t, &down, "download", "shop.get", `{"name":"a"}`, "-o", to), 0)
	is.Equal(down.out.String(), "")
	is.Equal(down.err.String(), fmt.Sprintf("typedrpc: 300 kB, SHA-256 %x\n", sha256.Sum256(want)))
	got, err := os.ReadFile(to)
	is.NoErr(err)
	is.True(bytes.Equal(got, want))
	_, err = os.Stat(to + ".part")
	is.True(os.IsNotExist(err))

	is.Equal(s.on(t, &out, "download", "shop.get", `{"name":"a"}`), 0)
	is.True(out.out.String() == string(want))
	is.Equal(out.err.String(), "")

	var quiet, null, link session
	is.Equal(s.on(t, &quiet, "download", "shop.get", `{"name":"b"}`, "-o", to, "-quiet"), 0)
	is.Equal(quiet.err.String(), "")
	is.Equal(s.on(t, &null, "download", "shop.get", `{"name":"a"}`, "-o", os.DevNull), 0)
	is.NoErr(os.Symlink("b", filepath.Join(dir, "c")))
	is.Equal(s.on(t, &link, "download", "shop.get", `{"name":"a"}`, "-o", filepath.Join(dir, "c")), 0)
	got, err = os.ReadFile(to)
	is.NoErr(err)
	is.True(bytes.Equal(got, want)) // what the link stands for
}

// What breaks off is there as far as it came, and the same command goes on behind it.
func TestDownload_resume(t *testing.T) {
	is := is.New(t)
	s := open(t)
	want := picture(300_000)
	s.photos.Store("a", want)
	to := filepath.Join(t.TempDir(), "a")
	args := []string{"download", "shop.get", `{"name":"a"}`, "-o", to, "-resume", "offset"}

	s.cut.Store(100_000)
	var broken session
	is.Equal(s.on(t, &broken, args...), 64+14)
	is.Equal(broken.err.String(), "typedrpc: 100 kB of it are in "+to+".part\ntypedrpc: unavailable: the disk is away\n")
	_, err := os.Stat(to)
	is.True(os.IsNotExist(err))

	s.photos.Delete("a") // what is there stays when somebody asks too early
	var early session
	is.Equal(s.on(t, &early, args...), 64+5)
	s.photos.Store("a", append(make([]byte, 100_000), want[100_000:]...)) // which no one sees who has the beginning, but for the checksum
	var changed session
	is.Equal(s.on(t, &changed, append(args, "-json")...), 64+15)
	is.True(strings.Contains(changed.err.String(), "checksum"))
	_, err = os.Stat(to + ".part")
	is.True(os.IsNotExist(err)) // it is of no use

	s.photos.Store("a", want)
	s.cut.Store(100_000)
	is.Equal(s.on(t, &broken, args...), 64+14)
	part, err := os.ReadFile(to + ".part")
	is.NoErr(err)
	is.True(bytes.Equal(part, want[:100_000]))
	var whole session
	is.Equal(s.on(t, &whole, args...), 0)
	got, err := os.ReadFile(to)
	is.NoErr(err)
	is.True(bytes.Equal(got, want))

	// A server that does not go on: nothing is lost, and without the flag it begins anew.
	s.photos.Store("odd", want)
	is.NoErr(os.WriteFile(to+".part", want[:7], 0o600))
	var odd, anew session
	is.Equal(s.on(t, &odd, "download", "shop.get", `{"name":"odd"}`, "-o", to, "-resume", "offset"), 64+9)
	is.True(strings.Contains(odd.err.String(), "it begins at byte 0, and 7 bytes are here"))
	is.Equal(s.on(t, &anew, "download", "shop.get", `{"name":"odd"}`, "-o", to), 0)
	got, err = os.ReadFile(to)
	is.NoErr(err)
	is.True(bytes.Equal(got, want))
}

// An upload goes on where the command line says.
func TestUpload_offset(t *testing.T) {
	is := is.New(t)
	s := open(t)
	want := picture(70_000)
	path := filepath.Join(t.TempDir(), "a")
	is.NoErr(os.WriteFile(path, want, 0o600))
	s.photos.Store("a", want[:40_000:40_000])
	var r session
	is.Equal(s.on(t, &r, "upload", "shop.put", `{"name":"a","offset":40000}`, path, "-offset", "40000"), 0)
	is.Equal(r.out.String(), "70000\n")
	got, _ := s.photos.Load("a")
	is.True(bytes.Equal(got.([]byte), want))
}

// What goes wrong is told, and has its status.
func TestTransfer_fails(t *testing.T) {
	s := open(t)
	dir := t.TempDir()
	s.photos.Store("big", picture(100_000))
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, make([]byte, 1<<20+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args, err string
		status    int
	}{
		{`download shop.get {"name":"none"} -o DIR/x`, "no photo \"none\"\n", 64 + 5},
		{`download shop.get {"name":"big"} -o DIR/x -max-bytes 10`, "at most 10 are taken", 64 + 8},
		{`download shop.get {"name":"big"} -o DIR`, "is a directory", 2},
		{`download shop.get {"name":"big"} -o DIR/no/x`, "no such file", 1},
		{`download shop.get {"name":"big"} -resume offset`, "needs -o", 2},
		{`download shop.get "big" -o DIR/x -resume offset`, "no object", 2},
		{`download shop.get {"name":"big"} -o ` + os.DevNull + ` -resume offset`, "is none", 2},
		{`download shop.get big -o DIR/x`, "not JSON", 2},
		{`download shop.got null -o DIR/x`, "did you mean shop.get", 64 + 12},
		{`download shop.ticks 3 -o DIR/x`, "did you mean typedrpc receive (shop.ticks is a server stream)?\n", 64 + 13},
		{`download shop.put {} -o DIR/x`, "did you mean typedrpc upload (shop.put is an upload)?\n", 64 + 12},
		{`download shop.get {"name":"big"} -o DIR/x -max-bytes -1`, "is a number", 2},
		{`upload shop.put {"name":"x"} DIR/nowhere`, "no such file", 2},
		{`upload shop.put {"name":"x"} DIR`, "is a directory", 2},
		{`upload shop.put {"name":"x"} DIR/large`, "at most 1048576 are taken", 64 + 8},
		{`upload shop.put DIR/large`, "no name", 64 + 7},
		{`upload shop.put - -`, "cannot both come from standard input", 2},
		{`upload shop.put {"name":"x"} DIR/large -offset -1`, "is a number", 2},
		{`upload shop.put {"name":"x"} DIR/large -offset 9999999`, "the Offset is 9999999 (not sent)", 64 + 15},
		{`upload shop.sum 0 DIR/large`, "did you mean typedrpc send (shop.sum is a client stream)?\n", 64 + 3},
		{`upload shop.put`, `the arguments are "url upload [request] file"`, 2},
		{`send shop.put {"name":"x"} -items DIR/items`, "did you mean typedrpc upload (shop.put is an upload)?\n", 64 + 3},
	} {
		t.Run(tt.args, func(t *testing.T) {
			is := is.New(t)
			is.NoErr(os.WriteFile(filepath.Join(dir, "items"), []byte(`"AAE="`), 0o600))
			var r session
			is.Equal(s.on(t, &r, strings.Split(strings.ReplaceAll(tt.args, "DIR", dir), " ")...), tt.status)
			if !strings.Contains(r.err.String(), tt.err) {
				t.Errorf("it says %s", r.err.String())
			}
			is.Equal(r.out.String(), "")
			for _, name := range []string{"x", "x.part"} {
				_, err := os.Stat(filepath.Join(dir, name))
				is.True(os.IsNotExist(err))
			}
			for len(s.running)+len(s.ended) > 0 {
				select {
				case <-s.running:
				case <-s.ended:
				}
			}
		})
	}
}

// Ctrl-C ends a transfer on both sides: an upload of which nobody writes more, and a download
// that waits.
func TestTransfer_interrupt(t *testing.T) {
	for _, args := range []string{`upload URL shop.put {"name":"a"} -`, `download URL shop.get {"name":"slow"} -o DIR/a`} {
		t.Run(strings.Fields(args)[0], func(t *testing.T) {
			is := is.New(t)
			s := open(t)
			s.photos.Store("slow", picture(100))
			dir := t.TempDir()
			ctx, interrupt := context.WithCancel(t.Context())
			in, more := io.Pipe() // nobody writes
			defer more.Close()
			var r session
			ended := make(chan int)
			go func() {
				ended <- Main(ctx, &Env{Args: strings.Split(strings.NewReplacer("URL", s.url, "DIR", dir).Replace(args), " "), In: in, Out: &r.out, Err: &r.err, Getenv: os.Getenv})
			}()
			<-s.running
			interrupt()
			is.Equal(<-ended, statusInterrupted)
			is.True(strings.Contains(r.err.String(), "typedrpc: interrupted"))
			<-s.ended // the handler, too
			_, err := os.Stat(filepath.Join(dir, "a"))
			is.True(os.IsNotExist(err))
		})
	}
}

// A reader that has enough of a download ends it, quietly.
func TestDownload_pipe(t *testing.T) {
	is := is.New(t)
	s := open(t)
	s.photos.Store("a", picture(1000))
	r, w, err := os.Pipe()
	is.NoErr(err)
	is.NoErr(r.Close())
	defer w.Close()
	var problems text
	is.Equal(Main(t.Context(), &Env{Args: []string{"download", s.url, "shop.get", `{"name":"a"}`}, Out: w, Err: &problems, Getenv: os.Getenv}), statusPipe)
	is.Equal(problems.String(), "")
}

// Progress is told where it takes long, as it suits who reads it.
func TestProgress(t *testing.T) {
	for _, tt := range []struct {
		name           string
		quiet, person  bool
		total, lines   int64
		contains, last string
	}{
		{"a log", false, false, 1000, 9, " 50 %  500 B of 1.0 kB", "100 %  1.0 kB of 1.0 kB"},
		{"a person", false, true, 1000, 1, "\r 50 %  500 B of 1.0 kB", "\x1b[K\n"},
		{"nobody knows how large", false, false, -1, 9, "\n299 B  ", "\n999 B  "},
		{"quiet", true, true, 1000, 0, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			var out text
			p := (&Env{Err: &out, errIsTerminal: tt.person}).newProgress(tt.quiet)
			p.tell(0, tt.total)
			is.Equal(out.String(), "") // it may be short
			p.began = p.began.Add(-2 * progressFirst)
			for n := int64(100); n <= 1000; n++ {
				if p.shown = p.shown.Add(-progressTerminal); n < 1000 || tt.total > 0 {
					p.tell(n, tt.total)
				}
			}
			p.end()
			is.Equal(p.done >= 999, true)
			is.True(strings.Contains(out.String(), tt.contains))
			is.True(strings.Contains(out.String(), tt.last))
			if got := int64(strings.Count(out.String(), "\n")); got < tt.lines || got > tt.lines+1 {
				t.Errorf("%d lines: %s", got, out.String())
			}
		})
	}
	is := is.New(t)
	p := &progress{first: 0, began: time.Now().Add(-10 * time.Second)}
	is.True(strings.HasSuffix(p.text(p.began.Add(10*time.Second), 1e6, 3e6), "100 kB/s  20s left"))
}

// Two downloads do not write one file: the second is told so, and the first is whole.
func TestDownload_two(t *testing.T) {
	if !locks {
		t.Skip("files have no locks here")
	}
	is := is.New(t)
	s := open(t)
	s.photos.Store("slow", picture(100))
	s.photos.Store("a", picture(1000))
	to := filepath.Join(t.TempDir(), "a")
	ctx, interrupt := context.WithCancel(t.Context())
	var first, second, third session
	ended := make(chan int)
	go func() { ended <- first.run(ctx, "download", s.url, "shop.get", `{"name":"slow"}`, "-o", to) }()
	<-s.running
	for _, more := range [][]string{nil, {"-resume", "offset"}} {
		is.Equal(second.run(t.Context(), append([]string{"download", s.url, "shop.get", `{"name":"a"}`, "-o", to}, more...)...), statusFailed)
	}
	is.Equal(strings.Count(second.err.String(), "another download is writing "+to+".part"), 2)
	interrupt()
	is.Equal(<-ended, statusInterrupted)
	is.Equal(third.run(t.Context(), "download", s.url, "shop.get", `{"name":"a"}`, "-o", to), 0) // when it has ended
	got, err := os.ReadFile(to)
	is.NoErr(err)
	is.Equal(got, picture(1000))
}

// A download by a command that is for streams prints what it is made of, and is told what would
// have been right; other streams of bytes are not.
func TestReceive_download(t *testing.T) {
	is := is.New(t)
	s := open(t)
	s.photos.Store("a", picture(10))
	var r session
	is.Equal(r.run(t.Context(), "receive", s.url, "shop.get", `{"name":"a"}`), 0)
	is.Equal(strings.Count(r.out.String(), "\n"), 3)
	is.Equal(r.err.String(), "typedrpc: shop.get may be a download, and these its pieces: \"typedrpc download\" makes a file of them\n")
	for item, what := range map[string]string{
		`"AA=="`: "download", `"AAAAAAAAAAAF"`: "download", "\x00": "download", "\x00\x00\x00\x00\x00\x00\x00\x00\x09": "download",
		"\x01\x02": "-dialect text", "abc": "-dialect text", `"AQA="`: "", `""`: "", `0`: "", `null`: "", `"no base64"`: "", `{"a":1}`: "",
	} {
		var out text
		(&Env{Err: &out}).noteBytes("x", typedrpc.Raw(item))
		if !strings.Contains(out.String(), what) || what == "" && out.String() != "" {
			t.Errorf("%q: %s", item, out.String())
		}
	}
}
