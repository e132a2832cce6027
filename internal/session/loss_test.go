package session

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
)

// A loss is a point of the opening at which the link breaks.
type loss int

const (
	helloLost loss = iota
	helloLate      // it arrives when the client has long dialled again
	welcomeLost
	ackLost
	numLosses
)

func (l loss) String() string {
	return [...]string{"HELLO lost", "HELLO late", "WELCOME lost", "ACK lost"}[l]
}

// notice is when the server learns of the break.
type notice int

const (
	atOnce     notice = iota
	never             // before the next HELLO
	afterwards        // after the next HELLO
	numNotices
)

func (n notice) String() string { return [...]string{"at once", "never", "afterwards"}[n] }

// lose dials and breaks the link at a point. It returns what is to be done when
// the client has dialled again.
func (w *world) lose(c *worldClient, at loss, when notice) (then func()) {
	l := c.dial()
	w.settle()
	then = func() {}
	switch at {
	case helloLost:
		l.cutServer()
		l.cutClient()
		return then
	case helloLate:
		l.cutClient()
		return func() {
			for l.deliverUp() {
			}
		}
	case welcomeLost:
		l.deliverUp()
		l.cutClient()
	case ackLost:
		l.deliverUp()
		for l.deliverDown() {
		}
		w.mu.Lock()
		l.up = nil // all that the client sent after WELCOME
		w.mu.Unlock()
		l.cutClient()
	}
	switch when {
	case atOnce:
		l.cutServer()
	case afterwards:
		then = func() {
			w.mu.Lock()
			l.up = nil
			w.mu.Unlock()
			l.cutServer()
		}
	}
	return then
}

// Whatever is lost of the opening, once or twice in a row, of a new session or
// of one that goes on: it is neither lost nor doubled.
func TestLosses_ofTheOpening(t *testing.T) {
	for _, d := range []Dialect{Binary, JSON} {
		for _, resumed := range []bool{false, true} {
			for first := range numLosses {
				for second := loss(-1); second < numLosses; second++ {
					for when := range numNotices {
						name := fmt.Sprintf("%d/resumed %t/%v", d, resumed, first)
						if second >= 0 {
							name += " and " + second.String()
						}
						t.Run(name+", noticed "+when.String(), func(t *testing.T) {
							synctest.Test(t, func(t *testing.T) { lossOfTheOpening(t, d, resumed, first, second, when) })
						})
					}
				}
			}
		}
	}
}

func lossOfTheOpening(t *testing.T, d Dialect, resumed bool, first, second loss, when notice) {
	is := is.New(t)
	w := newWorld(d, 1, 1<<20, 100)
	defer func() {
		w.close()
		if err := w.failed(); err != nil {
			for _, line := range w.trace {
				t.Log(line)
			}
			t.Fatal(err)
		}
	}()
	c := w.clients[0]
	var session *modelSession
	if resumed {
		l := c.dial()
		w.settle()
		w.deliverAll()
		session = c.model
		c.engine.send(5)
		w.reals[session].Engine().(*worldEngine).send(7)
		w.settle()
		l.deliverUp() // they have arrived, and nobody knows
		l.cutClient()
		if when == atOnce {
			l.cutServer()
		}
	}
	var later []func()
	for _, at := range []loss{first, second} {
		if at < 0 {
			continue
		}
		later = append(later, w.lose(c, at, when))
		if s := w.sessionOf(c); s != nil { // both send all the time
			w.reals[s].Engine().(*worldEngine).send(2)
		}
		if c.sess != nil {
			c.engine.send(3)
		}
		w.settle()
		if at == helloLost || at == welcomeLost {
			w.sleep(50 * time.Millisecond)
		}
	}
	c.dial()
	w.settle()
	w.deliverAll()
	for _, f := range later {
		f()
		w.settle()
	}
	w.deliverAll()
	is.True(c.sess != nil && c.link != nil)
	c.engine.send(2)
	w.reals[c.model].Engine().(*worldEngine).send(2)
	for range 20 {
		w.sleep(2 * time.Second)
		w.deliverAll()
	}
	is.Equal(len(w.model.all), 1) // and the registry is compared with that
	switch {
	case resumed:
		is.Equal(c.model, session) // the session that there was
	case first == ackLost:
		is.Equal(len(w.reals), 1) // its client had the token
	}
	server := w.reals[c.model].Engine().(*worldEngine)
	is.Equal(c.engine.received, server.ready)
	is.Equal(server.received, c.engine.ready)
	if resumed {
		is.True(c.engine.ready >= 7 && server.ready >= 9)
	}
}
