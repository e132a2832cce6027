package typedrpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

var (
	flowDown = NewServerStream[int, string]("flow.down")
	flowUp   = NewClientStream[int, string, int]("flow.up")
	flowBoth = NewBidiStream[string, string, string]("flow.both")
	flowCall = NewMethod[string, string]("flow.call")
	flowNote = NewNotification[string]("flow.note")
)

// bidi is a Mux with one handler of flowBoth, and an echo.
func bidi(fn func(ctx context.Context, req string, s *Stream[string, string]) error) *Mux {
	mux := NewMux()
	HandleBidiStream(mux, flowBoth, fn)
	Handle(mux, flowCall, func(_ context.Context, s string) (string, error) { return s, nil })
	return mux
}

// echoItems sends back what comes.
func echoItems(_ context.Context, _ string, s *Stream[string, string]) error {
	for v, err := range s.All() {
		if err != nil {
			return err
		}
		if err := s.Send(v); err != nil {
			return err
		}
	}
	return nil
}

// linger is a handler of flowBoth that waits for its context.
func lingers(ctx context.Context, _ string, _ *Stream[string, string]) error {
	<-ctx.Done()
	return ctx.Err()
}

// letters is a string of n bytes.
func letters(n int) string { return strings.Repeat("abcdefghijklmnopqrstuvwxyz", n/26+1)[:n] }

// quoted is its JSON.
func quoted(n int) []byte { return []byte(`"` + letters(n-2) + `"`) }

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
	h := wire.HelloBody{Attempt: 1, Limits: roomy, Features: ourFeatures}
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
		b := wire.WelcomeBody{Token: "token", Limits: limits, Features: ourFeatures}
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

// joined connects a client and a server that have the same Mux and limits.
func joined(t *testing.T, d Dialect, mux *Mux, limits Limits) (c, s *Conn) {
	t.Helper()
	c, s = twoWays(t, d, mux, mux, limits)
	t.Cleanup(func() { c.Close() })
	return c, s
}

// bubble runs test in one, by name.
func bubble(t *testing.T, name string, test func(t *testing.T, is *is.I)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, is.New(t)) })
	})
}

// A client whose own window is larger than the server's must not take it for
// the server's while its CALL has not left.
func TestFlow_windowBeforeTheCallLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		p, c, again := rawServer(t, wire.Limits{Window: 1000}, &DialOptions{Limits: Limits{Window: 1 << 20}})
		p.t.Kill()
		synctest.Wait()
		stream, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		go func() {
			for range 100 {
				stream.Send(letters(100))
			}
		}()
		p = again()
		is.Equal(len(p.got(wire.Item)), 1000/(100+2+64)) // the server's window
		stream.Close()
		is.NoErr(p.send(wire.Frame{Type: wire.Fail, ID: 1, Code: 1}))
		synctest.Wait()
		settled(t, c)
	})
}

// An item may be offered before anything else has run.
func TestFlow_itemsBeforeTheCallLeft(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		mux := bidi(echoItems)
		srv := &Server{Mux: mux, Limits: Limits{Window: 1000}}
		c, s, err := dialPipe(t.Context(), srv, &DialOptions{Dialect: d, Limits: Limits{Window: 1 << 20}})
		is.NoErr(err)
		defer c.Close()
		for range 20 {
			stream, err := Open(t.Context(), c, flowBoth, "")
			is.NoErr(err)
			go func() {
				for range 500 {
					stream.Send(letters(100))
				}
				stream.CloseSend()
			}()
			n := 0
			for _, err := range stream.All() {
				is.NoErr(err)
				n++
			}
			is.Equal(n, 500)
		}
		settled(t, c, s)
	})
}

func TestStream_outcomeOfOneThatNeverLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		l.Mux = bidi(lingers)
		w := &town{srv: l.Server}
		c := w.dial(t, nil)
		defer c.Close()
		w.serve(nil)
		w.cable().cut()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		stream, err := Open(ctx, c, flowBoth, "")
		is.NoErr(err)
		_, err = stream.Recv()
		is.True(errors.Is(err, DeadlineExceeded))
		is.Equal(OutcomeOf(err), NotSent) // there was no link
		is.True(errors.Is(stream.Send("x"), DeadlineExceeded))
		for _, err = range Receive(ctx, c, flowDown, 1) {
		}
		is.True(errors.Is(err, DeadlineExceeded))
		is.Equal(OutcomeOf(err), NotSent)
	})
}

func TestStream_contextFreesWhatWasNotReceived(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		mux := bidi(func(_ context.Context, _ string, s *Stream[string, string]) error {
			for range 10 {
				if err := s.Send("unread"); err != nil {
					return err
				}
			}
			return nil
		})
		c, s := joined(t, d, mux, Limits{})
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := Open(ctx, c, flowBoth, "")
		is.NoErr(err)
		synctest.Wait() // it has ended
		is.True(c.unread > 0)
		cancel()
		synctest.Wait()
		is.Equal(c.unread, 0) // as Open says
		_, err = stream.Recv()
		is.True(errors.Is(err, Canceled))
		settled(t, c, s)
	})
}

func TestStream_creditAfterTheLastItem(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		mux := bidi(func(ctx context.Context, _ string, s *Stream[string, string]) error {
			for range s.All() {
			}
			return lingers(ctx, "", s) // a download after an upload
		})
		c, s := joined(t, d, mux, Limits{})
		stream, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		for range 100 {
			is.NoErr(stream.Send(letters(500)))
		}
		stream.CloseSend()
		synctest.Wait()
		is.Equal(c.sentItems, 0) // all was taken; it counts in what other streams may send
		stream.Close()
		settled(t, c, s)
	})
}

// A handler that closes its stream ends a Send that waits for the budget of
// the connection, and not of the stream.
func TestStream_closeEndsSendThatWaitsForTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		sent := make(chan error, 1)
		mux := bidi(func(ctx context.Context, req string, s *Stream[string, string]) error {
			if req == "fill" {
				s.Send(letters(900))
				return lingers(ctx, "", s)
			}
			s.Send("first") // one may always be out
			go func() { sent <- s.Send(letters(500)) }()
			synctest.Wait()
			s.Close()
			return lingers(ctx, "", s)
		})
		c, s := joined(t, Binary, mux, Limits{MaxBuffered: 1000})
		one, err := Open(t.Context(), c, flowBoth, "fill")
		is.NoErr(err)
		synctest.Wait()
		two, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		select {
		case err = <-sent:
		case <-time.After(500 * time.Millisecond): // before anything else moves
			t.Error("Send still waits")
		}
		is.True(errors.Is(err, Canceled))
		one.Close()
		two.Close()
		settled(t, c, s)
	})
}

func TestStream_handlersReturnAfterTheConnectionClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		release := make(chan struct{})
		var left sync.WaitGroup
		mux := bidi(func(context.Context, string, *Stream[string, string]) error {
			defer left.Done()
			<-release
			return nil
		})
		c, s := joined(t, Binary, mux, Limits{MaxBuffered: 2000})
		for range 5 {
			left.Add(1)
			_, err := Open(t.Context(), c, flowBoth, "")
			is.NoErr(err)
		}
		synctest.Wait()
		is.NoErr(s.Close())
		is.NoErr(c.Close())
		time.Sleep(time.Minute)
		close(release)
		left.Wait()
		settled(t, s, c) // and the bubble sees that nobody waits
	})
}

