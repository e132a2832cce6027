package typedrpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Server accepts connections: an http.Handler for any path of any http.Server,
// whose TLS it uses. It speaks typedrpc and JSON-RPC 2.0 over WebSocket, chosen
// by each client, and JSON-RPC 2.0 over POST, all with the same handlers. Its
// fields must not be changed after the first request. The zero value of every
// field is fine.
type Server struct {
	// Mux has the handlers.
	Mux *Mux
	// Authenticate decides who may connect and as whom, see Authenticate.
	// Without one everybody may.
	Authenticate Authenticator
	// Origins are the web origins, besides the server's own, whose pages may
	// connect: "https://app.example.com", compared exactly by scheme, host
	// and port. Behind a proxy that ends TLS the server's own origin is not
	// what the browser sees: name it here. Clients that are no browsers send
	// no origin and are not affected.
	Origins []string
	// DangerouslyAllowAnyOrigin lets every web page that a user visits
	// connect with that user's cookies, also to a server on a loopback
	// address by any name.
	DangerouslyAllowAnyOrigin bool
	// Limits bound what one client can make the server hold or do.
	Limits Limits
	// MaxBuffered is how many bytes all connections together may hold of what
	// clients sent: requests being handled, stream items that no handler has
	// received, and messages of which parts have come. What passes it is
	// refused with ResourceExhausted: a call, NotSent, or the stream that an
	// item belongs to. From half of it on windows do not grow, and only 64 KiB
	// wait for the socket of a client before its handlers wait. Default 1 GiB.
	MaxBuffered int64
	// MaxPlainConns bounds the connections of plain JSON-RPC peers, which
	// need not complete any handshake; more are refused with 503. Default
	// 1,024.
	MaxPlainConns int
	// MaxKept and MaxKeptBytes bound what is kept for clients whose link was
	// lost and that have not come back yet (Limits.Grace): the number of their
	// sessions, and the bytes that wait in them, unsent, unacknowledged or not
	// handled yet, with 8 KiB for each session and for each handler that runs.
	// The bytes are asked for when a link is lost, and once a second. Beyond
	// either the sessions that have been without a link for the longest are given
	// up, those first whose clients never answered a WELCOME: their clients find
	// new ones, and are told what is lost. Default 10,000 and 256 MiB.
	MaxKept      int
	MaxKeptBytes int64
	// Codecs that clients may choose. Default JSON.
	Codecs []Codec
	// Compress accepts permessage-deflate without context takeover. Default
	// off. The message limit holds for the decompressed message.
	Compress bool
	// RetryWindow is how long after a Shutdown the clients are asked to
	// spread their coming back over. Default 2 s.
	RetryWindow time.Duration
	// OnConnect is called for every connection once it is open, on a
	// goroutine of its own: calls of the client may run already.
	OnConnect func(*Conn)
	// OnDisconnect is called after OnConnect has returned and the connection
	// has ended, with the reason. Shutdown waits for it.
	OnDisconnect func(*Conn, error)
	// Interceptors wrap the calls and notifications that go to clients.
	Interceptors []Interceptor
	// Retry is the policy of calls to clients whose method has none.
	Retry *RetryPolicy
	// Replays remembers the answers to Keyed calls. Servers may share one, and
	// a Server that takes the place of another in the same process should take
	// over its cache. Default one of the server's own.
	Replays *ReplayCache
	// Logger gets what no client is told: panics, handlers' foreign errors,
	// refused connections. Default slog.Default().
	Logger *slog.Logger
	// MapError translates handlers' errors that are no *Error.
	MapError ErrorMapper

	setup    sync.Once
	fault    error // of the configuration
	config   config
	maxPlain int
	window   time.Duration
	origins  []origin
	codecs   []Codec

	registry session.Registry

	mu       sync.Mutex
	links    map[*serverLink]struct{} // that live
	accepted map[*accepted]struct{}   // connections, with or without a link
	checks   map[*check]struct{}      // authentications under way
	plain    int
	draining bool
	ended    chan struct{} // not nil while Shutdown waits: closed when nothing is left
}

// Check reports what is wrong with the server's fields: limits out of range,
// origins that are none, a codec that cannot carry a method's types. Call it
// when the program starts; without it the first request finds out, and every
// request is answered with 500.
func (s *Server) Check() error {
	s.setup.Do(func() { s.fault = s.configure() })
	return s.fault
}

