package typedrpc

import (
	"errors"
	"fmt"
	"strings"

	"github.com/typedrpc/typedrpc/internal/jsoncodec"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// A Codec turns messages into bytes and back. Besides an application's own
// types it is given *struct{} and *Raw, which it carries as it sees fit. Its methods are called by many
// goroutines at once. The codec is chosen in the opening handshake and fixed
// for a connection's life.
type Codec interface {
	// Name is part of the subprotocol, typedrpc.v1.<name>: lower-case
	// letters, digits and dashes.
	Name() string
	// Append appends the encoding of v, a pointer to a message, to dst. On
	// an error the result is ignored.
	Append(dst []byte, v any) ([]byte, error)
	// Decode reads data into v, a pointer to a message. It retains nothing of
	// data.
	Decode(data []byte, v any) error
	// Check reports whether messages of v's type can be carried; v points to
	// a zero message, which it may change. It is asked when a server or a connection is made, for
	// what its Mux has then; a message of a handler that is added later, or of a call
	// that goes out, fails when it is encoded or decoded.
	Check(v any) error
}

// checkCodec refuses a codec whose name cannot be part of a subprotocol, which
// is a token of RFC 6455 section 4.1.
//
// before are those that were offered already: by name the peer chooses.
func checkCodec(c Codec, before []Codec) error {
	if c == nil {
		return errors.New("typedrpc: one of Codecs is nil")
	}
	name := c.Name()
	for _, other := range before {
		if other.Name() == name {
			return fmt.Errorf("typedrpc: Codecs has two of the name %q", name)
		}
	}
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return fmt.Errorf("typedrpc: codec name %q must be of lower-case letters, digits and dashes", name)
		}
	}
	if name == "" {
		return errors.New("typedrpc: a codec has no name")
	}
	return nil
}

// checkType asks c whether it can carry the declaration's messages of type T.
func checkType[T any](s *spec, c Codec) error {
	var zero T
	v, ok := s.fresh(&zero)
	if !ok {
		v = &zero
	}
	if _, ok := v.(*Bytes); ok && streams(s.kind) {
		return nil // no codec sees it
	}
	name := fmt.Sprintf("%T", &zero)[1:]
	if err := c.Check(v); err != nil {
		return fmt.Errorf("typedrpc: codec %q cannot carry %s of %s: %w", c.Name(), name, s.title(), err)
	}
	if pointee, points := strings.CutPrefix(name, "*"); points && !ok && c != JSON && passesOn(c, &zero) {
		return fmt.Errorf("typedrpc: codec %q would write %s of %s as JSON, and what it points to otherwise: give the declaration typedrpc.Alloc[%s]()", c.Name(), name, s.title(), pointee)
	}
	return nil
}

// passesOn reports whether a codec leaves a message that is a pointer to JSON, by the
// pointer to it that it is given without Alloc, and writes it in another way by itself.
func passesOn[T any](c Codec, v *T) (left bool) {
	defer func() {
		if recover() != nil { // it does not expect such messages
			left = false
		}
	}()
	JSON.Decode([]byte("{}"), v) // so that it points to something, where that is possible
	asJSON, err := JSON.Append(nil, v)
	given, fails := c.Append(nil, v)
	if err != nil || fails != nil || string(given) != string(asJSON) {
		return false
	}
	alone, err := c.Append(nil, any(*v))
	return err == nil && string(alone) != string(asJSON)
}

// JSON is the default Codec and the one of the dialects Text and JSONRPC. It is
// encoding/json, except that scalars, strings, byte slices, struct{}, Raw and
// types with AppendJSON([]byte) ([]byte, error) and UnmarshalJSON([]byte) error
// are handled without reflection; "typedrpc json" of cmd/typedrpc writes those
// methods. Like encoding/json it ignores unknown
// members of a message and writes byte slices in base64.
//
// What encoding/json would change or could not read is refused. A string that is not
// UTF-8: by the receiver always, and by the sender unless its message has a
// json.RawMessage in it, or writes JSON of its own (half a surrogate pair, which
// JavaScript has and escapes, is read as U+FFFD). And by Check, with its path: a field of
// an interface type other than any, of a channel, a function or a complex number, also
// behind pointers, slices and maps.
const JSON = jsonCodec("json")

type jsonCodec string

func (c jsonCodec) Name() string { return string(c) }

func (jsonCodec) Append(dst []byte, v any) ([]byte, error) {
	raw, ok := v.(*Raw)
	switch {
	case !ok:
		return jsoncodec.AppendText(dst, v)
	case len(*raw) == 0:
		return append(dst, "null"...), nil
	}
	if err := wire.Valid(*raw, jsoncodec.RawDepth); err != nil {
		return dst, fmt.Errorf("Raw is no JSON value: %w", err)
	}
	return append(dst, *raw...), nil
}

func (jsonCodec) Decode(data []byte, v any) error {
	if raw, ok := v.(*Raw); ok {
		*raw = append((*raw)[:0], jsoncodec.Trim(data)...)
		return nil
	}
	return jsoncodec.Decode(data, v)
}

func (jsonCodec) Check(v any) error {
	switch v.(type) {
	case *Raw, *any:
		return nil
	}
	if err := jsoncodec.Probe(v); err != nil { // which knows where
		return err
	}
	return jsoncodec.Check(v)
}

// Bytes is an item of a stream that no codec sees: it travels as it is in the
// dialect Binary, and as base64 in a string in Text and JSONRPC. As a
// request, response or notification it is the codec's like any other type.
//
// Package transfer carries files as items of this type.
type Bytes []byte

// append appends the item's payload.
func (b Bytes) append(dst []byte, d session.Dialect) []byte {
	if d == session.Binary {
		return append(dst, b...)
	}
	return jsoncodec.AppendBytes(dst, b)
}

// decode reads the item's payload into b's memory.
func (b *Bytes) decode(data []byte, d session.Dialect) error {
	*b = (*b)[:0]
	if d == session.Binary {
		*b = append(*b, data...)
		return nil
	}
	all, err := jsoncodec.DecodeBytes(*b, data)
	if err != nil {
		return err
	}
	*b = all
	return nil
}

// numbered are codecs by the number of their offer. The JSON-RPC dialects' has none.
func numbered(codecs []Codec) func(int) Codec {
	return func(i int) Codec {
		if i < 0 {
			return JSON
		}
		return codecs[i]
	}
}
