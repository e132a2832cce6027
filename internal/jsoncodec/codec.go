// Package jsoncodec is encoding/json without reflection where it can be, and what
// the JSON-RPC dialect needs beside: lists as params, base64 of byte items. It
// knows no declarations.
package jsoncodec

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// jsonAppender is implemented by messages that write their own JSON. Together
// with UnmarshalJSON it keeps reflection off the message's path.
type jsonAppender interface {
	AppendJSON(dst []byte) ([]byte, error)
}

// Append appends the JSON of what v points to.
func Append(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case *struct{}:
		return append(dst, "{}"...), nil
	case *string:
		return wire.AppendString(dst, *v), nil
	case *bool:
		return strconv.AppendBool(dst, *v), nil
	case *int:
		return strconv.AppendInt(dst, int64(*v), 10), nil
	case *int32:
		return strconv.AppendInt(dst, int64(*v), 10), nil
	case *int64:
		return strconv.AppendInt(dst, *v, 10), nil
	case *uint:
		return strconv.AppendUint(dst, uint64(*v), 10), nil
	case *uint32:
		return strconv.AppendUint(dst, uint64(*v), 10), nil
	case *uint64:
		return strconv.AppendUint(dst, *v, 10), nil
	case *float64:
		if math.IsNaN(*v) || math.IsInf(*v, 0) {
			return dst, fmt.Errorf("JSON cannot carry %v", *v)
		}
		return appendFloat(dst, *v), nil
	case *[]byte:
		if *v == nil {
			return append(dst, "null"...), nil
		}
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, *v)
		return append(dst, '"'), nil
	case jsonAppender:
		return v.AppendJSON(dst)
	}
	b, err := json.Marshal(v)
	return append(dst, b...), err
}

// AppendText is Append, and refuses strings that are not UTF-8, which that changes. Of
// messages that write their own JSON those are exempt that write another than encoding/json.
func AppendText(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case *string:
		if !utf8.ValidString(*v) {
			return dst, errText
		}
		return wire.AppendString(dst, *v), nil
	case *[]byte, json.Marshaler:
		return Append(dst, v)
	}
	out, err := Append(dst, v)
	if err == nil && replaced(out[len(dst):], v) && plain(out[len(dst):], v) {
		err = errText
	}
	return out, err
}

// plain reports whether encoding/json would write b for v, too.
func plain(b []byte, v any) bool {
	if _, ok := v.(jsonAppender); !ok {
		return true
	}
	same, err := json.Marshal(v)
	return err == nil && bytes.Equal(same, b)
}

