package jsongen

import (
	"encoding"
	"encoding/base64"
	"math"
	"strconv"
)

// Signed, Unsigned, Floating and Text are types by their kinds.
type (
	Signed interface {
		~int | ~int8 | ~int16 | ~int32 | ~int64
	}
	Unsigned interface {
		~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~uintptr
	}
	Floating interface{ ~float32 | ~float64 }
	Text     interface{ ~string }
)

// The functions that read into *v leave it as it is for null.

// Bool reads a boolean.
func Bool[T ~bool](s *Scanner, v *T) {
	switch s.peek() {
	case 't':
		*v = T(s.literal("true"))
	case 'f':
		*v = T(!s.literal("false"))
	default:
		s.not("boolean")
	}
}

// String reads a string.
func String[T Text](s *Scanner, v *T) {
	if s.peek() != '"' {
		s.not("string")
		return
	}
	*v = T(s.str())
}

// Int reads an integer.
func Int[T Signed](s *Scanner, v *T) {
	negative := s.peek() == '-'
	if negative {
		s.pos++
	}
	n, ok := s.natural(negative)
	if !ok {
		return
	}
	i := int64(n)
	if negative {
		i = -i
	}
	if (n > math.MaxInt64 && !(negative && n == -math.MinInt64)) || int64(T(i)) != i {
		s.fail("a number that does not fit")
		return
	}
	*v = T(i)
}

// Uint reads a natural number.
func Uint[T Unsigned](s *Scanner, v *T) {
	s.peek()
	n, ok := s.natural(false)
	if !ok {
		return
	}
	if uint64(T(n)) != n {
		s.fail("a number that does not fit")
		return
	}
	*v = T(n)
}

// natural reads digits; behind a sign they must be there.
func (s *Scanner) natural(signed bool) (n uint64, ok bool) {
	d, start := s.data, s.pos
	i := start
	for ; i < len(d); i++ {
		c := d[i] - '0'
		if c > 9 {
			break
		}
		n = n*10 + uint64(c)
	}
	switch size := i - start; {
	case size == 0 && !signed:
		s.not("whole number")
		return 0, false
	case size == 0, size > 1 && d[start] == '0':
		s.fail("bad number")
		return 0, false
	case size > 19:
		var err error
		if n, err = strconv.ParseUint(string(d[start:min(i, start+21)]), 10, 64); err != nil {
			s.fail("a number that does not fit")
			return 0, false
		}
	}
	if i < len(d) && (d[i] == '.' || d[i]|0x20 == 'e') {
		s.fail("no whole number")
		return 0, false
	}
	s.pos = i
	return n, true
}

// Float reads a number.
func Float[T Floating](s *Scanner, v *T) {
	if c := s.peek(); c != '-' && c-'0' > 9 {
		s.not("number")
		return
	}
	number := s.number()
	if number == nil {
		return
	}
	if f, ok := simple(number); ok && sizeOf[T]() == 64 {
		*v = T(f)
		return
	}
	f, err := strconv.ParseFloat(string(number), sizeOf[T]())
	if err != nil {
		s.fail("a number that does not fit")
		return
	}
	*v = T(f)
}

// sizeOf is how many bits a T has.
func sizeOf[T Floating]() int {
	if most := float64(math.MaxFloat64); math.IsInf(float64(T(most)), 0) {
		return 32
	}
	return 64
}

// simple is the value of a number of at most 15 digits, which a float64 holds as it is, and
// so does the power of ten that it is divided by: the result is the nearest there is.
func simple(number []byte) (f float64, ok bool) {
	if len(number) > 17 {
		return 0, false
	}
	var n int64
	digits, point := 0, -1
	for i, c := range number {
		switch {
		case c-'0' <= 9:
			n = n*10 + int64(c-'0')
			digits++
		case c == '.':
			point = i
		case c == '-':
		default:
			return 0, false
		}
	}
	f = float64(n)
	if point >= 0 {
		f /= powers[len(number)-1-point]
	}
	if number[0] == '-' {
		f = -f
	}
	return f, digits <= 15
}

var powers = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17}

// Number reads a json.Number, also from a string.
func Number[T Text](s *Scanner, v *T) {
	switch c := s.peek(); {
	case c == '"':
		text := s.str()
		if s.err == nil && !isNumber(text) {
			s.fail("no number in the string")
		}
		*v = T(text)
	case c == '-' || c-'0' <= 9:
		*v = T(s.number())
	default:
		s.not("number")
	}
}

func isNumber(text []byte) bool {
	s := Scan(text)
	return s.number() != nil && s.pos == len(text)
}

// Raw copies a value as it is written to *v, also null.
func Raw[T ~[]byte](s *Scanner, v *T) { *v = append((*v)[:0], s.Raw()...) }

// Unmarshal has v read a value.
func (s *Scanner) Unmarshal(v interface{ UnmarshalJSON([]byte) error }) {
	if value := s.Raw(); value != nil {
		s.Check(v.UnmarshalJSON(value))
	}
}

// UnmarshalText has v read a string.
func (s *Scanner) UnmarshalText(v encoding.TextUnmarshaler) {
	if s.peek() != '"' {
		s.not("string")
		return
	}
	if text := s.str(); s.err == nil {
		s.Check(v.UnmarshalText(text))
	}
}

// Bytes reads base64 in a string, or a list of numbers.
func Bytes(s *Scanner, v *[]byte) {
	if s.peek() != '"' {
		byteList(s, v)
		return
	}
	if b := s.base64(); b != nil {
		*v = b
	}
}

// ByteList is Bytes for slices that are made of bytes with a copy alone.
func ByteList[S ~[]T, T ~uint8](s *Scanner, v *S) {
	if s.peek() != '"' {
		byteList(s, v)
		return
	}
	ByteString(s, v)
}

// ByteString reads base64 in a string, which is there.
func ByteString[S ~[]T, T ~uint8](s *Scanner, v *S) {
	b := s.base64()
	if b == nil {
		return
	}
	list := make(S, len(b))
	for i, c := range b {
		list[i] = T(c)
	}
	*v = list
}

func byteList[S ~[]T, T ~uint8](s *Scanner, v *S) {
	if s.Null() {
		*v = nil
		return
	}
	list, n := *v, 0
	for ok := s.Array(); ok; ok = s.Element() {
		list = Grow(list, n)
		Uint(s, &list[n])
		n++
	}
	*v = Cut(list, n)
}

// base64 reads it in a string. It returns nil after an error.
func (s *Scanner) base64() []byte {
	text := s.str()
	b, err := base64.StdEncoding.AppendDecode(make([]byte, 0, base64.StdEncoding.DecodedLen(len(text))), text)
	if err != nil || s.err != nil {
		s.fail("no base64")
		return nil
	}
	return b
}

// Grow makes list[n] be there, as it was if there was such.
func Grow[S ~[]T, T any](list S, n int) S {
	switch {
	case n < len(list):
		return list
	case n < cap(list):
		return list[:n+1]
	}
	var zero T
	return append(list, zero)
}

// Cut ends a list behind n elements: what is empty is new.
func Cut[S ~[]T, T any](list S, n int) S {
	if n == 0 {
		return S{}
	}
	return list[:n]
}
