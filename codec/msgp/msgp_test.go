package msgp_test

import (
	"math"
	"testing"

	"github.com/matryer/is"
	tinylib "github.com/tinylib/msgp/msgp"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/codec/msgp"
	"github.com/typedrpc/typedrpc/codec/msgp/internal/sum"
	"github.com/typedrpc/typedrpc/internal/testkit/codecs"
)

// plain is a message without methods.
type plain struct{ Number int }

// half is one with one of them.
type half struct{}

func (half) MarshalMsg(b []byte) ([]byte, error) { return b, nil }

var (
	foreign   = typedrpc.NewMethod[plain, plain]("foreign")
	forgotten = typedrpc.NewMethod[*sum.Pointed, *sum.Pointed]("forgotten") // an Alloc
)

func TestCodec_messages(t *testing.T) {
	codecs.Run(t, codecs.Kit[sum.Sum]{
		Codec:   msgp.Codec{},
		New:     func(n int64, text string) sum.Sum { return sum.Sum{Number: n, Text: text} },
		Values:  func(m sum.Sum) (int64, string) { return m.Number, m.Text },
		Broken:  []byte{0x81, 0xa6, 'n'},
		Foreign: func(mux *typedrpc.Mux) { codecs.Handle(mux, foreign) },
	})
}

func TestCodec_byPointer(t *testing.T) {
	codecs.Run(t, codecs.Kit[*sum.Pointed]{
		Codec: msgp.Codec{}, Alloc: []typedrpc.Trait{typedrpc.Alloc[sum.Pointed]()},
		New:     func(n int64, text string) *sum.Pointed { return &sum.Pointed{Number: n, Text: text} },
		Values:  func(m *sum.Pointed) (int64, string) { return m.Number, m.Text },
		Broken:  []byte{0xc1},
		Foreign: func(mux *typedrpc.Mux) { codecs.Handle(mux, forgotten) },
	})
}

func TestCodec_values(t *testing.T) {
	var c msgp.Codec
	for name, tt := range map[string]struct{ value, zero any }{
		"string": {new("häl\x00lo"), new(string)}, "no string": {new(""), new(string)},
		"bytes": {new([]byte{0, 255}), new([]byte)}, "bool": {new(true), new(bool)},
		"int": {new(-3), new(int)}, "int64": {new(int64(math.MinInt64)), new(int64)},
		"int32": {new(int32(math.MinInt32)), new(int32)}, "uint": {new(uint(3)), new(uint)},
		"uint64": {new(uint64(math.MaxUint64)), new(uint64)}, "uint32": {new(uint32(math.MaxUint32)), new(uint32)},
		"float64": {new(-1.5), new(float64)}, "float32": {new(float32(1.5)), new(float32)},
		"empty": {new(struct{}), new(struct{})}, "raw": {&typedrpc.Raw{0x93, 1, 2, 3}, new(typedrpc.Raw)},
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			is.NoErr(c.Check(tt.zero))
			data, err := c.Append([]byte("before"), tt.value)
			is.NoErr(err)
			is.NoErr(c.Decode(data[len("before"):], tt.zero))
			is.Equal(tt.zero, tt.value)
			is.True(c.Decode(append(data[len("before"):], 0xc0), tt.zero) != nil) // there is more
			is.True(c.Decode(data[len("before"):len(data)-1], tt.zero) != nil)    // and less
		})
	}
	is := is.New(t)
	data, err := c.Append(nil, new(typedrpc.Raw))
	is.NoErr(err)
	is.Equal(data, []byte{0xc0})
}

// Five bytes that announce a list of 2^32-1 elements make none.
func TestCodec_announcedLengths(t *testing.T) {
	var c msgp.Codec
	for name, value := range map[string][]byte{
		"a list":          {0xdd, 0xff, 0xff, 0xff, 0xff},
		"a list of lists": {0xdc, 0x7f, 0xff, 0x94, 1, 2, 3, 4},
		"a map":           {0xdf, 0xff, 0xff, 0xff, 0xff},
		"bytes":           {0xc6, 0xff, 0xff, 0xff, 0xff},
		"text":            {0xdb, 0xff, 0xff, 0xff, 0xff},
		"an extension":    {0xc9, 0xff, 0xff, 0xff, 0xff, 1},
	} {
		for _, field := range []string{"wide", "parts", "number", "text", "unknown"} {
			t.Run(name+" in "+field, func(t *testing.T) {
				is := is.New(t)
				data := append(tinylib.AppendString(tinylib.AppendMapHeader(nil, 1), field), value...)
				before := testing.AllocsPerRun(1, func() { is.True(c.Decode(data, new(sum.Sum)) != nil) })
				is.True(before < 100)
				is.True(c.Decode(data, new(typedrpc.Raw)) != nil)
				is.True(c.Decode(data, new(struct{})) != nil)
			})
		}
	}
}

func TestCodec_refuses(t *testing.T) {
	var c msgp.Codec
	wrong := "a\xff"
	for name, err := range map[string]error{
		"a string that is not UTF-8": second(c.Append(nil, &wrong)),
		"one that came":              c.Decode([]byte{0xa1, 0xff}, new(string)),
		"a number that is too large": c.Decode(tinylib.AppendInt64(nil, 1<<40), new(int32)),
		"a negative one":             c.Decode(tinylib.AppendInt(nil, -1), new(uint)),
		"another type":               c.Decode(tinylib.AppendBool(nil, true), new(int)),
		"nothing":                    c.Decode(nil, new(sum.Sum)),
		"a struct":                   c.Check(new(plain)),
		"a struct that came":         c.Decode([]byte{0xc0}, new(plain)),
		"a struct that only writes":  c.Check(new(half)),
		"a pointer to a pointer":     c.Check(new(*sum.Pointed)),
	} {
		t.Run(name, func(t *testing.T) { is.New(t).True(err != nil) })
	}
}

func second(_ []byte, err error) error { return err }

func FuzzDecode(f *testing.F) {
	seed, _ := msgp.Codec{}.Append(nil, &sum.Sum{Number: 7, Text: "seven", Parts: []sum.Sum{{Number: 3}}, Wide: [][4]int{{1, 2, 3, 4}}})
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		var c msgp.Codec
		for _, v := range []any{new(sum.Sum), new(sum.Pointed), new(string), new([]byte), new(bool), new(int), new(float64), new(typedrpc.Raw)} {
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
