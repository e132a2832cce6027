package hub

import (
	"time"

	"github.com/typedrpc/typedrpc/internal/engine"
)

// Topic is what a hub knows of a declaration. There is one pointer for each:
// rooms go by it and the key. It is not changed once it is used.
type Topic struct {
	Decl   *engine.Decl
	Policy Policy
	Last   int           // history: messages; 0: no such bound
	Recent time.Duration // history: age; 0: no such bound
}

func (t *Topic) remembers() bool { return t.Last > 0 || t.Recent > 0 }

// Policy says what becomes of a subscriber that is slower than others publish.
type Policy struct {
	Do    Do
	Wait  time.Duration // of WaitAtMost
	Bytes int           // queued for one subscriber; 0: 256 KiB
}

// Do is the kind of a policy.
type Do uint8

// The kinds.
const (
	Disconnect Do = iota // the subscription ends
	DropOldest           // what has waited longest goes
	DropNewest           // what does not fit any more goes
	LatestOnly           // one message waits, the newest
	WaitAtMost           // the publisher waits
)

// slowBytes is the default of what is queued for one subscriber.
const slowBytes = 256 << 10
