package server

import (
	"context"
	"io"
	"mime"
	"net/http"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// servePost answers JSON-RPC 2.0 over plain HTTP: the body is one message of a
// plain peer, and so is the answer. The request runs through a connection that
// lasts for this one message.
func (s *Server) servePost(w http.ResponseWriter, r *http.Request) {
	x := s.newExchange(w, r)
	defer s.endExchange(x)
	refused := s.guard(r)
	if refused == nil {
		refused = s.drains(false)
	}
	if refused != nil {
		x.refuse(refused)
		return
	}
	ct, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	lines, feeds := sequences[ct]
	if ct != "application/json" && !feeds {
		// Also what keeps foreign pages out: a browser asks the server first
		// before it sends one of these types across origins.
		x.refuse(refuse(http.StatusUnsupportedMediaType, "POST JSON-RPC 2.0 with Content-Type: application/json, or the items of a client stream with application/json-seq or application/x-ndjson"))
		return
	}
	var name, params string
	if feeds {
		if name, params, refused = s.query(r); refused != nil {
			x.refuse(refused)
			return
		}
	}
	check := s.beginCheck()
	g, refused := s.authenticateRequest(r.Context(), r)
	defer g.release(context.Canceled)
	id := g.id
	if p := s.owned(x, id.Subject, check); p != nil && refused == nil {
		refused = p.refusal()
	}
	if refused != nil {
		x.refuse(refused)
		return
	}
	x.account.Own(ownerOf(id, r))
	if feeds {
		s.serveFeed(x, r, id, name, params, lines)
		return
	}
	body, refused := x.read(r)
	if refused != nil {
		x.refuse(refused)
		return
	}
	s.serveBody(x, r, id, body)
}

// serveBody runs what a POST asks for and writes the answer.
func (s *Server) serveBody(x *exchange, r *http.Request, id Identity, body *buf.Buf) {
	base := context.WithoutCancel(r.Context()) // which ends when the client has sent all, too
	if id.Context != nil {
		base = id.Context
		defer context.AfterFunc(id.Context, func() {
			if r.Context().Err() == nil { // else it ends with that
				x.end(refuse(http.StatusUnauthorized, "%s", errIdentityEnded.Message), errIdentityEnded)
			}
		})()
	}
	k := &posted{id, r.RemoteAddr}
	cfg := &s.posted
	if x.streams {
		cfg = &s.streams
	}
	c := s.newConn(base, k, session.Plain, JSONCodec, cfg)
	c.Account().Own(x.account.Owner())
	t := &postTransport{conn: c, x: x, request: body, drains: s.isDraining, left: r.Context().Done(), killed: make(chan struct{})}
	t.sess = c.NewSession(engine.Features{})
	c.Opened(t.sess, s.o.Config.Limits.PlainPeer(), engine.Features{}, "")
	carrier := engine.NewCarrier(t, &s.o.Config, session.Plain, nil, false)
	t.sess.Attach(carrier, 0, nil) // a session that is new has not ended
	x.begin(c)
	cause := carrier.Run()
	t.sess.Detach(carrier, cause)
	c.Lost(t.sess, cause)
	c.Finish(cause)
	done := c.Stats()
	s.mu.Lock()
	s.past.Ended(&done.Load)
	s.mu.Unlock()

	f := x.feed
	if f != nil {
		f.closes(r)
	}
	switch {
	case x.events != nil:
		x.events.end()
	case f != nil && f.refused != nil && x.wasEnded() == nil:
		x.refuse(f.refused)
	default:
		x.write(t.answer, c.Asked())
	}
}

var (
	errIdentityEnded = status.Errorf(status.Unauthenticated, "the identity has ended")
	errLeft          = status.Errorf(status.Unavailable, "the client has closed its side, and what it asked for did not end")
)

// posted is the keeper of one POST's connection.
type posted struct {
	id   Identity
	addr string
}

// Identity is who made the request.
func (p *posted) Identity() Identity { return p.id }

// RemoteAddr is where it came from.
func (p *posted) RemoteAddr() string { return p.addr }

func (p *posted) GoingAway(_, _ time.Duration)             {}
func (p *posted) Closing()                                 {}
func (p *posted) Over(error)                               {}
func (p *posted) Said(*wire.ErrorBody)                     {}
func (p *posted) Auth(c *session.Carrier, _ wire.AuthBody) { engine.RefuseAuth(c) }
func (p *posted) AuthOK(wire.AuthOKBody) error             { return engine.ProtocolError("AUTH_OK from a client") }

// postTransport carries one message in and at most one out.
type postTransport struct {
	conn    *engine.Conn
	sess    *session.Session
	x       *exchange
	request *buf.Buf // nil when it was read
	answer  []byte
	drains  func() bool
	left    <-chan struct{} // closed when the client has gone, or has closed its side
	once    sync.Once
	killed  chan struct{}
}

func (t *postTransport) Read(func()) (*buf.Buf, bool, error) {
	if b := t.request; b != nil {
		t.request = nil
		return b, true, nil
	}
	t.x.taken()
	if t.drains() { // since the request was let in
		t.x.endStream()
	}
	whole := t.x.feed == nil || t.x.feed.run(t.conn, t.left, t.killed)
	// The message was delivered. When all that it began has ended and the
	// answer is written, the connection has served its purpose.
	idle := t.conn.WhenIdle()
	if !whole {
		t.leave(idle)
	}
	select {
	case <-idle:
	case <-t.killed:
	case <-t.left:
		t.leave(idle)
	}
	t.sess.CloseAfterFlush(&link.CloseError{Err: io.EOF})
	<-t.killed
	return nil, false, io.EOF
}

// leave is for a client that may still read, and may be gone: net/http cannot tell. Its
// calls are cancelled, and answered. What it notified is run.
func (t *postTransport) leave(idle <-chan struct{}) {
	t.conn.CallersLeft()
	until := time.Now().Add(engine.LeaveTime)
	patience := time.NewTimer(engine.StuckTime)
	defer patience.Stop()
	for ran, _ := t.conn.LaneRan(); ; {
		select {
		case <-idle:
			return
		case <-t.killed:
			return
		case now := <-patience.C:
			n, more := t.conn.LaneRan()
			if more && n == ran || !now.Before(until) { // calls were cancelled: those it waits for
				t.x.end(refuse(http.StatusServiceUnavailable, "%s", errLeft.Message), errLeft)
				return
			}
			ran = n // it gets on
			patience.Reset(max(min(engine.StuckTime, time.Until(until)), 1))
		}
	}
}

func (t *postTransport) Write(msg []byte, _ bool, progress func()) error {
	if e := t.x.events; e != nil {
		return e.write(msg, progress)
	}
	if len(msg) > flow.HeavyFrom {
		defer flow.Heavy()()
	}
	if f := t.x.feed; f != nil {
		f.stop(true) // it is answered: the rest of the body is nobody's
	}
	t.answer = append(t.answer, msg...)
	t.x.answers(cap(t.answer))
	return nil
}

func (t *postTransport) Close(int, string) { t.Kill() }

func (t *postTransport) Kill() {
	t.once.Do(func() { close(t.killed) })
	if f := t.x.feed; f != nil {
		f.stop(true)
	}
}

func (t *postTransport) SetReadLimit(int64) {}

func (t *postTransport) Ping(func()) bool { return false }
