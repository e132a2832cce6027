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
	// Mux handles the calls that the server makes. Without one they are
	// answered with Unimplemented.
	Mux *Mux
	// Auth is asked for credentials before every handshake, see Credentials.
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
	// starts over when a link lived for ten seconds.
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
	Connected               // a session is open
	Waiting                 // for the time of the next attempt
	Closed                  // for good
)

func (s State) String() string {
	return [...]string{"connecting", "connected", "waiting", "closed"}[s]
}

// StateChange is what DialOptions.OnState is told.
type StateChange struct {
	State   State
	Err     error     // Waiting and Closed: why the last link or attempt ended
	Next    time.Time // Waiting: when the next attempt is made
	Attempt int       // Connecting and Waiting: attempts in a row, from 1
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
// When its link is lost the connection redials with backoff, opens a new
// session, and goes on: calls and notifications made meanwhile wait for it as
// long as their contexts allow; calls that had not left are sent on the new
// link, Idempotent and Keyed ones in flight are sent again, all others fail with
// Unavailable, MayHaveRun; handlers' contexts end. It stays away and closes
// when the server says that coming back is pointless: wrong credentials, not
// allowed, protocol errors.
func Dial(ctx context.Context, url string, o *DialOptions) (*Conn, error) {
	if o == nil {
		o = &DialOptions{}
	}
	d, err := newDialer(ctx, url, o)
	if err != nil {
		return nil, &Error{Code: InvalidArgument, Message: err.Error(), cause: err}
	}
	first := make(chan *Error, 1)
	go d.run(ctx, first)
	if err := <-first; err != nil {
		<-d.conn.done
		return nil, err
	}
	return d.conn, nil
}

// State returns what the connection is doing. One that a server accepted is
// Connected or Closed.
func (c *Conn) State() State {
	if c.dialer == nil {
		select {
		case <-c.done:
			return Closed
		default:
			return Connected
		}
	}
	c.dialer.mu.Lock()
	defer c.dialer.mu.Unlock()
	return c.dialer.state.State
}

// Reconnect makes a dialled connection dial now: it ends the wait for the next
// attempt, and gives up a link that there is. It does nothing on a connection
// that a server accepted, or that is closed.
func (c *Conn) Reconnect() {
	if c.dialer == nil {
		return
	}
	select {
	case c.dialer.now <- struct{}{}:
	default:
	}
	c.mu.Lock()
	sess := c.sess
	c.mu.Unlock()
	if sess != nil {
		sess.Fail(&link.CloseError{Err: errReconnect})
	}
}

var errReconnect = errors.New("reconnecting on demand")
