package typedrpc

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Conn is a connection to a peer, over which both sides call and both sides
// handle. It outlives its links: when one breaks the client dials again, and the
// session goes on where it was, calls and streams in flight included. When the
// session itself is lost, one that was dialled begins another one, until it is
// closed; one that a server accepted has ended.
//
// All methods may be called by any goroutine at any time. Calls run
// concurrently, in no order; notifications, and calls of Serial methods, are
// handled one after another in the order in which they were sent.
//
// Every call ends: with its answer, with its context, or with the connection,
// and then its error's Outcome says how far it got. The user must Close a
// connection that was dialled.
type Conn struct {
	// fixed when the connection is made
	heals    bool // dialled: it outlives its sessions
	posted   bool // not a connection at all: one HTTP POST
	config   config
	ctx      context.Context // ends with the connection
	cancel   context.CancelCauseFunc
	done     chan struct{} // closed when everything of the connection has ended
	dialer   *dialer       // nil on the server's side
	accepted *accepted     // nil on the client's, and over POST

	// fixed by the first handshake
	codec   Codec
	dialect session.Dialect

	mu       sync.Mutex
	identity Identity
	sess     *session.Session // nil while there is no open session
	peer     wire.Limits      // announced by the peer of this or the last session
	features                  // that it shares with us
	woken    bool             // the writer knows that there is something to take
	closing  bool             // Close was called or the connection failed: nothing new
	drained  chan struct{}    // not nil while draining: closed when nothing is in flight
	quiet    chan struct{}    // made with it: closed when nothing but streams is
	bye      wire.GoAwayBody  // what the peer is told then, on every link
	away     bool             // the peer said GOAWAY: it takes no more calls
	err      *Error           // why the connection ended
	room     chan struct{}    // not nil while somebody waits for budget or window
	welcome  []byte           // the server's reply to the credentials, encoded
	budget   *RetryBudget     // of calls' retry policies that bring none; nil until there is one

	// calls that we make
	spare     sync.Pool           // *call
	queue     items               // ready to be taken
	waiting   items               // calls without a slot, or held for the next session
	pending   map[uint64]inFlight // taken, by id
	resting   map[*call]struct{}  // waiting for their next attempt
	nextID    uint64
	slots     int // calls in queue and pending …
	held      int // … and their bytes of the peer's budget
	notify    flow
	large     items // those that wait until another has left in fragments
	cutting   int   // bytes of messages that are leaving in fragments
	midway    *item // of them, the ordered one
	overtaken bool  // an ordered one waits in large, and so must those behind it
	queued    int   // bytes of replies, items and notifications in queue …
	unsent    int   // … and of replies that wait for room there

	// streams, whoever called
	sentItems int         // bytes of items that the peer has not credited
	unread    int         // bytes of items that nobody has received yet, and of what is being assembled
	grown     int         // bytes that windows have grown by
	creditors []*exchange // that owe the peer credit

	peerCache string // the identity of the peer's ReplayCache, "": it has none

	// calls that we handle
	inbound  map[uint64]*inbound
	partial  map[partID]*assembly // messages of which parts have come
	inBytes  int                  // of their payloads
	parked   []*inbound           // of them, those that wait for replies to be read
	lastIn   uint64
	lane     *lane
	credits  int // notifications to credit
	offences offences
}

// features are the optional parts of the protocol that both ends announced.
type features struct{ streams, fragments, resume, auth bool }

// features are announced in a handshake. auth says that there are credentials.
func (c *config) features(auth bool) []string {
	list := []string{"streams", "fragments"}
	if c.limits.Grace > 0 {
		list = append(list, "resume")
	}
	if auth {
		list = append(list, "auth")
	}
	return list
}

// sharedFeatures are those that a connection of dialect d has in common.
func sharedFeatures(d session.Dialect, ours, theirs []string) features {
	both := func(name string) bool {
		return d != session.Plain && slices.Contains(ours, name) && slices.Contains(theirs, name)
	}
	return features{
		streams: both("streams"), fragments: d == session.Binary && both("fragments"),
		resume: both("resume"), auth: both("auth"),
	}
}

