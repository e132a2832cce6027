package typedrpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// dialer gets a connection its links.
type dialer struct {
	conn   *Conn
	o      DialOptions
	where  string // for error texts: without credentials and query
	offers []string
	chosen string
	ctx    context.Context // ends with stop
	stop   context.CancelFunc
	now    chan struct{} // capacity 1: do not wait

	// of the supervisor's goroutine
	attempt  uint64 // of all, rising
	token    string // of the last session
	received uint64 // counted frames received in it
	opened   bool   // this attempt got a session

	mu       sync.Mutex
	state    StateChange
	changes  []StateChange // not told yet
	telling  bool
	min, max time.Duration // window that the server gave for coming back
	refused  *Error        // what the server said instead of WELCOME
}

func newDialer(ctx context.Context, target string, o *DialOptions) (*dialer, error) {
	d := &dialer{o: *o, now: make(chan struct{}, 1)}
	d.o.Header = o.Header.Clone()
	limits, err := o.Limits.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := o.Backoff.check(); err != nil {
		return nil, fmt.Errorf("typedrpc: DialOptions.%w", err)
	}
	d.o.Backoff = o.Backoff.withDefaults()
	if d.where, err = checkURL(target); err != nil {
		return nil, err
	}
	if d.o.Codecs == nil {
		d.o.Codecs = []Codec{JSON}
	}
	if d.offers, err = d.subprotocols(); err != nil {
		return nil, err
	}
	if d.o.connect == nil {
		d.o.connect = func(ctx context.Context, offers []string) (link.Transport, string, *http.Response, error) {
			return link.Dial(ctx, target, link.DialOptions{
				Subprotocols: offers, HTTPClient: d.o.HTTPClient, Header: d.o.Header, Compress: d.o.Compress,
			})
		}
	}
	d.o.connect = d.o.tapped(d.o.connect)
	cfg := config{mux: o.Mux, limits: limits, logger: o.Logger, mapError: o.MapError, interceptors: slices.Clone(o.Interceptors)}
	if cfg.logger == nil {
		cfg.logger = slog.Default()
	}
	if o.Retry != nil {
		if err := o.Retry.check(); err != nil {
			return nil, fmt.Errorf("typedrpc: DialOptions.Retry: %w", err)
		}
		cfg.retry = o.Retry.ready()
	}
	cfg.replays, cfg.detached = o.Replays, &detached{most: limits.MaxCalls}
	if cfg.replays == nil {
		cfg.replays = NewReplayCache(dialledReplays)
	}
	d.conn = newConn(context.WithoutCancel(ctx), cfg)
	context.AfterFunc(d.conn.ctx, cfg.detached.stop)
	d.conn.heals, d.conn.dialer = true, d
	d.ctx, d.stop = context.WithCancel(context.Background())
	return d, nil
}

// checkURL returns scheme, host and path of a URL, for error texts.
func checkURL(s string) (where string, err error) {
	u, err := url.Parse(s)
	if err != nil {
		// url's own error repeats the text, secrets and all.
		return "", errors.New("typedrpc: the URL cannot be parsed")
	}
	if u.Host == "" || !slices.Contains([]string{"ws", "wss", "http", "https"}, u.Scheme) {
		// What it begins with may be a user's name and password.
		return "", errors.New("typedrpc: the URL must be ws://host/path or wss://host/path")
	}
	return u.Scheme + "://" + u.Host + u.Path, nil
}

// subprotocols are what the dialect and the codecs offer.
func (d *dialer) subprotocols() ([]string, error) {
	switch d.o.Dialect {
	case Binary:
		var names []string
		for _, c := range d.o.Codecs {
			if err := checkCodec(c); err != nil {
				return nil, err
			}
			if err := d.o.Mux.check(c); err != nil {
				return nil, err
			}
			names = append(names, codecProtocol(c))
		}
		return names, nil
	case JSONRPC, PlainJSONRPC:
		if err := d.o.Mux.check(JSON); err != nil {
			return nil, err
		}
		if d.o.Dialect == PlainJSONRPC {
			return nil, nil
		}
		return []string{helloProtocol}, nil
	}
	return nil, fmt.Errorf("typedrpc: DialOptions.Dialect %d is none", d.o.Dialect)
}

