package wire

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"strconv"
	"unicode/utf8"
)

// Valid reports whether data is one JSON value (RFC 8259), with white space
// around it or not, nested at most maxDepth deep (0: MaxDepth; a scalar is 0
// deep). It is strict where parsers differ: a byte-order mark, invalid UTF-8
// and control characters in strings are refused; an escaped lone surrogate is
// not, and reads as U+FFFD. Errors wrap ErrMalformed and give the offset.
//
// Valid does not allocate, and is safe for concurrent use.
func Valid(data []byte, maxDepth int) error {
	s := newScanner(data, maxDepth)
	if err := s.value(); err != nil {
		return err
	}
	return s.end()
}

// Depth is Valid, and returns how deep data nests.
func Depth(data []byte, maxDepth int) (int, error) {
	s := newScanner(data, maxDepth)
	if err := s.value(); err != nil {
		return 0, err
	}
	return s.deepest, s.end()
}

// Object reads data as one JSON object and calls member with each name,
// unescaped, and each value as it was written, in order. A name that comes
// twice, judged after unescaping, is refused. maxDepth is as for Valid and
// counts the object itself.
//
// Errors wrap ErrMalformed, but an error of member ends the reading and is
// returned as it is. A fault is found when the reading gets there, so that
// members before it have been seen. Object is safe for concurrent use.
func Object(data []byte, maxDepth int, member func(key string, value []byte) error) error {
	s := newScanner(data, maxDepth)
	o, err := s.object()
	if err != nil {
		return err
	}
	for {
		key, value, err := o.next()
		switch {
		case err != nil:
			return err
		case key == nil:
			return s.end()
		case o.twice:
			return s.fail(s.pos, "after a member name used twice")
		}
		if err := member(string(key), value); err != nil {
			return err
		}
	}
}

// Array reads data as one JSON array and calls element with each value as it
// was written, in order. Depth, errors and concurrency are as for Object.
func Array(data []byte, maxDepth int, element func(value []byte) error) error {
	s := newScanner(data, maxDepth)
	a, err := s.array()
	if err != nil {
		return err
	}
	for {
		more, err := a.next()
		if err != nil {
			return err
		}
		if !more {
			return s.end()
		}
		start := s.pos
		if err := s.value(); err != nil {
			return err
		}
		if err := element(s.data[start:s.pos:s.pos]); err != nil {
			return err
		}
	}
}

// Lone reports whether data is a list of one value that is neither a list nor an object:
// that is how JSON-RPC carries such a value as params.
func Lone(data []byte) bool {
	n, lone := 0, true
	err := Array(data, 1, func(value []byte) error {
		n++
		lone = value[0] != '[' && value[0] != '{'
		return nil
	})
	return err == nil && n == 1 && lone
}

// scanError is a fault in JSON text.
type scanError struct {
	offset int
	what   string
}

func (e *scanError) Error() string {
	return ErrMalformed.Error() + ": " + e.what + " at offset " + strconv.Itoa(e.offset)
}

func (e *scanError) Unwrap() error { return ErrMalformed }

// scanner is a cursor over JSON text.
type scanner struct {
	data    []byte
	pos     int
	room    int // levels of nesting left
	deepest int // level of the latest value
}

func newScanner(data []byte, maxDepth int) scanner {
	if maxDepth == 0 {
		maxDepth = MaxDepth
	}
	return scanner{data: data, room: maxDepth}
}

func (s *scanner) fail(at int, what string) error { return &scanError{at, what} }

const (
	textEnd   = "unexpected end"
	textDeep  = "too deep"
	textValue = "no value"
	textBOM   = "byte-order mark"
	textKey   = "no member name"
	textColon = "no colon"
	textComma = "no comma or closing bracket"
	textTrail = "more after the value"
)

// end demands that nothing but white space is left.
func (s *scanner) end() error {
	s.pos = skipSpace(s.data, s.pos)
	if s.pos < len(s.data) {
		return s.fail(s.pos, textTrail)
	}
	return nil
}

// peek skips white space and returns the byte after it, 0 at the end (which no
// grammar rule accepts either).
func (s *scanner) peek() byte {
	s.pos = skipSpace(s.data, s.pos)
	if s.pos < len(s.data) {
		return s.data[s.pos]
	}
	return 0
}

func skipSpace(d []byte, i int) int {
	for i < len(d) && d[i] <= ' ' && (d[i] == ' ' || d[i] == '\n' || d[i] == '\r' || d[i] == '\t') {
		i++
	}
	return i
}

