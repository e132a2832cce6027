// Package status has the codes, the outcomes, and the error value that the
// layers below the API speak. It never logs and never encodes.
package status

import "strconv"

// Code says what kind of error it is: gRPC's codes with gRPC's meaning, or an
// application's own number.
type Code int64

// The codes of gRPC.
const (
	Canceled           Code = 1
	Unknown            Code = 2
	InvalidArgument    Code = 3
	DeadlineExceeded   Code = 4
	NotFound           Code = 5
	AlreadyExists      Code = 6
	PermissionDenied   Code = 7
	ResourceExhausted  Code = 8
	FailedPrecondition Code = 9
	Aborted            Code = 10
	OutOfRange         Code = 11
	Unimplemented      Code = 12
	Internal           Code = 13
	Unavailable        Code = 14
	DataLoss           Code = 15
	Unauthenticated    Code = 16
)

var codeNames = [...]string{
	0: "ok", Canceled: "canceled", Unknown: "unknown", InvalidArgument: "invalid argument",
	DeadlineExceeded: "deadline exceeded", NotFound: "not found",
	AlreadyExists: "already exists", PermissionDenied: "permission denied",
	ResourceExhausted: "resource exhausted", FailedPrecondition: "failed precondition",
	Aborted: "aborted", OutOfRange: "out of range", Unimplemented: "unimplemented",
	Internal: "internal", Unavailable: "unavailable", DataLoss: "data loss",
	Unauthenticated: "unauthenticated",
}

// String is the code in words, or "code 1234" for an application's own.
func (c Code) String() string {
	if c >= 0 && c < Code(len(codeNames)) {
		return codeNames[c]
	}
	return "code " + strconv.FormatInt(int64(c), 10)
}

// Outcome says how far a failed call got.
type Outcome uint8

// The outcomes.
const (
	NotSent    Outcome = iota // no handler saw it
	MayHaveRun                // it left, and no answer came
	Answered                  // the peer's handler ran, and this is its answer
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
