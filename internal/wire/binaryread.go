package wire

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"
)

// DecodeBinary reads one frame from the front of data into f, overwriting all
// of it, and returns how many bytes that took. Payload points into data.
//
// intern, which may be nil, returns an already existing string for the bytes
// of a method name, or "" when it knows none; then a new one is made. A frame
// without metadata whose method intern knows is decoded without allocating
// (but for the message of a FAIL).
//
// A frame of a type that this version does not know is no error: it has Type,
// CountedBit if it counts, and its body as Payload. Errors wrap ErrMalformed;
// then n is 0 and f holds nothing of use. Safe for concurrent use.
func DecodeBinary(data []byte, f *Frame, intern func([]byte) string) (n int, err error) {
	*f = Frame{}
	if len(data) < headerSize {
		return 0, fmt.Errorf("%w: header of %d bytes", ErrMalformed, len(data))
	}
	f.Type = Type(data[0] & typeMask)
	size := int(data[1]) | int(data[2])<<8 | int(data[3])<<16
	if size > len(data)-headerSize {
		return 0, fmt.Errorf("%w: %v with a body of %d bytes, %d are there", ErrMalformed, f.Type, size, len(data)-headerSize)
	}
	if bad := f.decodeHeader(data[0]); bad != "" {
		return 0, fmt.Errorf("%w: %v %s", ErrMalformed, f.Type, bad)
	}
	b := body{rest: data[headerSize : headerSize+size : headerSize+size]}
	b.decode(f, intern)
	if b.bad != "" {
		return 0, fmt.Errorf("%w: %v: %s, at byte %d of %d", ErrMalformed, f.Type, b.bad, size-len(b.rest), size)
	}
	return headerSize + size, nil
}

// decodeHeader sets the flags of the header's first byte. What a bit of it
// contradicts is refused: both ends count by it, and a wrong count costs the
// session.
func (f *Frame) decodeHeader(b byte) (bad string) {
	known := f.Type < numTypes
	switch {
	case f.Type == Invalid:
		return "is no type"
	case known && f.Type.Counted() != (b&bitCounted != 0):
		return "with a wrong COUNTED bit"
	case b&bitMore != 0 && !f.Type.mayContinue():
		return "with MORE"
	case b&bitFromCaller != 0 && !f.Type.mayBeCaller():
		return "with FROM_CALLER"
	case b&bitFromCaller == 0 && f.Type.isCaller():
		return "without FROM_CALLER"
	}
	if b&bitMore != 0 {
		f.Flags |= More
	}
	if b&bitFromCaller != 0 {
		f.Flags |= FromCaller
	}
	if !known && b&bitCounted != 0 {
		f.Flags |= CountedBit
	}
	return ""
}

// body reads the fields of one body in turn. The first fault sticks, and what
// is read after it means nothing.
type body struct {
	rest []byte
	bad  string
}

func (b *body) decode(f *Frame, intern func([]byte) string) {
	switch f.Type {
	case Ping, Ack:
		f.Position = b.uint("position")
		b.end()
		return
	case Cancel, End:
		f.ID = b.id()
		b.end()
		return
	case Credit:
		f.ID = b.uint("id")
		f.Items = b.uint("items")
		f.Window = b.uint("window")
		if f.Items == 0 {
			b.fail("no items")
		}
		b.end()
		return
	case Call:
		f.ID = b.id()
		flags := b.flags(callFlags)
		f.Kind = Kind(flags & callKindMask)
		if flags&callLane != 0 {
			f.Flags |= Lane
		}
		if flags&callNoItems != 0 {
			f.Flags |= NoItems
		}
		f.TimeLeft = b.uint("time left")
		f.Method = b.method(intern)
		f.Meta = b.meta()
	case Result, Head:
		f.ID = b.id()
		f.Meta = b.meta()
	case Fail:
		f.ID = b.id()
		if b.flags(failNotRun) != 0 {
			f.Flags |= NotRun
		}
		f.Code = b.int("code")
		f.Message = strings.ToValidUTF8(string(b.bytes("message")), "\uFFFD")
		f.RetryAfter = b.uint("retry after")
		b.failMeta(f)
	case Item:
		f.ID = b.id()
		f.Flags |= itemFlags(b.flags(itemHistory | itemPrompt))
		f.Dropped = b.uint("dropped")
	case Notify:
		f.Method = b.method(intern)
		f.Meta = b.meta()
	case Chunk:
		f.ID = b.uint("id")
	}
	b.payload(f)
}