// value moves from before one value, or the white space in front of it, to
// just after it. Its loop keeps the brackets that are open in a bit stack, so
// that depth costs neither Go stack nor, up to 256, memory.
func (s *scanner) value() error {
	var (
		d        = s.data
		i        = s.pos
		depth    int
		deepest  int
		inObject bool
		room     [4]uint64
		outer    = room[:]
	)
	for {
		// Here a value begins.
		i = skipSpace(d, i)
		if i >= len(d) {
			return s.fail(i, textEnd)
		}
		var bad string
		switch c := d[i]; {
		case c == '"':
			i, bad = skipString(d, i)
		case c == '{' || c == '[':
			if depth >= s.room {
				return s.fail(i, textDeep)
			}
			word, bit := depth>>6, uint64(1)<<(depth&63)
			if word == len(outer) {
				outer = append(outer, 0)
			}
			outer[word] &^= bit
			if inObject {
				outer[word] |= bit
			}
			depth++
			deepest = max(deepest, depth)
			inObject = c == '{'
			i = skipSpace(d, i+1)
			if i < len(d) && d[i] == c+2 { // '}' and ']' are two after '{' and '['
				break
			}
			if inObject {
				if i, bad = skipKey(d, i); bad != "" {
					return s.fail(i, bad)
				}
			}
			continue
		case c == '-' || '0' <= c && c <= '9':
			i, bad = skipNumber(d, i)
		default:
			i, bad = skipLiteral(d, i)
		}
		if bad != "" {
			return s.fail(i, bad)
		}
		// Here a value has ended, or an empty container is about to.
	closing:
		for {
			if depth == 0 {
				s.pos, s.deepest = i, deepest
				return nil
			}
			i = skipSpace(d, i)
			if i >= len(d) {
				return s.fail(i, textEnd)
			}
			switch c := d[i]; {
			case c == ',':
				i++
				if inObject {
					if i, bad = skipKey(d, i); bad != "" {
						return s.fail(i, bad)
					}
				}
				break closing
			case c == '}' && inObject || c == ']' && !inObject:
				i++
				depth--
				inObject = outer[depth>>6]&(1<<(depth&63)) != 0
			default:
				return s.fail(i, textComma)
			}
		}
	}
}

// skipKey moves over white space, a member name and its colon.
func skipKey(d []byte, i int) (int, string) {
	i = skipSpace(d, i)
	if i >= len(d) {
		return i, textEnd
	}
	if d[i] != '"' {
		return i, textKey
	}
	i, bad := skipString(d, i)
	if bad != "" {
		return i, bad
	}
	i = skipSpace(d, i)
	if i >= len(d) {
		return i, textEnd
	}
	if d[i] != ':' {
		return i, textColon
	}
	return i + 1, ""
}

// plainByte says which bytes mean nothing special inside a string.
var plainByte = func() (t [256]bool) {
	for c := ' '; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// skipString moves over the string whose opening quote is at i.
func skipString(d []byte, i int) (int, string) {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	i++
	for {
		// Eight bytes at a time: a control character, a quote, a backslash and
		// a byte of a longer rune all leave the high bit set. A borrow can set
		// it wrongly, but only above a byte that rightly has it.
		for i+8 <= len(d) {
			w := binary.LittleEndian.Uint64(d[i:])
			m := (w | (w - ' '*ones) | ((w ^ '"'*ones) - ones) | ((w ^ '\\'*ones) - ones)) & highs
			if m != 0 {
				i += bits.TrailingZeros64(m) >> 3
				break
			}
			i += 8
		}
		for i < len(d) && plainByte[d[i]] {
			i++
		}
		if i >= len(d) {
			return i, "unfinished string"
		}
		switch c := d[i]; {
		case c == '"':
			return i + 1, ""
		case c == '\\':
			size, ok := escapeSize(d[i:])
			if !ok {
				return i, "bad escape"
			}
			i += size
		case c < ' ':
			return i, "control character in a string"
		default:
			for i < len(d) && d[i] >= utf8.RuneSelf {
				_, size := utf8.DecodeRune(d[i:])
				if size == 1 {
					return i, "invalid UTF-8"
				}
				i += size
			}
		}
	}
}

// escapeSize returns how long the escape at the front of d is.
func escapeSize(d []byte) (size int, ok bool) {
	if len(d) < 2 {
		return 0, false
	}
	switch d[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2, true
	case 'u':
		_, ok := hex4(d[2:])
		return 6, ok
	}
	return 0, false
}

func skipNumber(d []byte, i int) (int, string) {
	const bad = "bad number"
	if d[i] == '-' {
		i++
	}
	switch {
	case i < len(d) && d[i] == '0':
		i++
	case i < len(d) && isDigit(d[i]):
		i = skipDigits(d, i)
	default:
		return i, bad
	}
	if i < len(d) && d[i] == '.' {
		start := i + 1
		if i = skipDigits(d, start); i == start {
			return i, bad
		}
	}
	if i < len(d) && d[i]|0x20 == 'e' {
		i++
		if i < len(d) && (d[i] == '+' || d[i] == '-') {
			i++
		}
		start := i
		if i = skipDigits(d, start); i == start {
			return i, bad
		}
	}
	return i, ""
}

func isDigit(c byte) bool { return c-'0' <= 9 }

func skipDigits(d []byte, i int) int {
	for i < len(d) && isDigit(d[i]) {
		i++
	}
	return i
}

func skipLiteral(d []byte, i int) (int, string) {
	rest := d[i:]
	switch {
	case bytes.HasPrefix(rest, []byte("true")), bytes.HasPrefix(rest, []byte("null")):
		return i + 4, ""
	case bytes.HasPrefix(rest, []byte("false")):
		return i + 5, ""
	case i == 0 && bytes.HasPrefix(rest, []byte("\uFEFF")):
		return i, textBOM
	}
	return i, textValue
}
