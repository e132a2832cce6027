package e2e_test

import (
	"context"
	"errors"
	"iter"
	"slices"
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

// A peer that has stopped is given up after ten seconds in which it was heard.
const halfSoon, halfLate = 10 * time.Second, 20 * time.Second

// Who goes on with other messages may be one fragment behind, and what ten seconds
// want, at a kibibyte per second.
const behindSoon, behindLate = 70 * time.Second, 100 * time.Second

// halfDone is a server with methods for large messages, and a client by hand.
func halfDone(t *testing.T, limits typedrpc.Limits) (*testkit.RawPeer, *typedrpc.Conn, *int) {
	t.Helper()
	noted := new(int)
	mux := lab.Bidi(lab.Lingers)
	typedrpc.Handle(mux, lab.FlowNote, func(context.Context, string) error { *noted++; return nil })
	typedrpc.Handle(mux, lab.FlowUp, func(ctx context.Context, _ int, seq iter.Seq2[string, error]) (int, error) {
		for _, err := range seq {
			if err != nil {
				return 0, err
			}
		}
		return 7, nil
	})
	p, c := lab.RawClient(t, typedrpc.Binary, &typedrpc.Server{Mux: mux, Limits: limits})
	return p, c, noted
}

// mute is a client by hand that answers nothing.
func mute(t *testing.T) (*typedrpc.Conn, *testkit.Peer) {
	t.Helper()
	l := lab.New()
	l.Mux = lab.Bidi(lab.Lingers)
	opened := make(chan *typedrpc.Conn, 1)
	l.OnConnect = func(c *typedrpc.Conn) { opened <- c }
	p := lab.Rejoin(t, typedrpc.Binary, l.Server, wire.HelloBody{Attempt: 1, Client: "c", Limits: testkit.Roomy, Features: testkit.HandFeatures})
	if _, err := p.Until(wire.Welcome); err != nil {
		t.Fatal(err)
	}
	return <-opened, p
}

func begun(id uint64) wire.Frame {
	return wire.Frame{Type: wire.Call, ID: id, Method: lab.FlowCall.Name(), Flags: wire.More, Payload: testkit.Quoted(1000)}
}

func chunk(id uint64, n int, flags wire.Flags) wire.Frame {
	return wire.Frame{Type: wire.Chunk, ID: id, Flags: wire.FromCaller | flags, Payload: []byte(testkit.Letters(n))}
}

// A fragmented message that does not get on is given up, and its call told.
func TestHalfDone_fragmentsStop(t *testing.T) {
	testkit.Bubble(t, "a call's request", func(t *testing.T, is *is.I) {
		p, c, _ := halfDone(t, typedrpc.Limits{})
		is.NoErr(p.Send(begun(1)))
		time.Sleep(halfSoon - time.Second)
		is.Equal(hook.Conn(c).Partial, 1)
		time.Sleep(halfLate - halfSoon)
		fs := p.Got(wire.Fail)
		is.Equal(len(fs), 1)
		is.True(fs[0].Flags&wire.NotRun != 0)
		is.Equal(typedrpc.Code(fs[0].Code), typedrpc.ResourceExhausted)
		is.NoErr(p.Send(chunk(1, 10, 0))) // what comes late is dropped
		is.NoErr(p.Send(wire.Frame{Type: wire.Cancel, Flags: wire.FromCaller, ID: 1}))
		is.True(p.Alive())
		lab.Settled(t, c)
	})
	for name, f := range map[string]wire.Frame{
		"beside pings":       {Type: wire.Ping},
		"beside small calls": {Type: wire.Call, Method: lab.FlowCall.Name(), Payload: []byte(`"x"`)},
		"beside small parts": chunk(1, 10, wire.More),
	} {
		testkit.Bubble(t, name, func(t *testing.T, is *is.I) {
			p, c, _ := halfDone(t, typedrpc.Limits{})
			is.NoErr(p.Send(begun(1)))
			synctest.Wait()
			began := time.Now()
			for id := uint64(2); hook.Conn(c).Partial > 0; id++ {
				if f.Type == wire.Call {
					f.ID = id
				}
				is.NoErr(p.Send(f))
				synctest.Wait()
				time.Sleep(100 * time.Millisecond)
			}
			is.True(time.Since(began) >= halfSoon && time.Since(began) <= halfLate)
			is.Equal(len(p.Got(wire.Fail)), 1)
			lab.Settled(t, c)
		})
	}
	testkit.Bubble(t, "many at once", func(t *testing.T, is *is.I) {
		p, c, _ := halfDone(t, typedrpc.Limits{})
		for id := range uint64(500) {
			is.NoErr(p.Send(begun(id + 1)))
		}
		time.Sleep(halfLate)
		is.Equal(len(p.Got(wire.Fail)), 500)
		lab.Settled(t, c)
	})
	testkit.Bubble(t, "an item", func(t *testing.T, is *is.I) {
		p, c, _ := halfDone(t, typedrpc.Limits{})
		is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: 1, Kind: wire.ClientStream, Method: lab.FlowUp.Name(), Payload: []byte("1")}))
		is.NoErr(p.Send(wire.Frame{Type: wire.Item, Flags: wire.FromCaller | wire.More, ID: 1, Payload: testkit.Quoted(1000)}))
		time.Sleep(halfLate)
		fs := p.Got(wire.Fail)
		is.Equal(len(fs), 1)
		is.Equal(typedrpc.Code(fs[0].Code), typedrpc.ResourceExhausted)
		is.True(p.Alive())
		lab.Settled(t, c)
	})
	testkit.Bubble(t, "a notification", func(t *testing.T, is *is.I) {
		p, c, noted := halfDone(t, typedrpc.Limits{})
		is.NoErr(p.Send(wire.Frame{Type: wire.Notify, Flags: wire.More, Method: lab.FlowNote.Name(), Payload: testkit.Quoted(1000)}))
		time.Sleep(halfLate)
		is.Equal(hook.Conn(c).Unread, 0) // it holds nothing any more
		is.NoErr(p.Send(wire.Frame{Type: wire.Chunk, Payload: []byte("x")}))
		is.NoErr(p.Send(wire.Frame{Type: wire.Notify, Method: lab.FlowNote.Name(), Payload: []byte(`"next"`)}))
		credit := uint64(0)
		for _, f := range p.Got(wire.Credit) {
			credit += f.Items
		}
		is.Equal(credit, uint64(2)) // it kept its place
		is.Equal(*noted, 1)
		lab.Settled(t, c)
	})
	testkit.Bubble(t, "a response", func(t *testing.T, is *is.I) {
		p, c, _ := lab.RawServer(t, testkit.Roomy, &typedrpc.DialOptions{})
		f := typedrpc.Go(t.Context(), c, lab.FlowCall, "x")
		synctest.Wait()
		is.NoErr(p.Send(wire.Frame{Type: wire.Result, ID: 1, Flags: wire.More, Payload: testkit.Quoted(1000)}))
		began := time.Now()
		_, err := f.Await(t.Context())
		is.True(errors.Is(err, typedrpc.ResourceExhausted))
		is.True(time.Since(began) >= halfSoon && time.Since(began) <= halfLate)
		lab.Settled(t, c)
	})
	testkit.Bubble(t, "an item to its caller", func(t *testing.T, is *is.I) {
		p, c, _ := lab.RawServer(t, testkit.Roomy, &typedrpc.DialOptions{})
		s, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
		is.NoErr(err)
		synctest.Wait()
		is.NoErr(p.Send(wire.Frame{Type: wire.Item, ID: 1, Flags: wire.More, Payload: testkit.Quoted(1000)}))
		began := time.Now()
		_, err = s.Recv()
		is.True(errors.Is(err, typedrpc.ResourceExhausted))
		is.True(time.Since(began) >= halfSoon && time.Since(began) <= halfLate)
		is.NoErr(p.Send(wire.Frame{Type: wire.Result, ID: 1}))
		lab.Settled(t, c)
	})
	testkit.Bubble(t, "when nothing is heard", func(t *testing.T, is *is.I) {
		// The line may stand still: that is the keepalive's.
		c, p := mute(t)
		is.NoErr(p.Send(begun(1)))
		time.Sleep(39 * time.Second)
		is.Equal(hook.Conn(c).Partial, 1)
		time.Sleep(2 * time.Second)
		is.Equal(hook.Conn(c).Partial, 0)
		lab.Settled(t, c)
	})
	testkit.Bubble(t, "when we are not heard", func(t *testing.T, is *is.I) {
		// The peer may wait for acknowledgements: it will find out that the line is dead.
		c, p := mute(t)
		is.NoErr(p.Send(begun(1)))
		began := time.Now()
		for synctest.Wait(); hook.Conn(c).Partial > 0; synctest.Wait() {
			is.NoErr(p.Send(wire.Frame{Type: wire.Ping}))
			time.Sleep(time.Second)
		}
		is.True(time.Since(began) >= behindSoon && time.Since(began) <= behindLate)
		p.T.Kill()
		lab.Settled(t, c)
	})
	testkit.Bubble(t, "unless nobody asks", func(t *testing.T, is *is.I) {
		p, c, _ := halfDone(t, typedrpc.Limits{MinRate: -1})
		is.NoErr(p.Send(begun(1)))
		time.Sleep(time.Hour)
		is.Equal(hook.Conn(c).Partial, 1)
		is.NoErr(p.Send(wire.Frame{Type: wire.Cancel, Flags: wire.FromCaller, ID: 1}))
		lab.Settled(t, c)
	})
}