// itemFlags are what the bits of an ITEM stand for.
func itemFlags(bits byte) (f Flags) {
	if bits&itemHistory != 0 {
		f |= History
	}
	if bits&itemPrompt != 0 {
		f |= Prompt
	}
	return f
}

// payload is the rest of the body, which a HEAD has none of.
func (b *body) payload(f *Frame) {
	switch {
	case f.Type == Head:
		b.end()
	case len(b.rest) > 0:
		f.Payload = b.rest
	}
}

// failMeta reads a FAIL's metadata, and takes out of it what is none of a program's.
func (b *body) failMeta(f *Frame) {
	f.Meta = b.meta()
	if name, ok := f.Meta[metaFault]; ok {
		f.Fault = faultName(name)
		delete(f.Meta, metaFault)
	}
	if number, ok := f.Meta[metaNumber]; ok {
		f.Number, _ = parseInt([]byte(number))
		delete(f.Meta, metaNumber)
	}
	if len(f.Meta) == 0 {
		f.Meta = nil
	}
}

func (b *body) fail(bad string) {
	if b.bad == "" {
		b.bad = bad
	}
}

func (b *body) end() {
	if len(b.rest) > 0 {
		b.fail("trailing bytes")
	}
}

func (b *body) uint(what string) uint64 {
	v, n := binary.Uvarint(b.rest)
	if n <= 0 {
		b.fail(what)
		return 0
	}
	b.rest = b.rest[n:]
	return v
}

func (b *body) int(what string) int64 {
	v, n := binary.Varint(b.rest)
	if n <= 0 {
		b.fail(what)
		return 0
	}
	b.rest = b.rest[n:]
	return v
}

func (b *body) id() uint64 {
	id := b.uint("id")
	if id == 0 {
		b.fail("id is 0")
	}
	return id
}

// flags refuses bits it does not know: a new one may change what the frame
// means, and is sent only where both ends announced the feature.
func (b *body) flags(known byte) byte {
	if len(b.rest) == 0 {
		b.fail("flags")
		return 0
	}
	v := b.rest[0]
	if v&^known != 0 {
		b.fail("unknown flags")
		return 0
	}
	b.rest = b.rest[1:]
	return v
}

func (b *body) bytes(what string) []byte {
	size := b.uint(what)
	if size > uint64(len(b.rest)) {
		b.fail(what)
		return nil
	}
	v := b.rest[:size]
	b.rest = b.rest[size:]
	return v
}

func (b *body) method(intern func([]byte) string) string {
	name := b.bytes("method")
	switch {
	case b.bad != "":
		return ""
	case len(name) == 0:
		b.fail("empty method name")
		return ""
	case len(name) > MaxMethod:
		b.fail("method name too long")
		return ""
	}
	if intern != nil {
		if known := intern(name); known != "" {
			return known
		}
	}
	if !utf8.Valid(name) {
		b.fail("method name is not UTF-8")
		return ""
	}
	return string(name)
}

func (b *body) meta() map[string]string {
	count := b.uint("metadata")
	if count == 0 || b.bad != "" {
		return nil
	}
	// The count is the peer's word, so it reserves little; MaxMeta ends the
	// loop early, because of equal keys only one can be empty.
	meta := make(map[string]string, min(count, 16))
	room := MaxMeta
	for ; count > 0 && b.bad == ""; count-- {
		k, v := b.bytes("metadata key"), b.bytes("metadata value")
		if !utf8.Valid(k) || !utf8.Valid(v) {
			b.fail("metadata is not UTF-8")
		}
		if room -= len(k) + len(v); room < 0 {
			b.fail("too much metadata")
		}
		if _, twice := meta[string(k)]; twice {
			b.fail("metadata key twice")
		}
		if b.bad == "" {
			meta[string(k)] = string(v)
		}
	}
	return meta
}
