package jsongen

import "strconv"

// Quoted reads a value that is in a string, and returns that value: null for null.
func (s *Scanner) Quoted() []byte {
	if s.peek() == 'n' && s.literal("null") {
		return []byte("null")
	}
	if s.peek() != '"' {
		s.fail("no value in a string")
		return nil
	}
	text := s.str()
	if len(text) == 0 && s.err == nil {
		s.fail("nothing in the string")
	}
	return text
}

// QuotedBool, and the others, take what Quoted has returned.
func QuotedBool[T ~bool](s *Scanner, q []byte, v *T) {
	switch string(q) {
	case "null":
	case "true", "false":
		*v = len(q) == 4
	default:
		s.fail("no boolean in a string")
	}
}

// QuotedInt is for integers.
func QuotedInt[T Signed](s *Scanner, q []byte, v *T) {
	if !s.inQuotes(q) {
		return
	}
	n, err := strconv.ParseInt(string(q), 10, 64)
	if err != nil || int64(T(n)) != n {
		s.fail("no integer that fits in a string")
		return
	}
	*v = T(n)
}

// QuotedUint is for natural numbers.
func QuotedUint[T Unsigned](s *Scanner, q []byte, v *T) {
	if !s.inQuotes(q) {
		return
	}
	n, err := strconv.ParseUint(string(q), 10, 64)
	if err != nil || uint64(T(n)) != n {
		s.fail("no natural number that fits in a string")
		return
	}
	*v = T(n)
}

// QuotedFloat is for numbers.
func QuotedFloat[T Floating](s *Scanner, q []byte, v *T) {
	if !s.inQuotes(q) {
		return
	}
	n, err := strconv.ParseFloat(string(q), sizeOf[T]())
	if err != nil {
		s.fail("no number that fits in a string")
		return
	}
	*v = T(n)
}

// inQuotes reports whether there is a number in q; null is none and no error.
func (s *Scanner) inQuotes(q []byte) bool {
	if s.err != nil || string(q) == "null" {
		return false
	}
	if len(q) == 0 || q[0] != '-' && q[0]-'0' > 9 {
		s.fail("no number in a string")
		return false
	}
	return true
}

// QuotedString is for strings, which are in the string with quotes of their own.
func QuotedString[T Text](s *Scanner, q []byte, v *T) {
	if text, ok := s.InQuotes(q); ok {
		*v = T(text)
	}
}

// InQuotes is the text of a string that is in a string. It is not ok for null.
func (s *Scanner) InQuotes(q []byte) (text []byte, ok bool) {
	if s.err != nil || string(q) == "null" {
		return nil, false
	}
	inner := Scanner{data: q, exact: s.exact}
	if len(q) > 0 && q[0] == '"' {
		text = inner.str()
		if inner.err == nil && inner.pos == len(q) {
			return text, true
		}
	}
	s.fail("no string in a string")
	return nil, false
}

// QuotedNumber is for a json.Number.
func QuotedNumber[T Text](s *Scanner, q []byte, v *T) {
	if len(q) > 0 && (q[0] == '-' || q[0]-'0' <= 9) { // encoding/json looks no further
		*v = T(q)
		return
	}
	if text, ok := s.InQuotes(q); ok {
		if !isNumber(text) {
			s.fail("no number in a string")
		}
		*v = T(text)
	}
}
