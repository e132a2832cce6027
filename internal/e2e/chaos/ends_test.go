package chaos_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/topic"
)

// What the server of TestEnds_nothingIsKept offers.
var (
	endsEcho  = typedrpc.NewMethod[string, string]("ends.echo")
	endsBig   = typedrpc.NewMethod[int, string]("ends.big")
	endsPay   = typedrpc.NewMethod[string, string]("ends.pay", typedrpc.Keyed)
	endsTurn  = typedrpc.NewMethod[string, string]("ends.turn", typedrpc.Serial)
	endsBreak = typedrpc.NewMethod[bool, int]("ends.break")
	endsBack  = typedrpc.NewMethod[int, int]("ends.back")
	endsThere = typedrpc.NewMethod[string, string]("ends.there") // of the clients
	endsNote  = typedrpc.NewNotification[string]("ends.note")
	endsDown  = typedrpc.NewServerStream[int, string]("ends.down")
	endsBoth  = typedrpc.NewBidiStream[int, string, string]("ends.both")
	endsNews  = topic.New[string]("ends.news", topic.History(5, 0), topic.WithPresence)
)

// ending is one server whose connections are ended in the middle of everything.
type ending struct {
	srv  *typedrpc.Server
	next *typedrpc.Server // the one that takes its place; nil: none does
	hub  *topic.Hub
	logs lab.Logs
}