func TestStream_shutdownEndsThoseThatHaveNotLeft(t *testing.T) {
	bubble(t, "queued", func(t *testing.T, is *is.I) {
		mux := bidi(lingers)
		c, _ := joined(t, Binary, mux, Limits{})
		stream, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		is.NoErr(c.Shutdown(ctx))
		_, err = stream.Recv()
		is.True(errors.Is(err, Unavailable))
	})
	bubble(t, "waiting for a place", func(t *testing.T, is *is.I) {
		mux := bidi(lingers)
		c, _ := joined(t, Binary, mux, Limits{MaxCalls: 1})
		one, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		two, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		call := Go(t.Context(), c, flowCall, "behind them")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		is.NoErr(c.Shutdown(ctx))
		for _, stream := range []*Stream[string, string]{one, two} {
			_, err = stream.Recv()
			is.True(errors.Is(err, Unavailable))
		}
		got, err := call.Await(t.Context())
		is.NoErr(err) // it was made before, and gets its place
		is.Equal(got, "behind them")
	})
	bubble(t, "waiting for a link", func(t *testing.T, is *is.I) {
		l := newLab()
		w := &town{srv: l.Server}
		c := w.dial(t, nil)
		defer c.Close()
		w.serve(nil)
		w.cable().cut()
		stream, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		is.NoErr(c.Shutdown(ctx))
		_, err = stream.Recv()
		is.True(errors.Is(err, Unavailable))
		is.Equal(OutcomeOf(err), NotSent)
	})
}

// An interceptor that calls next again must not go on with a loop that was
// left.
func TestReceive_interceptorCallsNextAgainAfterBreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		mux := NewMux()
		HandleServerStream(mux, flowDown, func(_ context.Context, n int, send func(string) error) error {
			for range n {
				if err := send("x"); err != nil {
					return err
				}
			}
			return nil
		})
		c, s := joined(t, Binary, mux, Limits{})
		again := c.With(CallOptions{Interceptors: []Interceptor{func(ctx context.Context, r *Request, next RawHandler) (Raw, error) {
			if raw, err := next(ctx, r); err == nil {
				return raw, nil
			}
			return next(ctx, r)
		}}})
		n := 0
		for _, err := range Receive(t.Context(), again, flowDown, 5) {
			is.NoErr(err)
			if n++; n == 2 {
				break
			}
		}
		is.Equal(n, 2)
		settled(t, c, s)
	})
}

func TestOpen_replyMetadata(t *testing.T) {
	pass := func(ctx context.Context, r *Request, next RawHandler) (Raw, error) { return next(ctx, r) }
	for name, more := range map[string][]Interceptor{"plain": nil, "intercepted": {pass}} {
		bubble(t, name, func(t *testing.T, is *is.I) {
			mux := bidi(func(ctx context.Context, _ string, s *Stream[string, string]) error {
				RequestFrom(ctx).Reply.Set("k", "v")
				return nil
			})
			c, s := joined(t, Binary, mux, Limits{})
			for range 20 {
				var reply Metadata
				stream, err := Open(t.Context(), c.With(CallOptions{Reply: &reply, Interceptors: more}), flowBoth, "")
				is.NoErr(err)
				_, err = stream.Recv()
				is.Equal(err, io.EOF)
				is.Equal(reply.Get("k"), "v")
				is.Equal(stream.Metadata().Get("k"), "v")
			}
			settled(t, c, s)
		})
	}
}