func (s *Server) configure() error {
	limits, err := s.Limits.withDefaults()
	if err != nil {
		return err
	}
	if s.MaxPlainConns < 0 || s.RetryWindow < 0 || s.MaxBuffered < 0 || s.MaxKept < 0 || s.MaxKeptBytes < 0 {
		return errors.New("typedrpc: Server.MaxPlainConns, MaxBuffered, MaxKept, MaxKeptBytes and RetryWindow must not be negative")
	}
	s.maxPlain, s.window = s.MaxPlainConns, s.RetryWindow
	if s.maxPlain == 0 {
		s.maxPlain = 1024
	}
	if s.window == 0 {
		s.window = 2 * time.Second
	}
	s.codecs = s.Codecs
	if s.codecs == nil {
		s.codecs = []Codec{JSON}
	}
	for _, c := range s.codecs {
		if err := checkCodec(c); err != nil {
			return err
		}
		if err := s.Mux.check(c); err != nil {
			return err
		}
	}
	for _, o := range s.Origins {
		parsed, err := parseOrigin(o)
		if err != nil {
			return fmt.Errorf("typedrpc: Server.Origins: %w", err)
		}
		s.origins = append(s.origins, parsed)
	}
	s.config = config{
		mux: s.Mux, limits: limits, logger: s.Logger, mapError: s.MapError,
		interceptors: slices.Clone(s.Interceptors),
		budget:       &budget{max: cmp.Or(s.MaxBuffered, 1<<30)},
		replays:      s.Replays,
		detached:     &detached{most: limits.MaxCalls},
	}
	if s.config.replays == nil {
		s.config.replays = NewReplayCache(ReplayOptions{})
	}
	if s.config.logger == nil {
		s.config.logger = slog.Default()
	}
	if s.Retry != nil {
		if err := s.Retry.check(); err != nil {
			return fmt.Errorf("typedrpc: Server.Retry: %w", err)
		}
		s.config.retry = s.Retry.ready()
	}
	s.links, s.accepted, s.checks = map[*serverLink]struct{}{}, map[*accepted]struct{}{}, map[*check]struct{}{}
	s.registry.MaxSessions = cmp.Or(s.MaxKept, 10_000)
	s.registry.MaxBytes = cmp.Or(s.MaxKeptBytes, 256<<20)
	return nil
}

// httpRefusal is an answer to a request that is not served.
type httpRefusal struct {
	status int
	text   string
	header http.Header
}

func refuse(status int, format string, args ...any) *httpRefusal {
	return &httpRefusal{status: status, text: fmt.Sprintf(format, args...), header: http.Header{}}
}

func (h *httpRefusal) write(w http.ResponseWriter) {
	for k, vs := range h.header {
		w.Header()[k] = vs
	}
	http.Error(w, h.text, h.status)
}

// admission is what a request's head decides about its connection.
type admission struct {
	subprotocol string
	dialect     session.Dialect
	codec       Codec
	grant       grant  // plain peers: authenticated already …
	check       *check // … and not open yet
}

// admit decides about an upgrade request.
func (s *Server) admit(r *http.Request, offers []string) (admission, *httpRefusal) {
	var a admission
	if refused := s.guard(r); refused != nil {
		return a, refused
	}
	a, ok := s.negotiate(offers)
	if refused := s.drains(ok && a.dialect != session.Plain); refused != nil {
		return a, refused
	}
	if !ok {
		return a, refuse(http.StatusBadRequest, "none of the offered subprotocols is spoken here; supported are %q", s.supported())
	}
	if a.dialect != session.Plain {
		return a, nil
	}
	if !s.reservePlain() {
		return a, refuse(http.StatusServiceUnavailable, "too many plain JSON-RPC connections; use one with the subprotocol %q, or try again later", helloProtocol)
	}
	a.check = s.beginCheck()
	g, refused := s.authenticateRequest(context.WithoutCancel(r.Context()), r)
	a.grant = g
	if refused != nil {
		s.release(a)
	}
	return a, refused
}

// reservePlain takes one of the places for plain peers.
func (s *Server) reservePlain() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.plain >= s.maxPlain {
		return false
	}
	s.plain++
	return true
}

// release gives back what admit reserved.
func (s *Server) release(a admission) {
	if a.dialect == session.Plain {
		s.endCheck(a.check)
		a.grant.release(context.Canceled)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.plain--
	}
}

// guard refuses what must not be served at all: POSTs and upgrades alike.
func (s *Server) guard(r *http.Request) *httpRefusal {
	if err := s.Check(); err != nil {
		s.logger().Error("typedrpc: the server is misconfigured", "error", err)
		return refuse(http.StatusInternalServerError, "the server is misconfigured; its log says how")
	}
	if err := s.checkOrigin(r); err != nil {
		s.logger().Warn("typedrpc: request refused", "remote", r.RemoteAddr, "error", err)
		return refuse(http.StatusForbidden, "%s", err.Error())
	}
	return nil
}

