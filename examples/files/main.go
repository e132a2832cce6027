// Command files stores files on a server and fetches them, with a progress bar.
// Without a subcommand it shows all of it in one process.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/transfer"
)

const usage = `usage: files [flags]                 a demonstration: server and client in one process
       files [flags] serve DIR       serve the directory DIR
       files [flags] put FILE        upload FILE
       files [flags] get NAME DEST   download the file NAME to DEST

`

// errUsage says that the command line makes no sense.
var errUsage = errors.New("bad command line")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt does not wait for anything
	err := run(ctx, os.Args[1:], os.Stdout)
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2)
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "files: interrupted")
		os.Exit(1)
	default:
		fmt.Fprintln(os.Stderr, "files:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, w io.Writer) error {
	flags := flag.NewFlagSet("files", flag.ContinueOnError)
	addr := flags.String("addr", "127.0.0.1:8080", "address of the server; the demonstration takes any free port")
	most := flags.Int64("max", 1<<30, "bytes of a file that the server takes")
	demoSize := flags.Int64("size", 100e6, "bytes of the demonstration's file")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return err
	} else if err != nil {
		return errUsage
	}
	switch args := flags.Args(); {
	case len(args) == 0:
		return demo(ctx, w, *demoSize)
	case args[0] == "serve" && len(args) == 2:
		return serve(ctx, w, *addr, args[1], *most)
	case args[0] == "put" && len(args) == 2:
		return connected(ctx, *addr, func(c *typedrpc.Conn) error { return put(ctx, w, c, args[1]) })
	case args[0] == "get" && len(args) == 3:
		return connected(ctx, *addr, func(c *typedrpc.Conn) error { return get(ctx, w, c, args[1], args[2]) })
	}
	flags.Usage()
	return errUsage
}

func serve(ctx context.Context, w io.Writer, addr, dir string, most int64) error {
	s, err := open(addr, dir, most)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "serving %s at %s\n", dir, s.addr)
	select {
	case err := <-s.done:
		return err
	case <-ctx.Done():
		return s.close()
	}
}

// connected calls use with a connection to the server at addr.
func connected(ctx context.Context, addr string, use func(*typedrpc.Conn) error) error {
	c, err := typedrpc.Dial(ctx, "ws://"+addr+"/rpc", nil)
	if err != nil {
		return err
	}
	defer c.Close()
	return use(c)
}

// put uploads a file under its own name.
func put(ctx context.Context, w io.Writer, c *typedrpc.Conn, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	name := filepath.Base(path)
	b := newBar(w, "put "+name)
	receipt, err := transfer.Send(ctx, c, Put, name, f, &transfer.SendOptions{Progress: b.progress})
	b.end()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "stored %s: %d bytes, SHA-256 %s\n", name, receipt.Bytes, receipt.SHA256)
	return nil
}

// get downloads a file to dest, which must not exist. What came of one that broke off
// is in dest with ".part" behind it, and is not sent again.
func get(ctx context.Context, w io.Writer, c *typedrpc.Conn, name, dest string) (err error) {
	if _, err := os.Lstat(dest); err == nil {
		return fmt.Errorf("%s is there already", dest)
	}
	f, err := os.OpenFile(dest+".part", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	keep := false
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil && !keep {
			os.Remove(f.Name())
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	b := newBar(w, "get "+name)
	r, err := transfer.Receive(ctx, c, Get, Fetch{name, info.Size()}, &transfer.ReceiveOptions{Prefix: f, Progress: b.progress})
	if err != nil {
		keep = info.Size() > 0 && interrupted(err)
		return err
	}
	defer r.Close()
	_, err = io.Copy(f, r) // nil only if the checksum of all of it was right
	b.end()
	if err != nil {
		keep = interrupted(err)
		return err
	}
	if err := os.Rename(f.Name(), dest); err != nil {
		return err
	}
	fmt.Fprintf(w, "fetched %s: %d bytes, SHA-256 %x\n", name, r.Total(), r.Sum())
	return nil
}

// interrupted says that what came before err is good, and can be gone on with.
func interrupted(err error) bool {
	return errors.Is(err, typedrpc.Gap) || errors.Is(err, typedrpc.Unavailable) || errors.Is(err, context.Canceled) || errors.Is(err, io.ErrUnexpectedEOF)
}

// demo uploads a file to a server of its own and downloads it again.
func demo(ctx context.Context, w io.Writer, size int64) error {
	dir, err := os.MkdirTemp("", "typedrpc-files-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	stored := filepath.Join(dir, "stored")
	if err := os.Mkdir(stored, 0o755); err != nil {
		return err
	}
	s, err := open("127.0.0.1:0", stored, size)
	if err != nil {
		return err
	}
	defer s.close()
	fmt.Fprintf(w, "The server listens on %s and takes files of up to %d bytes.\n", s.addr, size)

	holiday, back, film := filepath.Join(dir, "holiday.mp4"), filepath.Join(dir, "back.mp4"), filepath.Join(dir, "film.mp4")
	if err := errors.Join(generate(holiday, size), generate(film, size+1)); err != nil {
		return err
	}
	return connected(ctx, s.addr, func(c *typedrpc.Conn) error {
		fmt.Fprintln(w, "\n1. Upload a file.")
		if err := put(ctx, w, c, holiday); err != nil {
			return err
		}
		fmt.Fprintln(w, "\n2. Download it again.")
		if err := get(ctx, w, c, "holiday.mp4", back); err != nil {
			return err
		}
		same, err := equal(holiday, back)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "is it the same file? %t\n", same)

		fmt.Fprintln(w, "\n3. Go on with a download that broke off.")
		again := filepath.Join(dir, "again.mp4")
		if err := part(holiday, again+".part", size/2); err != nil {
			return err
		}
		if err := get(ctx, w, c, "holiday.mp4", again); err != nil {
			return err
		}

		fmt.Fprintln(w, "\n4. What the server refuses.")
		fmt.Fprintln(w, "a name that is taken:", put(ctx, io.Discard, c, holiday))
		fmt.Fprintln(w, "a file that is too large:", put(ctx, io.Discard, c, film))
		fmt.Fprintln(w, "a path:", get(ctx, io.Discard, c, "../film.mp4", film+".back"))
		fmt.Fprintln(w, "a file that is not there:", get(ctx, io.Discard, c, "film.mp4", film+".back"))
		return ctx.Err()
	})
}

// generate writes a file of n random bytes.
func generate(path string, n int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.Reader, n)
	return errors.Join(err, f.Close())
}

// part copies the first n bytes of a file.
func part(from, to string, n int64) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.CopyN(out, in, n)
	return errors.Join(err, out.Close())
}

// equal compares the checksums of two files.
func equal(a, b string) (bool, error) {
	var sums [2][]byte
	for i, path := range []string{a, b} {
		f, err := os.Open(path)
		if err != nil {
			return false, err
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return false, err
		}
		sums[i] = h.Sum(nil)
	}
	return bytes.Equal(sums[0], sums[1]), nil
}
