// Package msgp carries messages over typedrpc as MessagePack, with the methods that
// github.com/tinylib/msgp generates for their types: without reflection.
//
//	//go:generate go run github.com/tinylib/msgp@latest -io=false -tests=false
//
//	type Numbers struct {
//		A int `msg:"a"`
//		B int `msg:"b"`
//	}
//
//	var Multiply = typedrpc.NewMethod[Numbers, int]("math.multiply")
//
//	srv := &typedrpc.Server{Mux: mux, Codecs: []typedrpc.Codec{msgp.Codec{}}}
//	conn, err := typedrpc.Dial(ctx, url, &typedrpc.DialOptions{Codecs: []typedrpc.Codec{msgp.Codec{}}})
//
// A message that is used by pointer needs an Alloc in its declaration. What has no methods is
// refused by Server.Check, and by a dial.
package msgp

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/tinylib/msgp/msgp"

	"github.com/typedrpc/typedrpc"
)

// Codec is the codec "msgp", for Server.Codecs and DialOptions.Codecs. It is safe for
// concurrent use.
//
// It carries types with the methods MarshalMsg and UnmarshalMsg, typedrpc's Raw (one value as
// it is encoded) and struct{} (an empty map; when it comes, any value), and Go's strings, byte slices,
// booleans, integers and floating-point numbers.
//
// Before a message is decoded it is walked through once: generated code believes what a list
// says of its length, and five bytes would have it make four thousand million elements.
// What comes behind a message is refused, and so are a string that is no field, and is not
// UTF-8, a number that its type cannot hold, and lists and maps that are deeper inside of each
// other than 1,000.
type Codec struct{}

// Name is "msgp": the subprotocol is typedrpc.v1.msgp.
func (Codec) Name() string { return "msgp" }

// Append appends v's encoding to dst.
func (Codec) Append(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case msgp.Marshaler:
		return v.MarshalMsg(dst)
	case *typedrpc.Raw:
		if len(*v) == 0 {
			return msgp.AppendNil(dst), nil
		}
		return append(dst, *v...), nil
	case *struct{}:
		return msgp.AppendMapHeader(dst, 0), nil
	case *string:
		if !utf8.ValidString(*v) {
			return dst, errUTF8
		}
		return msgp.AppendString(dst, *v), nil
	case *[]byte:
		return msgp.AppendBytes(dst, *v), nil
	case *bool:
		return msgp.AppendBool(dst, *v), nil
	case *int:
		return msgp.AppendInt(dst, *v), nil
	case *int64:
		return msgp.AppendInt64(dst, *v), nil
	case *int32:
		return msgp.AppendInt32(dst, *v), nil
	case *uint:
		return msgp.AppendUint(dst, *v), nil
	case *uint64:
		return msgp.AppendUint64(dst, *v), nil
	case *uint32:
		return msgp.AppendUint32(dst, *v), nil
	case *float64:
		return msgp.AppendFloat64(dst, *v), nil
	case *float32:
		return msgp.AppendFloat32(dst, *v), nil
	}
	return dst, unknown(v)
}

var (
	errUTF8   = errors.New("a string is not UTF-8")
	errBehind = errors.New("there is more behind the message")
)

// maxDepth bounds the stack that a few bytes can take, and what an error costs: generated code
// writes down all that leads to it, once for each level.
const maxDepth = 1000

var errDepth = errors.New("lists or maps are too deep inside of each other")

// walk finds the end of the first value.
func walk(data []byte) (rest []byte, err error) {
	left := []uint64{1} // values to come, of each list and map that is open
	for len(left) > 0 {
		last := len(left) - 1
		if left[last] == 0 {
			left = left[:last]
			continue
		}
		left[last]--
		var n uint32
		values := uint64(1)
		switch msgp.NextType(data) {
		case msgp.MapType:
			n, data, err = msgp.ReadMapHeaderBytes(data)
			values = 2
		case msgp.ArrayType:
			n, data, err = msgp.ReadArrayHeaderBytes(data)
		default:
			data, err = msgp.Skip(data)
		}
		switch {
		case err != nil:
			return data, err
		case n == 0:
		case len(left) > maxDepth:
			return data, errDepth
		default:
			left = append(left, values*uint64(n))
		}
	}
	return data, nil
}

// Decode reads data into v.
func (Codec) Decode(data []byte, v any) error {
	rest, err := walk(data)
	switch {
	case err != nil:
		return err
	case len(rest) > 0:
		return errBehind
	}
	switch v := v.(type) {
	case msgp.Unmarshaler:
		_, err = v.UnmarshalMsg(data)
	case *typedrpc.Raw:
		*v = append((*v)[:0], data...)
	case *struct{}:
	case *string:
		if *v, _, err = msgp.ReadStringBytes(data); err == nil && !utf8.ValidString(*v) {
			err = errUTF8
		}
	case *[]byte:
		*v, _, err = msgp.ReadBytesBytes(data, (*v)[:0])
	case *bool:
		*v, _, err = msgp.ReadBoolBytes(data)
	case *int:
		*v, _, err = msgp.ReadIntBytes(data)
	case *int64:
		*v, _, err = msgp.ReadInt64Bytes(data)
	case *int32:
		*v, _, err = msgp.ReadInt32Bytes(data)
	case *uint:
		*v, _, err = msgp.ReadUintBytes(data)
	case *uint64:
		*v, _, err = msgp.ReadUint64Bytes(data)
	case *uint32:
		*v, _, err = msgp.ReadUint32Bytes(data)
	case *float64:
		*v, _, err = msgp.ReadFloat64Bytes(data)
	case *float32:
		*v, _, err = msgp.ReadFloat32Bytes(data)
	default:
		err = unknown(v)
	}
	return err
}

// Check refuses what has no methods, and is none of the types that Codec's comment names.
func (c Codec) Check(v any) error {
	_, writes := v.(msgp.Marshaler)
	if _, reads := v.(msgp.Unmarshaler); reads != writes {
		return fmt.Errorf("%T has one of the methods MarshalMsg and UnmarshalMsg, and needs both", v)
	}
	if writes {
		return nil
	}
	_, err := c.Append(nil, v)
	return err
}

// unknown is why v cannot be carried.
func unknown(v any) error {
	return fmt.Errorf("%T has no method MarshalMsg: generate it with github.com/tinylib/msgp; a message that is used by pointer needs an Alloc", v)
}
