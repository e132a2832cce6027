package typedrpc_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/typedrpc/typedrpc"
)

// A file goes from a client to a handler of the server, which answers when its
// checksum was right.
func ExampleUpload() {
	type File struct {
		Name string `json:"name"`
	}
	put := typedrpc.NewClientStream[File, typedrpc.Bytes, string]("files.put")

	mux := typedrpc.NewMux()
	typedrpc.HandleClientStream(mux, put, func(ctx context.Context, f File, items iter.Seq2[typedrpc.Bytes, error]) (string, error) {
		r, err := typedrpc.NewReader(items, &typedrpc.TransferOptions{MaxBytes: 1 << 20})
		if err != nil {
			return "", err
		}
		var stored bytes.Buffer
		if _, err := io.Copy(&stored, r); err != nil {
			return "", err // what came may be incomplete
		}
		return fmt.Sprintf("%s has %d of %d bytes, SHA-256 %.4x…", f.Name, stored.Len(), r.Total(), r.Sum()), nil
	})
	conn, stop := exampleConnect(mux, nil)
	defer stop()

	source := strings.NewReader(strings.Repeat("All work and no play. ", 4000))
	receipt, err := typedrpc.Upload(context.Background(), conn, put, File{"draft.txt"}, source, &typedrpc.TransferOptions{
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
func ExampleDownload() {
	get := typedrpc.NewServerStream[string, typedrpc.Bytes]("files.get")

	mux := typedrpc.NewMux()
	files := map[string]string{"hello.txt": "Hello, world!"}
	typedrpc.HandleServerStream(mux, get, func(ctx context.Context, name string, send func(typedrpc.Bytes) error) error {
		text, ok := files[name]
		if !ok {
			return typedrpc.Errorf(typedrpc.NotFound, "no file %q", name)
		}
		return typedrpc.SendReader(send, strings.NewReader(text), nil)
	})
	conn, stop := exampleConnect(mux, nil)
	defer stop()

	for _, name := range []string{"hello.txt", "bye.txt"} {
		r, err := typedrpc.Download(context.Background(), conn, get, name, nil)
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
