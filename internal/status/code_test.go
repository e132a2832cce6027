package status

import (
	"testing"

	"github.com/matryer/is"
)

// The numbers are gRPC's, and go over the wire.
func TestCode_numbersAndTexts(t *testing.T) {
	for _, tt := range []struct {
		code Code
		n    int64
		text string
	}{
		{Canceled, 1, "canceled"}, {Unknown, 2, "unknown"}, {InvalidArgument, 3, "invalid argument"},
		{DeadlineExceeded, 4, "deadline exceeded"}, {NotFound, 5, "not found"}, {AlreadyExists, 6, "already exists"},
		{PermissionDenied, 7, "permission denied"}, {ResourceExhausted, 8, "resource exhausted"},
		{FailedPrecondition, 9, "failed precondition"}, {Aborted, 10, "aborted"}, {OutOfRange, 11, "out of range"},
		{Unimplemented, 12, "unimplemented"}, {Internal, 13, "internal"}, {Unavailable, 14, "unavailable"},
		{DataLoss, 15, "data loss"}, {Unauthenticated, 16, "unauthenticated"},
		{0, 0, "ok"}, {17, 17, "code 17"}, {1234, 1234, "code 1234"}, {-1, -1, "code -1"}, {-32601, -32601, "code -32601"},
		{1<<32 + 5, 1<<32 + 5, "code 4294967301"}, {-1 << 63, -1 << 63, "code -9223372036854775808"},
	} {
		is := is.New(t)
		is.Equal(int64(tt.code), tt.n)
		is.Equal(tt.code.String(), tt.text)
	}
}

func TestOutcome_numbersAndTexts(t *testing.T) {
	is := is.New(t)
	is.Equal(*new(Outcome), NotSent) // what nobody set is safe to repeat
	is.Equal(NotSent.String(), "not sent")
	is.Equal(MayHaveRun.String(), "may have run")
	is.Equal(Answered.String(), "answered")
}
