package lab

import (
	"log/slog"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Rejoin makes a link for a session of before, and sends its HELLO with others
// right behind.
func Rejoin(t *testing.T, d typedrpc.Dialect, srv *typedrpc.Server, h wire.HelloBody, behind ...wire.Frame) *testkit.Peer {
	t.Helper()
	p, err := testkit.Join(srv, []string{testkit.BinaryProtocol, testkit.HelloProtocol}[d])
	if err != nil {
		t.Fatal(err)
	}
	p.Send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)})
	for _, f := range behind {
		p.Send(f)
	}
	return p
}

// RawClient joins srv as a client driven by hand that has all features.
func RawClient(t *testing.T, d typedrpc.Dialect, srv *typedrpc.Server) (*testkit.RawPeer, *typedrpc.Conn) {
	t.Helper()
	is := is.New(t)
	opened := make(chan *typedrpc.Conn, 1)
	srv.OnConnect = func(c *typedrpc.Conn) { opened <- c }
	if srv.Logger == nil {
		srv.Logger = slog.New(slog.DiscardHandler)
	}
	p, err := testkit.Join(srv, []string{testkit.BinaryProtocol, testkit.HelloProtocol}[d])
	is.NoErr(err)
	h := wire.HelloBody{Attempt: 1, Limits: testkit.Roomy, Features: testkit.HandFeatures}
	is.NoErr(p.Send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
	_, err = p.Until(wire.Welcome)
	is.NoErr(err)
	is.NoErr(p.Send(wire.Frame{Type: wire.Ack}))
	raw := &testkit.RawPeer{Peer: p}
	go raw.Collect()
	t.Cleanup(raw.T.Kill)
	return raw, <-opened
}

// RawServer dials a server driven by hand that has all features. again returns
// the peer of the next link.
func RawServer(t *testing.T, limits wire.Limits, o *typedrpc.DialOptions) (p *testkit.RawPeer, c *typedrpc.Conn, again func() *testkit.RawPeer) {
	t.Helper()
	peers := make(chan *testkit.RawPeer, 100)
	w := new(Town)
	w.Script = func(_ int, far *testkit.Peer) {
		if o.Dialect == typedrpc.Text {
			far.Dialect = session.JSON
		}
		if _, err := far.Until(wire.Hello); err != nil {
			return
		}
		b := wire.WelcomeBody{Token: "token", Limits: limits, Features: testkit.HandFeatures}
		far.Send(wire.Frame{Type: wire.Welcome, Payload: b.Append(nil)})
		raw := &testkit.RawPeer{Peer: far}
		peers <- raw
		raw.Collect()
	}
	if o.Dialect == typedrpc.Text {
		w.Names = func() string { return testkit.HelloProtocol }
	}
	c, err := w.TryDial(t.Context(), o)
	is.New(t).NoErr(err)
	t.Cleanup(func() { c.Close() })
	again = func() *testkit.RawPeer {
		p := <-peers
		t.Cleanup(p.T.Kill)
		return p
	}
	return again(), c, again
}
