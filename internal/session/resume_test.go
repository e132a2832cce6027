package session

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// sides runs a test for both dialects, at both ends.
func sides(t *testing.T, f func(t *testing.T, o Options)) {
	for _, client := range []bool{false, true} {
		t.Run(fmt.Sprintf("client %t", client), func(t *testing.T) {
			dialects(t, func(t *testing.T, d Dialect) { f(t, Options{Dialect: d, Client: client}) })
		})
	}
}

// notes are the frames that note makes.
func notes(from, to int) (fs []wire.Frame) {
	for n := from; n < to; n++ {
		fs = append(fs, note(n))
	}
	return fs
}

func number(f wire.Frame) string { return strings.Trim(string(f.Payload), "[]") }

// expectNotes reads the counted frames from to to, and nothing else that counts.
func (p *rawPeer) expectNotes(is *is.I, from, to int) {
	is.Helper()
	for n := from; n < to; {
		f, err := p.next()
		is.NoErr(err)
		if !f.Type.Counted() {
			continue
		}
		is.Equal(number(f), fmt.Sprint(n))
		n++
	}
}

func TestResume_fromEveryPosition(t *testing.T) {
	const n = 12
	sides(t, func(t *testing.T, o Options) {
		for at := range uint64(n + 1) {
			is := is.New(t)
			r := openedLogging(t, o, testLog)
			for _, batch := range [][]wire.Frame{notes(0, 1), notes(1, 4), notes(4, 5), notes(5, 12)} {
				r.send(batch...)
				synctest.Wait()
			}
			r.raw.expectNotes(is, 0, int(at)) // and the rest is lost
			r.cut()
			is.NoErr(r.Err())
			r.again(t, at)
			r.raw.expectNotes(is, int(at), n)
			r.send(note(n))
			r.raw.expectNotes(is, n, n+1)
			sent, acked, _ := r.Positions()
			is.Equal(sent, uint64(n+1))
			is.Equal(acked, at)
			r.stop()
		}
	})
}

// A peer may have read the beginning of a message alone.
func TestResume_acknowledgedInTheMiddleOfAMessage(t *testing.T) {
	sides(t, func(t *testing.T, o Options) {
		is := is.New(t)
		r := openedLogging(t, o, testLog)
		r.send(notes(0, 10)...)
		synctest.Wait()
		is.NoErr(r.raw.send(wire.Frame{Type: wire.Ack, Position: 4}))
		synctest.Wait()
		is.True(r.Logged() > 0) // whole messages are kept
		r.cut()
		r.again(t, 6)
		r.raw.expectNotes(is, 6, 10)
		is.NoErr(r.raw.send(wire.Frame{Type: wire.Ack, Position: 10}))
		synctest.Wait()
		is.Equal(r.Logged(), 0)
		r.stop()
	})
}

// What does not count belongs to a link, and is not sent again.
func TestResume_leavesOutWhatDoesNotCount(t *testing.T) {
	sides(t, func(t *testing.T, o Options) {
		is := is.New(t)
		r := openedLogging(t, o, testLog)
		r.engine.mu.Lock()
		r.engine.queue = notes(0, 5)
		r.engine.mu.Unlock()
		r.GoAway(wire.GoAwayBody{Reason: "draining"})
		synctest.Wait()
		is.NoErr(r.raw.send(wire.Frame{Type: wire.Ping}))
		r.send(notes(5, 7)...)
		synctest.Wait()
		r.raw.expectNotes(is, 0, 7)
		r.cut()
		r.again(t, 0)
		for n := range 7 {
			f, err := r.raw.next()
			is.NoErr(err)
			is.Equal(f.Type, wire.Notify)
			is.Equal(number(f), fmt.Sprint(n))
		}
		f, err := r.raw.next() // all is there: the log can be emptied
		is.NoErr(err)
		is.Equal(f.Type, wire.Ping)
		r.stop()
	})
}