// OnItem's functions see the items of one direction one after another, however
// many goroutines send and receive, and in the order of the items.
func TestOnItem_oneAfterAnother(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		var up, down int // the race detector looks on
		watch := func(ctx context.Context, r *Request, next RawHandler) (Raw, error) {
			r.OnItem(func(_ Raw, sent bool) error {
				if sent {
					up++
				} else {
					down++
				}
				return nil
			})
			return next(ctx, r)
		}
		mux := bidi(echoItems)
		c, s := joined(t, d, mux, Limits{})
		stream, err := Open(t.Context(), c.With(CallOptions{Interceptors: []Interceptor{watch}}), flowBoth, "")
		is.NoErr(err)
		var senders, receivers sync.WaitGroup
		for range 4 {
			senders.Go(func() {
				for range 200 {
					if err := stream.Send("x"); err != nil {
						t.Error(err)
					}
				}
			})
			receivers.Go(func() {
				for _, err := range stream.All() {
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		senders.Wait()
		stream.CloseSend()
		receivers.Wait()
		is.Equal(up, 800)
		is.Equal(down, 800)
		settled(t, c, s)
	})
}

// distant connects a client to srv over a path with a round trip of rtt.
func distant(t *testing.T, rtt time.Duration, srv *Server, o *DialOptions) *Conn {
	t.Helper()
	opts := *o
	opts.connect = func(_ context.Context, offers []string) (link.Transport, string, *http.Response, error) {
		r := newUpgrade()
		a, refused := srv.admit(r, offers)
		if refused != nil {
			return nil, "", refused.response(), errors.New(refused.text)
		}
		near, one := link.Pipe()
		two, far := link.Pipe()
		go delay(one, two, rtt/2)
		go delay(two, one, rtt/2)
		srv.start(far, a, r)
		return near, a.subprotocol, nil, nil
	}
	c, err := Dial(t.Context(), "ws://far/", &opts)
	is.New(t).NoErr(err)
	t.Cleanup(func() {
		c.Close()
		time.Sleep(10 * time.Second) // for what is on its way
	})
	return c
}

// delay passes messages on, each so much later.
func delay(from, to link.Transport, by time.Duration) {
	type message struct {
		due  time.Time
		b    *buf.Buf
		text bool
		err  error
	}
	way := make(chan message, 100_000)
	go func() {
		for {
			b, text, err := from.Read(func() {})
			way <- message{time.Now().Add(by), b, text, err}
			if err != nil {
				return
			}
		}
	}()
	for m := range way {
		time.Sleep(time.Until(m.due))
		if m.err != nil {
			to.Kill()
			from.Kill()
			return
		}
		to.Write(m.b.B, m.text, func() {})
		m.b.Release()
	}
}

// rates are the items that came in the first round trip after the first one,
// and in one of the last.
type rates struct{ first, steady, window int }

// measure receives items of n bytes over a path.
func measure(t *testing.T, rtt time.Duration, n int, limits Limits) rates {
	t.Helper()
	down := NewServerStream[Empty, Bytes]("flow.endless")
	mux := NewMux()
	HandleServerStream(mux, down, func(_ context.Context, _ Empty, send func(Bytes) error) error {
		item := make(Bytes, n)
		for {
			if err := send(item); err != nil {
				return err
			}
		}
	})
	quiet := slog.New(slog.DiscardHandler)
	c := distant(t, rtt, &Server{Mux: mux, Logger: quiet}, &DialOptions{Limits: limits, Logger: quiet})
	const trips, last = 12, 4
	var r rates
	var began time.Time
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, err := range Receive(ctx, c, down, Empty{}) {
		if err != nil {
			t.Error(err)
			break
		}
		if began.IsZero() {
			began = time.Now().Add(-1)
		}
		switch trip := int(time.Since(began) / rtt); {
		case trip == 0:
			r.first++
		case trip == trips:
			c.mu.Lock()
			for _, p := range c.pending {
				r.window = p.call.exchange.window.size
			}
			c.mu.Unlock()
			cancel()
			r.steady /= last
			return r
		case trip >= trips-last:
			r.steady++
		}
	}
	return r
}

// The window grows to what a long path holds, for tiny items and large ones
// (docs/design.md has the table).
func TestFlow_windowOverALongPath(t *testing.T) {
	for _, n := range []int{64, 32 << 10} {
		for _, rtt := range []time.Duration{time.Millisecond, 50 * time.Millisecond, 200 * time.Millisecond} {
			bubble(t, fmt.Sprint(n, "/", rtt), func(t *testing.T, is *is.I) {
				r := measure(t, rtt, n, Limits{})
				perSecond := func(items int) string {
					rate := float64(items) / rtt.Seconds()
					return fmt.Sprintf("%8.0f items/s %7.2f MiB/s", rate, rate*float64(n)/(1<<20))
				}
				t.Logf("| %6d B | %4d ms | first %s | steady %s | window %4d KiB |",
					n, rtt.Milliseconds(), perSecond(r.first), perSecond(r.steady), r.window>>10)
				is.Equal(r.window, maxWindow)
				is.True(r.steady*(n+messageOverhead) >= maxWindow*8/10) // at least 80 % of window/RTT
			})
		}
	}
}

// A window that the receiver is too slow for does not grow.
func TestFlow_windowOfASlowReceiverStays(t *testing.T) {
	for _, n := range []int{64, 1000, 40_000, 100_000} {
		bubble(t, fmt.Sprint(n), func(t *testing.T, is *is.I) {
			mux := NewMux()
			HandleServerStream(mux, flowDown, func(_ context.Context, _ int, send func(string) error) error {
				for {
					if err := send(letters(n)); err != nil {
						return err
					}
				}
			})
			quiet := slog.New(slog.DiscardHandler)
			c := distant(t, 10*time.Millisecond, &Server{Mux: mux, Logger: quiet}, &DialOptions{Logger: quiet})
			// The whole window takes the receiver a second.
			pace, left := time.Second*time.Duration(n+messageOverhead)/(64<<10), 3*(64<<10)/n+10
			for range Receive(t.Context(), c, flowDown, 1) {
				time.Sleep(pace)
				is.Equal(c.grown, 0)
				if left--; left == 0 {
					break
				}
			}
			settled(t, c)
		})
	}
}

// bounded fails the test if a stream of c holds more than its window, one item
// excepted.
func bounded(t *testing.T, c *Conn, largest int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	check := func(x *exchange) {
		held := 0
		for i := range x.got.len() {
			held += x.got.all[(x.got.head+i)&(len(x.got.all)-1)].cost()
		}
		if most := max(x.window.size, largest+messageOverhead); held > most || x.window.out > most {
			t.Errorf("%d bytes are held and %d out, the window is %d", held, x.window.out, x.window.size)
		}
	}
	for _, in := range c.inbound {
		check(in.exchange)
	}
	for _, p := range c.pending {
		if p.call != nil {
			check(p.call.exchange)
		}
	}
}

// TestFlow_model sends items of random sizes through random windows to random
// consumers, on both sides at once: none may wait for ever, get lost, change
// places, or be more than the window holds.
func TestFlow_model(t *testing.T) {
	for seed := range uint64(size(30)) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 0))
			largest := []int{10, 300, 5000, 70_000, 200_000}[rng.IntN(5)]
			limits := Limits{Window: 100 + rng.IntN([]int{200, 2000, 100_000}[rng.IntN(3)]), MaxBuffered: 1000 + rng.IntN(200_000)}
			items := 20 + 800_000/(largest+10_000)
			sizes := make([]int, items)
			for i := range sizes {
				sizes[i] = 8 + rng.IntN(largest)
			}
			// pump sends all sizes and receives them on the same stream.
			pump := func(s *Stream[string, string], seed uint64, conn *Conn) {
				var both sync.WaitGroup
				pause := func(rng *rand.Rand) {
					switch rng.IntN(12) {
					case 0:
						time.Sleep(time.Duration(rng.IntN(50)) * time.Millisecond)
					case 1:
						runtime.Gosched()
					}
				}
				both.Go(func() {
					rng := rand.New(rand.NewPCG(seed, 1))
					for i, n := range sizes {
						pause(rng)
						if err := s.Send(fmt.Sprintf("%08d%s", i, letters(n-8))); err != nil {
							t.Error(seed, "send", i, err)
							return
						}
					}
					s.CloseSend()
				})
				both.Go(func() {
					rng := rand.New(rand.NewPCG(seed, 2))
					lazy := rng.IntN(2) == 0
					for i, n := range sizes {
						pause(rng)
						if lazy && i%40 == 0 {
							time.Sleep(time.Second)
							bounded(t, conn, largest+8)
						}
						if v, err := s.Recv(); err != nil || len(v) != n || v[:8] != fmt.Sprintf("%08d", i) {
							t.Error(seed, "receive", i, len(v), n, err)
							return
						}
					}
				})
				both.Wait()
			}
			mux := bidi(func(ctx context.Context, _ string, s *Stream[string, string]) error {
				pump(s, rng.Uint64(), ConnFrom(ctx))
				return nil
			})
			d := []Dialect{Binary, JSONRPC}[seed%2]
			c, s := joined(t, d, mux, limits)
			var streams sync.WaitGroup
			for i := range 1 + rng.IntN(3) {
				conn := []*Conn{c, s}[i%2]
				stream, err := Open(t.Context(), conn, flowBoth, "")
				if err != nil {
					t.Error(err)
					return
				}
				streams.Go(func() {
					pump(stream, uint64(i), conn)
					if _, err := stream.Recv(); err != io.EOF {
						t.Error(seed, err)
					}
				})
				synctest.Wait() // rng is the handler's too
			}
			streams.Wait()
			settled(t, c, s)
		})
	}
}

