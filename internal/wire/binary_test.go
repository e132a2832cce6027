package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"strings"
	"testing"

	"github.com/matryer/is"
)

func TestBinary_golden(t *testing.T) {
	for _, s := range samples {
		t.Run(s.name, func(t *testing.T) {
			is := is.New(t)
			got, err := AppendBinary([]byte("before"), &s.frame)
			is.NoErr(err)
			is.Equal(string(got), "before"+s.binary)                // encoding
			is.True(BinarySize(&s.frame) >= len(got)-len("before")) // the size is an upper bound

			f := Frame{Method: "left over", Position: 9}
			n, err := DecodeBinary([]byte(s.binary+"after"), &f, internSum)
			is.NoErr(err)
			is.Equal(n, len(s.binary))
			is.True(equal(&f, &s.frame)) // decoded as it was
		})
	}
}

func TestBinary_severalFramesInAMessage(t *testing.T) {
	is := is.New(t)
	var msg []byte
	for _, s := range samples {
		msg = append(msg, s.binary...)
	}
	for _, s := range samples {
		var f Frame
		n, err := DecodeBinary(msg, &f, nil)
		is.NoErr(err)
		is.True(equal(&f, &s.frame))
		msg = msg[n:]
	}
	is.Equal(len(msg), 0)
}

func TestBinary_encoderSetsWhatFollowsFromType(t *testing.T) {
	is := is.New(t)
	for _, typ := range []Type{Call, Cancel, End} {
		b, err := AppendBinary(nil, &Frame{Type: typ, ID: 1, Method: "m"})
		is.NoErr(err)
		is.Equal(b[0]&bitFromCaller, byte(bitFromCaller))
	}
	b, err := AppendBinary(nil, &Frame{Type: Result, Flags: FromCaller, ID: 1})
	is.NoErr(err)
	is.Equal(b[0]&bitFromCaller, byte(0)) // a RESULT is never from the caller
}

func TestBinary_largest(t *testing.T) {
	is := is.New(t)
	payload := make([]byte, MaxBody)
	dst := []byte("kept")

	got, err := AppendBinary(dst, &Frame{Type: Chunk, ID: 1, Payload: payload})
	is.True(errors.Is(err, ErrTooLarge)) // one byte of id too many
	is.Equal(string(got), "kept")

	got, err = AppendBinary(dst, &Frame{Type: Hello, Payload: append(payload, 0)})
	is.True(errors.Is(err, ErrTooLarge)) // refused before it is copied
	is.Equal(string(got), "kept")

	got, err = AppendBinary(nil, &Frame{Type: Chunk, ID: 1, Payload: payload[1:]})
	is.NoErr(err)
	var f Frame
	n, err := DecodeBinary(got, &f, nil)
	is.NoErr(err)
	is.Equal(n, headerSize+MaxBody)
	is.Equal(len(f.Payload), MaxBody-1)
}

// notEncodable holds in both dialects.
var notEncodable = []struct {
	name  string
	frame Frame
	err   error
}{
	{"type 0", Frame{}, ErrNotEncodable},
	{"type over 31", Frame{Type: MaxType + 1}, ErrNotEncodable},
	{"CALL with id 0", Frame{Type: Call, Method: "m"}, ErrNotEncodable},
	{"ITEM with id 0", Frame{Type: Item}, ErrNotEncodable},
	{"CREDIT of nothing", Frame{Type: Credit, ID: 1}, ErrNotEncodable},
	{"PING with MORE", Frame{Type: Ping, Flags: More}, ErrNotEncodable},
	{"unknown kind", Frame{Type: Call, ID: 1, Method: "m", Kind: 4}, ErrNotEncodable},
	{"no method", Frame{Type: Notify}, ErrNotEncodable},
	{"method not UTF-8", Frame{Type: Notify, Method: "\xff"}, ErrNotEncodable},
	{"long method", Frame{Type: Call, ID: 1, Method: strings.Repeat("m", MaxMethod+1)}, ErrTooLarge},
	{"large metadata", Frame{Type: Result, ID: 1, Meta: bigMeta(MaxMeta + 1)}, ErrTooLarge},
	{"metadata not UTF-8", Frame{Type: Fail, ID: 1, Meta: map[string]string{"k": "\xff"}}, ErrNotEncodable},
}

func TestBinary_notEncodable(t *testing.T) {
	for _, tt := range notEncodable {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			got, err := AppendBinary([]byte("kept"), &tt.frame)
			is.True(errors.Is(err, tt.err))
			is.Equal(string(got), "kept")
		})
	}
}

func TestBinary_metadataUpToTheLimit(t *testing.T) {
	is := is.New(t)
	in := Frame{Type: Result, ID: 1, Meta: bigMeta(MaxMeta)}
	b, err := AppendBinary(nil, &in)
	is.NoErr(err)
	var f Frame
	_, err = DecodeBinary(b, &f, nil)
	is.NoErr(err)
	is.True(equal(&f, &in))
}

