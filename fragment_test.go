package typedrpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// A large item behind a large request waits for the whole of it: one
// fragmented message per id and sender.
func TestFragments_itemsWaitForTheirRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		l.Mux = bidi(echoItems)
		w := &town{srv: l.Server}
		c := w.dial(t, nil)
		defer c.Close()
		w.cable().cut() // so that all is there when the CALL leaves
		stream, err := Open(t.Context(), c, flowBoth, letters(300_000))
		is.NoErr(err)
		sizes := []int{200_000, 3}
		go func() {
			for _, n := range sizes {
				stream.Send(letters(n))
			}
			stream.CloseSend()
		}()
		for _, n := range sizes {
			v, err := stream.Recv()
			is.NoErr(err)
			is.Equal(len(v), n)
		}
		_, err = stream.Recv()
		is.Equal(err, io.EOF)
		settled(t, c)
	})
}

// What comes for calls that have ended, or never were, is not put together.
func TestFragments_forNobodyAreNotKept(t *testing.T) {
	part := quoted(60_000)
	big := map[string]string{"k": letters(16_000)}
	for name, frames := range map[string]func(id uint64) []wire.Frame{
		"item of a caller whose call has ended": func(id uint64) []wire.Frame {
			return []wire.Frame{{Type: wire.Item, Flags: wire.FromCaller | wire.More, ID: 1, Payload: part}}
		},
		"item of a caller that never called": func(id uint64) []wire.Frame {
			return []wire.Frame{{Type: wire.Item, Flags: wire.FromCaller | wire.More, ID: 100 + id, Payload: part}}
		},
		"item of a callee that was never called": func(id uint64) []wire.Frame {
			return []wire.Frame{{Type: wire.Item, Flags: wire.More, ID: 100 + id, Payload: part}}
		},
		"result that nobody waits for": func(id uint64) []wire.Frame {
			return []wire.Frame{{Type: wire.Result, Flags: wire.More, ID: 100 + id, Payload: part, Meta: big}}
		},
		"call that was refused": func(id uint64) []wire.Frame {
			return []wire.Frame{{Type: wire.Call, Flags: wire.More, ID: 100 + id, Payload: part, Method: "nobody"}}
		},
		"call of a stream that was refused": func(id uint64) []wire.Frame {
			return []wire.Frame{{Type: wire.Call, Kind: wire.BidiStream, Flags: wire.More, ID: 100 + id, Payload: part, Method: "nobody"}}
		},
	} {
		bubble(t, name, func(t *testing.T, is *is.I) {
			mux := NewMux()
			HandleClientStream(mux, flowUp, func(context.Context, int, iter.Seq2[string, error]) (int, error) { return 7, nil })
			p, c := rawClient(t, Binary, &Server{Mux: mux})
			is.NoErr(p.send(wire.Frame{Type: wire.Call, ID: 1, Kind: wire.ClientStream, Method: flowUp.Name(), Payload: []byte("1")}))
			is.Equal(len(p.got(wire.Result)), 1)
			for id := range uint64(50) {
				for _, f := range frames(id) {
					is.NoErr(p.send(f))
				}
			}
			synctest.Wait()
			is.True(p.alive())
			settled(t, c)
		})
	}
}

// Large messages of each kind, several at once, up to the limit.
func TestFragments_allKinds(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) { // whole, in the other dialect
		is := is.New(t)
		var noted []int
		mux := bidi(echoItems)
		HandleNotification(mux, flowNote, func(_ context.Context, s string) { noted = append(noted, len(s)) })
		limits := Limits{MaxMessage: 1 << 20, MaxBuffered: 4 << 20}
		c, s := joined(t, d, mux, limits)
		sizes := []int{fragment - 2, fragment - 1, 150_000, 1<<20 - 4} // a request of the other dialect is in brackets
		for _, conn := range []*Conn{c, s} {
			var all sync.WaitGroup
			for _, n := range sizes {
				all.Go(func() {
					got, err := Call(t.Context(), conn, flowCall, letters(n))
					if err != nil || got != letters(n) {
						t.Error(n, len(got), err)
					}
				})
				all.Go(func() {
					stream, err := Open(t.Context(), conn, flowBoth, letters(n))
					if err != nil {
						t.Error(err)
						return
					}
					for range 2 {
						if err := stream.Send(letters(n)); err != nil {
							t.Error(n, err)
						}
						if got, err := stream.Recv(); err != nil || got != letters(n) {
							t.Error(n, len(got), err)
						}
					}
					stream.Close()
				})
			}
			all.Wait()
			for _, n := range sizes {
				is.NoErr(Notify(t.Context(), conn, flowNote, letters(n)))
			}
			synctest.Wait()
			is.Equal(noted, sizes) // whole, and in order
			noted = nil
			_, err := Call(t.Context(), conn, flowCall, letters(1<<20-1))
			is.True(errors.Is(err, ResourceExhausted)) // refused here
			is.Equal(OutcomeOf(err), NotSent)
		}
		settled(t, c, s)
	})
}

