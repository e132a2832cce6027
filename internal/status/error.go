package status

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// Error is an error on its way between the layers. It must not be changed once
// it was handed on: With and Broken copy it. The API makes its own error of it,
// and one of its own of that, at one place each way.
type Error struct {
	Code       Code
	Message    string
	Outcome    Outcome
	Number     int64         // the code that a plain peer said, or is to be told; 0: none
	RetryAfter time.Duration // the peer's hint; 0: none
	Fault      string        // the name of the declared error that it is; "": of none
	Data       []byte        // typed detail, encoded

	Cause error // local only
	Gap   bool  // items of a stream may be missing
	// Face is the API's error that this one was made of; nil: it was made below
	// the API.
	Face error
	// Remote says that it came over the wire, so that Data is in the
	// connection's codec. Foreign says that it is a plain peer's, and Code a number of
	// ours by chance.
	Remote, Foreign bool
	// Last says that it is why a connection or a link ended, and no call's error: how far
	// a call got is not to be read from it.
	Last bool

	seen atomic.Value // what the API made of it
}

// Seen is what the API made of e, nil: nothing yet.
func (e *Error) Seen() any { return e.seen.Load() }

// See notes what the API made of e, and returns what was noted first: programs
// compare errors.
func (e *Error) See(x any) any {
	if e.seen.CompareAndSwap(nil, x) {
		return x
	}
	return e.seen.Load()
}

// clone is a copy that the API has not seen.
func (e *Error) clone() *Error {
	return &Error{
		Code: e.Code, Message: e.Message, Outcome: e.Outcome, Number: e.Number, RetryAfter: e.RetryAfter, Fault: e.Fault, Data: e.Data,
		Cause: e.Cause, Gap: e.Gap, Face: e.Face, Remote: e.Remote, Foreign: e.Foreign,
	}
}

// Error is the code, the message and, for a call that got no answer, how far it
// got.
func (e *Error) Error() string {
	text := e.Code.String()
	if e.Message != "" && e.Message != text { // which says it once
		text += ": " + e.Message
	}
	if e.Outcome == MayHaveRun && !e.Last {
		text += " (may have run)"
	}
	return text
}

// Unwrap returns the local cause, if any.
func (e *Error) Unwrap() error { return e.Cause }

// Errorf makes an Error, NotSent, with a formatted message. %w operands are kept
// as the cause.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Cause: Wrapped(err)}
}

// Wrapped is what an error of fmt.Errorf wraps; nil: nothing. Several errors are
// found in err itself.
func Wrapped(err error) error {
	if _, several := err.(interface{ Unwrap() []error }); several {
		return err
	}
	return errors.Unwrap(err)
}

// With returns a copy of e with another outcome.
func (e *Error) With(o Outcome) *Error {
	x := e.clone()
	x.Outcome = o
	return x
}

// AsLast is e as the reason why a connection or a link ended; nil stays nil.
func (e *Error) AsLast() *Error {
	if e == nil || e.Last {
		return e
	}
	x := e.With(MayHaveRun)
	x.Last = true
	return x
}

// Reached is the error of an operation that got as far as o when e ended its connection.
func (e *Error) Reached(o Outcome) *Error {
	x := e.With(o)
	x.Cause = e // programs find the very one
	return x
}

// Broken returns a copy of e that is a gap.
func (e *Error) Broken() *Error {
	x := e.clone()
	x.Gap, x.Message = true, e.Message+", items may be missing"
	return x
}

// SessionLost is what a stream ends with when its session is lost.
func SessionLost(cause error) *Error {
	e := &Error{Code: Unavailable, Message: "the session was lost", Outcome: MayHaveRun, Cause: cause}
	return e.Broken()
}

// Busy refuses something for which a server has no room.
func Busy(what string) *Error {
	return Errorf(ResourceExhausted, "the server is holding all that it may for its connections; %s more is not taken", what)
}

// Ended is the error of a call that this side gave up: its context ended.
func Ended(ctx context.Context, o Outcome) *Error {
	cause := context.Cause(ctx)
	e := &Error{Code: Canceled, Outcome: o, Cause: cause}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		e.Code = DeadlineExceeded
	}
	if cause != ctx.Err() && cause != nil {
		e.Message = cause.Error()
	}
	return e
}

// FromPeer is the one place where errors arrive: it makes an Error of what a
// frame says. data is copied.
func FromPeer(code int64, text, fault string, retryAfter time.Duration, data []byte, notRun bool) *Error {
	e := &Error{
		Code:       cmp.Or(Code(code), Unknown), // 0 would read as no error at all
		Message:    text,
		Fault:      fault,
		Outcome:    Answered,
		RetryAfter: retryAfter,
		Remote:     true,
	}
	if notRun {
		e.Outcome = NotSent
	}
	if len(data) > 0 {
		e.Data = append([]byte(nil), data...)
	}
	return e
}

// InternalText is all that a stranger learns of an error that its author did
// not mean for strangers.
const InternalText = "internal error"

// MaxText bounds an error's message on the wire.
const MaxText = 8 << 10

// Clip makes the text of an error fit to send: bounded, UTF-8 throughout, and never
// nothing, since many who read it show nothing else: then it is the code in words.
func Clip(code Code, text string) string {
	text = strings.ToValidUTF8(text[:min(len(text), MaxText)], "")
	return cmp.Or(text, code.String())
}
