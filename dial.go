package typedrpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/typedrpc/typedrpc/idempotency"
	"github.com/typedrpc/typedrpc/internal/client"
	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/logs"
	"github.com/typedrpc/typedrpc/internal/replay"
	"github.com/typedrpc/typedrpc/internal/seam"
	"github.com/typedrpc/typedrpc/internal/server"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/stats"
)

// Dialect is how a dialled connection speaks.
type Dialect uint8

const (
	// Binary frames, with the client's codecs.
	Binary Dialect = iota
	// Text is JSON-RPC 2.0 text with typedrpc's handshake: everything
	// works that works over Binary, and a person can read it.
	Text
	// JSONRPC is JSON-RPC 2.0 as any server speaks it: calls,
	// notifications and cancellation both ways, without credentials, limits,
	// metadata or flow control.
	JSONRPC
)

// DialOptions are Dial's options. nil, and the zero value of every field, are
// fine.
type DialOptions struct {
	// URLs are other addresses of the same service. Each time that a link is
	// needed all of them and the one given to Dial are tried, in random order,
	// one after another, until one takes the client; only then the backoff
	// begins. While there is a session to go on with, the address that it was
	// at comes first; where that cannot be reached the next one is tried, whose
	// server begins a new session unless it knows that one. An address whose
	// server is going away comes last. An answer
	// that says that trying is pointless, such as wrong credentials, ends the
	// round.
	URLs []string
	// Mux handles the calls that the server makes. Without one they are
	// answered with Unimplemented.
	Mux *Mux
	// SignIn is asked for credentials before every handshake, see SignIn.Present,
	// and on a live link before they expire, as the server says. When that
	// fails OnState is told, with the error, and it is tried again until they
	// have expired. Dial refuses it with JSONRPC, which has no credentials; use Header.
	SignIn Presenter
	// Dialect is Binary by default.
	Dialect Dialect
	// Codecs are offered in this order, and the server takes the first that it has,
	// for the life of the connection. Default JSON. Only for Binary.
	Codecs []Codec
	// Subprotocol is a name of the program's own, which is offered instead of this
	// package's, and stands for Dialect, and the only one of Codecs. A server that does not
	// select it is not spoken to. See Server.Subprotocols.
	Subprotocol string
	// HTTPClient makes the upgrade request; its transport decides about TLS
	// and proxies. Default http.DefaultClient. Not in a browser.
	HTTPClient *http.Client
	// Header is sent with the upgrade request. Host in it is the request's, and
	// Sec-WebSocket-Protocol offers subprotocols besides those of this package,
	// which have to be the server's choice unless Dialect is JSONRPC. Other
	// headers of the handshake may not be set. In a browser only the subprotocols
	// are sent.
	Header http.Header
	// RedirectHosts are hosts that a redirect may lead to although credentials go
	// there: those of SignIn, those in Header, of which all but a few well-known
	// ones may be some, and the URL's user. "node.example.com" is the host at the
	// usual port, "node.example.com:8443" at that one, "*.example.com" every one
	// below. The hosts of all URLs need not be named, nor the same host with TLS
	// where there was none. A redirect to any other is an error, if there are
	// credentials, and one from TLS to none always is. Of a chain ten are followed.
	RedirectHosts []string
	// Compress offers permessage-deflate without context takeover. Default
	// off: it costs memory and time on both sides. For a server that keeps its
	// context all the same this side does, too, which is 32 KiB more.
	Compress bool
	// Limits bound what the server can make this side hold or do.
	Limits Limits
	// Backoff is the wait between attempts to get a lost link back. It
	// starts over when a link lived for ten seconds. While there is a session
	// to go on with, Max is at most a quarter of its Limits.Grace, or Least where that is longer. One that
	// is Off waits for ten milliseconds at least. A longer wait that the server
	// asks for is kept, whatever stands here.
	Backoff Backoff
	// MaxAttempts is after how many attempts in a row to get a lost link back the
	// connection is given up, those included whose link lived for less than ten
	// seconds. Default 0: it is not given up. Negative: none is made, the connection
	// ends with its first link.
	MaxAttempts int
	// FailFast makes calls fail while there is no link, but for those that say
	// WaitForLink, see CallOptions. By default they wait.
	FailFast bool
	// OutgoingRetry is the policy of calls whose method has none. nil repeats
	// nothing, except what is told at Dial.
	OutgoingRetry *RetryPolicy
	// OutgoingInterceptors wrap outgoing calls and notifications.
	OutgoingInterceptors []Interceptor
	// Replays remembers the answers to the server's Keyed calls. Default one
	// of the connection's own, with 16,384 entries and 16 MiB.
	Replays *idempotency.Cache
	// OnState is told of every change of state, in order, one call at a
	// time, on a goroutine of its own. It may use the connection, and close
	// it; so nothing waits for it, and Close may return before OnState was
	// told of StateClosed.
	OnState func(StateChange)
	// Logger gets what nobody is told: panics, errors that stay here. It is
	// bounded as a Server's. Default slog.Default().
	Logger *slog.Logger
	// Recorder is as Server.Recorder, for this connection.
	Recorder stats.Recorder
	// MapError is as Server.MapError, for the handlers of this side.
	MapError func(ctx context.Context, err error) *Error
	// Schema is the document that "typedrpc schema" has written of the API that this
	// program was built from, as go:embed brings it. Where the server has one, too, the
	// handshake compares their fingerprints, and the log of each side has one line, at
	// most, of the names whose messages or kinds differ: a client that was not built
	// anew, for example. Nothing is refused. Over JSONRPC nothing is compared. Default nil.
	Schema []byte

	// connect replaces the WebSocket, for connections in memory.
	connect client.Connector
	// tap sees every attempt to connect, for typedrpctest.Recorder.
	tap func(t link.Transport, subprotocol string, err error) link.Transport
}

