package typedrpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/matryer/is"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// rawPeer is a peer driven by hand whose frames are collected as they come.
type rawPeer struct {
	*wirePeer
	mu   sync.Mutex
	seen []wire.Frame
	end  error
}

// collect reads until the link ends.
func (p *rawPeer) collect() {
	for {
		f, err := p.next()
		p.mu.Lock()
		if err != nil {
			p.end = err
			p.mu.Unlock()
			return
		}
		p.seen = append(p.seen, f)
		p.mu.Unlock()
		if f.Type == wire.Ping {
			p.send(wire.Frame{Type: wire.Ack, Position: p.counted})
		}
	}
}

// got waits until nothing moves and returns what has come of some types since
// the last time; PING and ACK are never among them.
func (p *rawPeer) got(types ...wire.Type) (fs []wire.Frame) {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.seen {
		for _, typ := range types {
			if f.Type == typ {
				fs = append(fs, f)
			}
		}
	}
	p.seen = nil
	return fs
}

// alive reports whether the link is.
func (p *rawPeer) alive() bool {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.end == nil
}

// closed is the code that the link was closed with; 0: none.
func (p *rawPeer) closed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	var ce *link.CloseError
	if errors.As(p.end, &ce) {
		return ce.Code
	}
	return 0
}

// handFeatures are what peers driven by hand announce.
var handFeatures = []string{"streams", "fragments"}

// rawClient joins srv as a client driven by hand that has all features.
func rawClient(t *testing.T, d Dialect, srv *Server) (*rawPeer, *Conn) {
	t.Helper()
	is := is.New(t)
	opened := make(chan *Conn, 1)
	srv.OnConnect = func(c *Conn) { opened <- c }
	if srv.Logger == nil {
		srv.Logger = slog.New(slog.DiscardHandler)
	}
	p, err := join(srv, []string{codecProtocol(JSON), helloProtocol}[d])
	is.NoErr(err)
	h := wire.HelloBody{Attempt: 1, Limits: roomy, Features: handFeatures}
	is.NoErr(p.send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
	_, err = p.until(wire.Welcome)
	is.NoErr(err)
	is.NoErr(p.send(wire.Frame{Type: wire.Ack}))
	raw := &rawPeer{wirePeer: p}
	go raw.collect()
	t.Cleanup(raw.t.Kill)
	return raw, <-opened
}

// rawServer dials a server driven by hand that has all features. again returns
// the peer of the next link.
func rawServer(t *testing.T, limits wire.Limits, o *DialOptions) (p *rawPeer, c *Conn, again func() *rawPeer) {
	t.Helper()
	peers := make(chan *rawPeer, 100)
	w := new(town)
	w.script = func(_ int, far *wirePeer) {
		if o.Dialect == JSONRPC {
			far.dialect = session.JSON
		}
		if _, err := far.until(wire.Hello); err != nil {
			return
		}
		b := wire.WelcomeBody{Token: "token", Limits: limits, Features: handFeatures}
		far.send(wire.Frame{Type: wire.Welcome, Payload: b.Append(nil)})
		raw := &rawPeer{wirePeer: far}
		peers <- raw
		raw.collect()
	}
	if o.Dialect == JSONRPC {
		w.names = func() string { return helloProtocol }
	}
	c, err := w.tryDial(t.Context(), o)
	is.New(t).NoErr(err)
	t.Cleanup(func() { c.Close() })
	again = func() *rawPeer {
		p := <-peers
		t.Cleanup(p.t.Kill)
		return p
	}
	return again(), c, again
}

// stall is a server with a bidirectional stream that does not read, and small
// limits, and a client driven by hand that has called it.
func stall(t *testing.T, d Dialect) (p *rawPeer, c *Conn) {
	t.Helper()
	p, c = rawClient(t, d, &Server{Mux: bidi(lingers), Limits: Limits{Window: 1000, MaxMessage: 5000, MaxBuffered: 20_000}})
	is.New(t).NoErr(p.send(wire.Frame{Type: wire.Call, ID: 1, Kind: wire.BidiStream, Method: flowBoth.Name(), Payload: []byte(`""`)}))
	synctest.Wait()
	return p, c
}

// A peer that passes a limit of a stream fails the stream, and not the link.
func TestFlow_peerBeyondItsLimits(t *testing.T) {
	item := func(n int) wire.Frame {
		return wire.Frame{Type: wire.Item, Flags: wire.FromCaller, ID: 1, Payload: quoted(n)}
	}
	bothDialects(t, func(t *testing.T, d Dialect) {
		tests := map[string][]wire.Frame{
			"window": slices.Repeat([]wire.Frame{item(436)}, 5), // 500 each
			"size":   {item(5001)},
		}
		for name, frames := range tests {
			t.Log(name)
			is := is.New(t)
			p, c := stall(t, d)
			for _, f := range frames {
				is.Equal(len(p.got(wire.Fail)), 0) // not yet
				is.NoErr(p.send(f))
			}
			fs := p.got(wire.Fail)
			is.Equal(len(fs), 1)
			is.Equal(Code(fs[0].Code), ResourceExhausted)
			is.True(p.alive())
			is.NoErr(p.send(frames[0])) // for an ended stream: dropped
			is.True(p.alive())
			settled(t, c)
			p.t.Kill()
		}
	})
	bothDialects(t, func(t *testing.T, d Dialect) { // at the caller
		is := is.New(t)
		p, c, _ := rawServer(t, roomy, &DialOptions{Dialect: d, Limits: Limits{Window: 1000, MaxMessage: 5000}})
		for name, sizes := range map[string][]int{"window": {436, 436, 436, 436, 436}, "size": {5001}} {
			stream, err := Open(t.Context(), c, flowBoth, "")
			is.NoErr(err)
			id := p.got(wire.Call)[0].ID
			for _, n := range sizes {
				is.NoErr(p.send(wire.Frame{Type: wire.Item, ID: id, Payload: quoted(n)}))
			}
			is.Equal(len(p.got(wire.Cancel)), 1) // it is told
			_, err = stream.Recv()
			t.Log(name, err)
			is.True(errors.Is(err, ResourceExhausted))
			is.NoErr(p.send(wire.Frame{Type: wire.Item, ID: id, Payload: quoted(10)})) // crossed the CANCEL
			is.NoErr(p.send(wire.Frame{Type: wire.Fail, ID: id, Code: 1}))
			settled(t, c)
		}
		is.True(p.alive())
	})
}

func TestFlow_creditForWhatWasNotSent(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		p, _ := stall(t, d)
		is.NoErr(p.send(wire.Frame{Type: wire.Credit, Flags: wire.FromCaller, ID: 1, Items: 1}))
		is.True(!p.alive()) // a protocol error
		is.Equal(p.closed(), session.CloseProtocol)
	})
}