// drains refuses new work while the server shuts down. What may be a session that
// comes back for its answers is let in.
func (s *Server) drains(mayResume bool) *httpRefusal {
	s.mu.Lock()
	draining := s.draining && !(mayResume && len(s.accepted) > 0)
	s.mu.Unlock()
	if !draining {
		return nil
	}
	h := refuse(http.StatusServiceUnavailable, "shutting down")
	h.header.Set("Retry-After", "1")
	return h
}

func (s *Server) logger() *slog.Logger {
	if s.Logger != nil {
		return s.Logger
	}
	return slog.Default()
}

// negotiate takes the client's first offer that is supported, and none when
// none was offered.
func (s *Server) negotiate(offers []string) (a admission, ok bool) {
	if len(offers) == 0 {
		return admission{dialect: session.Plain, codec: JSON}, true
	}
	for _, name := range offers {
		switch {
		case name == helloProtocol:
			return admission{subprotocol: name, dialect: session.JSON, codec: JSON}, true
		case slices.Contains(plainProtocols, name):
			return admission{subprotocol: name, dialect: session.Plain, codec: JSON}, true
		}
		for _, c := range s.codecs {
			if codecProtocol(c) == name {
				return admission{subprotocol: name, dialect: session.Binary, codec: c}, true
			}
		}
	}
	return a, false
}

func (s *Server) supported() []string {
	var names []string
	for _, c := range s.codecs {
		names = append(names, codecProtocol(c))
	}
	return append(append(names, helloProtocol), plainProtocols...)
}

// bounded returns a context that ends when the handshake's time is over, unless
// stop was called before: an Identity's context may derive from it, so it does
// not end with the authentication.
func (s *Server) bounded(parent context.Context) (ctx context.Context, cancel context.CancelCauseFunc, stop func() bool) {
	ctx, cancel = context.WithCancelCause(parent)
	timer := time.AfterFunc(s.config.limits.HandshakeTimeout, func() { cancel(context.DeadlineExceeded) })
	return ctx, cancel, timer.Stop
}

// authenticateRequest authenticates a plain peer or a POST by the request
// alone. base is what lives as long as the peer does.
func (s *Server) authenticateRequest(base context.Context, r *http.Request) (g grant, _ *httpRefusal) {
	if s.Authenticate.run == nil {
		return g, nil
	}
	ctx, cancel, stop := s.bounded(base)
	defer stop()
	defer context.AfterFunc(r.Context(), func() { cancel(context.Canceled) })()
	id, _, err := s.authenticate(ctx, r, nil, JSON)
	if err == nil {
		return grant{id: id, end: cancel}, nil
	}
	cancel(err)
	e, code, foreign := refusalOf(err)
	s.logRefusal(r, err, foreign)
	status := http.StatusUnauthorized
	switch code {
	case session.CloseForbidden:
		status = http.StatusForbidden
	case session.CloseOverload:
		status = http.StatusServiceUnavailable
	}
	return g, refuse(status, "%s", e.Message)
}

// authenticate runs the user's function, whose panic refuses one peer.
func (s *Server) authenticate(ctx context.Context, r *http.Request, creds []byte, codec Codec) (id Identity, reply []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("Authenticate panicked: %v", p)
		}
	}()
	return s.Authenticate.run(ctx, r.WithContext(ctx), creds, codec)
}

func (s *Server) logRefusal(r *http.Request, err error, foreign bool) {
	level := slog.LevelDebug
	if foreign {
		level = slog.LevelWarn
	}
	s.config.logger.Log(r.Context(), level, "typedrpc: peer not authenticated", "remote", r.RemoteAddr, "error", err)
}

