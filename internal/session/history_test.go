package session

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/link"
)

// A history is what happens to a world: an operation is two bytes, so that any
// bytes are a history.
type history struct {
	dialect Dialect
	log     int // bytes of the replay log
	maxAway int
	clients int
	ops     []op
}

type op struct {
	kind opKind
	arg  byte
}

type opKind byte

const (
	opClientSends opKind = iota
	opServerSends
	opUp    // messages arrive at the server
	opDown  // messages arrive at the client
	opBoth  // everything of a link arrives
	opCut   // of a link, at the client, at the server, or both
	opDial  // the client gives up its link and says HELLO on another
	opRogue // a HELLO that no honest client says
	opSleep
	opClientEnds
	opServerEnds
	opLogout
	opSplit // the next message becomes two
	opBusy  // the server's end gets something to do, or has done it
)

// lots has each kind as often as it is to happen.
var lots = [64]opKind{
	0, 0, 0, 0, 0, 0, 0, 13, 1, 1, 1, 1, 1, 1, 1, 13,
	2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3,
	3, 3, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5, 5, 6, 6, 6,
	6, 6, 6, 6, 7, 7, 12, 8, 8, 8, 12, 8, 9, 10, 11, 12,
}

// parseHistory makes any bytes a history.
func parseHistory(data []byte) history {
	h := history{log: 1 << 20, maxAway: 100, clients: 2}
	if len(data) == 0 {
		return h
	}
	head := data[0]
	if head&1 != 0 {
		h.dialect = JSON
	}
	if head&2 != 0 {
		h.log = 600 // some frames
	}
	if few := head >> 2 & 7; few < 4 {
		h.maxAway = 1 + int(few)
	}
	h.clients += int(head >> 5 & 3)
	for data = data[1:]; len(data) >= 2 && len(h.ops) < 300; data = data[2:] {
		h.ops = append(h.ops, op{lots[data[0]%64], data[1]})
	}
	return h
}

func randomHistory(seed uint64) history {
	rng := rand.New(rand.NewPCG(seed, 1))
	data := make([]byte, 1+2*(10+rng.IntN(120)))
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	return parseHistory(data)
}

// play runs a history in a bubble of its own, and returns what the model found
// and what happened.
func play(t *testing.T, h history) (trace []string, err error) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(h.dialect, h.clients, h.log, h.maxAway)
		for _, o := range h.ops {
			if w.do(o); w.failed() != nil {
				break
			}
		}
		if w.failed() == nil {
			w.heal()
		}
		trace, err = w.trace, w.failed()
		w.close()
		if err == nil {
			err = w.failed()
		}
	})
	return trace, err
}

var sleeps = [...]time.Duration{300 * time.Millisecond, 1100 * time.Millisecond, 7 * time.Second, 11 * time.Second, 31 * time.Second, 20 * time.Millisecond, 2 * time.Second, 4 * time.Second}

func (w *world) do(o op) {
	c := w.clients[int(o.arg)%len(w.clients)]
	n := int(o.arg >> 1)
	switch o.kind {
	case opClientSends:
		if c.sess != nil {
			w.tracef("client %d sends %d", c.n, 1+n%8)
			c.engine.send(1 + n%8)
			w.settle()
		}
	case opServerSends:
		if s := w.sessionOf(c); s != nil {
			w.tracef("the server sends %d to %.4s", 1+n%8, s.name)
			w.reals[s].Engine().(*worldEngine).send(1 + n%8)
			w.settle()
		}
	case opUp, opDown:
		if l := w.busy(c, n>>2, o.kind == opUp); l != nil {
			for range 1 + n%4 {
				if o.kind == opUp {
					l.deliverUp()
				} else {
					l.deliverDown()
				}
			}
		}
	case opBoth:
		if l := w.linkOf(c, n); l != nil {
			for l.deliverUp() || l.deliverDown() {
			}
		}
	case opSplit:
		if l := w.busy(c, 0, n%2 == 0); l != nil && n%2 == 0 {
			l.split(&l.up, n>>1)
		} else if l != nil {
			l.split(&l.down, n>>1)
		}
	case opCut:
		if l := w.linkOf(c, n>>2); l != nil {
			if n%4 != 0 {
				w.tracef("link %d breaks at the client", l.n)
				l.cutClient()
			}
			if n%4 != 1 {
				w.tracef("link %d breaks at the server", l.n)
				l.cutServer()
			}
		}
	case opDial:
		c.dial()
		w.settle()
	case opRogue:
		w.rogue(c, n)
	case opSleep:
		w.sleep(sleeps[n%len(sleeps)])
	case opClientEnds:
		if c.sess != nil {
			w.tracef("client %d closes", c.n)
			bye := &link.CloseError{Code: []int{CloseDone, CloseGoingAway}[n%2], Reason: "bye"}
			if l := c.model.cli.link; l != nil {
				l.cli, c.model.cli.link = nil, nil
			}
			c.model = nil
			if c.sess.End(bye) {
				c.sess, c.token = nil, ""
			}
			w.settle()
		}
	case opBusy:
		if s := w.sessionOf(c); s != nil {
			e := w.reals[s].Engine().(*worldEngine)
			s.busy = !s.busy
			w.tracef("%.4s is busy: %t", s.name, s.busy)
			e.mu.Lock()
			e.busy = s.busy
			e.mu.Unlock()
		}
	case opServerEnds, opLogout:
		if s := w.sessionOf(c); s != nil {
			w.tracef("the server ends %.4s", s.name)
			if o.kind == opLogout {
				w.reg.Remove(w.reals[s])
			}
			if w.reals[s].End(&link.CloseError{Code: []int{CloseRestart, CloseUnauthed}[n%2], Reason: "bye"}) {
				w.reg.Remove(w.reals[s])
			}
			synctest.Wait()
			w.model.end(s)
			w.settle()
		}
	}
}