// Subprotocols (PROTOCOL.md, head).
const (
	binaryProtocol = "typedrpc.v1."
	helloProtocol  = "typedrpc.jsonrpc"
)

var plainProtocols = []string{"jsonrpc", "jsonrpc2", "jsonrpc-2.0"}

func codecProtocol(c Codec) string { return binaryProtocol + c.Name() }

// lived is how long a link must have lived for its loss to start the backoff
// over: a server that accepts and fails at once is not well.
const lived = 10 * time.Second

// run is the supervisor: it dials, serves the link on this same goroutine, and
// dials again, until the connection is closed or coming back is pointless.
func (d *dialer) run(first context.Context, told chan<- *Error) {
	c := d.conn
	failed := 0
	var cause error
	for {
		d.change(StateChange{State: Connecting, Attempt: failed + 1})
		began := time.Now()
		ctx := d.ctx
		if told != nil {
			ctx = first
		}
		cause = d.connect(ctx, told)
		if d.ctx.Err() != nil {
			break
		}
		if told != nil && !d.opened {
			break
		}
		told = nil
		if d.opened && time.Since(began) >= lived {
			failed = 0
		}
		failed++
		wait, back := d.verdict(cause, failed)
		if !back {
			break
		}
		if !d.pause(wait, d.explain(cause), failed) {
			break
		}
	}
	err := c.failed(d.explain(cause))
	d.stop()
	d.change(StateChange{State: Closed, Err: err})
	c.finish(err)
	if told != nil {
		told <- err
	}
}

// pause waits for the next attempt; it reports false when the connection was
// closed.
func (d *dialer) pause(wait time.Duration, cause error, failed int) bool {
	select {
	case <-d.now: // asked for while connected: do not wait at all
		return true
	default:
	}
	d.change(StateChange{State: Waiting, Err: cause, Next: time.Now().Add(wait), Attempt: failed})
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-d.now:
	case <-d.ctx.Done():
		return false
	}
	return true
}

// connect makes one attempt and, if it gets a session, serves it until its link
// ends. told is told of the first one.
func (d *dialer) connect(ctx context.Context, told chan<- *Error) error {
	c := d.conn
	d.opened = false
	d.attempt++
	d.mu.Lock()
	d.refused = nil
	d.mu.Unlock()

	dialCtx, cancel := context.WithTimeout(ctx, c.config.limits.HandshakeTimeout)
	defer cancel()
	defer context.AfterFunc(d.ctx, cancel)()
	t, name, resp, err := d.o.connect(dialCtx, d.offers)
	if err != nil {
		return d.dialError(ctx, resp, err)
	}
	hello, err := d.choose(name)
	var creds []byte
	if err == nil && hello {
		creds, err = d.credentials(dialCtx)
	}
	if err != nil {
		t.Close(session.CloseDone, "giving up")
		t.Kill()
		return err
	}
	sess := c.newSession(t, &engine{c: c, opened: func(s *session.Session, w wire.WelcomeBody) error {
		return d.welcome(s, w, told)
	}, refused: d.refusal}, true)
	if hello {
		sess.Hello(wire.HelloBody{
			Attempt: d.attempt, Token: d.token, Received: d.received,
			Credentials: wrapAuth(c.codec, creds), Limits: c.config.limits.announced(), Features: ourFeatures,
			Cache: c.config.replays.id,
		})
	} else {
		d.open(sess, c.config.limits.plainPeer(), features{}, c.config.limits.KeepAlive, told)
	}
	// Until there is a session the attempt ends with ctx; after that the
	// connection's end takes care of the link itself.
	give := func() {
		c.mu.Lock()
		open := c.sess == sess
		c.mu.Unlock()
		switch {
		case open:
		case errors.Is(dialCtx.Err(), context.DeadlineExceeded) && ctx.Err() == nil:
			sess.Fail(&link.CloseError{Code: session.CloseTimeout, Reason: "no handshake in time", Err: session.ErrHandshakeTimeout})
		default:
			sess.Fail(&link.CloseError{Code: session.CloseDone, Reason: "giving up"})
		}
	}
	defer context.AfterFunc(dialCtx, give)()
	cause := sess.Run()
	if d.opened {
		_, _, d.received = sess.Positions()
		c.lost(cause)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.refused != nil:
		return &refusedError{d.refused, cause}
	case !d.opened && ctx.Err() != nil:
		return ended(ctx, NotSent)
	}
	return cause
}

