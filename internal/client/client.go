// Package client is the supervisor of a dialled connection: endpoints, backoff,
// states, credentials on a live link. It knows no calls and no codecs.
package client

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/schema"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Client gets a connection its links. It is the connection's engine.Keeper, and
// the opener of its carriers.
type Client struct {
	conn   *engine.Conn
	o      Options
	chosen string
	client string          // a random name
	ctx    context.Context // ends with stop
	stop   context.CancelFunc
	now    chan struct{} // capacity 1: do not wait
	turn   chan struct{} // capacity 1: held by who refreshes the credentials

	// of the supervisor's goroutine, and of the reader, which is the same
	endpoints []endpoint
	at        endpoint             // of this attempt
	failed    int32                // attempts, in a row
	fixed     bool                 // the first handshake has chosen
	leave     bool                 // the server of this attempt is going away
	opened    bool                 // this attempt got a link for the connection …
	since     time.Time            // … then
	attempt   uint64               // of all, rising
	place     string               // where this attempt was redirected to, if that is not trusted …
	home      string               // … and the attempt that began the session
	failure   *status.Error        // of the last link, or round of attempts
	told      chan<- *status.Error // of the first; nil when it has been
	first     context.Context      // the program's, which bounds that; nil after it: it may be a request's
	try       try
	compared  bool // the log has been told that the server's schema differs

	mu        sync.Mutex
	state     Change
	lost      time.Time // since when there has been no link; zero: there is one, or was none yet
	changes   engine.Teller[Change]
	min, max  time.Duration    // window that the server gave for coming back
	refused   *status.Error    // what the server said instead of WELCOME
	said      *status.Error    // what it said that it closes this link with
	welcome   []byte           // the server's reply to the credentials
	sess      *session.Session // the one to go on with; nil: none
	token     string           // of the last one
	grace     time.Duration    // that it is kept for without a link
	expiry    *time.Timer      // of that
	stuck     progress
	up        chan struct{}  // closed with the next WELCOME
	owed      *debt          // the answer to an AUTH on this link; nil: none
	refresh   *time.Timer    // of the credentials …
	expires   time.Time      // … which end then
	renewing  sync.WaitGroup // refreshes under way
	joinable  *refresh       // the one that others may join; nil: none
	refreshes singleflight.Group
}

// progress finds a session that gets a link again and again and does not get on.
type progress struct {
	acked, received uint64
	times           int
}

// Connector gets a connection a link: the transport, the subprotocol, and the
// response of a server that refused the upgrade.
type Connector = func(ctx context.Context, url string, offers []string) (link.Transport, string, *http.Response, error)

// Options are what a connection is dialled with.
type Options struct {
	URL         string
	URLs        []string       // of the same service
	Offers      []string       // subprotocols
	Own         string         // the one that is offered instead, and stands for the first of them; "": none
	Plain       bool           // the server is any JSON-RPC 2.0 server
	Connect     Connector      // makes links
	Trust       *Trust         // who may have the session's token; nil: everybody
	Backoff     flow.Backoff   // with its defaults
	MaxAttempts int            // in a row before giving up; 0: without end; negative: none
	OnState     func(Change)   // nil: nobody is told
	Config      engine.Config  // Heals is the client's to set
	Prints      *schema.Prints // of this side's schema; nil: there is none

	// Credentials asks the program for credentials, as they travel; size is what
	// they were before they were wrapped. nil: there are none.
	Credentials func(ctx context.Context) (creds []byte, size int, err error)
	// Reply unwraps the server's reply to them, and the data of its refusal.
	Reply func(raw []byte) ([]byte, error)
	// Chosen is told the subprotocol that the first handshake chose, before
	// anything of the peer is handled.
	Chosen func(name string)
}

// leastOff is the wait where there is no backoff: a server that is down would be
// dialled, and a stream that brings nothing opened again, as fast as a processor can.
const leastOff = 10 * time.Millisecond

// New makes a client and its connection. Its error is a mistake in the options.
func New(ctx context.Context, o Options, owner engine.Owner) (*Client, error) {
	d := &Client{o: o, now: make(chan struct{}, 1), turn: make(chan struct{}, 1), up: make(chan struct{})}
	if d.o.Backoff.Off {
		d.o.Backoff.Least = max(d.o.Backoff.Least, leastOff)
	}
	var err error
	if d.endpoints, err = endpoints(o.URL, o.URLs); err != nil {
		return nil, err
	}
	var bits [16]byte
	rand.Read(bits[:]) // never fails
	d.client = hex.EncodeToString(bits[:])
	d.o.Config.Heals, d.o.Config.Lacks = true, d.lacks
	d.conn = engine.New(context.WithoutCancel(engine.WithoutRequest(ctx)), &d.o.Config, session.Binary, owner, d)
	context.AfterFunc(d.conn.Context(), o.Config.Detached.Stop)
	d.ctx, d.stop = context.WithCancel(context.Background())
	return d, nil
}

