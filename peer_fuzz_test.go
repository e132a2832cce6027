package typedrpc

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/typedrpc/typedrpc/internal/session"
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

// script reads a byte string, which never ends.
type script struct{ data []byte }

func (s *script) more() bool { return len(s.data) > 0 }

func (s *script) byte() byte {
	if len(s.data) == 0 {
		return 0
	}
	b := s.data[0]
	s.data = s.data[1:]
	return b
}

func (s *script) bytes(n int) []byte {
	n = min(n, len(s.data))
	b := s.data[:n]
	s.data = s.data[n:]
	return b
}

// number is small, or one of those that hurt.
func (s *script) number() uint64 {
	b := s.byte()
	if b < 240 {
		return uint64(b % 16)
	}
	return []uint64{1 << 31, 1 << 32, 1<<53 + 1, 1<<63 - 1, 1 << 63, 1<<64 - 1, 1 << 40, 255}[b%8]
}

var fuzzNames = []string{"lab.echo", "lab.hang", "lab.note", "nested.ping", "lane.serial", "nobody", "rpc.reserved"}

func (s *script) frame(op byte) wire.Frame {
	payload := func() []byte {
		return [][]byte{nil, []byte("1"), []byte("{}"), []byte(`"text"`), []byte("[3]"), []byte("null"), []byte("nonsense")}[s.byte()%7]
	}
	name := func() string { return fuzzNames[int(s.byte())%len(fuzzNames)] }
	switch op {
	case 1:
		return wire.Frame{
			Type: wire.Call, ID: s.number(), Method: name(), Payload: payload(), TimeLeft: s.number(),
			Flags: wire.Flags(s.byte()) & (wire.Lane | wire.NoItems), Kind: wire.Kind(s.byte() % 4),
		}
	case 2:
		if s.byte()%2 == 0 {
			return wire.Frame{Type: wire.Result, ID: s.number(), Payload: payload()}
		}
		return wire.Frame{
			Type: wire.Fail, ID: s.number(), Code: int64(s.number()), Message: "fuzzed", RetryAfter: s.number(),
			Flags: wire.Flags(s.byte()) & wire.NotRun, Payload: payload(),
		}
	case 3:
		return wire.Frame{Type: wire.Cancel, ID: s.number()}
	case 4:
		return wire.Frame{Type: wire.Notify, Method: name(), Payload: payload()}
	case 5:
		return wire.Frame{Type: wire.Credit, ID: s.number(), Items: s.number(), Window: s.number()}
	case 6:
		return wire.Frame{Type: []wire.Type{wire.Ping, wire.Ack}[s.byte()%2], Position: s.number()}
	case 7:
		b := wire.GoAwayBody{Reason: "fuzzed", Min: s.number(), Max: s.number()}
		return wire.Frame{Type: wire.GoAway, Payload: b.Append(nil)}
	case 10:
		return wire.Frame{Type: []wire.Type{wire.Item, wire.End, wire.Chunk, wire.Hello, wire.Welcome}[s.byte()%5], ID: s.number(), Payload: payload()}
	}
	return wire.Frame{Type: wire.Auth, Payload: []byte("{}")}
}

func misbehave(t *testing.T, data []byte) {
	s := &script{data}
	mode := s.byte()
	mux := pingPong()
	Handle(mux, labEcho, func(_ context.Context, n int) (int, error) { return n, nil })
	Handle(mux, labHang, func(ctx context.Context, _ Empty) (Empty, error) { <-ctx.Done(); return Empty{}, ctx.Err() })
	Handle(mux, laneSerial, func(_ context.Context, n int) (int, error) { return n, nil })
	HandleNotification(mux, labNote, func(context.Context, int) {})
	limits := Limits{MaxCalls: 4, Window: 200, MaxMessage: 1000, MaxBuffered: 2000}
	quiet := slog.New(slog.DiscardHandler)

	var p *wirePeer
	var conn *Conn
	switch dialect := []Dialect{Binary, JSONRPC, PlainJSONRPC}[mode%3]; {
	case mode%6 < 3: // the peer is a client
		srv := &Server{Mux: mux, Limits: limits, Logger: quiet, MaxPlainConns: 1}
		opened := make(chan *Conn, 1)
		srv.OnConnect = func(c *Conn) { opened <- c }
		var err error
		if p, err = join(srv, []string{codecProtocol(JSON), helloProtocol, ""}[dialect]); err != nil {
			t.Fatal(err)
		}
		if dialect != PlainJSONRPC {
			if _, err := p.hello(); err != nil {
				t.Fatal(err)
			}
		}
		conn = <-opened
	default: // the peer is a server
		peers := make(chan *wirePeer, 1)
		w := new(town)
		w.script = func(n int, far *wirePeer) {
			far.dialect = []session.Dialect{session.Binary, session.JSON, session.Plain}[dialect]
			if dialect != PlainJSONRPC {
				far.welcome()
			}
			if n == 1 {
				peers <- far
				return
			}
			far.closeCode() // the next links are dull
		}
		w.names = func() string { return []string{codecProtocol(JSON), helloProtocol, ""}[dialect] }
		var err error
		conn, err = w.tryDial(t.Context(), &DialOptions{Dialect: dialect, Mux: mux, Limits: limits, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		p = <-peers
	}
	p.play(t.Context(), s, conn)
	p.t.Kill()
	conn.Close()
	<-conn.Done()
	time.Sleep(time.Minute) // goodbyes, lingering writers
}

// play makes the peer do what the script says.
func (p *wirePeer) play(ctx context.Context, s *script, conn *Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for s.more() {
		switch op := s.byte() % 14; op {
		case 0:
			if p.write(s.bytes(int(s.byte()))) != nil {
				return
			}
		case 8:
			time.Sleep(time.Duration(s.byte()) * 100 * time.Millisecond)
		case 9: // read what there is
			reader := make(chan struct{})
			go func() { p.next(); close(reader) }()
			select {
			case <-reader:
			case <-time.After(time.Minute):
				p.t.Kill()
				<-reader
				return
			}
		case 11:
			p.t.Close(4000+int(s.byte()), "fuzzed")
			return
		case 13: // the other side does something
			switch s.byte() % 4 {
			case 0:
				Go(ctx, conn, labEcho, 1)
			case 1:
				Go(ctx, conn, labHangTwice, Empty{})
			case 2:
				go Notify(ctx, conn, labNote, 1)
			case 3:
				Go(ctx, conn, labHang, Empty{}).Cancel()
			}
		default:
			n := 1 + int(s.byte()%3)
			var fs []wire.Frame
			for range n {
				fs = append(fs, s.frame(op))
			}
			msg, err := p.encode(fs)
			if err != nil {
				continue // our own encoder knows better than to say that
			}
			if p.write(msg) != nil {
				return
			}
		}
	}
}
