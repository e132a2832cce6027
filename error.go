package typedrpc

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// A Code says what kind of error a call ended with. 1 to 16 are gRPC's codes
// with gRPC's meaning; an application may use any other number above 99 for
// its own. Codes cross the wire unchanged between typedrpc peers. Towards
// JSON-RPC, Unimplemented, InvalidArgument and Internal are the
// specification's -32601, -32602 and -32603, and back (PROTOCOL.md section 7). From a
// plain JSON-RPC peer other numbers are that peer's own, whatever they look like; those
// of Canceled, DeadlineExceeded and Unavailable are Unknown then. Error.Number has them.
//
// A Code is an error: a handler may return it as it is, and errors.Is(err,
// typedrpc.NotFound) works on both sides of a connection.
type Code int64

// The codes of gRPC.
const (
	OK                 Code = 0  // no error: CodeOf(nil). Handlers return nil; OK as an error is Unknown
	Canceled           Code = 1  // the caller gave up
	Unknown            Code = 2  // an error without a better code
	InvalidArgument    Code = 3  // the request makes no sense, whatever the state
	DeadlineExceeded   Code = 4  // the deadline passed first
	NotFound           Code = 5  // what was asked for does not exist
	AlreadyExists      Code = 6  // what was to be created exists
	PermissionDenied   Code = 7  // the caller is known, and may not
	ResourceExhausted  Code = 8  // a limit or quota is spent
	FailedPrecondition Code = 9  // the state does not allow it; do not retry as it is
	Aborted            Code = 10 // a conflict; retry the whole operation
	OutOfRange         Code = 11 // past the end of something
	Unimplemented      Code = 12 // no such method here
	Internal           Code = 13 // a defect
	Unavailable        Code = 14 // no connection, or a server going away; retry
	DataLoss           Code = 15 // unrecoverable loss
	Unauthenticated    Code = 16 // no valid credentials
)

// Error is the code in words, as "not found", or "code 1234" for an application's own. It
// makes a Code an error.
func (c Code) Error() string { return status.Code(c).String() }

// failed is the code of an error: OK would read as none at all.
func (c Code) failed() Code {
	if c == OK {
		return Unknown
	}
	return c
}

// Gap is what the error of a stream is when the stream was broken off and items
// may be missing: errors.Is(err, typedrpc.Gap). That is so when the session that
// a stream had left in was lost, on the caller's side and on the handler's; and
// on the caller's when the peer, which has said that it is going away, ended the
// stream with Unavailable. Such an error is an *Error, Unavailable. It comes
// after the items that had arrived.
//
// All other ends are no gaps, because somebody meant them: the handler's error,
// a deadline, a cancellation, Conn.Close and Conn.Shutdown by this side. Nor is the end of
// a stream that never left. That an error is a Gap does not cross the wire, when
// a handler returns it; its code and its text do.
//
// After a gap only the program, or a declaration that is Restartable, knows
// where to go on.
const Gap = sentinel("items of the stream may be missing")

// sentinel is an error that others are compared with.
type sentinel string

func (s sentinel) Error() string { return string(s) }

// Error is what every failed call returns; a handler may return one to choose
// code, message and data. It must not be changed once it was returned.
type Error struct {
	Code    Code
	Message string // for the peer to read: no secrets
	// Number is the code of JSON-RPC where a plain JSON-RPC peer is the other side: in an
	// error that was received the peer's, whatever Code was made of it; in a handler's what
	// such a caller is told instead of Code's number. 0 is none. It goes with the error from
	// one connection to another, through typedrpc peers too, so that a proxy hands it on.
	Number int64
	// Outcome is set on the caller's side and ignored in a handler's error.
	Outcome Outcome
	// RetryAfter is the callee's hint when to try again; 0 is none. Sent in
	// whole milliseconds.
	RetryAfter time.Duration
	// Data is typed detail in the connection's codec, see Fault; nil is none.
	Data Raw

	told  bool   // Outcome was set by this package, and is not only the zero one
	cause error  // local only; never crosses the wire
	gap   bool   // as cause: it is a Gap
	name  string // of the Fault, "": of none
	// fault is data that is encoded when the connection's codec is known.
	fault any
}

// Errorf makes an *Error with a formatted message. Operands of %w are kept as the
// cause for errors.Is and errors.As on this side; they do not cross the wire,
// but the text does.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), cause: status.Wrapped(err)}
}

// Error is the code, the message and, for a call that got no answer, how far it
// got.
func (e *Error) Error() string {
	if e == nil {
		return "an *Error that is nil"
	}
	text := e.Code.failed().Error()
	if e.Message != "" && e.Message != text { // as that of a Code that was returned as it is
		text += ": " + e.Message
	}
	if e.told && e.Outcome == MayHaveRun {
		text += " (may have run)"
	}
	return text
}

// Is reports that e has the target's code: a Code, context.Canceled or
// context.DeadlineExceeded; or that it is a Gap. A peer's "canceled" and our own
// are told apart by Outcome: Answered is the peer's.
func (e *Error) Is(target error) bool {
	if e == nil {
		return false
	}
	switch target {
	case Gap:
		return e.gap
	case context.Canceled:
		return e.Code == Canceled
	case context.DeadlineExceeded:
		return e.Code == DeadlineExceeded
	}
	c, ok := target.(Code)
	return ok && c == e.Code
}

// Unwrap returns the local cause, if any.
func (e *Error) Unwrap() error {
	if e == nil {
		return nil
	}
	return e.cause
}

