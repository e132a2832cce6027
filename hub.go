package typedrpc

import (
	"container/list"
	"context"
	"errors"
	"sync"
)

// Hub is where the topics of a process meet: what is published to it goes to
// the subscribers that HandleTopic gives it, and through its broker to other
// hubs. All of it may be used by any number of goroutines.
//
// Locks are taken in this order: feed.mu alone; Hub.mu, then room.mu, then
// subscriber.mu or onlooker.mu, then Conn.mu. None is held while anything waits.
type Hub struct {
	broker  Broker
	shared  bool // with other hubs, perhaps
	codec   Codec
	options HubOptions

	mu       sync.Mutex
	closed   bool
	rooms    map[roomID]*room
	idle     list.List // rooms kept for their history alone, the last used first
	accounts map[*Conn]*account

	announcer
}

// HubOptions are what a Hub can be told. The zero value of every field is its
// default; a negative one makes NewHub panic.
type HubOptions struct {
	// Broker connects the hub with those of other processes. The hub closes
	// it. nil: the hub is alone.
	Broker Broker
	// Codec is what messages are encoded in on their way through the broker;
	// all hubs of one broker need the same. Subscribers whose connection has
	// the same codec get the bytes as they come, for others messages are
	// encoded once more for each codec. nil: JSON.
	Codec Codec
	// HistoryBytes bounds what a topic with History keeps for one key, each
	// message counted with 64 bytes more. Default 256 KiB; one message fits
	// always.
	HistoryBytes int
	// IdleKeys is for how many keys without subscribers a history is kept;
	// beyond that the one that was not used for longest is forgotten. Default
	// 1,024.
	IdleKeys int
}

// NewHub makes a hub; nil options are fine.
func NewHub(o *HubOptions) *Hub {
	h := &Hub{rooms: map[roomID]*room{}, accounts: map[*Conn]*account{}}
	if o != nil {
		h.options = *o
	}
	for _, n := range []*int{&h.options.HistoryBytes, &h.options.IdleKeys} {
		if *n < 0 {
			panic("typedrpc: NewHub: HistoryBytes and IdleKeys must not be negative")
		}
	}
	if h.options.HistoryBytes == 0 {
		h.options.HistoryBytes = 256 << 10
	}
	if h.options.IdleKeys == 0 {
		h.options.IdleKeys = 1024
	}
	if h.codec = h.options.Codec; h.codec == nil {
		h.codec = JSON
	}
	h.broker, h.shared = h.options.Broker, h.options.Broker != nil
	if !h.shared {
		h.broker = newMemoryBroker()
	}
	h.announcer.init()
	return h
}

// Close ends all subscriptions with Unavailable, forgets every history and
// closes the broker, whose error it returns. What is published or subscribed
// to afterwards fails with Unavailable. Closing again does nothing.
// Server.Shutdown ends the subscriptions of its connections by itself; close
// the hub after it.
func (h *Hub) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	var all, idle []*room
	for _, r := range h.rooms {
		all = append(all, r)
		if r.idle != nil {
			h.dropLocked(r)
			idle = append(idle, r)
		}
	}
	h.mu.Unlock()
	for _, r := range all {
		r.close()
	}
	for _, r := range idle {
		r.unsubscribe()
	}
	h.announcer.stop() // the broker may wait for what is being published
	err := h.broker.Close()
	h.announcer.wg.Wait()
	return err
}

func errHubClosed() *Error { return Errorf(Unavailable, "the hub was closed") }

// publish is Publish without its types.
func (h *Hub) publish(ctx context.Context, s *spec, key string, msg []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if limit := s.sizeLimit(maxMessageCeiling); len(msg) > limit {
		return Errorf(ResourceExhausted, "a message of %q has %d bytes, at most %d can be published", s.name, len(msg), limit)
	}
	if s.topic.remembers() { // what is published here is remembered here, whoever has subscribed
		r, err := h.enter(s, key)
		if err != nil {
			return err
		}
		defer h.exit(r)
		if err := r.items.open(ctx); err != nil {
			return err
		}
		h.mu.Lock()
		r.published = true
		h.mu.Unlock()
	} else if h.isClosed() {
		return errHubClosed()
	}
	if err := h.broker.Publish(ctx, channelOf(s, key), msg); err != nil {
		return brokerError(ctx, err, "the broker did not take the message")
	}
	return nil
}

func (h *Hub) isClosed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.closed
}

