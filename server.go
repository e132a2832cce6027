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
	"sync/atomic"
	"time"

	"github.com/typedrpc/typedrpc/idempotency"
	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/logs"
	"github.com/typedrpc/typedrpc/internal/replay"
	"github.com/typedrpc/typedrpc/internal/schema"
	"github.com/typedrpc/typedrpc/internal/seam"
	"github.com/typedrpc/typedrpc/internal/server"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/stats"
)

// Server accepts connections: an http.Handler for any path of any http.Server,
// whose TLS it uses. It speaks typedrpc and JSON-RPC 2.0 over WebSocket, chosen
// by each client, and JSON-RPC 2.0 over POST, all with the same handlers. Its
// fields must not be changed after the first request. The zero value of every
// field is fine.
type Server struct {
	// Mux has the handlers.
	Mux *Mux
	// SignIn decides who may connect and as whom, see SignIn.Verify. Without one
	// everybody may.
	SignIn Verifier
	// Origins are the web origins, besides the server's own, whose pages may
	// connect: "https://app.example.com", compared exactly by scheme, host
	// and port. Behind a proxy that ends TLS the server's own origin is not
	// what the browser sees, and on a loopback address a page's host must be a
	// loopback name: name the public origin here for both (docs/deploy.md).
	// Clients that are no browsers send no origin and are not affected.
	Origins []string
	// DangerouslyAllowAnyOrigin lets every web page that a user visits
	// connect with that user's cookies, and read what is Safe with a GET, also from a
	// server on a loopback address by any name.
	DangerouslyAllowAnyOrigin bool
	// Subprotocols are names of the program's own, for gateways and clients that insist on
	// one, each with what it stands for: "typedrpc.v1.json" or that of another codec,
	// "typedrpc.jsonrpc" for Text, "jsonrpc" for JSONRPC. A client gets the first of its
	// offers that is one of these or of this package's; one who offers none of them is
	// answered 400, with all that there are. See DialOptions.Subprotocol.
	Subprotocols map[string]string
	// Limits bound what one client can make the server hold or do.
	Limits Limits
	// MaxMemory is how many bytes all clients together may make the server hold, by what
	// they cost in memory; docs/limits.md lists all of it. Above half of it each
	// connection gets less: what passes its share is refused with ResourceExhausted, a
	// call NotSent, and windows do not grow. Above nine sixteenths a connection is closed,
	// with WebSocket close code 4413 and a line in the log: the largest one of the subject,
	// or the address, whose connections hold the most. Go's heap grows to
	// twice what lives in it: set GOMEMLIMIT to about one and a half times this and
	// 100 MB. Default 1 GiB.
	MaxMemory int64
	// MaxPlainConns bounds the connections of plain JSON-RPC peers, which
	// need not complete any handshake; more are refused with 503. Default
	// 1,024.
	MaxPlainConns int
	// MaxKept and MaxKeptBytes bound what is kept for clients whose link was
	// lost and that have not come back yet (Limits.Grace): the number of their
	// sessions, and the bytes that wait in them, unsent, unacknowledged or not
	// handled yet, with 8 KiB for each session and for each handler that runs.
	// Beyond either those of least worth are given up: begun and not used, idle,
	// anonymous, longest away, and before all others those of a subject, or an address,
	// that has more than half. Their clients find new ones, and are told what is lost.
	// Default 10,000 and 256 MiB.
	MaxKept      int
	MaxKeptBytes int64
	// BeginRate is how many sessions a second one subject may begin, or one
	// address where nobody has authenticated (of IPv6 a network of 64 bits), and
	// ten times as many at once. Beyond that clients are asked to come a second
	// later. Many clients may share an address, behind a proxy for example.
	// Negative: any number. Default 1,000.
	BeginRate int
	// Codecs that clients may choose. Default JSON. Peers that speak Text or JSONRPC
	// are served by JSON, whatever is here.
	Codecs []Codec
	// Subscribes are namespaces whose server streams plain JSON-RPC peers subscribe to as
	// Ethereum's clients do, beside rpc.subscribe, which all have: with "eth" the call
	// eth_subscribe ["newHeads", …] begins the stream, or the topic, "eth_newHeads", whose
	// items come as eth_subscription, and eth_unsubscribe ends it (PROTOCOL.md section 7.4).
	// Check refuses one whose names the Mux has handlers of. Default none.
	Subscribes []string
	// Compress accepts permessage-deflate without context takeover. Default
	// off. The message limit holds for the decompressed message.
	Compress bool
	// ReconnectSpread is how long after a Shutdown the clients are asked to
	// spread their coming back over. Default 2 s.
	ReconnectSpread time.Duration
	// OnConnect is called for every connection once it is open, on a
	// goroutine of its own: calls of the client may run already.
	OnConnect func(*Conn)
	// OnState is told of every link that a connection loses while its session goes on
	// (StateWaiting, with Err and Since), and of every one that its client came back over
	// (StateConnected, Resumed). Where a client came back before its loss was noticed, only
	// that is told. In order, one call at a time for a connection, on a goroutine of its own,
	// so it may use the connection, and end it; for a connection for which it is slow the
	// latest sixteen are kept. The beginning and the end are OnConnect's and
	// OnDisconnect's: it may be called while OnConnect runs, and not after OnDisconnect.
	// POSTs, and plain JSON-RPC peers, whose connections end with their links, are not in it.
	OnState func(*Conn, StateChange)
	// OnDisconnect is called after OnConnect has returned and the connection
	// has ended, with the reason. Shutdown waits for it.
	OnDisconnect func(*Conn, error)
	// OutgoingInterceptors wrap the calls and notifications that go to clients.
	OutgoingInterceptors []Interceptor
	// OutgoingRetry is the policy of calls to clients whose method has none.
	OutgoingRetry *RetryPolicy
	// Replays remembers the answers to Keyed calls. Servers may share one, and
	// a Server that takes the place of another in the same process should take
	// over its cache. Default one of the server's own.
	Replays *idempotency.Cache
	// Logger gets what no client is told: panics, handlers' foreign errors,
	// refused connections. What peers may have chosen is cut, and of each cause
	// there is a line a second: docs/logs.md lists all messages. Default
	// slog.Default().
	Logger *slog.Logger
	// Recorder is told of calls, items, links and sessions, for metrics; see package
	// stats. nil: nobody is told, which costs nothing.
	Recorder stats.Recorder
	// MapError turns a handler's error that wraps no *Error, no Code and no error of a
	// context into the one that its caller sees. nil, and a nil of what it returns, are
	// the default: Internal with a fixed text, and the error in the log.
	MapError func(ctx context.Context, err error) *Error
	// Describe lets peers ask what the server serves, by the method rpc.discover of
	// OpenRPC, in every dialect and over POST: it is called for each who asks, in its
	// handler's context, in which ConnFrom finds whose connection it is. Its error refuses,
	// and is what the caller is told, as a handler's. Peers whom it does not refuse get an
	// OpenRPC document of the names that the Mux has handlers for. Interceptors and the
	// fallback do not see these calls. Default nil: rpc.discover is a name like any other.
	Describe func(ctx context.Context) error
	// Schema is the document that "typedrpc schema" has written of the API, as go:embed
	// brings it: what Describe's peers are told of messages and comments, as far as this
	// server serves it. Where it contradicts the Mux in a kind or a trait, Check says so.
	// Where both sides have one, the handshake finds the names of which they have others,
	// see DialOptions.Schema. Default nil: they are told names, kinds and traits.
	Schema []byte

	setup  sync.Once
	fault  error // of the configuration
	logged sync.Once
	log    *slog.Logger
	opts   *options
	s      atomic.Pointer[server.Server]

	described described
}