// State is what a connection is doing, in a word. Its zero value, "", is none: nobody has
// been told yet.
type State string

const (
	StateConnecting State = "connecting" // dialling or in the handshake
	StateConnected  State = "connected"  // there is a link
	StateWaiting    State = "waiting"    // for the time of the next attempt; on a server for the client
	StateClosed     State = "closed"     // for good
)

// stateOf is the State of a client's.
func stateOf(s client.State) State {
	return [...]State{client.Connecting: StateConnecting, client.Connected: StateConnected, client.Waiting: StateWaiting, client.Closed: StateClosed}[s]
}

// StateChange is what DialOptions.OnState and Server.OnState are told.
type StateChange struct {
	State State
	// Err is why the last link or attempt ended (see CloseError), nil before there was
	// one; of StateConnected it is why credentials were not refreshed.
	Err     error
	Since   time.Time // since when there has been no link; zero: there is one, or was none yet
	Next    time.Time // of StateWaiting: when the next attempt is made
	Attempt int       // of StateConnecting and StateWaiting: attempts in a row, from 1
	URL     string    // of StateConnecting and StateConnected: where, without user and query
	Resumed bool      // of StateConnected: the session goes on; false: it is a new one
}

// Dial connects to the server at url (ws, wss, http or https) and returns when
// the first handshake is complete, which ctx and Limits.HandshakeTimeout bound.
// ctx does not bound the connection: it heals itself until Close. The error is
// an *Error: InvalidArgument for options that make no sense, what the server said when
// it refused, the context's, and Unavailable for what may be better later. One that
// wraps an *UpgradeError has the HTTP status and body, one that wraps a *CloseError
// the code and reason with which the server closed.
//
// When its link is lost the connection redials with backoff, and the session
// goes on, on both sides: calls, streams and notifications under way are
// completed as if nothing had happened, none is lost and none runs twice. When
// the session is lost, because the server does not have it any more or no link
// came within Limits.Grace, the connection begins a new one: calls that had not
// left are sent there, Idempotent and Keyed ones in flight are sent again, all
// others fail with Unavailable, MayHaveRun; streams end; handlers' contexts end.
// Calls made meanwhile wait as long as their contexts allow, and notifications are
// queued. It
// stays away and closes when the server says that coming back is pointless: wrong
// credentials, not allowed, protocol errors.
//
// url may be empty if there are DialOptions.URLs.
func Dial(ctx context.Context, url string, o *DialOptions) (*Conn, error) {
	if ctx == nil {
		return nil, noContext("Dial")
	}
	if o == nil {
		o = &DialOptions{}
	}
	c, err := o.conn(ctx, url)
	if err != nil {
		return nil, &Error{Code: InvalidArgument, Message: err.Error(), Outcome: NotSent, cause: err}
	}
	if err := c.keeper.(*client.Client).Run(ctx); err != nil {
		return nil, up(err, c.codec)
	}
	return c, nil
}

