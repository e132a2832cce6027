package replay

import (
	"crypto/rand"
	"encoding/hex"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Metadata of keyed calls (PROTOCOL.md section 2.7).
const (
	MetaKey     = "idempotency-key"     // 32 hexadecimal digits
	MetaAge     = wire.MetaAge          // milliseconds
	MetaOutcome = "idempotency-outcome" // of an answer
)

// Values of metadata.
const (
	OutcomeUnknown = "unknown"
	AgeDigits      = 16 // of the longest age
)

// Key is what the copies of a caller's idempotency key share: what it remembers of
// where it was used. It is safe for concurrent use.
type Key struct {
	id [16]byte

	mu      sync.Mutex
	born    time.Time // zero: nobody knows it yet
	cache   string    // where its uses went, "": to a peer without one
	uses    int       // attempts under way, that ran, or may have run
	told    bool      // it is known elsewhere too: born stays
	unbound bool      // parsed, and it does not say where it was used
}

// NewKey makes a key of 128 random bits.
func NewKey() *Key {
	k := new(Key)
	rand.Read(k.id[:]) // never fails
	return k
}

// skew is how far in the future a key of another process may have been made.
const skew = 10 * time.Second

// maxMillis bounds the times that keys tell, in milliseconds.
const maxMillis = 1<<53 - 1

// String is the key as ParseKey reads it: its bits, when it was made, and the
// cache that it was sent to.
func (k *Key) String() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.born.IsZero() {
		k.born = time.Now()
	}
	k.told = true
	text := "k1." + hex.EncodeToString(k.id[:]) + "." + strconv.FormatInt(k.born.UnixMilli(), 10) + "."
	if k.uses > 0 && k.cache != "" {
		k.uses++ // for good: it may be used elsewhere
		text += k.cache
	}
	return text
}

// ID is the key in the metadata of its calls.
func (k *Key) ID() string { return hex.EncodeToString(k.id[:]) }

// ParseKey reads what String wrote, maybe in another process.
func ParseKey(text string) (*Key, *status.Error) {
	bad := status.Errorf(status.InvalidArgument, "not an idempotency key that String wrote")
	parts := strings.Split(text, ".")
	if len(parts) != 4 || parts[0] != "k1" || CheckCache(parts[3]) != parts[3] {
		return nil, bad
	}
	id, ok := ParseID(parts[1])
	ms, err := strconv.ParseUint(parts[2], 10, 53)
	if !ok || err != nil {
		return nil, bad
	}
	s := &Key{id: id, born: time.UnixMilli(int64(ms)), told: true, cache: parts[3]}
	if s.unbound = s.cache == ""; !s.unbound {
		s.uses = 1
	}
	return s, nil
}

// Bind notes the cache named as the one that the key is used with.
func (k *Key) Bind(cache string) *status.Error {
	if cache == "" {
		return status.Errorf(status.FailedPrecondition, "the peer remembers no idempotency keys")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.uses > 0 && k.cache != cache {
		return status.Errorf(status.FailedPrecondition, "the key was used, or bound, with another server's cache")
	}
	k.cache, k.unbound = cache, false
	k.uses++
	return nil
}

// Claim notes that an attempt is about to go to the cache named. repeat says
// that an earlier attempt of the same call may have run.
func (k *Key) Claim(cache string, repeat bool) *status.Error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.unbound:
		return status.Errorf(status.FailedPrecondition, "the key was written down before it was used or bound: where it was used since is not known").With(status.MayHaveRun)
	case k.uses > 0 && (k.cache != cache || cache == ""):
		code := status.FailedPrecondition
		if repeat {
			code = status.Unavailable
		}
		return status.Errorf(code, "the call may have run, and the peer's idempotency cache is not the one that would know: the peer was started again, or is another one").With(status.MayHaveRun)
	case !k.born.IsZero() && age(k.born, time.Now()) < -skew:
		return status.Errorf(status.FailedPrecondition, "the key is from the future: the clocks differ").With(status.MayHaveRun)
	}
	k.cache = cache
	k.uses++
	return nil
}

// Release takes back an attempt that did not run.
func (k *Key) Release() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.uses--; k.uses == 0 && !k.told {
		k.born = time.Time{}
	}
}

// Remembered reports whether a repeat is safe, as long as it goes to the same
// cache, which claim sees to.
func (k *Key) Remembered() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.uses > 0 && k.cache != ""
}

// age is what the clock that went further says: the monotonic one stands still
// in a machine that sleeps, the wall clock can be set back.
func age(born, now time.Time) time.Duration {
	return max(now.Sub(born), now.Round(0).Sub(born.Round(0)))
}

// Stamp returns meta with the key and its age now. meta has them already, and
// is not changed: an earlier attempt may still be being written.
func (k *Key) Stamp(meta map[string]string) map[string]string {
	k.mu.Lock()
	now := time.Now()
	if k.born.IsZero() {
		k.born = now
	}
	old := age(k.born, now)
	k.mu.Unlock()
	meta = maps.Clone(meta) // an earlier attempt may still be being written
	meta[MetaAge] = strconv.FormatUint(min(flow.Millis(old), maxMillis), 10)
	return meta
}

// CheckCache returns the identity of a cache, "" if it is none.
func CheckCache(id string) string {
	if len(id) > 64 || strings.ContainsFunc(id, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		return ""
	}
	return id
}

// ParseID reads a key's bits out of metadata.
func ParseID(text string) (id [16]byte, ok bool) {
	if len(text) != 2*len(id) {
		return id, false
	}
	_, err := hex.Decode(id[:], []byte(text))
	return id, err == nil
}