// pause is what a handler takes. Some do not look at their context.
func (d *ending) pause(ctx context.Context) error {
	if rand.IntN(8) == 0 {
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		return nil
	}
	select {
	case <-time.After(time.Duration(rand.IntN(20)) * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func newEnding(w endsWay) *ending {
	d := &ending{hub: new(topic.Hub)}
	d.srv = d.server(w)
	return d
}

func (d *ending) server(w endsWay) *typedrpc.Server {
	mux := typedrpc.NewMux()
	slow := func(ctx context.Context, s string) (string, error) { return s, d.pause(ctx) }
	typedrpc.Handle(mux, endsEcho, slow)
	typedrpc.Handle(mux, endsPay, slow)
	typedrpc.Handle(mux, endsTurn, slow)
	typedrpc.Handle(mux, endsBig, func(ctx context.Context, n int) (string, error) { return strings.Repeat("x", n), d.pause(ctx) })
	typedrpc.Handle(mux, endsBreak, func(ctx context.Context, leave bool) (int, error) {
		d.pause(ctx)
		if leave {
			runtime.Goexit()
		}
		panic("broken")
	})
	typedrpc.Handle(mux, endsBack, func(ctx context.Context, n int) (int, error) {
		var all []*typedrpc.Future[string]
		for range n {
			all = append(all, typedrpc.Go(ctx, typedrpc.ConnFrom(ctx), endsThere, strings.Repeat("w", rand.IntN(20_000))))
		}
		typedrpc.All(ctx, all...)
		return n, d.pause(ctx)
	})
	typedrpc.Handle(mux, endsNote, func(ctx context.Context, _ string) error { d.pause(ctx); return nil })
	typedrpc.Handle(mux, endsDown, func(ctx context.Context, n int, send func(string) error) error {
		for range n {
			if err := send(strings.Repeat("y", rand.IntN(9000))); err != nil {
				return err
			}
		}
		return d.pause(ctx)
	})
	typedrpc.Handle(mux, endsBoth, func(ctx context.Context, _ int, s *typedrpc.Stream[string, string]) error {
		for v, err := range s.All() {
			if err != nil {
				return err
			}
			if err := s.Send(v); err != nil {
				return err
			}
		}
		return nil
	})
	topic.Handle(mux, d.hub, endsNews, topic.Everybody)
	srv := &typedrpc.Server{
		Mux: mux, Logger: d.logs.Logger(), MaxMemory: cmp.Or(w.memory, 2<<20), MaxKept: w.kept,
		Limits: typedrpc.Limits{MaxBuffered: 256 << 10, MaxUnacked: 128 << 10, Grace: 5 * time.Second},
	}
	srv.SignIn = lab.TopicLogin.Verify(func(_ context.Context, _ *http.Request, who *string) (typedrpc.Identity, struct{}, error) {
		if who == nil { // a plain peer
			return typedrpc.Identity{Subject: "ann"}, struct{}{}, nil
		}
		return typedrpc.Identity{Subject: *who}, struct{}{}, nil
	})
	return srv
}

// act does one thing with a connection, until ctx ends or it is done.
func (d *ending) act(ctx context.Context, c *typedrpc.Conn) {
	text := strings.Repeat("z", []int{1, 100, 5000, 100_000}[rand.IntN(4)])
	switch rand.IntN(12) {
	case 0:
		typedrpc.Call(ctx, c, endsEcho, text)
	case 1:
		typedrpc.Call(ctx, c, endsBig, rand.IntN(200_000))
	case 2:
		typedrpc.Call(ctx, c, endsPay, text)
	case 3:
		typedrpc.Call(ctx, c, endsTurn, text)
	case 4:
		typedrpc.Call(ctx, c, endsBreak, rand.IntN(2) == 0)
	case 5:
		typedrpc.Notify(ctx, c, endsNote, text)
	case 6:
		for range typedrpc.Receive(ctx, c, endsDown, rand.IntN(50)) {
			if rand.IntN(30) == 0 {
				break
			}
		}
	case 7:
		s, err := typedrpc.Open(ctx, c, endsBoth, 0)
		if err != nil {
			return
		}
		defer s.Cancel()
		for range rand.IntN(20) {
			if s.Send(text[:min(len(text), 5000)]) != nil {
				return
			}
		}
		for err == nil && rand.IntN(10) > 0 {
			_, err = s.Recv()
		}
	case 8:
		for range topic.Subscribe(ctx, c, endsNews, "k") {
			if rand.IntN(10) == 0 {
				break
			}
		}
	case 9:
		topic.Publish(ctx, d.hub, endsNews, "k", text[:min(len(text), 5000)])
	case 10:
		typedrpc.Call(ctx, c, endsBack, 1+rand.IntN(5))
	case 11:
		for range topic.Watch(ctx, c, endsNews, "k") {
			if rand.IntN(3) == 0 {
				break
			}
		}
	}
}

// endsWay is one of the ways in which connections end.
type endsWay struct {
	name   string
	memory int64 // Server.MaxMemory; 0: 2 MiB
	kept   int   // Server.MaxKept
	hello  bool  // no plain peers: the pings that find out about theirs are WebSocket's
	logged string
	end    func(ctx context.Context, d *ending, w *lab.Town, conns []*typedrpc.Conn)
}

// shortly is a context that ends within some milliseconds.
func shortly(ctx context.Context, most int) context.Context {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(rand.IntN(most))*time.Millisecond)
	context.AfterFunc(ctx, cancel)
	return ctx
}

var endsWays = []endsWay{
	{name: "closed by the client", end: func(_ context.Context, _ *ending, _ *lab.Town, conns []*typedrpc.Conn) { conns[0].Close() }},
	{name: "closed by the server", end: func(_ context.Context, d *ending, _ *lab.Town, _ []*typedrpc.Conn) {
		for c := range d.srv.Conns() {
			c.Close()
		}
	}},
	{name: "revoked", end: func(_ context.Context, d *ending, _ *lab.Town, _ []*typedrpc.Conn) { d.srv.Revoke("ann", nil) }},
	{name: "shut down", end: func(ctx context.Context, d *ending, _ *lab.Town, _ []*typedrpc.Conn) {
		d.srv.Shutdown(shortly(ctx, 30))
	}},
	{name: "GOAWAY of the server", end: func(ctx context.Context, d *ending, _ *lab.Town, _ []*typedrpc.Conn) {
		for c := range d.srv.Conns() {
			go c.Shutdown(shortly(ctx, 3000))
		}
	}},
	{name: "GOAWAY of the client", end: func(ctx context.Context, _ *ending, _ *lab.Town, conns []*typedrpc.Conn) {
		conns[0].Shutdown(shortly(ctx, 3000))
	}},
	{name: "GOAWAY, and another server", end: func(ctx context.Context, d *ending, w *lab.Town, _ []*typedrpc.Conn) {
		d.next = d.server(endsWay{})
		w.Serve(d.next)
		go d.srv.Shutdown(shortly(ctx, 3000))
	}},
	{name: "cut, and comes back", end: func(_ context.Context, _ *ending, w *lab.Town, _ []*typedrpc.Conn) { w.Cable().Cut() }},
	{name: "cut, and does not", end: func(_ context.Context, _ *ending, w *lab.Town, _ []*typedrpc.Conn) {
		w.Serve(nil)
		w.Cable().Cut()
	}},
	{name: "half open", hello: true, end: func(_ context.Context, _ *ending, w *lab.Town, _ []*typedrpc.Conn) { w.Cable().Swallow() }},
	{name: "handed over again and again", end: func(_ context.Context, _ *ending, w *lab.Town, conns []*typedrpc.Conn) {
		for range 10 {
			if rand.IntN(2) == 0 {
				w.Cable().Cut()
			} else {
				conns[rand.IntN(len(conns))].Reconnect()
			}
			time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
		}
	}},
	{name: "panics", logged: "handler panicked", end: func(ctx context.Context, _ *ending, _ *lab.Town, conns []*typedrpc.Conn) {
		for i := range 20 {
			go typedrpc.Call(ctx, conns[0], endsBreak, i%2 == 0)
		}
		time.Sleep(time.Duration(1+rand.IntN(30)) * time.Millisecond)
		conns[0].Close()
	}},
	{name: "evicted, of all that there is room for", memory: 256 << 10, logged: "connection closed: of all it holds the most", end: func(ctx context.Context, _ *ending, _ *lab.Town, conns []*typedrpc.Conn) {
		for range 4 {
			for _, c := range conns {
				go typedrpc.Call(ctx, c, endsEcho, strings.Repeat("v", 60_000+rand.IntN(30_000)))
			}
		}
		time.Sleep(200 * time.Millisecond)
	}},
	{name: "evicted, of sessions without links", kept: 1, end: func(_ context.Context, _ *ending, w *lab.Town, _ []*typedrpc.Conn) {
		w.Serve(nil)
		w.Mu.Lock()
		defer w.Mu.Unlock()
		for _, l := range w.Lines {
			l.Cut()
		}
	}},
	{name: "for what it sends", end: func(_ context.Context, d *ending, _ *lab.Town, _ []*typedrpc.Conn) {
		for _, offer := range []string{testkit.BinaryProtocol, testkit.HelloProtocol, ""} {
			p, err := testkit.Join(d.srv, offer)
			if err != nil {
				return
			}
			if offer != "" {
				who := wire.HelloBody{Attempt: 1, Limits: testkit.Roomy, Features: testkit.EveryFeature, Credentials: []byte(`"ann"`)}
				p.Send(wire.Frame{Type: wire.Hello, Payload: who.Append(nil)})
				p.Until(wire.Welcome)
			}
			f := wire.Frame{Type: wire.Call, ID: 1, Method: endsEcho.Name(), Payload: testkit.Quoted(1 + rand.IntN(50_000))}
			if offer == "" {
				f.RawID = []byte("1")
			}
			p.Send(f)
			if offer == testkit.BinaryProtocol {
				f.ID, f.Flags = 2, wire.More
				p.Send(f) // and never the rest
			}
			time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
			p.Write([]byte("\xff no frame"))
			time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
			p.T.Kill()
		}
	}},
}

// However connections end, in the middle of whatever, the server holds nothing
// for them afterwards, by its own account: not a byte of what was taken was
// forgotten, and the ledger is at zero.
func TestEnds_nothingIsKept(t *testing.T) {
	logged := make([]int, len(endsWays))
	rounds := testkit.Crowd(10_000, 300, 1500)
	for round := range rounds {
		way := round % len(endsWays)
		if !t.Run(fmt.Sprint(round, " ", endsWays[way].name), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if endsRound(t, endsWays[way]) {
					logged[way]++
				}
			})
		}) {
			return
		}
	}
	for i, n := range logged {
		if w := endsWays[i]; rounds >= 100 && w.logged != "" && n == 0 {
			t.Errorf("no connection ended in this way: %s", w.name)
		}
	}
}

