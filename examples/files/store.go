package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/transfer"
)

// What client and server share.

type (
	// Receipt says what was stored.
	Receipt struct {
		Bytes  int64  `json:"bytes"`
		SHA256 string `json:"sha256"`
	}
	// Fetch asks for a file, of which the first Offset bytes are there already.
	Fetch struct {
		Name   string `json:"name"`
		Offset int64  `json:"offset,omitempty"`
	}
)

var (
	// Put stores a file under a name that is not taken.
	Put = transfer.NewUpload[string, Receipt]("files.put")
	// Get sends the file with a name.
	Get = transfer.NewDownload[Fetch]("files.get")
)

// store keeps files in one directory.
type store struct {
	root *os.Root // no name leads out of it
	max  int64    // bytes of a file
}

func (s *store) put(_ context.Context, name string, r *transfer.Reader) (Receipt, error) {
	if err := s.vacant(name); err != nil {
		return Receipt{}, err // before anything was sent
	}
	if err := r.Begin(&transfer.ReceiveOptions{MaxBytes: s.max}); err != nil {
		return Receipt{}, err
	}
	partial := ".partial-" + rand.Text()
	f, err := s.root.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return Receipt{}, err // its text stays here: the client reads "internal error"
	}
	defer s.root.Remove(partial)
	n, err := io.Copy(f, r) // nil only if the checksum was right
	if err = errors.Join(err, f.Close()); err != nil {
		return Receipt{}, err
	}
	// Not Rename, which would replace what was stored meanwhile.
	if err := s.root.Link(partial, name); errors.Is(err, fs.ErrExist) {
		return Receipt{}, taken(name)
	} else if err != nil {
		return Receipt{}, err
	}
	return Receipt{n, hex.EncodeToString(r.Sum())}, nil
}

func (s *store) get(_ context.Context, want Fetch, w *transfer.Writer) error {
	name := want.Name
	if err := checkName(name); err != nil {
		return err
	}
	info, err := s.root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return typedrpc.Errorf(typedrpc.NotFound, "there is no file %q", name)
	}
	if err != nil {
		return err
	}
	f, err := s.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return w.Send(f, &transfer.SendOptions{Offset: want.Offset})
}

// vacant says why nothing can be stored under name.
func (s *store) vacant(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if _, err := s.root.Lstat(name); err == nil {
		return taken(name)
	}
	return nil
}

func taken(name string) error {
	return typedrpc.Errorf(typedrpc.AlreadyExists, "there is a file %q already", name)
}

// checkName takes plain names only: no paths, no hidden files, nothing that
// confuses a terminal.
func checkName(name string) error {
	odd := func(r rune) bool { return !unicode.IsPrint(r) || strings.ContainsRune(`/\:`, r) }
	if name == "" || len(name) > 200 || name[0] == '.' || strings.ContainsFunc(name, odd) {
		return typedrpc.Errorf(typedrpc.InvalidArgument, "%q is no name for a file here", name)
	}
	return nil
}

// server serves a store until it is closed.
type server struct {
	addr  string
	store *store
	rpc   *typedrpc.Server
	http  *http.Server
	done  chan error
}

func open(addr, dir string, max int64) (*server, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	s := &store{root, max}
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Put, s.put)
	typedrpc.Handle(mux, Get, s.get)
	rpc := &typedrpc.Server{Mux: mux}
	if err := rpc.Check(); err != nil {
		root.Close()
		return nil, err
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		root.Close()
		return nil, fmt.Errorf("%w (choose another address with -addr)", err)
	}
	routes := http.NewServeMux()
	routes.Handle("/rpc", rpc)
	srv := &server{
		addr:  ln.Addr().String(),
		store: s,
		rpc:   rpc,
		http:  &http.Server{Handler: routes, ReadHeaderTimeout: 10 * time.Second},
		done:  make(chan error, 1),
	}
	go func() { srv.done <- srv.http.Serve(ln) }()
	return srv, nil
}

// close lets transfers finish for a few seconds.
func (s *server) close() error {
	patience, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	defer s.store.root.Close()
	err := errors.Join(s.rpc.Shutdown(patience), s.http.Shutdown(patience))
	if errors.Is(err, context.DeadlineExceeded) {
		return s.http.Close()
	}
	return err
}
