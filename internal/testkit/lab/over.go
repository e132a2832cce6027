package lab

import (
	"log/slog"
	"net/http/httptest"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// Over is one column of the table: how the two ends are connected.
type Over struct {
	Socket  bool // loopback WebSocket; else the pipe
	Dialect typedrpc.Dialect
}

// Plain reports that nothing beyond JSON-RPC 2.0 crosses: no metadata, no
// limits, no deadlines, no outcome of a refusal.
func (o Over) Plain() bool { return o.Dialect == typedrpc.JSONRPC }

// Arrives is what a caller makes of an error's code: what a plain peer says is not
// acted upon.
func (o Over) Arrives(c typedrpc.Code) typedrpc.Code {
	if o.Plain() && (c == typedrpc.Canceled || c == typedrpc.DeadlineExceeded || c == typedrpc.Unavailable) {
		return typedrpc.Unknown
	}
	return c
}

func (o Over) String() string {
	transport := "pipe"
	if o.Socket {
		transport = "socket"
	}
	return transport + "/" + [...]string{"binary", "jsonrpc", "plain"}[o.Dialect]
}

// OverAll runs a test once for each transport and dialect, as most tests of the
// public API are.
func OverAll(t *testing.T, test func(t *testing.T, o Over)) {
	t.Helper()
	for _, socket := range []bool{false, true} {
		for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text, typedrpc.JSONRPC} {
			o := Over{socket, d}
			t.Run(o.String(), func(t *testing.T) { test(t, o) })
		}
	}
}

// OverTyped leaves out plain JSON-RPC.
func OverTyped(t *testing.T, test func(t *testing.T, o Over)) {
	t.Helper()
	OverAll(t, func(t *testing.T, o Over) {
		if !o.Plain() {
			test(t, o)
		}
	})
}

// Connect connects a client to srv and returns both ends, which are closed when
// the test ends.
func (o Over) Connect(t *testing.T, srv *typedrpc.Server, opts *typedrpc.DialOptions) (client, server *typedrpc.Conn) {
	t.Helper()
	if opts == nil {
		opts = &typedrpc.DialOptions{}
	}
	opts.Dialect = o.Dialect
	Quiet(srv, opts)
	if !o.Socket {
		return typedrpctest.Pair(t, srv, opts)
	}
	is := is.New(t)
	accepted := make(chan *typedrpc.Conn, 1)
	onConnect := srv.OnConnect
	srv.OnConnect = func(c *typedrpc.Conn) {
		select {
		case accepted <- c:
		default:
		}
		if onConnect != nil {
			onConnect(c)
		}
	}
	hs := httptest.NewServer(srv)
	client, err := typedrpc.Dial(t.Context(), hs.URL, opts)
	is.NoErr(err) // Dial over loopback
	server = <-accepted
	t.Cleanup(func() {
		client.Close()
		server.Close()
		hs.Close()
	})
	return client, server
}

// Dial is Connect for handshakes that fail.
func (o Over) Dial(t *testing.T, srv *typedrpc.Server, opts *typedrpc.DialOptions) (*typedrpc.Conn, error) {
	t.Helper()
	opts.Dialect = o.Dialect
	Quiet(srv, opts)
	if !o.Socket {
		client, _, err := typedrpctest.Dial(srv, opts)
		return client, err
	}
	hs := httptest.NewServer(srv)
	t.Cleanup(hs.Close)
	return typedrpc.Dial(t.Context(), hs.URL, opts)
}

// Quiet keeps the logs of tests that do not look at them out of sight.
func Quiet(srv *typedrpc.Server, opts *typedrpc.DialOptions) {
	if srv.Logger == nil {
		srv.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
}
