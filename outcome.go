package typedrpc

import "github.com/typedrpc/typedrpc/internal/status"

// Outcome says how far a failed call got, which decides whether it is safe to
// make it again. What nobody knows, the zero Outcome, is not safe.
type Outcome uint8

const (
	// MayHaveRun: the call left and no answer came, or nobody knows. Only an
	// Idempotent method is safe to call again, or a Keyed one with the same Key.
	MayHaveRun Outcome = iota
	// NotSent: no handler saw the call. It never left, or the peer refused
	// it before running anything. Making it again is always safe.
	NotSent
	// Answered: the peer took the call and this is its answer: the handler's, an
	// interceptor's, or that the request cannot be read.
	Answered
)

// String is the outcome in words, as "may have run".
func (o Outcome) String() string { return o.lower().String() }

// outcomes are those of the layers below, where an error is NotSent until it is
// said that it is not.
var outcomes = [...]status.Outcome{MayHaveRun: status.MayHaveRun, NotSent: status.NotSent, Answered: status.Answered}

func (o Outcome) lower() status.Outcome {
	if int(o) < len(outcomes) {
		return outcomes[o]
	}
	return status.MayHaveRun
}

// outcomeOf is o as programs see it.
func outcomeOf(o status.Outcome) Outcome {
	switch o {
	case status.NotSent:
		return NotSent
	case status.Answered:
		return Answered
	}
	return MayHaveRun
}

// OutcomeOf returns the outcome of the *Error that err wraps; of several that are
// joined the one with which calling again is least safe: MayHaveRun before Answered
// before NotSent. It is Answered for nil, and MayHaveRun for every other error: nobody
// knows what came before it.
func OutcomeOf(err error) Outcome {
	if err == nil {
		return Answered
	}
	o, _ := leastSafe(err)
	return o
}

// leastSafe looks for *Errors in the tree of err, as errors.As does, but in all of its
// branches.
func leastSafe(err error) (o Outcome, found bool) {
	for {
		var as *Error
		if e, ok := err.(interface{ As(any) bool }); ok && e.As(&as) {
			err = as
		}
		switch e := err.(type) {
		case *Error:
			if e == nil {
				return MayHaveRun, true
			}
			return e.Outcome, true
		case interface{ Unwrap() error }:
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			safety := [...]int{MayHaveRun: 0, Answered: 1, NotSent: 2}
			for _, branch := range e.Unwrap() {
				switch b, ok := leastSafe(branch); {
				case ok && b > Answered:
					return MayHaveRun, true // a number that is none
				case ok && (!found || safety[b] < safety[o]):
					o, found = b, true
				}
			}
			return o, found
		default: // nil, too
			return MayHaveRun, false
		}
	}
}
