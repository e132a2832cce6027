package typedrpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// A Code says what kind of error a call ended with. 1 to 16 are gRPC's codes
// with gRPC's meaning; an application may use any other number above 99 for
// its own. Codes cross the wire unchanged between typedrpc peers. Towards
// JSON-RPC, Unimplemented, InvalidArgument and Internal are the
// specification's -32601, -32602 and -32603, and back (PROTOCOL.md section 7).
//
// A Code is an error: a handler may return it as it is, and errors.Is(err,
// typedrpc.NotFound) works on both sides of a connection.
type Code int64

// The codes of gRPC.
const (
	Canceled           Code = 1  // the caller gave up
	Unknown            Code = 2  // an error from a system with fewer words
	InvalidArgument    Code = 3  // the request makes no sense, whatever the state
	DeadlineExceeded   Code = 4  // the deadline passed first
	NotFound           Code = 5  // what was asked for does not exist
	AlreadyExists      Code = 6  // what was to be created exists
	PermissionDenied   Code = 7  // the caller is known, and may not
	ResourceExhausted  Code = 8  // a limit or quota is spent
	FailedPrecondition Code = 9  // the state does not allow it; do not retry as it is
	Aborted            Code = 10 // a conflict; retry from further up
	OutOfRange         Code = 11 // past the end of something
	Unimplemented      Code = 12 // no such method here
	Internal           Code = 13 // a defect
	Unavailable        Code = 14 // no connection, or a server going away; retry
	DataLoss           Code = 15 // unrecoverable loss
	Unauthenticated    Code = 16 // who are you?
)

var codeNames = [...]string{
	Canceled: "canceled", Unknown: "unknown", InvalidArgument: "invalid argument",
	DeadlineExceeded: "deadline exceeded", NotFound: "not found",
	AlreadyExists: "already exists", PermissionDenied: "permission denied",
	ResourceExhausted: "resource exhausted", FailedPrecondition: "failed precondition",
	Aborted: "aborted", OutOfRange: "out of range", Unimplemented: "unimplemented",
	Internal: "internal", Unavailable: "unavailable", DataLoss: "data loss",
	Unauthenticated: "unauthenticated",
}

// String is the code in words, or "code 1234" for an application's own.
func (c Code) String() string {
	if c > 0 && int(c) < len(codeNames) {
		return codeNames[c]
	}
	return "code " + strconv.FormatInt(int64(c), 10)
}

// Error makes a Code an error.
func (c Code) Error() string { return c.String() }

// Outcome says how far a failed call got, which decides whether it is safe to
// make it again.
type Outcome uint8

const (
	// NotSent: no handler saw the call. It never left, or the peer refused
	// it before running anything. Making it again is always safe.
	NotSent Outcome = iota
	// MayHaveRun: the call left and no answer came. Only an Idempotent
	// method is safe to call again, or a Keyed one with the same Key.
	MayHaveRun
	// Answered: the peer's handler ran and this is its answer.
	Answered
)

func (o Outcome) String() string {
	switch o {
	case NotSent:
		return "not sent"
	case MayHaveRun:
		return "may have run"
	}
	return "answered"
}

// Gap is what the error of a stream is when the stream was broken off and items
// may be missing: errors.Is(err, typedrpc.Gap). That is so when the session that
// a stream had left in was lost, on the caller's side and on the handler's; and
// on the caller's when the peer, which has said that it is going away, ended the
// stream with Unavailable. Such an error is an *Error, Unavailable. It comes
// after the items that had arrived.
//
// All other ends are no gaps, because somebody meant them: the handler's error,
// a deadline, a cancellation, Close and Shutdown by this side. Nor is the end of
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
	// Outcome is set on the caller's side and ignored in a handler's error.
	Outcome Outcome
	// RetryAfter is the callee's hint when to try again; 0 is none. Sent in
	// whole milliseconds.
	RetryAfter time.Duration
	// Data is typed detail in the connection's codec, see Fault; nil is none.
	Data Raw

	cause error // local only; never crosses the wire
	gap   bool  // as cause: it is a Gap
	// fault is data that is encoded when the connection's codec is known.
	fault any
}

// Errorf makes an *Error with a formatted message. A %w operand is kept as the
// cause for errors.Is and errors.As on this side; it does not cross the wire,
// but the text does.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), cause: errors.Unwrap(err)}
}

// Error is the code, the message and, for a call that got no answer, how far it
// got.
func (e *Error) Error() string {
	text := e.Code.String()
	if e.Message != "" {
		text += ": " + e.Message
	}
	if e.Outcome == MayHaveRun {
		text += " (may have run)"
	}
	return text
}

// Is reports that e has the target's code: a Code, context.Canceled or
// context.DeadlineExceeded; or that it is a Gap. A peer's "canceled" and our own
// are told apart by Outcome: Answered is the peer's.
func (e *Error) Is(target error) bool {
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

// broken returns a copy of e that is a Gap.
func (e *Error) broken() *Error {
	x := *e
	x.gap, x.Message = true, e.Message+", items may be missing"
	return &x
}

// sessionLost is what a stream ends with when its session is lost.
func sessionLost(cause error) *Error {
	e := &Error{Code: Unavailable, Message: "the session was lost", Outcome: MayHaveRun, cause: cause}
	return e.broken()
}

// Unwrap returns the local cause, if any.
func (e *Error) Unwrap() error { return e.cause }

// CodeOf returns the code of the first *Error or Code that err wraps; 0 for
// nil, Canceled and DeadlineExceeded for the context's errors, Unknown for all
// others.
func CodeOf(err error) Code {
	var e *Error
	var c Code
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.Code
	case errors.As(err, &c):
		return c
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return DeadlineExceeded
	}
	return Unknown
}

