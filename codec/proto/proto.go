// Package proto carries protobuf's messages over typedrpc, in the format that all
// protobuf libraries read.
//
//	var GetFeature = typedrpc.NewMethod[*pb.Point, *pb.Feature]("RouteGuide.GetFeature",
//		typedrpc.Alloc[pb.Point](), typedrpc.Alloc[pb.Feature]())
//
//	srv := &typedrpc.Server{Mux: mux, Codecs: []typedrpc.Codec{proto.Codec{}}}
//	conn, err := typedrpc.Dial(ctx, url, &typedrpc.DialOptions{Codecs: []typedrpc.Codec{proto.Codec{}}})
//
// Messages are used by pointer, and each declaration has an Alloc for each of its message
// types: Server.Check, and a dial, fail without. They are neither copied nor made by reflection.
// A message that vtprotobuf has generated methods for is encoded and decoded by those, any
// other by google.golang.org/protobuf.
package proto

import (
	"fmt"
	"slices"

	"github.com/typedrpc/typedrpc"
	"google.golang.org/protobuf/proto"
)

// Codec is the codec "proto", for Server.Codecs and DialOptions.Codecs. It is safe for
// concurrent use.
//
// It carries protobuf's messages, typedrpc's Raw (the encoding of any message) and struct{} (a
// message without fields), and Go's strings, byte slices, booleans, integers and
// floating-point numbers as the messages of google/protobuf/wrappers.proto: an int as an
// Int64Value, a uint as a UInt64Value, others by their own size.
//
// A string that is not UTF-8 is refused, by the sender and by the receiver, as the format
// demands it: but not in messages that vtprotobuf's methods encode, which do not look. These
// refuse a field whose type on the wire is another, where the others take it for unknown.
// Members that are not known are kept where the message can keep them. Decoding resets a
// message first. Messages inside of messages are refused beyond a depth of 10,000.
type Codec struct{}

// Name is "proto": the subprotocol is typedrpc.v1.proto.
func (Codec) Name() string { return "proto" }

// fast is a message that vtprotobuf has generated methods for.
type fast interface {
	SizeVT() int
	MarshalToSizedBufferVT([]byte) (int, error)
	UnmarshalVT([]byte) error
}

// Append appends v's encoding to dst.
func (Codec) Append(dst []byte, v any) ([]byte, error) {
	switch m := v.(type) {
	case fast:
		from, size := len(dst), m.SizeVT()
		dst = slices.Grow(dst, size)[:from+size]
		_, err := m.MarshalToSizedBufferVT(dst[from:])
		return dst, err
	case proto.Message:
		return proto.MarshalOptions{}.MarshalAppend(dst, m)
	case *typedrpc.Raw:
		return append(dst, *m...), nil
	case *struct{}:
		return dst, nil
	}
	return appendWrapped(dst, v)
}

// Decode reads data into v.
func (Codec) Decode(data []byte, v any) error {
	switch m := v.(type) {
	case fast:
		if r, ok := v.(interface{ Reset() }); ok { // theirs adds to what there is
			r.Reset()
		}
		if tooDeep(data) {
			return errDepth
		}
		return m.UnmarshalVT(data)
	case proto.Message:
		return proto.Unmarshal(data, m)
	case *typedrpc.Raw:
		*m = append((*m)[:0], data...)
		return nil
	case *struct{}:
		return nil
	}
	return decodeWrapped(data, v)
}

// Check refuses what is no message of protobuf's, and none of the types that Codec's comment
// names.
func (c Codec) Check(v any) error {
	switch v.(type) {
	case fast, proto.Message:
		return nil
	}
	_, err := c.Append(nil, v)
	return err
}

// unknown is why v cannot be carried.
func unknown(v any) error {
	return fmt.Errorf("%T is a pointer to no message of protobuf's: those are used by pointer, and their declarations have an Alloc of them", v)
}
