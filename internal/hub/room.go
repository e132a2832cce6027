package hub

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/stats"
)

// room is one key of a topic at a hub. It exists while somebody is in it, and
// then for its history.
type room struct {
	*declared
	key   string
	payer *engine.Stream // under Hub.mu: who of those in it pays for it; nil: nobody
	users int32          // under Hub.mu: those who are in it

	// Under Hub.mu: this hub has published to a topic with history. The broker
	// may bring the message later, so the room waits for it.
	published bool

	closed bool // as all that follows, under mu
	lost   bool // messages may be missing before the next one
	gone   bool // it was dropped; there may be another for the key
	spoken bool // something was said of somebody who is here, by any hub
	mu     sync.Mutex
	subs   []*subscriber
	*heard // never nil
	presence
}

// heard is what a room has beside that once a message has come.
type heard struct {
	turn     chan struct{} // capacity 1: full while somebody delivers, where the hub is alone
	numbered uint64        // messages that came
	life     uint64        // chosen at random: a message's place says in whose life it was
	history  *history      // nil: there was none yet
	becoming               // has atomics
}

// unheard is that of all rooms to which nothing has come. It stays empty.
var unheard heard

// newRoom makes a room. Its key may be part of something large.
func newRoom(d *declared, key string) *room {
	r := &room{declared: d, heard: &unheard}
	if d.hub.shared { // keys may be long: it is the end of the channel's name
		channel := channelOf(d.topic, key)
		r.key, r.sharing = channel[len(channel)-len(key):], new(sharing)
		r.messages.init(d.hub, channel, r.deliver)
	} else {
		r.key = strings.Clone(key)
	}
	r.presence.init(r)
	return r
}

// items are what the broker brings, nil: the hub is alone, and its publishers find the room.
func (r *room) items() *feed {
	if r.sharing == nil {
		return nil
	}
	return &r.messages
}

// roomCost is what a key takes beside its name, and feedCost each channel of a broker. One of
// those in the room pays for it: counted for each, a subscription would be twice what it takes.
const (
	roomCost = 288
	feedCost = 128
)

// costOf is that with the name, which channels of presence have once more.
func (h *Hub) costOf(t *Topic, key string) int {
	n := roomCost + len(key)
	if h.shared {
		n += feedCost
	}
	if h.shared && t.Presence {
		n += feedCost + len(key)
	}
	return n
}

func (r *room) cost() int { return r.hub.costOf(r.topic, r.key) }

// hearsLocked is called before the first message comes.
func (r *room) hearsLocked() {
	if r.heard == &unheard {
		r.heard = &heard{life: rand.Uint64()}
	}
}

// turns is where those wait for each other who publish to the room.
func (r *room) turns() chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hearsLocked()
	if r.turn == nil {
		r.turn = make(chan struct{}, 1)
	}
	return r.turn
}

// history is what a room remembers.
type history struct {
	flow.Ring[remembered]
	bytes int
}

// Len and size are those of a room that remembers nothing, too.
func (h *history) Len() int {
	if h == nil {
		return 0
	}
	return h.Ring.Len()
}

func (h *history) size() int {
	if h == nil {
		return 0
	}
	return h.bytes
}

// remembered is a message of the history.
type remembered struct {
	msg     *message
	at      time.Time
	dropped uint64
}

// unsubscribe ends a room that nobody will enter again.
func (r *room) unsubscribe() {
	r.mu.Lock()
	r.gone = true
	for r.history.Len() > 0 {
		r.forgetFirstLocked()
	}
	r.mu.Unlock()
	r.items().close()
	if r.shares() {
		r.questions.close()
	}
}

// remembers reports that there is history.
func (r *room) remembers() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetLocked(time.Now())
	return r.history.Len() > 0
}

// close ends everything in the room.
func (r *room) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, s := range r.subs {
		s.end(errHubClosed())
	}
	for w := range r.onlookers {
		w.x.Fail(errHubClosed())
	}
}

// deliver gives what the broker brings to everybody in the room.
func (r *room) deliver(msg []byte) {
	if msg == nil {
		r.lose()
		return
	}
	m := newMessage(r.hub.options.Codec, bytes.Clone(msg))
	if r.topic.Remembers() {
		r.hub.forgetFor(r, m.size())
	}
	late, n := r.giveAll(m)
	for _, b := range late {
		b.sub.await(b.encoding)
	}
	r.recordDelivered(n)
}

// behind is a subscriber that the publisher waits for, to give it a message.
type behind struct {
	sub *subscriber
	*encoding
}

