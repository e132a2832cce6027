package client

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
)

// connect makes one attempt and, if it gets the connection a link, serves it
// until it ends.
func (d *Client) connect(ctx context.Context) error {
	c := d.conn
	d.opened, d.leave = false, false
	d.attempt++
	d.mu.Lock()
	d.refused = nil
	d.mu.Unlock()

	dialCtx, cancel := context.WithTimeout(ctx, c.Limits().HandshakeTimeout)
	defer cancel()
	defer context.AfterFunc(d.ctx, cancel)()
	t, name, resp, err := d.o.Connect(dialCtx, d.at.url, d.o.Offers)
	if err != nil {
		return d.dialError(ctx, resp, err)
	}
	d.reached(resp)
	hello, err := d.choose(name)
	var creds []byte
	if err == nil && hello {
		creds, _, err = d.credentials(dialCtx)
	}
	if err != nil {
		t.Close(session.CloseDone, "giving up")
		t.Kill()
		return err
	}
	carrier := engine.NewCarrier(t, &d.o.Config, c.Dialect(), d, true)
	if hello {
		carrier.Hello(d.hello(creds))
	} else if err := d.begin(carrier, c.Limits().PlainPeer(), engine.Features{}, "", c.Limits().KeepAlive); err != nil {
		t.Kill()
		return err
	}
	// Until there is a session the attempt ends with ctx; after that the
	// connection's end takes care of the link itself.
	give := func() {
		switch {
		case !carrier.Opening():
		case errors.Is(dialCtx.Err(), context.DeadlineExceeded) && ctx.Err() == nil:
			carrier.Fail(&link.CloseError{Code: session.CloseTimeout, Reason: "no handshake in time", Err: session.ErrHandshakeTimeout})
		default:
			carrier.Fail(&link.CloseError{Code: session.CloseDone, Reason: "giving up"})
		}
	}
	defer context.AfterFunc(dialCtx, give)()
	cause := carrier.Run()
	d.linkEnded(carrier, cause)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.refused != nil:
		d.refused.Cause = cause
		return &refusedError{d.refused, cause}
	case !d.opened && ctx.Err() != nil:
		return status.Ended(ctx, status.NotSent)
	}
	return cause
}

// reached notes which server answered. One that a redirect led to, and that is not
// trusted, is not told the token of a session that it has not begun itself.
func (d *Client) reached(resp *http.Response) {
	d.place = ""
	if resp == nil || resp.Request == nil || resp.Request.URL == nil || d.o.Trust == nil || d.o.Trust.Allows(resp.Request.URL) {
		return
	}
	host, port := link.Authority(resp.Request.URL)
	d.place = net.JoinHostPort(host, port)
}

// maxStuck is how often a session is resumed without a frame that gets through
// either way, before it is given up: what is sent again may be what breaks the
// link, in a proxy for example.
const maxStuck = 16

// linkEnded decides what a link's end means for the session.
func (d *Client) linkEnded(carrier *session.Carrier, cause error) {
	d.mu.Lock()
	s := d.sess
	if d.refresh != nil {
		d.refresh.Stop()
		d.refresh = nil
	}
	d.mu.Unlock()
	if s == nil {
		return
	}
	lost, over := s.Detach(carrier, cause)
	if lost { // and no AUTH leaves any more
		d.settle(false, nil)
	}
	switch {
	case !lost:
		return
	case over:
		d.drop(s, cause)
		return
	}
	d.conn.LinkDown()
	d.mu.Lock()
	sent, acked, received := s.Positions()
	if sent > acked && acked == d.stuck.acked && received == d.stuck.received {
		d.stuck.times++
	} else {
		d.stuck = progress{acked, received, 0}
	}
	stuck := d.stuck.times >= maxStuck
	d.expiry = time.AfterFunc(max(d.grace, 1), func() { d.drop(s, session.ErrGrace) })
	d.mu.Unlock()
	switch {
	case stuck:
		d.drop(s, errStuck)
	case d.ctx.Err() != nil: // nobody will dial again
		d.drop(s, cause)
	}
}

var errStuck = errors.New("the session was resumed again and again, and nothing got through")

// claim takes the session that there is to go on with away from all others.
func (d *Client) claim() *session.Session {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.sess
	d.sess = nil
	if d.expiry != nil {
		d.expiry.Stop()
		d.expiry = nil
	}
	return s
}

// drop gives a session up, unless it has been claimed or has a link.
func (d *Client) drop(s *session.Session, cause error) {
	d.mu.Lock()
	if d.sess != s || s.Carrier() != nil {
		d.mu.Unlock()
		return
	}
	d.sess = nil
	if s.Resumable() {
		d.token = "" // it is not wanted any more
	}
	if d.expiry != nil {
		d.expiry.Stop()
		d.expiry = nil
	}
	d.mu.Unlock()
	s.End(cause)
	d.conn.Lost(s, cause)
}
