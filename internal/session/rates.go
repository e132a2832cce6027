package session

import (
	"errors"
	"time"
)

// rates are leaky buckets of owners. The zero value is ready.
type rates struct {
	of map[string]bucket
}

// bucket is what an owner has begun lately.
type bucket struct {
	level float64
	at    time.Time
}

// rateBuckets is how many owners are known at once. Beyond that those that have
// begun the least lately are forgotten.
const rateBuckets = 1 << 14

// add reports whether an owner may begin one more.
func (r *rates) add(owner string, now time.Time, rate float64) bool {
	b := r.of[owner]
	b.level = max(0, b.level-now.Sub(b.at).Seconds()*rate)
	b.at = now
	if b.level+1 > max(10*rate, 1) {
		return false
	}
	b.level++
	if r.of == nil {
		r.of = map[string]bucket{}
	}
	r.of[owner] = b
	if len(r.of) > rateBuckets {
		r.purge(now, rate)
	}
	return true
}

// purge forgets who has begun nothing for a while, and if those are too few,
// who has begun little.
func (r *rates) purge(now time.Time, rate float64) {
	for enough := 0.0; len(r.of) > rateBuckets/2; enough = 2*enough + 1 {
		for owner, b := range r.of {
			if b.level-now.Sub(b.at).Seconds()*rate <= enough {
				delete(r.of, owner)
			}
		}
	}
}

// ErrTooMany refuses a client whose owner begins too many sessions.
var ErrTooMany = errors.New("too many sessions are being begun")

// May reports whether an owner may begin a session now.
func (r *Registry) May(owner string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.Rate <= 0 || r.begun.add(owner, time.Now(), r.Rate)
}
