package lab

import (
	"encoding/binary"
	"fmt"
)

// BenchReq and BenchResp are the messages of the benchmarks: two integers and a
// 16-byte string there, an integer and a 32-byte string back.
type BenchReq struct {
	A, B int64
	Tag  string
}

type BenchResp struct {
	Sum  int64
	Text string
}

// BenchText is the text of a reply.
const BenchText = "0123456789abcdef0123456789abcdef"

// Fixed is a codec without reflection: what a generated one would do.
type Fixed struct{}

func (Fixed) Name() string { return "fixed" }

func (Fixed) Check(any) error { return nil }

func (Fixed) Append(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case *BenchReq:
		dst = binary.AppendVarint(dst, v.A)
		dst = binary.AppendVarint(dst, v.B)
		return append(dst, v.Tag...), nil
	case *BenchResp:
		dst = binary.AppendVarint(dst, v.Sum)
		return append(dst, v.Text...), nil
	case *[]byte:
		return append(dst, *v...), nil
	}
	return dst, fmt.Errorf("no %T", v)
}

func (Fixed) Decode(data []byte, v any) error {
	var n int
	switch v := v.(type) {
	case *BenchReq:
		v.A, n = binary.Varint(data)
		data = data[n:]
		v.B, n = binary.Varint(data)
		v.Tag = string(data[n:])
		return nil
	case *BenchResp:
		v.Sum, n = binary.Varint(data)
		v.Text = string(data[n:])
		return nil
	case *[]byte:
		*v = append((*v)[:0], data...)
		return nil
	}
	return fmt.Errorf("no %T", v)
}
