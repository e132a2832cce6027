package hub

import (
	"math"
	"sync"
	"sync/atomic"

	"github.com/typedrpc/typedrpc/internal/flow"
)

// What waits for subscribers is counted with what it costs: a record for each
// message that waits for one, and the message itself once, however many it waits
// for. It is paid for by one of those who hold it: the first of them, and when
// that one has sent or dropped it, the next.

// recordCost is what one message takes in a subscriber's queue, and in the list
// of those who hold the message.
const recordCost = flow.MessageOverhead

// bodyCost is what a message takes beside its bytes.
const bodyCost = 256

// holder is one queue of a subscriber. It outlives the subscriber where others
// still hold what it held, so it is small.
type holder struct {
	account *account
	// oldest is the number of the first message that it still holds, of those
	// that it held: it lets go of them in their order.
	oldest atomic.Uint64
}

// holding is who holds an encoding.
type holding struct {
	mu      sync.Mutex // inside of a room's and a subscriber's
	holders []*holder
	payer   int // in holders: who pays. Those before it have let go
}

// hold notes that h holds e.
func (e *encoding) hold(h *holder) {
	w := &e.holding
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holders = append(w.holders, h)
	if len(w.holders) == 1 {
		h.account.server.Force(e.cost())
	}
}

// letGo notes that h holds e no more.
func (e *encoding) letGo(h *holder) {
	h.oldest.Store(max(h.oldest.Load(), e.number+1))
	w := &e.holding
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.payer == len(w.holders) || w.holders[w.payer] != h {
		return
	}
	h.account.server.Give(e.cost())
	for {
		w.holders[w.payer] = nil
		if w.payer++; w.payer == len(w.holders) {
			w.holders, w.payer = nil, 0
			return
		}
		if next := w.holders[w.payer]; next.oldest.Load() <= e.number {
			next.account.server.Force(e.cost())
			return
		}
	}
}

func (e *encoding) cost() int { return e.body.Len() + bodyCost }

// leave says that h will let go of all that it holds, and of nothing later.
func (h *holder) leave() { h.oldest.Store(math.MaxUint64) }

// left is called when it has. Whoever still sees h sees that it holds nothing, and
// asks for no account; and the account's connection can be collected.
func (h *holder) left() { h.account = nil }
