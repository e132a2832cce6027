package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// stall is a server with a bidirectional stream that does not read, and small
// limits, and a client driven by hand that has called it.
func stall(t *testing.T, d typedrpc.Dialect) (p *testkit.RawPeer, c *typedrpc.Conn) {
	t.Helper()
	p, c = lab.RawClient(t, d, &typedrpc.Server{Mux: lab.Bidi(lab.Lingers), Limits: typedrpc.Limits{Window: 1000, MaxMessage: 5000, MaxBuffered: 20_000}})
	is.New(t).NoErr(p.Send(wire.Frame{Type: wire.Call, ID: 1, Kind: wire.BidiStream, Method: lab.FlowBoth.Name(), Payload: []byte(`""`)}))
	synctest.Wait()
	return p, c
}

// A peer that passes a limit of a stream fails the stream, and not the link.
func TestFlow_peerBeyondItsLimits(t *testing.T) {
	item := func(n int) wire.Frame {
		return wire.Frame{Type: wire.Item, Flags: wire.FromCaller, ID: 1, Payload: testkit.Quoted(n)}
	}
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		tests := map[string][]wire.Frame{
			"window": slices.Repeat([]wire.Frame{item(436)}, 5), // 500 each
			"size":   {item(5001)},
		}
		for name, frames := range tests {
			t.Log(name)
			is := is.New(t)
			p, c := stall(t, d)
			for _, f := range frames {
				is.Equal(len(p.Got(wire.Fail)), 0) // not yet
				is.NoErr(p.Send(f))
			}
			fs := p.Got(wire.Fail)
			is.Equal(len(fs), 1)
			is.Equal(typedrpc.Code(fs[0].Code), typedrpc.ResourceExhausted)
			is.True(p.Alive())
			is.NoErr(p.Send(frames[0])) // for an ended stream: dropped
			is.True(p.Alive())
			lab.Settled(t, c)
			p.T.Kill()
		}
	})
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) { // at the caller
		is := is.New(t)
		p, c, _ := lab.RawServer(t, testkit.Roomy, &typedrpc.DialOptions{Dialect: d, Limits: typedrpc.Limits{Window: 1000, MaxMessage: 5000}})
		for name, sizes := range map[string][]int{"window": {436, 436, 436, 436, 436}, "size": {5001}} {
			stream, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
			is.NoErr(err)
			id := p.Got(wire.Call)[0].ID
			for _, n := range sizes {
				is.NoErr(p.Send(wire.Frame{Type: wire.Item, ID: id, Payload: testkit.Quoted(n)}))
			}
			is.Equal(len(p.Got(wire.Cancel)), 1) // it is told
			_, err = stream.Recv()
			t.Log(name, err)
			is.True(errors.Is(err, typedrpc.ResourceExhausted))
			is.NoErr(p.Send(wire.Frame{Type: wire.Item, ID: id, Payload: testkit.Quoted(10)})) // crossed the CANCEL
			is.NoErr(p.Send(wire.Frame{Type: wire.Fail, ID: id, Code: 1}))
			lab.Settled(t, c)
		}
		is.True(p.Alive())
	})
}

func TestFlow_creditForWhatWasNotSent(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		p, _ := stall(t, d)
		is.NoErr(p.Send(wire.Frame{Type: wire.Credit, Flags: wire.FromCaller, ID: 1, Items: 1}))
		is.True(!p.Alive()) // a protocol error
		is.Equal(p.Closed(), session.CloseProtocol)
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
		testkit.Bubble(t, name, func(t *testing.T, is *is.I) {
			mux := typedrpc.NewMux()
			typedrpc.Handle(mux, lab.FlowDown, func(ctx context.Context, n int, _ func(string) error) error {
				if n == 1 {
					<-ctx.Done()
				}
				return nil
			})
			p, c := lab.RawClient(t, typedrpc.Binary, &typedrpc.Server{Mux: mux})
			for id := range uint64(2) {
				is.NoErr(p.Send(wire.Frame{
					Type: wire.Call, ID: id + 1, Kind: wire.ServerStream, Flags: wire.NoItems, Method: lab.FlowDown.Name(),
					Payload: fmt.Append(nil, id+1),
				}))
			}
			is.Equal(len(p.Got(wire.Result)), 1)
			for range 3000 / 30 { // more than a burst
				if p.Send(slices.Repeat([]wire.Frame{tt.frame}, 30)...) != nil {
					break
				}
			}
			is.Equal(!p.Alive(), tt.offence)
			if !tt.offence {
				is.NoErr(p.Send(wire.Frame{Type: wire.Cancel, Flags: wire.FromCaller, ID: 1}))
				lab.Settled(t, c)
			}
		})
	}
}

// A peer that has not announced streams is asked for none, and its own are
// refused.
func TestFlow_peerWithoutStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		opened := make(chan *typedrpc.Conn, 1)
		srv := &typedrpc.Server{Mux: lab.Bidi(lab.EchoItems), OnConnect: func(c *typedrpc.Conn) { opened <- c }}
		p, err := testkit.Join(srv, testkit.BinaryProtocol)
		is.NoErr(err)
		_, err = p.Hello() // without features
		is.NoErr(err)
		raw := &testkit.RawPeer{Peer: p}
		go raw.Collect()
		defer p.T.Kill()
		s := <-opened
		stream, err := typedrpc.Open(t.Context(), s, lab.FlowBoth, "")
		if err == nil {
			_, err = stream.Recv()
		}
		is.True(errors.Is(err, typedrpc.Unimplemented))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: 1, Kind: wire.BidiStream, Method: lab.FlowBoth.Name(), Payload: []byte(`""`)}))
		fs := raw.Got(wire.Fail)
		is.Equal(len(fs), 1)
		is.Equal(typedrpc.Code(fs[0].Code), typedrpc.Unimplemented)
		is.True(fs[0].Flags&wire.NotRun != 0)
		is.True(raw.Alive())
		is.NoErr(p.Send(wire.Frame{Type: wire.Notify, Method: "n", Flags: wire.More, Payload: []byte("1")}))
		is.True(!raw.Alive()) // MORE where fragments were not announced
	})
}
