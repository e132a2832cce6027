package jsoncodec

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// FuzzDecode holds what is read without encoding/json against it: the same values,
// and the same errors, except that we refuse invalid UTF-8 and keep Go's names for
// ourselves.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`null`, `true`, `-0`, `12`, `1e2`, `999999999999999999`, `-9223372036854775808`, `18446744073709551616`, `9007199254740993`,
		`4294967296`, `-2147483649`, `"AP8\/"`, `"\ud800\u0041"`, `["x"]`, ` 7 `, ` "x"`, `01`, `-`, ``, `{"age":1000}`, " null", "\"\xff\"", ` -0 `,
		`{"n":"x"}`, `{"b":true}`, `{"l":[{"s":7}]}`, `{"m":{"k":{"n":"\"1\""}}}`, `{"A":1}`, `{"-0":1}`, " [ ] ",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if !utf8.Valid(data) {
			return
		}
		for name, make := range fresh {
			if name == "empty" || name == "shout" { // not encoding/json's
				continue
			}
			ours, theirs := make(), make()
			err, theirErr := Decode(data, ours), json.Unmarshal(data, theirs)
			if (err == nil) != (theirErr == nil) {
				t.Fatalf("%q into %s: we say %v, they %v", data, name, err, theirErr)
			}
			if err == nil && text(ours) != text(theirs) {
				t.Fatalf("%q into %s is %s to us and %s to them", data, name, text(ours), text(theirs))
			}
			if err != nil && (strings.Contains(err.Error(), "json: ") || strings.Contains(err.Error(), "Go ")) {
				t.Fatalf("%q into %s shows our inside: %v", data, name, err)
			}
		}
	})
}

// FuzzAppend reads back what is written, which for numbers is what encoding/json
// writes.
func FuzzAppend(f *testing.F) {
	for _, n := range []float64{0, 1e21, 1e-7, -1.5e-9, 1e-10, 123456789, math.MaxFloat64} {
		f.Add(n, "a\"\\\n\u2028\xff", int64(n))
	}
	f.Fuzz(func(t *testing.T, x float64, s string, n int64) {
		if !math.IsNaN(x) && !math.IsInf(x, 0) {
			same(t, &x)
		}
		u, small := uint64(n), int32(n)
		same(t, &n)
		same(t, &u)
		same(t, &small)
		b := []byte(s)
		same(t, &b)
		got, err := Append(nil, &s)
		var back string
		if err != nil || json.Unmarshal(got, &back) != nil || back != string([]rune(s)) {
			t.Fatalf("%q came back as %q, %v", s, back, err)
		}
		if at, err := DecodeBytes(nil, AppendBytes(nil, b)); err != nil || !bytes.Equal(at, b) {
			t.Fatalf("%q came back as %q, %v", b, at, err)
		}
	})
}

func same(t *testing.T, v any) {
	t.Helper()
	got, err := Append(nil, v)
	want, _ := json.Marshal(v)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%s, want %s (%v)", got, want, err)
	}
}

// FuzzParams reads lists as encoding/json does.
func FuzzParams(f *testing.F) {
	for _, s := range []string{`[]`, `[1,"x"]`, ` [ {"a" : 1} ] `, `[1,2,3,4]`, `[1,]`, `{"a":1}`, `null`, `["AP8\/"]`, `["\ud800",[",","]"]]`} {
		f.Add([]byte(s))
	}
	names := []string{"a", "b", "c"}
	f.Fuzz(func(t *testing.T, data []byte) {
		var want []json.RawMessage
		ok := wire.Valid(data, RawDepth) == nil && json.Unmarshal(data, &want) == nil && want != nil
		named, err := NameParams(names, data)
		if (err == nil) != (ok && len(want) <= len(names)) {
			t.Fatalf("%q: %d elements, %v", data, len(want), err)
		}
		if err == nil {
			var got map[string]json.RawMessage
			if err := json.Unmarshal(named, &got); err != nil || len(got) != len(want) {
				t.Fatalf("%q is %q: %v", data, named, err)
			}
			for i, w := range want {
				if !bytes.Equal(got[names[i]], w) {
					t.Fatalf("%q: element %d is %q", data, i, got[names[i]])
				}
			}
		}
		switch only := OnlyElement(data); {
		case (only != nil) != (ok && len(want) == 1):
			t.Fatalf("%q: only %q", data, only)
		case only != nil && !bytes.Equal(only, want[0]):
			t.Fatalf("%q: only %q", data, only)
		}
		if ok && len(want) == 1 {
			checkBytes(t, want[0])
		}
	})
}

// checkBytes reads an item, which is valid JSON without white space around it.
func checkBytes(t *testing.T, data []byte) {
	got, err := DecodeBytes([]byte{}, data)
	var want []byte
	theirs := json.Unmarshal(data, &want)
	if data[0] == '[' {
		return // to encoding/json they are bytes
	}
	if (err == nil) != (theirs == nil) || err == nil && !bytes.Equal(got, want) {
		t.Fatalf("%q is %q (%v) to us and %q (%v) to them", data, got, err, want, theirs)
	}
}
