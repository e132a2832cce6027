package wire

import (
	"errors"
	"testing"

	"github.com/matryer/is"
)

// Every example of section 7 of the JSON-RPC 2.0 specification, as far as
// reading goes. A request's frame is written as "call id method params", a
// notification's as "notify method params", what must be refused as
// "invalid id"; codes are those of the message as a whole.
func TestReader_specification(t *testing.T) {
	tests := []struct {
		name, msg string
		code      int64
		array     bool
		frames    []string
	}{
		{name: "positional 1", msg: `{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}`, frames: []string{`call 1 subtract [42, 23]`}},
		{name: "positional 1, answer", msg: `{"jsonrpc": "2.0", "result": 19, "id": 1}`, frames: []string{`result 1 19`}},
		{name: "positional 2", msg: `{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}`, frames: []string{`call 2 subtract [23, 42]`}},
		{name: "positional 2, answer", msg: `{"jsonrpc": "2.0", "result": -19, "id": 2}`, frames: []string{`result 2 -19`}},
		{name: "named 1", msg: `{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}`, frames: []string{`call 3 subtract {"subtrahend": 23, "minuend": 42}`}},
		{name: "named 2", msg: `{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}`, frames: []string{`call 4 subtract {"minuend": 42, "subtrahend": 23}`}},
		{name: "notification", msg: `{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}`, frames: []string{`notify update [1,2,3,4,5]`}},
		{name: "notification without params", msg: `{"jsonrpc": "2.0", "method": "foobar"}`, frames: []string{`notify foobar `}},
		{name: "unknown method", msg: `{"jsonrpc": "2.0", "method": "foobar", "id": "1"}`, frames: []string{`call "1" foobar `}},
		{name: "unknown method, answer", msg: `{"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "1"}`, frames: []string{`fail "1" Method not found`}},
		{name: "invalid JSON", msg: `{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]`, code: -32700},
		{name: "invalid JSON, answer", msg: `{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": null}`, frames: []string{`fail null Parse error`}},
		{name: "invalid request", msg: `{"jsonrpc": "2.0", "method": 1, "params": "bar"}`, frames: []string{`invalid `}},
		{name: "batch, invalid JSON", array: true, code: -32700, msg: `[
			{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
			{"jsonrpc": "2.0", "method"
		]`},
		{name: "empty array", msg: `[]`, array: true, code: -32600},
		{name: "invalid batch of one", msg: `[1]`, array: true, frames: []string{`invalid `}},
		{name: "invalid batch", msg: `[1,2,3]`, array: true, frames: []string{`invalid `, `invalid `, `invalid `}},
		{name: "batch", array: true, msg: `[
			{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
			{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
			{"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
			{"foo": "boo"},
			{"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
			{"jsonrpc": "2.0", "method": "get_data", "id": "9"}
		]`, frames: []string{
			`call "1" sum [1,2,4]`,
			`notify notify_hello [7]`,
			`call "2" subtract [42,23]`,
			`invalid `,
			`call "5" foo.get {"name": "myself"}`,
			`call "9" get_data `,
		}},
		{name: "batch, answer", array: true, msg: `[
			{"jsonrpc": "2.0", "result": 7, "id": "1"},
			{"jsonrpc": "2.0", "result": 19, "id": "2"},
			{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
			{"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "5"},
			{"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"}
		]`, frames: []string{
			`result "1" 7`,
			`result "2" 19`,
			`fail null Invalid Request`,
			`fail "5" Method not found`,
			`result "9" ["hello", 5]`,
		}},
		{name: "batch of notifications", array: true, msg: `[
			{"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},
			{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}
		]`, frames: []string{`notify notify_sum [1,2,4]`, `notify notify_hello [7]`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			var r Reader
			frames, array, err := r.Read([]byte(tt.msg))
			is.Equal(array, tt.array)
			var fault *SyntaxError
			if tt.code != 0 {
				is.True(errors.As(err, &fault))
				is.Equal(fault.Code, tt.code)
				is.Equal(fault.ID, nil)
				return
			}
			is.NoErr(err)
			is.Equal(len(frames), len(tt.frames))
			for i, f := range frames {
				is.Equal(summary(&f), tt.frames[i])
			}
		})
	}
}

func summary(f *Frame) string {
	switch f.Type {
	case Call:
		return "call " + string(f.RawID) + " " + f.Method + " " + string(f.Payload)
	case Notify:
		return "notify " + f.Method + " " + string(f.Payload)
	case Result:
		return "result " + string(f.RawID) + " " + string(f.Payload)
	case Fail:
		return "fail " + string(f.RawID) + " " + f.Message
	}
	return "invalid " + string(f.RawID)
}
