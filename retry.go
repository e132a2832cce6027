package typedrpc

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/status"
)

// Backoff is how long to wait before trying again: a random time between zero
// and a bound that grows from Min to Max by Factor. The jitter is full, also
// at the cap, so that clients which lost the same server do not come back
// together; Least takes from it, and Off leaves none. Zero fields are the defaults.
type Backoff struct {
	Min    time.Duration // bound of the first delay. Default 100 ms, or Least if that is more.
	Max    time.Duration // largest bound, at least Min. Default 30 s, or Min if that is more.
	Factor float64       // growth of the bound, at least 1. Default 2.
	Least  time.Duration // every delay is at least this long, and random above it; at most Min. Default 0.
	Off    bool          // no backoff: every delay is Least; Min, Max and Factor must be zero
}

// RetryPolicy says which failed calls are made again. Whatever it says, a call
// is only repeated if its error says that it was NotSent, or if its method is
// Idempotent or Keyed. (A Keyed call whose handler has answered is answered the same
// again, errors too.) The zero value is the default policy.
//
// A policy may be given to a method (the trait Retry), to a connection
// (DialOptions.OutgoingRetry, Server.OutgoingRetry) and to a call (CallOptions.Retry); the
// call's goes before the method's and the method's before the connection's.
// Without any, calls are not repeated, but for those that a lost session interrupts,
// see Dial. One with MaxAttempts 1 repeats nothing.
type RetryPolicy struct {
	// MaxAttempts is how often a call is made at most, the first included.
	// Default 4.
	MaxAttempts int
	// Backoff is the wait between attempts. A longer RetryAfter of the peer is
	// respected. A call whose deadline would pass during the wait fails at once.
	Backoff Backoff
	// Codes are the errors that are worth another attempt. Default
	// Unavailable. gRPC's numbers from a plain JSON-RPC peer are not meant: what it
	// means by them is its own business.
	Codes []Code
	// Budget stops retry storms; share one to bound many policies together.
	// Default: one for each policy; the policies of CallOptions without one
	// share one for each connection, or Pick.
	Budget *RetryBudget
	// OnRetry is called before each attempt but the first: how many have failed,
	// and the last one's error. ctx is the call's. It runs on the library's
	// goroutine, for several calls at once, and holds up the attempt.
	OnRetry func(ctx context.Context, method string, failed int, err error)
}

const defaultAttempts = 4

func (p RetryPolicy) check() error {
	switch {
	case p.MaxAttempts < 0:
		return errors.New("RetryPolicy: MaxAttempts must not be negative")
	case slices.Contains(p.Codes, OK):
		return errors.New("RetryPolicy: Codes has OK, which is no error")
	case p.Budget != nil && math.IsNaN(p.Budget.Ratio):
		return errors.New("RetryPolicy: Budget.Ratio is no number")
	}
	return flow.Backoff(p.Backoff).Check()
}

// ready returns p with its defaults.
func (p RetryPolicy) ready() *RetryPolicy {
	if p.MaxAttempts == 0 {
		p.MaxAttempts = defaultAttempts
	}
	if p.Codes == nil {
		p.Codes = []Code{Unavailable}
	}
	if p.Budget == nil {
		p.Budget = newBudget()
	}
	return &p
}

// next decides about a call that failed with err for the attempt-th time and
// returns how long to wait.
func (p *RetryPolicy) next(err *status.Error, attempt int, idempotent bool) (time.Duration, bool) {
	switch {
	case p == nil || attempt >= p.MaxAttempts:
		return 0, false
	case err.Outcome != status.NotSent && !idempotent:
		return 0, false
	case !slices.Contains(p.Codes, Code(err.Code)):
		return 0, false
	case !p.Budget.spend():
		return 0, false
	}
	return max(flow.Backoff(p.Backoff).Delay(attempt), err.RetryAfter), true
}

// RetryBudget allows so many retries for so many calls: each call earns a
// fraction of a retry, up to a bound. When a server fails for everybody, all
// of its clients' retries together then stay a small part of the load. Its zero
// value works. It starts full, is safe for concurrent use, and its fields must not
// be changed after the first call; do not copy it.
type RetryBudget struct {
	// Ratio is how much of a retry each call earns. Negative: nothing. Default 0.1.
	Ratio float64
	// Burst is how many retries are saved up at most. Negative: none. Default 10.
	Burst int

	mu    sync.Mutex
	spent float64 // of Burst, and not earned back
}

// useless returns a code of the policy that comes from handlers alone, so that it
// says nothing of calls that may not be made again; OK if there is none.
func (p *RetryPolicy) useless() Code {
	for _, c := range p.Codes {
		switch c {
		case Canceled, DeadlineExceeded, InvalidArgument, ResourceExhausted, FailedPrecondition, Unimplemented, Unavailable:
		default:
			return c
		}
	}
	return OK
}

func newBudget() *RetryBudget { return new(RetryBudget) }

func (b *RetryBudget) earn() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent = max(0, b.spent-max(0, cmp.Or(b.Ratio, 0.1)))
}

// unmade gives back what a retry took that is not made.
func (b *RetryBudget) unmade() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent = max(0, b.spent-1)
}

func (b *RetryBudget) spend() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if float64(cmp.Or(b.Burst, 10))-b.spent < 1 {
		return false
	}
	b.spent++
	return true
}
