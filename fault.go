package typedrpc

import (
	"fmt"
	"sync"
)

// Fault is a declared error with typed data: part of an API like a Method, made
// once and shared by both sides. A Fault is safe for concurrent use.
//
//	var NoStock = typedrpc.NewFault[Shortage]("shop.no-stock", typedrpc.FailedPrecondition)
//
//	return resp, NoStock.Errorf(Shortage{Left: 3}, "only %d left", 3) // in the handler
//	if s, ok := NoStock.From(err); ok { … s.Left … }                   // at the caller
//
// Its name is what it is known by, and travels beside the code, the text and the
// data: those may change from one version of an API to the next, while a new name
// is a new fault. Two declarations with one name are the same fault, wherever they
// are, so names begin best with what they belong to.
type Fault[D any] struct {
	name string
	code Code
	spec *spec // what its traits say of the data
}

// NewFault declares a fault whose errors have code. Data that is used by pointer needs
// an [Alloc], as messages do; MaxSize bounds it. NewFault panics if the name is bad, as
// a method's may be (but none is reserved), if the code is OK or none that there may be (see Code), or
// if a trait does not apply.
func NewFault[D any](name string, code Code, traits ...Trait) Fault[D] {
	if err := checkName("fault", name); err != nil {
		panic(err.Error())
	}
	s := &spec{name: name, as: "fault"}
	switch {
	case code == OK:
		panic(fmt.Sprintf("typedrpc: %s has the code OK, which is no error", s.title()))
	case code < OK || code > Unauthenticated && code < 100:
		panic(fmt.Sprintf("typedrpc: %s has the code %d, which is none of gRPC's; an application's own begin with 100", s.title(), int64(code)))
	}
	applyTraits(s, traits, Trait.signIn)
	s.carries(new(D))
	var asked sync.Map // what a codec said, by the codec
	s.check = func(c Codec) error {
		key := fmt.Sprintf("%T %s", c, c.Name()) // a codec may not be comparable
		said, ok := asked.Load(key)
		if !ok {
			said, _ = asked.LoadOrStore(key, [1]error{checkType[D](s, c)})
		}
		return said.([1]error)[0]
	}
	return Fault[D]{name, code, s}
}

// Errorf makes an error of this fault with data, which is encoded in the codec of the
// connection that it crosses, and a text for people, formatted as by the function
// Errorf; without one, "", the text is the fault's name. Data that cannot be encoded, or is
// of a type that nobody could decode, fails the handler's call with Internal, and the log
// says why: a fault is registered nowhere, so Server.Check does not know of it. It panics if
// f was not made by NewFault.
func (f Fault[D]) Errorf(data D, format string, args ...any) *Error {
	if f.name == "" {
		panic("typedrpc: the Fault was not made by NewFault")
	}
	if format == "" {
		format, args = "%s", []any{f.name}
	}
	e := Errorf(f.code, format, args...)
	e.name, e.fault = f.name, &faultData[D]{data, f.spec}
	return e
}

// From returns the data if err is, or wraps, an error of this fault, made here or
// received: one with its name, the first of several, joined ones and causes among them. It
// returns false if the data does not decode, or is larger than MaxSize.
func (f Fault[D]) From(err error) (D, bool) {
	if f.name != "" {
		for e := range errorsIn(err) {
			if e.name == f.name {
				return f.of(e)
			}
		}
	}
	var none D
	return none, false
}

// of is the data of e, which has f's name.
func (f Fault[D]) of(e *Error) (D, bool) {
	var d, none D
	if local, ok := e.fault.(*faultData[D]); ok {
		return local.data, true
	}
	received, ok := e.fault.(receivedFault)
	if !ok {
		return none, false
	}
	raw := e.Data
	if len(raw) == 0 && received.codec == JSON { // whose envelopes have no null for data
		raw = Raw("null")
	}
	if max := f.spec.maxSize; max > 0 && len(raw) > max {
		return none, false
	}
	if err := f.spec.decode(received.codec, raw, &d); err != nil {
		return none, false
	}
	return d, true
}

// FaultName returns the name of the Fault that e is of, "" if it is of none. The
// peer chose that of a received error; it has at most 255 bytes.
func (e *Error) FaultName() string {
	if e == nil {
		return ""
	}
	return e.name
}

// faultData is a Fault's data before it is encoded.
type faultData[D any] struct {
	data D
	spec *spec
}

func (d *faultData[D]) encode(c Codec) ([]byte, error) {
	data, err := d.spec.encode(c, nil, &d.data)
	if max := d.spec.maxSize; err == nil && max > 0 && len(data) > max {
		err = fmt.Errorf("it has %d bytes, the declaration allows %d", len(data), max)
	}
	if err == nil {
		err = d.spec.check(c)
	}
	return data, err
}

type faultEncoder interface {
	encode(Codec) ([]byte, error)
}

// receivedFault remembers the codec in which Data arrived.
type receivedFault struct{ codec Codec }
