package e2e_test

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

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// A large item behind a large request waits for the whole of it: one
// fragmented message per id and sender.
func TestFragments_itemsWaitForTheirRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		l.Mux = lab.Bidi(lab.EchoItems)
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, nil)
		defer c.Close()
		w.Cable().Cut() // so that all is there when the CALL leaves
		stream, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, testkit.Letters(300_000))
		is.NoErr(err)
		sizes := []int{200_000, 3}
		go func() {
			for _, n := range sizes {
				stream.Send(testkit.Letters(n))
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
		lab.Settled(t, c)
	})
}

// What comes for calls that have ended, or never were, is not put together.
func TestFragments_forNobodyAreNotKept(t *testing.T) {
	part := testkit.Quoted(60_000)
	big := map[string]string{"k": testkit.Letters(16_000)}
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
		testkit.Bubble(t, name, func(t *testing.T, is *is.I) {
			mux := typedrpc.NewMux()
			typedrpc.Handle(mux, lab.FlowUp, func(context.Context, int, iter.Seq2[string, error]) (int, error) { return 7, nil })
			p, c := lab.RawClient(t, typedrpc.Binary, &typedrpc.Server{Mux: mux})
			is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: 1, Kind: wire.ClientStream, Method: lab.FlowUp.Name(), Payload: []byte("1")}))
			is.Equal(len(p.Got(wire.Result)), 1)
			for id := range uint64(50) {
				for _, f := range frames(id) {
					is.NoErr(p.Send(f))
				}
			}
			synctest.Wait()
			is.True(p.Alive())
			lab.Settled(t, c)
		})
	}
}

// Large messages of each kind, several at once, up to the limit.
func TestFragments_allKinds(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) { // whole, in the other dialect
		is := is.New(t)
		var noted []int
		mux := lab.Bidi(lab.EchoItems)
		typedrpc.Handle(mux, lab.FlowNote, func(_ context.Context, s string) error { noted = append(noted, len(s)); return nil })
		limits := typedrpc.Limits{MaxMessage: 1 << 20, MaxBuffered: 4 << 20}
		c, s := lab.Joined(t, d, mux, limits)
		sizes := []int{testkit.Fragment - 2, testkit.Fragment - 1, 150_000, 1<<20 - 4} // a request of the other dialect is in brackets
		for _, conn := range []*typedrpc.Conn{c, s} {
			var all sync.WaitGroup
			for _, n := range sizes {
				all.Go(func() {
					got, err := typedrpc.Call(t.Context(), conn, lab.FlowCall, testkit.Letters(n))
					if err != nil || got != testkit.Letters(n) {
						t.Error(n, len(got), err)
					}
				})
				all.Go(func() {
					stream, err := typedrpc.Open(t.Context(), conn, lab.FlowBoth, testkit.Letters(n))
					if err != nil {
						t.Error(err)
						return
					}
					for range 2 {
						if err := stream.Send(testkit.Letters(n)); err != nil {
							t.Error(n, err)
						}
						if got, err := stream.Recv(); err != nil || got != testkit.Letters(n) {
							t.Error(n, len(got), err)
						}
					}
					stream.Cancel()
				})
			}
			all.Wait()
			for _, n := range sizes {
				is.NoErr(typedrpc.Notify(t.Context(), conn, lab.FlowNote, testkit.Letters(n)))
			}
			synctest.Wait()
			is.Equal(noted, sizes) // whole, and in order
			noted = nil
			_, err := typedrpc.Call(t.Context(), conn, lab.FlowCall, testkit.Letters(1<<20-1))
			is.True(errors.Is(err, typedrpc.ResourceExhausted)) // refused here
			is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		}
		lab.Settled(t, c, s)
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
func gate(t *testing.T, make func(c *typedrpc.Conn)) *testkit.RawPeer {
	t.Helper()
	p, c, again := lab.RawServer(t, wire.Limits{Message: 1 << 20, Calls: 100, Window: 1 << 20}, &typedrpc.DialOptions{Backoff: lab.Steady})
	p.T.Kill()
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
		p := gate(t, func(c *typedrpc.Conn) {
			for _, n := range []int{3 * testkit.Fragment, 3 * testkit.Fragment, 10} {
				typedrpc.Go(t.Context(), c, lab.FlowCall, testkit.Letters(n-2))
			}
		})
		is.Equal(stages(p.Got(wire.Call, wire.Chunk)), []string{
			"CALL 1", "CALL 2", "CALL 3", "CHUNK 1", "CHUNK 2", "CHUNK 1", "CHUNK 2",
		})
		for id := range uint64(3) {
			is.NoErr(p.Send(wire.Frame{Type: wire.Result, ID: id + 1, Payload: []byte(`""`)}))
		}
		is.True(p.Alive())
	})
}

