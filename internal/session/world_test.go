package session

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// world is a server and its clients, with a network between them that does what
// a test tells it to, and the model next to all that. Whoever makes a step calls
// settle after it, which compares. A world lives in a bubble.
type world struct {
	dialect Dialect
	log     int
	reg     *Registry
	model   model
	clients []*worldClient
	links   []*worldLink
	reals   map[*modelSession]*Session // the server's
	tokens  map[string]bool            // ever offered
	first   map[string]firstSeen       // CALLs by what they are
	trace   []string
	mu      sync.Mutex
	err     error
}

// firstSeen is when a CALL was written for the first time, and the time left
// that it had.
type firstSeen struct {
	at   time.Time
	left uint64
}

const (
	worldGrace     = 30 * time.Second
	worldHandshake = 10 * time.Second
	worldTimeLeft  = 5000
)

func newWorld(d Dialect, clients, log, maxAway int) *world {
	w := &world{
		dialect: d, log: log, reg: &Registry{MaxSessions: maxAway, MaxBytes: 1 << 40},
		model:  model{now: time.Now(), maxAway: maxAway, grace: worldGrace, handshake: worldHandshake},
		reals:  map[*modelSession]*Session{},
		tokens: map[string]bool{}, first: map[string]firstSeen{},
	}
	for i := range clients {
		c := &worldClient{w: w, n: i}
		if i < 2 { // the others are of one address
			c.principal = fmt.Sprintf("user%d", i)
		}
		w.clients = append(w.clients, c)
	}
	return w
}

func (w *world) failf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
	}
}

func (w *world) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (w *world) tracef(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

// worldEngine sends frames that say who they are, and checks those that arrive.
type worldEngine struct {
	w        *world
	own      string // begins the name of its frames
	peer     string // and of those it gets
	mu       sync.Mutex
	sess     *Session
	ready    int // frames made
	taken    int
	received int
	busy     bool // what it says when it is asked
}

func (e *worldEngine) held() Held {
	e.mu.Lock()
	defer e.mu.Unlock()
	return Held{Bytes: e.sess.Logged(), Busy: e.busy}
}

func (e *worldEngine) frame(n int) wire.Frame {
	p := fmt.Appendf(nil, `["%s",%d]`, e.own, n)
	switch n % 3 {
	case 0:
		return wire.Frame{Type: wire.Notify, Method: "n", Payload: p}
	case 1:
		return wire.Frame{Type: wire.Call, ID: uint64(n), Method: "c", TimeLeft: worldTimeLeft, Payload: p}
	default:
		return wire.Frame{Type: wire.Result, ID: uint64(n), Payload: p}
	}
}

func (e *worldEngine) send(n int) {
	e.mu.Lock()
	e.ready += n
	e.mu.Unlock()
	e.sess.Wake()
}

func (e *worldEngine) Take(b *Batch) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.taken < e.ready {
		f := e.frame(e.taken)
		if !b.Fits(&f, 0) {
			return
		}
		b.Add(&f, nil)
		e.taken++
	}
}

func (e *worldEngine) Receive(f *wire.Frame, _ *buf.Buf) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if want := fmt.Sprintf(`["%s",%d]`, e.peer, e.received); string(f.Payload) != want {
		e.w.failf("%s was delivered instead of %s", f.Payload, want)
	}
	e.received++
	return nil
}

func (e *worldEngine) ReceiveArray([]wire.Frame, *buf.Buf) error { return nil }
func (e *worldEngine) Malformed(err error) error                 { return err }
func (e *worldEngine) Odd([]wire.Oddity)                         {}
func (e *worldEngine) Ours(id uint64) bool                       { return false }

func (e *worldEngine) GoAway(wire.GoAwayBody) {}

func (e *worldEngine) Auth(*Carrier, wire.AuthBody) {}

func (e *worldEngine) AuthOK(wire.AuthOKBody) error { return nil }

// named gives the frames of both ends their names, after the session's first
// token.
func (e *worldEngine) named(token string, client bool) {
	e.own, e.peer = "down "+token[:8], "up "+token[:8]
	if client {
		e.own, e.peer = e.peer, e.own
	}
}

// worldClient does what a dialer does.
type worldClient struct {
	w         *world
	n         int
	principal string
	attempt   uint64
	token     string
	tokens    []string // all it ever had
	sess      *Session
	engine    *worldEngine
	model     *modelSession // of sess
	link      *worldLink    // dialled, or open; nil: none
}

