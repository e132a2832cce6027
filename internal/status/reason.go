package status

import "strings"

// Reason is the cause of an error that says on this side why there was no connection,
// and of which a peer is told Said alone: the rest names hosts and addresses.
type Reason struct {
	Said  string
	Cause error    // what the error had without it; nil: nothing
	Why   []*Error // what links, and attempts to get one, ended with
}

func (r *Reason) Error() string {
	var texts []string
	for _, err := range r.Unwrap() {
		texts = append(texts, err.Error())
	}
	return strings.Join(texts, "; ")
}

// Unwrap returns Cause and Why.
func (r *Reason) Unwrap() []error {
	all := make([]error, 0, 1+len(r.Why))
	if r.Cause != nil {
		all = append(all, r.Cause)
	}
	for _, e := range r.Why {
		all = append(all, e)
	}
	return all
}

// Lacking returns a copy of e that says what there was none of, and why; nil: nothing
// is known.
func (e *Error) Lacking(what string, why *Error) *Error {
	x := e.clone()
	if x.Message != "" {
		what = x.Message + "; " + what
	}
	x.Message = what
	if why != nil {
		x.because(why)
		x.Cause = &Reason{what, e.Cause, []*Error{why}}
	}
	return x
}

// Because returns a copy of e whose cause is why, and which says so.
func (e *Error) Because(why *Error) *Error {
	x := e.clone()
	x.because(why)
	x.Cause = &Reason{e.Message, why, nil}
	return x
}

func (e *Error) because(why *Error) {
	if e.Message != "" {
		e.Message += ": "
	}
	e.Message += why.plainly()
}

// plainly is e's text where Unavailable goes without saying.
func (e *Error) plainly() string {
	if e.Code == Unavailable && e.Message != "" {
		return e.Message
	}
	x := Error{Code: e.Code, Message: e.Message} // its outcome is another call's
	return x.Error()
}

// Together is what several attempts failed with: the last says what kind of failure it
// is, and all say why.
func Together(tried []*Error) *Error {
	last := tried[len(tried)-1]
	if len(tried) == 1 {
		return last
	}
	e := last.clone()
	why := tried[: len(tried)-1 : len(tried)-1]
	for _, other := range why {
		e.Message += "; " + other.plainly()
	}
	e.Cause = &Reason{e.Message, last.Cause, why}
	return e
}

const lostText = "connection lost"

// Lost is the error of a call whose session was lost because of cause; why is why there
// has been no link since before, nil: there was one.
func Lost(cause error, why *Error) *Error {
	e, r := &Error{Code: Unavailable, Message: lostText}, &Reason{Said: lostText, Cause: cause}
	switch c := cause.(type) {
	case nil:
	case *Error:
		e.because(c)
	default:
		e.Message += ": " + cause.Error()
	}
	if why != nil {
		r.Why = []*Error{why}
		e.Message += "; " + why.plainly()
	}
	if cause != nil || why != nil {
		e.Cause = r
	}
	return e
}

// LostItems is lost, which Lost made, as a stream's.
func LostItems(lost *Error) *Error {
	e := SessionLost(lost)
	e.Cause = &Reason{Said: e.Message, Cause: lost}
	e.Message += strings.TrimPrefix(lost.Message, lostText)
	return e
}
