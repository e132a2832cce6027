// Package hub has topics by their bytes: rooms, their subscribers and what
// becomes of slow ones, history, and presence. It knows no
// sockets, no frames, and no user's type: it is given what encodes a message
// anew.
package hub

import (
	"cmp"
	"container/list"
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/logs"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/stats"
)

// Hub is where the topics of a process meet. All of it may be used by any number
// of goroutines.
//
// Locks are taken in this order: feed.mu alone; Hub.mu, then room.mu, then
// subscriber.mu, then holding.mu or the connection's. None is held while anything
// waits.
type Hub struct {
	broker  Broker
	shared  bool // there is a broker, and other hubs perhaps
	options Options
	log     *slog.Logger

	mu       sync.Mutex
	closed   bool
	rooms    rooms
	idle     idle
	accounts map[*engine.Conn]*account

	history atomic.Int64 // bytes of all histories

	announcer
}

// Options are what a hub is made with. The zero value of every field is its
// default.
type Options struct {
	Broker        Broker         // the hub closes it; nil: the hub is alone
	Codec         string         // the name of what messages are encoded in on their way through the broker
	MaxKeyHistory int            // of one key, each message counted with its overhead
	MaxIdleKeys   int            // keys without subscribers whose history is kept
	MaxHistory    int64          // of all keys, with all that the messages take
	Recorder      stats.Recorder // of the program; nil: nobody is told
}

// New makes a hub.
func New(o Options) *Hub {
	o.MaxKeyHistory = cmp.Or(o.MaxKeyHistory, 256<<10)
	o.MaxIdleKeys = cmp.Or(o.MaxIdleKeys, 1024)
	o.MaxHistory = cmp.Or(o.MaxHistory, 64<<20)
	h := &Hub{
		broker: o.Broker, shared: o.Broker != nil, options: o,
		log:   logs.New(func() *slog.Logger { return nil }), // the default, whenever it is set
		rooms: rooms{named: map[string][]*declared{}}, idle: idle{at: map[*room]*list.Element{}}, accounts: map[*engine.Conn]*account{},
	}
	h.announcer.init()
	return h
}

// Close ends all subscriptions, forgets every history and closes the broker,
// whose error it returns. Closing again does nothing.
func (h *Hub) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	all, idle := slices.Collect(h.rooms.all()), slices.Collect(h.idle.all())
	for _, r := range idle {
		h.dropLocked(r)
	}
	h.mu.Unlock()
	for _, r := range all {
		r.close()
	}
	for _, r := range idle {
		r.unsubscribe()
	}
	h.announcer.stop() // the broker may wait for what is being published
	var err error
	if h.shared {
		err = h.broker.Close()
	}
	h.announcer.wg.Wait()
	return err
}

func errHubClosed() *status.Error { return status.Errorf(status.Unavailable, "the hub was closed") }

// Publish gives a message in the hub's codec to the broker, with ctx. What it
// fails with is a *status.Error.
func (h *Hub) Publish(ctx context.Context, t *Topic, key string, msg []byte) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if limit := t.Decl.Limit(flow.MaxMessageCeiling); len(msg) > limit {
		return status.Errorf(status.ResourceExhausted, "a message of %q has %d bytes, at most %d can be published", t.Decl.Name, len(msg), limit)
	}
	if t.Remembers() { // what is published here is remembered here, whoever has subscribed
		r, err := h.enter(t, key)
		if err != nil {
			return err
		}
		defer h.exit(r)
		if err := r.items().open(ctx); err != nil {
			return err
		}
		h.mu.Lock()
		r.published = true
		h.mu.Unlock()
	} else if h.isClosed() {
		return errHubClosed()
	}
	if err := h.hand(ctx, t, key, msg); err != nil {
		return brokerError(ctx, err, "the broker did not take the message")
	}
	h.record(t, stats.Published, 1)
	return nil
}