// sendAway sends until it cannot, and counts.
func sendAway(s *Stream[string, string], n int, sent *atomic.Int64) {
	for s.Send(letters(n)) == nil {
		sent.Add(1)
	}
}

// A receiver that stops reading costs at most its window, while everything
// else goes on.
func TestFlow_stalledReceiver(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		mux := bidi(func(ctx context.Context, req string, s *Stream[string, string]) error {
			if req == "stall" {
				return lingers(ctx, req, s)
			}
			return echoItems(ctx, req, s)
		})
		c, s := joined(t, d, mux, Limits{})
		var sent atomic.Int64
		stalled, err := Open(t.Context(), c, flowBoth, "stall")
		is.NoErr(err)
		go sendAway(stalled, 998, &sent)
		synctest.Wait()
		is.Equal(int(sent.Load()), 64<<10/(1000+64))
		is.True(s.unread <= 64<<10)
		began := time.Now()
		echo, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		for range 1000 {
			is.NoErr(echo.Send(letters(998)))
			_, err := echo.Recv()
			is.NoErr(err)
		}
		_, err = Call(t.Context(), c, flowCall, letters(300_000))
		is.NoErr(err)
		is.Equal(time.Since(began), time.Duration(0)) // nothing waited
		bounded(t, s, 1000)
		stalled.Close()
		echo.Close()
		settled(t, c, s)
	})
}

