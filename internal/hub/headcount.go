package hub

import (
	"iter"
	"maps"
)

// headcount is how many subscriptions each subject has in a room. Where there are many
// rooms most have one subject, which needs no map.
type headcount struct {
	only string         // the one who is here …
	n    int            // … and how often; 0: nobody is, or all are in many
	many map[string]int // all who are here, since there were two; nil: there is one at most
}

// of is how many subscriptions a subject has.
func (h *headcount) of(subject string) int {
	switch {
	case h.many != nil:
		return h.many[subject]
	case subject == h.only:
		return h.n
	}
	return 0
}

// add counts subscriptions in or out, and forgets a subject that has none left.
func (h *headcount) add(subject string, by int) {
	if h.many == nil {
		if h.n == 0 || h.only == subject {
			if h.only, h.n = subject, h.n+by; h.n == 0 {
				h.only = ""
			}
			return
		}
		*h = headcount{many: map[string]int{h.only: h.n}}
	}
	if h.many[subject] += by; h.many[subject] == 0 {
		delete(h.many, subject)
	}
	if len(h.many) == 0 {
		h.many = nil
	}
}

// subjects is how many are here.
func (h *headcount) subjects() int { return len(h.many) + min(h.n, 1) }

// all are the subjects, in no order.
func (h *headcount) all() iter.Seq[string] {
	if h.many != nil {
		return maps.Keys(h.many)
	}
	return func(yield func(string) bool) {
		if h.n > 0 {
			yield(h.only)
		}
	}
}
