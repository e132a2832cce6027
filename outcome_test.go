package typedrpc_test

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
)

// asOne is an error that is another one by its method As.
type asOne struct{ err *typedrpc.Error }

func (a asOne) Error() string { return "as one" }

func (a asOne) As(target any) bool {
	p, ok := target.(**typedrpc.Error)
	if ok {
		*p = a.err
	}
	return ok
}

// Of joined errors it was the first one's, and Any and Broadcast join what may have
// run behind what was not sent.
func TestOutcomeOf_joined(t *testing.T) {
	is := is.New(t)
	of := func(o typedrpc.Outcome) error { return &typedrpc.Error{Code: typedrpc.Unavailable, Outcome: o} }
	safe, ran, maybe := of(typedrpc.NotSent), of(typedrpc.Answered), of(typedrpc.MayHaveRun)
	var none *typedrpc.Error
	for _, tt := range []struct {
		want typedrpc.Outcome
		errs []error
	}{
		{typedrpc.NotSent, []error{safe}},
		{typedrpc.NotSent, []error{safe, safe}},
		{typedrpc.NotSent, []error{io.EOF, safe}}, // a sentinel beside it says nothing
		{typedrpc.Answered, []error{safe, ran}},
		{typedrpc.Answered, []error{ran, safe}},
		{typedrpc.MayHaveRun, []error{safe, maybe}},
		{typedrpc.MayHaveRun, []error{safe, ran, errors.Join(safe, fmt.Errorf("deep: %w", maybe))}},
		{typedrpc.MayHaveRun, []error{safe, of(9)}},
		{typedrpc.MayHaveRun, []error{safe, none}},
		{typedrpc.MayHaveRun, []error{io.EOF}},
		{typedrpc.NotSent, []error{asOne{safe.(*typedrpc.Error)}}},
		{typedrpc.MayHaveRun, []error{safe, asOne{maybe.(*typedrpc.Error)}}},
	} {
		is.Equal(typedrpc.OutcomeOf(errors.Join(tt.errs...)), tt.want)
		is.Equal(typedrpc.OutcomeOf(fmt.Errorf("twice: %w", errors.Join(tt.errs...))), tt.want)
	}
}
