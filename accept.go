package typedrpc

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// serverLink is one accepted link: it authenticates, and then carries a
// connection's session, a new one or one that lost its link.
type serverLink struct {
	server   *Server
	carrier  *session.Carrier
	req      *http.Request
	adm      admission
	auths    sync.WaitGroup // the authentication under way
	accepted *accepted      // whose session it carries; nil: of nobody yet

	// under Server.mu; at most one of them
	answered bool // its HELLO is being answered
	refused  bool // or never will be
}

// accepted is the server's side of a connection, which outlives its links.
type accepted struct {
	server *Server
	conn   *Conn
	sess   *session.Session
	greets sync.WaitGroup // OnConnect, and authentications of a live link
	open   atomic.Bool    // among Conns; OnConnect was called

	mu       sync.Mutex
	request  *http.Request // the upgrade of the latest link
	first    identified    // handlers' contexts derive from this one's
	latest   identified    // of a later link, or of an AUTH
	expire   *time.Timer
	over     bool
	renewals []renewal // AUTHs that wait
	renewing bool      // and one is being handled
}

// identified is a grant in use.
type identified struct {
	grant
	unwatch func() bool // of its context; nil: it has none
}

func (i *identified) release(cause error) {
	if i.unwatch != nil {
		i.unwatch()
	}
	i.grant.release(cause)
}

// grant is what an authentication gave.
type grant struct {
	id    Identity
	reply []byte
	end   context.CancelCauseFunc // of what id.Context may derive from; nil: nothing
}

func (g *grant) release(cause error) {
	if g.end != nil {
		g.end(cause)
	}
}

// start serves an accepted link on a goroutine of its own, so that net/http's
// goroutine and buffers are free for the life of the connection.
func (s *Server) start(t link.Transport, a admission, r *http.Request) *serverLink {
	l := &serverLink{server: s, req: r, adm: a}
	l.carrier = newCarrier(t, &s.config, a.dialect, l, false)
	s.mu.Lock()
	s.links[l] = struct{}{}
	s.mu.Unlock()
	if a.dialect == session.Plain { // no handshake: open before anybody looks
		l.carrier.KeepAlive(s.config.limits.KeepAlive)
		err := l.accept(beginning{grant: a.grant, peer: s.config.limits.plainPeer(), check: a.check})
		s.endCheck(a.check)
		switch err { // since the request was admitted
		case nil:
		case errDraining:
			l.carrier.Fail(&link.CloseError{Code: session.CloseRestart, Reason: err.Message})
		default:
			l.carrier.Fail(&link.CloseError{Code: session.CloseUnauthed, Reason: err.Message})
		}
	}
	go l.serve()
	return l
}

// serve reads the link until it ends.
func (l *serverLink) serve() {
	s := l.server
	cause := l.carrier.Run()
	l.auths.Wait()
	if l.accepted != nil {
		l.accepted.linkEnded(l.carrier, cause)
	}
	s.release(l.adm)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.links, l)
	s.checkEndedLocked()
}

// linkEnded keeps the session for a while, or ends the connection.
func (a *accepted) linkEnded(c *session.Carrier, cause error) {
	switch lost, over := a.sess.Detach(c, cause); {
	case over:
		a.end(a.sess.Err())
	case lost:
		a.conn.linkDown()
		limits := &a.server.config.limits
		a.server.registry.Keep(a.sess, limits.Grace, limits.HandshakeTimeout, a.conn.holds, a.end)
	}
}

// end ends the connection, when its session is over.
func (a *accepted) end(cause error) {
	s, c := a.server, a.conn
	s.registry.Remove(a.sess)
	c.lost(a.sess, cause)
	announced := a.open.Swap(false)
	c.finish(cause)
	a.mu.Lock()
	a.over = true
	if a.expire != nil {
		a.expire.Stop()
	}
	a.first.release(cause)
	a.latest.release(cause)
	a.mu.Unlock()
	a.greets.Wait()
	if announced && s.OnDisconnect != nil {
		s.OnDisconnect(c, c.Err())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.accepted, a)
	s.checkEndedLocked()
}

// Hello authenticates on a goroutine of its own: the reader goes on, and so
// learns that the client left or spoke too early.
func (l *serverLink) Hello(_ *session.Carrier, h wire.HelloBody) {
	h.Credentials = slices.Clone(h.Credentials)
	l.auths.Go(func() { l.hello(h) })
}

// Opened and Refused are the client's.
func (l *serverLink) Opened(*session.Carrier, wire.WelcomeBody) error { return nil }
func (l *serverLink) Refused(*wire.ErrorBody)                         {}

