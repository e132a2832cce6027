package typedrpc

import (
	"context"
	crand "crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"runtime/debug"
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
	offers []string
	chosen string
	client string          // a random name
	ctx    context.Context // ends with stop
	stop   context.CancelFunc
	now    chan struct{} // capacity 1: do not wait
	turn   chan struct{} // capacity 1: held by who refreshes the credentials

	// of the supervisor's goroutine, and of the reader, which is the same
	endpoints []endpoint
	at        endpoint      // of this attempt
	leave     bool          // its server is going away
	attempt   uint64        // of all, rising
	failed    int           // in a row
	opened    bool          // this attempt got a link for the connection …
	since     time.Time     // … then
	told      chan<- *Error // of the first; nil when it has been

	mu       sync.Mutex
	state    StateChange
	changes  []StateChange // not told yet
	telling  bool
	min, max time.Duration    // window that the server gave for coming back
	refused  *Error           // what the server said instead of WELCOME
	sess     *session.Session // the one to go on with; nil: none
	token    string           // of the last one
	grace    time.Duration    // that it is kept for without a link
	expiry   *time.Timer      // of that
	stuck    progress
	up       chan struct{}  // closed with the next WELCOME
	owed     *debt          // the answer to an AUTH on this link; nil: none
	refresh  *time.Timer    // of the credentials …
	expires  time.Time      // … which end then
	renewing sync.WaitGroup // refreshes under way
}

// endpoint is an address of the service.
type endpoint struct{ url, where string } // where: for texts, without credentials and query

// progress finds a session that gets a link again and again and does not get on.
type progress struct {
	acked, received uint64
	times           int
}

// maxStuck is how often a session is resumed without a frame that gets through
// either way, before it is given up: what is sent again may be what breaks the
// link, in a proxy for example.
const maxStuck = 16

