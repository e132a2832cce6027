package wire

import (
	"bytes"
	"maps"
	"strings"
)

// sample is one frame with its two encodings. They document the formats.
type sample struct {
	name   string
	frame  Frame
	binary string // bytes; "" where the dialect has no such frame
	json   string // to a peer with hello
	plain  string // to a plain peer
}

var samples = []sample{
	{
		name:   "HELLO",
		frame:  Frame{Type: Hello, Payload: []byte(`{"attempt":1}`)},
		binary: "\x01\x0d\x00\x00" + `{"attempt":1}`,
		json:   `{"jsonrpc":"2.0","id":"rpc.hello","method":"rpc.hello","params":{"attempt":1}}`,
	},
	{
		name:   "WELCOME",
		frame:  Frame{Type: Welcome, Payload: []byte(`{"token":"t"}`)},
		binary: "\x02\x0d\x00\x00" + `{"token":"t"}`,
		json:   `{"jsonrpc":"2.0","id":"rpc.hello","result":{"token":"t"}}`,
	},
	{
		name:   "AUTH",
		frame:  Frame{Type: Auth, Payload: []byte(`{"credentials":"c"}`)},
		binary: "\x03\x13\x00\x00" + `{"credentials":"c"}`,
		json:   `{"jsonrpc":"2.0","id":"rpc.auth","method":"rpc.auth","params":{"credentials":"c"}}`,
	},
	{
		name:   "AUTH_OK",
		frame:  Frame{Type: AuthOK, Payload: []byte(`{}`)},
		binary: "\x04\x02\x00\x00{}",
		json:   `{"jsonrpc":"2.0","id":"rpc.auth","result":{}}`,
	},
	{
		name:   "PING",
		frame:  Frame{Type: Ping, Position: 300},
		binary: "\x05\x02\x00\x00\xac\x02",
		json:   `{"jsonrpc":"2.0","method":"rpc.ping","params":{"position":300}}`,
	},
	{
		name:   "ACK",
		frame:  Frame{Type: Ack},
		binary: "\x06\x01\x00\x00\x00",
		json:   `{"jsonrpc":"2.0","method":"rpc.ack","params":{"position":0}}`,
	},
	{
		name:   "GOAWAY",
		frame:  Frame{Type: GoAway, Payload: []byte(`{"min":5}`)},
		binary: "\x07\x09\x00\x00" + `{"min":5}`,
		json:   `{"jsonrpc":"2.0","method":"rpc.goaway","params":{"min":5}}`,
	},
	{
		name:   "CALL",
		frame:  Frame{Type: Call, Flags: FromCaller, ID: 7, Method: "sum", Payload: []byte(`[1,2]`)},
		binary: "\xc8\x0d\x00\x00\x07\x00\x00\x03sum\x00[1,2]",
		json:   `{"jsonrpc":"2.0","id":7,"method":"sum","params":[1,2]}`,
		plain:  `{"jsonrpc":"2.0","id":7,"method":"sum","params":[1,2]}`,
	},
	{
		name: "CALL of a stream with everything",
		frame: Frame{
			Type: Call, Flags: FromCaller | Lane | NoItems, Kind: BidiStream, ID: 1, Method: "m",
			TimeLeft: 1500, Meta: map[string]string{"b": "2", "a": "1"}, Payload: []byte(`{}`),
		},
		binary: "\xc8\x11\x00\x00\x01\x0f\xdc\x0b\x01m\x02\x01a\x011\x01b\x012{}",
		json:   `{"jsonrpc":"2.0","id":1,"method":"m","params":{},"timeout":1500,"stream":"bidi","lane":true,"noItems":true,"meta":{"a":"1","b":"2"}}`,
		plain:  `{"jsonrpc":"2.0","id":1,"method":"m","params":{}}`,
	},
	{
		name:   "CALL without params",
		frame:  Frame{Type: Call, Flags: FromCaller, Kind: ServerStream, ID: 2, Method: "m"},
		binary: "\xc8\x06\x00\x00\x02\x01\x00\x01m\x00",
		json:   `{"jsonrpc":"2.0","id":2,"method":"m","stream":"server"}`,
		plain:  `{"jsonrpc":"2.0","id":2,"method":"m"}`,
	},
	{
		name:   "CALL fragment",
		frame:  Frame{Type: Call, Flags: FromCaller | More, Kind: ClientStream, ID: 3, Method: "m", Payload: []byte("x")},
		binary: "\xe8\x07\x00\x00\x03\x02\x00\x01m\x00x",
	},
	{
		name:   "RESULT",
		frame:  Frame{Type: Result, ID: 7, Payload: []byte(`3`)},
		binary: "\x89\x03\x00\x00\x07\x003",
		json:   `{"jsonrpc":"2.0","id":7,"result":3}`,
		plain:  `{"jsonrpc":"2.0","id":7,"result":3}`,
	},
	{
		name:   "RESULT with metadata",
		frame:  Frame{Type: Result, ID: 7, Payload: []byte(`null`), Meta: map[string]string{"k": ""}},
		binary: "\x89\x09\x00\x00\x07\x01\x01k\x00null",
		json:   `{"jsonrpc":"2.0","id":7,"result":null,"meta":{"k":""}}`,
		plain:  `{"jsonrpc":"2.0","id":7,"result":null}`,
	},
	{
		name: "FAIL",
		frame: Frame{
			Type: Fail, Flags: NotRun, ID: 300, Code: 12, Message: "no", RetryAfter: 5,
			Meta: map[string]string{"k": "v"}, Payload: []byte(`[]`),
		},
		binary: "\x8a\x0f\x00\x00\xac\x02\x01\x18\x02no\x05\x01\x01k\x01v[]",
		json:   `{"jsonrpc":"2.0","id":300,"error":{"code":-32601,"message":"no","data":[],"retryAfter":5},"notRun":true,"meta":{"k":"v"}}`,
		plain:  `{"jsonrpc":"2.0","id":300,"error":{"code":-32601,"message":"no","data":[]}}`,
	},
	{
		name:   "FAIL with a code of one's own",
		frame:  Frame{Type: Fail, ID: 1, Code: -1},
		binary: "\x8a\x06\x00\x00\x01\x00\x01\x00\x00\x00",
		json:   `{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":""}}`,
		plain:  `{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":""}}`,
	},
	{
		name:   "CANCEL",
		frame:  Frame{Type: Cancel, Flags: FromCaller, ID: 7},
		binary: "\xcb\x01\x00\x00\x07",
		json:   `{"jsonrpc":"2.0","method":"rpc.cancel","params":{"id":7}}`,
		plain:  `{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":7}}`,
	},
	{
		name:   "ITEM",
		frame:  Frame{Type: Item, ID: 7, Payload: []byte(`"x"`)},
		binary: "\x8c\x06\x00\x00\x07\x00\x00\"x\"",
		json:   `{"jsonrpc":"2.0","method":"rpc.item","params":{"id":7,"payload":"x"}}`,
	},
	{
		name:   "ITEM from the caller",
		frame:  Frame{Type: Item, Flags: FromCaller | History | Prompt, ID: 7, Dropped: 2, Payload: []byte(`1`)},
		binary: "\xcc\x04\x00\x00\x07\x03\x021",
		json:   `{"jsonrpc":"2.0","method":"rpc.item","params":{"id":7,"caller":true,"history":true,"prompt":true,"dropped":2,"payload":1}}`,
	},
	{
		name:   "END",
		frame:  Frame{Type: End, Flags: FromCaller, ID: 7},
		binary: "\xcd\x01\x00\x00\x07",
		json:   `{"jsonrpc":"2.0","method":"rpc.end","params":{"id":7}}`,
	},
	{
		name:   "CREDIT",
		frame:  Frame{Type: Credit, Flags: FromCaller, ID: 7, Items: 3, Window: 65536},
		binary: "\xce\x05\x00\x00\x07\x03\x80\x80\x04",
		json:   `{"jsonrpc":"2.0","method":"rpc.credit","params":{"items":3,"id":7,"window":65536,"caller":true}}`,
	},
	{
		name:   "CREDIT of the notification lane",
		frame:  Frame{Type: Credit, Items: 1},
		binary: "\x8e\x03\x00\x00\x00\x01\x00",
		json:   `{"jsonrpc":"2.0","method":"rpc.credit","params":{"items":1}}`,
	},
	{
		name:   "NOTIFY",
		frame:  Frame{Type: Notify, Method: "n", Payload: []byte(`{"a":1}`), Meta: map[string]string{"k": "v"}},
		binary: "\x8f\x0e\x00\x00\x01n\x01\x01k\x01v" + `{"a":1}`,
		json:   `{"jsonrpc":"2.0","method":"n","params":{"a":1},"meta":{"k":"v"}}`,
		plain:  `{"jsonrpc":"2.0","method":"n","params":{"a":1}}`,
	},
	{
		name:   "CHUNK",
		frame:  Frame{Type: Chunk, Flags: FromCaller | More, ID: 7, Payload: []byte("part")},
		binary: "\xf0\x05\x00\x00\x07part",
	},
	{
		name:   "CHUNK of a NOTIFY",
		frame:  Frame{Type: Chunk, Payload: []byte("end")},
		binary: "\x90\x04\x00\x00\x00end",
	},
	{
		name:   "unknown and counted",
		frame:  Frame{Type: MaxType, Flags: CountedBit, Payload: []byte("?")},
		binary: "\x9f\x01\x00\x00?",
	},
	{
		name:   "unknown",
		frame:  Frame{Type: numTypes, Flags: More | FromCaller},
		binary: "\x72\x00\x00\x00",
	},
	{
		name:   "HEAD",
		frame:  Frame{Type: Head, ID: 7, Meta: map[string]string{"k": "v"}},
		binary: "\x91\x06\x00\x00\x07\x01\x01k\x01v",
		json:   `{"jsonrpc":"2.0","method":"rpc.head","params":{"id":7,"meta":{"k":"v"}}}`,
	},
	{
		name:   "HEAD of nothing",
		frame:  Frame{Type: Head, ID: 300},
		binary: "\x91\x03\x00\x00\xac\x02\x00",
		json:   `{"jsonrpc":"2.0","method":"rpc.head","params":{"id":300}}`,
	},
	{
		name: "FAIL of a fault",
		frame: Frame{
			Type: Fail, ID: 7, Code: 9, Message: "sold out", Fault: "shop.no-stock",
			Meta: map[string]string{"a": "1"}, Payload: []byte(`{"left":0}`),
		},
		binary: "\x8a\x34\x00\x00\x07\x00\x12\x08sold out\x00\x02\x01a\x011\x09rpc.fault\x0dshop.no-stock" + `{"left":0}`,
		json:   `{"jsonrpc":"2.0","id":7,"error":{"code":9,"message":"sold out","data":{"left":0},"fault":"shop.no-stock"},"meta":{"a":"1"}}`,
		plain:  `{"jsonrpc":"2.0","id":7,"error":{"code":9,"message":"sold out","data":{"left":0},"fault":"shop.no-stock"}}`,
	},
	{
		name:   "FAIL with a plain peer's code",
		frame:  Frame{Type: Fail, ID: 7, Code: 9, Message: "execution reverted", Number: 3, Payload: []byte(`"0x"`)},
		binary: "\x8a\x29\x00\x00\x07\x00\x12\x12execution reverted\x00\x01\x0arpc.number\x013" + `"0x"`,
		json:   `{"jsonrpc":"2.0","id":7,"error":{"code":9,"message":"execution reverted","data":"0x","number":3}}`,
		plain:  `{"jsonrpc":"2.0","id":7,"error":{"code":3,"message":"execution reverted","data":"0x"}}`,
	},
}

