package main

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/examples/dashboard/api"
)

// visitor is a page, and what the server knows of it. It outlives the page's links and
// its sessions.
type visitor struct {
	mu   sync.Mutex
	line *cable    // its latest; nil: it cannot be cut
	away time.Time // until when it is not let in
	seen time.Time // when it signed in the last time
	book api.Book
	last struct{ pulse, call int }
}

// sent notes the latest tick that was sent to the page.
func (v *visitor) sent(tick int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.book.Tick = tick
}

// pulse notes a number of the page's notifications.
func (v *visitor) pulse(n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	check(&v.book.Pulses, &v.last.pulse, n)
}

// count notes a number of the page's calls.
func (v *visitor) count(n int) api.Book {
	v.mu.Lock()
	defer v.mu.Unlock()
	check(&v.book.Calls, &v.last.call, n)
	return v.book
}

// check compares a number with the one before. A page that has lost its session begins
// again with 1.
func check(c *api.Checked, last *int, n int) {
	if n == 1 && *last > 1 {
		*c, *last = api.Checked{}, 0
	}
	c.Received++
	switch {
	case n <= *last:
		c.Duplicates++
		return
	case n > *last+1:
		c.Gaps += n - *last - 1
	}
	*last = n
}

// cut cuts the page's link.
func (v *visitor) cut(c api.Cutting) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.away = time.Now().Add(min(time.Duration(c.Away)*time.Millisecond, longestAway))
	if v.line == nil {
		return
	}
	v.line.cut(func(t api.Torn) {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.book.Cuts++
		v.book.Torn = t
	})
}

// longestAway is less than the session of a page that is away is kept.
const longestAway = 20 * time.Second

// plug notes the page's new link, unless it is not to have one yet.
func (v *visitor) plug(line *cable) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.seen = time.Now()
	if v.seen.Before(v.away) {
		return typedrpc.Errorf(typedrpc.Unavailable, "the line is down, on purpose")
	}
	v.line = line
	return nil
}

// visitors are all that have come lately.
type visitors struct {
	mu   sync.Mutex
	most int
	all  map[string]*visitor
}

// named returns a visitor. When there are too many the one that has been away for the
// longest is forgotten.
func (vs *visitors) named(name string) *visitor {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	v := vs.all[name]
	if v != nil {
		return v
	}
	if len(vs.all) >= vs.most {
		oldest := ""
		for name, v := range vs.all {
			if oldest == "" || v.lastSeen().Before(vs.all[oldest].lastSeen()) {
				oldest = name
			}
		}
		delete(vs.all, oldest)
	}
	v = &visitor{seen: time.Now()}
	vs.all[name] = v
	return v
}

func (v *visitor) lastSeen() time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.seen
}

// signIn finds the visitor, with each link anew.
func (vs *visitors) signIn(ctx context.Context, r *http.Request, who *api.Visitor) (typedrpc.Identity, api.Welcome, error) {
	if who == nil || who.Name == "" || len(who.Name) > 64 {
		return typedrpc.Identity{}, api.Welcome{}, typedrpc.Errorf(typedrpc.Unauthenticated, "say who you are first")
	}
	v := vs.named(who.Name)
	line, _ := r.Context().Value(cableKey{}).(*cable)
	if err := v.plug(line); err != nil {
		return typedrpc.Identity{}, api.Welcome{}, err
	}
	return typedrpc.Identity{Subject: who.Name, Context: context.WithValue(ctx, visitorKey{}, v)}, api.Welcome{
		Goods:       goods,
		TickMillis:  int(api.TickEvery.Milliseconds()),
		TradeMillis: int(api.TradeEvery.Milliseconds()),
	}, nil
}

type (
	visitorKey struct{}
	cableKey   struct{}
)

// visitorFrom returns whom a handler works for.
func visitorFrom(ctx context.Context) *visitor { return ctx.Value(visitorKey{}).(*visitor) }