// config is what both sides' options have in common.
type config struct {
	mux          *Mux
	limits       Limits
	logger       *slog.Logger
	mapError     ErrorMapper
	interceptors []Interceptor
	retry        *RetryPolicy
	budget       *budget // of the server; nil: none
	replays      *ReplayCache
	detached     *detached // keyed calls whose sessions were lost
}

func newConn(base context.Context, cfg config) *Conn {
	c := &Conn{
		config:  cfg,
		done:    make(chan struct{}),
		pending: map[uint64]inFlight{},
		inbound: map[uint64]*inbound{},
		partial: map[partID]*assembly{},
	}
	c.ctx, c.cancel = context.WithCancelCause(base)
	c.peer = cfg.limits.plainPeer()
	return c
}

// Done is closed when the connection has ended for good. A dialled connection
// that lost its link has not: see State.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns nil while the connection lives and then why it ended: an *Error.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		return nil
	}
	return c.err
}

// Context returns a context that ends with the connection; on a server it
// carries the values of the Identity's context and of the upgrade request.
func (c *Conn) Context() context.Context { return c.ctx }

// Identity returns what the server's Authenticate said of the peer, the last
// time that it was asked. On the client, and without authentication, it is zero.
// Its Subject never changes.
func (c *Conn) Identity() Identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.identity
}

// Codec returns the codec of the connection, fixed for its life.
func (c *Conn) Codec() Codec { return c.codec }

// closePatience bounds how long Close waits for what was sent to be
// acknowledged; the goodbye itself takes at most a second more.
const closePatience = 4 * time.Second

// Close ends the connection. Calls in flight fail at once with Unavailable and
// handlers' contexts end. What was sent before is flushed, if there is a link:
// Close waits, for at most five seconds, until a typedrpc peer has acknowledged
// it and its handlers have taken the notifications.
// Close returns when the connection's goroutines have ended, except those of
// handlers and of OnState, so it may be called in them. Closing again waits
// for the same end. A client whose connection a server closes comes back, see
// Dial; to keep it away refuse its credentials. The error is always nil; it is
// there for io.Closer.
func (c *Conn) Close() error {
	c.close(context.Background(), &link.CloseError{Code: session.CloseDone, Reason: "closed"})
	<-c.done
	return nil
}

// Shutdown ends the connection gracefully: it tells the peer to begin nothing
// new, refuses new calls on both sides with Unavailable, NotSent, lets those
// in flight finish, then ends the streams with Unavailable, and closes.
// Handlers may go on calling the peer. A peer whose link is broken may come back
// for its answers until its session is over. When ctx ends first the connection
// is closed at once and ctx's error returned.
func (c *Conn) Shutdown(ctx context.Context) error {
	return c.shutdown(ctx, wire.GoAwayBody{Reason: "shutting down"}, session.CloseDone)
}

func (c *Conn) shutdown(ctx context.Context, bye wire.GoAwayBody, code int) error {
	c.mu.Lock()
	first := c.drained == nil
	if first {
		c.drained, c.quiet, c.bye = make(chan struct{}), make(chan struct{}), bye
		if c.sess != nil {
			c.sess.GoAway(bye)
		}
	}
	drained, quiet, sess := c.drained, c.quiet, c.sess
	c.checkIdleLocked()
	c.mu.Unlock()

	if first {
		c.disturb(Errorf(Unavailable, "the connection is shutting down"))
	}
	select {
	case <-quiet:
		c.endStreams()
	case <-c.done:
	case <-ctx.Done():
	}
	select {
	case <-drained:
	case <-c.done:
		return nil
	case <-ctx.Done():
	}
	if sess != nil {
		c.flush(ctx, sess)
	}
	c.close(ctx, &link.CloseError{Code: code, Reason: bye.Reason})
	<-c.done
	return ctx.Err()
}

