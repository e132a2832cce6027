package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/transfer"
)

func (env *Env) uploadCommand() *cobra.Command {
	r := &remote{Env: env}
	var o transfer.SendOptions
	var quiet bool
	cmd := &cobra.Command{
		GroupID: groupCall, Use: "upload url upload [request] file", Short: "send a file, and print the response",
		Long: `typedrpc upload calls an upload of package transfer: it sends a file, or standard input where the
file is -, with the checksum that the other side compares, and prints the response.

An upload that broke off goes on with -offset: so many bytes the server has already. How many it
has, and how the request says so, is up to the API.` + requestHelp,
		Example: `  typedrpc upload localhost:8080/rpc files.put '"draft.txt"' draft.txt
  tar c photos | typedrpc upload localhost:8080/rpc files.put '"photos.tar"' -
  typedrpc upload localhost:8080/rpc files.put '{"name":"big.iso","offset":32000}' big.iso -offset 32000`,
		Args: takes(3, 4), ValidArgsFunction: r.complete(uploads),
	}
	cmd.RunE = does(func(cmd *cobra.Command, args []string) error {
		request, path := args[2:len(args)-1], args[len(args)-1]
		if o.Offset < 0 {
			return usagef("-offset is a number of bytes")
		}
		in := env.In
		if path != "-" {
			f, err := openFile(path)
			if err != nil {
				return err
			}
			defer f.Close()
			in = f
		} else if len(request) > 0 && request[0] == "-" {
			return usagef("request and file cannot both come from standard input: use @file")
		}
		req, err := env.params(request, 0)
		if err != nil {
			return err
		}
		return r.talk(cmd, args[0], args[1], func(ctx context.Context, c typedrpc.Caller) error {
			src := in
			if !regular(src) {
				waiting, stop := interruptible(ctx, src)
				defer stop()
				src = waiting
			}
			p := env.newProgress(quiet)
			o.Progress = p.tell
			resp, err := transfer.Send(ctx, c, transfer.NewUpload[typedrpc.Raw, typedrpc.Raw](args[1]), req, src, &o)
			p.end()
			if err != nil {
				return err
			}
			return env.value(resp)
		})
	})
	cmd.Flags().Int64Var(&o.Offset, "offset", 0, "how many `bytes` the server has already, of an upload that broke off")
	quietFlag(cmd, &quiet)
	r.flags(cmd, 0)
	r.metaFlag(cmd)
	return cmd
}

func quietFlag(cmd *cobra.Command, quiet *bool) {
	cmd.Flags().BoolVar(quiet, "quiet", false, "tell no progress")
}

// openFile opens a file to be sent.
func openFile(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, usagef("the file: %w", err)
	}
	if info, err := f.Stat(); err == nil && info.IsDir() {
		f.Close()
		return nil, usagef("the file: %s is a directory", path)
	}
	return f, nil
}

// interruptible is in for one goroutine, whose Read ends with ctx, too. What is read of it
// then, at a terminal, is lost.
func interruptible(ctx context.Context, in io.Reader) (io.Reader, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	context.AfterFunc(ctx, func() { r.CloseWithError(ctx.Err()) })
	go func() { // ends when the read does that it is in, or with the input
		_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{in}, make([]byte, 64<<10))
		w.CloseWithError(err) // nil: io.EOF
	}()
	return r, cancel
}

// download is a download to a file, or to standard output.
type download struct {
	*remote
	path   string // where to: "" or "-" standard output
	resume string // the request's member that says from which byte on
	most   int64
	quiet  bool
}

func (env *Env) downloadCommand() *cobra.Command {
	d := &download{remote: &remote{Env: env}}
	cmd := &cobra.Command{
		GroupID: groupCall, Use: "download url download [request]", Short: "receive a file",
		Long: `typedrpc download calls a download of package transfer, and writes what comes to -o file, or to
standard output. The file is there, and replaces one that was, when all has come and its checksum
is right; until then it has ".part" behind its name, and stays there if the download breaks off.
What comes on standard output is right if the exit status is 0.

With -resume the same command goes on behind the bytes that are in file.part, and so does this
one when its session is lost. The flag names the member of the request that tells the server how
many those are, if the API has one.` + requestHelp,
		Example: `  typedrpc download localhost:8080/rpc files.get '"draft.txt"' -o draft.txt
  typedrpc download localhost:8080/rpc files.get '"photos.tar"' | tar x
  typedrpc download localhost:8080/rpc files.get '{"name":"big.iso"}' -o big.iso -resume offset`,
		Args: takes(2, 3), ValidArgsFunction: d.complete(downloads),
	}
	cmd.RunE = does(func(cmd *cobra.Command, args []string) error {
		req, err := env.params(args, 2)
		if err != nil {
			return err
		}
		if err := d.check(req); err != nil {
			return err
		}
		return d.talk(cmd, args[0], args[1], func(ctx context.Context, c typedrpc.Caller) error {
			return d.run(ctx, c, args[1], req)
		})
	})
	cmd.Flags().StringVarP(&d.path, "output", "o", "", "`file` to write, - is standard output")
	cmd.Flags().StringVar(&d.resume, "resume", "", "go on behind what is in file.part; the `member` of the request says how many bytes that are")
	cmd.Flags().Int64Var(&d.most, "max-bytes", 0, "fail if the file has more than so `many` bytes; 0: it may have any number")
	cmd.RegisterFlagCompletionFunc("resume", cobra.NoFileCompletions)
	quietFlag(cmd, &d.quiet)
	d.flags(cmd, 0)
	d.metaFlag(cmd)
	return cmd
}

