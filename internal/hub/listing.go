package hub

import (
	"cmp"
	"slices"
	"strings"
)

// Listed is what a hub has of one key of a topic, at one moment.
type Listed struct {
	Topic, Key  string
	Subscribers int // streams …
	Listeners   int // … and subscriptions of this process
	Onlookers   int // at who is there
	Members     int // subjects that subscribe here
	History     int // messages that are kept …
	Bytes       int // … and their size
	Messages    uint64
	Dropped     int64 // messages that subscribers were not given
	Ended       int64 // subscribers that were too slow
}

// Listing is part of what a hub has, and the sums of all of it.
type Listing struct {
	Keys        int // that the hub has …
	Found       int // … of them, those that were asked for
	Subscribers int // of all keys
	History     int64
	Rows        []Listed
}

// List returns the keys whose topic or key has text in it, at most most of them: those
// with the most subscribers. It looks at every key, one after another.
func (h *Hub) List(text string, most int) (l Listing) {
	h.mu.Lock()
	rooms := slices.AppendSeq(make([]*room, 0, h.rooms.n), h.rooms.all())
	h.mu.Unlock()
	l.Keys, l.History = len(rooms), h.history.Load()
	for _, r := range rooms {
		one := r.listed()
		l.Subscribers += one.Subscribers
		if text != "" && !strings.Contains(one.Topic, text) && !strings.Contains(one.Key, text) {
			continue
		}
		l.Found++
		l.Rows = append(l.Rows, one)
		if len(l.Rows) > 2*most {
			l.Rows = best(l.Rows, most)
		}
	}
	l.Rows = best(l.Rows, most)
	return l
}

func best(all []Listed, most int) []Listed {
	slices.SortFunc(all, func(a, b Listed) int {
		return cmp.Or(cmp.Compare(b.Subscribers, a.Subscribers), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Key, b.Key))
	})
	return all[:min(len(all), most)]
}

func (r *room) listed() Listed {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := Listed{
		Topic: r.topic.Decl.Name, Key: r.key, Onlookers: len(r.onlookers), Members: r.here.subjects(),
		History: r.history.Len(), Bytes: r.history.size(), Messages: r.numbered,
		Dropped: r.dropped.n.Load(), Ended: r.slow.n.Load(),
	}
	for _, s := range r.subs {
		if s.peer.local != nil {
			l.Listeners++
		} else {
			l.Subscribers++
		}
	}
	return l
}