func TestBinary_messageIsRepaired(t *testing.T) {
	is := is.New(t)
	in := Frame{Type: Fail, ID: 1, Message: "a\xffb"}
	b, err := AppendBinary(nil, &in)
	is.NoErr(err)
	is.True(len(b) <= BinarySize(&in))
	var f Frame
	_, err = DecodeBinary(b, &f, nil)
	is.NoErr(err)
	is.Equal(f.Message, "a\uFFFDb")
	_, err = DecodeBinary([]byte("\x8a\x07\x00\x00\x01\x00\x00\x01\xff\x00\x00"), &f, nil)
	is.NoErr(err)
	is.Equal(f.Message, "\uFFFD") // a peer's too
}

// raw builds a frame around any body.
func raw(first byte, body string) string {
	var size [4]byte
	binary.LittleEndian.PutUint32(size[:], uint32(len(body)))
	return string([]byte{first}) + string(size[:3]) + body
}

func TestDecodeBinary_malformed(t *testing.T) {
	longMeta := appendMeta([]byte{1}, bigMeta(MaxMeta+1))
	tests := []struct{ name, data string }{
		{"nothing", ""},
		{"half a header", "\x05\x01"},
		{"body shorter than it says", "\x05\x02\x00\x00\x01"},
		{"largest length, no body", "\x05\xff\xff\xff"},
		{"type 0", raw(0x00, "")},
		{"type 0, counted", raw(0x80, "")},
		{"PING counted", raw(0x85, "\x00")},
		{"CALL not counted", raw(0x48, "\x07\x00\x00\x03sum\x00")},
		{"CALL not from the caller", raw(0x88, "\x07\x00\x00\x03sum\x00")},
		{"RESULT from the caller", raw(0xc9, "\x07\x00")},
		{"PING with MORE", raw(0x25, "\x00")},
		{"FAIL with MORE", raw(0xaa, "\x01\x00\x00\x00\x00\x00")},
		{"PING empty", raw(0x05, "")},
		{"PING with trailing bytes", raw(0x05, "\x00\x00")},
		{"varint over 64 bits", raw(0x05, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02")},
		{"varint without end", raw(0x05, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")},
		{"CANCEL id 0", raw(0xcb, "\x00")},
		{"CANCEL with trailing bytes", raw(0xcb, "\x01\x00")},
		{"END id 0", raw(0xcd, "\x00")},
		{"CREDIT of nothing", raw(0x8e, "\x01\x00\x00")},
		{"CREDIT with trailing bytes", raw(0x8e, "\x01\x01\x00\x00")},
		{"CALL id 0", raw(0xc8, "\x00\x00\x00\x03sum\x00")},
		{"CALL unknown flags", raw(0xc8, "\x01\x10\x00\x03sum\x00")},
		{"CALL no method", raw(0xc8, "\x01\x00\x00\x00\x00")},
		{"CALL method over 255", raw(0xc8, "\x01\x00\x00\x80\x02"+strings.Repeat("m", 256)+"\x00")},
		{"CALL method not UTF-8", raw(0xc8, "\x01\x00\x00\x01\xff\x00")},
		{"CALL method longer than the body", raw(0xc8, "\x01\x00\x00\x7fm\x00")},
		{"method length over 63 bits", raw(0x8f, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01m")},
		{"RESULT id 0", raw(0x89, "\x00\x00")},
		{"metadata twice", raw(0x89, "\x01\x02\x01k\x01a\x01k\x01b")},
		{"metadata over the limit", raw(0x89, string(longMeta))},
		{"metadata count a lie", raw(0x89, "\x01\xff\xff\xff\xff\x0f\x01k\x01a")},
		{"metadata not UTF-8", raw(0x89, "\x01\x01\x01\xff\x00")},
		{"FAIL unknown flags", raw(0x8a, "\x01\x02\x00\x00\x00\x00")},
		{"FAIL code over 64 bits", raw(0x8a, "\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00")},
		{"ITEM unknown flags", raw(0x8c, "\x01\x04\x00")},
		{"ITEM id 0", raw(0x8c, "\x00\x00\x00")},
		{"HEAD not counted", raw(0x11, "\x01\x00")},
		{"HEAD from the caller", raw(0xd1, "\x01\x00")},
		{"HEAD with MORE", raw(0xb1, "\x01\x00")},
		{"HEAD id 0", raw(0x91, "\x00\x00")},
		{"HEAD with trailing bytes", raw(0x91, "\x01\x00\x00")},
		{"HEAD metadata over the limit", raw(0x91, string(longMeta))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			var f Frame
			n, err := DecodeBinary([]byte(tt.data), &f, nil)
			is.True(errors.Is(err, ErrMalformed))
			is.Equal(n, 0)
		})
	}
}

func TestDecodeBinary_truncated(t *testing.T) {
	is := is.New(t)
	for _, s := range samples {
		for i := range len(s.binary) {
			var f Frame
			_, err := DecodeBinary([]byte(s.binary[:i]), &f, nil)
			is.True(errors.Is(err, ErrMalformed)) // a part is no frame

			if i >= headerSize { // the header made to fit, the body cut
				_, err := DecodeBinary([]byte(raw(s.binary[0], s.binary[headerSize:i])), &f, nil)
				is.True(err == nil || errors.Is(err, ErrMalformed))
			}
		}
	}
}

func TestDecodeBinary_longVarint(t *testing.T) {
	is := is.New(t)
	var f Frame
	_, err := DecodeBinary([]byte(raw(0x05, "\x81\x80\x00")), &f, nil)
	is.NoErr(err) // minimal length is not required
	is.Equal(f.Position, uint64(1))
}

func TestBinary_allocations(t *testing.T) {
	dst := make([]byte, 0, 4096)
	for _, s := range samples {
		t.Run(s.name, func(t *testing.T) {
			is := is.New(t)
			is.Equal(testing.AllocsPerRun(100, func() {
				if _, err := AppendBinary(dst, &s.frame); err != nil {
					panic(err)
				}
			}), 0.0) // encoding
			if s.frame.Meta != nil || s.frame.Number != 0 {
				return
			}
			known := func([]byte) string { return s.frame.Method }
			data := []byte(s.binary)
			var f Frame
			is.Equal(testing.AllocsPerRun(100, func() {
				if _, err := DecodeBinary(data, &f, known); err != nil {
					panic(err)
				}
			}), 0.0) // decoding
		})
	}
}

func TestType_String(t *testing.T) {
	is := is.New(t)
	is.Equal(AuthOK.String(), "AUTH_OK")
	is.Equal(Chunk.String(), "CHUNK")
	is.Equal(numTypes.String(), "UNKNOWN")
}

// The name of a fault does not mix with a program's metadata.
func TestFault_metadata(t *testing.T) {
	is := is.New(t)
	out := Frame{Type: Fail, ID: 1, Code: 9, Fault: "f", Meta: map[string]string{metaFault: "another"}}
	data, err := AppendBinary(nil, &out)
	is.NoErr(err)
	is.True(len(data) <= BinarySize(&out))
	var in Frame
	_, err = DecodeBinary(data, &in, nil)
	is.NoErr(err)
	is.Equal(in.Fault, "f")
	is.Equal(in.Meta, nil)

	// What a program has by these names is left out: it would pass for ours.
	data, err = AppendBinary(nil, &Frame{Type: Fail, ID: 1, Meta: map[string]string{metaFault: "f", metaNumber: "7", "k": "v"}})
	is.NoErr(err)
	_, err = DecodeBinary(data, &in, nil)
	is.NoErr(err)
	is.Equal(in.Fault, "")
	is.Equal(in.Number, int64(0))
	is.True(maps.Equal(in.Meta, map[string]string{"k": "v"}))

	long := strings.Repeat("f", MaxMethod+1)
	for _, meta := range []map[string]string{nil, {"k": "v"}} {
		stranger := strings.ToUpper(metaFault)
		with := map[string]string{stranger: long}
		maps.Copy(with, meta)
		data, err = AppendBinary(nil, &Frame{Type: Fail, ID: 1, Meta: with})
		is.NoErr(err)
		data = bytes.Replace(data, []byte(stranger), []byte(metaFault), 1) // as another program may send it
		_, err = DecodeBinary(data, &in, nil)
		is.NoErr(err)
		is.Equal(in.Fault, "") // a longer one is none
		is.True(maps.Equal(in.Meta, meta))
	}
	for _, f := range []Frame{{Fault: long}, {Fault: "\xff"}, {Fault: "f", Meta: bigMeta(MaxMeta)}} {
		f.Type, f.ID = Fail, 1
		_, err = AppendBinary(nil, &f)
		is.True(err != nil)
		if f.Meta == nil {
			_, err = AppendJSON(nil, &f, false)
			is.True(err != nil)
		}
	}
	fits := Frame{Type: Fail, ID: 1, Fault: long[1:], Number: math.MinInt64, Meta: bigMeta(MaxMeta - MaxFailMeta)}
	_, err = AppendBinary(nil, &fits)
	is.NoErr(err)
}

// What strangers mean by a fault is none of ours.
func TestFault_strangers(t *testing.T) {
	is := is.New(t)
	for text, want := range map[string]string{`"a\u0062"`: "ab", `{}`: "", `null`: "", `7`: "", `"` + strings.Repeat("x", 256) + `"`: ""} {
		for _, hello := range []bool{false, true} {
			r := Reader{Hello: hello}
			frames, _, err := r.Read([]byte(`{"jsonrpc":"2.0","id":1,"error":{"code":9,"message":"m","fault":` + text + `}}`))
			is.NoErr(err)
			is.Equal(frames[0].Type, Fail)
			is.Equal(frames[0].Fault, want)
		}
	}
}