// errorIn is the first *Error that err is, or wraps, nil: there is none. One that is nil
// in an error says nothing, and is none.
func errorIn(err error) *Error {
	var e *Error
	if !errors.As(err, &e) || e != nil {
		return e
	}
	switch x := err.(type) { // there may be others behind it
	case interface{ Unwrap() error }:
		return errorIn(x.Unwrap())
	case interface{ Unwrap() []error }:
		for _, branch := range x.Unwrap() {
			if e := errorIn(branch); e != nil {
				return e
			}
		}
	}
	return nil
}

// errorsIn ranges over all that err is, or wraps: joined ones, and causes of causes.
func errorsIn(err error) iter.Seq[*Error] {
	return func(yield func(*Error) bool) { eachError(err, yield) }
}

func eachError(err error, yield func(*Error) bool) bool {
	if e, ok := err.(*Error); ok && (e == nil || !yield(e)) {
		return e == nil
	}
	switch x := err.(type) {
	case *reason:
		for _, e := range x.why {
			if !eachError(e, yield) {
				return false
			}
		}
		return eachError(x.cause, yield)
	case interface{ Unwrap() error }:
		return eachError(x.Unwrap(), yield)
	case interface{ Unwrap() []error }:
		for _, branch := range x.Unwrap() {
			if !eachError(branch, yield) {
				return false
			}
		}
	}
	return true
}

// CodeOf returns the code of the first *Error, or else the first Code, that err wraps; OK for
// nil, Canceled and DeadlineExceeded for the context's errors, and Internal for all
// others, an *Error that is nil among them: that is what the caller of a handler sees
// that returns one. An error whose code is OK is Unknown.
func CodeOf(err error) Code {
	c, _ := codeIn(err)
	return c
}

// codeIn is CodeOf, and reports whether err says it itself.
func codeIn(err error) (Code, bool) {
	var c Code
	e := errorIn(err)
	switch {
	case err == nil:
		return OK, true
	case e != nil:
		return e.Code.failed(), true
	case errors.As(err, &c):
		return c.failed(), true
	case errors.Is(err, context.Canceled):
		return Canceled, true
	case errors.Is(err, context.DeadlineExceeded):
		return DeadlineExceeded, true
	}
	return Internal, false
}

// toWire is the one place where errors leave: it turns what a handler returned
// into the frame that answers the call. What of it stays here and belongs into the log
// is hidden.
func toWire(ctx context.Context, err error, codec Codec, mapper func(context.Context, error) *Error) (f wire.Frame, hidden error) {
	if below, ok := err.(*status.Error); ok { // the engine's own
		err = up(below, codec)
	}
	e := tellable(err)
	if e == nil && mapper != nil {
		e = mapper(ctx, err)
	}
	if e == nil {
		hidden, e = err, errHidden
	}
	code, text := e.Code.failed(), e.Message
	if r, ok := e.cause.(*reason); ok {
		text = r.said
	}
	f = wire.Frame{Type: wire.Fail, Code: int64(code), Message: status.Clip(status.Code(code), text), Number: e.Number, Fault: e.name, RetryAfter: flow.Millis(e.RetryAfter), Payload: e.Data}
	if enc, ok := e.fault.(faultEncoder); ok && e.Data == nil {
		data, err := enc.encode(codec)
		if err != nil {
			hidden = fmt.Errorf("cannot encode the data of the fault %q: %w", e.name, err)
			return wire.Frame{Type: wire.Fail, Code: int64(Internal), Message: status.InternalText}, hidden
		}
		f.Payload = data
	}
	return f, hidden
}

// errHidden is what a peer is told of an error that is this side's alone.
var errHidden = &Error{Code: Internal, Message: status.InternalText}

// tellable is what of err a peer may be told, nil: nothing, since it is foreign.
func tellable(err error) *Error {
	var c Code
	switch e := errorIn(err); {
	case e != nil:
		return e
	case errors.As(err, &c):
		return &Error{Code: c.failed(), Message: c.failed().Error()}
	case errors.Is(err, context.Canceled):
		return &Error{Code: Canceled, Message: "canceled"}
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Code: DeadlineExceeded, Message: "deadline exceeded"}
	}
	return nil
}

// broadcastError is one connection's of those that a Broadcast joins.
type broadcastError struct {
	whose string
	err   error
}

func (e *broadcastError) Error() string { return e.whose + ": " + e.err.Error() }
func (e *broadcastError) Unwrap() error { return e.err }

// errorOf is err of c, which may be nil, at that place among those that a Broadcast was
// given. nil stays nil.
func errorOf(c *Conn, place int, err error) error {
	if err == nil {
		return nil
	}
	whose := fmt.Sprintf("connection %d", place)
	if c != nil {
		switch subject, addr := c.Identity().Subject, c.RemoteAddr(); {
		case subject != "" && addr != "":
			whose = fmt.Sprintf("%q at %s", subject, addr)
		case subject != "":
			whose = fmt.Sprintf("%q", subject)
		case addr != "":
			whose = addr
		}
	}
	return &broadcastError{whose, err}
}

// with returns a copy of e with another outcome.
func (e *Error) with(o Outcome) *Error {
	x := *e
	x.Outcome, x.told = o, true
	return &x
}

// unsent is e, a program's, for a call that was not sent: what the program said of
// its outcome holds.
func (e *Error) unsent() *Error {
	if e.told || e.Outcome != MayHaveRun {
		return e
	}
	x := e.with(NotSent)
	x.cause = e // errors.Is finds the program's own
	return x
}

// refuse is the error of a call that this side did not send.
func refuse(code Code, format string, args ...any) *Error {
	return Errorf(code, format, args...).with(NotSent)
}

// ended is the error of a call that this side gave up: its context ended.
func ended(ctx context.Context, o Outcome) *Error {
	return up(status.Ended(ctx, o.lower()), nil)
}