// Run starts the supervisor, and returns when the first handshake is complete, or
// when it failed for good.
func (d *Client) Run(ctx context.Context) *status.Error {
	first := make(chan *status.Error, 1)
	d.told, d.first = first, ctx
	go d.run()
	if err := <-first; err != nil {
		<-d.conn.Done()
		return err.Reached(status.NotSent)
	}
	return nil
}

// Conn is the connection.
func (d *Client) Conn() *engine.Conn { return d.conn }

// Pause is how long to wait between attempts.
func (d *Client) Pause() flow.Backoff { return d.o.Backoff }

// Welcome is the server's reply to the latest credentials that it took; nil: there
// is none.
func (d *Client) Welcome() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.welcome
}

// Reconnect ends the wait for the next attempt, and gives up a link that there is.
func (d *Client) Reconnect() {
	old := d.conn.Carrier()
	select {
	case d.now <- struct{}{}:
	default:
	}
	if old != nil { // and not the one that this has brought about already
		old.Fail(&link.CloseError{Err: errReconnect})
	}
}

var errReconnect = errors.New("reconnecting on demand")

// GoingAway takes a GOAWAY's window for coming back.
func (d *Client) GoingAway(low, high time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.min, d.max = low, max(low, high)
}

// Said takes what the server says that it closes the link with.
func (d *Client) Said(b *wire.ErrorBody) {
	e := engine.Told(b, d.o.Reply)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.said = e
}

// parted is why a link has ended, with what the server said of it.
func (d *Client) parted(cause error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return engine.Parted(cause, d.said)
}

// Closing ends the supervisor: nothing more is dialled.
func (d *Client) Closing() { d.stop() }

// Over is nothing to a supervisor, which learns of it by itself.
func (d *Client) Over(error) {}

// Auth refuses credentials: a server has none.
func (d *Client) Auth(c *session.Carrier, _ wire.AuthBody) { engine.RefuseAuth(c) }

// Lived is how long a link must have lived for its loss to start the backoff
// over: a server that accepts and fails at once is not well.
const Lived = 10 * time.Second

// run is the supervisor: it dials, serves the link on this same goroutine, and
// dials again, until the connection is closed or coming back is pointless.
func (d *Client) run() {
	over := false
	defer func() {
		if !over { // a handler has ended this goroutine, and its link with it
			go d.run()
		}
	}()
	c := d.conn
	var cause error
	for {
		cause = d.round()
		if d.ctx.Err() != nil || d.told != nil {
			break
		}
		if d.opened && time.Since(d.since) >= Lived {
			d.failed = 0
		}
		d.failed++
		wait, back := d.verdict(cause)
		if !back || !d.pause(wait, d.failure) {
			break
		}
	}
	over = true
	c.RunOut()
	err := c.Failed(d.failure)
	d.stop()
	if s := d.claim(); s != nil {
		s.End(err)
		c.Lost(s, err)
	}
	d.stopRefreshing()
	d.renewing.Wait()
	d.change(Change{State: Closed, Err: err})
	c.Finish(err)
	if d.told != nil {
		d.told <- err
	}
}

// pause waits for the next attempt; it reports false when the connection was
// closed.
func (d *Client) pause(wait time.Duration, cause *status.Error) bool {
	select {
	case <-d.now: // asked for while connected: do not wait at all
		return true
	default:
	}
	d.change(Change{State: Waiting, Err: cause, Next: time.Now().Add(wait), Attempt: int(d.failed)})
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

// bound is what bounds an attempt.
func (d *Client) bound() context.Context {
	if d.first != nil {
		return d.first
	}
	return d.ctx
}

// round tries one address after another until one has given the connection a
// link, which it serves until that ends.
func (d *Client) round() (cause error) {
	var tried []*status.Error
	for _, d.at = range d.order() {
		d.change(Change{State: Connecting, Err: errorOf(d.failure), Attempt: int(d.failed) + 1, URL: d.at.where})
		cause = d.connect()
		d.failure = d.explain(cause).AsLast()
		if d.opened || d.final(cause) {
			break
		}
		tried = append(tried, d.failure)
		d.failure = status.Together(tried).AsLast()
		d.conn.Away(d.failure)
		if d.bound().Err() != nil || d.ctx.Err() != nil {
			break
		}
	}
	return cause
}