func (r *room) giveAll(m *message) (late []behind, subs int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hearsLocked()
	r.numbered++
	m.number = r.numbered
	r.rememberLocked(m)
	for _, s := range r.subs {
		if e := m.bodyFor(s); !s.give(e) {
			late = append(late, behind{s, e})
		}
	}
	return late, len(r.subs)
}

// lose notes that the broker may have lost messages.
func (r *room) lose() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost = true
	for _, s := range r.subs {
		s.mu.Lock()
		s.missed = flow.MissedUnknown
		s.mu.Unlock()
	}
}

func (r *room) rememberLocked(m *message) {
	if r.topic.Remembers() && !r.gone {
		m.kept = &r.hub.history
		m.kept.Add(m.size())
		p := remembered{msg: m, at: time.Now()}
		if r.lost {
			p.dropped = flow.MissedUnknown
		}
		if r.history == nil {
			r.history = new(history)
		}
		r.history.Push(p)
		r.history.bytes += m.body.Len() + flow.MessageOverhead
		r.forgetLocked(p.at)
	}
	r.lost = false
}

// forgetLocked ends the history where it is too long.
func (r *room) forgetLocked(now time.Time) {
	t := r.topic
	for n := r.history.Len(); n > 0; n-- {
		first := r.history.Front()
		if (t.Last == 0 || n <= t.Last) && (t.Recent == 0 || now.Sub(first.at) < t.Recent) &&
			(r.history.bytes <= r.hub.options.MaxKeyHistory && r.hub.history.Load() <= r.hub.options.MaxHistory || n == 1) {
			return
		}
		r.forgetFirstLocked()
	}
}

func (r *room) forgetFirstLocked() {
	m := r.history.Pop().msg
	r.history.bytes -= m.body.Len() + flow.MessageOverhead
	m.kept.Add(-m.size())
	m.kept = nil
}

// join puts s into the room, with what is said of it, and gives it the history: one step, so that no
// message is missing between them and none is in both.
func (r *room) join(s *subscriber, about string) error {
	err := r.joined(s, about)
	if err == nil {
		r.hub.record(r.topic, stats.Subscribed, 1)
	}
	return err
}

func (r *room) joined(s *subscriber, about string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errHubClosed()
	}
	r.forgetLocked(time.Now())
	had := r.hadLocked(s)
	if n := r.history.Len(); n > 0 {
		s.past = &past{make([]queued, 0, n), &holder{account: s.account}}
	}
	for i := range r.history.Len() {
		p := r.history.At(i)
		if p.msg.number <= had {
			continue
		}
		if i > 0 { // what is missing before the first was before the history
			s.missed = flow.Missed(s.missed, p.dropped)
		}
		e := p.msg.bodyFor(s)
		if e == nil {
			s.missed = flow.Missed(s.missed, 1)
			continue
		}
		q := queued{e, s.missed}
		if !s.account.take(q.cost()) {
			return status.Errorf(status.ResourceExhausted, "the history does not fit beside what waits for this connection; receive from its other subscriptions, then subscribe again")
		}
		e.hold(s.past.held)
		s.missed = 0
		s.past.queue = append(s.past.queue, q)
	}
	if len(s.past.all()) == 0 {
		s.past = nil
	}
	if r.lost && r.history.Len() > 0 {
		s.missed = flow.MissedUnknown
	}
	s.place = int32(len(r.subs))
	r.subs = append(r.subs, s)
	if s.peer.local == nil {
		if about != "" {
			r.sayLocked(s.peer.Subject, about)
		}
		r.presentLocked(s.peer.Subject, 1)
	}
	return nil
}

// heir is a stream that is in the room, nil: there is none.
func (r *room) heir() *engine.Stream {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.subs {
		if s.peer.local == nil {
			return s.x
		}
	}
	for w := range r.onlookers {
		return w.x
	}
	return nil
}

// leave takes s out of the room, if it is there.
func (r *room) leave(s *subscriber) {
	if r.left(s) {
		r.hub.record(r.topic, stats.Unsubscribed, 1)
	}
}

func (r *room) left(s *subscriber) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.place < 0 {
		return false
	}
	last := len(r.subs) - 1
	r.subs[s.place] = r.subs[last]
	r.subs[s.place].place = s.place
	r.subs[last] = nil
	r.subs = r.subs[:last]
	if cap(r.subs) > 64 && last < cap(r.subs)/4 {
		r.subs = slices.Clone(r.subs)
	}
	if s.peer.local == nil {
		r.presentLocked(s.peer.Subject, -1)
	}
	return true
}
