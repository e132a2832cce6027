package lab

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/testkit"
)

// Stranger is a plain JSON-RPC peer that nobody here wrote: it is driven by hand, text
// by text, and what comes is collected.
type Stranger struct {
	T link.Transport

	mu   sync.Mutex
	seen []Said
	end  error
	stop chan struct{} // nothing is read until it is closed
}

// Said is a message that came.
type Said struct {
	Text   string
	Binary bool
}

// Send writes a message.
func (s *Stranger) Send(text string) { s.T.Write([]byte(text), true, func() {}) }

// SendBinary writes one in a binary message.
func (s *Stranger) SendBinary(text string) { s.T.Write([]byte(text), false, func() {}) }

// Got waits until nothing moves, and returns what has come since the last time.
func (s *Stranger) Got() []string {
	var texts []string
	for _, m := range s.Messages() {
		texts = append(texts, m.Text)
	}
	return texts
}

// Messages is Got with the kinds of the messages.
func (s *Stranger) Messages() []Said {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.seen
	s.seen = nil
	return seen
}

// Ended is why the link ended, nil while it lives.
func (s *Stranger) Ended() error {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end
}

// Stop has it read nothing more, but for one message, until resume is called.
func (s *Stranger) Stop() (resume func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stop := make(chan struct{})
	s.stop = stop
	return func() { close(stop) }
}

func (s *Stranger) collect() {
	for {
		b, text, err := s.T.Read(func() {})
		s.mu.Lock()
		if stop := s.stop; stop != nil {
			s.mu.Unlock()
			<-stop
			s.mu.Lock()
		}
		if err != nil {
			s.end = err
			s.mu.Unlock()
			return
		}
		s.seen = append(s.seen, Said{string(b.B), !text})
		s.mu.Unlock()
		b.Release()
	}
}

// Page joins srv as a plain client.
func Page(t *testing.T, srv *typedrpc.Server) (*Stranger, *typedrpc.Conn) {
	t.Helper()
	near, far := link.Pipe()
	opened := make(chan *typedrpc.Conn, 1)
	inner := srv.OnConnect
	srv.OnConnect = func(c *typedrpc.Conn) {
		if inner != nil {
			inner(c)
		}
		opened <- c
	}
	if srv.Logger == nil {
		srv.Logger = slog.New(slog.DiscardHandler)
	}
	if _, refused := hook.Accept(srv, far, testkit.NewUpgrade(), nil); refused != nil {
		t.Fatalf("refused: %d", refused.StatusCode)
	}
	s := &Stranger{T: near}
	go s.collect()
	t.Cleanup(near.Kill)
	return s, <-opened
}

// ForeignServer is dialled with o. again returns the peer of the next link.
func ForeignServer(t *testing.T, o *typedrpc.DialOptions) (s *Stranger, c *typedrpc.Conn, again func() *Stranger) {
	t.Helper()
	peers := make(chan *Stranger, 100)
	opts := *o
	opts.Dialect = typedrpc.JSONRPC
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	dialled := hook.Connect(&opts, func(context.Context, string, []string) (link.Transport, string, *http.Response, error) {
		near, far := link.Pipe()
		s := &Stranger{T: far}
		go s.collect()
		peers <- s
		return near, "", nil, nil
	}).(*typedrpc.DialOptions)
	c, err := typedrpc.Dial(t.Context(), "ws://stranger", dialled)
	is.New(t).NoErr(err)
	again = func() *Stranger {
		s := <-peers
		t.Cleanup(s.T.Kill)
		return s
	}
	t.Cleanup(func() { c.Close() })
	return again(), c, again
}

// Strangers runs test in a bubble with a plain peer on either side of a connection:
// the client of our server, and a server that we have dialled. mux has our handlers,
// and limits are ours.
func Strangers(t *testing.T, mux *typedrpc.Mux, limits typedrpc.Limits, test func(t *testing.T, s *Stranger, c *typedrpc.Conn, log *Logs)) {
	t.Helper()
	t.Run("a page", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			log := new(Logs)
			srv := &typedrpc.Server{Mux: mux, Limits: limits, Logger: log.Logger()}
			s, c := Page(t, srv)
			test(t, s, c, log)
			c.Close()
			srv.Shutdown(t.Context())
		})
	})
	t.Run("a server", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			log := new(Logs)
			s, c, _ := ForeignServer(t, &typedrpc.DialOptions{Mux: mux, Limits: limits, Logger: log.Logger()})
			test(t, s, c, log)
			c.Close()
		})
	})
}

// Only is the one message that has come.
func (s *Stranger) Only(t *testing.T) string {
	t.Helper()
	got := s.Got()
	if len(got) != 1 {
		t.Fatalf("came %q", slices.Clone(got))
	}
	return got[0]
}
