package jsoncodec

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/matryer/is"
)

// shout writes and reads itself, in upper case: who bypasses it is found out.
type shout string

func (s *shout) AppendJSON(dst []byte) ([]byte, error) {
	if *s == "" {
		return dst, errors.New("nothing to shout")
	}
	return append(dst, `"`+strings.ToUpper(string(*s))+`"`...), nil
}

func (s *shout) UnmarshalJSON(data []byte) error {
	*s = shout(strings.ToLower(strings.Trim(string(data), `"`)))
	return nil
}

// half reads itself and leaves writing to encoding/json.
type half struct{ N int }

func (h *half) UnmarshalJSON(data []byte) error { h.N = len(data); return nil }

// given is what UnmarshalJSON was.
type given string

func (g *given) AppendJSON(dst []byte) ([]byte, error) { return append(dst, *g...), nil }
func (g *given) UnmarshalJSON(data []byte) error       { *g = given(data); return nil }

// quoted has its values in strings.
type quoted struct {
	N *int              `json:"n,omitempty,string"`
	B *bool             `json:"b,omitempty,string"`
	S *string           `json:"s,omitempty,string"`
	L []quoted          `json:"l,omitempty"`
	M map[string]quoted `json:"m,omitempty"`
}

// loud leaves reading to another type's encoding/json.
type loud struct{ q quoted }

func (l *loud) AppendJSON(dst []byte) ([]byte, error) { return Append(dst, &l.q) }
func (l *loud) UnmarshalJSON(data []byte) error       { return json.Unmarshal(data, &l.q) }

// hidden cannot be read: nobody may make an embedded one.
type hidden struct{ *inner }

type inner struct{ A int }

type person struct {
	Name string `json:"name"`
	Age  int8   `json:"age"`
}

func TestAppend(t *testing.T) {
	p := func(f float64) *float64 { return &f }
	loud := shout("hey")
	var none []byte
	for _, tt := range []struct {
		v    any
		want string
	}{
		{new(struct{}), `{}`},
		{new(string), `""`},
		{new("a\"b\\c/\n\x01é\u2028<\xff😀"), `"a\"b\\c/\n\u0001é\u2028<` + "\uFFFD😀\""},
		{new(true), `true`}, {new(false), `false`},
		{new(math.MinInt32), `-2147483648`}, {new(int32(math.MinInt32)), `-2147483648`},
		{new(int64(math.MaxInt64)), `9223372036854775807`}, {new(uint(7)), `7`},
		{new(uint32(math.MaxUint32)), `4294967295`}, {new(uint64(math.MaxUint64)), `18446744073709551615`},
		{p(0), `0`}, {p(math.Copysign(0, -1)), `-0`}, {p(3), `3`}, {p(-0.1), `-0.1`},
		{p(1e20), `100000000000000000000`}, {p(1e21), `1e+21`}, {p(1e-6), `0.000001`}, {p(1e-7), `1e-7`},
		{p(-1.5e-9), `-1.5e-9`}, {p(1e-10), `1e-10`}, {p(math.MaxFloat64), `1.7976931348623157e+308`},
		{p(math.SmallestNonzeroFloat64), `5e-324`},
		{&none, `null`}, {&[]byte{}, `""`}, {&[]byte{0, 0xff, '?'}, `"AP8/"`},
		{&loud, `"HEY"`}, {&half{3}, `{"N":3}`},
		{&person{"Ann", 3}, `{"name":"Ann","age":3}`}, {&[]int{1, 2}, `[1,2]`}, {new(map[string]int), `null`},
	} {
		t.Run(tt.want, func(t *testing.T) {
			is := is.New(t)
			got, err := Append([]byte("before "), tt.v)
			is.NoErr(err)
			is.Equal(string(got), "before "+tt.want)
		})
	}
}

