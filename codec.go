package typedrpc

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// A Codec turns messages into bytes and back. Besides an application's own
// types it is given *Empty and *Raw, which it carries as it sees fit. Its methods are called by many
// goroutines at once. The codec is chosen in the opening handshake and fixed
// for a connection's life.
type Codec interface {
	// Name is part of the subprotocol, typedrpc.v1.<name>: lower-case
	// letters, digits and dashes.
	Name() string
	// Append appends the encoding of v, a pointer to a message, to dst. On
	// an error the result is ignored.
	Append(dst []byte, v any) ([]byte, error)
	// Decode reads data into v, a pointer to a message. It retains nothing of
	// data.
	Decode(data []byte, v any) error
	// Check reports whether messages of v's type can be carried; v points to
	// a zero message. It is asked when a server or a connection is made, for
	// what its Mux has then.
	Check(v any) error
}

// checkCodec refuses a codec whose name cannot be part of a subprotocol, which
// is a token of RFC 6455 section 4.1.
func checkCodec(c Codec) error {
	name := c.Name()
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return fmt.Errorf("typedrpc: codec name %q must be of lower-case letters, digits and dashes", name)
		}
	}
	if name == "" {
		return errors.New("typedrpc: a codec has no name")
	}
	return nil
}

// AppendJSON is implemented by messages that write their own JSON. Together
// with UnmarshalJSON it keeps reflection off the message's path.
type jsonAppender interface {
	AppendJSON(dst []byte) ([]byte, error)
}

// JSON is the default codec and the one of the JSON-RPC dialect. It is
// encoding/json, except that scalars, strings, byte slices, Empty, Raw and
// types with AppendJSON([]byte) ([]byte, error) and UnmarshalJSON([]byte) error
// are handled without reflection. Like encoding/json it ignores unknown
// members of a message and writes byte slices in base64.
var JSON Codec = jsonCodec{}

type jsonCodec struct{}

func (jsonCodec) Name() string { return "json" }

func (jsonCodec) Append(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case *Empty:
		return append(dst, "{}"...), nil
	case *Raw:
		if len(*v) == 0 {
			return append(dst, "null"...), nil
		}
		if err := wire.Valid(*v, rawDepth); err != nil {
			return dst, fmt.Errorf("Raw is no JSON value: %w", err)
		}
		return append(dst, *v...), nil
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

// rawDepth bounds the nesting of Raw values that are sent; the receiver has a
// bound of its own.
const rawDepth = 10_000

func (jsonCodec) Decode(data []byte, v any) error {
	switch v := v.(type) {
	case *Empty:
		return wire.Valid(data, rawDepth)
	case *Raw:
		*v = append((*v)[:0], data...)
		return nil
	case *string:
		if isNull(data) {
			return nil
		}
		s, err := wire.Unquote(data)
		if err != nil {
			return fmt.Errorf("want a string, have %s", kindOf(data))
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
		n, ok := integer(data)
		if !ok || n < 0 || int64(uint(n)) != n {
			break
		}
		*v = uint(n)
		return nil
	case *uint32:
		n, ok := integer(data)
		if !ok || int64(uint32(n)) != n {
			break
		}
		*v = uint32(n)
		return nil
	case *uint64:
		n, ok := integer(data)
		if !ok || n < 0 {
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
		if err := wire.Valid(data, rawDepth); err != nil {
			return err
		}
		return v.UnmarshalJSON(data)
	}
	return jsonError(json.Unmarshal(data, v))
}

// jsonError drops encoding/json's prefix and Go's type names from what a peer
// gets to read.
func jsonError(err error) error {
	var te *json.UnmarshalTypeError
	if errors.As(err, &te) {
		if te.Field != "" {
			return fmt.Errorf("%s: %s does not fit", te.Field, te.Value)
		}
		return fmt.Errorf("%s does not fit", te.Value)
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

func isNull(data []byte) bool { return string(data) == "null" }

// kindOf names what a JSON value is, for error texts.
func kindOf(data []byte) string {
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

func (jsonCodec) Check(v any) error {
	switch v.(type) {
	case *Raw, *any, jsonAppender:
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