func (c *worldClient) name() string { return fmt.Sprint("nonce", c.n) }

func (c *worldClient) claim() Claim {
	q := Claim{
		Principal: c.principal, Client: c.name(), Token: c.token, Attempt: c.attempt,
		Terms: Terms{Features: "as ever"},
	}
	if c.sess != nil {
		_, _, q.Received = c.sess.Positions()
	}
	return q
}

// dial gives up the link that there is, and says HELLO on another one.
func (c *worldClient) dial() *worldLink {
	w := c.w
	if c.link != nil {
		c.link.carrier.Fail(&link.CloseError{Err: errCut})
		w.settle()
	}
	c.attempt++
	l := w.newLink(c)
	q := c.claim()
	near, far := link.Pipe()
	l.cNet = far
	l.carrier = NewCarrier(near, l, Options{Dialect: w.dialect, Client: true, Message: 1 << 20})
	l.carrier.Hello(helloOf(q))
	c.link = l
	go l.pump(l.cNet, &l.up, &l.cDead)
	go func() {
		cause := l.carrier.Run()
		w.mu.Lock()
		defer w.mu.Unlock()
		if c.link == l {
			c.link = nil
		}
		if c.sess == nil {
			return
		}
		if _, over := c.sess.Detach(l.carrier, cause); over {
			c.sess, c.token = nil, ""
		}
	}()
	w.tracef("client %d dials link %d, attempt %d, with token %.4s at %d", c.n, l.n, q.Attempt, q.Token, q.Received)
	return l
}

// The principal goes as credentials, the terms as features.
func helloOf(q Claim) wire.HelloBody {
	return wire.HelloBody{
		Attempt: q.Attempt, Client: q.Client, Token: q.Token, Received: q.Received,
		Credentials: fmt.Appendf(nil, "%q", q.Principal), Features: []string{q.Terms.Features},
	}
}

func claimOf(h wire.HelloBody) Claim {
	q := Claim{
		Principal: strings.Trim(string(h.Credentials), `"`), Client: h.Client, Token: h.Token,
		Attempt: h.Attempt, Received: h.Received, Terms: Terms{Features: strings.Join(h.Features, " ")},
	}
	if q.Owner = q.Principal; q.Owner == "" {
		q.Owner = fmt.Sprint("address ", q.Attempt/4%2) // they move
	}
	return q
}

// named finds a session by its first token; one that is over counts.
func (w *world) named(token string) *modelSession {
	for s := range w.reals {
		if s.name == token {
			return s
		}
	}
	w.failf("WELCOME has the token of no session")
	return nil
}

func (l *worldLink) clientLost(code int) {
	if l.w.model.clientLost(l.model, code) {
		l.client.model = nil
	}
}

// ends passes an end on, and returns its code.
func ends(t link.Transport, err error) int {
	var ce *link.CloseError
	if errors.As(err, &ce) {
		t.Close(ce.Code, ce.Reason)
		return ce.Code
	}
	t.Kill()
	return 0
}

// cutClient breaks the client's half; what was on its way there is lost.
func (l *worldLink) cutClient() {
	w := l.w
	if l.cNet != nil {
		l.cNet.Kill()
	}
	w.mu.Lock()
	l.down = nil
	gone := l.cDead
	l.cDead = true
	w.mu.Unlock()
	synctest.Wait()
	if !gone {
		l.clientLost(0)
	}
	w.settle()
}

// cutServer breaks the server's half.
func (l *worldLink) cutServer() {
	w := l.w
	l.sNet.Kill()
	w.mu.Lock()
	l.up = nil
	gone := l.sDead
	l.sDead = true
	w.mu.Unlock()
	synctest.Wait()
	if !gone {
		w.model.serverLost(l.model, 0)
	}
	w.settle()
}

func (w *world) sleep(d time.Duration) {
	w.tracef("%v pass", d)
	time.Sleep(d)
	synctest.Wait()
	w.model.pass(d)
	w.settle()
	if d < ackDelay {
		return
	}
	for s := range w.reals {
		for _, e := range []*modelEnd{&s.srv, &s.cli} {
			if e.link != nil && !e.over && e.stated != e.received {
				w.failf("%d frames of %.4s are not acknowledged in time", e.received-e.stated, s.name)
			}
		}
	}
}