// stages is what a peer driven by hand saw, in words.
func stages(fs []wire.Frame) (words []string) {
	for _, f := range fs {
		word := fmt.Sprint(f.Type, " ", f.ID)
		if f.Type == wire.Notify || f.Type == wire.Chunk && f.ID == 0 {
			word = fmt.Sprint(f.Type, " ", len(f.Payload))
		}
		words = append(words, word)
	}
	return words
}

// gate is a client whose link is lost and comes back, so that all that is made
// in between leaves at once.
func gate(t *testing.T, make func(c *Conn)) *rawPeer {
	t.Helper()
	p, c, again := rawServer(t, wire.Limits{Message: 1 << 20, Calls: 100, Window: 1 << 20}, &DialOptions{Backoff: steady})
	p.t.Kill()
	synctest.Wait()
	make(c)
	synctest.Wait()
	return again()
}

// What is under way takes turns, a fragment at a time, and small calls go in
// between.
func TestFragments_turns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		p := gate(t, func(c *Conn) {
			for _, n := range []int{3 * fragment, 3 * fragment, 10} {
				Go(t.Context(), c, flowCall, letters(n-2))
			}
		})
		is.Equal(stages(p.got(wire.Call, wire.Chunk)), []string{
			"CALL 1", "CALL 2", "CALL 3", "CHUNK 1", "CHUNK 2", "CHUNK 1", "CHUNK 2",
		})
		for id := range uint64(3) {
			is.NoErr(p.send(wire.Frame{Type: wire.Result, ID: id + 1, Payload: []byte(`""`)}))
		}
		is.True(p.alive())
	})
}

// Notifications and Serial calls do not overtake each other, whatever their
// sizes; others do.
func TestFragments_orderedOnesKeepTheirOrder(t *testing.T) {
	serial := NewMethod[string, string]("flow.serial", Serial)
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var order []string
		p := gate(t, func(c *Conn) {
			is.NoErr(Notify(t.Context(), c, flowNote, letters(2*fragment)))
			is.NoErr(Notify(t.Context(), c, flowNote, "small"))
			is.NoErr(Notify(t.Context(), c, flowNote, letters(fragment)))
			is.NoErr(Notify(t.Context(), c, flowNote, "small"))
			Go(t.Context(), c, serial, letters(2*fragment))
			Go(t.Context(), c, serial, "small")
			Go(t.Context(), c, flowCall, "quick")
		})
		for _, f := range p.got(wire.Call, wire.Notify, wire.Chunk) {
			if f.Type != wire.Chunk {
				order = append(order, fmt.Sprint(f.Type, " ", f.Method, " ", f.Flags&wire.More != 0))
			}
		}
		quick := slices.Index(order, "CALL flow.call false")
		is.True(quick >= 0 && quick < len(order)-1) // it did not wait for all the others
		order = slices.Delete(order, quick, quick+1)
		is.Equal(order, []string{
			"NOTIFY flow.note true", "NOTIFY flow.note false", "NOTIFY flow.note true", "NOTIFY flow.note false",
			"CALL flow.serial true", "CALL flow.serial false",
		})
	})
	// And end to end: the handlers see them in order.
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var got, want []int
		mux := NewMux()
		HandleNotification(mux, flowNote, func(_ context.Context, s string) { got = append(got, len(s)) })
		Handle(mux, serial, func(_ context.Context, s string) (string, error) {
			got = append(got, len(s))
			return "", nil
		})
		c, s := joined(t, Binary, mux, Limits{})
		for i := range 100 {
			n := i%7*40_000 + i
			want = append(want, n)
			if i%3 == 0 {
				Go(t.Context(), c, serial, letters(n))
			} else {
				is.NoErr(Notify(t.Context(), c, flowNote, letters(n)))
			}
		}
		synctest.Wait()
		is.Equal(got, want)
		settled(t, c, s)
	})
}