// endsRound reports whether the log says what it does of the way.
func endsRound(t *testing.T, way endsWay) (logged bool) {
	is := is.New(t)
	d := newEnding(way)
	ctx, cancel := context.WithCancel(t.Context())
	w := &lab.Town{Srv: d.srv}
	there := typedrpc.NewMux()
	typedrpc.Handle(there, endsThere, func(ctx context.Context, s string) (string, error) { return s + s, d.pause(ctx) })
	var conns []*typedrpc.Conn
	for range 1 + rand.IntN(3) {
		o := &typedrpc.DialOptions{
			Mux: there, Backoff: lab.Steady, Limits: typedrpc.Limits{Grace: 4 * time.Second, Window: 16 << 10},
			Dialect: []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text, typedrpc.JSONRPC}[rand.IntN(3)],
		}
		if way.hello && o.Dialect == typedrpc.JSONRPC {
			o.Dialect = typedrpc.Binary
		}
		if o.Dialect != typedrpc.JSONRPC {
			o.SignIn = lab.TopicLogin.Present(func(context.Context) (string, error) { return "ann", nil })
		}
		conns = append(conns, w.Dial(t, o))
	}
	for range 5 + rand.IntN(30) {
		c := conns[rand.IntN(len(conns))]
		go d.act(ctx, c)
		if rand.IntN(5) == 0 {
			time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
		}
	}
	way.end(ctx, d, w, conns)
	time.Sleep(time.Duration(rand.IntN(2000)) * time.Millisecond)
	for _, c := range conns {
		c.Close()
	}
	cancel()
	time.Sleep(time.Minute) // grace, handlers that do not look
	for _, srv := range []*typedrpc.Server{d.srv, d.next} {
		if srv == nil {
			continue
		}
		s := hook.Server(srv)
		is.Equal(s, hook.ServerSums{}) // links, connections, budgets, sessions, handlers: nothing
	}
	is.NoErr(lab.Vacated(d.hub))
	is.NoErr(d.hub.Close())
	return d.logs.Has(way.logged)
}
