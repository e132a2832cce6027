package proto_test

import (
	"bytes"
	"math"
	"testing"

	"github.com/matryer/is"
	googleproto "google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/codec/proto"
	"github.com/typedrpc/typedrpc/codec/proto/internal/pb"
	"github.com/typedrpc/typedrpc/codec/proto/internal/vtpb"
	"github.com/typedrpc/typedrpc/internal/testkit/codecs"
)

// plain is a message that protobuf does not know.
type plain struct{ Number int }

var foreign = typedrpc.NewMethod[plain, plain]("foreign")

// forgotten are the traits of a declaration: an Alloc is not among them, where go vet would see it.
var forgotten []typedrpc.MethodTrait

var byValue = typedrpc.NewMethod[*pb.Sum, *pb.Sum]("value", forgotten...)

func TestCodec_messages(t *testing.T) {
	codecs.Run(t, codecs.Kit[*pb.Sum]{
		Codec: proto.Codec{}, Alloc: []typedrpc.Trait{typedrpc.Alloc[pb.Sum]()},
		New:     func(n int64, text string) *pb.Sum { return &pb.Sum{Number: n, Text: text} },
		Values:  func(m *pb.Sum) (int64, string) { return m.GetNumber(), m.GetText() },
		Broken:  []byte{0x08},
		Foreign: func(mux *typedrpc.Mux) { codecs.Handle(mux, foreign) },
	})
}

func TestCodec_vtprotobuf(t *testing.T) {
	codecs.Run(t, codecs.Kit[*vtpb.Sum]{
		Codec: proto.Codec{}, Alloc: []typedrpc.Trait{typedrpc.Alloc[vtpb.Sum]()},
		New:     func(n int64, text string) *vtpb.Sum { return &vtpb.Sum{Number: n, Text: text} },
		Values:  func(m *vtpb.Sum) (int64, string) { return m.GetNumber(), m.GetText() },
		Broken:  []byte{0x12, 0x05, 'a'},
		Foreign: func(mux *typedrpc.Mux) { codecs.Handle(mux, byValue) },
	})
}

// Both ways of encoding write the same bytes, and read each other's, with members that
// they do not know.
func TestCodec_oneFormat(t *testing.T) {
	is := is.New(t)
	var c proto.Codec
	slow := &pb.Sum{Number: 7, Text: "seven", Parts: []*pb.Sum{{Number: 3}, {Text: "four"}}}
	quick := &vtpb.Sum{Number: 7, Text: "seven", Parts: []*vtpb.Sum{{Number: 3}, {Text: "four"}}}
	one, err := c.Append([]byte("before"), slow)
	is.NoErr(err)
	two, err := c.Append([]byte("before"), quick)
	is.NoErr(err)
	is.Equal(one, two)
	is.True(bytes.HasPrefix(one, []byte("before")))
	more := append(one[len("before"):], 0x7a, 1, 'x') // field 15
	fresh := &vtpb.Sum{Parts: []*vtpb.Sum{{Number: 99}}}
	is.NoErr(c.Decode(more, fresh))
	is.Equal(len(fresh.Parts), 2) // it was reset
	is.Equal(fresh.Parts[1].Text, "four")
	back, err := c.Append(nil, fresh)
	is.NoErr(err)
	is.Equal(back, more) // what it does not know is kept
	old := &pb.Sum{}
	is.NoErr(c.Decode(more, old))
	is.True(googleproto.Equal(old.Parts[0], slow.Parts[0]))
}

// Values that are no messages are those of wrappers.proto: what its own library reads and
// writes.
func TestCodec_wrapped(t *testing.T) {
	var c proto.Codec
	for name, tt := range map[string]struct {
		value, zero any
		message     googleproto.Message
	}{
		"string":        {new("häl\x00lo"), new(string), wrapperspb.String("häl\x00lo")},
		"no string":     {new(""), new(string), wrapperspb.String("")},
		"bytes":         {new([]byte{0, 255}), new([]byte), wrapperspb.Bytes([]byte{0, 255})},
		"bool":          {new(true), new(bool), wrapperspb.Bool(true)},
		"int":           {new(-3), new(int), wrapperspb.Int64(-3)},
		"int64":         {new(int64(math.MinInt64)), new(int64), wrapperspb.Int64(math.MinInt64)},
		"int32":         {new(int32(math.MinInt32)), new(int32), wrapperspb.Int32(math.MinInt32)},
		"uint":          {new(uint(3)), new(uint), wrapperspb.UInt64(3)},
		"uint64":        {new(uint64(math.MaxUint64)), new(uint64), wrapperspb.UInt64(math.MaxUint64)},
		"uint32":        {new(uint32(math.MaxUint32)), new(uint32), wrapperspb.UInt32(math.MaxUint32)},
		"float64":       {new(-1.5), new(float64), wrapperspb.Double(-1.5)},
		"negative zero": {new(math.Copysign(0, -1)), new(float64), wrapperspb.Double(math.Copysign(0, -1))},
		"float32":       {new(float32(1.5)), new(float32), wrapperspb.Float(1.5)},
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			want, err := googleproto.Marshal(tt.message)
			is.NoErr(err)
			got, err := c.Append(nil, tt.value)
			is.NoErr(err)
			is.Equal(string(got), string(want))
			twice := append(append([]byte{0x7a, 1, 'x'}, want...), want...)
			is.NoErr(c.Decode(twice, tt.zero)) // the last of several, and nothing of other fields
			is.Equal(tt.zero, tt.value)
			is.NoErr(c.Check(tt.zero))
		})
	}
}

func TestCodec_refuses(t *testing.T) {
	var c proto.Codec
	wrong := "a\xff"
	for name, err := range map[string]error{
		"a string that is not UTF-8":        second(c.Append(nil, &wrong)),
		"one that came":                     c.Decode([]byte{0x0a, 1, 0xff}, new(string)),
		"a message's":                       second(c.Append(nil, &pb.Sum{Text: wrong})),
		"a message's that came":             c.Decode([]byte{0x12, 1, 0xff}, new(pb.Sum)),
		"half a string":                     c.Decode([]byte{0x0a, 2, 'a'}, new(string)),
		"half a number":                     c.Decode([]byte{0x08, 0xff}, new(int)),
		"no tag":                            c.Decode([]byte{0xff}, new(bool)),
		"a struct":                          c.Check(new(plain)),
		"a struct that came":                c.Decode(nil, new(plain)),
		"a pointer to a pointer":            c.Check(new(*pb.Sum)),
		"a length that is longer than ever": c.Decode([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, new([]byte)),
		"vtprotobuf: half a message":        c.Decode([]byte{0x08}, new(vtpb.Sum)),
	} {
		t.Run(name, func(t *testing.T) { is.New(t).True(err != nil) })
	}
}

func second(_ []byte, err error) error { return err }

func FuzzDecode(f *testing.F) {
	f.Add([]byte{0x08, 7, 0x12, 1, 'a', 0x1a, 2, 0x08, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		var c proto.Codec
		for _, v := range []any{new(pb.Sum), new(vtpb.Sum), new(string), new([]byte), new(bool), new(int), new(float64), new(float32)} {
			if c.Decode(data, v) != nil {
				continue
			}
			again, err := c.Append(nil, v)
			if err != nil {
				t.Fatalf("%T of %x: %v", v, data, err)
			}
			if err := c.Decode(again, v); err != nil {
				t.Fatalf("%T of %x: %v", v, again, err)
			}
		}
	})
}
