package typedrpc

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/typedrpc/typedrpc/internal/client"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/status"
)

// The border to the layers below the API, which speak *status.Error: up and lift
// make the API's errors of theirs, lower and down theirs of the API's.

// up is e as programs see it, always the same: the very *Error that it was made
// of, if nothing of that has changed. c is the codec of the connection that it
// came over.
func up(e *status.Error, c Codec) *Error {
	if e == nil {
		return nil
	}
	if seen, ok := e.Seen().(*Error); ok {
		return seen
	}
	x := &Error{
		Code: Code(e.Code), Message: e.Message, Number: e.Number, Outcome: outcomeOf(e.Outcome), told: !e.Last,
		RetryAfter: e.RetryAfter, Data: e.Data, cause: lift(e.Cause, c), gap: e.Gap, name: e.Fault,
	}
	if made, ok := e.Face.(*Error); ok {
		if made.Code == x.Code && made.Message == x.Message && (made.Outcome == x.Outcome || !made.told && made.Outcome == MayHaveRun) && made.Number == x.Number && made.RetryAfter == x.RetryAfter && made.gap == x.gap && made.name == x.name {
			return made
		}
		x.fault = made.fault
	} else if e.Remote {
		x.fault = receivedFault{c}
	}
	return e.See(x).(*Error)
}

// lift is err as programs see it. nil stays nil.
func lift(err error, c Codec) error {
	switch e := err.(type) {
	case *status.Error:
		if e == nil {
			return nil
		}
		return up(e, c)
	case *lowered:
		return e.text
	case *client.UpgradeError:
		return &UpgradeError{Status: e.Status, Header: e.Header, Body: e.Body}
	case *status.Reason:
		r := &reason{said: e.Said, cause: lift(e.Cause, c)}
		for _, why := range e.Why {
			r.why = append(r.why, up(why, c))
		}
		return r
	case *link.CloseError:
		if e.Remote {
			return &CloseError{Code: e.Code, Reason: e.Reason}
		}
		switch e.Err.(type) {
		case *status.Error, *lowered, *client.UpgradeError:
			x := *e
			x.Err = lift(e.Err, c)
			return &x
		}
	}
	return err
}

// reason is the cause of an error that came of having no link. What links, and attempts
// to get one, ended with is found in it, but for what says of the error itself how it
// ended: a program that tries again while the server is Unavailable is to stop at its own
// deadline.
type reason struct {
	said  string // the error's message for peers, without what names hosts
	cause error  // it has that without the link too; nil: nothing
	why   []*Error
}

func (r *reason) Error() string {
	texts := make([]string, 0, 1+len(r.why))
	if r.cause != nil {
		texts = append(texts, r.cause.Error())
	}
	for _, e := range r.why {
		texts = append(texts, e.Error())
	}
	return strings.Join(texts, "; ")
}

func (r *reason) Unwrap() error { return r.cause }

func (r *reason) Is(target error) bool {
	switch target {
	case Gap, Unavailable, Canceled, DeadlineExceeded, context.Canceled, context.DeadlineExceeded:
		return false
	}
	return slices.ContainsFunc(r.why, func(e *Error) bool { return errors.Is(e, target) })
}

func (r *reason) As(target any) bool {
	return slices.ContainsFunc(r.why, func(e *Error) bool { return errors.As(e, target) })
}

// lower is e as the layers below see it. nil stays nil.
func lower(e *Error) *status.Error {
	if e == nil {
		return nil
	}
	return &status.Error{
		Code: status.Code(e.Code), Message: e.Message, Number: e.Number, Outcome: e.Outcome.lower(),
		RetryAfter: e.RetryAfter, Data: e.Data, Cause: foreign(e.cause), Gap: e.gap, Fault: e.name, Face: e,
	}
}

// foreign is err, which may be a program's, as the layers below see it: they look into
// errors on goroutines where nobody recovers. nil stays nil.
func foreign(err error) error {
	switch err.(type) {
	case nil, *status.Error, *lowered, *client.UpgradeError, *link.CloseError:
		return err
	}
	if err == context.Canceled || err == context.DeadlineExceeded {
		return err
	}
	return &lowered{err, upgrade(err)}
}

// upgrade is what the layers below look for in err: the answer of an HTTP server that
// a program met, while it got credentials for example. nil: there is none.
func upgrade(err error) (below error) {
	defer func() { recover() }() // of the methods of errors
	var u *UpgradeError
	if errors.As(err, &u) && u != nil {
		below = &client.UpgradeError{Status: u.Status, Header: u.Header, Body: u.Body}
	}
	return below
}

// down is what a program's function returned as the layers below see it: with a
// *status.Error in it if it is, or wraps, an *Error or a Code.
func down(err error) (below error) {
	defer func() {
		if recover() != nil { // of the methods of errors
			below = &lowered{err, nil}
		}
	}()
	var c Code
	e := errorIn(err)
	switch {
	case e != nil:
		if x, ok := err.(*Error); ok && x == e {
			return lower(e)
		}
		return &lowered{err, lower(e)}
	case errors.As(err, &c):
		return &lowered{err, lower(&Error{Code: c.failed(), Message: c.failed().Error()})} // whose Outcome nobody knows
	}
	return foreign(err)
}

// lowered is a program's error with what the layers below look for in it. Its methods
// keep what those of the program's panic with.
type lowered struct{ text, below error }

func (l *lowered) Error() (text string) {
	defer func() {
		if recover() != nil {
			text = "an error whose method Error panicked"
		}
	}()
	return l.text.Error()
}

func (l *lowered) Unwrap() error { return l.below }

func (l *lowered) Is(target error) bool {
	defer func() { recover() }()
	return errors.Is(l.text, target)
}

func (l *lowered) As(target any) bool {
	defer func() { recover() }()
	return errors.As(l.text, target)
}
