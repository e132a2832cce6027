package typedrpc

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// The client's side of credentials that are refreshed on a live link.

// Reauthenticate asks DialOptions.Auth for credentials and gives them to the
// server, which may extend the time that the connection has (Identity.Expires)
// or refuse them: then the connection goes on with the old ones until they
// expire. The subject may not change. AuthReply returns the new reply. While
// there is no link it waits for one, whose handshake brings fresh credentials.
//
// The error is an *Error: the server's, what DialOptions.Auth returned, the
// context's, or FailedPrecondition on a connection without DialOptions.Auth, and
// Unimplemented where the server authenticates nobody. It may be called at any
// time by any goroutine; one refresh is made at a time.
func (c *Conn) Reauthenticate(ctx context.Context) error {
	d := c.dialer
	if d == nil || d.o.Auth.get == nil {
		return Errorf(FailedPrecondition, "only a connection that was dialled with DialOptions.Auth has credentials to refresh")
	}
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-ctx.Done():
		return ended(ctx, NotSent)
	case <-c.done:
		return c.Err()
	}
	if err := d.reauthenticate(ctx); err != nil {
		return err
	}
	return nil
}

func (d *dialer) reauthenticate(ctx context.Context) *Error {
	c := d.conn
	for {
		d.mu.Lock()
		up := d.up
		d.mu.Unlock()
		c.mu.Lock()
		var carrier *session.Carrier
		if c.sess != nil {
			carrier = c.sess.Carrier()
		}
		auth := c.auth
		c.mu.Unlock()
		if carrier != nil {
			if !auth {
				return Errorf(Unimplemented, "the server does not refresh credentials on a live link")
			}
			if asked := d.debt(); asked != nil { // by somebody who has left
				select {
				case <-asked.settled:
					continue
				case <-ctx.Done():
					return ended(ctx, NotSent)
				}
			}
			creds, err := d.credentials(ctx)
			if err != nil {
				return asError(err)
			}
			if len(creds) > maxCredentials {
				return Errorf(InvalidArgument, "the credentials have %d bytes, at most %d can be sent", len(creds), maxCredentials)
			}
			if mine := d.owe(carrier); mine != nil {
				carrier.Auth(wire.AuthBody{Credentials: wrapAuth(c.codec, creds)})
				select {
				case <-mine.settled:
				case <-ctx.Done():
					return ended(ctx, MayHaveRun)
				}
				if mine.answered {
					return mine.err
				} // else the link ended, and the next handshake brings credentials
			}
		}
		select {
		case <-up:
			return nil
		case <-ctx.Done():
			return ended(ctx, NotSent)
		case <-c.done:
			return asError(c.Err())
		}
	}
}

// maxCredentials leaves room for base64 and the rest of a frame in what an AUTH may
// have.
const maxCredentials = 45 << 10

// debt is the answer that the server owes to an AUTH. There is one at most: the
// server bounds those that wait.
type debt struct {
	settled  chan struct{} // closed when it came, or the link ended
	answered bool          // it came; written before, as is …
	err      *Error        // … what the server said
}

// debt returns what the server owes, nil: nothing.
func (d *dialer) debt() *debt {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.owed
}

// owe notes that the server owes an answer to an AUTH over carrier. It returns
// nil if that link is gone.
func (d *dialer) owe(carrier *session.Carrier) *debt {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sess == nil || d.sess.Carrier() != carrier {
		return nil
	}
	d.owed = &debt{settled: make(chan struct{})}
	return d.owed
}

// settle takes what became of the AUTH.
func (d *dialer) settle(answered bool, err *Error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.owed != nil {
		d.owed.answered, d.owed.err = answered, err
		close(d.owed.settled)
		d.owed = nil
	}
}

// renewed takes the server's answer to an AUTH. It counts also when nobody waits
// for it any more: the server goes by it.
func (d *dialer) renewed(b wire.AuthOKBody) error {
	c := d.conn
	if d.debt() == nil {
		return protocolError("AUTH_OK without AUTH")
	}
	if b.Error != nil {
		e := refusedBy(b.Error, c.codec)
		e.Outcome = Answered
		d.settle(true, e)
		return nil
	}
	reply, err := unwrapAuth(c.codec, b.Reply)
	if err != nil {
		return protocolError("malformed reply in AUTH_OK")
	}
	c.mu.Lock()
	c.welcome = slices.Clone(reply)
	c.mu.Unlock()
	d.refreshIn(time.Duration(min(b.Expires, 1<<40)) * time.Millisecond)
	d.settle(true, nil)
	return nil
}

// refreshIn arranges that credentials which expire in left are refreshed before:
// at a random time between 70 and 90 % of it, so that many clients of one server
// do not come together. 0 is never.
func (d *dialer) refreshIn(left time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refresh != nil {
		d.refresh.Stop()
		d.refresh = nil
	}
	if left > 0 && d.o.Auth.get != nil && d.ctx.Err() == nil {
		end := time.Now().Add(left)
		d.expires = end
		d.refresh = time.AfterFunc(max(left*7/10+rand.N(left/5+1), betweenRefreshes), func() { d.refreshBefore(end) })
	}
}

// betweenRefreshes keeps a server from making a client ask for credentials as
// fast as the path goes.
const betweenRefreshes = 250 * time.Millisecond

// refreshBefore refreshes the credentials. When that fails OnState is told, and
// it is tried again at half of the time that is left.
func (d *dialer) refreshBefore(end time.Time) {
	d.mu.Lock()
	if d.ctx.Err() != nil {
		d.mu.Unlock()
		return
	}
	d.renewing.Add(1)
	d.mu.Unlock()
	defer d.renewing.Done()
	ctx, cancel := context.WithTimeout(d.ctx, d.conn.config.limits.HandshakeTimeout)
	defer cancel()
	err := d.conn.Reauthenticate(ctx)
	if err == nil || d.ctx.Err() != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state.State == Connected {
		s := d.state
		s.Err = err
		d.changeLocked(s)
	}
	left := time.Until(end)
	if d.refresh != nil && d.expires.Equal(end) && left > leastRefresh { // else there are others
		d.refresh = time.AfterFunc(left/2, func() { d.refreshBefore(end) })
	}
}

// leastRefresh is the time before the end of the credentials in which refreshing
// them is given up: the next handshake's turn.
const leastRefresh = 50 * time.Millisecond

func (d *dialer) stopRefreshing() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refresh != nil {
		d.refresh.Stop()
		d.refresh = nil
	}
}