// checkIdleLocked is called whenever something in flight ended, and decides
// whether a connection that winds down is ready to.
func (c *Conn) checkIdleLocked() {
	if c.quiet != nil && c.quietLocked() {
		closeOnce(c.quiet)
	}
	if c.drained == nil && !c.away || len(c.pending) > 0 || len(c.inbound) > 0 || c.queue.len > 0 || c.lane != nil && c.lane.busy() {
		return
	}
	if c.drained != nil {
		if c.waiting.len == 0 {
			closeOnce(c.drained)
		}
	} else if c.heals && c.linkedLocked() && c.notify.used == 0 {
		// The server is going away and nothing is in flight: come back
		// within the window that it gave.
		c.sess.CloseAfterFlush(&link.CloseError{Code: session.CloseDone, Reason: "leaving a draining server"})
	}
}

// quietLocked reports that nothing but streams is in flight: they may be
// endless, so a drain ends them when the calls are done.
func (c *Conn) quietLocked() bool {
	for _, in := range c.inbound {
		if in.exchange == nil {
			return false
		}
	}
	for _, p := range c.pending {
		if p.call != nil && p.call.exchange == nil {
			return false
		}
	}
	for _, l := range []*items{&c.queue, &c.large} {
		for it := l.head; it != nil; it = it.next {
			if it.call != nil && it.call.exchange == nil {
				return false
			}
		}
	}
	return true // calls may wait, for the places that the streams have
}

// endStreams ends the streams of a connection that drains.
func (c *Conn) endStreams() {
	c.mu.Lock()
	var all []*exchange
	for _, in := range c.inbound {
		if in.exchange != nil {
			all = append(all, in.exchange)
		}
	}
	for _, p := range c.pending {
		if p.call != nil && p.call.exchange != nil {
			all = append(all, p.call.exchange)
		}
	}
	for _, l := range []*items{&c.queue, &c.large, &c.waiting} {
		for it := l.head; it != nil; it = it.next {
			if it.call != nil && it.call.exchange != nil {
				all = append(all, it.call.exchange)
			}
		}
	}
	c.mu.Unlock()
	for _, x := range all {
		x.fail(Errorf(Unavailable, "shutting down"))
	}
}

func closeOnce(ch chan struct{}) {
	select {
	case <-ch:
	default:
		close(ch)
	}
}

// close begins the end: nothing new, calls fail, and when what is queued was
// flushed, or ctx or patience is over, the session ends with bye. It returns
// when it has begun to end.
func (c *Conn) close(ctx context.Context, bye *link.CloseError) {
	ctx, cancel := context.WithTimeout(ctx, closePatience)
	defer cancel()
	cause := &Error{Code: Unavailable, Message: "the connection was closed by this side", cause: bye.Err}
	c.mu.Lock()
	sess, linked := c.sess, c.linkedLocked()
	if c.closing {
		c.mu.Unlock()
		if sess != nil { // somebody else is closing: wait for that, but not longer
			select {
			case <-sess.Done():
			case <-ctx.Done():
				c.end(sess, bye)
			}
		}
		return
	}
	c.closing, c.err = true, cause
	failed := c.abandonCallsLocked()
	handlers := c.handlersLocked()
	for _, in := range handlers {
		// Their contexts end now, which is not the caller's doing: it is to
		// see a lost connection, and not a "canceled" from the handler.
		in.sess = nil
	}
	c.dropParkedLocked()
	c.movedLocked()
	c.mu.Unlock()
	c.cancel(cause)
	for _, in := range handlers {
		in.cancel(context.Canceled)
	}
	failed.settle(cause)
	c.disturb(cause)
	if c.dialer != nil {
		c.dialer.stop()
	}
	if sess == nil {
		return
	}
	if linked {
		c.flush(ctx, sess)
		if sess.CloseAfterFlush(bye) {
			c.over(bye)
		}
		select {
		case <-sess.Done():
		case <-ctx.Done():
		}
	}
	c.end(sess, bye)
}

// expel ends the connection at once.
func (c *Conn) expel(bye *link.CloseError) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	c.close(ctx, bye)
}

// end ends a session, whether it has a link or not.
func (c *Conn) end(sess *session.Session, cause error) {
	if sess.End(cause) {
		c.over(cause)
	}
}

