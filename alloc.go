package typedrpc

import (
	"fmt"
	"slices"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/flow"
)

// Alloc makes messages of type *T with new(T), for types that are used by
// pointer, such as protobuf's: the codec is given the *T itself, there is no
// copy and no reflection. Give one Alloc for each such type of a declaration: T is the
// type behind the pointer; a declaration of which no message is a *T panics. Without one
// the codec is given a pointer to the pointer, which JSON takes and most others do not:
// Server.Check says so, and go vet (the module's vet) before that.
func Alloc[T any]() Trait {
	return anyTrait(func(s *spec) { s.allocs = append(s.allocs, allocOf[T]{}) })
}

// allocator knows one message type that is used by pointer.
type allocator interface {
	// makes is the type that it makes, in words: "*pb.Point".
	makes() string
	// fresh makes a new T if v is a **T, stores and returns it.
	fresh(v any) (any, bool)
	// target returns the *T if v is a **T.
	target(v any) (msg any, isNil, ok bool)
}

type allocOf[T any] struct{}

func (allocOf[T]) makes() string { return fmt.Sprintf("%T", (*T)(nil)) }

func (allocOf[T]) fresh(v any) (any, bool) {
	p, ok := v.(**T)
	if !ok {
		return nil, false
	}
	*p = new(T)
	return *p, true
}

func (allocOf[T]) target(v any) (any, bool, bool) {
	p, ok := v.(**T)
	if !ok {
		return nil, false, false
	}
	return *p, *p == nil, true
}

// carries refuses an Alloc of what is none of the declaration's messages, which are given
// as pointers to them.
func (s *spec) carries(messages ...any) {
	for _, a := range s.allocs {
		if !slices.ContainsFunc(messages, func(v any) bool { _, _, ok := a.target(v); return ok }) {
			panic(fmt.Sprintf("typedrpc: %s has an Alloc for %s, and no message of that type", s.title(), a.makes()))
		}
	}
}

func (s *spec) fresh(v any) (any, bool) {
	for _, a := range s.allocs {
		if msg, ok := a.fresh(v); ok {
			return msg, true
		}
	}
	return v, false
}

// encode appends the message that v points to.
func (s *spec) encode(c Codec, dst []byte, v any) ([]byte, error) {
	for _, a := range s.allocs {
		msg, isNil, ok := a.target(v)
		if !ok {
			continue
		}
		if isNil {
			return dst, fmt.Errorf("the message is nil")
		}
		v = msg
		break
	}
	return c.Append(dst, v)
}

// encode encodes an item. Where the last one was large it has to wait for its turn.
func (f face) encode(body *buf.Buf, v any) (err error) {
	bulky := f.spec.bulky.Load()
	if bulky {
		defer flow.Bulk()()
	}
	if b, ok := v.(*Bytes); ok {
		body.B = b.append(body.B, f.conn.e.Dialect())
	} else if body.B, err = f.spec.encode(f.conn.codec, body.B, v); err == nil {
		err = f.conn.e.CheckPayload(body.B)
	}
	if is := len(body.B) >= flow.BulkFrom; is != bulky { // all streams of the method read it
		f.spec.bulky.Store(is)
	}
	return err
}

// decode reads data into the message that v points to.
func (s *spec) decode(c Codec, data []byte, v any) error {
	v, _ = s.fresh(v)
	return c.Decode(data, v)
}
