package engine

import (
	"runtime"
	"time"

	"github.com/typedrpc/typedrpc/internal/status"
)

// Replies are bought before they are made: a handler begins when there is room
// for what it will answer, by what its method answered lately. Otherwise a peer
// that asks and does not read would have a thousand replies made for it at once.
// A handler that takes longer than a turn is waiting for something, perhaps for a
// call that waits here: it counts no more. Room is no promise: what is larger
// than was thought is held all the same, and counted.

// purchases are what the handlers that run may still answer. Under Conn.mu.
type purchases struct {
	turn     uint16
	waited   int32       // turns that a POST has waited for room in the ledger
	bytes    [2]int      // bought in this turn, and in the last one
	promised [2]int      // of them, what the ledger knows of
	unknown  int         // what a method is taken to answer that has not yet; 0: firstGuess
	sizes    replySizes  // what the others did
	timer    *time.Timer // runs while calls are parked for what was bought
}

const (
	// firstGuess is what a method is taken to answer until it has. With default
	// limits thirty of its handlers begin at once.
	firstGuess = 256 << 10
	// promiseFrom is how large a purchase is of which the ledger is told.
	promiseFrom = 16 << 10
	// purchaseTurn is how long a turn takes: a purchase counts for one to two.
	purchaseTurn = 100 * time.Millisecond
)

// replySizes has what the last few methods answered, on average, the last one that
// was added first.
type replySizes []replySize

type replySize struct {
	d    *Decl // nil: of fallbacks
	size int
}

// mostSizes is how many methods are remembered.
const mostSizes = 8

func (r replySizes) find(d *Decl) *replySize {
	for i := range r {
		if r[i].d == d {
			return &r[i]
		}
	}
	return nil
}

func (r *replySizes) note(d *Decl, size int) {
	if k := r.find(d); k != nil {
		k.size += (size - k.size) / 4
		return
	}
	if len(*r) < mostSizes {
		*r = append(*r, replySize{})
	}
	copy((*r)[1:], *r)
	(*r)[0] = replySize{d, size}
}

func (p *purchases) sum() int { return p.bytes[0] + p.bytes[1] }

// turnLocked begins another turn. What was bought before the last one counts no
// more; nor is a method that takes so long guessed to answer much.
func (c *Conn) turnLocked() {
	p := &c.bought
	p.turn++
	old := p.turn & 1
	if p.bytes[old] > 0 {
		p.unknown = max(p.guess()/8, replyOverhead)
	}
	c.account.Promise(-p.promised[old])
	p.bytes[old], p.promised[old] = 0, 0
}

func (p *purchases) guess() int {
	if p.unknown == 0 {
		return firstGuess
	}
	return p.unknown
}

// priceLocked is what a call is taken to answer.
func (c *Conn) priceLocked(in *Inbound) int {
	if in.Kind != KindCall && in.Kind != KindClientStream {
		return 0
	}
	d := in.Record.Decl()
	size := 0
	if k := c.bought.sizes.find(d); k != nil {
		size = k.size
	} else {
		size = min(c.bought.guess(), c.peer.most())
		if c.config.Posted { // it is alone: nothing was, nor will be, learned
			size = c.peer.most()
		}
		if d != nil {
			size = d.Limit(size)
		}
		if c.config.Posted {
			size *= postCopies
		}
	}
	return size + replyOverhead
}

// affordsLocked reports whether there is room for what a call will answer, beside
// the replies that the peer has not read. Its calls begin when it has: it may be
// busy asking, so they are not refused. What comes while it has calls of ours may
// be what those wait for.
func (c *Conn) affordsLocked(in *Inbound) bool {
	most := c.config.Limits.MaxBuffered
	unread := c.queued + c.unsent
	if c.slots > 0 && in.array == nil {
		return c.account.Fits(unread, most)
	}
	sum, price := unread+c.bought.sum(), c.priceLocked(in)
	if sum == 0 {
		return !c.config.Posted || c.account.Room(price)
	}
	return c.account.Fits(sum+price, most)
}

// postCopies is how often the answer to a POST is there while it becomes one: encoded, in its
// message, and as what net/http writes.
const postCopies = 3

// Encodes promises the answer of a POST's call, of most bytes at most, until it is encoded: what was
// bought for it may be forgotten while it waits for its turn, and others would begin for whose
// answers there is no room then.
func (c *Conn) Encodes(most int) (done func()) {
	n := c.peer.most()
	if most > 0 {
		n = min(n, most)
	}
	if n *= postCopies; !c.config.Posted {
		n = 0
	}
	c.account.Promise(n)
	return func() { c.account.Promise(-n) }
}

// postPatience is how many turns a POST waits at most for room in the ledger. Then its
// calls are refused: of any number of POSTs each could have one reply made.
const postPatience = 20

func (c *Conn) buyLocked(in *Inbound) {
	p := &c.bought
	in.price, in.turn = int32(c.priceLocked(in)), p.turn
	p.bytes[p.turn&1] += int(in.price)
	if in.price >= promiseFrom {
		p.promised[p.turn&1] += int(in.price)
		c.account.Promise(int(in.price))
		c.ageLocked()
	}
}