// over is called when a session without a link was ended. A client's supervisor
// learns of it by itself.
func (c *Conn) over(cause error) {
	if c.accepted != nil {
		go c.accepted.end(cause)
	}
}

// flush waits until what is queued has left, the peer's handlers have taken the
// notifications (it credits them then), and all was acknowledged. The end of a
// session drops what its lane has not begun.
func (c *Conn) flush(ctx context.Context, sess *session.Session) {
	for {
		c.mu.Lock()
		if c.queue.len == 0 && (c.notify.window == 0 || c.notify.used == 0) {
			c.mu.Unlock()
			break
		}
		room := c.waitRoomLocked()
		c.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return
		case <-sess.Done():
			return
		}
	}
	sess.Sync(ctx.Done())
}

// waitRoomLocked returns a channel that is closed when the queue has moved.
func (c *Conn) waitRoomLocked() <-chan struct{} {
	if c.room == nil {
		c.room = make(chan struct{})
	}
	return c.room
}

func (c *Conn) movedLocked() {
	if c.room != nil {
		close(c.room)
		c.room = nil
	}
}

// opened begins a session: what was held goes out as soon as it has a link.
func (c *Conn) opened(sess *session.Session, peer wire.Limits, f features) {
	c.mu.Lock()
	if old := c.sess; old != nil { // somebody is just about to say that it is lost
		c.mu.Unlock()
		c.lost(old, old.Err())
		c.mu.Lock()
	}
	// What a peer allows is not all used: we keep accounts of it.
	peer.Window = min(peer.Window, mostWindow)
	peer.Budget = min(peer.Budget, uint64(max(mostBudget, c.config.limits.MaxBuffered)))
	c.sess, c.peer, c.features, c.away = sess, peer, f, false
	c.notify = flow{window: int(min(peer.Window, math.MaxInt32)), used: c.notify.used}
	c.lane = new(lane)
	c.lastIn, c.credits, c.offences = 0, 0, offences{}
	refused := c.admitLocked()
	c.wakeLocked() // the session looks when it gets its link
	closing, err := c.closing, c.err
	c.movedLocked()
	c.mu.Unlock()
	refused.settleEach()
	if closing {
		sess.End(&link.CloseError{Code: session.CloseDone, Reason: "closed", Err: err})
	}
}

// linkUp is called when sess got a link, its first or a new one.
func (c *Conn) linkUp(sess *session.Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sess == sess && c.drained != nil {
		sess.GoAway(c.bye)
	}
	c.checkIdleLocked()
}

// linkDown is called when the session goes on without a link: what would rather
// fail than wait for one, and has not left, does.
func (c *Conn) linkDown() {
	c.mu.Lock()
	if c.linkedLocked() {
		c.mu.Unlock()
		return // another one is here already
	}
	c.gatherLocked()
	var failed taken
	for it := c.queue.head; it != nil; {
		next := it.next
		if it.call != nil && it.call.id == 0 && it.call.target.opts.FailFast {
			c.unqueueLocked(it)
			c.vacateLocked(it.cost)
			failed.notSent = append(failed.notSent, it.call)
		}
		it = next
	}
	for it := c.waiting.head; it != nil; {
		next := it.next
		if it.call.target.opts.FailFast {
			c.waiting.remove(it)
			failed.notSent = append(failed.notSent, it.call)
		}
		it = next
	}
	refused := c.admitLocked()
	c.checkIdleLocked()
	c.mu.Unlock()
	refused.settleEach()
	failed.settle(Errorf(Unavailable, "no connection at the moment"))
}

// linkedLocked reports whether there is a session, and a link that carries it.
func (c *Conn) linkedLocked() bool { return c.sess != nil && c.sess.Carrier() != nil }

// holds is how many bytes a session without a link keeps for its peer.
func (c *Conn) holds() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sess == nil {
		return 0
	}
	return c.queued + c.unsent + c.inBytes + c.unread + c.sess.Logged() + (1+len(c.inbound))*handlerOverhead
}