// Notifications and Serial calls do not overtake each other, whatever their
// sizes; others do.
func TestFragments_orderedOnesKeepTheirOrder(t *testing.T) {
	serial := typedrpc.NewMethod[string, string]("flow.serial", typedrpc.Serial)
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var order []string
		p := gate(t, func(c *typedrpc.Conn) {
			is.NoErr(typedrpc.Notify(t.Context(), c, lab.FlowNote, testkit.Letters(2*testkit.Fragment)))
			is.NoErr(typedrpc.Notify(t.Context(), c, lab.FlowNote, "small"))
			is.NoErr(typedrpc.Notify(t.Context(), c, lab.FlowNote, testkit.Letters(testkit.Fragment)))
			is.NoErr(typedrpc.Notify(t.Context(), c, lab.FlowNote, "small"))
			typedrpc.Go(t.Context(), c, serial, testkit.Letters(2*testkit.Fragment))
			typedrpc.Go(t.Context(), c, serial, "small")
			typedrpc.Go(t.Context(), c, lab.FlowCall, "quick")
		})
		for _, f := range p.Got(wire.Call, wire.Notify, wire.Chunk) {
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
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.FlowNote, func(_ context.Context, s string) error { got = append(got, len(s)); return nil })
		typedrpc.Handle(mux, serial, func(_ context.Context, s string) (string, error) {
			got = append(got, len(s))
			return "", nil
		})
		c, s := lab.Joined(t, typedrpc.Binary, mux, typedrpc.Limits{})
		for i := range 100 {
			n := i%7*40_000 + i
			want = append(want, n)
			if i%3 == 0 {
				typedrpc.Go(t.Context(), c, serial, testkit.Letters(n))
			} else {
				is.NoErr(typedrpc.Notify(t.Context(), c, lab.FlowNote, testkit.Letters(n)))
			}
		}
		synctest.Wait()
		is.Equal(got, want)
		lab.Settled(t, c, s)
	})
}

