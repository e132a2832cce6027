package msg

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
)

// FastRequest and FastReply are Request and Reply that write and read their own JSON, so that
// encoding/json's reflection is not on the message's path.
type (
	FastRequest Request
	FastReply   Reply
)

// AppendJSON appends r's JSON.
func (r *FastRequest) AppendJSON(dst []byte) ([]byte, error) {
	dst = strconv.AppendInt(append(dst, `{"A":`...), r.A, 10)
	dst = strconv.AppendInt(append(dst, `,"B":`...), r.B, 10)
	dst = appendString(append(dst, `,"Tag":`...), r.Tag)
	return append(dst, '}'), nil
}

// UnmarshalJSON reads r.
func (r *FastRequest) UnmarshalJSON(data []byte) error {
	rest, ok := bytes.CutPrefix(data, []byte(`{"A":`))
	a, rest, ok := number(rest, ok)
	rest, ok = skip(rest, `,"B":`, ok)
	b, rest, ok := number(rest, ok)
	rest, ok = skip(rest, `,"Tag":"`, ok)
	tag, rest, ok := text(rest, ok)
	if !ok || string(rest) != "}" {
		return json.Unmarshal(data, (*Request)(r)) // in another order, or with spaces
	}
	*r = FastRequest{A: a, B: b, Tag: tag}
	return nil
}

// AppendJSON appends r's JSON.
func (r *FastReply) AppendJSON(dst []byte) ([]byte, error) {
	dst = strconv.AppendInt(append(dst, `{"Sum":`...), r.Sum, 10)
	dst = appendString(append(dst, `,"Text":`...), r.Text)
	return append(dst, '}'), nil
}

// UnmarshalJSON reads r.
func (r *FastReply) UnmarshalJSON(data []byte) error {
	rest, ok := bytes.CutPrefix(data, []byte(`{"Sum":`))
	sum, rest, ok := number(rest, ok)
	rest, ok = skip(rest, `,"Text":"`, ok)
	s, rest, ok := text(rest, ok)
	if !ok || string(rest) != "}" {
		return json.Unmarshal(data, (*Reply)(r))
	}
	*r = FastReply{Sum: sum, Text: s}
	return nil
}

func appendString(dst []byte, s string) []byte {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
		quoted, _ := json.Marshal(s) // no string fails
		return append(dst, quoted...)
	}
	return append(append(append(dst, '"'), s...), '"')
}

// skip, number and text take what they are named for off the beginning of data, if ok and if
// it is there.
func skip(data []byte, prefix string, ok bool) ([]byte, bool) {
	rest, found := bytes.CutPrefix(data, []byte(prefix))
	return rest, ok && found
}

func number(data []byte, ok bool) (int64, []byte, bool) {
	end := 0
	for end < len(data) && (data[end] == '-' || data[end] >= '0' && data[end] <= '9') {
		end++
	}
	n, err := strconv.ParseInt(string(data[:end]), 10, 64)
	return n, data[end:], ok && err == nil
}

func text(data []byte, ok bool) (string, []byte, bool) {
	for i, b := range data {
		switch {
		case b == '"':
			return string(data[:i]), data[i+1:], ok
		case b == '\\', b < ' ', b > '~':
			return "", data, false
		}
	}
	return "", data, false
}