// A call that is cancelled while its fragments leave, or whose link is lost
// then, leaves nothing behind on either side.
func TestFragments_interrupted(t *testing.T) {
	begin := func(t *testing.T, is *is.I, c *rawPeer, id uint64) {
		is.NoErr(c.send(wire.Frame{Type: wire.Call, ID: id, Method: flowCall.Name(), Flags: wire.More, Payload: quoted(1000)}))
		synctest.Wait()
	}
	bubble(t, "cancelled", func(t *testing.T, is *is.I) {
		p, c := rawClient(t, Binary, &Server{Mux: bidi(echoItems)})
		begin(t, is, p, 1)
		is.NoErr(p.send(wire.Frame{Type: wire.Cancel, Flags: wire.FromCaller, ID: 1}))
		fs := p.got(wire.Fail, wire.Result)
		is.Equal(len(fs), 1)
		is.Equal(Code(fs[0].Code), Canceled)
		is.True(fs[0].Flags&wire.NotRun != 0)
		is.NoErr(p.send(wire.Frame{Type: wire.Chunk, Flags: wire.FromCaller, ID: 1, Payload: []byte("late")}))
		is.True(p.alive())
		settled(t, c)
	})
	bubble(t, "cancelled by a Conn", func(t *testing.T, is *is.I) {
		mux := bidi(echoItems)
		c, s := joined(t, Binary, mux, Limits{})
		for range 20 {
			ctx, cancel := context.WithCancel(t.Context())
			f := Go(ctx, c, flowCall, letters(1_000_000))
			go cancel()
			f.Await(t.Context())
		}
		_, err := Call(t.Context(), c, flowCall, letters(1_000_000))
		is.NoErr(err)
		settled(t, c, s)
	})
	bubble(t, "refused in the middle", func(t *testing.T, is *is.I) {
		chunks := make(chan int, 1)
		w := new(town)
		w.script = func(_ int, far *wirePeer) {
			far.until(wire.Hello)
			b := wire.WelcomeBody{Token: "token", Limits: wire.Limits{Message: 4 << 20}, Features: handFeatures}
			far.send(wire.Frame{Type: wire.Welcome, Payload: b.Append(nil)})
			f, _ := far.until(wire.Call)
			far.send(wire.Frame{Type: wire.Fail, Flags: wire.NotRun, ID: f.ID, Code: int64(ResourceExhausted)})
			synctest.Wait() // the pipe is full, most has not left
			for n := 0; ; n++ {
				if f, err := far.next(); err != nil || f.Type != wire.Chunk {
					chunks <- n
					far.closeCode()
					return
				}
			}
		}
		c := w.dial(t, nil)
		defer c.Close()
		_, err := Call(t.Context(), c, flowCall, letters(1_000_000))
		is.True(errors.Is(err, ResourceExhausted))
		Go(t.Context(), c, flowCall, "the next")
		is.True(<-chunks < 10) // the rest stayed here
	})
	bubble(t, "link lost", func(t *testing.T, is *is.I) {
		p, c := rawClient(t, Binary, &Server{Mux: bidi(echoItems)})
		begin(t, is, p, 1)
		is.NoErr(p.send(wire.Frame{Type: wire.Call, ID: 2, Kind: wire.BidiStream, Method: flowBoth.Name(), Payload: []byte(`""`)}))
		is.NoErr(p.send(wire.Frame{Type: wire.Item, Flags: wire.FromCaller | wire.More, ID: 2, Payload: quoted(1000)}))
		is.NoErr(p.send(wire.Frame{Type: wire.Notify, Flags: wire.More, Method: flowNote.Name(), Payload: quoted(1000)}))
		p.t.Kill()
		settled(t, c)
	})
	bubble(t, "link lost by a Conn", func(t *testing.T, is *is.I) {
		again := NewMethod[string, string]("flow.again", Idempotent)
		l := newLab()
		l.Mux = bidi(echoItems)
		Handle(l.Mux, again, func(_ context.Context, s string) (string, error) { return s, nil })
		w := &town{srv: l.Server}
		c := w.dial(t, &DialOptions{Backoff: steady})
		defer c.Close()
		for range 8 {
			once := Go(t.Context(), c, flowCall, letters(500_000))
			f := Go(t.Context(), c, again, letters(700_000))
			go w.cable().a.Kill()
			got, err := f.Await(t.Context())
			is.NoErr(err) // sent again, the whole of it
			is.Equal(len(got), 700_000)
			if _, err := once.Await(t.Context()); err != nil {
				is.True(errors.Is(err, Unavailable))
			}
			time.Sleep(20 * time.Second) // the link has lived
		}
		settled(t, c)
	})
}

