// Package jsongen is what the code that "typedrpc json" writes is made of: it reads and
// appends JSON as encoding/json does, without reflection and without encoding/json.
// Programs call the generated methods, and nothing here. It imports nothing of ours;
// what an older version of the command has written keeps working.
package jsongen

import (
	"errors"
	"strconv"
	"unicode/utf8"
)

// maxDepth is how deep values may nest, as in encoding/json.
const maxDepth = 10_000

// A Scanner reads one JSON value, part by part. After the first error it reads no more,
// and what has been read is not to be used. It is one goroutine's.
type Scanner struct {
	data  []byte
	pos   int
	depth int
	exact bool
	err   error
	text  []byte // the latest string that is not what it looks like
}

// Scan begins to read data, as leniently as encoding/json.
func Scan(data []byte) *Scanner { return &Scanner{data: data} }

// ScanExact begins to read data, and refuses text that is not Unicode.
func ScanExact(data []byte) *Scanner { return &Scanner{data: data, exact: true} }

// End returns the first error, also for what is left behind the value.
func (s *Scanner) End() error {
	if s.err == nil {
		if s.skipSpace(); s.pos < len(s.data) {
			s.fail("more after the value")
		}
	}
	return s.err
}

// fail ends the reading. Where a value is of another kind, that is said in end's words.
func (s *Scanner) fail(text string) {
	if s.err == nil {
		s.err = errors.New(text + " at offset " + strconv.Itoa(s.pos))
	}
	s.pos = len(s.data)
}

// Check ends the reading if there is an error.
func (s *Scanner) Check(err error) {
	if err != nil && s.err == nil {
		s.err = err
		s.pos = len(s.data)
	}
}

// Fail ends the reading for a reason.
func (s *Scanner) Fail(reason string) { s.fail(reason) }

// peek skips white space and returns the byte after it, 0 at the end.
func (s *Scanner) peek() byte {
	if s.pos < len(s.data) {
		if c := s.data[s.pos]; c > ' ' {
			return c
		}
	}
	return s.peekFar()
}

func (s *Scanner) peekFar() byte {
	if s.skipSpace(); s.pos < len(s.data) {
		return s.data[s.pos]
	}
	return 0
}

func (s *Scanner) skipSpace() { s.pos = space(s.data, s.pos) }

func space(d []byte, i int) int {
	for i < len(d) && (d[i] == ' ' || d[i] == '\n' || d[i] == '\r' || d[i] == '\t') {
		i++
	}
	return i
}

// Null reports whether the value is null, and reads it if it is.
func (s *Scanner) Null() bool { return s.peek() == 'n' && s.literal("null") }

// literal reads true, false or null, of which the first byte is there.
func (s *Scanner) literal(text string) bool {
	if end := s.pos + len(text); end <= len(s.data) && string(s.data[s.pos:end]) == text {
		s.pos = end
		return true
	}
	s.fail("no value")
	return false
}

// not is for a value that does not begin as it should: null is taken, and changes nothing.
func (s *Scanner) not(want string) {
	if s.peek() == 'n' {
		s.literal("null")
		return
	}
	s.fail("no " + want)
}

// Object begins an object, and returns the first member's name until the next call. It
// is not ok if there is none: also for null, which it takes.
func (s *Scanner) Object() (name []byte, ok bool) {
	if s.peek() != '{' {
		s.not("object")
		return nil, false
	}
	s.pos++
	if s.depth++; s.depth > maxDepth {
		s.fail("too deep")
		return nil, false
	}
	if s.peek() == '}' {
		s.pos++
		s.depth--
		return nil, false
	}
	return s.name()
}

// Member returns the next member's name, as Object does. The value of the one before
// has been read.
func (s *Scanner) Member() (name []byte, ok bool) {
	switch s.peek() {
	case ',':
		s.pos++
		return s.name()
	case '}':
		s.pos++
		s.depth--
		return nil, false
	}
	s.fail("no comma or closing bracket")
	return nil, false
}