// Frames for calls that never were are offences; for ended ones, and those
// that have no business, too many are needed for nothing.
func TestFlow_framesForNobody(t *testing.T) {
	frames := map[string]struct {
		frame   wire.Frame
		offence bool
	}{
		"item, never called":     {wire.Frame{Type: wire.Item, Flags: wire.FromCaller, ID: 99, Payload: []byte("1")}, true},
		"item, never was called": {wire.Frame{Type: wire.Item, ID: 99, Payload: []byte("1")}, true},
		"end, never called":      {wire.Frame{Type: wire.End, Flags: wire.FromCaller, ID: 99}, true},
		"credit, never called":   {wire.Frame{Type: wire.Credit, Flags: wire.FromCaller, ID: 99, Items: 1}, true},
		"chunk, never called":    {wire.Frame{Type: wire.Chunk, Flags: wire.FromCaller, ID: 99, Payload: []byte("1")}, true},
		"result, never called":   {wire.Frame{Type: wire.Result, Flags: wire.More, ID: 99, Payload: []byte("1")}, true},
		"item of a server stream's caller": {
			wire.Frame{Type: wire.Item, Flags: wire.FromCaller, ID: 1, Payload: []byte("1")}, true,
		},
		"end of a server stream's caller": {wire.Frame{Type: wire.End, Flags: wire.FromCaller, ID: 1}, true},
		"item, ended":                     {wire.Frame{Type: wire.Item, Flags: wire.FromCaller, ID: 2, Payload: []byte("1")}, false},
		"end, ended":                      {wire.Frame{Type: wire.End, Flags: wire.FromCaller, ID: 2}, false},
		"credit, ended":                   {wire.Frame{Type: wire.Credit, Flags: wire.FromCaller, ID: 2, Items: 1}, false},
		"chunk, ended":                    {wire.Frame{Type: wire.Chunk, Flags: wire.FromCaller, ID: 2, Payload: []byte("1")}, false},
	}
	for name, tt := range frames {
		bubble(t, name, func(t *testing.T, is *is.I) {
			mux := NewMux()
			HandleServerStream(mux, flowDown, func(ctx context.Context, n int, _ func(string) error) error {
				if n == 1 {
					<-ctx.Done()
				}
				return nil
			})
			p, c := rawClient(t, Binary, &Server{Mux: mux})
			for id := range uint64(2) {
				is.NoErr(p.send(wire.Frame{
					Type: wire.Call, ID: id + 1, Kind: wire.ServerStream, Flags: wire.NoItems, Method: flowDown.Name(),
					Payload: fmt.Append(nil, id+1),
				}))
			}
			is.Equal(len(p.got(wire.Result)), 1)
			for range 3000 / 30 { // more than a burst
				if p.send(slices.Repeat([]wire.Frame{tt.frame}, 30)...) != nil {
					break
				}
			}
			is.Equal(!p.alive(), tt.offence)
			if !tt.offence {
				is.NoErr(p.send(wire.Frame{Type: wire.Cancel, Flags: wire.FromCaller, ID: 1}))
				settled(t, c)
			}
		})
	}
}

// A peer that has not announced streams is asked for none, and its own are
// refused.
func TestFlow_peerWithoutStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		opened := make(chan *Conn, 1)
		srv := &Server{Mux: bidi(echoItems), OnConnect: func(c *Conn) { opened <- c }}
		p, err := join(srv, codecProtocol(JSON))
		is.NoErr(err)
		_, err = p.hello() // without features
		is.NoErr(err)
		raw := &rawPeer{wirePeer: p}
		go raw.collect()
		defer p.t.Kill()
		s := <-opened
		stream, err := Open(t.Context(), s, flowBoth, "")
		if err == nil {
			_, err = stream.Recv()
		}
		is.True(errors.Is(err, Unimplemented))
		is.Equal(OutcomeOf(err), NotSent)
		is.NoErr(p.send(wire.Frame{Type: wire.Call, ID: 1, Kind: wire.BidiStream, Method: flowBoth.Name(), Payload: []byte(`""`)}))
		fs := raw.got(wire.Fail)
		is.Equal(len(fs), 1)
		is.Equal(Code(fs[0].Code), Unimplemented)
		is.True(fs[0].Flags&wire.NotRun != 0)
		is.True(raw.alive())
		is.NoErr(p.send(wire.Frame{Type: wire.Notify, Method: "n", Flags: wire.More, Payload: []byte("1")}))
		is.True(!raw.alive()) // MORE where fragments were not announced
	})
}
