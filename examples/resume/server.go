package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/typedrpc/typedrpc"
)

// books are what both sides write down: they are one process here.
type books struct {
	up, down, notes flow // numbers of the stream, both ways; notifications
	calls           *calls
}

// server is the server's side.
type server struct {
	*books
	session sync.Map // *typedrpc.Conn → *span: notifications by session
}

func (s *server) mux() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Double, s.double)
	typedrpc.Handle(mux, Numbers, s.numbers)
	typedrpc.Handle(mux, Noted, s.noted)
	typedrpc.Handle(mux, Flush, func(context.Context, struct{}) (struct{}, error) {
		return struct{}{}, nil
	})
	return mux
}

func (s *server) double(_ context.Context, n int64) (int64, error) {
	s.calls.run(n)
	return 2 * n, nil
}

// noted is called for one notification after another. ConnFrom is the client's
// session: the same one however often its link is lost.
func (s *server) noted(ctx context.Context, n int64) error {
	c := typedrpc.ConnFrom(ctx)
	r, ok := s.session.Load(c)
	if !ok {
		r = s.notes.begin()
		s.session.Store(c, r)
	}
	s.notes.arrived(r.(*span), n)
	return nil
}

// numbers sends and receives until the client has sent all.
func (s *server) numbers(_ context.Context, _ struct{}, stream *typedrpc.Stream[int64, int64]) error {
	var stop atomic.Bool
	sent := make(chan error, 1)
	go func() {
		var err error
		for err == nil && !stop.Load() {
			err = stream.Send(s.down.sent.Add(1))
		}
		sent <- err
	}()
	r := s.up.begin()
	for {
		n, err := stream.Recv()
		if err != nil {
			stop.Store(true)
			if failed := <-sent; errors.Is(err, io.EOF) {
				err = failed
			}
			return err // nil, or the session is lost
		}
		s.up.arrived(r, n)
	}
}

// serve starts a server of mux on any free port.
func serve(mux *typedrpc.Mux, limits typedrpc.Limits) (addr string, stop func(), err error) {
	rpc := &typedrpc.Server{Mux: mux, Limits: limits}
	if err := rpc.Check(); err != nil {
		return "", nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	web := &http.Server{Handler: rpc, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- web.Serve(ln) }()
	return ln.Addr().String(), sync.OnceFunc(func() {
		patience, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		// typedrpc first: http.Server knows nothing of upgraded connections.
		if errors.Join(rpc.Shutdown(patience), web.Shutdown(patience)) != nil {
			web.Close()
		}
		<-served
	}), nil
}