func (l *serverLink) hello(h wire.HelloBody) {
	s := l.server
	check := s.beginCheck()
	defer s.endCheck(check)
	g, err := s.authenticateLink(l.carrier, l.req, l.adm.codec, h.Credentials)
	if err != nil {
		l.refuse(err)
		return
	}
	if !l.answer() {
		g.release(context.Canceled)
		return
	}
	f := sharedFeatures(l.adm.dialect, s.features(), h.Features)
	q := session.Claim{
		Principal: g.id.Subject, Client: h.Client, Token: h.Token, Attempt: h.Attempt, Received: h.Received,
		Terms: session.Terms{
			Subprotocol: l.adm.subprotocol, Limits: announcedBy(h.Limits),
			Features: digest(h.Features),
		},
	}
	if len(q.Client) > maxClientName {
		q.Client = ""
	}
	w := wire.WelcomeBody{
		Reply:     wrapAuth(l.adm.codec, g.reply),
		Limits:    s.config.limits.announced(),
		Features:  s.features(),
		Keepalive: millis(s.config.limits.KeepAlive),
		Expires:   expiresIn(g.id),
		Cache:     s.config.replays.id,
	}
	if f.resume {
		w.Grace = millis(s.config.limits.Grace)
	}
	sess, reason, err := s.registry.Resume(l.carrier, q, w)
	var ce *link.CloseError
	switch {
	case errors.As(err, &ce):
		g.release(err)
		l.carrier.Fail(ce)
		return
	case err != nil: // too often
		g.release(err)
		l.refuse(&Error{Code: ResourceExhausted, Message: err.Error(), RetryAfter: time.Second})
		return
	case sess != nil:
		l.resumed(sess, g)
		return
	}
	w.Reason = reason
	switch err := l.accept(beginning{g, q.Terms.Limits, f, checkCache(h.Cache), q, check, &w}); err {
	case nil:
	case errDraining: // what is there may go on, but nothing begins
		g.release(err)
		l.carrier.Refuse(s.refusalBody(err, l.adm.codec), session.CloseRestart, err.Message)
	default:
		g.release(err)
		l.refuse(err)
	}
}

// answer begins the answer to a HELLO. It reports false for a link that has
// failed: to give that a session would be the session's end.
func (l *serverLink) answer() bool {
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
	errDraining = Errorf(Unavailable, "the server is shutting down")
	errRevoked  = Errorf(Unauthenticated, "the identity was revoked")
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
func (l *serverLink) refuse(err error) {
	e, code, foreign := refusalOf(err)
	l.server.logRefusal(l.req, err, foreign)
	l.carrier.Refuse(l.server.refusalBody(e, l.adm.codec), code, e.Message)
}

// authenticateLink runs the user's Authenticate with what HELLO or AUTH brought
// over c, for as long as that lives.
func (s *Server) authenticateLink(c *session.Carrier, r *http.Request, codec Codec, raw []byte) (g grant, err error) {
	if s.Authenticate.run == nil {
		return g, nil
	}
	ctx, cancel, stop := s.bounded(context.WithoutCancel(r.Context()))
	defer stop()
	returned := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-c.Done():
			cancel(context.Canceled)
		case <-returned:
		}
	})
	creds, err := unwrapAuth(codec, raw)
	if err == nil {
		g.id, g.reply, err = s.authenticate(ctx, r, creds, codec)
	}
	close(returned)
	watch.Wait()
	if err != nil {
		cancel(err)
		return grant{}, err
	}
	g.end = cancel
	return g, nil
}

