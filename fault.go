package typedrpc

import "errors"

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