// sessionOf is the latest session of a client that the server has.
func (w *world) sessionOf(c *worldClient) (last *modelSession) {
	for _, s := range w.model.all {
		if s.principal == c.principal && s.client == c.name() {
			last = s
		}
	}
	return last
}

// linkOf is one of a client's links, the latest for n 0.
func (w *world) linkOf(c *worldClient, n int) *worldLink {
	var all []*worldLink
	for i := len(w.links) - 1; i >= 0; i-- {
		if l := w.links[i]; l.client == c && !(l.cDead && l.sDead) {
			all = append(all, l)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[n%len(all)]
}

// busy is one of those of a client's links that have something on the way.
func (w *world) busy(c *worldClient, n int, up bool) *worldLink {
	var all []*worldLink
	for i := len(w.links) - 1; i >= 0; i-- {
		l := w.links[i]
		if l.client == c && (up && len(l.up) > 0 || !up && len(l.down) > 0) {
			all = append(all, l)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[n%len(all)]
}

// rogue says a HELLO on a link that nobody reads.
func (w *world) rogue(c *worldClient, n int) {
	q := c.claim()
	if len(c.tokens) > 0 {
		q.Token = c.tokens[len(c.tokens)-1]
	}
	what := n % 8
	if what != 2 && what != 3 {
		c.attempt++ // a second tab with the same memory, say
	}
	q.Attempt = c.attempt
	switch what {
	case 0:
		q.Principal = "thief"
		q.Attempt += 1000
	case 1: // an old token
		if len(c.tokens) > 0 {
			q.Token = c.tokens[(n>>3)%len(c.tokens)]
		}
	case 2: // this attempt was made
	case 3:
		q.Attempt -= min(q.Attempt, 1)
	case 4:
		q.Terms.Features = "something else"
	case 5:
		q.Received += 1000
	case 6:
		q.Token = "guessed"
	case 7: // another link with a token that is good
	}
	l := w.newLink(c)
	l.cDead = true
	p := parcel{text: w.dialect == JSON, msg: encoded(w.dialect, helloFrame(helloOf(q)))}
	l.up = []parcel{p}
	w.tracef("link %d: %s says HELLO, attempt %d, with token %.4s at %d (%d)", l.n, q.Principal, q.Attempt, q.Token, q.Received, what)
	l.deliverUp()
}

// shrink takes operations away for as long as the history fails.
func shrink(t *testing.T, h history) history {
	fails := func(ops []op) bool {
		try := h
		try.ops = ops
		_, err := play(t, try)
		return err != nil
	}
	for size := len(h.ops) / 2; size > 0; {
		shorter := false
		for from := 0; from+size <= len(h.ops); {
			ops := append(append([]op(nil), h.ops[:from]...), h.ops[from+size:]...)
			if fails(ops) {
				h.ops, shorter = ops, true
			} else {
				from += size
			}
		}
		if !shorter || size > len(h.ops) {
			size /= 2
		}
	}
	for i := range h.ops { // and makes those that are left small
		for _, arg := range []byte{0, 1, h.ops[i].arg & 3, h.ops[i].arg & 7} {
			if arg >= h.ops[i].arg {
				continue
			}
			ops := append([]op(nil), h.ops...)
			ops[i].arg = arg
			if fails(ops) {
				h.ops = ops
				break
			}
		}
	}
	return h
}

// check plays a history, and reports it as short as possible if it fails.
func check(t *testing.T, h history) {
	t.Helper()
	trace, err := play(t, h)
	if err == nil {
		return
	}
	long := len(h.ops)
	short := shrink(t, h)
	if again, err2 := play(t, short); err2 != nil {
		h, trace, err = short, again, err2
	} // else it fails now and then
	if len(trace) > 80 {
		trace = trace[len(trace)-80:]
	}
	t.Fatalf("after %d operations (of %d; dialect %d, log %d, %d clients, at most %d away):\n\t%s\n%v",
		len(h.ops), long, h.dialect, h.log, h.clients, h.maxAway, strings.Join(trace, "\n\t"), err)
}

// More of them: HISTORIES=20000 go test -run Histories_random. A panic tells no
// history; -v tells its seed.
func TestHistories_random(t *testing.T) {
	n := uint64(500)
	if v, err := strconv.ParseUint(os.Getenv("HISTORIES"), 10, 64); err == nil {
		n = v
	}
	if testing.Short() {
		n = 50
	}
	for seed := range n {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { check(t, randomHistory(seed)) })
	}
}

func FuzzSessions(f *testing.F) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		data := make([]byte, 1+2*(10+rng.IntN(40)))
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) { check(t, parseHistory(data)) })
}

// The histories go where they should: else they would find nothing.
func TestHistories_areRich(t *testing.T) {
	is := is.New(t)
	seen := map[string]int{}
	for seed := range uint64(60) {
		trace, err := play(t, randomHistory(seed))
		is.NoErr(err)
		for _, line := range trace {
			for _, what := range []string{
				"which is resumed", "which is a new session (no such session)", "which is a new session",
				"which is 4409", "which is 4400", ReasonDiffers, "(1000)", "(1001)", "(1012)", "(4409)", "(4401)",
			} {
				if strings.Contains(line, what) {
					seen[what]++
				}
			}
		}
	}
	t.Log(seen)
	is.True(seen["which is resumed"] > 50)
	is.True(len(seen) >= 10)
}