// newSession makes a session over t with the connection's limits.
func (c *Conn) newSession(t link.Transport, e *engine, client bool) *session.Session {
	l := c.config.limits
	e.sess = session.New(t, e, session.Options{
		Dialect: c.dialect, Client: client, Message: l.MaxMessage, MaxDepth: l.MaxDepth,
		Intern: c.config.mux.intern, WriteTimeout: l.WriteTimeout, Handshake: l.HandshakeTimeout,
	})
	return e.sess
}

// choose takes the server's choice of subprotocol; it is fixed from then on.
func (d *dialer) choose(name string) (hello bool, err error) {
	c := d.conn
	switch {
	case c.codec != nil: // chosen by an earlier handshake, and in use
		if name != d.chosen {
			return false, Errorf(Internal, "the server selected subprotocol %q, earlier it was %q", name, d.chosen)
		}
		return c.dialect != session.Plain, nil
	case d.o.Dialect == PlainJSONRPC:
		c.dialect, c.codec = session.Plain, JSON
		d.chosen = name
		return false, nil
	case name == "":
		return false, Errorf(Unimplemented, "the server selected no subprotocol, so it is no typedrpc server; to talk to any JSON-RPC 2.0 server set DialOptions.Dialect to PlainJSONRPC")
	case !slices.Contains(d.offers, name):
		return false, Errorf(Internal, "the server selected subprotocol %q, which was not offered", name)
	case name == helloProtocol:
		c.dialect, c.codec = session.JSON, JSON
	default:
		c.dialect = session.Binary
		i := slices.IndexFunc(d.o.Codecs, func(c Codec) bool { return codecProtocol(c) == name })
		c.codec = d.o.Codecs[i]
	}
	d.offers, d.chosen = []string{name}, name // what is held is encoded
	return true, nil
}

func (d *dialer) credentials(ctx context.Context) ([]byte, error) {
	if d.o.Auth.get == nil {
		return nil, nil
	}
	creds, err := d.o.Auth.get(ctx, d.conn.codec)
	if err != nil {
		var e *Error
		if errors.As(err, &e) {
			return nil, e
		}
		return nil, &Error{Code: Unauthenticated, Message: "no credentials: " + err.Error(), cause: err}
	}
	return creds, nil
}

// welcome is called by the reader with the server's WELCOME.
func (d *dialer) welcome(s *session.Session, w wire.WelcomeBody, told chan<- *Error) error {
	reply, err := unwrapAuth(d.conn.codec, w.Reply)
	if err != nil {
		return protocolError("malformed reply in WELCOME")
	}
	d.token = w.Token
	d.conn.mu.Lock()
	d.conn.welcome, d.conn.peerCache = slices.Clone(reply), checkCache(w.Cache)
	d.conn.mu.Unlock()
	keepAlive := d.conn.config.limits.KeepAlive
	if server := time.Duration(min(w.Keepalive, 1<<40)) * time.Millisecond; server > 0 {
		keepAlive = min(keepAlive, server)
	}
	d.open(s, announcedBy(w.Limits), d.conn.sharedFeatures(w.Features), keepAlive, told)
	return nil
}

func (d *dialer) open(s *session.Session, peer wire.Limits, f features, keepAlive time.Duration, told chan<- *Error) {
	d.opened = true
	d.mu.Lock()
	d.min, d.max = 0, 0
	d.mu.Unlock()
	select {
	case <-d.now: // a Reconnect that came meanwhile has what it wanted
	default:
	}
	s.KeepAlive(keepAlive)
	d.conn.opened(s, peer, f)
	d.change(StateChange{State: Connected})
	if told != nil {
		told <- nil
	}
}

func (d *dialer) refusal(b *wire.ErrorBody) {
	f := wire.Frame{Type: wire.Fail, Code: b.Code, Message: b.Message, RetryAfter: b.RetryAfter, Payload: b.Data}
	e := fromWire(&f, d.conn.codec)
	e.Outcome = NotSent
	d.mu.Lock()
	d.refused = e
	d.mu.Unlock()
}

// refusedError is what the server said instead of WELCOME.
type refusedError struct {
	err   *Error
	close error
}

