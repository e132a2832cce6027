package transfer_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/transfer"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// A file goes from a client to a handler of the server, which answers when its
// checksum was right.
func ExampleSend() {
	type File struct {
		Name string `json:"name"`
	}
	put := transfer.NewUpload[File, string]("files.put")

	var mux typedrpc.Mux
	typedrpc.Handle(&mux, put, func(ctx context.Context, f File, r *transfer.Reader) (string, error) {
		if err := r.Begin(&transfer.ReceiveOptions{MaxBytes: 1 << 20}); err != nil {
			return "", err
		}
		var stored bytes.Buffer
		if _, err := io.Copy(&stored, r); err != nil {
			return "", err // what came may be incomplete
		}
		return fmt.Sprintf("%s has %d of %d bytes, SHA-256 %.4x…", f.Name, stored.Len(), r.Total(), r.Sum()), nil
	})
	conn, _, _ := typedrpctest.Dial(&typedrpc.Server{Mux: &mux}, nil)
	defer conn.Close()

	source := strings.NewReader(strings.Repeat("All work and no play. ", 4000))
	receipt, err := transfer.Send(context.Background(), conn, put, File{"draft.txt"}, source, &transfer.SendOptions{
		Progress: func(done, total int64) { fmt.Printf("sent %d of %d bytes\n", done, total) },
	})
	fmt.Println(receipt, err)
	// Output:
	// sent 0 of 88000 bytes
	// sent 32000 of 88000 bytes
	// sent 64000 of 88000 bytes
	// sent 88000 of 88000 bytes
	// draft.txt has 88000 of 88000 bytes, SHA-256 40bf871d… <nil>
}

// A download is an io.Reader, whose io.EOF says that the checksum was right.
func ExampleReceive() {
	get := transfer.NewDownload[string]("files.get")

	var mux typedrpc.Mux
	files := map[string]string{"hello.txt": "Hello, world!"}
	typedrpc.Handle(&mux, get, func(ctx context.Context, name string, w *transfer.Writer) error {
		text, ok := files[name]
		if !ok {
			return typedrpc.Errorf(typedrpc.NotFound, "no file %q", name)
		}
		return w.Send(strings.NewReader(text), nil)
	})
	conn, _, _ := typedrpctest.Dial(&typedrpc.Server{Mux: &mux}, nil)
	defer conn.Close()

	for _, name := range []string{"hello.txt", "bye.txt"} {
		r, err := transfer.Receive(context.Background(), conn, get, name, nil)
		if err != nil {
			fmt.Println(err)
			continue
		}
		defer r.Close()
		text, err := io.ReadAll(r)
		fmt.Printf("%s %v, of %d bytes\n", text, err, r.Total())
	}
	// Output:
	// Hello, world! <nil>, of 13 bytes
	// not found: no file "bye.txt"
}

// A download that broke off goes on where it ended. The request says what is here
// already; the checksum and the progress are of the whole.
func ExampleReceiveOptions_prefix() {
	type Fetch struct {
		Name   string `json:"name"`
		Offset int64  `json:"offset"`
	}
	get := transfer.NewDownload[Fetch]("files.get")

	var mux typedrpc.Mux
	typedrpc.Handle(&mux, get, func(ctx context.Context, f Fetch, w *transfer.Writer) error {
		return w.Send(strings.NewReader("Hello, world!"), &transfer.SendOptions{Offset: f.Offset})
	})
	conn, _, _ := typedrpctest.Dial(&typedrpc.Server{Mux: &mux}, nil)
	defer conn.Close()

	here := bytes.NewBufferString("Hello")
	r, err := transfer.Receive(context.Background(), conn, get, Fetch{"hello.txt", int64(here.Len())}, &transfer.ReceiveOptions{
		Prefix:   bytes.NewReader(here.Bytes()),
		Progress: func(done, total int64) { fmt.Printf("%d of %d bytes\n", done, total) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer r.Close()
	n, err := io.Copy(here, r)
	fmt.Printf("%d bytes came, here is %q, SHA-256 %.4x… %v\n", n, here, r.Sum(), err)
	// Output:
	// 5 of 13 bytes
	// 13 of 13 bytes
	// 8 bytes came, here is "Hello, world!", SHA-256 315f5bdb… <nil>
}
