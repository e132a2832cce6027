package wire

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// The binary dialect, PROTOCOL.md section 6. A frame is a header of four bytes
// and a body:
//
//	byte 0      type (5 bits), MORE, FROM_CALLER, COUNTED
//	bytes 1-3   length of the body, little-endian
//
//	HELLO WELCOME AUTH AUTH_OK GOAWAY   JSON object, see handshake.go
//	PING ACK        position
//	CALL            id · flags and kind · time left · method · meta · payload
//	RESULT          id · meta · payload
//	FAIL            id · flags · code · message · retry after · meta · data
//	CANCEL END      id
//	ITEM            id · flags · dropped · payload
//	CREDIT          id · items · window
//	NOTIFY          method · meta · payload
//	CHUNK           id · payload
//
// Integers are unsigned varints, the code is a zigzag varint, strings have
// their length in front, meta is a count and that many keys and values, the
// payload is the rest. Flags are one byte.
const (
	headerSize = 4

	typeMask      = 0x1f
	bitMore       = 0x20
	bitFromCaller = 0x40
	bitCounted    = 0x80

	callKindMask = 0x03
	callLane     = 0x04
	callNoItems  = 0x08
	callFlags    = callKindMask | callLane | callNoItems
	failNotRun   = 0x01
	itemHistory  = 0x01
)

// maxFields is more than the header and all integers of any one body take.
const maxFields = 72

// BinarySize returns an upper bound on the length of f's binary encoding. It
// is cheap and safe for concurrent use.
func BinarySize(f *Frame) int {
	// Repairing a message that is not UTF-8 turns one byte into three.
	n := maxFields + len(f.Method) + 3*len(f.Message) + len(f.Payload)
	for k, v := range f.Meta {
		n += 2*binary.MaxVarintLen32 + len(k) + len(v)
	}
	return n
}

// AppendBinary appends f's binary encoding (PROTOCOL.md section 6) to dst and
// returns the extended slice. FROM_CALLER is set on CALL, CANCEL and END
// whatever f.Flags says, and COUNTED by type. It does not allocate when dst
// has room, and is safe for concurrent use.
//
// It fails with ErrTooLarge when the body, the method name or the metadata is
// over its limit, and with ErrNotEncodable when a decoder would have to refuse
// the frame; then dst is returned unchanged.
func AppendBinary(dst []byte, f *Frame) ([]byte, error) {
	if err := checkBinary(f); err != nil {
		return dst, err
	}
	out := append(dst, binaryHeader(f), 0, 0, 0)
	out = appendBody(out, f)
	size := len(out) - len(dst) - headerSize
	if size > MaxBody {
		return dst, fmt.Errorf("%w: %v with a body of %d bytes", ErrTooLarge, f.Type, size)
	}
	header := out[len(dst):]
	header[1], header[2], header[3] = byte(size), byte(size>>8), byte(size>>16)
	return out, nil
}

func checkBinary(f *Frame) error {
	switch {
	case f.Type == Invalid || f.Type > MaxType:
		return fmt.Errorf("%w: type %d", ErrNotEncodable, f.Type)
	case len(f.Payload) > MaxBody: // before it is copied for nothing
		return fmt.Errorf("%w: %v with a payload of %d bytes", ErrTooLarge, f.Type, len(f.Payload))
	case f.ID == 0 && f.Type.needsID():
		return fmt.Errorf("%w: %v without an id", ErrNotEncodable, f.Type)
	case f.Type == Credit && f.Items == 0:
		return fmt.Errorf("%w: CREDIT of 0 items", ErrNotEncodable)
	case f.Flags&More != 0 && !f.Type.mayContinue():
		return fmt.Errorf("%w: %v with MORE", ErrNotEncodable, f.Type)
	case f.Type == Call && f.Kind > BidiStream:
		return fmt.Errorf("%w: kind %d", ErrNotEncodable, f.Kind)
	}
	if f.Type == Call || f.Type == Notify {
		if err := checkMethod(f.Method); err != nil {
			return err
		}
	}
	if f.Type.hasMeta() {
		return checkMeta(f.Meta)
	}
	return nil
}

// needsID reports whether frames of type t name a call. In CREDIT and CHUNK 0
// is the notification flow.
func (t Type) needsID() bool {
	switch t {
	case Call, Result, Fail, Cancel, Item, End:
		return true
	}
	return false
}