func TestAppend_refuses(t *testing.T) {
	p := func(f float64) *float64 { return &f }
	for _, v := range []any{p(math.NaN()), p(math.Inf(1)), p(math.Inf(-1)), new(shout), new(chan int), &[]float64{math.NaN()}} {
		t.Run(fmt.Sprintf("%T", v), func(t *testing.T) {
			is := is.New(t)
			_, err := Append(nil, v)
			is.True(err != nil)
		})
	}
}

// fresh is what Decode reads into, with something in it that null and what is
// refused must leave.
var fresh = map[string]func() any{
	"string": func() any { return new("old") },
	"bool":   func() any { return new(true) },
	"int":    func() any { return new(9) },
	"int32":  func() any { return new(int32(9)) },
	"int64":  func() any { return new(int64(9)) },
	"uint":   func() any { return new(uint(9)) },
	"uint32": func() any { return new(uint32(9)) },
	"uint64": func() any { return new(uint64(9)) },
	"float":  func() any { return new(9.5) },
	"bytes":  func() any { return &[]byte{9} },
	"empty":  func() any { return new(struct{}) },
	"shout":  func() any { return new(shout("old")) },
	"half":   func() any { return &half{9} },
	"person": func() any { return &person{"old", 9} },

	"given":    func() any { return new(given("old")) },
	"quoted":   func() any { return new(quoted) },
	"hidden":   func() any { return new(hidden) },
	"loud":     func() any { return new(loud) },
	"digits":   func() any { return new(json.Number) },
	"naturals": func() any { return new(map[uint]int) },
}

// text is what v points to.
func text(v any) string {
	switch v := v.(type) {
	case *string:
		return *v
	case *shout:
		return string(*v)
	case *given:
		return string(*v)
	case *[]byte:
		return fmt.Sprint(*v)
	case *float64:
		return fmt.Sprint(*v, math.Signbit(*v))
	}
	b, err := json.Marshal(v)
	return fmt.Sprint(string(b), err)
}

func TestDecode(t *testing.T) {
	for _, tt := range []struct{ into, data, want string }{
		{"string", `"a\"\\\/\n\u00e9\ud83d\ude00\ud800"`, "a\"\\/\né😀\uFFFD"},
		{"string", ` "x" `, "x"}, {"string", `null`, "old"}, {"string", "\r\n\t null ", "old"},
		{"bool", `true`, "true<nil>"}, {"bool", `false`, "false<nil>"}, {"bool", ` false`, "false<nil>"}, {"bool", `null`, "true<nil>"},
		{"int", `-0`, "0<nil>"}, {"int", `-12`, "-12<nil>"}, {"int", ` 7 `, "7<nil>"}, {"int", `null`, "9<nil>"},
		{"int64", `-9223372036854775808`, "-9223372036854775808<nil>"}, // 19 digits: left to encoding/json
		{"int64", `999999999999999999`, "999999999999999999<nil>"}, {"int64", `9223372036854775807`, "9223372036854775807<nil>"},
		{"int32", `2147483647`, "2147483647<nil>"}, {"int32", `-2147483648`, "-2147483648<nil>"},
		{"uint", `0`, "0<nil>"}, {"uint32", `4294967295`, "4294967295<nil>"},
		{"uint64", `18446744073709551615`, "18446744073709551615<nil>"},
		{"float", `3`, "3 false"}, {"float", `-0`, "-0 true"}, {"float", `1e-3`, "0.001 false"}, {"float", `null`, "9.5 false"},
		{"float", `9007199254740992`, "9.007199254740992e+15 false"}, {"float", `9007199254740993`, "9.007199254740992e+15 false"},
		{"float", `-100000000000000007`, "-1e+17 true"},
		{"bytes", `"AP8\/"`, "[0 255 63]"}, {"bytes", `""`, "[]"}, {"bytes", `null`, "[]"}, {"bytes", `[1,2]`, "[1 2]"},
		{"empty", `{"what":["ever"]}`, "{}<nil>"}, {"empty", `7`, "{}<nil>"},
		{"shout", `"HEY"`, "hey"}, {"shout", " \t\r\n\"HEY\"\n ", "hey"}, {"given", ` {"a" : 1} `, `{"a" : 1}`}, {"given", "\tnull\n", "null"},
		{"quoted", `{"n":"7","l":[{"n":"8"}]}`, `{"n":"7","l":[{"n":"8"}]}<nil>`},
		{"half", `null`, `{"N":4}<nil>`}, {"half", ` {"N":1} `, `{"N":7}<nil>`},
		{"person", `{"name":"Ann","age":3,"more":[]}`, `{"name":"Ann","age":3}<nil>`},
		{"person", `{"age":1,"AGE":2,"age":3}`, `{"name":"old","age":3}<nil>`}, // the last one
		{"person", `null`, `{"name":"old","age":9}<nil>`},
	} {
		t.Run(tt.into+" "+tt.data, func(t *testing.T) {
			is := is.New(t)
			v := fresh[tt.into]()
			is.NoErr(Decode([]byte(tt.data), v))
			is.Equal(text(v), tt.want)
		})
	}
}

