package wire

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"
)

func TestValid(t *testing.T) {
	good := []string{
		`0`, `-0`, `10`, `1.5`, `-1.5e+10`, `1E-3`, `true`, `false`, `null`, `""`, `"x"`,
		` { } `, "\t[\r\n]", `[[],{}]`, `{"a":[1,{"b":null}],"c":"d"}`, `{"":1}`,
		`"\"\\\/\b\f\n\r\t\u00e9\uD83D\uDE00"`, `"\ud800"`, `"\udc00\ud800x"`,
		`"caf` + "\u00e9 \u65e5\u672c \U0001F600" + ` and then some more text"`,
		"\"\x7f\"", strings.Repeat("[", 64) + strings.Repeat("]", 64),
	}
	bad := []string{
		``, ` `, `-`, `01`, `1.`, `.5`, `1e`, `1e+`, `+1`, `0x1`, `NaN`, `Infinity`, `tru`, `nul`, `falsy`, `True`,
		`"`, `"abc`, `"abcdefghijk`, `'a'`, `"\x"`, `"\u12"`, `"\u12g4"`, `"\`, "\"\n\"", "\"\x00\"", "\"12345678\x1f\"",
		`[`, `[1`, `[1,`, `[1,]`, `[,1]`, `[1 2]`, `]`, `[}`, `{]`, `{`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`,
		`{,}`, `{1:2}`, `{"a" 1}`, `{"a":}`, `{"a":1 "b":2}`, `{a:1}`, `1 2`, `{}{}`, `[]]`, `//x`, `[1]x`,
		"\uFEFF{}", "\uFEFF", "{}\uFEFF", "\"\xff\"", "\"\xc3\"", "\"abc\xed\xa0\x80\"", "\"\xc0\xaf\"", "\"\xf4\x90\x80\x80\"",
		"\v1", "\u00a01", strings.Repeat("[", 65) + strings.Repeat("]", 65),
	}
	for _, text := range good {
		t.Run(text, func(t *testing.T) {
			is := is.New(t)
			is.NoErr(Valid([]byte(text), 0))
			is.True(json.Valid([]byte(text)))
		})
	}
	for _, text := range bad {
		t.Run(text, func(t *testing.T) {
			is := is.New(t)
			err := Valid([]byte(text), 0)
			is.True(errors.Is(err, ErrMalformed))
			is.True(strings.Contains(err.Error(), "at offset")) // says where
		})
	}
}

// Each special byte must be found wherever it is in the scanner's word of eight.
func TestValid_everyByteAtEveryPlace(t *testing.T) {
	is := is.New(t)
	for at := range 20 {
		for c := range 256 {
			text := []byte(`"` + strings.Repeat("a", 20) + `"`)
			text[1+at] = byte(c)
			want := c >= ' ' && c < 0x80 && c != '"' && c != '\\'
			if c == '"' && at == 19 {
				continue // `""` after the text: not one value either
			}
			if c == '\\' {
				want = false // \a, or the closing quote escaped
			}
			is.Equal(Valid(text, 0) == nil, want)
		}
	}
}

func TestValid_depth(t *testing.T) {
	is := is.New(t)
	nested := func(n int) []byte {
		return []byte(strings.Repeat(`[{"a":`, n/2) + "1" + strings.Repeat("}]", n/2))
	}
	is.NoErr(Valid(nested(1000), 1000)) // more levels than the scanner keeps in place
	is.True(Valid(nested(1002), 1001) != nil)
	is.NoErr(Valid([]byte(`1`), 1))
	is.NoErr(Valid([]byte(`[]`), 1))
	is.True(Valid([]byte(`[[]]`), 1) != nil)
	is.True(Valid([]byte(strings.Repeat("[", 100_000)), 0) != nil)
	is.Equal(testing.AllocsPerRun(10, func() { _ = Valid(nestedText, 0) }), 0.0)
}

var nestedText = []byte(`{"a":[1,2,{"b":"c\n"}],"d":1.5e3}`)

func TestObject(t *testing.T) {
	is := is.New(t)
	var got []string
	err := Object([]byte(` { "a" : 1 , "\u0062\n":[ 2 ], "" :{"a":{}} } `), 0, func(key string, value []byte) error {
		got = append(got, key+"="+string(value))
		return nil
	})
	is.NoErr(err)
	is.Equal(strings.Join(got, "|"), "a=1|b\n=[ 2 ]|={\"a\":{}}")
}

func TestObject_refuses(t *testing.T) {
	many := make([]string, 0, 40)
	for i := range 40 {
		many = append(many, `"`+strings.Repeat("k", i)+`":1`)
	}
	nothing := func(string, []byte) error { return nil }
	tests := []struct{ name, text string }{
		{"array", `[]`},
		{"nothing", ``},
		{"BOM", "\uFEFF{}"},
		{"trailing text", `{} x`},
		{"trailing comma", `{"a":1,}`},
		{"leading comma", `{,"a":1}`},
		{"no comma", `{"a":1 "b":1}`},
		{"no end", `{"a":1`},
		{"bad value", `{"a":x}`},
		{"bad name", `{a:1}`},
		{"twice", `{"a":1,"a":1}`},
		{"twice after unescaping", `{"a":1,"\u0061":1}`},
		{"twice among many", `{` + strings.Join(many, ",") + `,"kkk":1}`},
		{"too deep", strings.Repeat(`{"a":`, 65) + "1" + strings.Repeat("}", 65)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			is.True(errors.Is(Object([]byte(tt.text), 0, nothing), ErrMalformed))
		})
	}
	is := is.New(t)
	is.NoErr(Object([]byte(`{`+strings.Join(many, ",")+`}`), 0, nothing)) // many different ones
	is.True(errors.Is(Object([]byte(`{"a":[]}`), 1, nothing), ErrMalformed))
	stop := errors.New("stop")
	is.Equal(Object([]byte(`{"a":1,"b"`), 0, func(string, []byte) error { return stop }), stop)
}

func TestArray(t *testing.T) {
	is := is.New(t)
	var got []string
	collect := func(value []byte) error {
		got = append(got, string(value))
		return nil
	}
	is.NoErr(Array([]byte(` [ 1 , [2, 3],"x" ] `), 0, collect))
	is.Equal(strings.Join(got, "|"), `1|[2, 3]|"x"`)
	is.NoErr(Array([]byte(`[ ]`), 0, collect))
	for _, text := range []string{``, `{}`, `[`, `[1`, `[1,]`, `[,]`, `[1 2]`, `[x]`, `[] 1`, "[1,[\"\xff\"]]"} {
		is.True(errors.Is(Array([]byte(text), 0, collect), ErrMalformed))
	}
	is.True(Array([]byte(`[[]]`), 1, collect) != nil)
	stop := errors.New("stop")
	is.Equal(Array([]byte(`[1,x`), 0, func([]byte) error { return stop }), stop)
}

func TestAppendString(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", `""`},
		{"plain", `"plain"`},
		{"a\"b\\c/d", `"a\"b\\c/d"`},
		{"\b\f\n\r\t", `"\b\f\n\r\t"`},
		{"\x00\x1f\x7f", "\"\\u0000\\u001f\x7f\""},
		{"<script>&", `"<script>&"`},
		{"\u2028x\u2029", `"\u2028x\u2029"`},
		{"caf\u00e9 \U0001F600", "\"caf\u00e9 \U0001F600\""},
		{"a\xffb\xc3", "\"a\uFFFDb\uFFFD\""},
		{"\xed\xa0\x80", "\"\uFFFD\uFFFD\uFFFD\""},
	}
	for _, tt := range tests {
		t.Run(tt.want, func(t *testing.T) {
			is := is.New(t)
			is.Equal(string(AppendString([]byte("x"), tt.in)), "x"+tt.want)
			var back string
			is.NoErr(json.Unmarshal(AppendString(nil, tt.in), &back))
			is.Equal(back, strings.ToValidUTF8(strings.ReplaceAll(tt.in, "\xed\xa0\x80", "\uFFFD\uFFFD\uFFFD"), "\uFFFD"))
		})
	}
}

func TestUnquote(t *testing.T) {
	for _, text := range []string{
		`""`, ` "x" `, `"a\"b\\c\/d\b\f\n\r\t"`, `"\u00e9\u65E5"`, `"\uD83D\uDE00!"`, `"\ud800"`, `"\ud800x"`,
		`"\udc00\ud800"`, `"\ud800\ud83d\ude00"`, `"\ud83d\n"`, `"\u0000"`, `"\ud83d\ufffd"`,
	} {
		t.Run(text, func(t *testing.T) {
			is := is.New(t)
			got, err := Unquote([]byte(text))
			is.NoErr(err)
			var want string
			is.NoErr(json.Unmarshal([]byte(text), &want))
			is.Equal(got, want)
		})
	}
	is := is.New(t)
	for _, text := range []string{``, `1`, `null`, `"`, `"a" "b"`, `["a"]`, `"\q"`} {
		_, err := Unquote([]byte(text))
		is.True(errors.Is(err, ErrMalformed))
	}
}

func TestParseInteger(t *testing.T) {
	is := is.New(t)
	for text, want := range map[string]uint64{"0": 0, "7": 7, "18446744073709551615": math.MaxUint64} {
		got, ok := parseUint([]byte(text))
		is.True(ok)
		is.Equal(got, want)
	}
	for _, text := range []string{"", "-1", "-0", "1.0", "1e3", "18446744073709551616", "99999999999999999999", "184467440737095516150", `"1"`} {
		_, ok := parseUint([]byte(text))
		is.True(!ok)
	}
	for text, want := range map[string]int64{"0": 0, "-7": -7, "9223372036854775807": math.MaxInt64, "-9223372036854775808": math.MinInt64} {
		got, ok := parseInt([]byte(text))
		is.True(ok)
		is.Equal(got, want)
	}
	for _, text := range []string{"", "-", "--1", "1.5", "9223372036854775808", "-9223372036854775809"} {
		_, ok := parseInt([]byte(text))
		is.True(!ok)
	}
}

// A hostile text must cost time in proportion to its length, whatever is in it.
func TestScan_hostileInTime(t *testing.T) {
	is := is.New(t)
	var keys strings.Builder
	keys.WriteString(`{"jsonrpc":"2.0"`)
	for i := range 200_000 {
		keys.WriteString(`,"x` + strings.Repeat("0", i%7) + string(AppendString(nil, string(rune(i))))[1:] + `:1`)
	}
	keys.WriteString(`}`)
	texts := []string{
		strings.Repeat("[", 100_000),
		strings.Repeat(`{"a":`, 100_000),
		"[" + strings.Repeat("1,", 1_000_000) + "1]",
		`"` + strings.Repeat(`\u0061`, 500_000) + `"`,
		strings.Repeat(" ", 2_000_000),
		keys.String(),
	}
	start := time.Now()
	for _, text := range texts {
		for _, hello := range []bool{false, true} {
			r := Reader{Hello: hello}
			_, _, _ = r.Read([]byte(text))
		}
		_ = Valid([]byte(text), 0)
	}
	is.True(time.Since(start) < 30*time.Second) // squared it would be hours; the machine may be busy
}
