package replay

import (
	"crypto/rand"
	"encoding/hex"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/status"
)

// Options bound a Cache. They are the fields of an idempotency.Cache, whose comment says
// more, in the same order.
type Options struct {
	TTL     time.Duration
	Entries int
	Bytes   int64
	Share   float64
}

func (o Options) withDefaults() Options {
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

// Cache remembers the answers to keyed calls. It forgets none
// before its TTL is over: when it is full of younger ones, new keyed calls are
// refused before they run, with ResourceExhausted, NotSent. The handlers'
// context of a call whose caller was lost ends when nobody came back for the
// answer for a TTL.
//
// Each cache has an identity, which callers learn in the handshake: a call that
// may have run under one is not sent again to another. Servers of one process
// may share a cache, and one that takes the place of another should. A
// Cache is safe for concurrent use.
type Cache struct {
	id string
	o  Options

	mu      sync.Mutex
	entries map[CallKey]*entry
	total   usage
	shares  map[string]*usage // of authenticated subjects
	aging   flow.Ring[*entry] // those that have an answer, oldest first
	timer   *time.Timer       // forgets them; nil while there are none
}

// New makes an empty cache. The options are in range.
func New(o Options) *Cache {
	var bits [16]byte
	rand.Read(bits[:]) // never fails
	return &Cache{id: hex.EncodeToString(bits[:]), o: o.withDefaults()}
}

// ID is the identity of the cache, which callers learn in the handshake.
func (c *Cache) ID() string { return c.id }

// CallKey is a caller's key: another principal's same key is another one.
type CallKey struct {
	Subject string
	ID      [16]byte
}

// entry is what is known of a key. Its fields are under Cache.mu.
type entry struct {
	key     CallKey
	sum     [32]byte // of what was asked
	run     *Run     // not nil while the handler runs, or the call is forwarded
	passed  *Key     // not nil: the call was forwarded
	answer  Answer
	cost    int64
	expires time.Time
}

// overhead is what each entry counts beside its answer.
const overhead = 512

// usage is what entries take.
type usage struct {
	entries int
	bytes   int64
}

// fitsLocked reports whether entries and bytes more are within the bounds.
func (c *Cache) fitsLocked(subject string, entries int, bytes int64) bool {
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

func (c *Cache) useLocked(subject string, entries int, bytes int64) {
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
func (c *Cache) findLocked(key CallKey, sum [32]byte, age time.Duration) (e *entry, known bool, err *status.Error) {
	now := time.Now()
	c.expireLocked(now)
	if e := c.entries[key]; e != nil {
		if e.sum != sum {
			return nil, false, status.Errorf(status.InvalidArgument, "the idempotency key was used for another request")
		}
		return e, true, nil
	}
	if age >= c.o.TTL-c.o.TTL/5 {
		return nil, false, ErrForgotten
	}
	cost := int64(overhead + len(key.Subject))
	if !c.fitsLocked(key.Subject, 1, cost) {
		err := status.Errorf(status.ResourceExhausted, "no more keyed calls are taken for now: their answers could not be kept")
		err.RetryAfter = time.Second
		if c.aging.Len() > 0 {
			err.RetryAfter = max((*c.aging.Front()).expires.Sub(now), time.Millisecond)
		}
		return nil, false, err
	}
	c.useLocked(key.Subject, 1, cost)
	e = &entry{key: key, sum: sum, cost: cost}
	if c.entries == nil {
		c.entries = map[CallKey]*entry{}
	}
	c.entries[key] = e
	return e, false, nil
}

// ErrForgotten refuses a key that may have been known once.
var ErrForgotten = status.Errorf(status.FailedPrecondition, "the idempotency key is too old: whether its call ran is no longer known")

// errNotKept stands for an answer that had no room.
var errNotKept = status.Errorf(status.DataLoss, "the call ran, and its answer was not kept: there was no room for it")

// ageLocked begins the time for which an entry is kept.
func (c *Cache) ageLocked(e *entry) {
	e.expires = time.Now().Add(c.o.TTL)
	c.aging.Push(e)
	if c.aging.Len() > 1 {
		return
	}
	if c.timer == nil {
		c.timer = time.AfterFunc(c.o.TTL, c.expire)
	} else {
		c.timer.Reset(c.o.TTL)
	}
}

func (c *Cache) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expireLocked(time.Now())
	if c.aging.Len() > 0 {
		c.timer.Reset(max(time.Until((*c.aging.Front()).expires), 1))
	}
}

// expireLocked forgets the entries whose time is over.
func (c *Cache) expireLocked(now time.Time) {
	for c.aging.Len() > 0 && !now.Before((*c.aging.Front()).expires) {
		c.dropLocked(c.aging.Pop())
	}
}

func (c *Cache) dropLocked(e *entry) {
	delete(c.entries, e.key)
	c.useLocked(e.key.Subject, -1, -e.cost)
}