// Names have no spaces, so a channel belongs to one topic and one key.
func channelOf(s *spec, key string) string         { return "topic " + s.name + " " + key }
func presenceChannelOf(s *spec, key string) string { return "presence " + s.name + " " + key }

func brokerError(ctx context.Context, err error, text string) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, errBrokerClosed):
		return errHubClosed()
	case ctx.Err() != nil:
		return ended(ctx, MayHaveRun)
	}
	return &Error{Code: Unavailable, Message: text, Outcome: MayHaveRun, cause: err}
}

// enter finds or makes the room, which stays until exit.
func (h *Hub) enter(s *spec, key string) (*room, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errHubClosed()
	}
	id := roomID{s, key}
	r := h.rooms[id]
	if r == nil {
		r = &room{hub: h, roomID: id}
		r.items.init(h.broker, channelOf(s, key), r.deliver)
		r.presence.init(r)
		h.rooms[id] = r
	}
	if r.idle != nil {
		h.idle.Remove(r.idle)
		r.idle = nil
	}
	r.users++
	return r, nil
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
			r.idle = h.idle.PushFront(r)
			if h.idle.Len() > h.options.IdleKeys {
				gone = h.idle.Back().Value.(*room)
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

func (h *Hub) dropLocked(r *room) {
	if r.idle != nil {
		h.idle.Remove(r.idle)
		r.idle = nil
	}
	delete(h.rooms, r.roomID)
}

// feed is a room's subscription to one channel of the broker.
type feed struct {
	broker  Broker
	channel string
	deliver func([]byte)

	mu      sync.Mutex
	opening *opening // nil: nobody needed it yet, or it failed
	cancel  func()   // not nil while it is open
}

// opening is an attempt to subscribe, which many may wait for.
type opening struct {
	done chan struct{}
	err  error
	left bool // who made it left: the others need another
}

func (f *feed) init(b Broker, channel string, deliver func([]byte)) {
	f.broker, f.channel, f.deliver = b, channel, deliver
}

// open subscribes if that has not been done: the first who asks does it, with
// its context, and the others wait.
func (f *feed) open(ctx context.Context) error {
	for {
		f.mu.Lock()
		o := f.opening
		first := o == nil
		if first {
			o = &opening{done: make(chan struct{}), err: Errorf(Internal, "the broker panicked")}
			f.opening = o
		}
		f.mu.Unlock()
		if first {
			return f.subscribe(ctx, o)
		}
		select {
		case <-o.done:
		case <-ctx.Done():
			return ended(ctx, NotSent)
		}
		if !o.left {
			return o.err
		}
	}
}

func (f *feed) subscribe(ctx context.Context, o *opening) error {
	var cancel func()
	defer func() {
		f.mu.Lock()
		if f.cancel = cancel; cancel == nil {
			f.opening = nil
		}
		f.mu.Unlock()
		close(o.done)
	}()
	stop, err := f.broker.Subscribe(ctx, f.channel, f.deliver)
	if err != nil {
		o.err, o.left = brokerError(ctx, err, "the broker could not be subscribed to"), ctx.Err() != nil
		return o.err
	}
	cancel, o.err = stop, nil
	return nil
}

func (f *feed) close() {
	f.mu.Lock()
	cancel := f.cancel
	f.cancel, f.opening = nil, nil
	f.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// account is what the subscriptions of one connection have queued.
type account struct {
	own    budget
	server *budget
	users  int // under Hub.mu
}

// take takes n bytes, of the server's budget at most the half that is not kept
// for calls.
func (a *account) take(n int) bool {
	if a.server.pressed() || !a.own.take(n) {
		return false
	}
	if !a.server.take(n) {
		a.own.give(n)
		return false
	}
	return true
}

// force takes n bytes whether they are there or not.
func (a *account) force(n int) {
	a.own.force(n)
	a.server.force(n)
}

func (a *account) give(n int) {
	a.own.give(n)
	a.server.give(n)
}

func (h *Hub) accountOf(c *Conn) *account {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.accounts[c]
	if a == nil {
		a = &account{own: budget{max: int64(c.config.limits.MaxBuffered)}, server: c.config.budget}
		h.accounts[c] = a
	}
	a.users++
	return a
}

func (h *Hub) leaveAccount(c *Conn, a *account) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if a.users--; a.users == 0 {
		delete(h.accounts, c)
	}
}
