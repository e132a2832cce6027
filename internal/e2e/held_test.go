package e2e_test

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// heldServer has handlers that keep what they are given.
func heldServer() *typedrpc.Server {
	mux := typedrpc.NewMux()
	stay := func(ctx context.Context, _ string) (struct{}, error) {
		<-ctx.Done()
		return struct{}{}, ctx.Err()
	}
	typedrpc.Handle(mux, typedrpc.NewMethod[string, struct{}]("stay"), stay)
	typedrpc.Handle(mux, typedrpc.NewMethod[string, struct{}]("serial", typedrpc.Serial), stay)
	typedrpc.Handle(mux, typedrpc.NewNotification[string]("note"), func(ctx context.Context, v string) error {
		<-ctx.Done()
		runtime.KeepAlive(v)
		return nil
	})
	typedrpc.Handle(mux, typedrpc.NewClientStream[string, string, string]("deaf"), func(ctx context.Context, _ string, _ iter.Seq2[string, error]) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	})
	typedrpc.Handle(mux, typedrpc.NewMethod[int, string]("big"), func(_ context.Context, n int) (string, error) { return strings.Repeat("x", n), nil })
	theirs := typedrpc.NewMethod[string, string]("theirs")
	typedrpc.Handle(mux, typedrpc.NewMethod[int, struct{}]("back"), func(ctx context.Context, n int) (struct{}, error) {
		var all []*typedrpc.Future[string]
		for range n {
			all = append(all, typedrpc.Go(ctx, typedrpc.ConnFrom(ctx), theirs, ""))
		}
		<-ctx.Done()
		runtime.KeepAlive(all)
		return struct{}{}, ctx.Err()
	})
	return &typedrpc.Server{Mux: mux, MaxMemory: 4 << 30, Logger: slog.New(slog.DiscardHandler)}
}

// heldWay is one way to make a server hold something.
type heldWay struct {
	name    string
	in      int // how many of the dialects: the binary one, with HELLO, plain
	peers   int
	least   int      // bytes that all of it has at least
	feature []string // nil: HandFeatures
	over    bool     // more may be counted: a goroutine whose handler does more has a larger stack
	prepare func(p *testkit.Peer) error
	fill    func(p *testkit.Peer) error
}

func call(id uint64, method, payload string) wire.Frame {
	return wire.Frame{Type: wire.Call, ID: id, Method: method, Payload: []byte(payload)}
}

// sends is n frames, each in a message of its own.
func sends(n int, frame func(i int) wire.Frame) func(p *testkit.Peer) error {
	return func(p *testkit.Peer) error {
		for i := range n {
			f := frame(i)
			if p.Dialect == session.Plain && f.Type == wire.Call {
				f.RawID = []byte("1")
			}
			if err := p.Send(f); err != nil {
				return err
			}
		}
		return nil
	}
}

func noteOf(n int) func(int) wire.Frame {
	payload := testkit.Quoted(n)
	return func(int) wire.Frame { return wire.Frame{Type: wire.Notify, Method: "note", Payload: payload} }
}

func stays(method string, n int) func(int) wire.Frame {
	payload := string(testkit.Quoted(n))
	return func(i int) wire.Frame { return call(uint64(i+1), method, payload) }
}

// replies asks for n replies of so many bytes, which nobody reads. The first of all
// fills the path and is not the server's any more, the second is being written.
func replies(n int, id uint64, bytes string) func(p *testkit.Peer) error {
	return sends(n, func(i int) wire.Frame { return call(id+uint64(i), "big", bytes) })
}

