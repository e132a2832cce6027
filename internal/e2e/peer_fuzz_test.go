package e2e_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// FuzzPeer drives a misbehaving peer from a byte string against a live Conn:
// it must not panic, must not hang, and its goroutines must end, which the
// bubble sees to.
func FuzzPeer(f *testing.F) {
	for mode := range byte(6) {
		f.Add([]byte{mode, 0, 1, 1, 1, 2, 1, 3, 4, 1, 5, 2, 9, 6, 0})
		f.Add([]byte{mode, 13, 0, 13, 1, 2, 1, 2, 1, 2, 2, 8, 7, 13, 2, 8, 8})
		f.Add([]byte{mode, 1, 6, 2, 8, 1, 7, 3, 3, 4, 0, 4, 1, 4, 2, 5, 1, 5, 200, 9, 10, 1, 10, 2, 10, 3, 12, 11, 0})
		f.Add([]byte{mode, 0, 5, 'h', 'e', 'l', 'l', 'o', 9, 9})
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4096 {
			return
		}
		synctest.Test(t, func(t *testing.T) { misbehave(t, data) })
	})
}

func misbehave(t *testing.T, data []byte) {
	s := &testkit.Script{Data: data}
	mode := s.Byte()
	mux := lab.PingPong()
	typedrpc.Handle(mux, lab.Echo, func(_ context.Context, n int) (int, error) { return n, nil })
	typedrpc.Handle(mux, lab.Hang, func(ctx context.Context, _ struct{}) (struct{}, error) {
		<-ctx.Done()
		return struct{}{}, ctx.Err()
	})
	typedrpc.Handle(mux, lab.LaneSerial, func(_ context.Context, n int) (int, error) { return n, nil })
	typedrpc.Handle(mux, lab.Note, func(context.Context, int) error { return nil })
	limits := typedrpc.Limits{MaxCalls: 4, Window: 200, MaxMessage: 1000, MaxBuffered: 2000}
	quiet := slog.New(slog.DiscardHandler)

	var p *testkit.Peer
	var conn *typedrpc.Conn
	switch dialect := []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text, typedrpc.JSONRPC}[mode%3]; {
	case mode%6 < 3: // the peer is a client
		srv := &typedrpc.Server{Mux: mux, Limits: limits, Logger: quiet, MaxPlainConns: 1}
		opened := make(chan *typedrpc.Conn, 1)
		srv.OnConnect = func(c *typedrpc.Conn) { opened <- c }
		var err error
		if p, err = testkit.Join(srv, []string{testkit.BinaryProtocol, testkit.HelloProtocol, ""}[dialect]); err != nil {
			t.Fatal(err)
		}
		if dialect != typedrpc.JSONRPC {
			if _, err := p.Hello(); err != nil {
				t.Fatal(err)
			}
		}
		conn = <-opened
	default: // the peer is a server
		peers := make(chan *testkit.Peer, 1)
		w := new(lab.Town)
		w.Script = func(n int, far *testkit.Peer) {
			far.Dialect = []session.Dialect{session.Binary, session.JSON, session.Plain}[dialect]
			if dialect != typedrpc.JSONRPC {
				far.Welcome()
			}
			if n == 1 {
				peers <- far
				return
			}
			far.CloseCode() // the next links are dull
		}
		w.Names = func() string {
			return []string{testkit.BinaryProtocol, testkit.HelloProtocol, ""}[dialect]
		}
		var err error
		conn, err = w.TryDial(t.Context(), &typedrpc.DialOptions{Dialect: dialect, Mux: mux, Limits: limits, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		p = <-peers
	}
	play(t.Context(), p, s, conn)
	p.T.Kill()
	conn.Close()
	<-conn.Context().Done()
	time.Sleep(time.Minute) // goodbyes, lingering writers
}

// play makes the peer do what the script says.
func play(ctx context.Context, p *testkit.Peer, s *testkit.Script, conn *typedrpc.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for s.More() {
		switch op := s.Byte() % 14; op {
		case 0:
			if p.Write(s.Bytes(int(s.Byte()))) != nil {
				return
			}
		case 8:
			time.Sleep(time.Duration(s.Byte()) * 100 * time.Millisecond)
		case 9: // read what there is
			reader := make(chan struct{})
			go func() { p.Next(); close(reader) }()
			select {
			case <-reader:
			case <-time.After(time.Minute):
				p.T.Kill()
				<-reader
				return
			}
		case 11:
			p.T.Close(4000+int(s.Byte()), "fuzzed")
			return
		case 13: // the other side does something
			switch s.Byte() % 4 {
			case 0:
				typedrpc.Go(ctx, conn, lab.Echo, 1)
			case 1:
				typedrpc.Go(ctx, conn, lab.HangTwice, struct{}{})
			case 2:
				go typedrpc.Notify(ctx, conn, lab.Note, 1)
			case 3:
				typedrpc.Go(ctx, conn, lab.Hang, struct{}{}).Cancel()
			}
		default:
			n := 1 + int(s.Byte()%3)
			var fs []wire.Frame
			for range n {
				fs = append(fs, s.Frame(op))
			}
			msg, err := p.Encode(fs)
			if err != nil {
				continue // our own encoder knows better than to say that
			}
			if p.Write(msg) != nil {
				return
			}
		}
	}
}