// conn makes the connection that is to be dialled. Its error is a mistake in the
// options.
func (o *DialOptions) conn(ctx context.Context, url string) (*Conn, error) {
	limits, err := flow.Limits(o.Limits).WithDefaults()
	if err != nil {
		return nil, err
	}
	if err := o.check(url); err != nil {
		return nil, err
	}
	codecs := o.Codecs
	if len(codecs) == 0 {
		codecs = []Codec{JSON}
	}
	offers, err := o.subprotocols(codecs)
	if err != nil {
		return nil, err
	}
	logger := o.Logger // of this moment
	opts := &options{mux: o.Mux, logger: logs.New(func() *slog.Logger { return logger }), mapError: o.MapError, interceptors: slices.Clone(o.OutgoingInterceptors), failFast: o.FailFast}
	if o.OutgoingRetry != nil {
		if err := o.OutgoingRetry.check(); err != nil {
			return nil, fmt.Errorf("typedrpc: DialOptions.OutgoingRetry: %w", err)
		}
		opts.retry = o.OutgoingRetry.ready()
	}
	cfg := engine.Config{Limits: limits, Logger: opts.logger, Recorder: recorderOf(o.Recorder, opts.logger), Detached: replay.NewDetached(limits.MaxCalls), Intern: o.Mux.intern}
	if cfg.Replays, err = seam.CacheIn(o.Replays, dialledReplays); err != nil {
		return nil, err
	}
	head, err := o.handshake(url)
	if err != nil {
		return nil, err
	}
	_, prints, err := readSchema(o.Schema)
	if err != nil {
		return nil, fmt.Errorf("typedrpc: DialOptions.Schema %w", err)
	}
	c := &Conn{opts: opts}
	copts := client.Options{
		URL: url, URLs: o.URLs, Offers: offers, Own: o.Subprotocol, Plain: o.Dialect == JSONRPC, Connect: head.connector(o), Trust: head.trust,
		Backoff: flow.Backoff(o.Backoff).WithDefaults(), MaxAttempts: o.MaxAttempts, Config: cfg, Prints: prints,
		Chosen: func(name string) {
			c.codec = JSON
			if i := slices.IndexFunc(codecs, func(c Codec) bool { return session.BinaryPrefix+c.Name() == name }); i >= 0 {
				c.codec = codecs[i]
			}
		},
	}
	o.callbacks(&copts, c)
	k, err := client.New(ctx, copts, owner{c})
	if err != nil {
		return nil, err
	}
	c.keeper, c.e = k, k.Conn()
	return c, nil
}

// check says what is wrong with options that nothing is made of yet.
func (o *DialOptions) check(url string) error {
	if err := checkInterceptors("DialOptions.OutgoingInterceptors", o.OutgoingInterceptors); err != nil {
		return err
	}
	if err := flow.Backoff(o.Backoff).Check(); err != nil {
		return fmt.Errorf("typedrpc: DialOptions.%w", err)
	}
	if o.Dialect == JSONRPC && o.SignIn.get != nil {
		return errors.New("typedrpc: DialOptions.SignIn: JSONRPC has no credentials beside the HTTP request; use Header")
	}
	return client.CheckURLs(url, o.URLs)
}

