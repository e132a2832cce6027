package session

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing/synctest"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// worldLink is a link, cut in two: what one end writes waits here until the test
// delivers it.
type worldLink struct {
	w       *world
	n       int
	client  *worldClient
	carrier *Carrier // the client's; nil: nobody reads there
	model   *modelLink
	cNet    link.Transport // the network's ends of both halves
	sNet    link.Transport

	// under w.mu
	up, down     []parcel // on their way
	cDead, sDead bool     // the end is gone: nothing reaches it any more
	outcome      outcome  // at the server
	seenUp       int      // of what was ever written, compared with the model
	seenDown     int
	wroteUp      []parcel
	wroteDown    []parcel
}

// parcel is a message, or the end of a link.
type parcel struct {
	msg  []byte
	text bool
	err  error
}

// outcome is what the server made of a HELLO.
type outcome struct {
	said   bool
	kind   verdictKind
	reason string
	sess   *Session
	token  string
}

func (w *world) newLink(c *worldClient) *worldLink {
	l := &worldLink{w: w, n: len(w.links), client: c}
	l.model = &modelLink{name: fmt.Sprintf("link %d", l.n)}
	near, far := link.Pipe()
	l.sNet = far
	w.links = append(w.links, l)
	carrier := NewCarrier(near, (*worldServer)(l), Options{Dialect: w.dialect, Message: 1 << 20})
	go l.pump(l.sNet, &l.down, &l.sDead)
	go func() {
		cause := carrier.Run()
		w.mu.Lock()
		s := l.outcome.sess
		w.mu.Unlock()
		if s == nil {
			return
		}
		switch lost, over := s.Detach(carrier, cause); {
		case over:
			w.reg.Remove(s)
		case lost:
			w.reg.Keep(s, worldGrace, worldHandshake, s.Engine().(*worldEngine).held, func(error) { w.reg.Remove(s) })
		}
	}()
	return l
}

