package typedrpc

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// ReplayOptions bound a ReplayCache. Zero fields are the defaults.
type ReplayOptions struct {
	// TTL is how long an answer is kept, at least. A repeat whose key is four
	// fifths as old, or older, does not run if the key is not known. The last
	// fifth is for what the ages that callers tell leave out: the time on the
	// way, and the difference of the clocks. Default 10 min.
	TTL time.Duration
	// Entries is how many keys are remembered at once, so that Entries for
	// each TTL is the rate of keyed calls that can be served without an end:
	// with the defaults 436 a second. Default 262,144.
	Entries int
	// Bytes is how many bytes the answers may have together, each counted
	// with 512 more. Default 128 MiB; memory is used as it is needed.
	Bytes int64
	// Share is the part of Entries and of Bytes that one authenticated
	// subject may use, so that none can keep the others from being served.
	// Default 0.25.
	Share float64
}

func (o ReplayOptions) withDefaults() ReplayOptions {
	if o.TTL == 0 {
		o.TTL = 10 * time.Minute
	}
	if o.Entries == 0 {
		o.Entries = 1 << 18
	}
	if o.Bytes == 0 {
		o.Bytes = 128 << 20
	}
	if o.Share == 0 {
		o.Share = 0.25
	}
	return o
}

// ReplayCache remembers the answers to keyed calls, see Keyed. It forgets none
// before its TTL is over: when it is full of younger ones, new keyed calls are
// refused before they run, with ResourceExhausted, NotSent. The handlers'
// context of a call whose caller was lost ends when nobody came back for the
// answer for a TTL.
//
// Each cache has an identity, which callers learn in the handshake: a call that
// may have run under one is not sent again to another. Servers of one process
// may share a cache, and one that takes the place of another should. A
// ReplayCache is safe for concurrent use.
type ReplayCache struct {
	id string
	o  ReplayOptions

	mu      sync.Mutex
	entries map[replayKey]*replayEntry
	total   usage
	shares  map[string]*usage  // of authenticated subjects
	aging   ring[*replayEntry] // those that have an answer, oldest first
	timer   *time.Timer        // forgets them; nil while there are none
}

// NewReplayCache makes an empty cache. It panics if an option is negative, or
// Share above 1.
func NewReplayCache(o ReplayOptions) *ReplayCache {
	if o.TTL < 0 || o.Entries < 0 || o.Bytes < 0 || !(o.Share >= 0 && o.Share <= 1) {
		panic(fmt.Sprintf("typedrpc: NewReplayCache: an option is out of range: %+v", o))
	}
	var bits [16]byte
	rand.Read(bits[:]) // never fails
	return &ReplayCache{id: hex.EncodeToString(bits[:]), o: o.withDefaults()}
}

// replayKey is a caller's key: another principal's same key is another one.
type replayKey struct {
	subject string
	id      [16]byte
}

// replayEntry is what is known of a key. Its fields are under ReplayCache.mu.
type replayEntry struct {
	key     replayKey
	sum     [32]byte  // of what was asked
	run     *run      // not nil while the handler runs, or the call is forwarded
	passed  *keyState // not nil: the call was forwarded
	answer  answer
	cost    int64
	expires time.Time
}

// run is one handler of a keyed call, which repeats wait for; or the handlers
// that forward it. Its fields are under ReplayCache.mu, but for answer, which is
// there when done is closed.
type run struct {
	entry    *replayEntry
	ins      []*inbound // whose handlers they are, to end their contexts
	done     chan struct{}
	answer   answer
	over     bool
	waiting  int         // callers that are there for the answer …
	idle     *time.Timer // ends the handler's context when nobody comes back
	detached *detached   // not nil: its session was lost
}

// stop ends the handlers' contexts.
func (c *ReplayCache) stop(r *run) {
	c.mu.Lock()
	ins := slices.Clone(r.ins)
	c.mu.Unlock()
	for _, in := range ins {
		in.cancel(context.Canceled)
	}
}

// answer is how a keyed call ended.
type answer struct {
	body []byte
	meta map[string]string
	err  *Error
}

func (a *answer) size() int64 {
	n := len(a.body) + Metadata(a.meta).size()
	if a.err != nil {
		n += len(a.err.Message) + len(a.err.Data)
	}
	return int64(n)
}

// replayOverhead is what each entry counts beside its answer.
const replayOverhead = 512

// usage is what entries take.
type usage struct {
	entries int
	bytes   int64
}

// fitsLocked reports whether entries and bytes more are within the bounds.
func (c *ReplayCache) fitsLocked(subject string, entries int, bytes int64) bool {
	if c.total.entries+entries > c.o.Entries || c.total.bytes+bytes > c.o.Bytes {
		return false
	}
	if subject == "" {
		return true
	}
	var u usage
	if s := c.shares[subject]; s != nil {
		u = *s
	}
	return float64(u.entries+entries) <= max(1, c.o.Share*float64(c.o.Entries)) && float64(u.bytes+bytes) <= c.o.Share*float64(c.o.Bytes)
}

