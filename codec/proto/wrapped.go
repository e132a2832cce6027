package proto

import (
	"errors"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// The messages of google/protobuf/wrappers.proto have one field, of number 1, which
// is left out when it is zero.
const field = 1

var errUTF8 = errors.New("a string is not UTF-8")

func appendWrapped(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case *string:
		if !utf8.ValidString(*v) {
			return dst, errUTF8
		}
		if *v == "" {
			return dst, nil
		}
		return protowire.AppendString(protowire.AppendTag(dst, field, protowire.BytesType), *v), nil
	case *[]byte:
		if len(*v) == 0 {
			return dst, nil
		}
		return protowire.AppendBytes(protowire.AppendTag(dst, field, protowire.BytesType), *v), nil
	case *bool:
		return appendVarint(dst, protowire.EncodeBool(*v)), nil
	case *int:
		return appendVarint(dst, uint64(*v)), nil
	case *int64:
		return appendVarint(dst, uint64(*v)), nil
	case *int32:
		return appendVarint(dst, uint64(*v)), nil
	case *uint:
		return appendVarint(dst, uint64(*v)), nil
	case *uint64:
		return appendVarint(dst, *v), nil
	case *uint32:
		return appendVarint(dst, uint64(*v)), nil
	case *float64:
		if bits := math.Float64bits(*v); bits != 0 {
			dst = protowire.AppendFixed64(protowire.AppendTag(dst, field, protowire.Fixed64Type), bits)
		}
		return dst, nil
	case *float32:
		if bits := math.Float32bits(*v); bits != 0 {
			dst = protowire.AppendFixed32(protowire.AppendTag(dst, field, protowire.Fixed32Type), bits)
		}
		return dst, nil
	}
	return dst, unknown(v)
}

func appendVarint(dst []byte, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, field, protowire.VarintType), v)
}

func decodeWrapped(data []byte, v any) error {
	switch v := v.(type) {
	case *string:
		b, err := bytesOf(data)
		if err == nil && !utf8.Valid(b) {
			err = errUTF8
		}
		*v = string(b)
		return err
	case *[]byte:
		b, err := bytesOf(data)
		*v = append((*v)[:0], b...)
		return err
	case *bool:
		n, err := numberOf(data, protowire.VarintType)
		*v = n != 0
		return err
	case *int:
		n, err := numberOf(data, protowire.VarintType)
		*v = int(n)
		return err
	case *int64:
		n, err := numberOf(data, protowire.VarintType)
		*v = int64(n)
		return err
	case *int32: // protobuf cuts what is too large, also in other languages
		n, err := numberOf(data, protowire.VarintType)
		*v = int32(n)
		return err
	case *uint:
		n, err := numberOf(data, protowire.VarintType)
		*v = uint(n)
		return err
	case *uint64:
		n, err := numberOf(data, protowire.VarintType)
		*v = n
		return err
	case *uint32:
		n, err := numberOf(data, protowire.VarintType)
		*v = uint32(n)
		return err
	case *float64:
		n, err := numberOf(data, protowire.Fixed64Type)
		*v = math.Float64frombits(n)
		return err
	case *float32:
		n, err := numberOf(data, protowire.Fixed32Type)
		*v = math.Float32frombits(uint32(n))
		return err
	}
	return unknown(v)
}

// valueOf is what the last field of that number and type has. Others are skipped, as
// protobuf does.
func valueOf(data []byte, typ protowire.Type) (value []byte, err error) {
	for len(data) > 0 {
		number, t, n := protowire.ConsumeTag(data)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		data = data[n:]
		if n = protowire.ConsumeFieldValue(number, t, data); n < 0 {
			return nil, protowire.ParseError(n)
		}
		if number == field && t == typ {
			value = data[:n]
		}
		data = data[n:]
	}
	return value, nil
}

func bytesOf(data []byte) ([]byte, error) {
	value, err := valueOf(data, protowire.BytesType)
	if value == nil {
		return nil, err
	}
	b, _ := protowire.ConsumeBytes(value)
	return b, nil
}

func numberOf(data []byte, typ protowire.Type) (n uint64, err error) {
	value, err := valueOf(data, typ)
	if value == nil {
		return 0, err
	}
	switch typ {
	case protowire.Fixed64Type:
		n, _ = protowire.ConsumeFixed64(value)
	case protowire.Fixed32Type:
		short, _ := protowire.ConsumeFixed32(value)
		n = uint64(short)
	default:
		n, _ = protowire.ConsumeVarint(value)
	}
	return n, nil
}