var heldWays = []heldWay{
	{name: "large notifications", in: 3, peers: 12, least: 24e6, fill: sends(2, noteOf(1_000_000))},
	{name: "notifications of a size just beyond a power of two", in: 2, peers: 100, least: 10e6, fill: sends(3, noteOf(35_000))},
	{name: "small notifications", in: 3, peers: 60, least: 2e6, fill: sends(300, noteOf(100))},
	{name: "large calls", in: 3, peers: 12, least: 24e6, fill: sends(2, stays("stay", 1_000_000))},
	{name: "calls of a size just beyond a power of two", in: 3, peers: 60, least: 10e6, fill: sends(5, stays("stay", 35_000))},
	{name: "small calls", in: 3, over: true, peers: 60, least: 1e4, fill: sends(50, stays("stay", 10))},
	{name: "calls with much metadata", in: 2, peers: 20, least: 8e6, fill: sends(5, func(i int) wire.Frame {
		f := stays("stay", 10)(i)
		f.Meta = pairs(1600)
		return f
	})},
	{name: "calls that wait for the lane", in: 3, peers: 12, least: 48e6, fill: sends(4, stays("serial", 1_000_000))},
	{name: "items that nobody takes", in: 2, peers: 30, least: 15e6, fill: func(p *testkit.Peer) error {
		for id := range uint64(10) {
			f := call(id+1, "deaf", `""`)
			f.Kind = wire.ClientStream
			item := wire.Frame{Type: wire.Item, Flags: wire.FromCaller, ID: id + 1, Payload: testkit.Quoted(50_000)}
			if err := p.Send(f, item); err != nil {
				return err
			}
		}
		return nil
	}},
	{name: "a large item that nobody takes", in: 2, peers: 20, least: 20e6, fill: func(p *testkit.Peer) error {
		f := call(1, "deaf", `""`)
		f.Kind = wire.ClientStream
		return p.Send(f, wire.Frame{Type: wire.Item, Flags: wire.FromCaller, ID: 1, Payload: testkit.Quoted(1_000_000)})
	}},
	{name: "half a message in fragments", in: 1, peers: 20, least: 30e6, fill: func(p *testkit.Peer) error {
		f := call(1, "stay", string(testkit.Quoted(100_000)))
		f.Flags = wire.More
		if err := p.Send(f); err != nil {
			return err
		}
		return sends(16, func(int) wire.Frame {
			return wire.Frame{Type: wire.Chunk, Flags: wire.More | wire.FromCaller, ID: 1, Payload: testkit.Quoted(100_000)}
		})(p)
	}},
	{name: "replies that are not read", in: 3, peers: 8, least: 14e6, prepare: replies(1, 1, "600000"), fill: replies(2, 2, "900000")},
	{name: "replies that are not read, of a session that goes on", in: 2, feature: testkit.EveryFeature, peers: 8, least: 14e6, prepare: replies(1, 1, "600000"), fill: replies(2, 2, "900000")},
	{name: "answers to calls of handlers", in: 2, peers: 12, least: 24e6, prepare: sends(1, func(int) wire.Frame { return call(1, "back", "4") }), fill: sends(4, func(i int) wire.Frame {
		return wire.Frame{Type: wire.Result, ID: uint64(i + 1), Payload: testkit.Quoted(500_000)}
	})},
	{name: "answers to calls of handlers, with much metadata", in: 2, peers: 12, least: 8e6, prepare: sends(1, func(int) wire.Frame { return call(1, "back", "8") }), fill: sends(8, func(i int) wire.Frame {
		return wire.Frame{Type: wire.Result, ID: uint64(i + 1), Payload: testkit.Quoted(10), Meta: pairs(1600)}
	})},
	{name: "failures of calls of handlers", in: 2, peers: 12, least: 24e6, prepare: sends(1, func(int) wire.Frame { return call(1, "back", "40") }), fill: sends(40, func(i int) wire.Frame {
		return wire.Frame{Type: wire.Fail, ID: uint64(i + 1), Code: 9, Message: "no", Payload: testkit.Quoted(60_000)}
	})},
	{name: "half a notification with much metadata", in: 1, peers: 80, least: 7e6, fill: sends(1, func(int) wire.Frame {
		return wire.Frame{Type: wire.Notify, Flags: wire.More, Method: "note", Payload: testkit.Quoted(10), Meta: pairs(1600)}
	})},
	// the last, because what it leaves takes the collector several turns
	{name: "calls of handlers that were refused", in: 2, peers: 6, least: 25e6, fill: sends(1, func(int) wire.Frame { return call(1, "back", "5000") })},
}

func pairs(n int) map[string]string {
	meta := map[string]string{}
	for k := range n {
		meta[fmt.Sprint("k", k)] = fmt.Sprint(k)
	}
	return meta
}

// What peers make a server hold is counted as what it takes in memory, within a
// factor of a half, however it is held.
func TestHeld_countedAsWhatItTakes(t *testing.T) {
	for _, w := range heldWays {
		t.Run(w.name, func(t *testing.T) {
			for i, offer := range []string{testkit.BinaryProtocol, testkit.HelloProtocol, ""}[:w.in] {
				t.Run([]string{"binary", "text", "plain"}[i], func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { weigh(t, w, offer) })
				})
			}
		})
	}
}