// A call that is cancelled while its fragments leave, or whose link is lost
// then, leaves nothing behind on either side.
func TestFragments_interrupted(t *testing.T) {
	begin := func(t *testing.T, is *is.I, c *testkit.RawPeer, id uint64) {
		is.NoErr(c.Send(wire.Frame{Type: wire.Call, ID: id, Method: lab.FlowCall.Name(), Flags: wire.More, Payload: testkit.Quoted(1000)}))
		synctest.Wait()
	}
	testkit.Bubble(t, "cancelled", func(t *testing.T, is *is.I) {
		p, c := lab.RawClient(t, typedrpc.Binary, &typedrpc.Server{Mux: lab.Bidi(lab.EchoItems)})
		begin(t, is, p, 1)
		is.NoErr(p.Send(wire.Frame{Type: wire.Cancel, Flags: wire.FromCaller, ID: 1}))
		fs := p.Got(wire.Fail, wire.Result)
		is.Equal(len(fs), 1)
		is.Equal(typedrpc.Code(fs[0].Code), typedrpc.Canceled)
		is.True(fs[0].Flags&wire.NotRun != 0)
		is.NoErr(p.Send(wire.Frame{Type: wire.Chunk, Flags: wire.FromCaller, ID: 1, Payload: []byte("late")}))
		is.True(p.Alive())
		lab.Settled(t, c)
	})
	testkit.Bubble(t, "cancelled by a Conn", func(t *testing.T, is *is.I) {
		mux := lab.Bidi(lab.EchoItems)
		c, s := lab.Joined(t, typedrpc.Binary, mux, typedrpc.Limits{})
		for range 20 {
			ctx, cancel := context.WithCancel(t.Context())
			f := typedrpc.Go(ctx, c, lab.FlowCall, testkit.Letters(1_000_000))
			go cancel()
			f.Await(t.Context())
		}
		_, err := typedrpc.Call(t.Context(), c, lab.FlowCall, testkit.Letters(1_000_000))
		is.NoErr(err)
		lab.Settled(t, c, s)
	})
	testkit.Bubble(t, "refused in the middle", func(t *testing.T, is *is.I) {
		chunks := make(chan int, 1)
		w := new(lab.Town)
		w.Script = func(_ int, far *testkit.Peer) {
			far.Until(wire.Hello)
			b := wire.WelcomeBody{Token: "token", Limits: wire.Limits{Message: 4 << 20}, Features: testkit.HandFeatures}
			far.Send(wire.Frame{Type: wire.Welcome, Payload: b.Append(nil)})
			f, _ := far.Until(wire.Call)
			far.Send(wire.Frame{Type: wire.Fail, Flags: wire.NotRun, ID: f.ID, Code: int64(typedrpc.ResourceExhausted)})
			synctest.Wait() // the pipe is full, most has not left
			for n := 0; ; n++ {
				if f, err := far.Next(); err != nil || f.Type != wire.Chunk {
					chunks <- n
					far.CloseCode()
					return
				}
			}
		}
		c := w.Dial(t, nil)
		defer c.Close()
		_, err := typedrpc.Call(t.Context(), c, lab.FlowCall, testkit.Letters(1_000_000))
		is.True(errors.Is(err, typedrpc.ResourceExhausted))
		typedrpc.Go(t.Context(), c, lab.FlowCall, "the next")
		is.True(<-chunks < 10) // the rest stayed here
	})
	testkit.Bubble(t, "link lost", func(t *testing.T, is *is.I) {
		p, c := lab.RawClient(t, typedrpc.Binary, &typedrpc.Server{Mux: lab.Bidi(lab.EchoItems)})
		begin(t, is, p, 1)
		is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: 2, Kind: wire.BidiStream, Method: lab.FlowBoth.Name(), Payload: []byte(`""`)}))
		is.NoErr(p.Send(wire.Frame{Type: wire.Item, Flags: wire.FromCaller | wire.More, ID: 2, Payload: testkit.Quoted(1000)}))
		is.NoErr(p.Send(wire.Frame{Type: wire.Notify, Flags: wire.More, Method: lab.FlowNote.Name(), Payload: testkit.Quoted(1000)}))
		p.T.Kill()
		lab.Settled(t, c)
	})
	testkit.Bubble(t, "link lost by a Conn", func(t *testing.T, is *is.I) {
		again := typedrpc.NewMethod[string, string]("flow.again", typedrpc.Idempotent)
		l := lab.New()
		l.Mux = lab.Bidi(lab.EchoItems)
		typedrpc.Handle(l.Mux, again, func(_ context.Context, s string) (string, error) { return s, nil })
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, &typedrpc.DialOptions{Backoff: lab.Steady})
		defer c.Close()
		for range 8 {
			once := typedrpc.Go(t.Context(), c, lab.FlowCall, testkit.Letters(500_000))
			f := typedrpc.Go(t.Context(), c, again, testkit.Letters(700_000))
			go w.Cable().A.Kill()
			got, err := f.Await(t.Context())
			is.NoErr(err) // sent again, the whole of it
			is.Equal(len(got), 700_000)
			if _, err := once.Await(t.Context()); err != nil {
				is.True(errors.Is(err, typedrpc.Unavailable))
			}
			time.Sleep(20 * time.Second) // the link has lived
		}
		lab.Settled(t, c)
	})
}

