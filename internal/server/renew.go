package server

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// features are what the server announces.
func (s *Server) features() []string { return s.o.Config.Announced(s.o.Authenticate != nil) }

// expiresIn is what the client is told of an identity's expiry, in milliseconds.
func expiresIn(id Identity) uint64 {
	if id.Expires.IsZero() {
		return 0
	}
	return max(flow.Millis(time.Until(id.Expires)), 1)
}

// renewal is an AUTH that came over a link.
type renewal struct {
	carrier *session.Carrier
	raw     []byte
}

// maxRenewals bounds the AUTHs that wait. An honest client has one.
const maxRenewals = 8

// Auth takes an AUTH. They are handled one after another, because their answers
// have no number.
func (a *Accepted) Auth(c *session.Carrier, b wire.AuthBody) {
	if !a.conn.Shares().Auth {
		engine.RefuseAuth(c)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ending {
		return
	}
	if len(a.renewals) == maxRenewals {
		c.Fail(&link.CloseError{Code: session.CloseFlood, Reason: "too many AUTHs at once"})
		return
	}
	a.renewals = append(a.renewals, renewal{c, slices.Clone(b.Credentials)})
	a.conn.Account().Force(len(b.Credentials))
	if !a.renewing {
		a.renewing = true
		a.greets.Go(a.renewAll)
	}
}

// dropRenewals gives up the AUTHs that wait: the connection ends.
func (a *Accepted) dropRenewals() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ending = true
	for _, r := range a.renewals {
		a.conn.Account().Give(len(r.raw))
	}
	a.renewals = nil
}

func (a *Accepted) renewAll() {
	for {
		a.mu.Lock()
		if len(a.renewals) == 0 {
			a.renewals, a.renewing = nil, false
			a.mu.Unlock()
			return
		}
		r, req := a.renewals[0], a.request
		a.renewals = a.renewals[1:]
		a.conn.Account().Give(len(r.raw))
		a.mu.Unlock()
		select {
		case <-r.carrier.Done():
			continue // nobody waits for the answer
		default:
		}
		if answer, ok := a.renewed(r, req); ok {
			r.carrier.AuthOK(answer)
		}
	}
}

// renewed checks credentials, and makes the answer. It reports false if there is
// none: the session ended meanwhile, Revoke did it or the old credentials' end, and
// its link's end is what the client is told. "Accepted" would be the opposite.
func (a *Accepted) renewed(r renewal, req *http.Request) (answer wire.AuthOKBody, ok bool) {
	s := a.server
	g, err := s.authenticateLink(r.carrier, req, a.codec, r.raw)
	if was := a.Identity().Subject; err == nil && g.id.Subject != was {
		g.release(context.Canceled)
		err = status.Errorf(status.PermissionDenied, "these are the credentials of another subject; close the connection and dial again to change who you are")
	}
	if err == nil && a.conn.CheckPayload(g.reply) != nil {
		g.release(context.Canceled)
		err = errDeepReply
	}
	if err != nil {
		e, _, foreign := refusalOf(err)
		s.logRefusal(req, err, foreign)
		body := s.o.Refusal(e, a.codec)
		if a.conn.CheckPayload(body.Data) != nil {
			body.Data, body.Fault = nil, ""
		}
		return wire.AuthOKBody{Error: &body}, true
	}
	if !a.identify(g, req, r.carrier) {
		return answer, false
	}
	return wire.AuthOKBody{Reply: g.reply, Expires: expiresIn(g.id)}, true
}