func weigh(t *testing.T, w heldWay, offer string) {
	is := is.New(t)
	srv := heldServer()
	var all []*testkit.Peer
	peers := testkit.Crowd(w.peers, w.peers, max(w.peers/6, 1))
	for range peers {
		p, err := testkit.Join(srv, offer)
		is.NoErr(err)
		defer p.T.Kill()
		all = append(all, p)
		if offer == "" {
			continue
		}
		h := testkit.HelloOf(1)
		if h.Features = w.feature; h.Features == nil {
			h.Features = testkit.HandFeatures
		}
		is.NoErr(p.Send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
		_, err = p.Until(wire.Welcome)
		is.NoErr(err)
		is.NoErr(p.Send(wire.Frame{Type: wire.Ack}))
	}
	act := func(what func(p *testkit.Peer) error) (heap, counted int64) {
		for _, p := range all {
			if what != nil {
				is.NoErr(what(p))
			}
			synctest.Wait()
		}
		runtime.GC() // twice: the first one moves what pools hold aside
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc + m.StackInuse), hook.Server(srv).Budget
	}
	heap, counted := act(w.prepare)
	heapFull, countedFull := act(w.fill)
	heap, counted = heapFull-heap, countedFull-counted
	t.Logf("%d bytes are held, and %d counted", heap, counted)
	const slack = 2 << 20
	is.True(max(heap, counted) >= int64(w.least/w.peers*peers)) // the attack was made; of the heap, something older may have gone
	is.True(heap <= counted*3/2+slack)                          // all that is held is counted
	is.True(w.over || counted <= (heap+slack)*3/2)              // and not much else
	for _, p := range all {
		p.T.Kill()
	}
	time.Sleep(time.Minute) // grace
	synctest.Wait()
	s := hook.Server(srv)
	is.Equal(s.Budget, int64(0)) // all of it is given back …
	is.Equal(s.Left, int64(0))   // … by those who took it
}

// What the futures of a handler take counts for as long as the program has them, and no
// longer than a handler runs.
func TestHeld_futures(t *testing.T) {
	for _, test := range []struct {
		name    string
		refused bool
		each    int64 // bytes that one counts, and takes at most
	}{
		{"of calls", false, 3 << 9},
		{"of a context that had ended", true, 1 << 9},
	} {
		t.Run(test.name, func(t *testing.T) { heldFutures(t, test.refused, test.each) })
	}
}

func heldFutures(t *testing.T, refused bool, each int64) {
	is := is.New(t)
	const many = 1000
	theirs := typedrpc.NewMethod[string, string]("theirs")
	drop := make(chan bool)
	made := make(chan int64) // bytes of the heap for one
	mux := typedrpc.NewMux()
	back := typedrpc.NewMethod[struct{}, struct{}]("back")
	typedrpc.Handle(mux, back, func(ctx context.Context, _ struct{}) (struct{}, error) {
		conn := typedrpc.ConnFrom(ctx)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		if refused {
			cancel()
		}
		all := make([]*typedrpc.Future[string], 0, many)
		before, _ := held()
		for range many {
			f := typedrpc.Go(ctx, conn, theirs, "")
			<-f.Done()
			all = append(all, f)
		}
		after, _ := held()
		made <- int64(after-before) / many
		<-drop
		runtime.KeepAlive(all)
		all = nil
		made <- 0
		<-drop
		return struct{}{}, nil
	})
	srv := &typedrpc.Server{Mux: mux, Logger: slog.New(slog.DiscardHandler)}
	client, _ := typedrpctest.Pair(t, srv, nil)
	f := typedrpc.Go(t.Context(), client, back, struct{}{})
	counted := func() int64 { return hook.Server(srv).Budget }
	took := <-made
	is.True(testkit.Race || took <= each)
	runtime.GC()
	is.True(counted() >= many*each) // they are there, answered or not
	drop <- true
	<-made
	for i := 0; i < 1000 && counted() >= many*each/2; i++ {
		runtime.GC()
		runtime.Gosched()
	}
	is.True(counted() < many*each/2) // they were dropped
	drop <- true
	_, err := f.Await(t.Context())
	is.NoErr(err)
}
