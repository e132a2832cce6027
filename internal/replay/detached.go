package replay

import (
	"context"
	"maps"
	"sync"
)

// Detached are the runs of a server, or of a dialled connection, whose sessions
// were lost: they go on, because their callers may come back for the answers.
type Detached struct {
	most int // for one subject

	mu     sync.Mutex
	runs   map[*Run]*Cache
	counts map[string]int
	ended  bool
	idle   chan struct{} // not nil while somebody waits: closed when runs is empty
}

// NewDetached makes a set of at most so many runs for one subject.
func NewDetached(most int) *Detached { return &Detached{most: most} }

// add reports false if there are too many: the handler's context ends then, as
// that of a call without a key does. Called with Cache.mu held.
func (d *Detached) add(c *Cache, r *Run) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	subject := r.entry.key.Subject
	if d.ended || d.counts[subject] >= d.most {
		return false
	}
	if d.runs == nil {
		d.runs, d.counts = map[*Run]*Cache{}, map[string]int{}
	}
	d.runs[r] = c
	d.counts[subject]++
	return true
}

// remove is called with Cache.mu held, too.
func (d *Detached) remove(r *Run) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.runs, r)
	subject := r.entry.key.Subject
	if d.counts[subject]--; d.counts[subject] == 0 {
		delete(d.counts, subject)
	}
	if len(d.runs) == 0 && d.idle != nil {
		close(d.idle)
		d.idle = nil
	}
}

// End waits for the runs, and ends the contexts of the rest when ctx ends. It
// reports whether there were none.
func (d *Detached) End(ctx context.Context) (all bool) {
	d.mu.Lock()
	if len(d.runs) > 0 && d.idle == nil {
		d.idle = make(chan struct{})
	}
	idle := d.idle
	d.mu.Unlock()
	all = true
	if idle != nil {
		select {
		case <-idle:
		case <-ctx.Done():
			select {
			case <-idle:
			default:
				all = false
			}
		}
	}
	d.Stop()
	return all
}

// Revoke ends the contexts of a subject's runs.
func (d *Detached) Revoke(subject string) {
	d.mu.Lock()
	runs := maps.Clone(d.runs)
	maps.DeleteFunc(runs, func(r *Run, _ *Cache) bool { return r.entry.key.Subject != subject })
	d.mu.Unlock()
	for r, c := range runs {
		c.stop(r)
	}
}

// Stop ends the contexts of all.
func (d *Detached) Stop() {
	d.mu.Lock()
	d.ended = true
	all := maps.Clone(d.runs)
	d.mu.Unlock()
	for r, c := range all {
		c.stop(r)
	}
}