func TestResume_timeLeftBecomesShorter(t *testing.T) {
	sides(t, func(t *testing.T, o Options) {
		is := is.New(t)
		r := openedLogging(t, o, testLog)
		call := func(id, left uint64) wire.Frame {
			return wire.Frame{Type: wire.Call, ID: id, Method: "m", TimeLeft: left, Payload: []byte("[1]")}
		}
		r.send(call(1, 5000), call(2, 0), call(3, 1000), call(4, 1))
		synctest.Wait()
		left := func() (all []uint64) {
			for len(all) < 4 {
				f, err := r.raw.expect(wire.Call)
				is.NoErr(err)
				all = append(all, f.TimeLeft)
			}
			return all
		}
		is.Equal(left(), []uint64{5000, 0, 1000, 1})
		r.cut()
		time.Sleep(900 * time.Millisecond)
		r.again(t, 0)
		is.Equal(left(), []uint64{4100, 0, 100, 1})
		r.cut()
		time.Sleep(100 * time.Millisecond)
		r.again(t, 0)
		is.Equal(left(), []uint64{4000, 0, 1, 1}) // 0 would be no deadline at all
		r.cut()
		time.Sleep(time.Hour)
		r.again(t, 0)
		is.Equal(left(), []uint64{1, 0, 1, 1})
		r.stop()
	})
}

func TestResume_containersStaySmall(t *testing.T) {
	const n = 3000
	sides(t, func(t *testing.T, o Options) {
		is := is.New(t)
		r := openedLogging(t, o, testLog)
		r.engine.mu.Lock()
		r.engine.queue = notes(0, n)
		r.engine.mu.Unlock()
		r.GoAway(wire.GoAwayBody{}) // does not count, and is an element
		synctest.Wait()
		r.cut()
		for _, at := range []int{0, 1, 1023, 1024, 2000} {
			r.again(t, uint64(at))
			for next := at; next < n; {
				fs, err := r.raw.message()
				is.NoErr(err)
				is.True(len(fs) <= wire.MaxBatch)
				for _, f := range fs {
					if f.Type.Counted() {
						is.Equal(number(f), fmt.Sprint(next))
						next++
					}
				}
			}
			r.cut()
		}
		r.stop()
	})
}

func TestResume_cutTwiceInOneReplay(t *testing.T) {
	sides(t, func(t *testing.T, o Options) {
		is := is.New(t)
		r := openedLogging(t, o, testLog)
		for n := range 10 {
			r.send(notes(5*n, 5*n+5)...)
			synctest.Wait()
		}
		r.cut()
		r.again(t, 7)
		r.raw.expectNotes(is, 7, 12)
		r.cut()
		r.again(t, 12)
		r.raw.expectNotes(is, 12, 33)
		r.cut()
		r.again(t, 33)
		r.raw.expectNotes(is, 33, 50)
		is.NoErr(r.raw.send(wire.Frame{Type: wire.Ack, Position: 50}))
		synctest.Wait()
		is.Equal(r.Logged(), 0)
		r.stop()
	})
}

// While it replays, the peer acknowledges what has arrived; or, ahead of all,
// what has not.
func TestResume_acknowledgementsDuringReplay(t *testing.T) {
	big := func(n int) wire.Frame {
		return wire.Frame{Type: wire.Notify, Method: "n", Payload: fmt.Appendf(nil, `[%d,%s]`, n, text(200<<10))}
	}
	for name, early := range map[string]bool{"honest": false, "early": true} {
		t.Run(name, func(t *testing.T) {
			sides(t, func(t *testing.T, o Options) {
				is := is.New(t)
				r := openedLogging(t, o, 4<<20)
				for n := range 8 {
					r.send(big(n))
				}
				for range 8 {
					_, err := r.raw.message()
					is.NoErr(err)
				}
				r.cut()
				r.again(t, 0) // a pipe holds one of them: the writer stands still
				first, err := r.raw.expect(wire.Notify)
				is.NoErr(err)
				is.True(strings.HasPrefix(number(first), "0,"))
				position := uint64(1)
				if early {
					position = 8
				}
				is.NoErr(r.raw.send(wire.Frame{Type: wire.Ack, Position: position}))
				synctest.Wait()
				// Whoever is given the memory of what was acknowledged may write there.
				for range 20 {
					b := buf.Sized(200<<10 + 100)
					b.B = append(b.B, strings.Repeat("#", 200<<10)...)
					defer b.Release()
				}
				is.NoErr(r.raw.send(wire.Frame{Type: wire.Ping, Position: position})) // answered after a message or two
				next, answered, asked := 1, false, early                              // an early ACK leaves nothing to ask for
				for !answered || !asked {
					f, err := r.raw.next()
					is.NoErr(err)
					if f.Type != wire.Notify {
						answered = answered || f.Type == wire.Ack
						asked = asked || f.Type == wire.Ping
						continue
					}
					is.True(strings.HasPrefix(number(f), fmt.Sprintf(`%d,"xxx`, next)))
					is.True(!strings.Contains(string(f.Payload), "#"))
					next++
				}
				if early {
					is.True(next < 8) // what it says to have is not sent
				} else {
					is.Equal(next, 8)
				}
				sent, _, _ := r.Positions()
				is.Equal(sent, uint64(8))
				r.stop()
			})
		})
	}
}