// One that stops while others get on is given up as well, and neither other
// traffic nor small parts keep many.
func TestHalfDone_stoppedAmongOthers(t *testing.T) {
	testkit.Bubble(t, "one of two", func(t *testing.T, is *is.I) {
		p, c, _ := halfDone(t, typedrpc.Limits{})
		is.NoErr(p.Send(begun(1)))
		is.NoErr(p.Send(begun(2)))
		for range 200 {
			is.NoErr(p.Send(chunk(2, 1200, wire.More)))
			time.Sleep(time.Second)
		}
		fs := p.Got(wire.Fail)
		is.Equal(len(fs), 1)
		is.Equal(fs[0].ID, uint64(1))
		is.Equal(hook.Conn(c).Partial, 1)
		p.T.Kill()
		lab.Settled(t, c)
	})
	testkit.Bubble(t, "one that has lost its turns", func(t *testing.T, is *is.I) {
		p, c, _ := halfDone(t, typedrpc.Limits{})
		for id := range uint64(3) {
			is.NoErr(p.Send(begun(id + 1)))
		}
		for turn := range 10 { // some 65 kB every second
			is.NoErr(p.Send(chunk(2+uint64(turn%2), testkit.Fragment, wire.More)))
			time.Sleep(time.Second)
		}
		fs := p.Got(wire.Fail)
		is.Equal(len(fs), 1)
		is.Equal(fs[0].ID, uint64(1))
		p.T.Kill()
		lab.Settled(t, c)
	})
	testkit.Bubble(t, "beside other traffic", func(t *testing.T, is *is.I) {
		p, c, _ := halfDone(t, typedrpc.Limits{})
		is.NoErr(p.Send(begun(1)))
		synctest.Wait()
		began := time.Now()
		for hook.Conn(c).Partial > 0 {
			is.NoErr(p.Send(wire.Frame{Type: wire.Notify, Method: lab.FlowNote.Name(), Payload: testkit.Quoted(1200)}))
			time.Sleep(time.Second)
		}
		is.True(time.Since(began) >= behindSoon && time.Since(began) <= behindLate)
		is.Equal(len(p.Got(wire.Fail)), 1)
		lab.Settled(t, c)
	})
	testkit.Bubble(t, "a byte for each in turns", func(t *testing.T, is *is.I) {
		p, c, _ := halfDone(t, typedrpc.Limits{})
		for id := range uint64(100) {
			is.NoErr(p.Send(begun(id + 1)))
		}
		for range int(behindLate / time.Second) {
			time.Sleep(time.Second)
			for id := range uint64(100) {
				p.Send(chunk(id+1, 1, wire.More))
			}
		}
		is.Equal(len(p.Got(wire.Fail)), 100)
		lab.Settled(t, c)
	})
}

