package proto

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
)

// maxDepth is how deep messages may be inside of each other, by google.golang.org/protobuf
// too.
const maxDepth = protowire.DefaultRecursionLimit

var errDepth = errors.New("messages are too deep inside of each other")

// tooDeep reports whether decoding data may go deeper than maxDepth. vtprotobuf's methods do
// not look, and a few bytes a level let them use up the stack, which ends the program.
//
// Which fields are messages it does not know: it goes into all that have a length, takes no
// offence at anything that those methods take, and leaves what is no message. So a field of
// bytes that reads as messages counts as such. It goes through data once.
func tooDeep(data []byte) bool {
	if len(data) < 2*maxDepth { // a level has a tag and a length
		return false
	}
	ends := []int{len(data)} // of the messages that at is in
	for at := 0; len(ends) > 0; {
		end := ends[len(ends)-1]
		length, ok := 0, false
		if at < end {
			at, length, ok = skip(data[:end], at)
		}
		switch {
		case !ok: // its end, or no message
			at, ends = end, ends[:len(ends)-1]
		case length > 0:
			if len(ends) > maxDepth {
				return true
			}
			ends = append(ends, at+length)
		}
	}
	return false
}

// skip goes behind the field at at, or to the content of one that has a length.
func skip(data []byte, at int) (next, length int, ok bool) {
	tag, at, ok := varint(data, at)
	if !ok {
		return at, 0, false
	}
	switch protowire.Type(tag & 7) {
	case protowire.VarintType:
		_, at, ok = varint(data, at)
	case protowire.Fixed64Type:
		at += 8
	case protowire.Fixed32Type:
		at += 4
	case protowire.BytesType:
		var size uint64
		if size, at, ok = varint(data, at); size > uint64(len(data)) {
			return at, 0, false
		}
		length = int(size)
	case protowire.StartGroupType, protowire.EndGroupType: // its fields are as those around it
	default:
		ok = false
	}
	return at, length, ok && at+length <= len(data)
}

// varint is as generous as the generated methods: bits beyond 64 are lost.
func varint(data []byte, at int) (v uint64, next int, ok bool) {
	for shift := 0; shift < 64 && at < len(data); shift += 7 {
		b := data[at]
		at++
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v, at, true
		}
	}
	return 0, at, false
}
