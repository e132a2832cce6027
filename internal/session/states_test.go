package session

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// states brings a session into each state that it can be in.
var states = map[string]struct {
	enter        func(t *testing.T, o Options) *running
	linked, over bool
}{
	"new": {
		enter: func(t *testing.T, o Options) *running {
			r := startLogging(o, testLog)
			synctest.Wait()
			return r
		},
	},
	"linked": {
		enter: func(t *testing.T, o Options) *running {
			r := openedLogging(t, o, testLog)
			r.send(notes(0, 3)...)
			r.raw.expectNotes(is.New(t), 0, 3)
			return r
		},
		linked: true,
	},
	"away": {
		enter: func(t *testing.T, o Options) *running {
			r := openedLogging(t, o, testLog)
			r.send(notes(0, 3)...)
			synctest.Wait()
			r.cut()
			return r
		},
	},
	"back": {
		enter: func(t *testing.T, o Options) *running {
			r := openedLogging(t, o, testLog)
			r.send(notes(0, 3)...)
			synctest.Wait()
			r.cut()
			r.again(t, 1)
			r.raw.expectNotes(is.New(t), 1, 3)
			return r
		},
		linked: true,
	},
	"over": {
		enter: func(t *testing.T, o Options) *running {
			r := openedLogging(t, o, testLog)
			r.stop()
			return r
		},
		over: true,
	},
}

// inStates runs a test in every state.
func inStates(t *testing.T, f func(t *testing.T, is *is.I, r *running, linked, over bool)) {
	for name, s := range states {
		t.Run(name, func(t *testing.T) {
			sides(t, func(t *testing.T, o Options) { f(t, is.New(t), s.enter(t, o), s.linked, s.over) })
		})
	}
}

var errBye = &link.CloseError{Code: CloseRestart, Reason: "bye"}

func TestStates_end(t *testing.T) {
	inStates(t, func(t *testing.T, is *is.I, r *running, linked, over bool) {
		alone := r.End(errBye)
		is.Equal(alone, !linked && !over) // nobody else will tell
		is.True(!r.End(errors.New("again")))
		select {
		case <-r.Done():
		default:
			t.Fatal("it goes on")
		}
		if !over {
			is.Equal(r.Err(), error(errBye)) // the first cause
		}
		if linked {
			is.Equal(r.code(), CloseRestart)
		}
		synctest.Wait()
		is.Equal(r.Logged(), 0)
		is.True(r.Carrier() == nil)
		near, _ := link.Pipe()
		is.Equal(r.accept(NewCarrier(near, r.engine, r.o), 0, wire.WelcomeBody{}), ErrEnded)
		r.stop()
		time.Sleep(time.Minute) // no timer wakes anything
	})
}

func TestStates_closeAfterFlush(t *testing.T) {
	inStates(t, func(t *testing.T, is *is.I, r *running, linked, over bool) {
		alone := r.CloseAfterFlush(errBye)
		is.Equal(alone, !linked && !over)
		if linked {
			is.Equal(r.code(), CloseRestart)
		}
		is.True(r.Err() != nil)
		r.stop()
	})
}

// A link that is lost before all was written is no reason to forget the rest.
func TestStates_closeAfterFlushOverTwoLinks(t *testing.T) {
	sides(t, func(t *testing.T, o Options) {
		is := is.New(t)
		r := openedLogging(t, o, testLog)
		for range 8 { // more than a pipe holds
			r.send(wire.Frame{Type: wire.Notify, Method: "n", Payload: text(60 << 10)})
		}
		synctest.Wait()
		is.True(!r.CloseAfterFlush(errBye))
		r.cut()
		is.NoErr(r.Err())
		r.again(t, 0)
		for range 8 {
			for {
				f, err := r.raw.next()
				is.NoErr(err)
				if f.Type == wire.Notify {
					break
				}
			}
		}
		is.Equal(r.code(), CloseRestart)
		is.Equal(r.Err(), error(errBye))
	})
}

func TestStates_sync(t *testing.T) {
	inStates(t, func(t *testing.T, is *is.I, r *running, linked, over bool) {
		sent, _, _ := r.Positions()
		synced := make(chan struct{})
		go func() { r.Sync(nil); close(synced) }()
		time.Sleep(time.Hour)
		select {
		case <-synced:
			is.True(over || sent == 0) // else it waits
		default:
			is.True(!over)
		}
		switch {
		case over:
		case linked:
			is.NoErr(r.raw.send(wire.Frame{Type: wire.Ack, Position: sent}))
		case sent > 0: // what the peer says of itself in the next opening counts
			r.again(t, sent)
		}
		<-synced
		r.stop()
	})
	inStates(t, func(t *testing.T, is *is.I, r *running, linked, over bool) { // until its end
		stopped := make(chan struct{})
		go func() { time.Sleep(time.Minute); r.stop(); r.End(errCut); close(stopped) }()
		r.Sync(nil)
		<-stopped
	})
}

// Sync goes on over the next link.
func TestStates_syncOverTwoLinks(t *testing.T) {
	sides(t, func(t *testing.T, o Options) {
		is := is.New(t)
		r := openedLogging(t, o, testLog)
		r.send(notes(0, 3)...)
		synctest.Wait()
		r.cut()
		synced := make(chan struct{})
		go func() { r.Sync(nil); close(synced) }()
		r.again(t, 1)
		r.raw.expectNotes(is, 1, 3)
		is.NoErr(r.raw.send(wire.Frame{Type: wire.Ack, Position: 3}))
		<-synced
		r.stop()
	})
}

func TestStates_whatNeedsALinkDoesNothingWithout(t *testing.T) {
	inStates(t, func(t *testing.T, is *is.I, r *running, linked, over bool) {
		is.Equal(r.Carrier() != nil, linked)
		if linked {
			r.stop()
			return
		}
		was := r.Err()
		r.Wake()
		r.Probe()
		r.GoAway(wire.GoAwayBody{})
		is.Equal(r.Err(), was)
		lost, ended := r.Detach(r.carrier, errCut)
		is.True(!lost && !ended)
		r.stop()
	})
}

// The round trip of an opening is not that of what it made to be sent again.
func TestStates_roundTripOfAResume(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := openedLogging(t, Options{Dialect: d}, testLog)
		r.send(notes(0, 3)...)
		synctest.Wait()
		r.cut()
		r.again(t, 1)
		time.Sleep(50 * time.Millisecond)
		is.NoErr(r.raw.send(wire.Frame{Type: wire.Ack, Position: 1})) // at once; the rest takes a while
		time.Sleep(time.Second)
		is.NoErr(r.raw.send(wire.Frame{Type: wire.Ack, Position: 3}))
		synctest.Wait()
		is.Equal(r.RTT(), 50*time.Millisecond)
		r.stop()
	})
}

// An attempt whose link is gone when it succeeds is like one that was lost at once.
func TestStates_attachToADeadLink(t *testing.T) {
	sides(t, func(t *testing.T, o Options) {
		is := is.New(t)
		r := openedLogging(t, o, testLog)
		old := r.end
		near, far := link.Pipe()
		r.dial(near, far)
		r.carrier.Fail(&link.CloseError{Err: errCut})
		synctest.Wait()
		is.NoErr(r.accept(r.carrier, 0, wire.WelcomeBody{}))
		lost, over := r.Detach(r.carrier, errCut)
		is.True(lost && !over)
		is.True(superseded(<-old))
		r.again(t, 0)
		r.send(note(0))
		r.raw.expectNotes(is, 0, 1)
		r.stop()
	})
}
