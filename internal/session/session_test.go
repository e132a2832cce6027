package session

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/testkit/live"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// text is a JSON string of n bytes.
func text(n int) []byte { return append(append([]byte{'"'}, bytes.Repeat([]byte("x"), n-2)...), '"') }

// pair opens two sessions over one pipe.
func pair(t *testing.T, d Dialect) (client, server *running) {
	t.Helper()
	return pairLogging(t, d, 0)
}

func pairLogging(t *testing.T, d Dialect, log int) (client, server *running) {
	t.Helper()
	near, far := link.Pipe()
	mk := func(tr link.Transport, isClient bool) *running {
		e := new(engine)
		o := Options{Dialect: d, Client: isClient, Message: 1 << 20}
		return &running{Session: New(e, d, isClient, log, nil), o: o, engine: e, carrier: NewCarrier(tr, e, o)}
	}
	client, server = mk(near, true), mk(far, false)
	server.engine.onHello = func(c *Carrier, h wire.HelloBody) {
		server.accept(c, h.Received, wire.WelcomeBody{Token: "t"})
	}
	client.engine.onOpened = func(c *Carrier, w wire.WelcomeBody) error { return client.Attach(c, w.Received, nil) }
	client.carrier.Hello(wire.HelloBody{Attempt: 1})
	client.run()
	server.run()
	synctest.Wait()
	if len(client.engine.welcomes) != 1 {
		t.Fatal("the sessions did not open")
	}
	return client, server
}

func TestSession_positionsAgree(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		client, server := pair(t, d)
		for i := range 300 {
			client.send(note(i), wire.Frame{Type: wire.Credit, Items: 1}, wire.Frame{Type: wire.Cancel, ID: 1})
			if i%3 == 0 {
				server.send(wire.Frame{Type: wire.Result, ID: 7, Payload: []byte("1")})
				client.GoAway(wire.GoAwayBody{}) // not counted
			}
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		cs, ca, cr := client.Positions()
		ss, sa, sr := server.Positions()
		is.Equal(cs, uint64(900))
		is.Equal(ss, uint64(100))
		is.Equal(sr, cs)
		is.Equal(cr, ss)
		is.Equal(ca, cs) // all acknowledged within a second
		is.Equal(sa, ss)
		is.Equal(server.engine.received(), 900)
		for i, f := range server.engine.got { // in the order in which they were counted
			if i%3 == 0 {
				is.Equal(string(bytes.Trim(f.Payload, "[]")), fmt.Sprint(i/3))
			}
		}
		client.stop()
		<-server.end
	})
}

func TestSession_unknownFramesCountIfTheySaySo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		r := opened(t, Options{Dialect: Binary})
		const counted, uncounted = 30 | 0x80, 30
		is.NoErr(r.raw.write([]byte{counted, 2, 0, 0, 'h', 'i', uncounted, 0, 0, 0, counted, 0, 0, 0}))
		is.NoErr(r.raw.send(wire.Frame{Type: wire.Ping}))
		f, err := r.raw.expect(wire.Ack)
		is.NoErr(err)
		is.Equal(f.Position, uint64(2))
		is.Equal(r.engine.received(), 0) // skipped
		r.stop()
	})
}

func TestSession_unknownNotificationsOfTheJSONDialectAreThePrograms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		r := opened(t, Options{Dialect: JSON})
		is.NoErr(r.raw.write([]byte(`{"jsonrpc":"2.0","method":"rpc.on","params":{}}`)))
		is.NoErr(r.raw.send(wire.Frame{Type: wire.Ping}))
		f, err := r.raw.expect(wire.Ack)
		is.NoErr(err)
		is.Equal(f.Position, uint64(1))
		is.Equal(r.engine.received(), 1)
		r.stop()
	})
}

func TestSession_pingIsAnsweredAtOnce(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := opened(t, Options{Dialect: d})
		is.NoErr(r.raw.send(note(1), note(2)))
		began := time.Now()
		is.NoErr(r.raw.send(wire.Frame{Type: wire.Ping}))
		f, err := r.raw.expect(wire.Ack)
		is.NoErr(err)
		is.Equal(f.Position, uint64(2))
		is.Equal(time.Since(began), time.Duration(0))
		r.stop()
	})
}

func TestSession_acknowledgesAfterASecond(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := opened(t, Options{Dialect: d})
		for i := range uint64(3) {
			began := time.Now()
			is.NoErr(r.raw.send(note(1)))
			f, err := r.raw.expect(wire.Ack)
			is.NoErr(err)
			is.Equal(f.Position, i+1)
			is.Equal(time.Since(began), ackDelay)
		}
		r.stop()
	})
}

func TestSession_acknowledgesAfter64Frames(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := opened(t, Options{Dialect: d})
		began := time.Now()
		for i := range 63 {
			is.NoErr(r.raw.send(note(i)))
		}
		synctest.Wait()
		_, _, received := r.Positions()
		is.Equal(received, uint64(63))
		is.NoErr(r.raw.send(note(63)))
		f, err := r.raw.expect(wire.Ack)
		is.NoErr(err)
		is.Equal(f.Position, uint64(64))
		is.Equal(time.Since(began), time.Duration(0))
		r.stop()
	})
}