// Time without a link does not count.
func TestHalfDone_away(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		l.Mux = lab.Bidi(lab.EchoItems)
		h := wire.HelloBody{Attempt: 1, Client: "c", Limits: testkit.Roomy, Features: append([]string{"resume"}, testkit.HandFeatures...)}
		var c *typedrpc.Conn
		l.OnConnect = func(opened *typedrpc.Conn) { c = opened }
		join := func() (*testkit.RawPeer, wire.WelcomeBody) {
			p := lab.Rejoin(t, typedrpc.Binary, l.Server, h)
			f, err := p.Until(wire.Welcome)
			is.NoErr(err)
			w, err := wire.ParseWelcome(f.Payload)
			is.NoErr(err)
			h.Token, h.Attempt = w.Token, h.Attempt+1
			is.NoErr(p.Send(wire.Frame{Type: wire.Ack}))
			raw := &testkit.RawPeer{Peer: p}
			go raw.Collect()
			t.Cleanup(raw.T.Kill)
			return raw, w
		}
		p, _ := join()
		is.NoErr(p.Send(begun(1)))
		for range 3 {
			time.Sleep(3 * time.Second)
			p.T.Kill()
			time.Sleep(20 * time.Second)
			p, _ = join()
		}
		synctest.Wait()
		is.Equal(hook.Conn(c).Partial, 1)  // after nine seconds, and a minute away
		for range halfLate / time.Second { // a line that stands still is the keepalive's
			time.Sleep(time.Second)
			if synctest.Wait(); hook.Conn(c).Partial == 0 {
				break // what says that nothing was received would be wrong from now on
			}
			is.NoErr(p.Send(wire.Frame{Type: wire.Ping}))
		}
		is.Equal(hook.Conn(c).Partial, 0)
		is.Equal(len(p.Got(wire.Fail)), 1)
		lab.Settled(t, c)
	})
}