// settle waits until nothing moves, and compares everything with the model.
func (w *world) settle() {
	synctest.Wait()
	for _, l := range w.links {
		if w.failed() != nil {
			return
		}
		w.mu.Lock()
		up, down := l.wroteUp[l.seenUp:], l.wroteDown[l.seenDown:]
		l.seenUp, l.seenDown = len(l.wroteUp), len(l.wroteDown)
		w.mu.Unlock()
		for _, p := range down {
			w.written(l, p, false)
		}
		for _, p := range up {
			w.written(l, p, true)
		}
	}
	for s, real := range w.reals {
		w.compare("the server's "+s.name[:4], &s.srv, real)
	}
	for _, c := range w.clients {
		if (c.sess == nil) != (c.model == nil) {
			w.failf("client %d has a session: %t", c.n, c.sess != nil)
		} else if c.sess != nil {
			w.compare(fmt.Sprintf("client %d's %.4s", c.n, c.model.name), &c.model.cli, c.sess)
		}
	}
	w.compareRegistry()
}

// written compares a message that an end wrote.
func (w *world) written(l *worldLink, p parcel, up bool) {
	if p.err != nil {
		if up { // the client gave the link up
			l.clientLost(codeOf(p.err))
		} else if l.model.srv != nil {
			w.model.serverLost(l.model, codeOf(p.err))
		}
		return
	}
	s, at := l.model.srv, &l.model.down
	if up {
		s, at = l.model.cli, &l.model.up
	}
	var e *modelEnd
	if s != nil && up {
		e = &s.cli
	} else if s != nil {
		e = &s.srv
	}
	fs := w.frames(p)
	for i := range fs {
		f := &fs[i]
		switch {
		case f.Type == wire.Hello || f.Type == wire.AuthOK:
			continue
		case e == nil:
			w.failf("link %d carries %s, and the model's no session", l.n, describe(fs))
			return
		case f.Type == wire.Welcome:
			b, _ := wire.ParseWelcome(f.Payload)
			if b.Received != e.received {
				w.failf("WELCOME says %d instead of %d", b.Received, e.received)
			}
			e.stated = b.Received
			if s.offered == "" {
				s.offered = b.Token
				w.newToken(b.Token)
			}
			if b.Token != s.offered {
				w.failf("WELCOME offers another token than the last one")
			}
		case f.Type == wire.Ack || f.Type == wire.Ping:
			// A PING may leave while a message is being taken, which counts at its end.
			if f.Position != e.received && !(f.Type == wire.Ping && e.stated <= f.Position && f.Position < e.received) {
				w.failf("%v says %d instead of %d", f.Type, f.Position, e.received)
			}
			e.stated = f.Position
		default:
			dir := "down"
			if up {
				dir = "up"
			}
			name := fmt.Sprintf(`["%s %.8s",%d]`, dir, s.name, *at)
			if string(f.Payload) != name {
				w.failf("link %d carries %s instead of %s", l.n, f.Payload, name)
				return
			}
			*at++
			e.sent = max(e.sent, *at)
			if f.Type == wire.Call {
				w.timeLeft(name, f.TimeLeft)
			}
		}
	}
}

// timeLeft checks that the time left of what is sent again has become shorter.
func (w *world) timeLeft(name string, left uint64) {
	was, again := w.first[name]
	if !again {
		w.first[name] = firstSeen{time.Now(), left}
		return
	}
	want := uint64(1)
	if late := uint64(time.Since(was.at) / time.Millisecond); late < was.left {
		want = was.left - late
	}
	if left != want {
		w.failf("%s has %d ms left instead of %d", name, left, want)
	}
}

func codeOf(err error) int {
	var ce *link.CloseError
	if errors.As(err, &ce) {
		return ce.Code
	}
	return 0
}

func (w *world) compare(who string, m *modelEnd, real *Session) {
	sent, acked, received := real.Positions()
	real.mu.Lock()
	covered := covers(&real.log, acked, sent)
	full := real.log.bytes > w.log && real.log.bytes > real.log.all[real.log.head].msg.Len()
	real.mu.Unlock()
	switch {
	case (real.Err() != nil) != m.over:
		w.failf("%s is over: %v", who, real.Err())
	case m.over:
	case sent < m.sent || acked != m.acked || received != m.received:
		w.failf("%s is at %d, %d, %d instead of %d, %d, %d (sent, acknowledged, received)",
			who, sent, acked, received, m.sent, m.acked, m.received)
	case (real.Carrier() != nil) != (m.link != nil):
		w.failf("%s has a link: %t", who, real.Carrier() != nil)
	case !covered:
		w.failf("%s keeps %d bytes, and not just what is between %d and %d", who, real.Logged(), acked, sent)
	case full:
		w.failf("%s keeps %d bytes", who, real.Logged())
	}
}