// Check reports what is wrong with the server's fields: limits out of range,
// origins that are none, a codec that cannot carry a method's types, a Schema of
// another API. Call it
// when the program starts; without it the first request finds out, and every
// request is answered with 500.
func (s *Server) Check() error {
	if s == nil {
		return errors.New("typedrpc: the Server is nil")
	}
	s.setup.Do(func() { s.fault = s.configure() })
	return s.fault
}

const (
	defaultPlainConns      = 1024
	defaultReconnectSpread = 2 * time.Second
)

func (s *Server) configure() error {
	limits, err := flow.Limits(s.Limits).WithDefaults()
	if err != nil {
		return err
	}
	if s.MaxPlainConns < 0 || s.ReconnectSpread < 0 || s.MaxMemory < 0 || s.MaxKept < 0 || s.MaxKeptBytes < 0 {
		return errors.New("typedrpc: Server.MaxPlainConns, MaxMemory, MaxKept, MaxKeptBytes and ReconnectSpread must not be negative")
	}
	if err := checkInterceptors("Server.OutgoingInterceptors", s.OutgoingInterceptors); err != nil {
		return err
	}
	codecs, names, err := s.offered()
	if err != nil {
		return err
	}
	verbs, err := verbsOf(s.Subscribes, s.Mux)
	if err != nil {
		return err
	}
	opts := &options{mux: s.Mux, logger: s.logger(), mapError: s.MapError, interceptors: slices.Clone(s.OutgoingInterceptors)}
	var prints *schema.Prints
	if prints, opts.describe, err = s.describes(); err != nil {
		return err
	}
	o := s.options(limits, opts, names)
	o.Config.Verbs, o.Readable, o.Prints = verbs, s.Mux.readable, prints
	if o.Config.Replays, err = seam.CacheIn(s.Replays, replay.Options{}); err != nil {
		return err
	}
	codec := numbered(codecs)
	opts.codec = codec
	s.opts = opts
	o.NewConn = func(k engine.Keeper, i int) engine.Owner {
		return owner{&Conn{codec: codec(i), keeper: k, opts: opts}}
	}
	o.Made = func(o engine.Owner, e *engine.Conn) { o.(owner).conn.e = e }
	s.callbacks(&o, opts, codec)
	inner, err := server.New(o)
	if err != nil {
		return err
	}
	if s.OutgoingRetry != nil {
		if err := s.OutgoingRetry.check(); err != nil {
			return fmt.Errorf("typedrpc: Server.OutgoingRetry: %w", err)
		}
		opts.retry = s.OutgoingRetry.ready()
	}
	s.s.Store(inner)
	return nil
}

