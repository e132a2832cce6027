package msgp_test

import (
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/codec/msgp"
	"github.com/typedrpc/typedrpc/codec/msgp/internal/sum"
)

// nested is a Sum in a Sum, and so on, and a wrong value in the innermost.
func nested(levels int) (data []byte) {
	for range levels {
		data = append(data, 0x81, 0xa5, 'p', 'a', 'r', 't', 's', 0x91)
	}
	return append(data, 0xc3)
}

// What is wrong far inside does not cost as much as all that leads to it, at each level anew.
func TestDecode_deep(t *testing.T) {
	is := is.New(t)
	err := msgp.Codec{}.Decode(nested(499), new(sum.Sum))
	is.True(err != nil)
	for _, levels := range []int{501, 10_000, 45_000} {
		err := msgp.Codec{}.Decode(nested(levels), new(sum.Sum))
		is.True(err != nil)
		is.Equal(err.Error(), "lists or maps are too deep inside of each other")
	}
	var raw typedrpc.Raw
	is.NoErr(msgp.Codec{}.Decode(append(nested(500)[:500*8-8], 0x90), &raw))
}
