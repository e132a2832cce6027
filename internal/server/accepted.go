package server

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Accepted is the server's side of a connection, which outlives its links.
type Accepted struct {
	server *Server
	conn   *engine.Conn
	codec  int
	sess   *session.Session
	greets sync.WaitGroup // OnConnect, and authentications of a live link
	open   atomic.Bool    // among Conns; OnConnect was called
	number uint32         // of the server's connections
	beside beside         // under Server.mu

	// Not under mu, which is held while an Identity's context is asked: that is
	// the program's, and may ask who the peer is.
	identity atomic.Pointer[Identity]

	mu       sync.Mutex
	request  *http.Request // the upgrade of the latest link
	first    identified    // handlers' contexts derive from this one's
	latest   identified    // of a later link, or of an AUTH
	expire   *time.Timer
	states   *engine.Teller[Change] // what OnState is told; nil: nothing yet
	said     *said                  // what the peer has said that it closes with; nil: nothing
	began    int64                  // Unix time in nanoseconds; fixed
	renewals []renewal              // AUTHs that wait
	renewing bool                   // and one is being handled
	ending   bool                   // no AUTH is taken any more
	over     bool
}

// Began is which of the server's connections it is, from 1, and since when it is. The
// numbers begin again after four thousand million.
func (a *Accepted) Began() (number uint32, at time.Time) {
	return a.number, time.Unix(0, a.began)
}

// linkEnded keeps the session for a while, or ends the connection.
func (a *Accepted) linkEnded(c *session.Carrier, cause error) {
	switch lost, over := a.sess.Detach(c, cause); {
	case over:
		a.end(a.sess.Err())
	case lost:
		a.conn.LinkDown(cause)
		a.lost(cause)
		limits := &a.server.o.Config.Limits
		a.server.registry.Keep(a.sess, limits.Grace, limits.HandshakeTimeout, a.conn.Holds, a.end)
	}
}

// end ends the connection, when its session is over.
func (a *Accepted) end(cause error) {
	s, c := a.server, a.conn
	s.registry.Remove(a.sess)
	a.dropRenewals()
	c.Lost(a.sess, cause)
	announced := a.open.Swap(false)
	c.RunOut()
	a.mu.Lock()
	a.over = true
	a.unsaidLocked()
	a.mu.Unlock()
	c.Finish(cause)
	a.mu.Lock()
	if a.expire != nil {
		a.expire.Stop()
	}
	a.first.release(cause)
	a.latest.release(cause)
	a.mu.Unlock()
	a.greets.Wait()
	if a.states != nil {
		a.states.Wait()
	}
	if announced {
		var told sync.WaitGroup // it may end its goroutine, and this one has more to do
		told.Go(func() { s.o.OnDisconnect(c, c.Err()) })
		told.Wait()
	}
	done := c.Stats()
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, listed := s.accepted[a]; listed {
		delete(s.accepted, a)
		s.subjects.remove(a)
		s.past.Ended(&done.Load)
	}
	s.checkEndedLocked()
}

// ownerOf names whom what a peer makes the server hold is counted for: its subject,
// and where there is none its address, of IPv6 the network, which is what one
// customer of a provider has.
func ownerOf(id Identity, r *http.Request) string {
	if id.Subject != "" {
		return "subject " + id.Subject
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return "address " + host
	}
	if ip = ip.Unmap().WithZone(""); ip.Is4() {
		return "address " + ip.String()
	}
	return "address " + netip.PrefixFrom(ip, 64).Masked().String()
}

// Identity is who the peer is, by the last authentication.
func (a *Accepted) Identity() Identity { return *a.identity.Load() }

// RemoteAddr is where the latest link came from.
func (a *Accepted) RemoteAddr() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.request == nil {
		return ""
	}
	return a.request.RemoteAddr
}

// Closing is nothing to a server: it does not dial.
func (a *Accepted) Closing() {}

// GoingAway is nothing to a server: its client comes back by itself.
func (a *Accepted) GoingAway(_, _ time.Duration) {}

// AuthOK is for clients.
func (a *Accepted) AuthOK(wire.AuthOKBody) error {
	return engine.ProtocolError("AUTH_OK from a client")
}

// Over ends the connection, whose session has.
func (a *Accepted) Over(cause error) { go a.end(cause) }

// identify takes what an authentication found: its expiry is the connection's
// from now on, and so is its context's end. The context of the first one is also
// what handlers' derive from. What came over a link other than the latest one is
// nobody's, as is what comes when the session is over; it reports false for that.
// A nil link is none at all yet.
func (a *Accepted) identify(g grant, r *http.Request, over *session.Carrier) bool {
	c := a.conn
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over || over != nil && (a.sess.Carrier() != over || a.sess.Err() != nil || c.Ended()) {
		g.release(context.Canceled)
		return false
	}
	id := g.id
	a.identity.Store(&id)
	c.Account().Own(ownerOf(id, r))
	now := identified{grant: g}
	if ctx := g.id.Context; ctx != nil {
		now.unwatch = context.AfterFunc(ctx, func() {
			c.End(a.sess, &link.CloseError{Code: session.CloseUnauthed, Reason: "the identity has ended"})
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
	return true
}

// lastWords is the time that a connection has for what was ready to be sent when
// its credentials expired: a peer that does not read would have for ever.
const lastWords = time.Second

func (a *Accepted) expired() {
	err := &link.CloseError{Code: session.CloseUnauthed, Reason: "the credentials have expired"}
	if a.sess.CloseAfterFlush(err) {
		a.Over(err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.over {
		a.expire = time.AfterFunc(lastWords, func() { a.conn.End(a.sess, err) })
	}
}
