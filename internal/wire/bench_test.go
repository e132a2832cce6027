package wire

import (
	"encoding/json"
	"strings"
	"testing"
)

func benchFrame() Frame {
	return Frame{
		Type: Call, Flags: FromCaller, ID: 123456, Method: "sum", TimeLeft: 30000,
		Payload: []byte(`{"minuend":42,"subtrahend":23,"label":"a label of some length"}`),
	}
}

func BenchmarkAppend(b *testing.B) {
	f := benchFrame()
	dst := make([]byte, 0, 1024)
	b.Run("binary", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := AppendBinary(dst, &f); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := AppendJSON(dst, &f, true); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	f := benchFrame()
	bin, err := AppendBinary(nil, &f)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("binary", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(bin)))
		var got Frame
		for b.Loop() {
			if _, err := DecodeBinary(bin, &got, internSum); err != nil {
				b.Fatal(err)
			}
		}
	})
	item := Frame{Type: Item, ID: 7, Payload: f.Payload}
	for _, tt := range []struct {
		name  string
		frame *Frame
		hello bool
	}{{"json", &f, true}, {"plain", &f, false}, {"json item", &item, true}} {
		text, err := AppendJSON(nil, tt.frame, tt.hello)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(tt.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			r := Reader{Hello: tt.hello, Intern: internSum}
			for b.Loop() {
				if _, _, err := r.Read(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("batch of 100", func(b *testing.B) {
		text := batchText(b, &f, 100)
		b.ReportAllocs()
		b.SetBytes(int64(len(text)))
		r := Reader{Intern: internSum}
		for b.Loop() {
			if _, _, err := r.Read(text); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func batchText(b *testing.B, f *Frame, n int) []byte {
	one, err := AppendJSON(nil, f, false)
	if err != nil {
		b.Fatal(err)
	}
	return []byte("[" + strings.TrimSuffix(strings.Repeat(string(one)+",", n), ",") + "]")
}

// BenchmarkValid measures against encoding/json, the obvious alternative.
func BenchmarkValid(b *testing.B) {
	record := `{"id":12345,"name":"Grace Hopper","email":"grace@example.org","active":true,"score":-12.5e3,` +
		`"tags":["navy","compiler"],"address":{"street":"1 Main St","zip":"12345"},"note":null},`
	texts := []struct{ name, text string }{
		{"records", "[" + strings.TrimSuffix(strings.Repeat(record, 400), ",") + "]"},
		{"prose", `"` + strings.Repeat(`It was a bright cold day in April, and the clocks were striking thirteen.\n`, 1000) + `"`},
		{"unicode", `"` + strings.Repeat("\u65e5\u672c\u8a9e\u306e\u6587 ", 4000) + `"`},
		{"numbers", "[" + strings.TrimSuffix(strings.Repeat("3.14159,-2,1e10,", 6000), ",") + "]"},
	}
	for _, tt := range texts {
		data := []byte(tt.text)
		b.Run(tt.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if err := Valid(data, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(tt.name+" encoding-json", func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if !json.Valid(data) {
					b.Fatal("invalid")
				}
			}
		})
	}
}