// Frames that say nothing new are paced, in one message or in many, and those
// beside others are not.
func TestIdleFrames(t *testing.T) {
	for _, test := range []struct {
		name   string
		each   []wire.Frame
		n      int // of them, every second
		closed int
	}{
		{"pings", []wire.Frame{{Type: wire.Ping}}, 1100, session.CloseFlood},
		{"acknowledgements", []wire.Frame{{Type: wire.Ack}}, 1100, session.CloseFlood},
		{"many in a message", slices.Repeat([]wire.Frame{{Type: wire.Ping}}, 10_000), 1, session.CloseFlood},
		{"a few pings", []wire.Frame{{Type: wire.Ping}}, 900, 0},
		{"beside notifications", []wire.Frame{{Type: wire.Ping}, {Type: wire.Notify, Method: lab.FlowNote.Name(), Payload: []byte(`""`)}}, 3000, 0},
	} {
		testkit.Bubble(t, test.name, func(t *testing.T, is *is.I) {
			p, c, _ := halfDone(t, typedrpc.Limits{Window: 1 << 20})
			for range 40 {
				if !p.Alive() {
					break
				}
				for range test.n {
					p.Send(test.each...)
				}
				time.Sleep(time.Second)
			}
			is.Equal(p.Closed(), test.closed)
			p.T.Kill()
			lab.Settled(t, c)
		})
	}
}
