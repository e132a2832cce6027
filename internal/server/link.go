package server

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/replay"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Link is one accepted link: it authenticates, and then carries a
// connection's session, a new one or one that lost its link.
type Link struct {
	server   *Server
	carrier  *session.Carrier
	req      *http.Request
	adm      Admission
	account  flow.Account   // pays for messages while they are being received
	auths    sync.WaitGroup // the authentication under way
	accepted *Accepted      // whose session it carries; nil: of nobody yet
	reads    uint64         // how deep what the peer reads may nest; 0: it has not said

	// under Server.mu; at most one of them
	answered bool // its HELLO is being answered
	refused  bool // or never will be
}

// Start serves an accepted link on a goroutine of its own, so that net/http's
// goroutine and buffers are free for the life of the connection.
func (s *Server) Start(t link.Transport, a Admission, r *http.Request) *Link {
	l := &Link{server: s, req: r, adm: a}
	l.carrier = engine.NewCarrier(t, &s.o.Config, a.dialect, l, false)
	l.account.Open(s.o.Config.Ledger, l.evicted)
	l.carrier.Charge(&l.account)
	s.mu.Lock()
	s.links[l] = struct{}{}
	s.mu.Unlock()
	if a.dialect == session.Plain { // no handshake: open before anybody looks
		l.carrier.KeepAlive(s.o.Config.Limits.KeepAlive)
		err := l.accept(beginning{grant: a.grant, peer: s.o.Config.Limits.PlainPeer(), check: a.check})
		s.endCheck(a.check)
		switch err { // since the request was admitted
		case nil:
		case errDraining:
			l.carrier.Fail(&link.CloseError{Code: session.CloseRestart, Reason: err.Message})
		default: // errRevoked
			end, _ := s.revokedWith(a.check, a.grant.id.Subject).end(session.CloseUnauthed, JSONCodec)
			l.carrier.Fail(end)
		}
	}
	go l.serve()
	return l
}

// serve reads the link until it ends.
func (l *Link) serve() {
	defer l.served() // also if a handler has ended this goroutine
	l.carrier.Run()
}

// served is called when the link has ended.
func (l *Link) served() {
	s, cause := l.server, l.carrier.Err()
	l.account.Close()
	l.auths.Wait()
	if l.accepted != nil {
		l.accepted.linkEnded(l.carrier, l.accepted.parted(cause))
	}
	s.release(l.adm)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.links, l)
	s.checkEndedLocked()
}

// evicted ends the link whose message, half received, is the most that anybody
// holds of the ledger, which is nearly full.
func (l *Link) evicted() {
	l.server.o.Config.Logger.Warn("typedrpc: link closed: the message that it is receiving is the most of Server.MaxMemory, which is nearly full", "bytes", l.account.Used())
	l.carrier.Fail(&link.CloseError{Code: session.CloseBudget, Reason: "the server is nearly full, and this connection holds the most of it"})
}

// Wait waits until it is known whose link it is, and returns that connection.
func (l *Link) Wait() *engine.Conn {
	l.auths.Wait()
	return l.accepted.conn
}

// Hello authenticates on a goroutine of its own: the reader goes on, and so
// learns that the client left or spoke too early.
func (l *Link) Hello(_ *session.Carrier, h wire.HelloBody) {
	h.Credentials = slices.Clone(h.Credentials)
	held := len(h.Credentials) + len(h.Schema)
	l.account.Force(held)
	l.auths.Go(func() {
		defer l.account.Give(held)
		l.hello(h)
	})
}

// Opened and Refused are the client's.
func (l *Link) Opened(*session.Carrier, wire.WelcomeBody) error { return nil }
func (l *Link) Refused(*wire.ErrorBody)                         {}

