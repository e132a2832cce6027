package hub

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"time"

	"github.com/typedrpc/typedrpc/internal/logs"
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
	// About is what is said of those in Join.
	About map[string]said `json:"about,omitempty"`
}

// presence is who is in a room. Its fields are under room.mu.
type presence struct {
	here     headcount       // this hub's subscriptions
	said     map[string]said // what it says of them, by subject; nil: nothing
	*watched                 // never nil
	*sharing                 // nil: the hub is alone
}

// watched is what a room has beside that while somebody looks on. It is made for the
// first who does, and goes with the last.
type watched struct {
	nodes     map[string]*node // other hubs' members
	onlookers map[*onlooker]struct{}
	changes
}

// unwatched is that of all rooms at which nobody looks. It stays empty: what is written
// there is written only where there are onlookers.
var unwatched watched

// sharing is what a room has beside that where hubs share a broker.
type sharing struct {
	messages feed // the topic's channel
	*asked        // nil: no other hub may ask who is here
}

// asked is what others ask, and are told.
type asked struct {
	questions feed                // the presence channel
	wanted    time.Time           // somebody wanted to know
	asking    time.Time           // the last question on the channel
	changed   map[string]struct{} // subjects to announce
	ask       bool                // a question is to be published …
	answer    bool                // … and the list of all members
	queued    bool                // it waits for the announcer
}

// node is another hub.
type node struct {
	members map[string]said // by subject, with what it says of them
	coming  map[string]said // a list of which not all parts have come; nil: none
	seen    time.Time       // its last list or sign
}

func (p *presence) init(r *room) {
	p.watched = &unwatched
	if p.sharing != nil && r.topic.Presence {
		p.sharing.asked = &asked{wanted: time.Now()} // others may be watching already
		p.questions.init(r.hub, presenceChannelOf(r.topic, r.key), r.noticed)
	}
}

// shares reports whether other hubs may ask who is here.
func (p *presence) shares() bool { return p.sharing != nil && p.sharing.asked != nil }

// openPresence subscribes to the room's presence channel, if others use it.
func (r *room) openPresence(ctx context.Context) error {
	if !r.shares() {
		return nil
	}
	return r.questions.open(ctx)
}

// presentLocked counts a subscription in or out.
func (r *room) presentLocked(subject string, by int) {
	before := r.here.of(subject)
	if before > 0 && before+by > 0 {
		r.here.add(subject, by)
		return
	}
	r.newsLocked(subject, func() {
		if r.here.add(subject, by); r.here.of(subject) == 0 {
			delete(r.said, subject)
		}
		if !r.elsewhereLocked(subject, nil) {
			r.tellLocked(subject, by > 0)
		}
	})
	r.changedLocked(subject)
}

// changedLocked has the other hubs told of a subject, if they want to know.
func (r *room) changedLocked(subject string) {
	if r.shares() && time.Since(r.wanted) < presencePatience {
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

// setLocked changes another hub's member, or what that says of it.
func (r *room) setLocked(n *node, subject string, present bool, about said) {
	was, had := n.members[subject]
	if had == present && was == about {
		return
	}
	r.spoken = r.spoken || about.Text != ""
	r.newsLocked(subject, func() {
		if present {
			n.members[subject] = about
		} else {
			delete(n.members, subject)
		}
		if had != present && r.here.of(subject) == 0 && !r.elsewhereLocked(subject, n) {
			r.tellLocked(subject, present)
		}
	})
}

// noticed takes what comes on the presence channel.
func (r *room) noticed(msg []byte) {
	var m notice
	if msg != nil {
		err := json.Unmarshal(msg, &m)
		if err == nil && m.Node == "" {
			err = errors.New("it names no hub")
		}
		if err != nil {
			r.hub.log.Warn("typedrpc: a notice of presence cannot be read", "topic", logs.Known(r.topic.Decl.Name), "error", err)
			return
		}
		if m.Node == r.hub.node {
			return // our own
		}
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
		r.wanted, r.asking, r.answer = now, now, true
		r.announceLocked()
	}
	if len(r.onlookers) == 0 {
		return
	}
	n := r.nodes[m.Node]
	if n == nil {
		n = &node{members: map[string]said{}}
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
		n.coming = map[string]said{}
	}
	if n.coming == nil {
		for _, s := range m.Leave {
			r.setLocked(n, s, false, said{})
		}
		for _, s := range m.Join {
			r.setLocked(n, s, true, m.about(s))
		}
		return
	}
	for _, s := range m.Join {
		n.coming[s] = m.about(s)
	}
	if !m.End {
		return
	}
	all := n.coming
	n.coming = nil
	for s := range maps.Clone(n.members) {
		if _, ok := all[s]; !ok {
			r.setLocked(n, s, false, said{})
		}
	}
	for s, about := range all {
		r.setLocked(n, s, true, about)
	}
}

// askLocked asks the other hubs, if somebody watches.
func (r *room) askLocked() {
	if r.shares() && len(r.onlookers) > 0 {
		// Who asks also answers: the others skip their question for this one,
		// and need our members as we need theirs.
		now := time.Now()
		r.ask, r.answer, r.asking, r.wanted = true, true, now, now
		r.announceLocked()
	}
}

// beatLocked is called every presenceInterval while somebody watches. Another
// hub's question serves us too.
func (r *room) beatLocked(now time.Time) {
	if r.shares() && now.Sub(r.asking) > presenceInterval/2 {
		r.askLocked()
	}
	for id, n := range r.nodes {
		if now.Sub(n.seen) < presencePatience {
			continue
		}
		for s := range maps.Clone(n.members) {
			r.setLocked(n, s, false, said{})
		}
		delete(r.nodes, id)
	}
}