func (c *ReplayCache) useLocked(subject string, entries int, bytes int64) {
	c.total.entries += entries
	c.total.bytes += bytes
	if subject == "" {
		return
	}
	s := c.shares[subject]
	if s == nil {
		s = new(usage)
		if c.shares == nil {
			c.shares = map[string]*usage{}
		}
		c.shares[subject] = s
	}
	s.entries += entries
	s.bytes += bytes
	if s.entries == 0 {
		delete(c.shares, subject)
	}
}

// findLocked returns what is known of a key. When nothing is, it returns a new
// entry, unless the key is too old or there is no room.
func (c *ReplayCache) findLocked(key replayKey, sum [32]byte, age time.Duration) (e *replayEntry, known bool, err *Error) {
	now := time.Now()
	c.expireLocked(now)
	if e := c.entries[key]; e != nil {
		if e.sum != sum {
			return nil, false, Errorf(InvalidArgument, "the idempotency key was used for another request")
		}
		return e, true, nil
	}
	if age >= c.o.TTL-c.o.TTL/5 {
		return nil, false, errForgotten
	}
	cost := int64(replayOverhead + len(key.subject))
	if !c.fitsLocked(key.subject, 1, cost) {
		err := Errorf(ResourceExhausted, "no more keyed calls are taken for now: their answers could not be kept")
		err.RetryAfter = time.Second
		if c.aging.len() > 0 {
			err.RetryAfter = max((*c.aging.front()).expires.Sub(now), time.Millisecond)
		}
		return nil, false, err
	}
	c.useLocked(key.subject, 1, cost)
	e = &replayEntry{key: key, sum: sum, cost: cost}
	if c.entries == nil {
		c.entries = map[replayKey]*replayEntry{}
	}
	c.entries[key] = e
	return e, false, nil
}

// errForgotten refuses a key that may have been known once.
var errForgotten = Errorf(FailedPrecondition, "the idempotency key is too old: whether its call ran is no longer known")

// errNotKept stands for an answer that had no room.
var errNotKept = Errorf(DataLoss, "the call ran, and its answer was not kept: there was no room for it")

// begin finds the run, or the answer, of a keyed call: with first the caller is
// the one to run it. err is why it must not run.
func (c *ReplayCache) begin(key replayKey, sum [32]byte, age time.Duration, in *inbound) (r *run, first bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, known, refused := c.findLocked(key, sum, age)
	switch {
	case refused != nil:
		return nil, false, refused
	case known && e.passed != nil:
		return nil, false, Errorf(InvalidArgument, "the idempotency key was used for a call that was forwarded")
	case known && e.run != nil:
		e.run.joinLocked()
		return e.run, false, nil
	case known:
		return &run{entry: e, done: closedChan, answer: e.answer, over: true}, false, nil
	}
	r = &run{entry: e, done: make(chan struct{}), waiting: 1}
	if in != nil {
		if err := in.own(r); err != nil { // its context has ended
			c.dropLocked(e)
			return nil, false, err
		}
		r.ins = []*inbound{in}
	}
	e.run = r
	return r, true, nil
}

// joinLocked counts one more caller that is there for the answer.
func (r *run) joinLocked() {
	r.waiting++
	if r.idle != nil {
		r.idle.Stop()
	}
}

var closedChan = func() chan struct{} { ch := make(chan struct{}); close(ch); return ch }()

// end notes the answer of a run. What there is no room for is not kept; that
// the call ran is.
func (c *ReplayCache) end(r *run, a answer) {
	c.mu.Lock()
	e := r.entry
	r.answer, e.answer = a, a
	if n := a.size(); c.fitsLocked(e.key.subject, 0, n) {
		e.cost += n
		c.useLocked(e.key.subject, 0, n)
	} else {
		e.answer = answer{err: errNotKept}
	}
	c.ageLocked(e)
	r.endLocked()
	c.mu.Unlock()
}

// endLocked notes that the handler, or the last one that forwards, returned.
func (r *run) endLocked() {
	r.over, r.entry.run, r.ins = true, nil, nil
	if r.idle != nil {
		r.idle.Stop()
	}
	if r.detached != nil {
		r.detached.remove(r)
	}
	close(r.done)
}

// leave notes that a caller is no longer there for the answer of a run: lost,
// or because it cancelled its call. When the last one cancels, the handler's
// context ends; one that was lost may come back. in is the caller's call if it
// runs the handler. It reports false if that has returned.
func (c *ReplayCache) leave(r *run, in *inbound, cancelled bool) bool {
	c.mu.Lock()
	if r.over || in != nil && in.keyed.left {
		defer c.mu.Unlock()
		return !r.over
	}
	if in != nil {
		in.keyed.left = true
	}
	r.waiting--
	stop := false
	switch {
	case r.waiting > 0:
	case cancelled:
		stop = true
	case r.idle == nil:
		r.idle = time.AfterFunc(c.o.TTL, func() {
			c.mu.Lock()
			idle := r.waiting == 0
			c.mu.Unlock()
			if idle {
				c.stop(r)
			}
		})
	default:
		r.idle.Reset(c.o.TTL)
	}
	c.mu.Unlock()
	if stop {
		c.stop(r)
	}
	return true
}