// hand gives a message to the broker, or where the hub is alone to everybody in the key.
// Publishers of a key take turns, which makes the order.
func (h *Hub) hand(ctx context.Context, t *Topic, key string, msg []byte) error {
	if h.shared {
		return h.broker.Publish(ctx, channelOf(t, key), msg)
	}
	one, taken := [1]*room{}, 0
	rooms := one[:0] // of one declaration in nearly all programs
	h.mu.Lock()
	for r := range h.rooms.twins(t.Decl.Name, key) {
		rooms = append(rooms, r)
	}
	h.mu.Unlock()
	defer func() {
		for _, r := range rooms[:taken] {
			<-r.turn
		}
	}()
	for _, r := range rooms { // all of them before the first message is out, newer ones first
		select {
		case r.turns() <- struct{}{}:
			taken++
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for _, r := range rooms {
		r.deliver(msg)
	}
	return nil
}

func (h *Hub) isClosed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.closed
}

// Names have no spaces, so a channel belongs to one topic and one key.
func channelOf(t *Topic, key string) string { return channelPrefix + t.Decl.Name + " " + key }

const channelPrefix = "topic "

func presenceChannelOf(t *Topic, key string) string { return "presence " + t.Decl.Name + " " + key }

// enter finds or makes the room, which stays until exit.
func (h *Hub) enter(t *Topic, key string) (*room, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.enterLocked(t, key)
}

func (h *Hub) enterLocked(t *Topic, key string) (*room, error) {
	if h.closed {
		return nil, errHubClosed()
	}
	r := h.rooms.of(t, key)
	if r == nil {
		r = h.rooms.add(h, t, key)
	}
	h.idle.remove(r)
	r.users++
	return r, nil
}

// admit finds or makes the room for a stream, which pays cost for its stay, and for the room if
// nobody does.
func (h *Hub) admit(x *engine.Stream, t *Topic, key string, cost int) (r *room, err error) {
	a, ofRoom, pays := x.Conn().Account(), h.costOf(t, key), false
	if !a.Take(cost + ofRoom) {
		return nil, status.Busy("a stream of a topic")
	}
	h.mu.Lock()
	if r, err = h.enterLocked(t, key); err == nil && r.payer == nil {
		r.payer, pays = x, true
	}
	h.mu.Unlock()
	switch {
	case err != nil:
		a.Give(cost + ofRoom)
	case !pays:
		a.Give(ofRoom)
	}
	return r, err
}

// settled has x, which is in the room now, pay for it if who did has left while x came: then
// there was nobody to take it over.
func (r *room) settled(x *engine.Stream) {
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	if r.payer == nil {
		r.payLocked(x)
	}
}

// release ends what admit began, for x that is in the room no more. If it paid for the room,
// one of those who stay does from now on.
func (r *room) release(x *engine.Stream, cost int) {
	r.hub.mu.Lock()
	if r.payer == x {
		cost += r.cost()
		r.payLocked(r.heir())
	}
	r.hub.mu.Unlock()
	r.hub.exit(r)
	x.Conn().Account().Give(cost)
}

// payLocked has x pay for the room, nil: nobody. Its account has to, whatever its share is: what
// the room takes is there already. Over its share it gets nothing new, and whoever holds the
// most is ended where the ledger has no room.
func (r *room) payLocked(x *engine.Stream) {
	if r.payer = x; x != nil {
		x.Conn().Account().Force(r.cost())
	}
}

// exit lets the room go if nobody is left in it and there is nothing to
// remember; too many histories push out the oldest.
func (h *Hub) exit(r *room) {
	h.mu.Lock()
	var gone *room
	if r.users--; r.users == 0 {
		switch {
		case h.closed || !r.published && !r.remembers():
			gone = r
		default:
			h.idle.add(r)
			if h.idle.Len() > h.options.MaxIdleKeys {
				gone = h.idle.oldest(nil)
			}
		}
	}
	if gone != nil {
		h.dropLocked(gone)
	}
	h.mu.Unlock()
	if gone != nil {
		gone.unsubscribe()
	}
}

// forgetFor makes room for n bytes more in r's history: the histories that were
// not used for longest go. What they do not give, r's own has to.
func (h *Hub) forgetFor(r *room, n int64) {
	for h.history.Load()+n > h.options.MaxHistory {
		h.mu.Lock()
		oldest := h.idle.oldest(r)
		if oldest == nil {
			h.mu.Unlock()
			return
		}
		h.dropLocked(oldest)
		h.mu.Unlock()
		oldest.unsubscribe()
	}
}

func (h *Hub) dropLocked(r *room) {
	h.idle.remove(r)
	h.rooms.drop(r)
}

// account is what the subscriptions of one connection have queued.
type account struct {
	own    *flow.Budget
	most   int64 // of own
	server *flow.Account
	// Under Hub.mu:
	users int
	peer  *Peer // of the subscription that was last: most are alike
}

// take takes n bytes for a message that waits, of the server's budget at most the
// half that is not kept for calls: there it costs a record, and is counted once
// for all who hold it.
func (a *account) take(n int) bool {
	if a.server.Pressed() || !a.server.Has(n) || !a.own.Take(n) {
		return false
	}
	a.server.Force(recordCost)
	return true
}

// force takes n bytes whether they are there or not.
func (a *account) force(n int) {
	a.own.Force(n)
	a.server.Force(recordCost)
}

// give gives back what was taken for a message of n bytes.
func (a *account) give(n int) {
	a.own.Give(n)
	a.server.Give(recordCost)
}

// accountOf finds or makes the account of a connection, which stays until leaveAccount,
// and p as its subscriptions share it.
func (h *Hub) accountOf(c *engine.Conn, p Peer) (*account, *Peer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.accounts[c]
	if a == nil {
		most := int64(c.Limits().MaxBuffered)
		a = &account{own: flow.NewBudget(most), most: most, server: c.Account()}
		h.accounts[c] = a
	}
	a.users++
	if a.peer == nil || *a.peer != p {
		shared := p
		a.peer = &shared
	}
	return a, a.peer
}

func (h *Hub) leaveAccount(c *engine.Conn, a *account) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if a.users--; a.users == 0 {
		delete(h.accounts, c)
	}
}