// With the connection's budget spent by stalled streams, others still go on,
// a small item at a time.
func TestFlow_budgetOfTheConnection(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		mux := bidi(func(ctx context.Context, req string, s *Stream[string, string]) error {
			if req == "stall" {
				return lingers(ctx, req, s)
			}
			return echoItems(ctx, req, s)
		})
		limits := Limits{MaxBuffered: 100_000, MaxCalls: 16} // a sixteenth is every stream's
		c, s := joined(t, d, mux, limits)
		var sent atomic.Int64
		var stalled []*Stream[string, string]
		for range 10 {
			stream, err := Open(t.Context(), c, flowBoth, "stall")
			is.NoErr(err)
			stalled = append(stalled, stream)
			go sendAway(stream, 998, &sent)
		}
		synctest.Wait()
		is.True(s.unread > 90_000)
		is.True(s.unread <= limits.MaxBuffered+10*1064) // one of each stream excepted
		is.True(c.sentItems <= limits.MaxBuffered+10*1064)
		echo, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		for range 100 {
			is.NoErr(echo.Send(letters(5000)))
			v, err := echo.Recv()
			is.NoErr(err)
			is.Equal(len(v), 5000)
		}
		_, err = Call(t.Context(), c, flowCall, "x")
		is.NoErr(err)
		before := sent.Load()
		most := slices.MaxFunc(stalled, func(a, b *Stream[string, string]) int { return a.x.flow.used - b.x.flow.used })
		most.Close() // its room is for the others
		synctest.Wait()
		is.True(sent.Load() > before)
		for _, stream := range append(stalled, echo) {
			stream.Close()
		}
		settled(t, c, s)
	})
}