func TestDecode_refuses(t *testing.T) {
	for _, tt := range []struct{ into, data, want string }{
		{"string", `7`, "want a string, have a number"}, {"string", `{}`, "want a string, have an object"},
		{"string", `[`, "want a string, have an array"}, {"string", `true`, "want a string, have a boolean"},
		{"string", ``, "want a string, have nothing"}, {"string", " [7] ", "want a string, have an array"}, {"string", "\u00a0null", ""},
		{"string", "\"\xff\"", "want a string, have a string"},
		{"string", `"a" "b"`, "want a string, have a string"},
		{"bool", `1`, "number does not fit"}, {"bool", `truE`, ""}, {"bool", `null null`, ""},
		{"int", `1.0`, "number 1.0 does not fit"}, {"int", `1e2`, "number 1e2 does not fit"}, {"int", `"1"`, "string does not fit"},
		{"int", `01`, ""}, {"int", `-`, ""}, {"int", ``, ""}, {"int", `+1`, ""}, {"int", `1 2`, ""},
		{"int64", `9223372036854775808`, "number 9223372036854775808 does not fit"},
		{"int32", `2147483648`, "number 2147483648 does not fit"}, {"int32", `-2147483649`, "number -2147483649 does not fit"},
		{"uint", `-0`, "number -0 does not fit"}, {"uint32", `-0`, "number -0 does not fit"}, {"uint64", `-0`, "number -0 does not fit"},
		{"uint", ` -0 `, "number -0 does not fit"},
		{"uint", `-1`, "number -1 does not fit"}, {"uint32", `4294967296`, "number 4294967296 does not fit"},
		{"uint32", `-1`, "number -1 does not fit"}, {"uint64", `-1`, "number -1 does not fit"},
		{"uint64", `18446744073709551616`, "number 18446744073709551616 does not fit"},
		{"float", `1e400`, "number 1e400 does not fit"}, {"float", `NaN`, ""},
		{"bytes", `"AP8"`, "want base64 in a string"}, {"bytes", `"_w=="`, "want base64 in a string"}, {"bytes", `7`, "number does not fit"},
		{"empty", `{]`, ""}, {"empty", ``, ""}, {"empty", `{} x`, ""}, {"empty", nested(RawDepth + 1), ""},
		{"shout", `"a`, ""}, {"shout", `"a"x`, ""}, {"shout", nested(RawDepth + 1), ""},
		{"person", `{"age":1000}`, "age: number 1000 does not fit"}, {"person", `[]`, "array does not fit"}, {"person", `{}}`, ""},
	} {
		t.Run(tt.into+" "+tt.data[:min(len(tt.data), 20)], func(t *testing.T) {
			is := is.New(t)
			v := fresh[tt.into]()
			err := Decode([]byte(tt.data), v)
			is.True(err != nil)
			if tt.want != "" {
				is.Equal(err.Error(), tt.want)
			}
			is.Equal(text(v), text(fresh[tt.into]())) // untouched
		})
	}
}