// A message over the limit fails what it belongs to, and not the link.
func TestFragments_overTheLimit(t *testing.T) {
	// parts sends n bytes as f and its CHUNKs.
	parts := func(p *testkit.RawPeer, f wire.Frame, n int) {
		who := f.Flags & wire.FromCaller
		if f.Type == wire.Call {
			who = wire.FromCaller
		}
		payload := testkit.Quoted(n)
		f.Flags |= wire.More
		f.Payload = payload[:1000]
		p.Send(f)
		for rest := payload[1000:]; len(rest) > 0; {
			part := rest[:min(len(rest), 1000)]
			rest = rest[len(part):]
			f := wire.Frame{Type: wire.Chunk, Flags: who, ID: f.ID, Payload: part}
			if len(rest) > 0 {
				f.Flags |= wire.More
			}
			p.Send(f)
		}
	}
	limits := typedrpc.Limits{MaxMessage: 5000, MaxBuffered: 20_000}
	testkit.Bubble(t, "received by a server", func(t *testing.T, is *is.I) {
		noted := 0
		mux := lab.Bidi(lab.Lingers)
		typedrpc.Handle(mux, lab.FlowNote, func(context.Context, string) error { noted++; return nil })
		p, c := lab.RawClient(t, typedrpc.Binary, &typedrpc.Server{Mux: mux, Limits: limits})
		parts(p, wire.Frame{Type: wire.Call, ID: 1, Method: lab.FlowCall.Name()}, 8000)
		fs := p.Got(wire.Fail)
		is.Equal(len(fs), 1)
		is.Equal(typedrpc.Code(fs[0].Code), typedrpc.ResourceExhausted)
		is.True(fs[0].Flags&wire.NotRun != 0)

		parts(p, wire.Frame{Type: wire.Notify, Method: lab.FlowNote.Name()}, 8000)
		parts(p, wire.Frame{Type: wire.Notify, Method: lab.FlowNote.Name()}, 4000)
		credit := uint64(0)
		for _, f := range p.Got(wire.Credit) {
			credit += f.Items
		}
		is.Equal(credit, uint64(2)) // the dropped one too
		is.Equal(noted, 1)

		is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: 2, Kind: wire.BidiStream, Method: lab.FlowBoth.Name(), Payload: []byte(`""`)}))
		parts(p, wire.Frame{Type: wire.Item, Flags: wire.FromCaller, ID: 2}, 8000)
		fs = p.Got(wire.Fail)
		is.Equal(len(fs), 1)
		is.Equal(typedrpc.Code(fs[0].Code), typedrpc.ResourceExhausted)
		is.True(p.Alive())
		lab.Settled(t, c)
	})
	testkit.Bubble(t, "received by a client", func(t *testing.T, is *is.I) {
		p, c, _ := lab.RawServer(t, testkit.Roomy, &typedrpc.DialOptions{Limits: limits})
		f := typedrpc.Go(t.Context(), c, lab.FlowCall, "x")
		synctest.Wait()
		parts(p, wire.Frame{Type: wire.Result, ID: 1}, 8000)
		_, err := f.Await(t.Context())
		is.True(errors.Is(err, typedrpc.ResourceExhausted))
		stream, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
		is.NoErr(err)
		synctest.Wait()
		parts(p, wire.Frame{Type: wire.Item, ID: 2}, 8000)
		_, err = stream.Recv()
		is.True(errors.Is(err, typedrpc.ResourceExhausted))
		is.NoErr(p.Send(wire.Frame{Type: wire.Fail, ID: 2, Code: 1}))
		parts(p, wire.Frame{Type: wire.Result, ID: 2}, 8000) // an offence
		is.True(p.Alive())
		lab.Settled(t, c)
	})
	testkit.Bubble(t, "all together", func(t *testing.T, is *is.I) { // the budget
		limits := limits
		limits.MaxBuffered = 40_000 // the refusals wait, too
		p, c := lab.RawClient(t, typedrpc.Binary, &typedrpc.Server{Mux: lab.Bidi(lab.EchoItems), Limits: limits})
		for id := range uint64(100) {
			is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: id + 1, Method: lab.FlowCall.Name(), Flags: wire.More, Payload: testkit.Quoted(4000)}))
		}
		synctest.Wait()
		is.True(hook.Conn(c).InBytes <= 2*limits.MaxBuffered)
		is.True(len(p.Got(wire.Fail)) >= 90)
		is.True(p.Alive())
		p.T.Kill()
		lab.Settled(t, c)
	})
}