// covers reports whether a log has the frames after acked up to sent, and no
// message without any of them.
func covers(l *replay, acked, sent uint64) bool {
	at := sent
	bytes := 0
	for i := len(l.all) - 1; i >= l.head; i-- {
		s := l.all[i]
		if s.end != at || at <= acked {
			return false
		}
		at -= uint64(s.frames)
		bytes += s.msg.Len()
	}
	return at <= acked && bytes == l.bytes
}

func (w *world) compareRegistry() {
	r := w.reg
	r.mu.Lock()
	defer r.mu.Unlock()
	tokens := 0
	for _, s := range w.model.all {
		e := r.entries[w.reals[s]]
		if e == nil {
			w.failf("the registry has lost session %.4s", s.name)
			continue
		}
		confirmed, offered := e.confirmed, e.offered
		if offered != "" && e.s.Heard() { // found out when somebody asks
			confirmed, offered = offered, ""
		}
		if confirmed != s.confirmed || offered != s.offered {
			w.failf("tokens of %.4s are %.4s and %.4s instead of %.4s and %.4s",
				s.name, confirmed, offered, s.confirmed, s.offered)
		}
		for _, token := range []string{e.confirmed, e.offered} {
			if token != "" {
				tokens++
				if r.byToken[token] != e {
					w.failf("token %.4s leads nowhere", token)
				}
			}
		}
	}
	if len(r.entries) != len(w.model.all) || len(r.byToken) != tokens || r.away.Len() != len(w.model.away) {
		w.failf("the registry has %d sessions, %d tokens and %d away instead of %d, %d and %d",
			len(r.entries), len(r.byToken), r.away.Len(), len(w.model.all), tokens, len(w.model.away))
	}
	if len(r.byClient) > len(r.entries) {
		w.failf("clients without sessions are remembered")
	}
	w.compareKept()
}

// deliverAll delivers until nothing is on its way.
func (w *world) deliverAll() {
	for moved := true; moved && w.failed() == nil; {
		moved = false
		for _, l := range w.links {
			moved = l.deliverUp() || moved
			moved = l.deliverDown() || moved
		}
	}
}

// heal gives every client a link that works, waits until everything has arrived,
// and checks that it has.
func (w *world) heal() {
	w.tracef("the network heals")
	w.deliverAll()
	for _, l := range slices.Clone(w.links) {
		l.cutClient()
		l.cutServer()
	}
	for _, c := range w.clients {
		c.dial()
		w.deliverAll()
	}
	for range 60 {
		if w.failed() != nil {
			return
		}
		w.sleep(2 * time.Second)
		w.deliverAll()
	}
	if len(w.model.all) != len(w.clients) {
		w.failf("%d clients have %d sessions", len(w.clients), len(w.model.all))
	}
	for _, c := range w.clients {
		if c.link == nil || c.sess == nil || c.model == nil {
			w.failf("client %d has no session in the end", c.n)
			return
		}
		server := w.reals[c.model].Engine().(*worldEngine)
		if c.engine.received != server.ready || server.received != c.engine.ready {
			w.failf("%d of %d frames arrived at client %d, and %d of %d at its server",
				c.engine.received, server.ready, c.n, server.received, c.engine.ready)
		}
		for _, s := range []*Session{c.sess, w.reals[c.model]} {
			if s.Logged() != 0 {
				w.failf("%d bytes are kept in the end", s.Logged())
			}
		}
	}
}

// close ends everything.
func (w *world) close() {
	for _, c := range w.clients {
		if c.sess != nil {
			c.sess.End(errors.New("the test is over"))
		}
	}
	for _, s := range w.reals {
		s.End(errors.New("the test is over"))
		w.reg.Remove(s)
	}
	for _, l := range w.links {
		if l.cNet != nil {
			l.cNet.Kill()
		}
		l.sNet.Kill()
	}
	synctest.Wait()
	time.Sleep(2 * time.Second) // timers of links and of acknowledgements
	synctest.Wait()
	if sessions, bytes := w.reg.Away(); sessions != 0 || bytes != 0 {
		w.failf("%d sessions of %d bytes are away when all have ended", sessions, bytes)
	}
	if w.reg.sweep != nil {
		w.failf("the registry's timer goes on")
	}
}