// What encoding/json says of a value within another shows nothing of Go.
func TestDecode_saysNothingOfGo(t *testing.T) {
	for _, tt := range []struct{ into, data, want string }{
		{"naturals", `{"-0":1}`, "number -0 does not fit"},
		{"quoted", `{"n":"x"}`, "a member does not fit: it wants a value in a string"},
		{"quoted", `{"n":1}`, "a member does not fit: it wants a value in a string"},
		{"quoted", `{"b":true}`, "a member does not fit: it wants a value in a string"},
		{"quoted", `{"l":[{"s":"x"}]}`, "a member does not fit: it wants a value in a string"},
		{"quoted", `{"m":{"k":{"s":7}}}`, "a member does not fit: it wants a value in a string"},
		{"quoted", `{"n":"1x"}`, "n: number 1x does not fit"},
		{"hidden", `{"A":1}`, "a value does not fit"}, {"digits", `"x"`, "a value does not fit"},
		{"loud", `{"n":"x"}`, "a member does not fit: it wants a value in a string"},
	} {
		t.Run(tt.into+" "+tt.data, func(t *testing.T) {
			is := is.New(t)
			err := Decode([]byte(tt.data), fresh[tt.into]())
			is.True(err != nil)
			is.Equal(err.Error(), tt.want)
		})
	}
}

func nested(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }

func TestDecode_depth(t *testing.T) {
	is := is.New(t)
	is.NoErr(Decode([]byte(nested(RawDepth)), new(struct{})))
	is.NoErr(Decode([]byte(nested(RawDepth)), new(shout)))
}

func TestCheck(t *testing.T) {
	for _, v := range []any{new(any), new(shout), new(string), new(struct{}), new(half), new(float64), new([]chan int), new(person), new(map[string]func())} {
		t.Run(fmt.Sprintf("%T", v), func(t *testing.T) {
			is := is.New(t)
			is.NoErr(Check(v)) // slices and maps hide what is in them
		})
	}
	for _, v := range []any{new(chan int), new(func()), new(complex128), new(struct{ C chan int }), new([1]func())} {
		t.Run(fmt.Sprintf("%T", v), func(t *testing.T) {
			is := is.New(t)
			var ue *json.UnsupportedTypeError
			is.True(errors.As(Check(v), &ue))
		})
	}
}

func TestKindOf(t *testing.T) {
	is := is.New(t)
	for data, want := range map[string]string{
		"": "nothing", "{}": "an object", "[1]": "an array", `""`: "a string", "true": "a boolean", "false": "a boolean",
		"null": "null", "0": "a number", "-1": "a number",
	} {
		is.Equal(KindOf([]byte(data)), want)
		is.Equal(IsNull([]byte(data)), data == "null")
	}
}

// written is what "typedrpc json" makes of a struct: methods that say what encoding/json
// does.
type written struct{ S string }

func (w *written) AppendJSON(dst []byte) ([]byte, error) {
	b, err := json.Marshal(*w)
	return append(dst, b...), err
}

// A message that says what encoding/json does is treated as if it had no methods.
func TestAppendText_written(t *testing.T) {
	is := is.New(t)
	_, err := AppendText(nil, &written{"\xff"})
	is.Equal(err, errText)
	_, err = AppendText(nil, &written{"\ufffd"})
	is.NoErr(err)
	own := given("{\"S\":\"\\ufffd\"}")
	_, err = AppendText(nil, &own)
	is.NoErr(err) // it writes another than encoding/json
}

// Whatever a message is read by, what is no text is refused.
func TestDecode_notUTF8(t *testing.T) {
	for _, v := range []any{new(string), new(any), new(map[string]int), new(struct{ S string }), new([]string), new(given), new(half), new(loud)} {
		t.Run(fmt.Sprintf("%T", v), func(t *testing.T) {
			is := is.New(t)
			for _, text := range []string{"\"\xff\"", "{\"\xff\":1,\"\xfe\":2}", "{\"S\":\"a\xc3\"}", "[\"\xed\xa0\x80\"]"} {
				is.True(Decode([]byte(text), v) != nil) // refused
			}
		})
	}
}
