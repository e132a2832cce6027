package client

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/logs"
	"github.com/typedrpc/typedrpc/internal/replay"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// hello makes the HELLO of an attempt.
func (d *Client) hello(creds []byte) wire.HelloBody {
	c := d.conn
	h := wire.HelloBody{
		Attempt: d.attempt, Client: d.client, Credentials: creds,
		Limits: c.Limits().Announced(), Features: d.o.Config.Announced(d.o.Credentials != nil), Cache: c.Replays().ID(),
	}
	if offer := d.o.Prints.Offer(); len(offer)+len(creds) <= maxOffer {
		h.Schema = offer
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.place == "" || d.place == d.home {
		h.Token = d.token
	}
	if d.sess != nil { // whose old link nobody reads any more
		_, _, h.Received = d.sess.Positions()
	}
	return h
}

// maxOffer is what credentials and fingerprints may have together in a HELLO, which has
// 64 KiB: larger credentials go alone.
const maxOffer = 56 << 10

// maxHello is what credentials may have in a HELLO without fingerprints.
const maxHello = 63 << 10

// compare logs, once, that the server was built from another schema.
func (d *Client) compare(theirs string) {
	x := d.o.Prints.Differ(theirs)
	if x.Count == 0 || d.compared {
		return
	}
	d.compared = true
	d.conn.Logger().Warn("typedrpc: the peer's schema differs", "names", x.Names, "differ", x.Count, "remote", d.at.where)
}

// choose takes the server's choice of subprotocol; it is fixed from then on.
func (d *Client) choose(name string) (hello bool, err error) {
	c := d.conn
	if own := d.o.Own; own != "" {
		if name != own {
			return false, status.Errorf(status.Unimplemented, "the server selected subprotocol %q and not %q, which is DialOptions.Subprotocol: it has to be among Server.Subprotocols", name, own)
		}
		if !d.o.Plain {
			name = d.o.Offers[0]
		}
	}
	switch {
	case d.fixed: // chosen by an earlier handshake, and in use
		if name != d.chosen {
			return false, status.Errorf(status.Internal, "the server selected subprotocol %q, earlier it was %q", name, d.chosen)
		}
		return c.Dialect() != session.Plain, nil
	case d.o.Plain:
		c.SetDialect(session.Plain)
		d.fixed, d.chosen = true, name
		d.o.Chosen("")
		return false, nil
	case name == "":
		return false, status.Errorf(status.Unimplemented, "the server selected no subprotocol, so it is no typedrpc server; to talk to any JSON-RPC 2.0 server set DialOptions.Dialect to JSONRPC")
	case !slices.Contains(d.o.Offers, name):
		return false, status.Errorf(status.Internal, "the server selected subprotocol %q, which is none of those that typedrpc offered", name)
	case name == session.HelloProtocol:
		c.SetDialect(session.JSON)
	default:
		c.SetDialect(session.Binary)
	}
	d.fixed, d.o.Offers, d.chosen = true, []string{name}, name // what is held is encoded
	d.o.Chosen(name)
	return true, nil
}

// credentials are what the program says, as they travel, and their size before
// that.
func (d *Client) credentials(ctx context.Context) (creds []byte, size int, err error) {
	if d.o.Credentials == nil {
		return nil, 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, d.conn.Limits().HandshakeTimeout)
	defer cancel()
	defer context.AfterFunc(d.ctx, cancel)()
	creds, size, err = d.ask(ctx)
	if err != nil {
		var e *status.Error
		if errors.As(err, &e) {
			return nil, 0, e
		}
		return nil, 0, &status.Error{Code: status.Unauthenticated, Message: "no credentials: " + err.Error(), Cause: err}
	}
	return creds, size, nil
}

// ask runs the user's function, whose panic fails one attempt.
func (d *Client) ask(ctx context.Context) (creds []byte, size int, err error) {
	err = apart("the credentials function", func() error {
		var err error
		creds, size, err = d.o.Credentials(ctx)
		return err
	}, func(p any) {
		d.conn.Logger().Error("typedrpc: credentials function panicked", "panic", logs.Panic{Value: p}, "stack", logs.Stack{})
	})
	return creds, size, err
}

// apart runs a function of the program's on a goroutine of its own, and waits for it:
// one that ends its goroutine, as t.FailNow does, would end the supervisor's. panicked
// is told of a panic.
func apart(what string, f func() error, panicked func(p any)) error {
	err := error(&status.Error{Code: status.Internal, Message: what + " ended its goroutine"})
	var g sync.WaitGroup
	g.Go(func() {
		defer func() {
			if p := recover(); p != nil {
				panicked(p)
				err = &status.Error{Code: status.Internal, Message: what + " panicked"}
			}
		}()
		err = f()
	})
	g.Wait()
	return err
}

// Hello is the server's.
func (d *Client) Hello(*session.Carrier, wire.HelloBody) {}

// Opened is called by the reader with the server's WELCOME.
func (d *Client) Opened(carrier *session.Carrier, w wire.WelcomeBody) error {
	c := d.conn
	reply, err := d.o.Reply(w.Reply)
	if err != nil {
		return engine.ProtocolError("malformed reply in WELCOME")
	}
	keepAlive := c.Limits().KeepAlive
	if server := time.Duration(min(w.Keepalive, 1<<40)) * time.Millisecond; server > 0 {
		keepAlive = min(keepAlive, server)
	}
	old := d.claim()
	if w.Resumed {
		if old == nil { // given up since HELLO was sent; 1000 says so
			return &link.CloseError{Code: session.CloseDone, Reason: "the session was given up"}
		}
		err = old.Attach(carrier, w.Received, nil)
	}
	switch {
	case err == session.ErrEnded:
		err = &link.CloseError{Code: session.CloseDone, Reason: "the session was given up"}
		fallthrough
	case err != nil:
		old.End(err)
		c.Lost(old, err)
		return err
	case w.Resumed:
		d.welcomed(old, w.Token, reply)
		d.serve(carrier, keepAlive, true)
	default:
		if old != nil {
			if d.place != "" && d.place != d.home {
				w.Reason = "redirected to a server that is not trusted with it"
			}
			err := &lostError{w.Reason}
			old.End(err)
			c.Lost(old, err)
		}
		d.home = d.place
		d.mu.Lock()
		d.token, d.welcome = w.Token, slices.Clone(reply)
		d.grace = c.Limits().Grace
		if g := time.Duration(min(w.Grace, 1<<40)) * time.Millisecond; g > 0 {
			d.grace = min(d.grace, g)
		}
		d.mu.Unlock()
		f := engine.SharedFeatures(c.Dialect(), d.o.Config.Announced(d.o.Credentials != nil), w.Features)
		if err := d.begin(carrier, flow.AnnouncedBy(w.Limits), f, replay.CheckCache(w.Cache), keepAlive); err != nil {
			return err
		}
		d.compare(w.Schema)
	}
	d.refreshIn(time.Duration(min(w.Expires, 1<<40)) * time.Millisecond)
	return nil
}

// lostError says that a server has the session no more.
type lostError struct{ reason string }

func (e *lostError) Error() string { return "the session was lost: " + e.reason }

// begin begins a new session on carrier.
func (d *Client) begin(carrier *session.Carrier, peer wire.Limits, f engine.Features, cache string, keepAlive time.Duration) error {
	s := d.conn.NewSession(f)
	d.conn.Opened(s, peer, f, cache)
	if err := s.Attach(carrier, 0, nil); err != nil { // the connection was closed
		d.conn.Lost(s, err)
		return &link.CloseError{Code: session.CloseDone, Reason: "closed"}
	}
	d.mu.Lock()
	d.sess, d.stuck = s, progress{}
	d.mu.Unlock()
	d.serve(carrier, keepAlive, false)
	return nil
}

// welcomed notes what a WELCOME brought for a session that goes on.
func (d *Client) welcomed(s *session.Session, token string, reply []byte) {
	d.mu.Lock()
	d.sess, d.token, d.welcome = s, token, slices.Clone(reply)
	d.mu.Unlock()
}

// serve is called when the session has the link.
func (d *Client) serve(carrier *session.Carrier, keepAlive time.Duration, resumed bool) {
	d.opened, d.since = true, time.Now()
	d.first, d.failure = nil, nil
	d.try.over()
	d.mu.Lock()
	d.min, d.max = 0, 0
	s := d.sess
	close(d.up)
	d.up = make(chan struct{})
	d.mu.Unlock()
	select {
	case <-d.now: // a Reconnect that came meanwhile has what it wanted
	default:
	}
	carrier.KeepAlive(keepAlive)
	d.conn.LinkUp(s)
	d.change(Change{State: Connected, URL: d.at.where, Resumed: resumed})
	if d.told != nil {
		d.told <- nil
		d.told = nil
	}
}

// Refused is called by the reader when the server refused the HELLO.
func (d *Client) Refused(b *wire.ErrorBody) {
	e := d.refusedBy(b)
	d.mu.Lock()
	d.refused = e
	d.mu.Unlock()
}

// refusedBy is the error that an answer to credentials says. What its data cannot be
// is none, and then it is of no fault.
func (d *Client) refusedBy(b *wire.ErrorBody) *status.Error {
	fault := b.Fault
	data, err := d.o.Reply(b.Data)
	if err != nil {
		data, fault = nil, ""
	}
	return status.FromPeer(b.Code, b.Message, fault, flow.Hint(b.RetryAfter), data, true)
}

// refusedError is what the server said instead of WELCOME.
type refusedError struct {
	err   *status.Error
	close error
}

func (e *refusedError) Error() string   { return e.err.Error() }
func (e *refusedError) Unwrap() []error { return []error{e.err, e.close} }