// options are what the fields say, with their defaults.
func (s *Server) options(limits flow.Limits, opts *options, names []string) server.Options {
	return server.Options{
		Config: engine.Config{
			Limits: limits, Logger: opts.logger, Recorder: recorderOf(s.Recorder, opts.logger), Intern: s.Mux.intern,
			Ledger:   flow.NewLedger(cmp.Or(s.MaxMemory, 1<<30)),
			Detached: replay.NewDetached(limits.MaxCalls),
		},
		Origins: s.Origins, AnyOrigin: s.DangerouslyAllowAnyOrigin, Compress: s.Compress, Codecs: names,
		Subprotocols: maps.Clone(s.Subprotocols),
		MaxPlain:     cmp.Or(s.MaxPlainConns, defaultPlainConns), ReconnectSpread: cmp.Or(s.ReconnectSpread, defaultReconnectSpread),
		MaxKept: cmp.Or(s.MaxKept, 10_000), MaxKeptBytes: cmp.Or(s.MaxKeptBytes, 256<<20),
		BeginRate: float64(max(cmp.Or(s.BeginRate, 1000), 0)),
		Down:      down, Up: func(err error) error { return lift(err, nil) },
	}
}

// offered are the codecs that clients may choose, and their names.
func (s *Server) offered() (codecs []Codec, names []string, err error) {
	if codecs = s.Codecs; len(codecs) == 0 {
		codecs = []Codec{JSON}
	}
	for i, c := range codecs {
		if err := checkCodec(c, codecs[:i]); err != nil {
			return nil, nil, err
		}
		if err := errors.Join(s.Mux.check(c), s.SignIn.types.fits(c)); err != nil {
			return nil, nil, err
		}
		names = append(names, c.Name())
	}
	return codecs, names, nil
}