// OutcomeOf returns the outcome of the first *Error that err wraps. Any other
// error did not come from a call, so nothing was sent.
func OutcomeOf(err error) Outcome {
	var e *Error
	if errors.As(err, &e) {
		return e.Outcome
	}
	return NotSent
}

// Fault is a declared error with typed data: part of an API like a Method, made
// once and shared by both sides.
//
//	var NoStock = typedrpc.NewFault[Shortage](typedrpc.FailedPrecondition, "not enough in stock")
//
//	return resp, NoStock.New(Shortage{Left: 3})       // in the handler
//	if s, ok := NoStock.From(err); ok { … s.Left … }  // at the caller
type Fault[D any] struct {
	code Code
	text string
}

// NewFault declares a fault. Faults are told apart by code and text together.
func NewFault[D any](code Code, text string) Fault[D] { return Fault[D]{code, text} }

// New makes an error of this fault with data, which is encoded in the codec of
// the connection that it crosses.
func (f Fault[D]) New(data D) *Error {
	return &Error{Code: f.code, Message: f.text, fault: &faultData[D]{data: data}}
}

// From returns the data if err is of this fault, made here or received. It
// returns false if the data does not decode.
func (f Fault[D]) From(err error) (D, bool) {
	var e *Error
	var none D
	if !errors.As(err, &e) || e.Code != f.code || e.Message != f.text {
		return none, false
	}
	if local, ok := e.fault.(*faultData[D]); ok {
		return local.data, true
	}
	received, ok := e.fault.(receivedFault)
	if !ok {
		return none, false
	}
	var d D
	if err := received.codec.Decode(e.Data, &d); err != nil {
		return none, false
	}
	return d, true
}

// faultData is a Fault's data before it is encoded.
type faultData[D any] struct{ data D }

func (d *faultData[D]) encode(c Codec) ([]byte, error) { return c.Append(nil, &d.data) }

type faultEncoder interface {
	encode(Codec) ([]byte, error)
}

// receivedFault remembers the codec in which Data arrived.
type receivedFault struct{ codec Codec }

// ErrorMapper turns a handler's error that is no *Error into the one that its
// caller sees; nil keeps the default, Internal with a fixed text. See
// Server.MapError.
type ErrorMapper func(ctx context.Context, err error) *Error

// internalText is all that a stranger learns of an error that its author did
// not mean for strangers.
const internalText = "internal error"

// toWire is the one place where errors leave: it turns what a handler returned
// into the frame that answers the call. foreign reports an error whose text
// stays here and belongs into the log.
func toWire(ctx context.Context, err error, codec Codec, mapper ErrorMapper) (f wire.Frame, foreign bool) {
	var e *Error
	var c Code
	switch {
	case errors.As(err, &e):
	case errors.As(err, &c):
		e = &Error{Code: c, Message: c.String()}
	case errors.Is(err, context.Canceled):
		e = &Error{Code: Canceled, Message: "canceled"}
	case errors.Is(err, context.DeadlineExceeded):
		e = &Error{Code: DeadlineExceeded, Message: "deadline exceeded"}
	default:
		if mapper != nil {
			e = mapper(ctx, err)
		}
		if e == nil {
			foreign = true
			e = &Error{Code: Internal, Message: internalText}
		}
	}
	code := e.Code
	if code == 0 {
		code = Unknown // 0 would read as no error at all
	}
	f = wire.Frame{Type: wire.Fail, Code: int64(code), Message: clip(e.Message), RetryAfter: millis(e.RetryAfter), Payload: e.Data}
	if enc, ok := e.fault.(faultEncoder); ok && e.Data == nil {
		data, err := enc.encode(codec)
		if err != nil {
			return wire.Frame{Type: wire.Fail, Code: int64(Internal), Message: internalText}, true
		}
		f.Payload = data
	}
	return f, foreign
}

// fromWire is the one place where errors arrive.
func fromWire(f *wire.Frame, codec Codec) *Error {
	e := &Error{
		Code:       cmp.Or(Code(f.Code), Unknown), // as in toWire
		Message:    f.Message,
		Outcome:    Answered,
		RetryAfter: time.Duration(min(f.RetryAfter, uint64(maxHint/time.Millisecond))) * time.Millisecond,
	}
	if f.Flags&wire.NotRun != 0 {
		e.Outcome = NotSent
	}
	if len(f.Payload) > 0 {
		e.Data = append(Raw(nil), f.Payload...)
	}
	e.fault = receivedFault{codec}
	return e
}

// maxHint bounds how long a peer can tell us to wait.
const maxHint = time.Hour

// maxErrorText bounds an error's message on the wire.
const maxErrorText = 8 << 10

// clip makes s fit to send: bounded, and UTF-8 throughout.
func clip(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), maxErrorText)], "")
}

// millis rounds up, so that a positive duration stays one.
func millis(d time.Duration) uint64 {
	if d <= 0 {
		return 0
	}
	return uint64((d + time.Millisecond - 1) / time.Millisecond)
}

// ended is the error of a call that this side gave up: its context ended.
func ended(ctx context.Context, o Outcome) *Error {
	cause := context.Cause(ctx)
	e := &Error{Code: Canceled, Outcome: o, cause: cause}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		e.Code = DeadlineExceeded
	}
	if cause != ctx.Err() && cause != nil {
		e.Message = cause.Error()
	}
	return e
}
