package server

import (
	"net/http"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Parting is how connections are closed, and what their peers are told of it.
type Parting struct {
	StayAway bool
	Text     string // what is said where Body says nothing
	Cause    error  // what this side sees, nil: nothing more
	// Body is the error that a peer of the codec is told; it is nil where there is none.
	Body func(codec int) *wire.ErrorBody
}

// revoked is the Parting of a Revoke that says nothing else.
var revoked = &Parting{Text: errRevoked.Message, Cause: errRevoked, Body: func(int) *wire.ErrorBody { return nil }}

// end is what a link is closed with, and what its peer is told before; code is that of one
// whose client may come back.
func (p *Parting) end(code, codec int) (*link.CloseError, *wire.ErrorBody) {
	if p.StayAway {
		code = session.CloseForbidden
	}
	body := p.Body(codec)
	return &link.CloseError{Code: code, Reason: p.reason(body), Err: p.Cause}, body
}

func (p *Parting) reason(body *wire.ErrorBody) string {
	if body != nil && body.Message != "" {
		return body.Message
	}
	return p.Text
}

// refusal is the answer to a request of somebody who was revoked.
func (p *Parting) refusal() *HTTPRefusal {
	answer, e := http.StatusUnauthorized, wire.ErrorBody{Code: int64(status.Unauthenticated)}
	if p.StayAway {
		answer, e.Code = http.StatusForbidden, int64(status.PermissionDenied)
	}
	body := p.Body(JSONCodec)
	if body != nil {
		e = *body
	}
	e.Message = p.reason(body)
	h := refuse(answer, "%s", e.Message)
	h.Error = &e
	return h
}

// revokedWith is with what a check's subject was revoked.
func (s *Server) revokedWith(c *check, subject string) *Parting {
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.revoked[subject]
}

// refuseRevoked answers a HELLO whose subject was revoked with p since it came, or whose
// session ended so.
func (l *Link) refuseRevoked(p *Parting) {
	end, body := p.end(session.CloseUnauthed, l.adm.codec)
	if body == nil {
		e := &status.Error{Code: status.Unauthenticated, Message: p.Text}
		if p.StayAway {
			e.Code = status.PermissionDenied
		}
		b := l.server.o.Refusal(e, l.adm.codec)
		body = &b
	}
	l.carrier.Refuse(l.fit(*body), end.Code, end.Reason)
}

// CloseWith closes the connection as p says, when what was sent before has arrived.
func (a *Accepted) CloseWith(p *Parting) {
	a.bar(p)
	a.conn.CloseWith(p.end(session.CloseDone, a.codec))
}

// bar has the client told to stay away that comes back because it has not heard.
func (a *Accepted) bar(p *Parting) {
	if p.StayAway {
		a.server.registry.Bar(a.sess, &session.Barred{Why: p}, a.server.o.Config.Limits.Grace)
	}
}

// said is what a peer has said that it closes with.
type said struct {
	err  *status.Error
	cost int // of the connection's account
}

// Said takes what the client says that it closes the link with.
func (a *Accepted) Said(b *wire.ErrorBody) {
	e := engine.Told(b, func(raw []byte) ([]byte, error) { return a.server.o.Data(raw, a.codec) })
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return
	}
	a.unsaidLocked()
	a.said = &said{e, len(e.Message) + len(e.Fault) + len(e.Data) + 256}
	a.conn.Account().Force(a.said.cost)
}

func (a *Accepted) unsaidLocked() {
	if a.said != nil {
		a.conn.Account().Give(a.said.cost)
		a.said = nil
	}
}

// parted is why a link has ended, with what the client said of it.
func (a *Accepted) parted(cause error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.said == nil {
		return cause
	}
	e := a.said.err
	a.unsaidLocked()
	return engine.Parted(cause, e)
}