// A message over the limit fails what it belongs to, and not the link.
func TestFragments_overTheLimit(t *testing.T) {
	// parts sends n bytes as f and its CHUNKs.
	parts := func(p *rawPeer, f wire.Frame, n int) {
		who := f.Flags & wire.FromCaller
		if f.Type == wire.Call {
			who = wire.FromCaller
		}
		payload := quoted(n)
		f.Flags |= wire.More
		f.Payload = payload[:1000]
		p.send(f)
		for rest := payload[1000:]; len(rest) > 0; {
			part := rest[:min(len(rest), 1000)]
			rest = rest[len(part):]
			f := wire.Frame{Type: wire.Chunk, Flags: who, ID: f.ID, Payload: part}
			if len(rest) > 0 {
				f.Flags |= wire.More
			}
			p.send(f)
		}
	}
	limits := Limits{MaxMessage: 5000, MaxBuffered: 20_000}
	bubble(t, "received by a server", func(t *testing.T, is *is.I) {
		noted := 0
		mux := bidi(lingers)
		HandleNotification(mux, flowNote, func(context.Context, string) { noted++ })
		p, c := rawClient(t, Binary, &Server{Mux: mux, Limits: limits})
		parts(p, wire.Frame{Type: wire.Call, ID: 1, Method: flowCall.Name()}, 8000)
		fs := p.got(wire.Fail)
		is.Equal(len(fs), 1)
		is.Equal(Code(fs[0].Code), ResourceExhausted)
		is.True(fs[0].Flags&wire.NotRun != 0)

		parts(p, wire.Frame{Type: wire.Notify, Method: flowNote.Name()}, 8000)
		parts(p, wire.Frame{Type: wire.Notify, Method: flowNote.Name()}, 4000)
		credit := uint64(0)
		for _, f := range p.got(wire.Credit) {
			credit += f.Items
		}
		is.Equal(credit, uint64(2)) // the dropped one too
		is.Equal(noted, 1)

		is.NoErr(p.send(wire.Frame{Type: wire.Call, ID: 2, Kind: wire.BidiStream, Method: flowBoth.Name(), Payload: []byte(`""`)}))
		parts(p, wire.Frame{Type: wire.Item, Flags: wire.FromCaller, ID: 2}, 8000)
		fs = p.got(wire.Fail)
		is.Equal(len(fs), 1)
		is.Equal(Code(fs[0].Code), ResourceExhausted)
		is.True(p.alive())
		settled(t, c)
	})
	bubble(t, "received by a client", func(t *testing.T, is *is.I) {
		p, c, _ := rawServer(t, roomy, &DialOptions{Limits: limits})
		f := Go(t.Context(), c, flowCall, "x")
		synctest.Wait()
		parts(p, wire.Frame{Type: wire.Result, ID: 1}, 8000)
		_, err := f.Await(t.Context())
		is.True(errors.Is(err, ResourceExhausted))
		stream, err := Open(t.Context(), c, flowBoth, "")
		is.NoErr(err)
		synctest.Wait()
		parts(p, wire.Frame{Type: wire.Item, ID: 2}, 8000)
		_, err = stream.Recv()
		is.True(errors.Is(err, ResourceExhausted))
		is.NoErr(p.send(wire.Frame{Type: wire.Fail, ID: 2, Code: 1}))
		parts(p, wire.Frame{Type: wire.Result, ID: 2}, 8000) // an offence
		is.True(p.alive())
		settled(t, c)
	})
	bubble(t, "all together", func(t *testing.T, is *is.I) { // the budget
		p, c := rawClient(t, Binary, &Server{Mux: bidi(echoItems), Limits: limits})
		for id := range uint64(100) {
			is.NoErr(p.send(wire.Frame{Type: wire.Call, ID: id + 1, Method: flowCall.Name(), Flags: wire.More, Payload: quoted(4000)}))
		}
		synctest.Wait()
		is.True(c.inBytes <= 2*limits.MaxBuffered)
		is.True(len(p.got(wire.Fail)) >= 90)
		is.True(p.alive())
		p.t.Kill()
		settled(t, c)
	})
}