// callbacks are the program's functions as the layer below calls them.
func (o *DialOptions) callbacks(below *client.Options, c *Conn) {
	if tell := o.OnState; tell != nil {
		var known atomic.Pointer[Codec] // a first handshake may be choosing it meanwhile
		choose := below.Chosen
		below.Chosen = func(name string) {
			choose(name)
			codec := c.codec
			known.Store(&codec)
		}
		below.OnState = func(s client.Change) {
			change := StateChange{State: stateOf(s.State), Next: s.Next, Attempt: s.Attempt, URL: s.URL, Resumed: s.Resumed, Since: s.Since}
			var codec Codec
			if k := known.Load(); k != nil {
				codec = *k
			}
			change.Err = lift(s.Err, codec)
			c.opts.callback("OnState", func() { tell(change) })
		}
	}
	if get := o.SignIn.get; get != nil {
		below.Credentials = func(ctx context.Context) ([]byte, int, error) {
			creds, err := get(ctx, c.codec)
			return wrapAuth(c.codec, creds), len(creds), down(err)
		}
	}
	below.Reply = func(raw []byte) ([]byte, error) { return unwrapAuth(c.codec, raw) }
}

// What typedrpctest and tests reach of the inside, see package hook.
func init() {
	hook.Dial = func(srv, o any) (client, server any, err error) {
		c, s, err := dialPipe(context.Background(), srv.(*Server), o.(*DialOptions))
		return c, s, err
	}
	hook.Tap = func(o, tap any) any {
		opts := *o.(*DialOptions)
		opts.tap = tap.(func(link.Transport, string, error) link.Transport)
		return &opts
	}
	hook.Connect = func(o, connect any) any {
		opts := *o.(*DialOptions)
		opts.connect = connect.(client.Connector)
		return &opts
	}
	hook.Accept = func(srv any, far link.Transport, r *http.Request, offers []string) (string, *http.Response) {
		a, refused := srv.(*Server).admit(r, offers)
		if refused != nil {
			return "", refused.Response()
		}
		srv.(*Server).s.Load().Start(far, a, r)
		return a.Subprotocol, nil
	}
	hook.SessionLost = func(cause error) error { return up(status.SessionLost(cause), nil) }
	hook.Conn = func(conn any) hook.ConnSums { return conn.(*Conn).e.Snapshot() }
	hook.Stream = func(s any) hook.StreamSums { return s.(interface{ engine() *engine.Stream }).engine().Snapshot() }
	hook.Ordered = func(ctx context.Context) bool {
		in := engine.From(ctx)
		return in != nil && in.Ordered()
	}
	hook.Server = func(srv any) hook.ServerSums {
		if s := srv.(*Server).s.Load(); s != nil {
			return hook.ServerSums(s.Snapshot())
		}
		return hook.ServerSums{} // it has served nobody
	}
	hook.Replay = func(cache any) hook.ReplaySums {
		c, _ := seam.CacheIn(cache, replay.Options{})
		return hook.ReplaySums(c.Snapshot())
	}
}

// dialPipe connects a client to srv in memory. All but HTTP and WebSocket is
// real: origins, authentication, handshake, limits, redialling.
func dialPipe(ctx context.Context, srv *Server, o *DialOptions) (near, far *Conn, err error) {
	if o == nil {
		o = &DialOptions{}
	}
	opts := *o
	accepted := make(chan *server.Link, 1)
	opts.connect = func(ctx context.Context, _ string, offers []string) (link.Transport, string, *http.Response, error) {
		r, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodGet, "http://pipe/", nil)
		if err != nil {
			return nil, "", nil, err
		}
		if head, err := o.handshake(""); err == nil { // else Dial has said so
			r.Header, r.Host = head.header, cmp.Or(head.host, r.Host)
		}
		r.RemoteAddr = "pipe"
		a, refused := srv.admit(r, offers)
		if refused != nil {
			return nil, "", refused.Response(), &client.UpgradeError{Status: refused.Status, Body: refused.Text}
		}
		here, there := link.Pipe()
		l := srv.s.Load().Start(there, a, r)
		select {
		case accepted <- l:
		default: // a redial
		}
		return here, a.Subprotocol, nil, nil
	}
	opts.URLs = nil
	if near, err = Dial(ctx, "ws://pipe/", &opts); err != nil {
		return nil, nil, err
	}
	return near, connOf((<-accepted).Wait()), nil
}
