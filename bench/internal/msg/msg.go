// Package msg has what all peers send: two integers and a string of 16 bytes, answered by an
// integer and a string of 32 bytes.
package msg

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// What is sent, and what comes back.
const (
	Tag  = "0123456789abcdef"
	Text = "0123456789abcdef0123456789abcdef"
)

// ItemSize is how many bytes an item of a stream has, and a message that is broadcast.
const ItemSize = 64

//go:generate msgp -io=false -tests=false

// Request is the request of a small call.
type Request struct {
	A   int64  `msg:"a"`
	B   int64  `msg:"b"`
	Tag string `msg:"tag"`
}

// Reply is its reply.
type Reply struct {
	Sum  int64  `msg:"sum"`
	Text string `msg:"text"`
}

// Answer is what every server's handler does.
func Answer(r Request) Reply { return Reply{Sum: r.A + r.B, Text: Text} }

// Verify reports a reply that is not the answer to r.
func Verify(r Request, got Reply) error {
	if got.Sum != r.A+r.B || len(got.Text) != len(Text) {
		return fmt.Errorf("%+v is answered by %+v", r, got)
	}
	return nil
}

var errShort = errors.New("the message is short")

// Append appends r as the floors and the codec written by hand have it.
func (r *Request) Append(dst []byte) []byte {
	dst = binary.AppendVarint(dst, r.A)
	dst = binary.AppendVarint(dst, r.B)
	return append(dst, r.Tag...)
}

// Decode reads what Append wrote.
func (r *Request) Decode(data []byte) error {
	a, n := binary.Varint(data)
	if n <= 0 {
		return errShort
	}
	b, m := binary.Varint(data[n:])
	if m <= 0 {
		return errShort
	}
	*r = Request{A: a, B: b, Tag: string(data[n+m:])}
	return nil
}

// Append appends r as the floors and the codec written by hand have it.
func (r *Reply) Append(dst []byte) []byte {
	dst = binary.AppendVarint(dst, r.Sum)
	return append(dst, r.Text...)
}

// Decode reads what Append wrote.
func (r *Reply) Decode(data []byte) error {
	sum, n := binary.Varint(data)
	if n <= 0 {
		return errShort
	}
	*r = Reply{Sum: sum, Text: string(data[n:])}
	return nil
}
