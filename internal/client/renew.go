package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// The client's side of credentials that are refreshed on a live link.

// gone is why credentials are not refreshed any more: the connection's end, unless ctx
// had ended before.
func (d *Client) gone(ctx context.Context, r *refresh) *status.Error {
	reached := status.NotSent
	if r.sent.Load() {
		reached = status.MayHaveRun
	}
	if ctx.Err() != nil {
		return status.Ended(ctx, reached)
	}
	return d.conn.Err().Reached(reached)
}

func (d *Client) reauthenticate(ctx context.Context, r *refresh) *status.Error {
	c := d.conn
	for {
		d.mu.Lock()
		up := d.up
		d.mu.Unlock()
		carrier, shared := c.Link()
		if carrier != nil {
			if !shared.Auth {
				return status.Errorf(status.Unimplemented, "the server does not refresh credentials on a live link")
			}
			if asked := d.debt(); asked != nil { // by somebody who has left
				select {
				case <-asked.settled:
					continue
				case <-ctx.Done():
					return status.Ended(ctx, status.NotSent)
				}
			}
			creds, size, err := d.credentials(ctx)
			d.asked(r)
			if err != nil {
				var e *status.Error
				errors.As(err, &e) // credentials returns nothing else
				return e
			}
			if size > maxCredentials {
				return status.Errorf(status.InvalidArgument, "the credentials have %d bytes, at most %d can be sent", size, maxCredentials)
			}
			if err := c.CheckPayload(creds); err != nil { // the server would close the link, for good
				return status.Errorf(status.InvalidArgument, "cannot send the credentials: %w", err)
			}
			if mine := d.owe(carrier); mine != nil {
				r.sent.Store(true)
				carrier.Auth(wire.AuthBody{Credentials: creds})
				select {
				case <-mine.settled:
				case <-ctx.Done():
					return status.Ended(ctx, status.MayHaveRun)
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
			return c.GaveUp(ctx, status.NotSent)
		case <-c.Done():
			return d.gone(ctx, r)
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
	err      *status.Error // … what the server said
}

// debt returns what the server owes, nil: nothing.
func (d *Client) debt() *debt {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.owed
}

// owe notes that the server owes an answer to an AUTH over carrier. It returns
// nil if that link is gone.
func (d *Client) owe(carrier *session.Carrier) *debt {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sess == nil || d.sess.Carrier() != carrier {
		return nil
	}
	d.owed = &debt{settled: make(chan struct{})}
	return d.owed
}

// settle takes what became of the AUTH.
func (d *Client) settle(answered bool, err *status.Error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.owed != nil {
		d.owed.answered, d.owed.err = answered, err
		close(d.owed.settled)
		d.owed = nil
	}
}

// AuthOK takes the server's answer to an AUTH. It counts also when nobody waits
// for it any more: the server goes by it.
func (d *Client) AuthOK(b wire.AuthOKBody) error {
	if d.debt() == nil {
		return engine.ProtocolError("AUTH_OK without AUTH")
	}
	if b.Error != nil {
		e := d.refusedBy(b.Error)
		e.Outcome = status.Answered
		d.settle(true, e)
		return nil
	}
	reply, err := d.o.Reply(b.Reply)
	if err != nil {
		return engine.ProtocolError("malformed reply in AUTH_OK")
	}
	d.mu.Lock()
	d.welcome = slices.Clone(reply)
	d.mu.Unlock()
	d.refreshIn(time.Duration(min(b.Expires, 1<<40)) * time.Millisecond)
	d.settle(true, nil)
	return nil
}

// refreshIn arranges that credentials which expire in left are refreshed before:
// at a random time between 70 and 90 % of it, so that many clients of one server
// do not come together. 0 is never.
func (d *Client) refreshIn(left time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refresh != nil {
		d.refresh.Stop()
		d.refresh = nil
	}
	if left > 0 && d.o.Credentials != nil && d.ctx.Err() == nil {
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
func (d *Client) refreshBefore(end time.Time) {
	d.mu.Lock()
	if d.ctx.Err() != nil {
		d.mu.Unlock()
		return
	}
	d.renewing.Add(1)
	d.mu.Unlock()
	defer d.renewing.Done()
	ctx, cancel := context.WithTimeout(d.ctx, d.conn.Limits().HandshakeTimeout)
	defer cancel()
	r, err := d.share(ctx)
	if r != nil {
		<-r.over // whoever closes the connection waits for the program's function
	}
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

func (d *Client) stopRefreshing() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refresh != nil {
		d.refresh.Stop()
		d.refresh = nil
	}
}