func TestSession_acknowledgesAfter64KiB(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := opened(t, Options{Dialect: d})
		began := time.Now()
		is.NoErr(r.raw.send(wire.Frame{Type: wire.Notify, Method: "n", Payload: text(ackBytes)}))
		f, err := r.raw.expect(wire.Ack)
		is.NoErr(err)
		is.Equal(f.Position, uint64(1))
		is.Equal(time.Since(began), time.Duration(0))
		r.stop()
	})
}

func TestSession_positionsThatCannotBe(t *testing.T) {
	for _, typ := range []wire.Type{wire.Ack, wire.Ping} {
		dialects(t, func(t *testing.T, d Dialect) {
			is := is.New(t)
			r := opened(t, Options{Dialect: d})
			r.send(note(1), note(2))
			synctest.Wait()
			is.NoErr(r.raw.send(wire.Frame{Type: typ, Position: 3})) // beyond what was sent
			is.Equal(r.code(), CloseProtocol)
		})
		dialects(t, func(t *testing.T, d Dialect) {
			is := is.New(t)
			r := opened(t, Options{Dialect: d})
			r.send(note(1), note(2))
			synctest.Wait()
			is.NoErr(r.raw.send(wire.Frame{Type: typ, Position: 2}))
			is.NoErr(r.raw.send(wire.Frame{Type: typ, Position: 2})) // may repeat
			synctest.Wait()
			is.NoErr(r.Err())
			is.NoErr(r.raw.send(wire.Frame{Type: typ, Position: 1})) // but not go back
			is.Equal(r.code(), CloseProtocol)
		})
	}
}

func TestSession_malformedFrames(t *testing.T) {
	for name, msg := range map[string][]byte{
		"empty": {}, "truncated": {8}, "too long": {8, 200, 0, 0, 1}, "bad body": {4, 1, 0, 0, 0xff},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				r := opened(t, Options{Dialect: Binary})
				is.NoErr(r.raw.write(msg))
				is.Equal(r.code(), CloseProtocol)
			})
		})
	}
}

func TestSession_authIsAnswered(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := opened(t, Options{Dialect: d})
		is.NoErr(r.raw.send(wire.Frame{Type: wire.Auth, Payload: []byte(`{}`)}))
		f, err := r.raw.expect(wire.AuthOK)
		is.NoErr(err)
		b, err := wire.ParseAuthOK(f.Payload)
		is.NoErr(err)
		is.True(b.Error != nil)
		is.NoErr(r.Err())
		r.stop()
	})
}

// A peer that asks and does not read must not make us hold an answer for every
// question.
func TestSession_authFloodEndsTheLink(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := opened(t, Options{Dialect: d})
		for range 100 { // more than the pipe holds, so that the writer stands still
			r.send(wire.Frame{Type: wire.Notify, Method: "n", Payload: text(60 << 10)})
		}
		synctest.Wait()
		for range 10_000 {
			if r.raw.send(wire.Frame{Type: wire.Auth, Payload: []byte(`{}`)}) != nil {
				break
			}
		}
		synctest.Wait()
		r.carrier.mu.Lock()
		held := len(r.carrier.control)
		r.carrier.mu.Unlock()
		is.True(held <= maxControl)
		is.Equal(r.code(), CloseFlood)
	})
}

func TestSession_goAwayReachesTheEngine(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		client, server := pair(t, d)
		server.GoAway(wire.GoAwayBody{Reason: "draining", Min: 1, Max: 2})
		synctest.Wait()
		is.Equal(client.engine.goaways, []wire.GoAwayBody{{Reason: "draining", Min: 1, Max: 2}})
		client.stop()
		<-server.end
	})
}

func TestSession_controlGoesFirst(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := opened(t, Options{Dialect: d})
		r.engine.mu.Lock()
		r.engine.queue = append(r.engine.queue, note(1))
		r.engine.mu.Unlock()
		r.GoAway(wire.GoAwayBody{Reason: "x"})
		_, err := r.raw.expect(wire.GoAway)
		is.NoErr(err)
		_, err = r.raw.expect(wire.Notify)
		is.NoErr(err)
		r.stop()
	})
}

func TestSession_syncWaitsForTheAcknowledgement(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := opened(t, Options{Dialect: d})
		r.send(note(1), note(2))
		synctest.Wait()
		synced := make(chan struct{})
		go func() { r.Sync(nil); close(synced) }()
		for _, typ := range []wire.Type{wire.Notify, wire.Notify, wire.Ping} { // it asks
			_, err := r.raw.expect(typ)
			is.NoErr(err)
		}
		is.NoErr(r.raw.send(wire.Frame{Type: wire.Ack, Position: 1}))
		synctest.Wait()
		select {
		case <-synced:
			t.Fatal("one of two frames was acknowledged")
		default:
		}
		is.NoErr(r.raw.send(wire.Frame{Type: wire.Ack, Position: 2}))
		<-synced
		r.stop()
	})
}