func (l *Link) hello(h wire.HelloBody) {
	s := l.server
	check := s.beginCheck()
	defer s.endCheck(check)
	g, err := l.authenticate(h)
	if err != nil {
		l.refuse(err)
		return
	}
	if !l.answer() {
		g.release(context.Canceled)
		return
	}
	f := engine.SharedFeatures(l.adm.dialect, s.features(), h.Features)
	q := session.Claim{
		Principal: g.id.Subject, Owner: ownerOf(g.id, l.req), Client: h.Client, Token: h.Token, Attempt: h.Attempt, Received: h.Received,
		Terms: session.Terms{
			Subprotocol: cmp.Or(l.adm.meant, l.adm.Subprotocol), Limits: flow.AnnouncedBy(h.Limits),
			Features: digest(h.Features),
		},
	}
	if len(q.Client) > maxClientName {
		q.Client = ""
	}
	w := s.welcome(g, f)
	sess, reason, err := s.registry.Resume(l.carrier, q, w)
	switch {
	case err != nil:
		g.release(err)
		l.unresumed(err)
		return
	case sess != nil:
		l.resumed(sess, g)
		return
	}
	if !s.registry.May(q.Owner) {
		g.release(session.ErrTooMany)
		l.refuse(&status.Error{Code: status.ResourceExhausted, Message: session.ErrTooMany.Error(), RetryAfter: time.Second})
		return
	}
	w.Reason = reason
	differ := s.o.Prints.Differ(h.Schema)
	w.Schema = differ.Answer
	switch err := l.accept(beginning{g, q.Terms.Limits, f, replay.CheckCache(h.Cache), q, check, &w}); err {
	case nil:
		if differ.Count > 0 {
			s.o.Config.Logger.Warn("typedrpc: the peer's schema differs", "names", differ.Names, "differ", differ.Count, "remote", l.req.RemoteAddr)
		}
	case errDraining: // what is there may go on, but nothing begins
		g.release(err)
		l.carrier.Refuse(l.fit(s.o.Refusal(err, l.adm.codec)), session.CloseRestart, err.Message)
	case errRevoked:
		g.release(err)
		l.refuseRevoked(s.revokedWith(check, g.id.Subject))
	default:
		g.release(err)
		l.refuse(err)
	}
}

// authenticate asks the program who sends a HELLO. What it is asked with has to be what the
// server reads, and what it replies what the client does.
func (l *Link) authenticate(h wire.HelloBody) (grant, error) {
	l.reads = flow.AnnouncedBy(h.Limits).Depth
	o := &l.server.o
	if most := o.Config.Limits.MaxDepth; o.Authenticate != nil && engine.TooDeep(h.Credentials, l.adm.dialect, uint64(most)) {
		return grant{}, status.Errorf(status.InvalidArgument, "the credentials nest too deep: the server reads %d levels", most)
	}
	g, err := l.server.authenticateLink(l.carrier, l.req, l.adm.codec, h.Credentials)
	switch {
	case err != nil:
	case engine.TooDeep(g.reply, l.adm.dialect, l.reads):
		err = errDeepReply
	case len(g.reply) > maxReply:
		err = status.Errorf(status.Internal, "the reply to the credentials takes %d bytes in a handshake, which has room for %d", len(g.reply), maxReply)
	}
	if err != nil {
		g.release(err)
		return grant{}, err
	}
	return g, nil
}

// maxReply is what of a WELCOME, which has 64 KiB, a reply or the data of a refusal may take.
const maxReply = 56 << 10

// unresumed refuses a link that claims a session, because of err.
func (l *Link) unresumed(err error) {
	var ce *link.CloseError
	var barred *session.Barred
	switch {
	case errors.As(err, &ce):
		l.carrier.Fail(ce)
	case errors.As(err, &barred):
		l.refuseRevoked(barred.Why.(*Parting))
	default: // too often
		l.refuse(&status.Error{Code: status.ResourceExhausted, Message: err.Error(), RetryAfter: time.Second})
	}
}

// welcome is what a peer is told that is let in.
func (s *Server) welcome(g grant, f engine.Features) wire.WelcomeBody {
	w := wire.WelcomeBody{
		Reply:     g.reply,
		Limits:    s.o.Config.Limits.Announced(),
		Features:  s.features(),
		Keepalive: flow.Millis(s.o.Config.Limits.KeepAlive),
		Expires:   expiresIn(g.id),
		Cache:     s.o.Config.Replays.ID(),
	}
	if f.Resume {
		w.Grace = flow.Millis(s.o.Config.Limits.Grace)
	}
	return w
}

// answer begins the answer to a HELLO. It reports false for a link that has
// failed: to give that a session would be the session's end.
func (l *Link) answer() bool {
	l.server.mu.Lock()
	defer l.server.mu.Unlock()
	select {
	case <-l.carrier.Done():
		return false
	default:
	}
	l.answered = !l.refused
	return l.answered
}

