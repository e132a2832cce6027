package cli

import (
	"encoding/json"
	"errors"

	"github.com/typedrpc/typedrpc"
)

// foreign is a codec that this program knows by name alone: its messages travel as they
// are, and are strings in base64 here.
type foreign string

// Name returns the codec's name.
func (f foreign) Name() string { return string(f) }

var errForeign = errors.New("of this codec only messages that are given in base64 can be sent")

// Append appends what the string in base64 stands for.
func (f foreign) Append(dst []byte, v any) ([]byte, error) {
	raw, ok := v.(*typedrpc.Raw)
	if !ok {
		return dst, errForeign
	}
	var message []byte
	if len(*raw) > 0 {
		if err := json.Unmarshal(*raw, &message); err != nil {
			return dst, errForeign
		}
	}
	return append(dst, message...), nil
}

// Decode makes data a string in base64.
func (f foreign) Decode(data []byte, v any) error {
	raw, ok := v.(*typedrpc.Raw)
	if !ok {
		return errForeign
	}
	text, err := json.Marshal(data)
	*raw = text
	return err
}

// Check lets everything pass: the messages are none of this program's types.
func (f foreign) Check(any) error { return nil }