// pump takes what an end writes.
func (l *worldLink) pump(from link.Transport, to *[]parcel, dead *bool) {
	for {
		b, text, err := from.Read(func() {})
		p := parcel{text: text, err: err}
		if err == nil {
			p.msg = slices.Clone(b.B)
			b.Release()
		}
		l.w.mu.Lock()
		*to = append(*to, p)
		if to == &l.up {
			l.wroteUp = append(l.wroteUp, p)
		} else {
			l.wroteDown = append(l.wroteDown, p)
		}
		*dead = *dead || err != nil
		l.w.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Opened and Refused are the client's.
func (l *worldLink) Opened(c *Carrier, b wire.WelcomeBody) error {
	w, cl := l.w, l.client
	w.mu.Lock()
	defer w.mu.Unlock()
	old := cl.sess
	if b.Resumed {
		if old == nil {
			return &link.CloseError{Code: CloseDone, Reason: "given up"}
		}
		if err := old.Attach(c, b.Received, nil); err != nil {
			return err
		}
		cl.token = b.Token
		cl.tokens = append(cl.tokens, b.Token)
		return nil
	}
	if old != nil {
		old.End(errors.New("lost"))
	}
	e := &worldEngine{w: w}
	e.named(b.Token, true)
	e.sess = New(e, w.dialect, true, w.log, nil)
	cl.sess, cl.engine, cl.token = e.sess, e, b.Token
	cl.tokens = append(cl.tokens, b.Token)
	return e.sess.Attach(c, 0, nil)
}

func (l *worldLink) Refused(*wire.ErrorBody) {}

func (l *worldLink) Hello(*Carrier, wire.HelloBody) {}

// worldServer is the server's end of a link, and does what a server does.
type worldServer worldLink

func (l *worldServer) Opened(*Carrier, wire.WelcomeBody) error { return nil }

func (l *worldServer) Refused(*wire.ErrorBody) {}

func (l *worldServer) Hello(c *Carrier, h wire.HelloBody) {
	w := l.w
	q := claimOf(h)
	o := outcome{said: true}
	var ce *link.CloseError
	var err error
	o.sess, o.reason, err = w.reg.Resume(c, q, wire.WelcomeBody{})
	switch {
	case errors.As(err, &ce):
		o.kind = verdictKind(fmt.Sprint(ce.Code))
	case err != nil:
		o.kind = "refused"
	case o.sess != nil:
		o.kind = isResumed
	default:
		o.kind = isNew
		e := &worldEngine{w: w}
		o.sess = New(e, w.dialect, false, w.log, nil)
		e.sess = o.sess
		o.token = w.reg.Add(o.sess, q)
		e.named(o.token, false)
	}
	w.mu.Lock()
	l.outcome = o
	w.mu.Unlock()
	switch o.kind {
	case isResumed:
	case isNew:
		err = o.sess.Attach(c, 0, func(received uint64) wire.WelcomeBody {
			return wire.WelcomeBody{Token: o.token, Reason: o.reason, Received: received}
		})
		if err != nil {
			c.Fail(o.sess.Err())
		}
	case "refused":
		c.Refuse(wire.ErrorBody{Code: 8, Message: "later"}, CloseOverload, "later")
	default:
		c.Fail(ce)
	}
}

// frames reads a message.
func (w *world) frames(p parcel) []wire.Frame {
	if w.dialect == Binary {
		var fs []wire.Frame
		for msg := p.msg; len(msg) > 0; {
			var f wire.Frame
			n, err := wire.DecodeBinary(msg, &f, nil)
			if err != nil {
				w.failf("a message that was written is malformed: %v", err)
				return fs
			}
			fs, msg = append(fs, f), msg[n:]
		}
		return fs
	}
	r := wire.Reader{Hello: true}
	fs, _, err := r.Read(p.msg)
	if err != nil {
		w.failf("a message that was written is malformed: %v", err)
	}
	return slices.Clone(fs)
}

func count(fs []wire.Frame) (counted int, acks []uint64) {
	for i := range fs {
		switch f := &fs[i]; {
		case f.Type.Counted():
			counted++
		case f.Type == wire.Ack, f.Type == wire.Ping:
			acks = append(acks, f.Position)
		}
	}
	return counted, acks
}

// describe says what a message is.
func describe(fs []wire.Frame) string {
	var all []string
	for i := range fs {
		switch f := &fs[i]; f.Type {
		case wire.Ack, wire.Ping:
			all = append(all, fmt.Sprintf("%v %d", f.Type, f.Position))
		case wire.Hello, wire.Welcome:
			all = append(all, f.Type.String())
		default:
			all = append(all, string(f.Payload))
		}
	}
	return strings.Join(all, ", ")
}

func take(w *world, list *[]parcel) (parcel, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(*list) == 0 {
		return parcel{}, false
	}
	p := (*list)[0]
	*list = (*list)[1:]
	return p, true
}

// split makes two messages of the next one: a peer may write smaller ones, or
// acknowledge the beginning of one alone.
func (l *worldLink) split(list *[]parcel, at int) {
	w := l.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(*list) == 0 || (*list)[0].err != nil {
		return
	}
	p := (*list)[0]
	fs := w.frames(p)
	if len(fs) < 2 {
		return
	}
	at = 1 + at%(len(fs)-1)
	w.tracef("the next message on link %d is split after %d of %d frames", l.n, at, len(fs))
	two := []parcel{{text: p.text, msg: encoded(w.dialect, fs[:at]...)}, {text: p.text, msg: encoded(w.dialect, fs[at:]...)}}
	*list = append(two, (*list)[1:]...)
}

// encoded makes a message.
func encoded(d Dialect, fs ...wire.Frame) []byte {
	b := getBatch(d)
	defer b.free()
	for i := range fs {
		b.Add(&fs[i], nil)
	}
	msg, err := b.encode(nil)
	if err != nil {
		panic(err)
	}
	return msg
}

// deliverUp lets the next message to the server arrive.
func (l *worldLink) deliverUp() bool {
	w := l.w
	p, ok := take(w, &l.up)
	if !ok {
		return false
	}
	w.mu.Lock()
	dead := l.sDead
	w.mu.Unlock()
	switch {
	case dead:
		return true
	case p.err != nil:
		code := ends(l.sNet, p.err)
		w.tracef("the server learns that link %d ended (%d)", l.n, code)
		synctest.Wait()
		w.model.serverLost(l.model, code)
		w.settle()
		return true
	}
	fs := w.frames(p)
	w.tracef("link %d brings the server %s", l.n, describe(fs))
	l.sNet.Write(p.msg, p.text, func() {})
	synctest.Wait()
	if fs[0].Type == wire.Hello {
		h, err := wire.ParseHello(fs[0].Payload)
		if err != nil {
			w.failf("HELLO is malformed: %v", err)
			return true
		}
		l.judged(claimOf(h))
	} else if l.model.srv == nil {
		w.failf("link %d is open at the server, and the model's is not", l.n)
	} else {
		counted, acks := count(fs)
		w.model.serverGot(l.model, counted, acks)
	}
	w.settle()
	return true
}

// judged compares what a HELLO got with what it should get.
func (l *worldLink) judged(q Claim) {
	w := l.w
	v := w.model.hello(l.model, q)
	w.mu.Lock()
	o := l.outcome
	w.mu.Unlock()
	w.tracef("  … which is %v", v)
	if o.kind != v.kind || v.kind == isNew && o.reason != v.reason {
		w.failf("HELLO got %s (%s) instead of %v", o.kind, o.reason, v)
		return
	}
	switch v.kind {
	case isResumed:
		if w.reals[v.s] != o.sess {
			w.failf("HELLO got another session")
		}
	case isNew:
		s := w.model.add(l.model, q, o.token)
		w.reals[s] = o.sess
		w.newToken(o.token)
	}
}

func (w *world) newToken(token string) {
	if w.tokens[token] || len(token) != 32 {
		w.failf("token %q is not new", token)
	}
	w.tokens[token] = true
}

// deliverDown lets the next message to the client arrive.
func (l *worldLink) deliverDown() bool {
	w, c := l.w, l.client
	p, ok := take(w, &l.down)
	if !ok {
		return false
	}
	w.mu.Lock()
	dead := l.cDead
	w.mu.Unlock()
	switch {
	case dead:
		return true
	case p.err != nil:
		code := ends(l.cNet, p.err)
		w.tracef("client %d learns that link %d ended (%d)", c.n, l.n, code)
		synctest.Wait()
		l.clientLost(code)
		w.settle()
		return true
	}
	fs := w.frames(p)
	w.tracef("link %d brings client %d %s", l.n, c.n, describe(fs))
	l.cNet.Write(p.msg, p.text, func() {})
	synctest.Wait()
	if fs[0].Type == wire.Welcome {
		b, err := wire.ParseWelcome(fs[0].Payload)
		if err != nil {
			w.failf("WELCOME is malformed: %v", err)
			return true
		}
		if !b.Resumed {
			if c.model != nil {
				c.model.cli.over = true
			}
			c.model = w.named(b.Token)
		}
		if c.model != nil { // else given up
			w.model.clientWelcomed(l.model, c.model, b.Received)
			w.mu.Lock()
			answered := len(l.wroteUp) > l.seenUp
			w.mu.Unlock()
			if !answered {
				w.failf("WELCOME is not acknowledged at once")
			}
		}
	} else if l.model.cli == nil {
		w.failf("link %d is open at the client, and the model's is not", l.n)
	} else {
		counted, acks := count(fs)
		l.model.cli.cli.got(counted, acks)
	}
	w.settle()
	return true
}
