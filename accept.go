package typedrpc

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// serverLink is one accepted link and its connection.
type serverLink struct {
	server *Server
	conn   *Conn
	sess   *session.Session
	req    *http.Request
	auths  sync.WaitGroup // the authentication under way
	greets sync.WaitGroup // OnConnect
	token  string
	open   bool // OnConnect was called; under Server.mu
}

// start serves an accepted link on a goroutine of its own, so that net/http's
// goroutine and buffers are free for the life of the connection.
func (s *Server) start(t link.Transport, a admission, r *http.Request) *serverLink {
	base := context.WithoutCancel(r.Context())
	c := newConn(base, s.config)
	c.dialect, c.codec = a.dialect, a.codec
	l := &serverLink{server: s, conn: c, req: r}
	l.sess = c.newSession(t, &engine{c: c, hello: l.hello}, false)
	s.mu.Lock()
	draining := s.draining
	s.links[l] = struct{}{}
	s.mu.Unlock()
	if draining { // since the request was admitted
		l.sess.Fail(&link.CloseError{Code: session.CloseRestart, Reason: "shutting down"})
	}
	if a.dialect == session.Plain { // no handshake: open before anybody looks
		l.sess.KeepAlive(c.config.limits.KeepAlive)
		l.opened(a.identity, c.config.limits.plainPeer(), features{}, nil)
	}
	go l.serve(a)
	return l
}

// serve reads the link until it ends.
func (l *serverLink) serve(a admission) {
	s, c := l.server, l.conn
	cause := l.sess.Run()
	l.auths.Wait()
	c.lost(cause)
	if l.token != "" {
		s.registry.Remove(l.token)
	}
	s.release(a)
	s.mu.Lock()
	announced := l.open
	l.open = false
	s.mu.Unlock()
	c.finish(cause)
	l.greets.Wait()
	if announced && s.OnDisconnect != nil {
		s.OnDisconnect(c, c.Err())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.links, l)
	if len(s.links) == 0 && s.ended != nil {
		closeOnce(s.ended)
	}
}

// hello authenticates on a goroutine of its own: the reader goes on, and so
// learns that the client left or spoke too early.
func (l *serverLink) hello(sess *session.Session, h wire.HelloBody) {
	h.Credentials = slices.Clone(h.Credentials)
	l.auths.Go(func() { l.authenticate(h) })
}

func (l *serverLink) authenticate(h wire.HelloBody) {
	s, c := l.server, l.conn
	var id Identity
	var reply []byte
	if s.Authenticate.run != nil {
		ctx, cancel, stop := s.bounded(c.ctx)
		defer stop()
		returned := make(chan struct{})
		defer close(returned)
		l.auths.Go(func() {
			select {
			case <-l.sess.Done():
				cancel(context.Canceled)
			case <-returned:
			}
		})
		creds, err := unwrapAuth(c.codec, h.Credentials)
		if err == nil {
			id, reply, err = s.authenticate(ctx, l.req, creds, c.codec)
		}
		if err != nil {
			e, code, foreign := refusalOf(err)
			s.logRefusal(l.req, err, foreign)
			f := l.refusal(ctx, e)
			l.sess.Refuse(wire.ErrorBody{
				Code: f.Code, Message: f.Message, RetryAfter: f.RetryAfter, Data: wrapAuth(c.codec, f.Payload),
			}, code, e.Message)
			return
		}
	}
	reason, stale := s.registry.Replace(h.Token, id.Subject, h.Attempt)
	if stale {
		l.sess.Fail(&link.CloseError{Code: session.CloseSuperseded, Reason: "a newer attempt has been made"})
		return
	}
	l.token = s.registry.Add(l.sess, id.Subject, h.Attempt)
	w := wire.WelcomeBody{
		Token: l.token, Reason: reason, Reply: wrapAuth(c.codec, reply),
		Limits:    c.config.limits.announced(),
		Features:  ourFeatures,
		Keepalive: millis(c.config.limits.KeepAlive),
		Cache:     c.config.replays.id,
	}
	c.mu.Lock()
	c.peerCache = checkCache(h.Cache)
	c.mu.Unlock()
	l.opened(id, announcedBy(h.Limits), c.sharedFeatures(h.Features), &w)
}

// refusal makes the frame for an authentication's error. The encoding of a
// fault's data is the user's code: its panic costs the data alone.
func (l *serverLink) refusal(ctx context.Context, e *Error) (f wire.Frame) {
	defer func() {
		if p := recover(); p != nil {
			l.server.config.logger.Error("typedrpc: encoding a refusal panicked",
				"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			f = wire.Frame{Code: int64(e.Code), Message: clip(e.Message)}
		}
	}()
	f, _ = toWire(ctx, e, l.conn.codec, nil)
	return f
}

// opened begins the session and announces the connection.
func (l *serverLink) opened(id Identity, peer wire.Limits, f features, w *wire.WelcomeBody) {
	s, c := l.server, l.conn
	c.identity = id
	if id.Context != nil {
		outer := c.cancel // of what id.Context may derive from
		c.ctx, c.cancel = context.WithCancelCause(id.Context)
		context.AfterFunc(c.ctx, func() {
			if id.Context.Err() != nil { // else the connection ended first
				l.sess.Fail(&link.CloseError{Code: session.CloseUnauthed, Reason: "the identity has ended"})
			}
			outer(context.Cause(c.ctx))
		})
	}
	if !id.Expires.IsZero() {
		expire := time.AfterFunc(time.Until(id.Expires), func() {
			l.sess.CloseAfterFlush(&link.CloseError{Code: session.CloseUnauthed, Reason: "the credentials have expired"})
		})
		context.AfterFunc(c.ctx, func() { expire.Stop() })
	}
	c.opened(l.sess, peer, f)
	l.list(true) // before WELCOME: a client whose Dial returned is among Conns
	if w != nil && !l.sess.Accept(*w) {
		l.list(false)
		return
	}
	if w != nil {
		l.sess.KeepAlive(c.config.limits.KeepAlive)
	}
	if s.OnConnect != nil {
		l.greets.Go(func() { s.OnConnect(c) })
	}
}

// list puts the connection among the server's Conns, or takes it away.
func (l *serverLink) list(open bool) {
	l.server.mu.Lock()
	defer l.server.mu.Unlock()
	l.open = open
}