func equal(a, b *Frame) bool {
	return a.Type == b.Type && a.Flags == b.Flags && a.Kind == b.Kind && a.ID == b.ID &&
		bytes.Equal(a.RawID, b.RawID) && a.Method == b.Method && a.TimeLeft == b.TimeLeft &&
		maps.Equal(a.Meta, b.Meta) && bytes.Equal(a.Payload, b.Payload) && a.Code == b.Code &&
		a.Message == b.Message && a.Fault == b.Fault && a.Number == b.Number && a.RetryAfter == b.RetryAfter && a.Position == b.Position &&
		a.Items == b.Items && a.Window == b.Window && a.Dropped == b.Dropped
}

// plainOf is what a plain peer gets to see of f.
func plainOf(f Frame) Frame {
	f.Flags &= FromCaller
	f.Kind, f.TimeLeft, f.Meta, f.RetryAfter = Unary, 0, nil, 0
	switch f.Type {
	case Cancel:
		f.Code = CodeCancelled
	case Fail:
		if f.Number == 0 {
			f.Number = CodeToJSON(f.Code)
		}
		f.Code = codeFromPlain(f.Number)
	}
	return f
}

func internSum(name []byte) string {
	if string(name) == "sum" {
		return "sum"
	}
	return ""
}

func bigMeta(size int) map[string]string {
	return map[string]string{"k": strings.Repeat("v", size-1)}
}