func newDialer(ctx context.Context, target string, o *DialOptions) (*dialer, error) {
	d := &dialer{o: *o, now: make(chan struct{}, 1), turn: make(chan struct{}, 1), up: make(chan struct{})}
	d.o.Header = o.Header.Clone()
	limits, err := o.Limits.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := o.Backoff.check(); err != nil {
		return nil, fmt.Errorf("typedrpc: DialOptions.%w", err)
	}
	d.o.Backoff = o.Backoff.withDefaults()
	if d.endpoints, err = endpoints(target, o.URLs); err != nil {
		return nil, err
	}
	if d.o.Codecs == nil {
		d.o.Codecs = []Codec{JSON}
	}
	if d.offers, err = d.subprotocols(); err != nil {
		return nil, err
	}
	if d.o.connect == nil {
		d.o.connect = func(ctx context.Context, url string, offers []string) (link.Transport, string, *http.Response, error) {
			return link.Dial(ctx, url, link.DialOptions{
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
	var bits [16]byte
	crand.Read(bits[:]) // never fails
	d.client = hex.EncodeToString(bits[:])
	d.conn = newConn(context.WithoutCancel(ctx), cfg)
	context.AfterFunc(d.conn.ctx, cfg.detached.stop)
	d.conn.heals, d.conn.dialer = true, d
	d.ctx, d.stop = context.WithCancel(context.Background())
	return d, nil
}

// endpoints checks the addresses; one that is there twice is taken once.
func endpoints(target string, more []string) ([]endpoint, error) {
	all := make([]endpoint, 0, 1+len(more))
	if target != "" || len(more) == 0 {
		more = append([]string{target}, more...)
	}
	for _, s := range more {
		where, err := checkURL(s)
		if err != nil {
			return nil, err
		}
		if e := (endpoint{s, where}); !slices.Contains(all, e) {
			all = append(all, e)
		}
	}
	return all, nil
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
func (d *dialer) run(first context.Context) {
	c := d.conn
	var cause error
	for {
		ctx := d.ctx
		if d.told != nil {
			ctx = first
		}
		cause = d.round(ctx)
		if d.ctx.Err() != nil || d.told != nil {
			break
		}
		if d.opened && time.Since(d.since) >= lived {
			d.failed = 0
		}
		d.failed++
		wait, back := d.verdict(cause)
		if !back || !d.pause(wait, d.explain(cause)) {
			break
		}
	}
	err := c.failed(d.explain(cause))
	d.stop()
	if s := d.claim(); s != nil {
		s.End(err)
		c.lost(s, err)
	}
	d.stopRefreshing()
	d.renewing.Wait()
	d.change(StateChange{State: Closed, Err: err})
	c.finish(err)
	if d.told != nil {
		d.told <- err
	}
}

// pause waits for the next attempt; it reports false when the connection was
// closed.
func (d *dialer) pause(wait time.Duration, cause error) bool {
	select {
	case <-d.now: // asked for while connected: do not wait at all
		return true
	default:
	}
	d.change(StateChange{State: Waiting, Err: cause, Next: time.Now().Add(wait), Attempt: d.failed})
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

// round tries one address after another until one has given the connection a
// link, which it serves until that ends.
func (d *dialer) round(ctx context.Context) (cause error) {
	for _, d.at = range d.order() {
		d.change(StateChange{State: Connecting, Attempt: d.failed + 1, URL: d.at.where})
		cause = d.connect(ctx)
		if d.opened || d.final(cause) || ctx.Err() != nil || d.ctx.Err() != nil {
			break
		}
	}
	return cause
}

// order is the order in which the addresses are tried.
func (d *dialer) order() []endpoint {
	all := slices.Clone(d.endpoints)
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	d.mu.Lock()
	stay := d.sess != nil
	d.mu.Unlock()
	i := slices.Index(all, d.at)
	if i < 0 || !stay && !d.leave {
		return all
	}
	all = slices.Delete(all, i, i+1)
	if stay {
		return slices.Insert(all, 0, d.at)
	}
	return append(all, d.at)
}

// connect makes one attempt and, if it gets the connection a link, serves it
// until it ends.
func (d *dialer) connect(ctx context.Context) error {
	c := d.conn
	d.opened, d.leave = false, false
	d.attempt++
	d.mu.Lock()
	d.refused = nil
	d.mu.Unlock()

	dialCtx, cancel := context.WithTimeout(ctx, c.config.limits.HandshakeTimeout)
	defer cancel()
	defer context.AfterFunc(d.ctx, cancel)()
	t, name, resp, err := d.o.connect(dialCtx, d.at.url, d.offers)
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
	carrier := newCarrier(t, &c.config, c.dialect, d, true)
	if hello {
		carrier.Hello(d.hello(creds))
	} else if err := d.begin(carrier, c.config.limits.plainPeer(), features{}, c.config.limits.KeepAlive); err != nil {
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
		return &refusedError{d.refused, cause}
	case !d.opened && ctx.Err() != nil:
		return ended(ctx, NotSent)
	}
	return cause
}

// hello makes the HELLO of an attempt.
func (d *dialer) hello(creds []byte) wire.HelloBody {
	c := d.conn
	h := wire.HelloBody{
		Attempt: d.attempt, Client: d.client, Credentials: wrapAuth(c.codec, creds),
		Limits: c.config.limits.announced(), Features: c.config.features(d.o.Auth.get != nil), Cache: c.config.replays.id,
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	h.Token = d.token
	if d.sess != nil { // whose old link nobody reads any more
		_, _, h.Received = d.sess.Positions()
	}
	return h
}

// linkEnded decides what a link's end means for the session.
func (d *dialer) linkEnded(carrier *session.Carrier, cause error) {
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
	d.conn.linkDown()
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
func (d *dialer) claim() *session.Session {
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
func (d *dialer) drop(s *session.Session, cause error) {
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
	d.conn.lost(s, cause)
}

// newCarrier makes a carrier over t with a connection's limits.
func newCarrier(t link.Transport, cfg *config, dialect session.Dialect, opener session.Opener, client bool) *session.Carrier {
	l := cfg.limits
	return session.NewCarrier(t, opener, session.Options{
		Dialect: dialect, Client: client, Message: l.MaxMessage, MaxDepth: l.MaxDepth,
		Intern: cfg.mux.intern, WriteTimeout: l.WriteTimeout, Handshake: l.HandshakeTimeout,
	})
}

// newSession makes a session for the connection.
func (c *Conn) newSession(f features) *session.Session {
	log := 0
	if f.resume {
		log = c.config.limits.MaxUnacked
	}
	return session.New(&engine{c}, c.dialect, c.heals, log)
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
	ctx, cancel := context.WithTimeout(ctx, d.conn.config.limits.HandshakeTimeout)
	defer cancel()
	defer context.AfterFunc(d.ctx, cancel)()
	creds, err := d.ask(ctx)
	if err != nil {
		var e *Error
		if errors.As(err, &e) {
			return nil, e
		}
		return nil, &Error{Code: Unauthenticated, Message: "no credentials: " + err.Error(), cause: err}
	}
	return creds, nil
}

// ask runs the user's function, whose panic fails one attempt.
func (d *dialer) ask(ctx context.Context) (creds []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			d.conn.config.logger.Error("typedrpc: credentials function panicked",
				"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = &Error{Code: Internal, Message: "the credentials function panicked"}
		}
	}()
	return d.o.Auth.get(ctx, d.conn.codec)
}

// Hello is the server's.
func (d *dialer) Hello(*session.Carrier, wire.HelloBody) {}

// Opened is called by the reader with the server's WELCOME.
func (d *dialer) Opened(carrier *session.Carrier, w wire.WelcomeBody) error {
	c := d.conn
	reply, err := unwrapAuth(c.codec, w.Reply)
	if err != nil {
		return protocolError("malformed reply in WELCOME")
	}
	keepAlive := c.config.limits.KeepAlive
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
		c.lost(old, err)
		return err
	case w.Resumed:
		d.welcomed(old, w.Token, reply)
		d.serve(carrier, keepAlive, true)
	default:
		if old != nil {
			err := &lostError{w.Reason}
			old.End(err)
			c.lost(old, err)
		}
		d.mu.Lock()
		d.token = w.Token
		d.grace = c.config.limits.Grace
		if g := time.Duration(min(w.Grace, 1<<40)) * time.Millisecond; g > 0 {
			d.grace = min(d.grace, g)
		}
		d.mu.Unlock()
		c.mu.Lock()
		c.welcome, c.peerCache = slices.Clone(reply), checkCache(w.Cache)
		c.mu.Unlock()
		f := sharedFeatures(c.dialect, c.config.features(d.o.Auth.get != nil), w.Features)
		if err := d.begin(carrier, announcedBy(w.Limits), f, keepAlive); err != nil {
			return err
		}
	}
	d.refreshIn(time.Duration(min(w.Expires, 1<<40)) * time.Millisecond)
	return nil
}

// lostError says that a server has the session no more.
type lostError struct{ reason string }

func (e *lostError) Error() string { return "the session was lost: " + e.reason }

// begin begins a new session on carrier.
func (d *dialer) begin(carrier *session.Carrier, peer wire.Limits, f features, keepAlive time.Duration) error {
	s := d.conn.newSession(f)
	d.conn.opened(s, peer, f)
	if err := s.Attach(carrier, 0, nil); err != nil { // the connection was closed
		d.conn.lost(s, err)
		return &link.CloseError{Code: session.CloseDone, Reason: "closed"}
	}
	d.mu.Lock()
	d.sess, d.stuck = s, progress{}
	d.mu.Unlock()
	d.serve(carrier, keepAlive, false)
	return nil
}

// welcomed notes what a WELCOME brought for a session that goes on.
func (d *dialer) welcomed(s *session.Session, token string, reply []byte) {
	d.mu.Lock()
	d.sess, d.token = s, token
	d.mu.Unlock()
	d.conn.mu.Lock()
	d.conn.welcome = slices.Clone(reply)
	d.conn.mu.Unlock()
}

// serve is called when the session has the link.
func (d *dialer) serve(carrier *session.Carrier, keepAlive time.Duration, resumed bool) {
	d.opened, d.since = true, time.Now()
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
	d.conn.linkUp(s)
	d.change(StateChange{State: Connected, URL: d.at.where, Resumed: resumed})
	if d.told != nil {
		d.told <- nil
		d.told = nil
	}
}

// Refused is called by the reader when the server refused the HELLO.
func (d *dialer) Refused(b *wire.ErrorBody) {
	e := refusedBy(b, d.conn.codec)
	d.mu.Lock()
	d.refused = e
	d.mu.Unlock()
}

func refusedBy(b *wire.ErrorBody, codec Codec) *Error {
	f := wire.Frame{Type: wire.Fail, Code: b.Code, Message: b.Message, RetryAfter: b.RetryAfter, Payload: b.Data}
	e := fromWire(&f, codec)
	e.Outcome = NotSent
	return e
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
		e := &Error{Code: httpCode(u.Status), Message: "cannot connect to " + d.at.where + ": " + u.Error(), cause: u}
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
	return &Error{Code: Unavailable, Message: "cannot connect to " + d.at.where + ": " + err.Error(), cause: err}
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
	e = &Error{Code: Unavailable, Message: "the connection to " + d.at.where + " ended", cause: cause}
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

// final reports whether coming back is pointless (PROTOCOL.md section 8).
func (d *dialer) final(cause error) bool {
	var u *UpgradeError
	if errors.As(cause, &u) {
		switch httpCode(u.Status) {
		case Unauthenticated, PermissionDenied, InvalidArgument:
			return true
		}
		return false
	}
	var ce *link.CloseError
	if !errors.As(cause, &ce) {
		return false
	}
	switch ce.Code {
	case session.CloseProtocol, session.CloseForbidden:
		return true
	case session.CloseUnauthed:
		return !d.opened // else one try with fresh credentials
	}
	return false
}

// verdict decides whether and when to come back.
func (d *dialer) verdict(cause error) (wait time.Duration, back bool) {
	b := d.o.Backoff
	if b.Attempts > 0 && d.failed > b.Attempts || d.final(cause) {
		return 0, false
	}
	d.mu.Lock()
	low, high := d.min, d.max
	d.min, d.max = 0, 0
	if d.sess != nil { // which does not wait for ever, nor as long as a server's restart takes
		low, high = 0, 0
		b.Max = min(b.Max, max(d.grace/4, 1))
		b.Min = min(b.Min, b.Max)
	}
	d.mu.Unlock()
	d.leave = high > 0
	wait = b.Delay(d.failed)
	var e *Error
	if errors.As(cause, &e) && e.RetryAfter > 0 { // which all are told: not at the same moment
		wait = max(wait, e.RetryAfter+rand.N(e.RetryAfter/2+1))
	}
	code := 0 // of what never got as far as a link
	var ce *link.CloseError
	if errors.As(cause, &ce) {
		code = ce.Code
	}
	switch {
	case code == session.CloseFlood:
		return b.Max/2 + b.Delay(1<<10)/2, true
	case code == session.CloseUnauthed:
		return wait, true
	case high > 0:
		return low + rand.N(high-low+1), true
	}
	return wait, true
}

// change publishes a state. OnState is called on a goroutine that lives while
// there is something to tell, so that it may use, and close, the connection.
func (d *dialer) change(s StateChange) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changeLocked(s)
}

func (d *dialer) changeLocked(s StateChange) {
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