// An ACK of a message that is just being written must not give its memory away.
func TestResume_earlyAckDoesNotFreeWhatIsBeingWritten(t *testing.T) {
	sides(t, func(t *testing.T, o Options) {
		is := is.New(t)
		r := openedLogging(t, o, 4<<20)
		for range 3 {
			r.send(wire.Frame{Type: wire.Notify, Method: "n", Payload: text(100 << 10)})
			synctest.Wait()
		}
		is.NoErr(r.raw.send(wire.Frame{Type: wire.Ack, Position: 3})) // the third is under way
		synctest.Wait()
		is.Equal(r.Logged(), 0)
		var held []*buf.Buf
		for range 20 {
			b := buf.Sized(100<<10 + 50)
			b.B = append(b.B, strings.Repeat("#", 100<<10)...)
			held = append(held, b)
		}
		for range 3 {
			f, err := r.raw.expect(wire.Notify)
			is.NoErr(err)
			is.True(!strings.Contains(string(f.Payload), "#"))
		}
		for _, b := range held {
			b.Release()
		}
		r.stop()
	})
}

func TestResume_positionsThatCannotBe(t *testing.T) {
	for name, position := range map[string]uint64{"beyond what was sent": 6, "below what was acknowledged": 1} {
		t.Run(name, func(t *testing.T) {
			sides(t, func(t *testing.T, o Options) {
				is := is.New(t)
				r := openedLogging(t, o, testLog)
				r.send(notes(0, 5)...)
				r.raw.expectNotes(is, 0, 5)
				is.NoErr(r.raw.send(wire.Frame{Type: wire.Ack, Position: 2}))
				synctest.Wait()
				live := r.carrier
				near, far := link.Pipe()
				other := NewCarrier(near, r.engine, r.o)
				called := false
				err := r.Attach(other, position, func(uint64) wire.WelcomeBody { called = true; return wire.WelcomeBody{} })
				var ce *link.CloseError
				is.True(errors.As(err, &ce))
				is.Equal(ce.Code, CloseProtocol)
				is.True(!called)
				is.Equal(r.Carrier(), live) // nothing has happened to the session
				is.NoErr(live.link.Err())
				_, acked, _ := r.Positions()
				is.Equal(acked, uint64(2))
				r.send(note(5))
				r.raw.expectNotes(is, 5, 6)
				far.Kill()
				r.stop()
			})
		})
	}
}

// overtake gives r another link while the old one's reader or writer stands at
// gate, and opens that a while later, after meanwhile. It returns WELCOME.
func (r *running) overtake(is *is.I, gate chan struct{}, meanwhile func()) wire.WelcomeBody {
	is.Helper()
	near, far := link.Pipe()
	r.carrier, r.raw = NewCarrier(near, r.engine, r.o), &rawPeer{t: far, dialect: r.o.Dialect}
	r.run()
	attached := make(chan error, 1)
	go func() { attached <- r.accept(r.carrier, 0, wire.WelcomeBody{Token: "t"}) }()
	for r.reading.TryLock() { // Attach, or the old reader, has it from here on
		r.reading.Unlock()
		runtime.Gosched()
	}
	meanwhile()
	for range 1000 {
		runtime.Gosched()
	}
	is.Equal(len(attached), 0) // it waits for what is under way
	close(gate)
	is.NoErr(<-attached)
	return r.welcome(is)
}

// Nothing more is read or counted from a link that was fenced off, and what was
// being delivered at that moment counts.
func TestResume_fencesWhileDelivering(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := openedLogging(t, Options{Dialect: d}, testLog)
		old, oldEnd := r.raw, r.end
		gate := make(chan struct{})
		r.engine.onGot = func() { <-gate }
		is.NoErr(old.send(notes(0, 2)...))
		is.NoErr(old.send(note(2)))
		is.NoErr(old.send(note(3)))
		synctest.Wait() // the reader is in the engine
		w := r.overtake(is, gate, func() {})
		synctest.Wait()
		is.Equal(r.engine.received(), int(w.Received)) // what it says is what was taken
		is.True(w.Received >= 2)                       // with all of the message that was
		is.True(superseded(<-oldEnd))
		is.Equal(old.code(), CloseSuperseded)
		_, _, received := r.Positions()
		is.Equal(received, w.Received)
		r.stop()
	})
}