// mayContinue reports whether MORE means something on frames of type t. Types
// of the future may give it a meaning.
func (t Type) mayContinue() bool {
	switch t {
	case Call, Result, Item, Notify, Chunk:
		return true
	}
	return t >= numTypes
}

// mayBeCaller reports whether frames of type t can come from the caller.
func (t Type) mayBeCaller() bool {
	switch t {
	case Call, Cancel, End, Item, Credit, Chunk:
		return true
	}
	return t >= numTypes
}

// isCaller reports whether frames of type t come from the caller only.
func (t Type) isCaller() bool { return t == Call || t == Cancel || t == End }

func binaryHeader(f *Frame) byte {
	b := byte(f.Type)
	if f.Flags&More != 0 {
		b |= bitMore
	}
	if f.Type.isCaller() || f.Flags&FromCaller != 0 && f.Type.mayBeCaller() {
		b |= bitFromCaller
	}
	if f.Type.Counted() || f.Type >= numTypes && f.Flags&CountedBit != 0 {
		b |= bitCounted
	}
	return b
}

func appendBody(dst []byte, f *Frame) []byte {
	switch f.Type {
	case Ping, Ack:
		return binary.AppendUvarint(dst, f.Position)
	case Cancel, End:
		return binary.AppendUvarint(dst, f.ID)
	case Call:
		flags := byte(f.Kind)
		if f.Flags&Lane != 0 {
			flags |= callLane
		}
		if f.Flags&NoItems != 0 {
			flags |= callNoItems
		}
		dst = binary.AppendUvarint(dst, f.ID)
		dst = append(dst, flags)
		dst = binary.AppendUvarint(dst, f.TimeLeft)
		dst = appendLenString(dst, f.Method)
		dst = appendMeta(dst, f.Meta)
	case Result:
		dst = binary.AppendUvarint(dst, f.ID)
		dst = appendMeta(dst, f.Meta)
	case Fail:
		dst = binary.AppendUvarint(dst, f.ID)
		dst = appendFlag(dst, f.Flags&NotRun != 0, failNotRun)
		dst = binary.AppendVarint(dst, f.Code)
		// Text for people is repaired rather than refused: an error's message
		// must not cost the error.
		dst = appendLenString(dst, strings.ToValidUTF8(f.Message, "\uFFFD"))
		dst = binary.AppendUvarint(dst, f.RetryAfter)
		dst = appendMeta(dst, f.Meta)
	case Item:
		dst = binary.AppendUvarint(dst, f.ID)
		dst = appendFlag(dst, f.Flags&History != 0, itemHistory)
		dst = binary.AppendUvarint(dst, f.Dropped)
	case Credit:
		dst = binary.AppendUvarint(dst, f.ID)
		dst = binary.AppendUvarint(dst, f.Items)
		return binary.AppendUvarint(dst, f.Window)
	case Notify:
		dst = appendLenString(dst, f.Method)
		dst = appendMeta(dst, f.Meta)
	case Chunk:
		dst = binary.AppendUvarint(dst, f.ID)
	}
	return append(dst, f.Payload...)
}

func appendFlag(dst []byte, set bool, bit byte) []byte {
	if set {
		return append(dst, bit)
	}
	return append(dst, 0)
}

func appendLenString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

func appendMeta(dst []byte, meta map[string]string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(meta)))
	var room [16]string
	for _, k := range sortedKeys(room[:0], meta) {
		dst = appendLenString(dst, k)
		dst = appendLenString(dst, meta[k])
	}
	return dst
}

// sortedKeys makes encodings repeatable, which golden files and replay logs
// like. The caller passes room on its stack for the usual handful.
func sortedKeys(room []string, meta map[string]string) []string {
	for k := range meta {
		room = append(room, k)
	}
	slices.Sort(room)
	return room
}

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
	case Result:
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
		f.Meta = b.meta()
	case Item:
		f.ID = b.id()
		if b.flags(itemHistory) != 0 {
			f.Flags |= History
		}
		f.Dropped = b.uint("dropped")
	case Notify:
		f.Method = b.method(intern)
		f.Meta = b.meta()
	case Chunk:
		f.ID = b.uint("id")
	}
	if len(b.rest) > 0 {
		f.Payload = b.rest
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
