package engine

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/typedrpc/typedrpc/internal/replay"
)

// keyed is what an inbound call with a key has beside the others.
type keyed struct {
	arrived time.Time
	none    bool         // there is no key: a Recorder wants to know when it arrived
	gaveUp  atomic.Bool  // CANCEL came
	note    atomic.Value // of the owner's, see Note
	run     *replay.Run  // that the call is running; under Inbound.mu, and so is
	lost    bool         // it is to run nothing any more
	left    bool         // its caller is not there any more; under the cache's lock
}

// arrived looks for a key, and notes when the call came where somebody asks for that.
func (in *Inbound) arrived(meta map[string]string) {
	if _, ok := meta[replay.MetaKey]; ok {
		in.keyed = &keyed{arrived: time.Now()}
	}
	in.timed()
}

// Own makes the call the one whose handler is the run. It fails if its context
// has ended.
func (in *Inbound) Own(r *replay.Run) error {
	if err := in.Err(); err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ended.why() != notEnded || in.keyed.lost {
		return context.Canceled
	}
	in.keyed.run = r
	return nil
}

func (in *Inbound) Disown() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.keyed.run = nil
}

// owned returns the run that the call's handler is, nil if there is none, and
// then there will be none.
func (in *Inbound) owned() *replay.Run {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.keyed.run == nil || in.ended.why() != notEnded {
		in.keyed.lost = true
		return nil
	}
	return in.keyed.run
}

// lose takes the end of the call's session. The handler of a keyed call goes
// on: the caller comes back for the answer.
func (in *Inbound) lose() {
	if in.Keyed() {
		cfg := in.conn.config
		if r := in.owned(); r != nil && cfg.Replays.Detach(r, cfg.Detached) && cfg.Replays.Leave(r, in, false) {
			return
		}
	}
	in.cancel()
}

// giveUp takes a CANCEL. The handler goes on if others wait for its answer.
func (in *Inbound) giveUp() {
	if in.Keyed() {
		in.keyed.gaveUp.Store(true)
		if r := in.owned(); r != nil && in.conn.config.Replays.Leave(r, in, true) {
			return
		}
	}
	in.cancel()
}

// Stop ends the handler's context.
func (in *Inbound) Stop() { in.cancel() }

// Left is under the cache's lock.
func (in *Inbound) Left() *bool { return &in.keyed.left }

// Keyed reports whether the call has an idempotency key.
func (in *Inbound) Keyed() bool { return in.keyed != nil && !in.keyed.none }

// Waited is how long ago a keyed call arrived.
func (in *Inbound) Waited() time.Duration { return time.Since(in.keyed.arrived) }

// Cancelled reports whether the caller of a keyed call took it back.
func (in *Inbound) Cancelled() bool { return in.keyed.gaveUp.Load() }

// Note keeps something of the owner's with a keyed call; Noted returns it, nil:
// nothing was.
func (in *Inbound) Note(v any) { in.keyed.note.Store(v) }

// Noted returns what Note kept.
func (in *Inbound) Noted() any {
	if !in.Keyed() {
		return nil
	}
	return in.keyed.note.Load()
}
