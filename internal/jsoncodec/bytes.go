package jsoncodec

import (
	"bytes"
	"encoding/base64"
	"errors"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// AppendBytes appends b as base64 in a string.
func AppendBytes(dst, b []byte) []byte {
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, b)
	return append(dst, '"')
}

// DecodeBytes appends what base64 in a string says to dst.
func DecodeBytes(dst, data []byte) ([]byte, error) {
	if len(data) == 0 || IsNull(data) {
		return dst, nil
	}
	if data[0] != '"' {
		return dst, errors.New("want base64 in a string, have " + KindOf(data))
	}
	text := bytes.Trim(data, `"`)
	if bytes.IndexByte(text, '\\') >= 0 { // some write / as \/
		s, err := wire.Unquote(data)
		if err != nil {
			return dst, err
		}
		text = []byte(s)
	}
	all, err := base64.StdEncoding.AppendDecode(dst, text)
	if err != nil {
		return dst, errors.New("want base64 in a string")
	}
	return all, nil
}