// handlerOverhead is what a running handler is taken to hold beside its request,
// and a connection beside all that: some 7 kB each were measured.
const handlerOverhead = 8 << 10

const (
	mostWindow = 16 << 20
	mostBudget = 64 << 20
)

// wakeLocked reports whether the writer must be woken, which is done after
// mu was given back.
func (c *Conn) wakeLocked() bool {
	if c.woken || c.sess == nil || c.queue.len == 0 && c.credits == 0 && len(c.creditors) == 0 {
		return false
	}
	c.woken = true
	return true
}

// lost ends sess, unless that has been done: handlers' contexts end, calls in
// flight fail or wait for the next session, and so does what never left.
func (c *Conn) lost(sess *session.Session, cause error) {
	c.mu.Lock()
	if c.sess != sess {
		c.mu.Unlock()
		return
	}
	c.sess, c.woken, c.away = nil, false, false
	handlers := c.handlersLocked()
	for _, in := range c.inbound {
		in.detachLocked()
	}
	clear(c.inbound)
	c.dropParkedLocked()
	for key := range c.partial {
		c.dropPartLocked(key)
	}
	c.creditors = nil
	c.lane = nil
	failed := c.interruptLocked(c.heals && !c.closing)
	c.movedLocked()
	c.checkIdleLocked()
	c.mu.Unlock()
	var ce *link.CloseError
	revoked := errors.As(cause, &ce) && ce.Code == session.CloseUnauthed && !ce.Remote
	for _, in := range handlers {
		if revoked {
			in.cancel(context.Canceled)
		} else {
			in.lose()
		}
	}
	failed.settle(&Error{Code: Unavailable, Message: "connection lost", cause: cause})
}

// dropParkedLocked gives up calls that have not begun and never will.
func (c *Conn) dropParkedLocked() {
	for _, in := range c.parked {
		in.body.Release()
	}
	c.parked = nil
}

// handlersLocked returns what is being handled.
func (c *Conn) handlersLocked() []*inbound {
	handlers := slices.Collect(maps.Values(c.inbound))
	if c.lane != nil && c.lane.current != nil {
		handlers = append(handlers, c.lane.current)
	}
	return handlers
}

// failed notes why the connection ends, if nothing was noted yet, and returns
// what was.
func (c *Conn) failed(cause error) *Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closing = true
	if c.err == nil {
		c.err = asUnavailable(cause)
	}
	return c.err
}

// finish ends the connection for good. Whoever runs the connection calls it
// last.
func (c *Conn) finish(cause error) {
	err := c.failed(cause)
	c.disturb(err)
	c.mu.Lock()
	failed := c.abandonCallsLocked()
	c.dropQueueLocked()
	c.movedLocked()
	if c.drained != nil {
		closeOnce(c.drained)
	}
	c.mu.Unlock()
	c.cancel(err)
	failed.settle(err)
	close(c.done)
}

// asUnavailable makes cause an *Error.
func asUnavailable(cause error) *Error {
	var e *Error
	if errors.As(cause, &e) {
		return e
	}
	var ce *link.CloseError
	if errors.As(cause, &ce) && ce.Remote && ce.Code == session.CloseDone {
		return &Error{Code: Unavailable, Message: "the peer closed the connection", cause: cause}
	}
	return &Error{Code: Unavailable, Message: "connection lost", cause: cause}
}

// dropQueueLocked gives up what can only go to the session that ended:
// replies, cancels and, when the connection is over, notifications.
func (c *Conn) dropQueueLocked() {
	c.gatherLocked()
	for it := c.queue.pop(); it != nil; it = c.queue.pop() {
		if it.line != nil {
			it.line.dropLocked(c)
			continue
		}
		c.queued -= it.cost
		it.body.Release()
	}
	c.notify.used, c.cutting = 0, 0
}

// offendedLocked counts an offence of the peer and returns what ends the link
// when there were too many.
func (c *Conn) offendedLocked() error {
	if !c.offences.add(time.Now()) {
		return nil
	}
	return &link.CloseError{Code: session.CloseFlood, Reason: "too many refused calls or frames for calls that never were"}
}
