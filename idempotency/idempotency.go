// Package idempotency has the keys of typedrpc.Keyed methods' calls, and the cache of their
// answers, by which a handler runs once for each key. Most programs need neither: a connection
// makes a key for every call of such a method, and a server has a cache of its own. A program
// makes a [Key] that repeats a call itself, after it was started again for example, and a
// [Cache] that several servers share, or that has other bounds.
package idempotency

import (
	"errors"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/replay"
	"github.com/typedrpc/typedrpc/internal/seam"
)

// What the package of the connections finds in keys and caches, see package seam.
func init() {
	seam.KeyIn = func(key any) *replay.Key { return key.(Key).s }
	seam.CacheIn = func(cache any, none replay.Options) (*replay.Cache, error) { return cache.(*Cache).open(none) }
}

// Key is an idempotency key, made by NewKey or ParseKey, for calls of Keyed
// methods that a program repeats itself: give it to each of them, in
// CallOptions.Key, with the same request.
//
// It remembers how old it is, and which Cache it was sent to, or bound. A call with it that
// would go to another one, because the server was started again, fails with
// FailedPrecondition, MayHaveRun, and does not leave: also the first one behind Bind, since
// the key may have been written down and used elsewhere. (A call that was in flight then
// fails with Unavailable, see typedrpc.Keyed.)
//
// Copies of a Key are the same key. It is safe for concurrent use. The zero Key
// is none.
type Key struct{ s *replay.Key }

// NewKey makes a key of 128 random bits.
func NewKey() Key { return Key{replay.NewKey()} }

// String is the key as ParseKey reads it: its bits, when it was made, and the
// cache that it was sent to. A program that writes a key down before its first
// call must Bind it before that, see typedrpc.Conn.Bind. String of the zero Key is "".
func (k Key) String() string {
	if k.s == nil {
		return ""
	}
	return k.s.String()
}

// ParseKey reads what String wrote, maybe in another process; its error is a *typedrpc.Error,
// InvalidArgument, also for "". The key's age is told
// by the wall clock then, so the clocks of processes that share keys must agree
// within a tenth of the cache's TTL. One that was written before it was used or
// bound does not say where it was used, so calls with it fail with
// FailedPrecondition until it is bound.
func ParseKey(text string) (Key, error) {
	s, err := replay.ParseKey(text)
	switch {
	case err == nil:
		return Key{s}, nil
	case seam.Lift == nil: // a program without package typedrpc, which has no codes
		return Key{}, err
	}
	return Key{}, seam.Lift(err)
}

// Cache remembers the answers to keyed calls, see typedrpc.Keyed. It forgets none
// before its TTL is over: when it is full of younger ones, new keyed calls are
// refused before they run, with ResourceExhausted, NotSent. The handlers'
// context of a call whose caller was lost ends when nobody came back for the
// answer for a TTL.
//
// Each cache has an identity, which callers learn in the handshake: a call that
// may have run under one is not sent again to another. Servers of one process
// may share a cache, and one that takes the place of another should. Its zero
// value works. A Cache is safe for concurrent use; its fields must not be
// changed once a Server or a connection has it, and it must not be copied.
type Cache struct {
	// TTL is how long an answer is kept, at least. A repeat whose key is four
	// fifths as old, or older, does not run if the key is not known. The last
	// fifth is for what the ages that callers tell leave out: the time on the
	// way, and the difference of the clocks. Default 10 min.
	TTL time.Duration
	// MaxEntries is how many keys are remembered at once, so that MaxEntries for
	// each TTL is the rate of keyed calls that can be served without an end:
	// with the defaults 436 a second. Default 262,144.
	MaxEntries int
	// MaxBytes is how many bytes the answers may have together, each counted
	// with 512 more. Default 128 MiB; memory is used as it is needed.
	MaxBytes int64
	// Share is the part of MaxEntries and of MaxBytes that one authenticated
	// subject may use, so that none can keep the others from being served.
	// Default 0.25.
	Share float64

	once  sync.Once
	cache *replay.Cache
	fault error
}

// open returns the cache below, which it makes at first. Of a nil one those are
// the bounds.
func (c *Cache) open(none replay.Options) (*replay.Cache, error) {
	if c == nil {
		return replay.New(none), nil
	}
	c.once.Do(func() {
		if c.TTL < 0 || c.MaxEntries < 0 || c.MaxBytes < 0 || !(c.Share >= 0 && c.Share <= 1) {
			c.fault = errors.New("typedrpc: idempotency.Cache: TTL, MaxEntries and MaxBytes must not be negative, and Share must be between 0 and 1")
			return
		}
		c.cache = replay.New(replay.Options{TTL: c.TTL, Entries: c.MaxEntries, Bytes: c.MaxBytes, Share: c.Share})
	})
	return c.cache, c.fault
}
