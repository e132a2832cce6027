package session

import "time"

// Barred is the error of a claim to a session that ended with the word that its client
// stays away, which that may not have heard: it had no link, or lost it as it was said.
type Barred struct {
	Why any // the server's

	principal string
	time      time.Duration
}

func (*Barred) Error() string { return "the session was ended, and its client is to stay away" }

// Bar has claims to s, once it is over, refused with b for a time: as long as its client
// may claim it.
func (r *Registry) Bar(s *Session, b *Barred, time time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.entries[s]; e != nil {
		e.bar = &Barred{Why: b.Why, principal: e.claim.Principal, time: time}
	}
}

// barLocked keeps the tokens of a session that is forgotten, if they are barred. There
// are as many at most as there are sessions without a link.
func (r *Registry) barLocked(e *entry) {
	if e.bar == nil || e.bar.time <= 0 || len(r.barred) >= r.MaxSessions {
		return
	}
	if r.barred == nil {
		r.barred = map[string]*Barred{}
	}
	tokens := []string{e.confirmed, e.offered}
	for _, token := range tokens {
		if token != "" {
			r.barred[token] = e.bar
		}
	}
	time.AfterFunc(e.bar.time, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, token := range tokens {
			delete(r.barred, token)
		}
	})
}