// When a server holds all that it may, calls are refused and streams fail; it
// recovers.
func TestFlow_budgetOfTheServer(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		srv := &Server{Mux: bidi(lingers), MaxBuffered: 20_000, Logger: slog.New(slog.DiscardHandler)}
		var conns []*Conn
		var sent atomic.Int64
		for range 3 {
			c, _, err := dialPipe(t.Context(), srv, &DialOptions{Dialect: d})
			is.NoErr(err)
			defer c.Close()
			conns = append(conns, c)
		}
		stalled, err := Open(t.Context(), conns[0], flowBoth, "")
		is.NoErr(err)
		go sendAway(stalled, 998, &sent)
		_, err = stalled.Recv()
		is.True(errors.Is(err, ResourceExhausted)) // the stream, and not the link
		is.Equal(srv.config.budget.used.Load(), int64(0))

		stalled, err = Open(t.Context(), conns[0], flowBoth, "")
		is.NoErr(err)
		for range 17 {
			is.NoErr(stalled.Send(letters(998)))
		}
		synctest.Wait()
		_, err = Call(t.Context(), conns[1], flowCall, letters(5000))
		is.True(errors.Is(err, ResourceExhausted))
		is.Equal(OutcomeOf(err), NotSent)
		_, err = Call(t.Context(), conns[1], flowCall, letters(100_000)) // in fragments
		is.True(errors.Is(err, ResourceExhausted))
		is.Equal(OutcomeOf(err), NotSent)
		_, err = Call(t.Context(), conns[1], flowCall, "small")
		is.NoErr(err)
		stalled.Close()
		synctest.Wait()
		_, err = Call(t.Context(), conns[2], flowCall, letters(5000))
		is.NoErr(err)
		settled(t, conns...)
		is.Equal(srv.config.budget.used.Load(), int64(0))
	})
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

func TestFlow_acrossLinks(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		l := newLab()
		l.Mux = bidi(echoItems)
		w := &town{srv: l.Server}
		c := w.dial(t, &DialOptions{Dialect: d, Backoff: steady})
		defer c.Close()
		stream, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		is.NoErr(stream.Send("x"))
		_, err = stream.Recv()
		is.NoErr(err)
		w.serve(nil)
		w.cable().cut()
		_, err = stream.Recv()
		is.True(errors.Is(err, Unavailable))
		is.Equal(OutcomeOf(err), MayHaveRun)
		is.True(strings.Contains(err.Error(), "items of the stream may be missing"))
		is.True(errors.Is(stream.Send("x"), Unavailable))

		_, err = Open(t.Context(), c.With(CallOptions{FailFast: true}), flowBoth, "")
		is.True(errors.Is(err, Unavailable))
		is.Equal(OutcomeOf(err), NotSent)
		waits, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		go waits.Send("first")
		synctest.Wait()
		w.serve(l.Server)
		v, err := waits.Recv() // on the next link
		is.NoErr(err)
		is.Equal(v, "first")
		waits.Close()
		settled(t, c)
	})
}

// Shutdown lets calls finish first, then ends streams, and is done.
func TestFlow_shutdown(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		var order []string
		var mu sync.Mutex
		note := func(s string) {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, s)
		}
		slow := NewMethod[Empty, Empty]("flow.slow")
		mux := bidi(func(ctx context.Context, _ string, s *Stream[string, string]) error {
			<-ctx.Done()
			note("stream")
			return nil
		})
		Handle(mux, slow, func(context.Context, Empty) (Empty, error) {
			time.Sleep(time.Second)
			note("call")
			return Empty{}, nil
		})
		srv := &Server{Mux: mux, Logger: slog.New(slog.DiscardHandler)}
		c, _, err := dialPipe(t.Context(), srv, &DialOptions{Dialect: d, Backoff: steady})
		is.NoErr(err)
		defer c.Close()
		stream, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		call := Go(t.Context(), c, slow, Empty{})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		is.NoErr(srv.Shutdown(ctx))
		is.True(time.Since(began) < 10*time.Second)
		is.Equal(order, []string{"call", "stream"})
		_, err = call.Await(t.Context())
		is.NoErr(err)
		_, err = stream.Recv()
		is.True(errors.Is(err, Unavailable))
	})
}