var (
	errDraining = status.Errorf(status.Unavailable, "the server is shutting down")
	errRevoked  = status.Errorf(status.Unauthenticated, "the identity was revoked")
)

// digest stands for a list of features, which may be long, for the life of a
// session.
func digest(features []string) string {
	sum := sha256.Sum256([]byte(strings.Join(slices.Sorted(slices.Values(features)), "\n")))
	return string(sum[:])
}

// maxClientName bounds what a client calls itself, because it is kept with the
// session. A longer name is none.
const maxClientName = 64

// refuse answers a HELLO with an error.
func (l *Link) refuse(err error) {
	e, code, foreign := refusalOf(err)
	l.server.logRefusal(l.req, err, foreign)
	l.carrier.Refuse(l.fit(l.server.o.Refusal(e, l.adm.codec)), code, e.Message)
}

// fit is b without its data where that nests deeper than the peer reads, or is larger, who
// would take it for a broken message, and stay away.
func (l *Link) fit(b wire.ErrorBody) wire.ErrorBody {
	if len(b.Data) > maxReply || engine.TooDeep(b.Data, l.adm.dialect, l.reads) {
		b.Data, b.Fault = nil, ""
	}
	return b
}

var errDeepReply = status.Errorf(status.Internal, "the reply to the credentials nests deeper than the client reads, see Limits.MaxDepth")

// beginning is what a connection begins with.
type beginning struct {
	grant
	peer wire.Limits
	engine.Features
	cache   string // the identity of the peer's cache of answers
	claim   session.Claim
	check   *check            // nil: a plain peer, as is …
	welcome *wire.WelcomeBody // … one without
}

// accept begins a connection, and announces it. It returns why it may not.
func (l *Link) accept(o beginning) *status.Error {
	s, w := l.server, o.welcome
	base := context.WithoutCancel(engine.WithoutRequest(l.req.Context()))
	if o.id.Context != nil {
		base = engine.WithoutRequest(o.id.Context)
	}
	a := &Accepted{server: s, codec: l.adm.codec, began: time.Now().UnixNano()}
	id := o.id
	a.identity.Store(&id)
	c := s.newConn(base, a, l.adm.dialect, l.adm.codec, &s.o.Config)
	a.conn, a.sess = c, c.NewSession(o.Features)
	c.Opened(a.sess, o.peer, o.Features, o.cache) // before anybody can find it, and end it
	var refused *status.Error
	s.mu.Lock()
	switch {
	case s.draining:
		refused = errDraining
	case o.check != nil && o.check.revoked[o.id.Subject] != nil:
		refused = errRevoked
	default:
		s.accepted[a] = struct{}{}
		s.subjects.add(a)
		s.begun++
		a.number = uint32(s.begun)
	}
	s.mu.Unlock()
	if refused != nil {
		c.Discard(refused)
		return refused
	}
	l.accepted = a
	a.identify(o.grant, l.req, nil)
	if w != nil {
		w.Token = s.registry.Add(a.sess, o.claim)
	}
	err := a.sess.Attach(l.carrier, 0, func(received uint64) wire.WelcomeBody {
		a.open.Store(true) // before WELCOME: a client whose Dial returned is among Conns
		w.Received = received
		return *w
	})
	if err != nil { // ended already: its identity was revoked, or has
		s.registry.Remove(a.sess)
		l.accepted = nil
		l.carrier.Fail(a.sess.Err())
		return nil
	}
	a.open.Store(true) // also where there is no WELCOME
	l.began()
	if greet := s.o.OnConnect(c); greet != nil {
		a.greets.Go(greet)
	}
	return nil
}

// resumed goes on with a connection whose session has this link now.
func (l *Link) resumed(sess *session.Session, g grant) {
	a := engine.Of(sess.Engine()).Keeper().(*Accepted)
	l.accepted = a
	a.identify(g, l.req, l.carrier)
	l.began()
	a.found()
}

// began starts what belongs to a link that is open.
func (l *Link) began() {
	if l.adm.dialect != session.Plain {
		l.carrier.KeepAlive(l.server.o.Config.Limits.KeepAlive)
	}
	l.account.Own(l.accepted.conn.Account().Owner())
	l.accepted.conn.LinkUp(l.accepted.sess)
}