// replaced reports whether encoding/json has written a string of v that is not UTF-8 as
// one with U+FFFD in it, which is the only one that it escapes. JSON that the program
// brings may have the escape in it: where there is such in v nobody can tell.
func replaced(b []byte, v any) bool {
	for rest := b; ; {
		i := bytes.Index(rest, []byte(`\ufffd`))
		if i < 0 {
			return false
		}
		if slashes := i - len(bytes.TrimRight(rest[:i], `\`)); slashes%2 == 0 {
			break
		}
		rest = rest[i+1:]
	}
	text := fmt.Sprintf("%#v", v)
	return !strings.Contains(text, "json.RawMessage{") && !strings.Contains(text, "typedrpc.Raw{")
}

// errText refuses what would arrive as another text: of two keys of a map as one.
var errText = errors.New("a string is not UTF-8")

// appendFloat writes f as encoding/json and JavaScript do: whole numbers look
// whole, so that a reader who declared an integer can read them.
func appendFloat(dst []byte, f float64) []byte {
	if a := math.Abs(f); a == 0 || 1e-6 <= a && a < 1e21 {
		return strconv.AppendFloat(dst, f, 'f', -1, 64)
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, 'e', -1, 64)
	if n := len(dst); n-start >= 4 && dst[n-4] == 'e' && dst[n-3] == '-' && dst[n-2] == '0' {
		dst[n-2] = dst[n-1] // e-09 is e-9
		dst = dst[:n-1]
	}
	return dst
}

// RawDepth bounds the nesting of Raw values that are sent; the receiver has a
// bound of its own.
const RawDepth = 10_000

// Decode reads data into what v points to.
func Decode(data []byte, v any) error {
	switch v := v.(type) {
	case *struct{}:
		return wire.Valid(data, RawDepth)
	case *string:
		s, err := wire.Unquote(data)
		if err != nil {
			data = Trim(data)
			if IsNull(data) {
				return nil
			}
			return fmt.Errorf("want a string, have %s", KindOf(data))
		}
		*v = s
		return nil
	case *int:
		n, ok := integer(data)
		if !ok || int64(int(n)) != n {
			break
		}
		*v = int(n)
		return nil
	case *int64:
		n, ok := integer(data)
		if !ok {
			break
		}
		*v = n
		return nil
	case *int32:
		n, ok := integer(data)
		if !ok || int64(int32(n)) != n {
			break
		}
		*v = int32(n)
		return nil
	case *uint:
		n, ok := natural(data)
		if !ok || int64(uint(n)) != n {
			break
		}
		*v = uint(n)
		return nil
	case *uint32:
		n, ok := natural(data)
		if !ok || int64(uint32(n)) != n {
			break
		}
		*v = uint32(n)
		return nil
	case *uint64:
		n, ok := natural(data)
		if !ok {
			break
		}
		*v = uint64(n)
		return nil
	case *[]byte:
		text, err := wire.Unquote(data)
		if err != nil {
			break
		}
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return errors.New("want base64 in a string")
		}
		*v = b
		return nil
	case *float64:
		n, ok := integer(data) // the common case, exactly
		if !ok || n > 1<<53 || n < -1<<53 || n == 0 && data[0] == '-' {
			break
		}
		*v = float64(n)
		return nil
	case *bool:
		switch string(data) {
		case "true", "false":
			*v = len(data) == 4
			return nil
		}
	case json.Unmarshaler:
		if _, appends := v.(jsonAppender); !appends {
			break // let encoding/json treat null and embedded fields as ever
		}
		// UnmarshalJSON may rely on valid input.
		if err := wire.Valid(data, RawDepth); err != nil {
			return err
		}
		return jsonError(v.UnmarshalJSON(Trim(data)))
	}
	if !utf8.Valid(data) { // which encoding/json would take, changed
		return errText
	}
	return jsonError(json.Unmarshal(data, v))
}

// Trim returns data without the white space around it, which is no part of a
// value.
func Trim(data []byte) []byte { return bytes.Trim(data, " \t\r\n") }

// jsonError drops encoding/json's prefix and the names of Go's types from what a
// peer gets to read.
func jsonError(err error) error {
	var te *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &te) && te.Field != "":
		return fmt.Errorf("%s: %s does not fit", te.Field, te.Value)
	case te != nil:
		return fmt.Errorf("%s does not fit", te.Value)
	}
	switch text := err.Error(); {
	case strings.HasPrefix(text, "json: invalid use of ,string"):
		return errors.New("a member does not fit: it wants a value in a string")
	case strings.HasPrefix(text, "json: "):
		return errors.New("a value does not fit")
	}
	return err
}

// integer reads a plain JSON integer; anything else is left to encoding/json.
func integer(data []byte) (n int64, ok bool) {
	digits := data
	if len(digits) > 0 && digits[0] == '-' {
		digits = digits[1:]
	}
	if len(digits) == 0 || len(digits) > 18 || digits[0] == '0' && len(digits) > 1 {
		return 0, false
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	if len(digits) != len(data) {
		n = -n
	}
	return n, true
}

// natural is integer without a sign: encoding/json takes no -0 for a natural number.
func natural(data []byte) (n int64, ok bool) {
	n, ok = integer(data)
	return n, ok && data[0] != '-'
}

// IsNull reports whether data is null.
func IsNull(data []byte) bool { return string(data) == "null" }

// KindOf names what a JSON value is, for error texts.
func KindOf(data []byte) string {
	if len(data) == 0 {
		return "nothing"
	}
	switch data[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "a number"
}

// Check reports whether messages of v's type can be carried; v points to a zero
// message.
func Check(v any) error {
	switch v.(type) {
	case *any, jsonAppender:
		return nil
	}
	// encoding/json refuses channels, functions and complex numbers when it
	// meets them in a value; a zero value shows all but those behind
	// pointers, slices and maps.
	if _, err := json.Marshal(v); err != nil {
		var ue *json.UnsupportedTypeError
		if errors.As(err, &ue) {
			return err
		}
	}
	return nil
}