// refusalBody makes the body for an authentication's error. The encoding of a
// fault's data is the user's code: its panic costs the data alone.
func (s *Server) refusalBody(e *Error, codec Codec) wire.ErrorBody {
	f := func() (f wire.Frame) {
		defer func() {
			if p := recover(); p != nil {
				s.config.logger.Error("typedrpc: encoding a refusal panicked",
					"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				f = wire.Frame{Code: int64(e.Code), Message: clip(e.Message)}
			}
		}()
		f, _ = toWire(context.Background(), e, codec, nil)
		return f
	}()
	return wire.ErrorBody{Code: f.Code, Message: f.Message, RetryAfter: f.RetryAfter, Data: wrapAuth(codec, f.Payload)}
}

// beginning is what a connection begins with.
type beginning struct {
	grant
	peer wire.Limits
	features
	cache   string // the identity of the peer's ReplayCache
	claim   session.Claim
	check   *check            // nil: a plain peer, as is …
	welcome *wire.WelcomeBody // … one without
}

// accept begins a connection, and announces it. It returns why it may not.
func (l *serverLink) accept(o beginning) *Error {
	s, w := l.server, o.welcome
	base := context.WithoutCancel(l.req.Context())
	if o.id.Context != nil {
		base = o.id.Context
	}
	c := newConn(base, s.config)
	c.dialect, c.codec = l.adm.dialect, l.adm.codec
	a := &accepted{server: s, conn: c}
	a.sess = c.newSession(o.features)
	c.accepted = a
	c.identity, c.peerCache = o.id, o.cache
	c.opened(a.sess, o.peer, o.features) // before anybody can find it, and end it
	var refused *Error
	s.mu.Lock()
	switch {
	case s.draining:
		refused = errDraining
	case o.check != nil && o.check.revoked[o.id.Subject]:
		refused = errRevoked
	default:
		s.accepted[a] = struct{}{}
	}
	s.mu.Unlock()
	if refused != nil {
		c.cancel(refused)
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
	if s.OnConnect != nil {
		a.greets.Go(func() { s.OnConnect(c) })
	}
	return nil
}

// resumed goes on with a connection whose session has this link now.
func (l *serverLink) resumed(sess *session.Session, g grant) {
	a := sess.Engine().(*engine).c.accepted
	l.accepted = a
	a.identify(g, l.req, l.carrier)
	l.began()
}

// began starts what belongs to a link that is open.
func (l *serverLink) began() {
	if l.adm.dialect != session.Plain {
		l.carrier.KeepAlive(l.server.config.limits.KeepAlive)
	}
	l.accepted.conn.linkUp(l.accepted.sess)
}

// identify takes what an authentication found: its expiry is the connection's
// from now on, and so is its context's end. The context of the first one is also
// what handlers' derive from. What came over a link other than the latest one is
// nobody's; nil is none at all yet.
func (a *accepted) identify(g grant, r *http.Request, over *session.Carrier) {
	c := a.conn
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over || over != nil && a.sess.Carrier() != over {
		g.release(context.Canceled)
		return
	}
	c.mu.Lock()
	c.identity = g.id
	c.mu.Unlock()
	now := identified{grant: g}
	if ctx := g.id.Context; ctx != nil {
		now.unwatch = context.AfterFunc(ctx, func() {
			c.end(a.sess, &link.CloseError{Code: session.CloseUnauthed, Reason: "the identity has ended"})
		})
	}
	if a.request == nil {
		a.first = now
	} else {
		a.latest.release(context.Canceled)
		a.latest = now
	}
	a.request = r
	if a.expire != nil {
		a.expire.Stop()
		a.expire = nil
	}
	if !g.id.Expires.IsZero() {
		a.expire = time.AfterFunc(max(time.Until(g.id.Expires), 1), a.expired)
	}
}

// lastWords is the time that a connection has for what was ready to be sent when
// its credentials expired: a peer that does not read would have for ever.
const lastWords = time.Second

func (a *accepted) expired() {
	err := &link.CloseError{Code: session.CloseUnauthed, Reason: "the credentials have expired"}
	if a.sess.CloseAfterFlush(err) {
		a.conn.over(err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.over {
		a.expire = time.AfterFunc(lastWords, func() { a.conn.end(a.sess, err) })
	}
}

// features are what the server announces.
func (s *Server) features() []string { return s.config.features(s.Authenticate.run != nil) }

// expiresIn is what the client is told of an identity's expiry, in milliseconds.
func expiresIn(id Identity) uint64 {
	if id.Expires.IsZero() {
		return 0
	}
	return max(millis(time.Until(id.Expires)), 1)
}

// renewal is an AUTH that came over a link.
type renewal struct {
	carrier *session.Carrier
	raw     []byte
}

// maxRenewals bounds the AUTHs that wait. An honest client has one.
const maxRenewals = 8

// renew takes an AUTH. They are handled one after another, because their answers
// have no number.
func (a *accepted) renew(c *session.Carrier, b wire.AuthBody) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.renewals) == maxRenewals {
		c.Fail(&link.CloseError{Code: session.CloseFlood, Reason: "too many AUTHs at once"})
		return
	}
	a.renewals = append(a.renewals, renewal{c, slices.Clone(b.Credentials)})
	if !a.renewing {
		a.renewing = true
		a.greets.Go(a.renewAll)
	}
}

func (a *accepted) renewAll() {
	for {
		a.mu.Lock()
		if len(a.renewals) == 0 {
			a.renewals, a.renewing = nil, false
			a.mu.Unlock()
			return
		}
		r, req := a.renewals[0], a.request
		a.renewals = a.renewals[1:]
		a.mu.Unlock()
		r.carrier.AuthOK(a.renewed(r, req))
	}
}

func (a *accepted) renewed(r renewal, req *http.Request) wire.AuthOKBody {
	s, c := a.server, a.conn
	g, err := s.authenticateLink(r.carrier, req, c.codec, r.raw)
	if was := c.Identity().Subject; err == nil && g.id.Subject != was {
		g.release(context.Canceled)
		err = Errorf(PermissionDenied, "these are the credentials of another subject; close the connection and dial again to change who you are")
	}
	if err != nil {
		e, _, foreign := refusalOf(err)
		s.logRefusal(req, err, foreign)
		body := s.refusalBody(e, c.codec)
		return wire.AuthOKBody{Error: &body}
	}
	a.identify(g, req, r.carrier)
	return wire.AuthOKBody{Reply: wrapAuth(c.codec, g.reply), Expires: expiresIn(g.id)}
}
