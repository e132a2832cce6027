package typedrpc

import (
	"container/list"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Presence across hubs. A hub whose room somebody watches asks on the room's
// presence channel, again every presenceInterval, and after the broker may
// have lost something. Hubs that have the room answer with all of their
// members, and announce changes for presencePatience after the last question.
// So nothing is published about rooms that nobody watches, what was lost
// mends itself, and the members of a hub that does not answer any more leave.
const (
	presenceInterval = 10 * time.Second
	presencePatience = 3 * presenceInterval
	// noticeBytes is about how many bytes of names one notice carries.
	noticeBytes = 32 << 10
)

// notice is what travels on a presence channel.
type notice struct {
	Node string `json:"node"`
	// Ask wants every hub's members.
	Ask bool `json:"ask,omitempty"`
	// All begins a list of all members, in Join; the last part has End.
	All bool `json:"all,omitempty"`
	End bool `json:"end,omitempty"`
	// Without a list begun these are changes.
	Join  []string `json:"join,omitempty"`
	Leave []string `json:"leave,omitempty"`
}

// presence is who is in a room. Its fields are under room.mu.
type presence struct {
	feed      feed
	here      map[string]int   // this hub's subscriptions by subject
	nodes     map[string]*node // other hubs' members, while somebody watches
	onlookers map[*onlooker]struct{}

	// announcing; only with a shared broker
	asked   time.Time           // somebody wanted to know
	asking  time.Time           // the last question on the channel
	changed map[string]struct{} // subjects to announce
	ask     bool                // a question is to be published …
	answer  bool                // … and the list of all members
	queued  bool                // it waits for the announcer
}

// node is another hub.
type node struct {
	members map[string]struct{}
	coming  map[string]struct{} // a list of which not all parts have come; nil: none
	seen    time.Time           // its last list or sign
}

func (p *presence) init(r *room) {
	p.feed.init(r.hub.broker, presenceChannelOf(r.spec, r.key), r.noticed)
	p.here = map[string]int{}
	p.asked = time.Now() // others may be watching already
}

// openPresence subscribes to the room's presence channel, if others use it.
func (r *room) openPresence(ctx context.Context) error {
	if !r.hub.shared {
		return nil
	}
	return r.presence.feed.open(ctx)
}

// presentLocked counts a subscription in or out.
func (r *room) presentLocked(subject string, by int) {
	before := r.here[subject]
	if r.here[subject] += by; r.here[subject] == 0 {
		delete(r.here, subject)
	}
	if before > 0 && r.here[subject] > 0 {
		return
	}
	if !r.elsewhereLocked(subject, nil) {
		r.tellLocked(subject, by > 0)
	}
	if r.hub.shared && time.Since(r.asked) < presencePatience {
		if r.changed == nil {
			r.changed = map[string]struct{}{}
		}
		r.changed[subject] = struct{}{}
		r.announceLocked()
	}
}

// elsewhereLocked reports that another hub than but has the subject.
func (r *room) elsewhereLocked(subject string, but *node) bool {
	for _, n := range r.nodes {
		if _, ok := n.members[subject]; ok && n != but {
			return true
		}
	}
	return false
}

func (r *room) tellLocked(subject string, came bool) {
	for w := range r.onlookers {
		w.change(Member{Subject: subject, Left: !came})
	}
}

// setLocked changes another hub's member.
func (r *room) setLocked(n *node, subject string, present bool) {
	if _, was := n.members[subject]; was == present {
		return
	}
	if present {
		n.members[subject] = struct{}{}
	} else {
		delete(n.members, subject)
	}
	if r.here[subject] == 0 && !r.elsewhereLocked(subject, n) {
		r.tellLocked(subject, present)
	}
}

// noticed takes what comes on the presence channel.
func (r *room) noticed(msg []byte) {
	var m notice
	if msg != nil && (json.Unmarshal(msg, &m) != nil || m.Node == "" || m.Node == r.hub.node) {
		return // our own, or not ours to understand
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone {
		return // another room of the key answers
	}
	if msg == nil {
		r.askLocked()
		return
	}
	now := time.Now()
	if m.Ask {
		r.asked, r.asking, r.answer = now, now, true
		r.announceLocked()
	}
	if len(r.onlookers) == 0 {
		return
	}
	n := r.nodes[m.Node]
	if n == nil {
		n = &node{members: map[string]struct{}{}}
		r.nodes[m.Node] = n
	}
	n.seen = now
	r.updateLocked(n, &m)
	if len(n.members) == 0 && n.coming == nil {
		delete(r.nodes, m.Node)
	}
}

func (r *room) updateLocked(n *node, m *notice) {
	if m.All {
		n.coming = map[string]struct{}{}
	}
	if n.coming == nil {
		for _, s := range m.Leave {
			r.setLocked(n, s, false)
		}
		for _, s := range m.Join {
			r.setLocked(n, s, true)
		}
		return
	}
	for _, s := range m.Join {
		n.coming[s] = struct{}{}
	}
	if !m.End {
		return
	}
	all := n.coming
	n.coming = nil
	for s := range maps.Clone(n.members) {
		if _, ok := all[s]; !ok {
			r.setLocked(n, s, false)
		}
	}
	for s := range all {
		r.setLocked(n, s, true)
	}
}

// askLocked asks the other hubs, if somebody watches.
func (r *room) askLocked() {
	if r.hub.shared && len(r.onlookers) > 0 {
		// Who asks also answers: the others skip their question for this one,
		// and need our members as we need theirs.
		now := time.Now()
		r.ask, r.answer, r.asking, r.asked = true, true, now, now
		r.announceLocked()
	}
}

// beatLocked is called every presenceInterval while somebody watches. Another
// hub's question serves us too.
func (r *room) beatLocked(now time.Time) {
	if now.Sub(r.asking) > presenceInterval/2 {
		r.askLocked()
	}
	for id, n := range r.nodes {
		if now.Sub(n.seen) < presencePatience {
			continue
		}
		for s := range maps.Clone(n.members) {
			r.setLocked(n, s, false)
		}
		delete(r.nodes, id)
	}
}

// notices are what is to be published about the room now.
func (r *room) notices() []notice {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []notice
	if r.gone { // it says who left it last, and another room of the key the rest
		r.ask, r.answer = false, false
	}
	id := r.hub.node
	if r.ask {
		out = append(out, notice{Node: id, Ask: true})
	}
	if r.answer {
		m := notice{Node: id, All: true}
		size := 0
		for s := range r.here {
			if size += len(s) + 4; size > noticeBytes {
				out = append(out, m)
				m, size = notice{Node: id}, len(s)
			}
			m.Join = append(m.Join, s)
		}
		m.End = true
		out = append(out, m)
	} else if len(r.changed) > 0 {
		m := notice{Node: id}
		size := 0
		for s := range r.changed {
			if size += len(s) + 4; size > noticeBytes {
				out = append(out, m)
				m, size = notice{Node: id}, len(s)
			}
			if r.here[s] > 0 {
				m.Join = append(m.Join, s)
			} else {
				m.Leave = append(m.Leave, s)
			}
		}
		out = append(out, m)
	}
	r.ask, r.answer, r.changed, r.queued = false, false, nil, false
	return out
}

// announcer is the part of a hub that publishes notices, on a goroutine of its
// own while there are any: publishing may wait, and neither the delivery of
// messages nor subscribers may wait for it.
type announcer struct {
	node   string // this hub
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	amu      sync.Mutex // innermost, like Conn.mu
	ended    bool
	rooms    []*room // to be announced, in order
	running  bool
	watched  map[*room]struct{}
	beatNext *time.Timer
}

func (a *announcer) init() {
	a.node = rand.Text()
	a.ctx, a.cancel = context.WithCancel(context.Background())
	a.watched = map[*room]struct{}{}
}

// stop ends announcing; wg is done when it has ended.
func (a *announcer) stop() {
	a.cancel()
	a.amu.Lock()
	a.ended, a.rooms = true, nil
	if a.beatNext != nil {
		a.beatNext.Stop()
	}
	a.amu.Unlock()
}

// announceLocked has the announcer look after the room.
func (r *room) announceLocked() {
	if r.presence.queued {
		return
	}
	a := &r.hub.announcer
	a.amu.Lock()
	defer a.amu.Unlock()
	if a.ended {
		return
	}
	r.presence.queued = true
	a.rooms = append(a.rooms, r)
	if !a.running {
		a.running = true
		a.wg.Go(func() { r.hub.announce() })
	}
}

// announce publishes until there is nothing more to tell. What the broker does
// not take is told again when somebody asks.
func (h *Hub) announce() {
	a := &h.announcer
	for {
		a.amu.Lock()
		if len(a.rooms) == 0 {
			a.running, a.rooms = false, nil
			a.amu.Unlock()
			return
		}
		r := a.rooms[0]
		a.rooms = a.rooms[1:]
		a.amu.Unlock()
		for _, m := range r.notices() {
			if msg, err := json.Marshal(m); err != nil || h.tell(r, msg) != nil {
				break
			}
		}
	}
}

// tellPatience bounds how long the broker may take for a notice: rooms that
// come and go meanwhile wait to be announced, and are held.
const tellPatience = 10 * time.Second

// tell publishes a notice. A broker that panics loses it.
func (h *Hub) tell(r *room, msg []byte) (err error) {
	ctx, cancel := context.WithTimeout(h.announcer.ctx, tellPatience)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the broker panicked: %v", p)
			slog.Error("typedrpc: the hub's broker panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	return h.broker.Publish(ctx, r.presence.feed.channel, msg)
}

// watchLocked and unwatchLocked keep the beat for rooms that are watched.
func (r *room) watchLocked() {
	a := &r.hub.announcer
	a.amu.Lock()
	defer a.amu.Unlock()
	a.watched[r] = struct{}{}
	if len(a.watched) == 1 && !a.ended {
		if a.beatNext != nil {
			a.beatNext.Stop()
		}
		a.beatNext = time.AfterFunc(presenceInterval, r.hub.beat)
	}
}

func (r *room) unwatchLocked() {
	a := &r.hub.announcer
	a.amu.Lock()
	defer a.amu.Unlock()
	delete(a.watched, r)
	if len(a.watched) == 0 && a.beatNext != nil {
		a.beatNext.Stop()
	}
}

// beat runs on a timer.
func (h *Hub) beat() {
	a := &h.announcer
	a.amu.Lock()
	rooms := slices.Collect(maps.Keys(a.watched))
	a.amu.Unlock()
	now := time.Now()
	for _, r := range rooms {
		r.mu.Lock()
		r.beatLocked(now)
		r.mu.Unlock()
	}
	a.amu.Lock()
	defer a.amu.Unlock()
	if len(a.watched) > 0 && !a.ended {
		a.beatNext.Reset(presenceInterval)
	}
}

// onlooker is one who looks at a room's presence. What it has not been told yet
// is at most one change for each subject: a second one takes the first back.
type onlooker struct {
	x    *exchange
	wake chan struct{} // capacity 1

	mu      sync.Mutex
	pending list.List // of Member, in order
	of      map[string]*list.Element
}

func (w *onlooker) change(m Member) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e := w.of[m.Subject]; e != nil {
		w.pending.Remove(e)
		delete(w.of, m.Subject)
		return
	}
	w.of[m.Subject] = w.pending.PushBack(m)
	signal(w.wake)
}

func (w *onlooker) next() (Member, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.pending.Front()
	if e == nil {
		return Member{}, false
	}
	m := w.pending.Remove(e).(Member)
	delete(w.of, m.Subject)
	return m, true
}

// watch is the handler of a topic's presence.
func (h *Hub) watch(ctx context.Context, x *exchange, s *spec, key string) error {
	r, err := h.enter(s, key)
	if err != nil {
		return err
	}
	defer h.exit(r)
	if err := r.openPresence(ctx); err != nil {
		return err
	}
	w := &onlooker{x: x, wake: make(chan struct{}, 1), of: map[string]*list.Element{}}
	if err := r.look(w); err != nil {
		return err
	}
	defer r.lookAway(w)
	for {
		m, ok := w.next()
		if ok {
			if err := w.send(s.topic.presence, m); err != nil {
				return err
			}
			continue
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return ctx.Err()
		case <-x.gone():
			return x.in.Err()
		}
	}
}

func (w *onlooker) send(s *spec, m Member) error {
	text := "+" + m.Subject
	if m.Left {
		text = "-" + m.Subject
	}
	var flags wire.Flags
	if m.History {
		flags = wire.History
	}
	body := buf.Get()
	defer body.Release()
	var err error
	if body.B, err = s.encode(w.x.conn.codec, body.B, &text); err != nil {
		return err
	}
	return w.x.sendBody(body, flags, 0)
}

// look gives w all members as far as they are known, and then the changes.
func (r *room) look(w *onlooker) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errHubClosed()
	}
	all := maps.Clone(r.here)
	for _, n := range r.nodes {
		for s := range n.members {
			all[s] = 1
		}
	}
	for _, s := range slices.Sorted(maps.Keys(all)) {
		w.change(Member{Subject: s, History: true})
	}
	if r.onlookers == nil {
		r.onlookers = map[*onlooker]struct{}{}
	}
	r.onlookers[w] = struct{}{}
	if r.hub.shared && len(r.onlookers) == 1 {
		r.nodes = map[string]*node{}
		r.watchLocked()
		r.askLocked()
	}
	return nil
}

func (r *room) lookAway(w *onlooker) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.onlookers, w)
	if len(r.onlookers) == 0 {
		r.nodes = nil
		if r.hub.shared {
			r.unwatchLocked()
		}
	}
}
