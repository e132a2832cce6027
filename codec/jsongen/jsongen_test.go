package jsongen

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/matryer/is"
)

// reads compares what is read of data with what encoding/json reads.
func reads[T comparable](t *testing.T, data []byte, zero T, read func(*Scanner, *T)) {
	t.Helper()
	got, want := zero, zero
	s := Scan(data)
	read(s, &got)
	err, theirs := s.End(), json.Unmarshal(data, &want)
	if (err == nil) != (theirs == nil) {
		t.Fatalf("%q: %v, and encoding/json says %v", data, err, theirs)
	}
	if err == nil && got != want && got == got {
		t.Fatalf("%q is %v, and to encoding/json %v", data, got, want)
	}
}

// FuzzScan reads as encoding/json does.
func FuzzScan(f *testing.F) {
	for _, s := range []string{
		`{"a":[1,-2.5e-3,"\u00fc\ud83d\ude00\ud800",null,true,false]}`, `"`, `"\`, `"\u12`, `-`, `-0`, `01`, `1.`, `1e+`, `9223372036854775807`, `-9223372036854775808`, `9223372036854775808`,
		`18446744073709551615`, `18446744073709551616`, `0.1`, `123456.789`, `1e400`, `3.4028236e38`, `"AQI="`, `"A\nQ="`, ` null `, `nul`, `[1,]`, `{"a"}`, `{"a":1,}`, "\"\xff\xed\xa0\x80\"", "\"a long text that is not plain: \x01\"",
		strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000), strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := Scan(data)
		s.Skip()
		if err := s.End(); (err == nil) != json.Valid(data) {
			t.Fatalf("%q: %v", data, err)
		}
		reads(t, data, "x", String[string])
		reads(t, data, true, Bool[bool])
		reads(t, data, 7, Int[int])
		reads(t, data, 7, Int[int8])
		reads(t, data, 7, Uint[uint64])
		reads(t, data, 7, Uint[uint16])
		reads(t, data, 7, Float[float64])
		reads(t, data, 7, Float[float32])
		reads(t, data, "7", Number[json.Number])
		var got, want []byte
		s = Scan(data)
		Bytes(s, &got)
		if err, theirs := s.End(), json.Unmarshal(data, &want); (err == nil) != (theirs == nil) || err == nil && string(got) != string(want) {
			t.Fatalf("%q is %q (%v), and to encoding/json %q (%v)", data, got, err, want, theirs)
		}
		w := new(Writing)
		raw := AppendRaw(nil, append([]byte{}, data...), w)
		if theirs, err := json.Marshal(json.RawMessage(append([]byte{}, data...))); (err == nil) != (w.Err() == nil) || err == nil && string(raw) != string(theirs) {
			t.Fatalf("%q is appended as %q (%v), and by encoding/json as %q (%v)", data, raw, w.Err(), theirs, err)
		}
	})
}

// FuzzAppend appends as encoding/json does.
func FuzzAppend(f *testing.F) {
	for _, x := range []float64{0, math.Copysign(0, -1), 1e21, 1e-7, -1.5e-9, 123456789, 1 << 53, math.MaxFloat32, math.SmallestNonzeroFloat64, math.Inf(1)} {
		f.Add("a\"<&>\\\n\u2028\x7f\xff\x00 and a text that is longer", x)
	}
	f.Fuzz(func(t *testing.T, text string, x float64) {
		writes(t, text, func(*Writing) []byte { return AppendString(nil, text) })
		writes(t, x, func(w *Writing) []byte { return AppendFloat(nil, x, w) })
		writes(t, float32(x), func(w *Writing) []byte { return AppendFloat(nil, float32(x), w) })
		writes(t, []byte(text), func(*Writing) []byte { return AppendBase64(nil, []byte(text)) })
		writes(t, json.Number(text), func(w *Writing) []byte { return AppendNumber(nil, text, w) })
		writes(t, struct {
			S string `json:",string"`
		}{text}, func(*Writing) []byte { return append(AppendQuotedString([]byte(`{"S":`), text), '}') })
	})
}

func writes(t *testing.T, v any, appends func(*Writing) []byte) {
	t.Helper()
	w := new(Writing)
	got := appends(w)
	want, err := json.Marshal(v)
	if (err == nil) != (w.Err() == nil) || err == nil && string(got) != string(want) {
		t.Fatalf("%v is appended as %q (%v), and by encoding/json as %q (%v)", v, got, w.Err(), want, err)
	}
}

// TestNames_Fold finds names in another case, as encoding/json compares them.
func TestNames_Fold(t *testing.T) {
	names := NamesOf("Name", "name", "kelvin", "maſſe")
	for name, want := range map[string]string{"NAME": "Name", "nAme": "Name", "Kelvin": "kelvin", "KELVIN": "kelvin", "MASSE": "maſſe", "Name": "", "other": "", "": "", strings.Repeat("n", 1<<16): ""} {
		is := is.New(t)
		got := []byte(name)
		is.Equal(names.Fold(&got), want != "")
		if want != "" {
			is.Equal(string(got), want)
		}
	}
}

// TestScanExact refuses what encoding/json takes for U+FFFD.
func TestScanExact(t *testing.T) {
	for data, ok := range map[string]bool{`"ü\ud83d\ude00"`: true, "\"\xff\"": false, `"\ud800"`: false, `"\udc00\ud800"`: false, `{"a":["\ud800"]}`: false, "{\"\xff\":1}": false, `"�"`: true} {
		is := is.New(t)
		for _, read := range []func(*Scanner){func(s *Scanner) { s.Skip() }, func(s *Scanner) {
			var text string
			if s.IsString() {
				String(s, &text)
				return
			}
			s.Skip()
		}} {
			s := ScanExact([]byte(data))
			read(s)
			is.Equal(s.End() == nil, ok)
		}
	}
}

// TestWriting_Enter ends what contains itself, and what has failed.
func TestWriting_Enter(t *testing.T) {
	is := is.New(t)
	w := new(Writing)
	for range maxDepth {
		is.True(w.Enter())
	}
	is.True(!w.Enter())
	for range maxDepth + 1 {
		w.Leave()
	}
	is.True(!w.Enter()) // an error stays
	is.True(w.Err() != nil)
}

// TestAllocs has nothing allocated but what is read.
func TestAllocs(t *testing.T) {
	is := is.New(t)
	data := []byte(`{"N":[1,2.5,"a text",null,{"x":[]}],"n":3}`)
	names := NamesOf("n")
	var n int
	is.Equal(testing.AllocsPerRun(100, func() {
		s := Scan(data)
		for name, ok := s.Object(); ok; name, ok = s.Member() {
			if string(name) == "n" {
				Int(s, &n)
				continue
			}
			is.True(names.Fold(&name))
			s.Skip()
		}
		is.NoErr(s.End())
	}), 1.0) // the name that has the other case
	is.Equal(n, 3)
}
