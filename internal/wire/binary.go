package wire

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
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
//	HEAD            id · meta
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
	itemPrompt   = 0x02
)

// maxFields is more than the header and all integers of any one body take.
const maxFields = 72

// BinarySize returns an upper bound on the length of f's binary encoding. It
// is cheap and safe for concurrent use.
func BinarySize(f *Frame) int {
	// Repairing a message that is not UTF-8 turns one byte into three.
	n := maxFields + len(f.Method) + 3*len(f.Message) + len(f.Payload)
	if own := f.ownMeta(); own > 0 {
		n += 4*binary.MaxVarintLen32 + own
	}
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
	if f.Type == Fail {
		if err := checkFault(f); err != nil {
			return err
		}
		return checkMeta(f.Meta, f.ownMeta())
	}
	if f.Type.hasMeta() {
		return checkMeta(f.Meta, 0)
	}
	return nil
}

// ownMeta is what a binary FAIL's metadata has beside the program's, in bytes.
func (f *Frame) ownMeta() (n int) {
	if f.Fault != "" {
		n += len(metaFault) + len(f.Fault)
	}
	if f.Number != 0 {
		n += len(metaNumber) + maxDigits
	}
	return n
}

// maxDigits is how long a number of 64 bits can be.
const maxDigits = 20

// needsID reports whether frames of type t name a call. In CREDIT and CHUNK 0
// is the notification flow.
func (t Type) needsID() bool {
	switch t {
	case Call, Result, Fail, Cancel, Item, End, Head:
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
		dst = appendFailMeta(dst, f)
	case Item:
		dst = binary.AppendUvarint(dst, f.ID)
		var flags byte
		if f.Flags&History != 0 {
			flags |= itemHistory
		}
		if f.Flags&Prompt != 0 {
			flags |= itemPrompt
		}
		dst = append(dst, flags)
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
	case Head:
		dst = binary.AppendUvarint(dst, f.ID)
		return appendMeta(dst, f.Meta)
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

// appendFailMeta appends a FAIL's metadata, with the name of its fault and a plain
// peer's code in it.
func appendFailMeta(dst []byte, f *Frame) []byte {
	var room [16]string
	keys := slices.DeleteFunc(sortedKeys(room[:0], f.Meta), func(k string) bool {
		return k == metaFault || k == metaNumber // a program's own would pass for ours
	})
	own := func(key string, has bool) {
		if i, found := slices.BinarySearch(keys, key); has && !found {
			keys = slices.Insert(keys, i, key)
		}
	}
	own(metaFault, f.Fault != "")
	own(metaNumber, f.Number != 0)
	dst = binary.AppendUvarint(dst, uint64(len(keys)))
	for _, k := range keys {
		dst = appendLenString(dst, k)
		switch k {
		case metaFault:
			dst = appendLenString(dst, f.Fault)
		case metaNumber:
			var digits [maxDigits]byte
			text := strconv.AppendInt(digits[:0], f.Number, 10)
			dst = append(binary.AppendUvarint(dst, uint64(len(text))), text...)
		default:
			dst = appendLenString(dst, f.Meta[k])
		}
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