// What breaks the rules about fragments ends the link.
func TestFragments_protocolErrors(t *testing.T) {
	call := wire.Frame{Type: wire.Call, ID: 1, Kind: wire.BidiStream, Method: lab.FlowBoth.Name(), Flags: wire.More, Payload: []byte(`"`)}
	tests := map[string][]wire.Frame{
		"an item in the middle of its call": {call, {Type: wire.Item, Flags: wire.FromCaller | wire.More, ID: 1, Payload: []byte("1")}},
		"a notification in another":         slices.Repeat([]wire.Frame{{Type: wire.Notify, Method: "n", Flags: wire.More, Payload: []byte("1")}}, 2),
		"a chunk of no notification":        {{Type: wire.Chunk, Payload: []byte("1")}},
		"an id again":                       {call, call},
	}
	for name, frames := range tests {
		testkit.Bubble(t, name, func(t *testing.T, is *is.I) {
			p, c := lab.RawClient(t, typedrpc.Binary, &typedrpc.Server{Mux: lab.Bidi(lab.Lingers), Logger: slog.New(slog.DiscardHandler)})
			is.NoErr(p.Send(frames...))
			is.True(!p.Alive())
			is.Equal(p.Closed(), session.CloseProtocol)
			lab.Settled(t, c)
		})
	}
}

// A peer assembles no more than it said: of large answers only as many are under
// way at once as its budget holds, and one at least.
func TestFragments_underWayWithinThePeersBudget(t *testing.T) {
	is := is.New(t)
	most := 0
	for range 20 { // handlers may come to their ends one after another, and so do their replies then
		if most = max(most, mostUnderWay(t)); most > 1 {
			break
		}
	}
	is.Equal(most, 2) // and not one after another
}

// mostUnderWay is how many large replies were leaving at the same time, to a peer
// with room for two.
func mostUnderWay(t *testing.T) (most int) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		sized := typedrpc.NewMethod[int, string]("fragment.sized")
		typedrpc.Handle(mux, sized, func(_ context.Context, n int) (string, error) { return testkit.Letters(n), nil })
		p, err := testkit.Join(&typedrpc.Server{Mux: mux}, testkit.BinaryProtocol)
		is.NoErr(err)
		defer p.T.Kill()
		const budget = 400_000
		h := wire.HelloBody{Attempt: 1, Features: testkit.HandFeatures, Limits: wire.Limits{Message: 1 << 20, Calls: 16, Window: 1 << 16, Budget: budget}}
		is.NoErr(p.Send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
		_, err = p.Until(wire.Welcome)
		is.NoErr(err)
		is.NoErr(p.Send(wire.Frame{Type: wire.Ack}))
		sizes := map[uint64]int{1: 150_000, 2: 150_000, 3: 150_000, 4: 500_000, 5: 150_000}
		for id := uint64(1); id <= 5; id++ {
			is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: id, Method: sized.Name(), Payload: []byte(strconv.Itoa(sizes[id]))}))
		}
		underWay := map[uint64]bool{}
		for done := 0; done < len(sizes); {
			f, err := p.Next()
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
	})
	return most
}
