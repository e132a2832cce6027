package wire

import (
	"errors"
	"strings"
	"testing"

	"github.com/matryer/is"
)

// texts takes a sequence apart that comes in parts of n bytes.
func texts(s *Sequence, data string, n int) (all []string, err error) {
	var buf []byte
	for {
		m := min(n, len(data))
		buf, data = append(buf, data[:m]...), data[m:]
		for {
			text, used, err := s.Next(buf, data == "")
			if err != nil {
				return all, err
			}
			if text == nil {
				buf = buf[used:]
				break
			}
			all = append(all, string(text))
			buf = buf[used:]
		}
		if data == "" {
			return all, nil
		}
	}
}

func TestSequence(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lines bool
		data  string
		want  string // joined by blanks
		err   error
	}{
		{name: "texts", data: "\x1e1\n\x1e{\"a\":\n[2]}\n\x1e\"x\"\n", want: "1 {\"a\":\n[2]} \"x\""},
		{name: "nothing"},
		{name: "white space between", data: "\x1e1\r\n \n\x1e\x1e\n\x1e 2 \n", want: "1 2"},
		{name: "no LF behind what ends by itself", data: "\x1e[1]\x1e\"\\\"\"\x1e{}", want: `[1] "\"" {}`},
		{name: "a number whose end is white space", data: "\x1e1 \x1e2\t", want: "1 2"},
		{name: "a number that may have been longer", data: "\x1e1\n\x1e2", want: "1", err: ErrTruncated},
		{name: "in the middle, too", data: "\x1etrue\x1e2\n", err: ErrTruncated},
		{name: "an object that is open", data: "\x1e1\n\x1e{\"a\":1", want: "1", err: ErrTruncated},
		{name: "a string that is open", data: "\x1e\"a\\\"\n", err: ErrTruncated},
		{name: "nothing behind an RS", data: "\x1e1\n\x1e", want: "1", err: ErrTruncated},
		{name: "no RS", data: "1\n", err: ErrMalformed},
		{name: "no RS in front of the second", data: "\x1e1\n2\n", want: "1", err: ErrMalformed},
		{name: "two in one", data: "\x1e1 2\n", err: ErrMalformed},
		{name: "no JSON", data: "\x1e1\n\x1enope\n\x1e2\n", want: "1", err: ErrMalformed},
		{name: "more ends than beginnings", data: "\x1e]]\n", err: ErrMalformed},
		{name: "too long", data: "\x1e1\n\x1e\"" + strings.Repeat("x", 99) + "\"\n", want: "1", err: ErrTooLong},
		{name: "too deep", data: "\x1e[[[[1]]]]\n", err: ErrMalformed},
		{name: "lines", lines: true, data: "1\n{\"a\":[2]}\r\n\n \t\n\"x\"", want: `1 {"a":[2]} "x"`},
		{name: "no lines", lines: true, data: "\n \n"},
		{name: "a line that is no JSON", lines: true, data: "1\n{\"a\":\n2}\n", want: "1", err: ErrMalformed},
		{name: "a line with an RS", lines: true, data: "\x1e1\n", err: ErrMalformed},
		{name: "a line too long", lines: true, data: "1\n" + strings.Repeat("2", 101), want: "1", err: ErrTooLong},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, n := range []int{1, 2, 3, 1000} {
				is := is.New(t)
				all, err := texts(&Sequence{Lines: tt.lines, Max: 100, MaxDepth: 3}, tt.data, n)
				is.Equal(strings.Join(all, " "), tt.want)
				is.True(errors.Is(err, tt.err))
			}
		})
	}
}

// FuzzSequence finds the same texts however they come, and each is JSON.
func FuzzSequence(f *testing.F) {
	for _, seed := range []string{"\x1e1\n\x1e{\"a\":\n[2]}\n", "1\n{\"a\":2}\r\n\n3", "\x1e\"\\\"\"\x1e\x1e2", "\x1e[\n"} {
		f.Add(seed, 2, true)
		f.Add(seed, 3, false)
	}
	f.Fuzz(func(t *testing.T, data string, n int, lines bool) {
		if n < 1 {
			return
		}
		once, err := texts(&Sequence{Lines: lines, Max: 50}, data, len(data)+1)
		parts, err2 := texts(&Sequence{Lines: lines, Max: 50}, data, n)
		if strings.Join(once, "\x1e") != strings.Join(parts, "\x1e") || (err == nil) != (err2 == nil) {
			t.Fatalf("%q: %q, %v at once; %q, %v by %d", data, once, err, parts, err2, n)
		}
		for _, text := range once {
			if Valid([]byte(text), 0) != nil || len(text) > 50 {
				t.Fatalf("%q: %q is no text", data, text)
			}
		}
	})
}
