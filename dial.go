package typedrpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
)

// Dialect is how a dialled connection speaks.
type Dialect uint8

const (
	// Binary frames, with the client's codecs.
	Binary Dialect = iota
	// JSONRPC is JSON-RPC 2.0 text with typedrpc's handshake: everything
	// works that works over Binary, and a person can read it.
	JSONRPC
	// PlainJSONRPC is JSON-RPC 2.0 as any server speaks it: calls,
	// notifications and cancellation both ways, without credentials, limits,
	// metadata or flow control.
	PlainJSONRPC
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
	// Auth is asked for credentials before every handshake, see Credentials,
	// and on a live link before they expire, as the server says. When that
	// fails OnState is told, with the error, and it is tried again until they
	// have expired.
	Auth Credential
	// Dialect is Binary by default.
	Dialect Dialect
	// Codecs are offered in this order; the server's choice is fixed for the
	// life of the connection. Default JSON. Only for Binary.
	Codecs []Codec
	// HTTPClient makes the upgrade request; its transport decides about TLS
	// and proxies. Default http.DefaultClient. Not in a browser.
	HTTPClient *http.Client
	// Header is sent with the upgrade request. Not in a browser.
	Header http.Header
	// Compress offers permessage-deflate without context takeover. Default
	// off: it costs memory and time on both sides.
	Compress bool
	// Limits bound what the server can make this side hold or do.
	Limits Limits
	// Backoff is the wait between attempts to get a lost link back. It
	// starts over when a link lived for ten seconds. While there is a session
	// to go on with, Max is at most a quarter of its grace time.
	Backoff Backoff
	// Retry is the policy of calls whose method has none. nil repeats
	// nothing, except what is told at Dial.
	Retry *RetryPolicy
	// Interceptors wrap outgoing calls and notifications.
	Interceptors []Interceptor
	// Replays remembers the answers to the server's Keyed calls. Default one
	// of the connection's own, with 16,384 entries and 16 MiB.
	Replays *ReplayCache
	// OnState is told of every change of state, in order, one call at a
	// time, on a goroutine of its own. It may use the connection, and close
	// it; so nothing waits for it, and Close may return before OnState was
	// told of Closed.
	OnState func(StateChange)
	// Logger gets what nobody is told: panics, errors that stay here.
	// Default slog.Default().
	Logger *slog.Logger
	// MapError translates handlers' errors for the server.
	MapError ErrorMapper

	// connect replaces the WebSocket, for connections in memory.
	connect connector
	// tap sees every attempt to connect, for typedrpctest.Recorder.
	tap func(t link.Transport, subprotocol string, err error) link.Transport
}

// State is what a connection is doing.
type State uint8

const (
	Connecting State = iota // dialling or in the handshake
	Connected               // there is a link
	Waiting                 // for the time of the next attempt; on a server for the client
	Closed                  // for good
)

func (s State) String() string {
	return [...]string{"connecting", "connected", "waiting", "closed"}[s]
}

// StateChange is what DialOptions.OnState is told.
type StateChange struct {
	State   State
	Err     error     // Waiting and Closed: why the last link or attempt ended; Connected: why credentials were not refreshed
	Next    time.Time // Waiting: when the next attempt is made
	Attempt int       // Connecting and Waiting: attempts in a row, from 1
	URL     string    // Connecting and Connected: where, without user and query
	Resumed bool      // Connected: the session goes on; false: it is a new one
}

// UpgradeError is the cause of a Dial that an HTTP server answered with
// something other than an upgrade.
type UpgradeError struct {
	Status int // of the response
	Header http.Header
	Body   string // its first 1,024 bytes
}

func (e *UpgradeError) Error() string {
	text := fmt.Sprintf("the server answered %d %s", e.Status, http.StatusText(e.Status))
	if body := strings.TrimSpace(e.Body); body != "" {
		text += ": " + body
	}
	return text
}

// Dial connects to the server at url (ws, wss, http or https) and returns when
// the first handshake is complete, which ctx and Limits.HandshakeTimeout bound.
// ctx does not bound the connection: it heals itself until Close. The error is
// an *Error; one that wraps an *UpgradeError has the HTTP status and body.
//
// When its link is lost the connection redials with backoff, and the session
// goes on, on both sides: calls, streams and notifications under way are
// completed as if nothing had happened, none is lost and none runs twice. When
// the session is lost, because the server does not have it any more or no link
// came within Limits.Grace, the connection begins a new one: calls that had not
// left are sent there, Idempotent and Keyed ones in flight are sent again, all
// others fail with Unavailable, MayHaveRun; streams end; handlers' contexts end.
// Calls and notifications made meanwhile wait as long as their contexts allow. It
// stays away and closes when the server says that coming back is pointless: wrong
// credentials, not allowed, protocol errors.
//
// url may be empty if there are DialOptions.URLs.
func Dial(ctx context.Context, url string, o *DialOptions) (*Conn, error) {
	if o == nil {
		o = &DialOptions{}
	}
	d, err := newDialer(ctx, url, o)
	if err != nil {
		return nil, &Error{Code: InvalidArgument, Message: err.Error(), cause: err}
	}
	first := make(chan *Error, 1)
	d.told = first
	go d.run(ctx)
	if err := <-first; err != nil {
		<-d.conn.done
		return nil, err
	}
	return d.conn, nil
}

// State returns what the connection is doing. One that a server accepted is
// Connected, Waiting for its client to come back, or Closed.
func (c *Conn) State() State {
	if c.dialer != nil {
		c.dialer.mu.Lock()
		defer c.dialer.mu.Unlock()
		return c.dialer.state.State
	}
	select {
	case <-c.done:
		return Closed
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.linkedLocked() || c.posted {
		return Connected
	}
	return Waiting
}

// Reconnect makes a dialled connection dial now: it ends the wait for the next
// attempt, and gives up a link that there is; the session goes on. It does
// nothing on a connection that a server accepted, or that is closed.
func (c *Conn) Reconnect() {
	if c.dialer == nil {
		return
	}
	c.mu.Lock()
	var old *session.Carrier
	if c.sess != nil {
		old = c.sess.Carrier()
	}
	c.mu.Unlock()
	select {
	case c.dialer.now <- struct{}{}:
	default:
	}
	if old != nil { // and not the one that this has brought about already
		old.Fail(&link.CloseError{Err: errReconnect})
	}
}

var errReconnect = errors.New("reconnecting on demand")
