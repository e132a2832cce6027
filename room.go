package typedrpc

import (
	"bytes"
	"container/list"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// roomID goes by the declaration, so that two of one name do not mix types.
type roomID struct {
	spec *spec
	key  string
}

// room is one key of a topic at a hub. It exists while somebody is in it, and
// then for its history.
type room struct {
	hub *Hub
	roomID
	items feed // the topic's messages

	users int           // under Hub.mu: those who are in it
	idle  *list.Element // under Hub.mu: its place in Hub.idle

	// Under Hub.mu: this hub has published to a topic with history. The broker
	// may bring the message later, so the room waits for it.
	published bool

	mu      sync.Mutex
	closed  bool
	subs    []*subscriber
	history ring[remembered]
	bytes   int  // of history
	lost    bool // messages may be missing before the next one
	gone    bool // it was dropped; there may be another for the key
	presence
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
	r.mu.Unlock()
	r.items.close()
	r.presence.feed.close()
}

// remembers reports that there is history.
func (r *room) remembers() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetLocked(time.Now())
	return r.history.len() > 0
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
		w.x.fail(errHubClosed())
	}
}

// message is a published message. Its buffers are left to the garbage
// collector: each has a reference that is never released. So they are as large
// as they need to be, and a queue that holds them is as large as it says.
type message struct {
	encoding            // the hub's
	others   []encoding // in other codecs, made when needed; under room.mu
}

type encoding struct {
	codec Codec
	body  *buf.Buf // nil: there is none
	text  sound
}

// sound says whether an encoding may travel in the JSON-RPC dialect.
type sound uint8

const (
	unchecked sound = iota
	modest          // JSON, no deeper than everybody reads
	doubtful
)

func newEncoding(c Codec, data []byte) encoding {
	b := &buf.Buf{B: data}
	b.Retain()
	return encoding{codec: c, body: b}
}

// bodyFor is the message as s can be given it; nil: it cannot.
func (r *room) bodyFor(m *message, s *subscriber) *buf.Buf {
	e := r.encodedFor(m, s)
	if e.body == nil || e.body.Len() > s.limit {
		return nil
	}
	if !s.text {
		return e.body
	}
	if e.text == unchecked {
		e.text = doubtful
		if wire.Valid(e.body.B, wire.MaxDepth) == nil {
			e.text = modest
		}
	}
	if (e.text == doubtful || s.depth < wire.MaxDepth) && wire.Valid(e.body.B, s.depth) != nil {
		return nil
	}
	return e.body
}

func (r *room) encodedFor(m *message, s *subscriber) *encoding {
	c := s.x.conn.codec
	if s.codec == m.codec.Name() {
		return &m.encoding
	}
	for i := range m.others {
		if m.others[i].codec.Name() == s.codec {
			return &m.others[i]
		}
	}
	e, err := r.recode(m, c)
	if err != nil {
		s.fail(err)
	}
	m.others = append(m.others, e)
	return &m.others[len(m.others)-1]
}

// recode encodes a message in another codec. The codecs and the message's own
// methods are the user's, and this goroutine may be the broker's.
func (r *room) recode(m *message, c Codec) (e encoding, err error) {
	e = encoding{codec: c}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	v := r.spec.down.New()
	if err := r.spec.decode(m.codec, m.body.B, v); err != nil {
		return e, err
	}
	data, err := r.spec.encode(c, nil, v)
	if err != nil {
		return e, err
	}
	return newEncoding(c, data), nil
}

// deliver gives what the broker brings to everybody in the room.
func (r *room) deliver(msg []byte) {
	if msg == nil {
		r.lose()
		return
	}
	for _, b := range r.giveAll(&message{encoding: newEncoding(r.hub.codec, bytes.Clone(msg))}) {
		b.sub.await(b.body)
	}
}

// behind is a subscriber that the publisher waits for, to give it body.
type behind struct {
	sub  *subscriber
	body *buf.Buf
}

func (r *room) giveAll(m *message) (late []behind) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rememberLocked(m)
	for _, s := range r.subs {
		if body := r.bodyFor(m, s); !s.give(body) {
			late = append(late, behind{s, body})
		}
	}
	return late
}

// lose notes that the broker may have lost messages.
func (r *room) lose() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost = true
	for _, s := range r.subs {
		s.mu.Lock()
		s.missed = missedUnknown
		s.mu.Unlock()
	}
}

func (r *room) rememberLocked(m *message) {
	if r.spec.topic.remembers() {
		p := remembered{msg: m, at: time.Now()}
		if r.lost {
			p.dropped = missedUnknown
		}
		r.history.push(p)
		r.bytes += m.body.Len() + messageOverhead
		r.forgetLocked(p.at)
	}
	r.lost = false
}

// forgetLocked ends the history where it is too long.
func (r *room) forgetLocked(now time.Time) {
	t := r.spec.topic
	for n := r.history.len(); n > 0; n-- {
		first := r.history.front()
		if (t.last == 0 || n <= t.last) && (t.recent == 0 || now.Sub(first.at) < t.recent) &&
			(r.bytes <= r.hub.options.HistoryBytes || n == 1) {
			return
		}
		r.bytes -= first.msg.body.Len() + messageOverhead
		r.history.pop()
	}
}

// join puts s into the room and returns the history for it: one step, so that
// no message is missing between them and none is in both.
func (r *room) join(s *subscriber) ([]queued, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, errHubClosed()
	}
	r.forgetLocked(time.Now())
	past := make([]queued, 0, r.history.len())
	for i := range r.history.len() {
		p := r.history.at(i)
		if i > 0 { // what is missing before the first was before the history
			s.missed = missed(s.missed, p.dropped)
		}
		body := r.bodyFor(p.msg, s)
		if body == nil {
			s.missed = missed(s.missed, 1)
			continue
		}
		q := queued{body, s.missed}
		if !s.account.take(q.cost()) {
			return nil, Errorf(ResourceExhausted, "the history does not fit beside what waits for this connection; receive from its other subscriptions, then subscribe again")
		}
		s.past += q.cost()
		s.missed = 0
		past = append(past, q)
	}
	if r.lost && r.history.len() > 0 {
		s.missed = missedUnknown
	}
	s.place = len(r.subs)
	r.subs = append(r.subs, s)
	r.presentLocked(s.subject, 1)
	return past, nil
}

func (r *room) leave(s *subscriber) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := len(r.subs) - 1
	r.subs[s.place] = r.subs[last]
	r.subs[s.place].place = s.place
	r.subs[last] = nil
	r.subs = r.subs[:last]
	if cap(r.subs) > 64 && last < cap(r.subs)/4 {
		r.subs = slices.Clone(r.subs)
	}
	r.presentLocked(s.subject, -1)
}

// at is the i-th oldest, which must be there.
func (r *ring[T]) at(i int) *T { return &r.all[(r.head+i)&(len(r.all)-1)] }
