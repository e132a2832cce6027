package proto

import (
	"bytes"
	"testing"

	"github.com/matryer/is"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/typedrpc/typedrpc/codec/proto/internal/pb"
	"github.com/typedrpc/typedrpc/codec/proto/internal/vtpb"
)

// nested is a Sum in a Sum, and so on; each but the innermost has before beside it.
func nested(levels int, before []byte) []byte {
	const room = 8
	data := make([]byte, levels*(room+len(before)))
	at := len(data)
	for range levels {
		head := protowire.AppendTag(bytes.Clone(before), 3, protowire.BytesType)
		head = protowire.AppendVarint(head, uint64(len(data)-at))
		at -= len(head)
		copy(data[at:], head)
	}
	return data[at:]
}

func TestDecode_deep(t *testing.T) {
	// What a walker that is stricter than the generated methods would stop at.
	overlong := append(protowire.AppendTag(nil, 1, protowire.VarintType), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f)
	group := protowire.AppendTag(protowire.AppendTag(nil, 9, protowire.StartGroupType), 9, protowire.EndGroupType)
	for name, before := range map[string][]byte{"": nil, "an overlong number": overlong, "an unknown group": group} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			is.NoErr(Codec{}.Decode(nested(9_900, before), new(vtpb.Sum)))
			is.True(Codec{}.Decode(nested(20_000, before), new(vtpb.Sum)) != nil)
			is.True(Codec{}.Decode(nested(200_000, before), new(vtpb.Sum)) != nil)
		})
	}
	is := is.New(t)
	is.NoErr(Codec{}.Decode(nested(9_900, nil), new(pb.Sum)))
	is.True(Codec{}.Decode(nested(20_000, nil), new(pb.Sum)) != nil)
}

// What is long and not deep is taken, whatever a text looks like.
func TestDecode_long(t *testing.T) {
	is := is.New(t)
	for _, text := range []string{string(bytes.Repeat([]byte("\x1a\x02"), 100_000)), string(bytes.Repeat([]byte("a"), 1<<20)), string(make([]byte, 1<<20))} {
		sum := &vtpb.Sum{Text: text, Parts: []*vtpb.Sum{{Text: text}, {Number: 1}}}
		data, err := Codec{}.Append(nil, sum)
		is.NoErr(err)
		got := new(vtpb.Sum)
		is.NoErr(Codec{}.Decode(data, got))
		is.Equal(got.Text, text)
		is.Equal(got.Parts[0].Text, text)
	}
}