// detach notes that the session of a run's first caller was lost. It reports
// false if the run cannot go on without it.
func (c *ReplayCache) detach(r *run, d *detached) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case r.over:
		return false
	case r.detached == nil:
		if !d.add(c, r) {
			return false
		}
		r.detached = d
	}
	return true
}

// forward returns the key of a call that this side only passes on, with what is
// known of where it went. The handler is like that of a keyed call until done.
func (c *ReplayCache) forward(key replayKey, sum [32]byte, age time.Duration, in *inbound) (k *keyState, done func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, known, refused := c.findLocked(key, sum, age)
	switch {
	case refused != nil:
		return nil, nil, refused
	case known && e.passed == nil:
		return nil, nil, Errorf(InvalidArgument, "the idempotency key was used for a call that was not forwarded")
	case !known:
		e.passed = &keyState{id: key.id, born: time.Now().Add(-age), told: true}
		c.ageLocked(e)
	}
	if in == nil {
		return e.passed, func() {}, nil
	}
	r := e.run
	if r == nil {
		r = &run{entry: e, done: make(chan struct{})}
	}
	if err := in.own(r); err != nil {
		return nil, nil, err
	}
	e.run = r
	if !in.keyed.left && !slices.Contains(r.ins, in) {
		r.joinLocked()
	}
	r.ins = append(r.ins, in)
	return e.passed, func() { c.forwarded(r, in) }, nil
}

// forwarded notes that a handler which forwarded a call has its answer.
func (c *ReplayCache) forwarded(r *run, in *inbound) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(r.ins, in)
	r.ins = slices.Delete(r.ins, i, i+1)
	if slices.Contains(r.ins, in) {
		return // it forwards the call twice at once
	}
	if !in.keyed.left {
		r.waiting--
	}
	in.disown()
	if len(r.ins) == 0 {
		r.endLocked()
	}
}

// ageLocked begins the time for which an entry is kept.
func (c *ReplayCache) ageLocked(e *replayEntry) {
	e.expires = time.Now().Add(c.o.TTL)
	c.aging.push(e)
	if c.aging.len() > 1 {
		return
	}
	if c.timer == nil {
		c.timer = time.AfterFunc(c.o.TTL, c.expire)
	} else {
		c.timer.Reset(c.o.TTL)
	}
}

func (c *ReplayCache) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expireLocked(time.Now())
	if c.aging.len() > 0 {
		c.timer.Reset(max(time.Until((*c.aging.front()).expires), 1))
	}
}

// expireLocked forgets the entries whose time is over.
func (c *ReplayCache) expireLocked(now time.Time) {
	for c.aging.len() > 0 && !now.Before((*c.aging.front()).expires) {
		c.dropLocked(c.aging.pop())
	}
}

func (c *ReplayCache) dropLocked(e *replayEntry) {
	delete(c.entries, e.key)
	c.useLocked(e.key.subject, -1, -e.cost)
}

// detached are the runs of a server, or of a dialled connection, whose sessions
// were lost: they go on, because their callers may come back for the answers.
type detached struct {
	most int // for one subject

	mu     sync.Mutex
	runs   map[*run]*ReplayCache
	counts map[string]int
	ended  bool
	idle   chan struct{} // not nil while somebody waits: closed when runs is empty
}

// add reports false if there are too many: the handler's context ends then, as
// that of a call without a key does. Called with ReplayCache.mu held.
func (d *detached) add(c *ReplayCache, r *run) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	subject := r.entry.key.subject
	if d.ended || d.counts[subject] >= d.most {
		return false
	}
	if d.runs == nil {
		d.runs, d.counts = map[*run]*ReplayCache{}, map[string]int{}
	}
	d.runs[r] = c
	d.counts[subject]++
	return true
}

// remove is called with ReplayCache.mu held, too.
func (d *detached) remove(r *run) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.runs, r)
	subject := r.entry.key.subject
	if d.counts[subject]--; d.counts[subject] == 0 {
		delete(d.counts, subject)
	}
	if len(d.runs) == 0 && d.idle != nil {
		close(d.idle)
		d.idle = nil
	}
}

// end waits for the runs, and ends the contexts of the rest when ctx ends. It
// reports whether there were none.
func (d *detached) end(ctx context.Context) (all bool) {
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
	d.stop()
	return all
}

// revoke ends the contexts of a subject's runs.
func (d *detached) revoke(subject string) {
	d.mu.Lock()
	runs := maps.Clone(d.runs)
	maps.DeleteFunc(runs, func(r *run, _ *ReplayCache) bool { return r.entry.key.subject != subject })
	d.mu.Unlock()
	for r, c := range runs {
		c.stop(r)
	}
}

// stop ends the contexts of all.
func (d *detached) stop() {
	d.mu.Lock()
	d.ended = true
	all := maps.Clone(d.runs)
	d.mu.Unlock()
	for r, c := range all {
		c.stop(r)
	}
}