// callbacks are the program's functions as the layer below calls them.
func (s *Server) callbacks(o *server.Options, opts *options, codec func(int) Codec) {
	o.OnConnect = func(e *engine.Conn) func() {
		if s.OnConnect == nil {
			return nil
		}
		return func() { opts.callback("OnConnect", func() { s.OnConnect(connOf(e)) }) }
	}
	o.OnDisconnect = func(e *engine.Conn, err error) {
		if s.OnDisconnect != nil {
			opts.callback("OnDisconnect", func() { s.OnDisconnect(connOf(e), lift(err, connOf(e).codec)) })
		}
	}
	if s.OnState != nil {
		o.OnState = func(e *engine.Conn, change server.Change) {
			c := connOf(e)
			told := StateChange{State: StateWaiting, Err: lift(change.Err, c.codec), Since: change.Since}
			if change.Linked {
				told.State, told.Resumed = StateConnected, true
			}
			opts.callback("OnState", func() { s.OnState(c, told) })
		}
	}
	if run := s.SignIn.run; run != nil {
		o.Authenticate = func(ctx context.Context, r *http.Request, raw []byte, i int) (server.Identity, []byte, error) {
			creds, err := unwrapAuth(codec(i), raw)
			if err != nil {
				return server.Identity{}, nil, down(err)
			}
			id, reply, err := run(ctx, r, creds, codec(i))
			return server.Identity(id), wrapAuth(codec(i), reply), down(err)
		}
	}
	o.Refusal = func(e *status.Error, i int) wire.ErrorBody { return opts.refusal(up(e, codec(i)), codec(i)) }
	o.Data = func(raw []byte, i int) ([]byte, error) { return unwrapAuth(codec(i), raw) }
}

// logger bounds what goes to Logger.
func (s *Server) logger() *slog.Logger {
	s.logged.Do(func() { s.log = logs.New(func() *slog.Logger { return s.Logger }) })
	return s.log
}

// guard refuses requests to a server that is misconfigured.
func (s *Server) guard() *server.HTTPRefusal {
	err := s.Check()
	if err == nil {
		return nil
	}
	if s != nil {
		s.logger().Error("typedrpc: the server is misconfigured", "error", logs.Own(err.Error()))
	}
	return &server.HTTPRefusal{Status: http.StatusInternalServerError, Text: "the server is misconfigured; its log says how", Header: http.Header{}}
}

// admit decides about an upgrade request that comes in memory.
func (s *Server) admit(r *http.Request, offers []string) (server.Admission, *server.HTTPRefusal) {
	if refused := s.guard(); refused != nil {
		return server.Admission{}, refused
	}
	return s.s.Load().Admit(r, offers)
}

// ServeHTTP answers an upgrade with a connection that lives on after it
// returns, a POST with JSON-RPC 2.0, a GET of something Safe with that, and anything else with a text that helps.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if refused := s.guard(); refused != nil {
		refused.Write(w)
		return
	}
	s.s.Load().ServeHTTP(w, r)
}

// Conns ranges over the open connections, as they were when the loop began, also
// those that have lost their link and are kept (their State is StateWaiting), in no order.
func (s *Server) Conns() iter.Seq[*Conn] {
	return s.conns((*server.Server).Conns)
}

// ConnsOf is Conns of those whose Identity has one of the subjects, each once: of no subjects
// it is none. It takes as long as they are many, however many others there are. "" are
// those without a subject.
func (s *Server) ConnsOf(subjects ...string) iter.Seq[*Conn] {
	of := slices.Clone(subjects) // the loop may begin later
	return s.conns(func(inner *server.Server) []*engine.Conn { return inner.ConnsOf(of...) })
}

func (s *Server) conns(of func(*server.Server) []*engine.Conn) iter.Seq[*Conn] {
	return func(yield func(*Conn) bool) {
		if s == nil || s.s.Load() == nil {
			return // nobody has connected
		}
		for _, e := range of(s.s.Load()) {
			if !yield(connOf(e)) {
				return
			}
		}
	}
}

// Shutdown ends the server gracefully, in this order: new connections are
// refused; clients are told to begin nothing new and to come back spread over
// ReconnectSpread; calls in flight, both ways, finish; connections close, with code
// 1012. A client whose link breaks meanwhile may come back for its answers. When
// ctx ends first, the rest is closed at once and ctx.Err() returned as it is. Call it
// before http.Server.Shutdown, which knows nothing of upgraded connections. A
// Server that was shut down stays so. With the context of one of its own handlers, which
// would wait for itself, it does nothing and fails with FailedPrecondition.
func (s *Server) Shutdown(ctx context.Context) error {
	if err := s.Check(); err != nil {
		return err
	}
	if ctx == nil {
		return noContext("Server.Shutdown")
	}
	if c := engine.Handling(ctx); c != nil && connOf(c).opts == s.opts {
		return errOwnHandler
	}
	return s.s.Load().Shutdown(ctx)
}