// ServeHTTP answers an upgrade with a connection that lives on after it
// returns, a POST with JSON-RPC 2.0, and anything else with a text that helps.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.Check() != nil {
		s.guard(r).write(w) // says so
		return
	}
	switch {
	case r.Method == http.MethodPost:
		s.servePost(w, r)
	case r.Method != http.MethodGet:
		h := refuse(http.StatusMethodNotAllowed, "typedrpc: connect with a WebSocket, or POST JSON-RPC 2.0")
		h.header.Set("Allow", "GET, POST")
		h.write(w)
	case !isUpgrade(r):
		h := refuse(http.StatusUpgradeRequired, "This is a typedrpc endpoint. Connect with a WebSocket (subprotocols %q), or POST JSON-RPC 2.0 with Content-Type: application/json.", s.supported())
		h.header.Set("Upgrade", "websocket")
		h.header.Set("Connection", "Upgrade")
		h.write(w)
	default:
		a, refused := s.admit(r, link.Offers(r.Header))
		if refused != nil {
			refused.write(w)
			return
		}
		t, err := link.Accept(w, r, a.subprotocol, s.Compress)
		if err != nil {
			s.release(a)
			s.config.logger.Warn("typedrpc: upgrade failed", "remote", r.RemoteAddr, "error", err)
			return
		}
		s.start(t, a, r)
	}
}

// Conns ranges over the open connections, as they were when the loop began, also
// those that have lost their link and are kept (their State is Waiting).
func (s *Server) Conns() iter.Seq[*Conn] {
	return func(yield func(*Conn) bool) {
		s.mu.Lock()
		conns := make([]*Conn, 0, len(s.accepted))
		for a := range s.accepted {
			if a.open.Load() {
				conns = append(conns, a.conn)
			}
		}
		s.mu.Unlock()
		for _, c := range conns {
			if !yield(c) {
				return
			}
		}
	}
}

// Shutdown ends the server gracefully, in this order: new connections are
// refused; clients are told to begin nothing new and to come back spread over
// RetryWindow; calls in flight, both ways, finish; connections close, with code
// 1012. A client whose link breaks meanwhile may come back for its answers. When
// ctx ends first, the rest is closed at once and ctx's error returned. Call it
// before http.Server.Shutdown, which knows nothing of upgraded connections. A
// Server that was shut down stays so.
func (s *Server) Shutdown(ctx context.Context) (err error) {
	if err := s.Check(); err != nil {
		return err
	}
	defer func() { // Keyed calls whose sessions were lost
		if !s.config.detached.end(ctx) && err == nil {
			err = ctx.Err()
		}
	}()
	s.mu.Lock()
	s.draining = true
	if s.ended == nil {
		s.ended = make(chan struct{})
	}
	ended := s.ended
	s.checkEndedLocked()
	var opening []*serverLink
	for l := range s.links {
		if l.adm.dialect != session.Plain && !l.answered {
			l.refused = true
			opening = append(opening, l)
		}
	}
	conns := slices.Collect(maps.Keys(s.accepted))
	s.mu.Unlock()

	for _, l := range opening {
		l.carrier.Fail(&link.CloseError{Code: session.CloseRestart, Reason: errDraining.Message})
	}
	bye := wire.GoAwayBody{Reason: errDraining.Message, Max: millis(s.window)}
	var g errgroup.Group
	for _, a := range conns {
		g.Go(func() error { return a.conn.shutdown(ctx, bye, session.CloseRestart) })
	}
	err = g.Wait()
	select {
	case <-ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	return err
}

func (s *Server) checkEndedLocked() {
	if s.ended != nil && len(s.links) == 0 && len(s.accepted) == 0 {
		closeOnce(s.ended)
	}
}

// check is an authentication under way, for Revoke to know of.
type check struct{ revoked map[string]bool }

func (s *Server) beginCheck() *check {
	c := new(check)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checks[c] = struct{}{}
	return c
}

func (s *Server) endCheck(c *check) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.checks, c)
}

// Revoke closes all connections of the peers that Authenticate found to be
// subject, also those that lost their link and are kept, and returns how many.
// It closes them with code 4401 and at once: handlers' contexts end before it
// returns, calls fail, tokens of their sessions are void, and an authentication
// that is under way fails. A dialled client comes back once with fresh
// credentials: it is Authenticate that has to refuse them, from before Revoke is
// called.
func (s *Server) Revoke(subject string) int {
	if s.Check() != nil {
		return 0
	}
	s.mu.Lock()
	for c := range s.checks {
		if c.revoked == nil {
			c.revoked = map[string]bool{}
		}
		c.revoked[subject] = true
	}
	all := slices.Collect(maps.Keys(s.accepted))
	s.mu.Unlock()
	all = slices.DeleteFunc(all, func(a *accepted) bool { return a.conn.Identity().Subject != subject })
	defer s.config.detached.revoke(subject) // Keyed handlers whose sessions were lost
	for _, a := range all {
		s.registry.Remove(a.sess)
		a.conn.expel(&link.CloseError{Code: session.CloseUnauthed, Reason: errRevoked.Message, Err: errRevoked})
	}
	return len(all)
}