func (e *refusedError) Error() string   { return e.err.Error() }
func (e *refusedError) Unwrap() []error { return []error{e.err, e.close} }

// window takes a GOAWAY's window for coming back.
func (d *dialer) window(low, high time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.min, d.max = low, max(low, high)
}

// dialError explains a failed dial without repeating the URL, which may hold
// secrets.
func (d *dialer) dialError(ctx context.Context, resp *http.Response, err error) error {
	if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols && resp.StatusCode != 0 {
		u := &UpgradeError{Status: resp.StatusCode, Header: resp.Header}
		if resp.Body != nil {
			body, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
			u.Body = string(body)
		}
		e := &Error{Code: httpCode(u.Status), Message: "cannot connect to " + d.where + ": " + u.Error(), cause: u}
		if s, err := strconv.Atoi(u.Header.Get("Retry-After")); err == nil && s > 0 {
			e.RetryAfter = min(time.Duration(s)*time.Second, maxHint)
		}
		return e
	}
	if ctx.Err() != nil {
		return ended(ctx, NotSent)
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	return &Error{Code: Unavailable, Message: "cannot connect to " + d.where + ": " + err.Error(), cause: err}
}

func httpCode(status int) Code {
	switch status {
	case http.StatusBadRequest:
		return InvalidArgument
	case http.StatusUnauthorized:
		return Unauthenticated
	case http.StatusForbidden:
		return PermissionDenied
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusUpgradeRequired:
		return Unimplemented
	case http.StatusTooManyRequests:
		return ResourceExhausted
	}
	return Unavailable
}

// explain makes the cause of a link's end an *Error.
func (d *dialer) explain(cause error) *Error {
	var e *Error
	if errors.As(cause, &e) {
		return e
	}
	e = &Error{Code: Unavailable, Message: "the connection to " + d.where + " ended", cause: cause}
	var ce *link.CloseError
	if errors.As(cause, &ce) {
		e.Message += ": " + ce.Error()
		switch ce.Code {
		case session.CloseProtocol:
			e.Code = Internal
		case session.CloseUnauthed:
			e.Code = Unauthenticated
		case session.CloseForbidden:
			e.Code = PermissionDenied
		case session.CloseTimeout:
			if !d.opened {
				e.Code = DeadlineExceeded
			}
		}
	}
	return e
}

// verdict decides whether and when to come back (PROTOCOL.md section 8).
func (d *dialer) verdict(cause error, failed int) (wait time.Duration, back bool) {
	b := d.o.Backoff
	if b.Attempts > 0 && failed > b.Attempts {
		return 0, false
	}
	wait = b.Delay(failed)
	var e *Error
	if errors.As(cause, &e) {
		wait = max(wait, e.RetryAfter)
	}
	var u *UpgradeError
	if errors.As(cause, &u) {
		switch e.Code {
		case Unauthenticated, PermissionDenied, InvalidArgument:
			return 0, false
		}
		return wait, true
	}
	d.mu.Lock()
	low, high := d.min, d.max
	d.min, d.max = 0, 0
	d.mu.Unlock()
	code := 0 // of what never got as far as a link
	var ce *link.CloseError
	if errors.As(cause, &ce) {
		code = ce.Code
	}
	switch code {
	case session.CloseProtocol, session.CloseForbidden:
		return 0, false
	case session.CloseUnauthed:
		return wait, d.opened // one try with fresh credentials
	case session.CloseFlood:
		return b.Max/2 + b.Delay(1<<10)/2, true
	}
	if high > 0 {
		return low + rand.N(high-low+1), true
	}
	return wait, true
}

// change publishes a state. OnState is called on a goroutine that lives while
// there is something to tell, so that it may use, and close, the connection.
func (d *dialer) change(s StateChange) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state = s
	if d.o.OnState == nil {
		return
	}
	d.changes = append(d.changes, s)
	if !d.telling {
		d.telling = true
		go d.tell()
	}
}

func (d *dialer) tell() {
	for {
		d.mu.Lock()
		if len(d.changes) == 0 {
			d.telling = false
			d.mu.Unlock()
			return
		}
		s := d.changes[0]
		d.changes = d.changes[1:]
		d.mu.Unlock()
		d.o.OnState(s)
	}
}
