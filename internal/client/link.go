package client

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/logs"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
)

// try is what an attempt has until it has got a link. Nothing of it is kept while
// that is served: the context may be a request's, and all that hangs on it.
type try struct {
	ctx    context.Context // bounds it, with …
	dial   context.Context // … the time for the handshake
	cancel context.CancelFunc
	stops  []func() bool
}

func (d *Client) begins() {
	t := &d.try
	t.ctx = d.bound()
	t.dial, t.cancel = context.WithTimeout(t.ctx, d.conn.Limits().HandshakeTimeout)
	t.stops = append(t.stops, context.AfterFunc(d.ctx, t.cancel))
}

// over is called when the attempt has got a link, and when it has ended.
func (t *try) over() {
	if t.cancel == nil {
		return
	}
	for _, stop := range t.stops {
		stop()
	}
	t.cancel()
	*t = try{}
}

// giveUp ends an opening whose context has ended.
func (t try) giveUp(carrier *session.Carrier) {
	switch {
	case !carrier.Opening():
	case errors.Is(t.dial.Err(), context.DeadlineExceeded) && t.ctx.Err() == nil:
		carrier.Fail(&link.CloseError{Code: session.CloseTimeout, Reason: "no handshake in time", Err: session.ErrHandshakeTimeout})
	default:
		carrier.Fail(&link.CloseError{Code: session.CloseDone, Reason: "giving up"})
	}
}

// reach makes a link. What is below it may be the program's: the transport of its HTTP
// client.
func (d *Client) reach() (t link.Transport, name string, resp *http.Response, err error) {
	ctx, url, offers := d.try.dial, d.at.url, d.o.Offers
	err = apart("the HTTP client", func() error {
		var err error
		t, name, resp, err = d.o.Connect(ctx, url, offers)
		return err
	}, func(p any) {
		d.conn.Logger().Error("typedrpc: HTTP client panicked", "panic", logs.Panic{Value: p}, "stack", logs.Stack{})
	})
	return t, name, resp, err
}

// connect makes one attempt and, if it gets the connection a link, serves it
// until it ends.
func (d *Client) connect() error {
	c := d.conn
	d.opened, d.leave = false, false
	d.attempt++
	d.mu.Lock()
	d.refused, d.said = nil, nil
	d.mu.Unlock()

	d.begins()
	defer d.try.over()
	t, name, resp, err := d.reach()
	if err != nil {
		e := d.dialError(d.try.ctx, resp, err)
		if e.Code == status.DeadlineExceeded || e.Code == status.Canceled { // ctx has ended
			e = e.Lacking("no answer of "+d.at.where, nil)
		}
		return e
	}
	d.reached(resp)
	hello, err := d.choose(name)
	var creds []byte
	if err == nil && hello {
		creds, _, err = d.credentials(d.try.dial)
	}
	if err == nil && len(creds) > maxHello {
		err = status.Errorf(status.InvalidArgument, "the credentials take %d bytes in a handshake, which has room for %d", len(creds), maxHello)
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
	if try := d.try; !d.opened {
		d.try.stops = append(d.try.stops, context.AfterFunc(try.dial, func() { try.giveUp(carrier) }))
	}
	cause := d.carry(carrier)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.refused != nil:
		d.refused.Cause = cause
		return &refusedError{d.refused, cause}
	case !d.opened && d.try.ctx.Err() != nil:
		return status.Ended(d.try.ctx, status.NotSent).Lacking("no handshake with "+d.at.where, nil)
	}
	return cause
}

// carry serves the link until it ends, also by a handler that ends this goroutine.
func (d *Client) carry(carrier *session.Carrier) error {
	defer func() { d.linkEnded(carrier, d.parted(carrier.Err())) }()
	return d.parted(carrier.Run())
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
	d.conn.Away(d.explain(cause))
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
	d.conn.LinkDown(cause)
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