// What the writer has taken from the engine and not counted yet must be waited
// for too.
func TestSession_syncWaitsForWhatIsBeingTaken(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := opened(t, Options{Dialect: d})
		r.engine.onTake = func() { time.Sleep(time.Millisecond) }
		r.send(note(1))
		synctest.Wait() // the writer is in Take
		synced := make(chan struct{})
		go func() { r.Sync(nil); close(synced) }()
		time.Sleep(10 * time.Second)
		select {
		case <-synced:
			t.Fatal("nothing was acknowledged")
		default:
		}
		is.NoErr(r.raw.send(wire.Frame{Type: wire.Ack, Position: 1}))
		<-synced
		r.stop()
	})
}

func TestSession_syncAsksOnce(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := opened(t, Options{Dialect: d})
		r.send(note(1))
		synctest.Wait()
		done := make(chan struct{})
		time.AfterFunc(3*time.Second, func() { close(done) })
		r.Sync(done)
		_, err := r.raw.expect(wire.Notify)
		is.NoErr(err)
		_, err = r.raw.expect(wire.Ping)
		is.NoErr(err)
		r.stop()
		_, err = r.raw.next()
		is.True(err != nil) // nothing more was sent
	})
}

func TestSession_syncGivesUp(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := opened(t, Options{Dialect: d})
		r.send(note(1))
		synctest.Wait()
		done := make(chan struct{})
		time.AfterFunc(3*time.Second, func() { close(done) })
		began := time.Now()
		r.Sync(done)
		is.Equal(time.Since(began), 3*time.Second)
		time.AfterFunc(2*time.Second, r.raw.t.Kill)
		r.Sync(nil)
		is.Equal(time.Since(began), 5*time.Second)
		<-r.end
		r.Sync(nil) // over: at once
	})
}

func TestSession_closeAfterFlushWritesAllFirst(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := opened(t, Options{Dialect: d})
		const n = 5000 // several batches
		r.engine.mu.Lock()
		for i := range n {
			r.engine.queue = append(r.engine.queue, note(i))
		}
		r.engine.mu.Unlock()
		r.CloseAfterFlush(&link.CloseError{Code: CloseRestart, Reason: "bye"})
		for range n {
			_, err := r.raw.expect(wire.Notify)
			is.NoErr(err)
		}
		is.Equal(r.code(), CloseRestart)
	})
}

func TestSession_idleAsksOncePerSilence(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := opened(t, Options{Dialect: d})
		r.carrier.KeepAlive(20 * time.Second)
		began := time.Now()
		_, err := r.raw.expect(wire.Ping)
		is.NoErr(err)
		is.Equal(time.Since(began), 20*time.Second)
		is.Equal(r.code(), CloseTimeout)
		is.Equal(time.Since(began), 40*time.Second)
		is.True(errors.Is(r.Err(), link.ErrSilent)) // it had no log to outlive that
	})
}

func TestSession_leavesNothingBehind(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		before := live.Goroutines()
		client, server := pair(t, d)
		client.carrier.KeepAlive(time.Second)
		server.carrier.KeepAlive(time.Second)
		client.send(note(1))
		time.Sleep(10 * time.Second)
		client.End(&link.CloseError{Code: CloseDone})
		<-client.end
		<-server.end
		synctest.Wait()
		is.True(live.Goroutines() <= before)
	})
}

func TestSession_frameThatCannotBeEncodedEndsTheLink(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := opened(t, Options{Dialect: d})
		r.send(wire.Frame{Type: wire.Notify}) // no name: a defect of ours
		is.Equal(r.code(), CloseProtocol)
	})
}

// The ACK that empties a full log may come while the engine is being asked: what
// it had did not fit then, and no other ACK will come.
func TestSession_logBecomesEmptyWhileAsked(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := openedLogging(t, Options{Dialect: d}, 200_000)
		r.send(wire.Frame{Type: wire.Notify, Method: "n", Payload: text(80_000)})
		_, err := r.raw.expect(wire.Notify)
		is.NoErr(err)
		synctest.Wait()
		acked := false
		r.engine.onTake = func() {
			if acked {
				return
			}
			acked = true
			is.NoErr(r.raw.send(wire.Frame{Type: wire.Ack, Position: 1}))
			for r.Logged() > 0 {
				time.Sleep(time.Millisecond)
			}
		}
		r.send(wire.Frame{Type: wire.Notify, Method: "n", Payload: text(150_000)})
		stuck := time.AfterFunc(10*time.Second, r.raw.t.Kill)
		defer stuck.Stop()
		_, err = r.raw.expect(wire.Notify)
		is.NoErr(err)
		r.stop()
	})
}
