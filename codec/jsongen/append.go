package jsongen

import (
	"encoding"
	"encoding/base64"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Writing is what may go wrong while a value is appended. After the first error what is
// appended means nothing. It is one goroutine's.
type Writing struct {
	err   error
	depth int
}

// Err is the first error.
func (w *Writing) Err() error { return w.err }

// Check reports whether there is no error, and keeps the first that there is.
func (w *Writing) Check(err error) bool {
	if w.err == nil {
		w.err = err
	}
	return err == nil
}

// Enter begins a value that may contain itself. It is false where that is too deep for
// any reader, or endless, or something went wrong before; Leave ends the value otherwise.
func (w *Writing) Enter() bool {
	if w.depth++; w.depth > maxDepth {
		w.Check(errors.New("the value is too deep, or contains itself"))
	}
	return w.err == nil
}

// Leave ends what Enter has begun.
func (w *Writing) Leave() { w.depth-- }

// AppendInt appends an integer.
func AppendInt[T Signed](dst []byte, v T) []byte { return strconv.AppendInt(dst, int64(v), 10) }

// AppendUint appends a natural number.
func AppendUint[T Unsigned](dst []byte, v T) []byte { return strconv.AppendUint(dst, uint64(v), 10) }

// AppendBool appends a boolean.
func AppendBool[T ~bool](dst []byte, v T) []byte { return strconv.AppendBool(dst, bool(v)) }

// AppendFloat appends a number.
func AppendFloat[T Floating](dst []byte, v T, w *Writing) []byte {
	f, size := float64(v), sizeOf[T]()
	if math.IsInf(f, 0) || math.IsNaN(f) {
		w.Check(errors.New("JSON cannot carry " + strconv.FormatFloat(f, 'g', -1, size)))
		return dst
	}
	small, large := T(1e-6), T(1e21)
	if abs := T(math.Abs(f)); abs == 0 || small <= abs && abs < large {
		if i := int64(f); -1<<24 < i && i < 1<<24 && float64(i) == f && (i != 0 || !math.Signbit(f)) {
			return strconv.AppendInt(dst, i, 10)
		}
		return strconv.AppendFloat(dst, f, 'f', -1, size)
	}
	dst = strconv.AppendFloat(dst, f, 'e', -1, size)
	if n := len(dst); n >= 4 && dst[n-4] == 'e' && dst[n-3] == '-' && dst[n-2] == '0' {
		dst[n-2] = dst[n-1] // e-09 is e-9
		dst = dst[:n-1]
	}
	return dst
}

// AppendString appends a string, in which <, > and & are escaped, and what is not UTF-8 is
// an escaped U+FFFD.
func AppendString[T Text](dst []byte, v T) []byte {
	dst = append(dst, '"')
	start := len(dst)
	dst = append(dst, v...)
	if i := plainHTML(dst, start); i < len(dst) {
		return appendFar(dst[:i], string(v[i-start:]))
	}
	return append(dst, '"')
}

// AppendExact is AppendString, and refuses what is not UTF-8.
func AppendExact[T Text](dst []byte, v T, w *Writing) []byte {
	if !utf8.ValidString(string(v)) {
		w.Check(errors.New("a string is not UTF-8"))
	}
	return AppendString(dst, v)
}

// appendFar appends the rest of a string that is not plain, and its last quote.
func appendFar(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	start := 0 // what is before it has been written
	for i := 0; i < len(s); {
		c := s[i]
		if special[c] == 0 {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			dst = append(dst, s[start:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\b':
				dst = append(dst, `\b`...)
			case '\f':
				dst = append(dst, `\f`...)
			case '\n':
				dst = append(dst, `\n`...)
			case '\r':
				dst = append(dst, `\r`...)
			case '\t':
				dst = append(dst, `\t`...)
			default:
				dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(dst, s[start:i]...)
			dst = append(dst, `\ufffd`...)
			start = i + size
		case r == '\u2028' || r == '\u2029':
			dst = append(dst, s[start:i]...)
			dst = append(dst, `\u202`...)
			dst = append(dst, hex[r&15])
			start = i + size
		}
		i += size
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

// AppendNumber appends a json.Number.
func AppendNumber[T Text](dst []byte, v T, w *Writing) []byte {
	if v == "" {
		return append(dst, '0')
	}
	start := len(dst)
	dst = append(dst, v...)
	if !isNumber(dst[start:]) {
		w.Check(errors.New("a json.Number is no number"))
	}
	return dst
}

// AppendQuotedString appends a string that is in a string.
func AppendQuotedString[T Text](dst []byte, v T) []byte {
	inner := AppendString(nil, v)
	dst = append(dst, '"')
	for _, c := range inner { // in which nothing else has to be escaped
		if c == '"' || c == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}

// AppendQuotedExact is AppendQuotedString, and refuses what is not UTF-8.
func AppendQuotedExact[T Text](dst []byte, v T, w *Writing) []byte {
	if !utf8.ValidString(string(v)) {
		w.Check(errors.New("a string is not UTF-8"))
	}
	return AppendQuotedString(dst, v)
}

// AppendBase64 appends bytes as base64 in a string.
func AppendBase64(dst, v []byte) []byte {
	if v == nil {
		return append(dst, "null"...)
	}
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, v)
	return append(dst, '"')
}

// AppendBytes is AppendBase64 for slices that are made bytes with a copy alone.
func AppendBytes[S ~[]T, T ~uint8](dst []byte, v S) []byte {
	if v == nil {
		return append(dst, "null"...)
	}
	b := make([]byte, len(v))
	for i, c := range v {
		b[i] = byte(c)
	}
	return AppendBase64(dst, b)
}

// AppendTime appends a time.
func AppendTime(dst []byte, v time.Time, w *Writing) []byte {
	dst = append(dst, '"')
	dst, err := v.AppendText(dst)
	w.Check(err)
	return append(dst, '"')
}

// AppendMarshalText appends what v writes as text.
func AppendMarshalText(dst []byte, v encoding.TextMarshaler, w *Writing) []byte {
	text, err := v.MarshalText()
	w.Check(err)
	return AppendString(dst, string(text))
}

// AppendExactText is AppendMarshalText, and refuses what is not UTF-8.
func AppendExactText(dst []byte, v encoding.TextMarshaler, w *Writing) []byte {
	text, err := v.MarshalText()
	w.Check(err)
	return AppendExact(dst, string(text), w)
}

// AppendMarshalJSON appends what v writes as JSON.
func AppendMarshalJSON(dst []byte, v interface{ MarshalJSON() ([]byte, error) }, w *Writing) []byte {
	value, err := v.MarshalJSON()
	if !w.Check(err) {
		return dst
	}
	if value == nil {
		value = []byte{} // which is no JSON
	}
	return AppendRaw(dst, value, w)
}

// AppendRaw appends a value that is JSON, nil for null: without white space, and with <, >
// and & escaped.
func AppendRaw(dst []byte, value []byte, w *Writing) []byte {
	const hex = "0123456789abcdef"
	if value == nil {
		return append(dst, "null"...)
	}
	s := Scan(value)
	s.Skip()
	if !w.Check(s.End()) {
		return dst
	}
	inString := false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c <= ' ' && !inString: // white space
		case c == '\\':
			i++
			dst = append(dst, c, value[i])
		case c == '"':
			inString = !inString
			dst = append(dst, c)
		case c == '<', c == '>', c == '&':
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c == 0xe2 && i+2 < len(value) && value[i+1] == 0x80 && value[i+2]&^1 == 0xa8: // U+2028, U+2029
			dst = append(dst, '\\', 'u', '2', '0', '2', hex[value[i+2]&15])
			i += 2
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// Some reports whether one of a list is as is says.
func Some[T any](list []T, is func(*T) bool) bool {
	for i := range list {
		if is(&list[i]) {
			return true
		}
	}
	return false
}

// Close ends an object whose members, each with a comma before it, begin at start.
func Close(dst []byte, start int) []byte {
	if len(dst) == start {
		return append(dst, "{}"...)
	}
	dst[start] = '{'
	return append(dst, '}')
}

// Keys are the keys of a map in the order in which they are written.
func Keys[M ~map[K]V, K Text, V any](m M) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// A Key is a map's key and what it is in JSON.
type Key[K any] struct {
	Text string
	Key  K
}

// IntKeys are the keys of a map by signed integers in the order in which they are written.
func IntKeys[M ~map[K]V, K Signed, V any](m M) []Key[K] {
	keys := make([]Key[K], 0, len(m))
	for k := range m {
		keys = append(keys, Key[K]{strconv.FormatInt(int64(k), 10), k})
	}
	return Sorted(keys)
}

// UintKeys is IntKeys for unsigned integers.
func UintKeys[M ~map[K]V, K Unsigned, V any](m M) []Key[K] {
	keys := make([]Key[K], 0, len(m))
	for k := range m {
		keys = append(keys, Key[K]{strconv.FormatUint(uint64(k), 10), k})
	}
	return Sorted(keys)
}

// Sorted puts keys in the order of their texts.
func Sorted[K any](keys []Key[K]) []Key[K] {
	slices.SortFunc(keys, func(a, b Key[K]) int { return strings.Compare(a.Text, b.Text) })
	return keys
}