// check says what of the command line makes no sense.
func (d *download) check(req typedrpc.Raw) error {
	var members map[string]json.RawMessage
	info, err := os.Stat(d.path)
	switch {
	case d.most < 0:
		return usagef("-max-bytes is a number of bytes")
	case d.resume != "" && (d.path == "" || d.path == "-"):
		return usagef("-resume goes on with a file: it needs -o")
	case d.resume != "" && len(req) > 0 && json.Unmarshal(req, &members) != nil:
		return usagef("-resume names a member of the request, which is no object")
	case d.path == "" && isTerminal(d.Out):
		return usagef("a file may have what a terminal obeys: it needs -o file, or -o - to have it here")
	case err == nil && info.IsDir():
		return usagef("-o: %s is a directory", d.path)
	}
	return nil
}

func (d *download) run(ctx context.Context, c typedrpc.Caller, name string, req typedrpc.Raw) error {
	if d.path == "" || d.path == "-" {
		return d.receive(ctx, c, name, req, nil, d.Out)
	}
	path := d.path
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // what a link stands for is replaced, not the link
	}
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() { // such as /dev/null
		if d.resume != "" {
			return usagef("-resume goes on with a file, and %s is none", path)
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(d.receive(ctx, c, name, req, nil, f), f.Close())
	}
	for {
		err := d.toFile(ctx, c, name, req, path)
		if d.resume == "" || !errors.Is(err, typedrpc.Gap) || ctx.Err() != nil {
			return err
		}
		d.note("%v: going on", err)
	}
}

// toFile receives into a file beside path, which becomes path at the end.
func (d *download) toFile(ctx context.Context, c typedrpc.Caller, name string, req typedrpc.Raw, path string) error {
	part, release, err := openPart(path + ".part")
	if err != nil {
		return err
	}
	defer release()
	defer part.Close()
	var prefix io.Reader
	var begin int64
	if d.resume != "" {
		if begin, err = part.Seek(0, io.SeekEnd); err == nil {
			_, err = part.Seek(0, io.SeekStart)
		}
		if err == nil {
			req, err = with(req, d.resume, begin)
		}
		if err != nil {
			return err
		}
		prefix = part
	}
	err = d.receive(ctx, c, name, req, prefix, part)
	err = errors.Join(err, part.Close())
	if err == nil {
		return os.Rename(part.Name(), path)
	}
	info, fault := os.Stat(part.Name())
	switch wrong := errors.Is(err, typedrpc.DataLoss) && !errors.Is(err, io.ErrUnexpectedEOF); {
	case fault != nil:
	case wrong || info.Size() == 0: // and nobody can go on with it
		os.Remove(part.Name())
	default:
		d.note("%s of it are in %s", humanize.Bytes(uint64(info.Size())), part.Name())
	}
	return err
}

// openPart opens a file for one download, until release: two would make one file of both,
// each content with the checksum of what it has received.
func openPart(path string) (part *os.File, release func() error, err error) {
	for {
		held, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
		if err != nil {
			return nil, nil, err
		}
		if lock(held) {
			held.Close()
			return nil, nil, fmt.Errorf("another download is writing %s: let it end, or have another -o", path)
		}
		mine, err := held.Stat()
		there, fault := os.Stat(path)
		if !locks { // and who has it open would keep it from its name
			held.Close()
		}
		if err == nil && fault == nil && os.SameFile(mine, there) {
			part, err := os.OpenFile(path, os.O_RDWR, 0o666)
			if err != nil {
				held.Close()
			}
			return part, held.Close, err
		}
		held.Close() // of a download that has just ended
	}
}

// with is req with a number as a member.
func with(req typedrpc.Raw, member string, n int64) (typedrpc.Raw, error) {
	members := map[string]json.RawMessage{}
	if len(req) > 0 {
		if err := json.Unmarshal(req, &members); err != nil {
			return nil, err
		}
	}
	if members == nil { // of null
		members = map[string]json.RawMessage{}
	}
	members[member] = json.RawMessage(fmt.Sprint(n))
	return json.Marshal(members)
}

// receive receives behind prefix into w. A file without a prefix is emptied, when there is
// something else to put into it.
func (d *download) receive(ctx context.Context, c typedrpc.Caller, name string, req typedrpc.Raw, prefix io.Reader, w io.Writer) error {
	p := d.newProgress(d.quiet)
	defer p.end()
	r, err := transfer.Receive(ctx, c, transfer.NewDownload[typedrpc.Raw](name), req, &transfer.ReceiveOptions{MaxBytes: d.most, Prefix: prefix, Progress: p.tell})
	if err != nil {
		return err
	}
	defer r.Close()
	if f, ok := w.(*os.File); ok && prefix == nil && f != d.Out {
		if err := f.Truncate(0); err != nil && regular(f) {
			return err
		}
	}
	if _, err := io.Copy(w, r); err != nil {
		return err
	}
	p.end()
	if w != d.Out && !d.quiet {
		d.note("%s, SHA-256 %x", humanize.Bytes(uint64(p.done)), r.Sum())
	}
	return nil
}

// regular reports whether f is a file whose size is known, and of which nobody has to wait.
func regular(f any) bool {
	file, ok := f.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode().IsRegular()
}