func (c *Conn) unbuyLocked(in *Inbound) {
	p, b := &c.bought, in.turn&1
	if p.turn-in.turn < 2 { // a turn's number comes again, after hours
		p.bytes[b] = max(p.bytes[b]-int(in.price), 0)
		if in.price >= promiseFrom && p.promised[b] >= int(in.price) {
			p.promised[b] -= int(in.price)
			c.account.Promise(-int(in.price))
		}
	}
	in.price = 0
}

// soldLocked notes what a call did answer.
func (c *Conn) soldLocked(in *Inbound, n int) {
	c.bought.sizes.note(in.Record.Decl(), n)
}

// unparkLocked begins the calls that there is room for by now, in their order:
// beyond what is a burst one at a time.
func (c *Conn) unparkLocked() {
	more := c.unparkSomeLocked(func() bool { return c.running-c.atRest <= c.burst.most() })
	if more && !c.unparks {
		c.unparks = true
		go c.unparkInTurns()
	}
}

// unparkInTurns begins calls that there is room for while others have their turns,
// until there are none.
func (c *Conn) unparkInTurns() {
	for {
		c.burst.giveWay()
		c.mu.Lock()
		n := 0
		c.unparks = c.unparkSomeLocked(func() bool { n++; return n == 1 })
		more := c.unparks
		c.unlockAndWake()
		if !more {
			return
		}
	}
}

// unparkSomeLocked begins calls for as long as may says so. It reports whether
// there is room for more.
func (c *Conn) unparkSomeLocked(may func() bool) (more bool) {
	for len(c.parked) > 0 {
		in := c.parked[0]
		begins, refusal := c.fateLocked(in)
		if !begins && refusal == nil {
			break
		}
		if more = !may(); more {
			break
		}
		c.parked = c.parked[1:] // before a refusal, which gives room back and comes here again
		if !begins {
			c.refuseParkedLocked(in, refusal)
			continue
		}
		c.startLocked(in)
		go in.begin()
	}
	if len(c.parked) == 0 {
		c.parked = nil
		return false
	}
	c.ageLocked()
	return more
}

// lackingLocked is what the first call that waits for room lacks in the queue, 0 if it waits for something else.
// Items and notifications leave it as much: streams that send more than the socket takes would keep the queue
// full for ever.
func (c *Conn) lackingLocked() int {
	if len(c.parked) == 0 || c.config.Posted {
		return 0
	}
	n := c.unsent + c.bought.sum() + c.priceLocked(c.parked[0])
	if n > c.config.Limits.MaxBuffered {
		return 0
	}
	return n
}

// ageLocked sees that a turn ends while somebody waits for it.
func (c *Conn) ageLocked() {
	if p := &c.bought; p.timer == nil && (p.sum() > 0 || c.config.Posted && len(c.parked) > 0) {
		p.timer = time.AfterFunc(purchaseTurn, c.purchasesAged)
	}
}

// purchasesAged ends a turn, on its timer, unless the machine is so busy that who
// has bought may not have come to it.
func (c *Conn) purchasesAged() {
	began := time.Now()
	runtime.Gosched()
	busy := time.Since(began) > purchaseTurn/20
	c.mu.Lock()
	defer c.unlockAndWake()
	c.bought.timer = nil
	if c.bought.sum() == 0 {
		c.bought.waited++
	}
	if !busy {
		c.turnLocked()
	}
	c.unparkLocked()
	if c.bought.promised[0]+c.bought.promised[1] > 0 {
		c.ageLocked()
	}
}

// fateLocked says what becomes of a parked call: it begins, or is refused, or waits on.
func (c *Conn) fateLocked(in *Inbound) (begins bool, refusal *status.Error) {
	switch {
	case c.affordsLocked(in):
		return true, nil
	case c.config.Posted && c.bought.sum()+c.queued+c.unsent == 0: // it waits for others
		if c.bought.waited >= postPatience {
			refusal = status.Errorf(status.ResourceExhausted, "the server is nearly full: for two seconds it had no room for the answer; try again later")
		}
		return false, refusal
	case !c.stuckLocked(in):
		return false, nil
	case c.bought.sizes.find(in.Record.Decl()) == nil:
		return true, nil
	}
	return false, status.Errorf(status.ResourceExhausted, "the answers to this batch are too large together; send its requests one by one")
}

// stuckLocked reports that a call of an array will never have room: all that is
// held are answers of arrays, which leave with their last ones.
func (c *Conn) stuckLocked(in *Inbound) bool {
	return in.array != nil && c.bought.sum() == 0 && c.unsent == 0 && c.queue.len == 0
}

func (c *Conn) refuseParkedLocked(in *Inbound, refusal *status.Error) {
	in.detachLocked()
	c.vacateInLocked(in)
	in.body.Release()
	c.refuseLocked(in, refusal)
	in.cancel() // whoever feeds its stream waits for no handler
}