// What was taken for a link that is fenced off is sent again over the new one.
func TestResume_fencesWhileFilling(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := openedLogging(t, Options{Dialect: d}, testLog)
		old, oldEnd := r.raw, r.end
		gate := make(chan struct{})
		r.engine.onTake = func() { <-gate }
		r.send(notes(0, 3)...)
		synctest.Wait()                                                   // the writer is in the engine
		w := r.overtake(is, gate, func() { is.NoErr(old.send(note(7))) }) // its reader has that, and waits
		is.Equal(w.Received, uint64(0))
		synctest.Wait()
		is.Equal(r.engine.received(), 0)
		r.raw.expectNotes(is, 0, 3)
		r.send(note(3))
		r.raw.expectNotes(is, 3, 4)
		is.True(superseded(<-oldEnd))
		is.Equal(old.code(), CloseSuperseded)
		r.stop()
	})
}

// Both ends send as fast as they can while one link is replaced by another, with
// and without a break: everything arrives once, in order.
func TestResume_underLoad(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		const n, links = 4000, 40
		client, server := pairLogging(t, d, 32<<10)
		for _, r := range []*running{client, server} {
			go func() {
				for i := 0; i < n; i += 20 {
					r.send(notes(i, i+20)...)
					time.Sleep(time.Millisecond)
				}
			}()
		}
		for i := range links {
			time.Sleep(time.Duration(rand.N(6)) * time.Millisecond)
			client.cut() // the server finds out by HELLO, or by itself
			if i%2 == 0 {
				<-server.end
			}
			near, far := link.Pipe()
			client.carrier, server.carrier = NewCarrier(near, client.engine, client.o), NewCarrier(far, server.engine, server.o)
			_, _, received := client.Positions()
			client.carrier.Hello(wire.HelloBody{Attempt: uint64(i + 2), Received: received})
			client.run()
			server.run()
			if i%3 == 0 {
				synctest.Wait()
			} else {
				for client.Carrier() == nil {
					time.Sleep(100 * time.Microsecond)
				}
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, r := range []*running{client, server} {
			is.Equal(r.engine.received(), n)
			for i, f := range r.engine.got {
				is.Equal(number(f), fmt.Sprint(i))
			}
			is.Equal(r.Logged(), 0)
		}
		client.stop()
		<-server.end
	})
}

func TestResume_closeCodes(t *testing.T) {
	keeps := []int{0, CloseGoingAway, CloseOverload, CloseTimeout, CloseSuperseded, 1002, 1006, 1011, 4999}
	ends := []int{CloseDone, CloseTooBig, CloseRestart, CloseProtocol, CloseUnauthed, CloseForbidden, CloseFlood}
	for _, client := range []bool{false, true} {
		for _, code := range slices.Concat(keeps, ends) {
			for _, remote := range []bool{false, true} {
				is := is.New(t)
				s := New(new(engine), Binary, client, testLog, nil)
				near, _ := link.Pipe()
				c := NewCarrier(near, new(engine), Options{Client: client})
				is.NoErr(s.Attach(c, 0, func(uint64) wire.WelcomeBody { return wire.WelcomeBody{} }))
				cause := &link.CloseError{Code: code, Remote: remote}
				lost, over := s.Detach(c, cause)
				is.True(lost)
				want := slices.Contains(ends, code)
				is.Equal(over, want)
				is.Equal(s.Err() != nil, want)
				if lost, over := s.Detach(c, cause); lost || over {
					t.Fatal("a link ended twice")
				}
			}
		}
	}
}

// A frame that cannot be encoded leaves a hole in the count, also when the link
// has just been lost for another reason.
func TestResume_noHoleInTheCount(t *testing.T) {
	sides(t, func(t *testing.T, o Options) {
		is := is.New(t)
		r := openedLogging(t, o, testLog)
		r.engine.onTake = func() { r.carrier.Fail(&link.CloseError{Err: errCut}) }
		r.send(wire.Frame{Type: wire.Notify}) // no name: a defect of ours
		<-r.end
		is.True(r.Err() != nil)
		is.Equal(r.Attach(r.carrier, 0, nil), ErrEnded)
	})
}