func (s *Scanner) name() ([]byte, bool) {
	if s.peek() != '"' {
		s.fail("no member name")
		return nil, false
	}
	name := s.str()
	if s.peek() != ':' {
		s.fail("no colon")
		return nil, false
	}
	s.pos++
	return name, true
}

// Array begins an array. It reports whether there is an element: there is none in null,
// which it takes.
func (s *Scanner) Array() bool {
	if s.peek() != '[' {
		s.not("array")
		return false
	}
	s.pos++
	if s.depth++; s.depth > maxDepth {
		s.fail("too deep")
		return false
	}
	if s.peek() == ']' {
		s.pos++
		s.depth--
		return false
	}
	return true
}

// Element reports whether there is another element. The one before has been read.
func (s *Scanner) Element() bool {
	switch s.peek() {
	case ',':
		s.pos++
		return true
	case ']':
		s.pos++
		s.depth--
		return false
	}
	s.fail("no comma or closing bracket")
	return false
}

// IsString reports whether a string begins next, for types that are read from others, too.
func (s *Scanner) IsString() bool { return s.peek() == '"' }

// str reads the string that begins at pos. It returns its text until the next call: a
// part of the data where that is as it is written.
func (s *Scanner) str() []byte {
	start := s.pos + 1
	i := plain(s.data, start)
	if i < len(s.data) && s.data[i] == '"' {
		s.pos = i + 1
		return s.data[start:i:i]
	}
	return s.strFar(start, i)
}

// strFar goes on at i, where something is that is no plain text. As encoding/json does,
// it takes what is not UTF-8 for U+FFFD, and half a surrogate pair, too.
func (s *Scanner) strFar(start, i int) []byte {
	d := s.data
	out, copied := s.text[:0], start // what was copied to out, if something had to be
	for i < len(d) {
		switch c := d[i]; {
		case c == '"':
			s.pos = i + 1
			if copied == start {
				return d[start:i:i]
			}
			s.text = append(out, d[copied:i]...)
			return s.text
		case c == '\\':
			r, size := escape(d[i:])
			if size == 0 || s.exact && r < 0 {
				s.pos = i
				s.fail("bad escape")
				return nil
			}
			out = append(out, d[copied:i]...)
			out = utf8.AppendRune(out, r) // of half a pair U+FFFD
			i += size
			copied = i
		case c < ' ':
			s.pos = i
			s.fail("control character in a string")
			return nil
		case c < utf8.RuneSelf:
			i = plain(d, i)
		default:
			r, size := utf8.DecodeRune(d[i:])
			if r == utf8.RuneError && size == 1 {
				if s.exact {
					s.pos = i
					s.fail("text is not UTF-8")
					return nil
				}
				out = append(out, d[copied:i]...)
				out = utf8.AppendRune(out, utf8.RuneError)
				copied = i + 1
			}
			i += size
		}
	}
	s.fail("unfinished string")
	return nil
}

// escape reads the escape at the front of d: its rune, -1 for half a surrogate pair, and
// its size, 0: it is none.
func escape(d []byte) (rune, int) {
	if len(d) < 2 {
		return 0, 0
	}
	switch d[1] {
	case '"', '\\', '/':
		return rune(d[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r, ok := hex4(d[2:])
		switch {
		case !ok:
			return 0, 0
		case r < 0xd800 || 0xdfff < r:
			return r, 6
		case r < 0xdc00 && len(d) >= 12 && d[6] == '\\' && d[7] == 'u':
			if low, ok := hex4(d[8:]); ok && 0xdc00 <= low && low <= 0xdfff {
				return (r-0xd800)<<10 | (low - 0xdc00) + 0x10000, 12
			}
		}
		return -1, 6
	}
	return 0, 0
}

func hex4(d []byte) (r rune, ok bool) {
	if len(d) < 4 {
		return 0, false
	}
	for _, c := range d[:4] {
		switch {
		case c-'0' <= 9:
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