// What breaks the rules about fragments ends the link.
func TestFragments_protocolErrors(t *testing.T) {
	call := wire.Frame{Type: wire.Call, ID: 1, Kind: wire.BidiStream, Method: flowBoth.Name(), Flags: wire.More, Payload: []byte(`"`)}
	tests := map[string][]wire.Frame{
		"an item in the middle of its call": {call, {Type: wire.Item, Flags: wire.FromCaller | wire.More, ID: 1, Payload: []byte("1")}},
		"a notification in another":         slices.Repeat([]wire.Frame{{Type: wire.Notify, Method: "n", Flags: wire.More, Payload: []byte("1")}}, 2),
		"a chunk of no notification":        {{Type: wire.Chunk, Payload: []byte("1")}},
		"an id again":                       {call, call},
	}
	for name, frames := range tests {
		bubble(t, name, func(t *testing.T, is *is.I) {
			p, c := rawClient(t, Binary, &Server{Mux: bidi(lingers), Logger: slog.New(slog.DiscardHandler)})
			is.NoErr(p.send(frames...))
			is.True(!p.alive())
			is.Equal(p.closed(), session.CloseProtocol)
			settled(t, c)
		})
	}
}

// A peer assembles no more than it said: of large answers only as many are under
// way at once as its budget holds, and one at least.
func TestFragments_underWayWithinThePeersBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		mux := NewMux()
		sized := NewMethod[int, string]("fragment.sized")
		Handle(mux, sized, func(_ context.Context, n int) (string, error) { return letters(n), nil })
		p, err := join(&Server{Mux: mux}, codecProtocol(JSON))
		is.NoErr(err)
		defer p.t.Kill()
		const budget = 400_000
		h := wire.HelloBody{Attempt: 1, Features: handFeatures, Limits: wire.Limits{Message: 1 << 20, Calls: 16, Window: 1 << 16, Budget: budget}}
		is.NoErr(p.send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
		_, err = p.until(wire.Welcome)
		is.NoErr(err)
		is.NoErr(p.send(wire.Frame{Type: wire.Ack}))
		sizes := map[uint64]int{1: 150_000, 2: 150_000, 3: 150_000, 4: 500_000, 5: 150_000}
		for id := uint64(1); id <= 5; id++ {
			is.NoErr(p.send(wire.Frame{Type: wire.Call, ID: id, Method: sized.Name(), Payload: []byte(strconv.Itoa(sizes[id]))}))
		}
		underWay, most := map[uint64]bool{}, 0
		for done := 0; done < len(sizes); {
			f, err := p.next()
			is.NoErr(err)
			if f.Type != wire.Result && f.Type != wire.Chunk {
				continue
			}
			if f.Flags&wire.More == 0 {
				delete(underWay, f.ID)
				done++
				continue
			}
			underWay[f.ID] = true
			bytes := 0
			for id := range underWay {
				bytes += sizes[id] + len(`""`)
			}
			is.True(bytes <= budget || len(underWay) == 1)
			most = max(most, len(underWay))
		}
		is.Equal(most, 2) // and not one after another
	})
}
