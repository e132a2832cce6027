package wire

import (
	"encoding/json"
	"errors"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/matryer/is"
)

func TestJSON_golden(t *testing.T) {
	for _, s := range samples {
		t.Run(s.name, func(t *testing.T) {
			for _, hello := range []bool{true, false} {
				is := is.New(t)
				want, frame := s.json, s.frame
				if !hello {
					want, frame = s.plain, plainOf(s.frame)
				}
				got, err := AppendJSON([]byte("before"), &s.frame, hello)
				if want == "" { // not said in this dialect
					is.True(errors.Is(err, ErrNotEncodable))
					is.Equal(string(got), "before")
					continue
				}
				is.NoErr(err)
				is.Equal(string(got), "before"+want)                  // encoding
				is.True(JSONSize(&s.frame) >= len(got)-len("before")) // the size is an upper bound
				is.True(json.Valid([]byte(want)))

				r := Reader{Hello: hello, Intern: internSum}
				frames, array, err := r.Read([]byte(" " + want + "\n"))
				is.NoErr(err)
				is.True(!array)
				is.Equal(len(frames), 1)
				if !hello && frame.ID != 0 {
					is.Equal(string(frames[0].RawID), string(appendIDValue(nil, &frame)))
					frames[0].RawID = nil
				}
				is.True(equal(&frames[0], &frame)) // decoded as it was
			}
		})
	}
}

func TestAppendJSON_size(t *testing.T) {
	is := is.New(t)
	worst := strings.Repeat("\x01", 100)
	for typ := Hello; typ < numTypes; typ++ {
		if typ == Chunk {
			continue
		}
		f := Frame{
			Type: typ, Flags: FromCaller | Lane | NoItems | NotRun | History | Prompt, Kind: ServerStream, ID: maxSafeID,
			Method: worst, Message: worst, Meta: map[string]string{worst: worst, "": "", "\u2028": "\u2029"},
			TimeLeft: math.MaxUint64, Code: math.MinInt64, RetryAfter: math.MaxUint64, Position: math.MaxUint64,
			Number: math.MinInt64, Items: math.MaxUint64, Window: math.MaxUint64, Dropped: math.MaxUint64, Payload: []byte(`1`),
		}
		b, err := AppendJSON(nil, &f, true)
		is.NoErr(err)
		is.True(json.Valid(b))
		is.True(len(b) <= JSONSize(&f))
		f.Flags &^= More
		b, err = AppendBinary(nil, &f)
		is.NoErr(err)
		is.True(len(b) <= BinarySize(&f))
	}
}

func TestAppendJSON_notEncodable(t *testing.T) {
	for _, tt := range notEncodable {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			got, err := AppendJSON([]byte("kept"), &tt.frame, true)
			is.True(errors.Is(err, tt.err))
			is.Equal(string(got), "kept")
		})
	}
	tests := []struct {
		name  string
		frame Frame
		hello bool
	}{
		{"id over 2^53-1", Frame{Type: Cancel, ID: maxSafeID + 1}, true},
		{"raw id to hello", Frame{Type: Result, RawID: []byte(`"a"`)}, true},
		{"FAIL without id to hello", Frame{Type: Fail}, true},
		{"RESULT without id", Frame{Type: Result}, false},
		{"control name", Frame{Type: Call, ID: 1, Method: "rpc.ping"}, true},
		{"unknown type", Frame{Type: numTypes}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			_, err := AppendJSON(nil, &tt.frame, tt.hello)
			is.True(errors.Is(err, ErrNotEncodable))
		})
	}
}

func TestAppendJSON_params(t *testing.T) {
	for payload, want := range map[string]string{
		``: ``, ` `: ``, `null`: ``, ` null`: ``,
		`1`: `,"params":[1]`, `"x"`: `,"params":["x"]`, `true`: `,"params":[true]`, `-1`: `,"params":[-1]`,
		`[]`: `,"params":[]`, `{"a":1}`: `,"params":{"a":1}`, ` [1]`: `,"params": [1]`,
	} {
		t.Run(payload, func(t *testing.T) {
			is := is.New(t)
			got, err := AppendJSON(nil, &Frame{Type: Notify, Method: "m", Payload: []byte(payload)}, false)
			is.NoErr(err)
			is.Equal(string(got), `{"jsonrpc":"2.0","method":"m"`+want+`}`)
		})
	}
}

func TestAppendJSON_plainIDs(t *testing.T) {
	is := is.New(t)
	for _, id := range []string{`"a"`, `0`, `-1.50`, `1e2`, `null`} {
		got, err := AppendJSON(nil, &Frame{Type: Result, ID: 5, RawID: []byte(id)}, false)
		is.NoErr(err)
		is.Equal(string(got), `{"jsonrpc":"2.0","id":`+id+`,"result":null}`) // byte for byte
	}
	got, err := AppendJSON(nil, &Frame{Type: Fail, Code: codeInvalid, Message: "m"}, false)
	is.NoErr(err)
	is.Equal(string(got), `{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"m"}}`)
}

func TestJSON_codes(t *testing.T) {
	is := is.New(t)
	for own, wire := range map[int64]int64{3: -32602, 12: -32601, 13: -32603, 5: 5, -7: -7, -32000: -32000} {
		is.Equal(CodeToJSON(own), wire)
		is.Equal(codeFromJSON(wire), own)
	}
	is.Equal(codeFromJSON(-32700), int64(3))
	is.Equal(codeFromJSON(-32600), int64(3))
}

// one reads a message of one frame.
func one(is *is.I, hello bool, msg string) Frame {
	is.Helper()
	r := Reader{Hello: hello}
	frames, _, err := r.Read([]byte(msg))
	is.NoErr(err)
	is.Equal(len(frames), 1)
	return frames[0]
}

func TestReader_invalidElements(t *testing.T) {
	const rest = `"jsonrpc":"2.0","method":"m"`
	tests := []struct{ name, msg, id string }{
		{"no jsonrpc", `{"id":1,"method":"m"}`, `1`},
		{"jsonrpc 1.0", `{"jsonrpc":"1.0","id":1,"method":"m"}`, `1`},
		{"jsonrpc a number", `{"jsonrpc":2.0,"id":1,"method":"m"}`, `1`},
		{"jsonrpc in another case", `{"JSONRPC":"2.0","id":1,"method":"m"}`, `1`},
		{"method in another case", `{"jsonrpc":"2.0","id":1,"Method":"m"}`, ``},
		{"nothing in it", `{}`, ``},
		{"only an id", `{"jsonrpc":"2.0","id":"x"}`, ``},
		{"only an id of nobody's", `{"jsonrpc":"2.0","id":1}`, ``},
		{"method a number", `{"jsonrpc":"2.0","id":1,"method":1}`, `1`},
		{"method null", `{"jsonrpc":"2.0","id":1,"method":null}`, `1`},
		{"method empty", `{"jsonrpc":"2.0","id":1,"method":""}`, `1`},
		{"method too long", `{"jsonrpc":"2.0","id":1,"method":"` + strings.Repeat("m", 256) + `"}`, `1`},
		{"method and result", `{` + rest + `,"id":1,"result":1}`, `1`},
		{"method twice", `{` + rest + `,"id":1,"method":"n"}`, `1`},
		{"method twice after unescaping", `{` + rest + `,"id":1,"m\u0065thod":"n"}`, `1`},
		{"unknown member twice", `{` + rest + `,"id":1,"x":1,"x":1}`, `1`},
		{"too many members", `{` + rest + manyMembers(200) + `}`, ``},
		{"id twice", `{` + rest + `,"id":1,"id":2}`, ``},
		{"id a boolean", `{` + rest + `,"id":true}`, ``},
		{"id an object", `{` + rest + `,"id":{}}`, ``},
		{"id an array", `{` + rest + `,"id":[1]}`, ``},
		{"id infinite", `{` + rest + `,"id":1e400}`, ``},
		{"id infinite, below", `{` + rest + `,"id":-1E+400}`, ``},
		{"id too long", `{` + rest + `,"id":"` + strings.Repeat("i", MaxRawID-1) + `"}`, ``},
		{"params a string", `{` + rest + `,"id":1,"params":"bar"}`, `1`},
		{"params a number", `{` + rest + `,"params":1}`, ``},
		{"params a boolean", `{` + rest + `,"id":1,"params":false}`, `1`},
		{"timeout negative", `{` + rest + `,"id":1,"timeout":-1}`, `1`},
		{"timeout no integer", `{` + rest + `,"id":1,"timeout":1.5}`, `1`},
		{"timeout null", `{` + rest + `,"id":1,"timeout":null}`, `1`},
		{"stream unknown", `{` + rest + `,"id":1,"stream":"unary"}`, `1`},
		{"lane a string", `{` + rest + `,"id":1,"lane":"true"}`, `1`},
		{"noItems null", `{` + rest + `,"id":1,"noItems":null}`, `1`},
		{"lane no boolean", `{` + rest + `,"id":1,"lane":1}`, `1`},
		{"meta no object", `{` + rest + `,"id":1,"meta":[]}`, `1`},
		{"meta of numbers", `{` + rest + `,"id":1,"meta":{"k":1}}`, `1`},
		{"meta key twice", `{` + rest + `,"id":1,"meta":{"k":"a","\u006b":"b"}}`, `1`},
		{"meta too large", `{` + rest + `,"id":1,"meta":{"k":"` + strings.Repeat("v", MaxMeta) + `"}}`, `1`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			for _, msg := range []string{tt.msg, "[" + tt.msg + "]"} {
				f := one(is, false, msg)
				is.Equal(f.Type, Invalid)
				is.Equal(f.Code, int64(codeInvalid))
				is.Equal(string(f.RawID), tt.id)
				is.True(f.Message != "")

				r := Reader{Hello: true}
				frames, _, err := r.Read([]byte(msg))
				var fault *SyntaxError
				is.True(errors.As(err, &fault)) // with hello it ends the connection
				is.True(errors.Is(err, ErrMalformed))
				is.Equal(fault.Code, int64(codeInvalid))
				is.Equal(len(frames), 0)
			}
		})
	}
}

func manyMembers(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`,"` + strings.Repeat("x", i+1) + `":0`)
	}
	return b.String()
}

func TestReader_unusableMessages(t *testing.T) {
	million := "[" + strings.Repeat("1,", 1_000_000) + "1]"
	tests := []struct {
		name, msg string
		code      int64
		id        string
	}{
		{"nothing", ``, codeParse, ``},
		{"no JSON", `{"jsonrpc"`, codeParse, ``},
		{"text after it", `{} {}`, codeParse, ``},
		{"array, text after it", `[{}] x`, codeParse, ``},
		{"fault in the last element", `[{"jsonrpc":"2.0","id":1,"method":"m"},{]`, codeParse, ``},
		{"array without end", `[1`, codeParse, ``},
		{"array with trailing comma", `[1,]`, codeParse, ``},
		{"scalar that is no JSON", `tru`, codeParse, ``},
		{"scalar, text after it", `1 2`, codeParse, ``},
		{"byte-order mark", "\uFEFF{}", codeParse, ``},
		{"invalid UTF-8", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}", codeParse, ``},
		{"invalid UTF-8, id known", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"m\",\"params\":[\"\xff\"]}", codeParse, `1`},
		{"too deep, id known", `{"method":"m","id":"a","params":` + strings.Repeat("[", 100_000), codeParse, `"a"`},
		{"too deep", strings.Repeat("[", 100_000), codeParse, ``},
		{"half a response: the id is ours", `{"jsonrpc":"2.0","id":1,"result":[1,}`, codeParse, ``},
		{"empty array", `[ ]`, codeInvalid, ``},
		{"a million elements", million, codeInvalid, ``},
		{"number", `1`, codeInvalid, ``},
		{"string", ` "x" `, codeInvalid, ``},
		{"null", `null`, codeInvalid, ``},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, hello := range []bool{false, true} {
				is := is.New(t)
				r := Reader{Hello: hello}
				frames, _, err := r.Read([]byte(tt.msg))
				is.True(errors.Is(err, ErrMalformed))
				is.Equal(len(frames), 0)
				var fault *SyntaxError
				is.True(errors.As(err, &fault))
				is.True(fault.Text != "")
				is.Equal(err.Error(), "malformed frame: "+fault.Text)
				if hello && strings.HasPrefix(fault.Text, "invalid request") {
					continue // with hello the first bad element is the end already
				}
				is.Equal(fault.Code, tt.code)
				is.Equal(string(fault.ID), tt.id)
			}
		})
	}
	is := is.New(t)
	r := Reader{}
	msg := []byte(million)
	is.True(testing.AllocsPerRun(3, func() { _, _, _ = r.Read(msg) }) < 20)
	_, _, _ = r.Read([]byte(`1`))
	is.True(cap(r.frames) <= keepFrames) // the scratch of a giant is not kept
}

func TestReader_plainIDs(t *testing.T) {
	is := is.New(t)
	for raw, id := range map[string]uint64{
		`0`: 0, `7`: 7, `18446744073709551615`: math.MaxUint64, `18446744073709551616`: 0, `-1`: 0, `1.0`: 0,
		`1e2`: 0, `1e-400`: 0, `"7"`: 0, `""`: 0, `"\u0061"`: 0,
		`"` + strings.Repeat("i", MaxRawID-2) + `"`: 0, strings.Repeat("9", MaxRawID): 0,
	} {
		f := one(is, false, `{"jsonrpc":"2.0","method":"m","id": `+raw+` }`)
		is.Equal(f.Type, Call)
		is.Equal(f.Flags, FromCaller)
		is.Equal(string(f.RawID), raw) // as it was written
		is.Equal(f.ID, id)
	}
}

func TestReader_plainCancel(t *testing.T) {
	is := is.New(t)
	for _, method := range []string{`$/cancelRequest`, `rpc.cancel`} {
		f := one(is, false, `{"jsonrpc":"2.0","method":"`+method+`","params":{"id":"a"}}`)
		is.Equal(f.Type, Cancel)
		is.Equal(f.Flags, FromCaller)
		is.Equal(string(f.RawID), `"a"`)
		is.Equal(one(is, false, `{"jsonrpc":"2.0","method":"`+method+`","params":{"id":3}}`).ID, uint64(3))

		// What names no call stays the notification it looks like.
		for _, params := range []string{`{}`, `[1]`, `{"id":null}`, `null`, `{"id":1,"id":2}`} {
			f := one(is, false, `{"jsonrpc":"2.0","method":"`+method+`","params":`+params+`}`)
			is.Equal(f.Type, Notify)
			is.Equal(f.Method, method)
		}
		is.Equal(one(is, false, `{"jsonrpc":"2.0","id":1,"method":"`+method+`"}`).Type, Call)
	}
}

func TestReader_plainReservedNamesAreOrdinary(t *testing.T) {
	is := is.New(t)
	for _, method := range []string{methodHello, methodAuth, methodPing, methodItem, "rpc.discover"} {
		f := one(is, false, `{"jsonrpc":"2.0","id":"`+method+`","method":"`+method+`","params":{}}`)
		is.Equal(f.Type, Call)
		is.Equal(f.Method, method)
		is.Equal(one(is, false, `{"jsonrpc":"2.0","method":"`+method+`"}`).Type, Notify)
	}
}

func TestReader_requests(t *testing.T) {
	is := is.New(t)
	for _, hello := range []bool{false, true} {
		f := one(is, hello, `{"params":null,"x":[1],"i\u0064":4,"method":"\u006d/\ud83d\ude00","jsonrpc":"2.\u0030"}`)
		is.Equal(f.Type, Call)
		is.Equal(f.ID, uint64(4))
		is.Equal(f.Method, "m/\U0001F600")
		is.Equal(f.Payload, nil)

		f = one(is, hello, `{"jsonrpc":"2.0","id":1,"method":"m","stream":"server","lane":false,"noItems":true,"timeout":0,"meta":{}}`)
		is.Equal(f.Kind, ServerStream)
		is.Equal(f.Flags, FromCaller|NoItems)
		is.Equal(f.Meta, nil)

		f = one(is, hello, `{"jsonrpc":"2.0","method":"m","timeout":"for calls only","meta":{"\u006b":"\u0076"}}`)
		is.Equal(f.Type, Notify)
		is.Equal(f.Meta["k"], "v")
	}
	f := one(is, true, `{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}`)
	is.Equal(f.Type, Call)
	f = one(is, true, `{"jsonrpc":"2.0","method":"rpc.on","params":{"a":1}}`)
	is.Equal(f.Type, Notify) // only the names that the dialect uses are its own
	is.Equal(f.Method, "rpc.on")
	f = one(is, true, `{"jsonrpc":"2.0","method":"rpc.end","params":{"id":1,"caller":true,"x":1}}`)
	is.Equal(f.Type, End)
	f = one(is, true, `{"jsonrpc":"2.0","method":"rpc.item","params":{"id":1,"caller":false}}`)
	is.Equal(f.Flags, Flags(0))
	is.Equal(f.Payload, nil)
}

func TestReader_helloRefuses(t *testing.T) {
	note := func(method, params string) string {
		return `{"jsonrpc":"2.0","method":"` + method + `","params":` + params + `}`
	}
	hello := `{"jsonrpc":"2.0","id":"rpc.hello","method":"rpc.hello","params":{}}`
	tests := []struct{ name, msg string }{
		{"id 0", `{"jsonrpc":"2.0","id":0,"method":"m"}`},
		{"id over 2^53-1", `{"jsonrpc":"2.0","id":9007199254740992,"method":"m"}`},
		{"id with a point", `{"jsonrpc":"2.0","id":1.0,"method":"m"}`},
		{"id a string", `{"jsonrpc":"2.0","id":"a","method":"m"}`},
		{"id of the hello on a call", `{"jsonrpc":"2.0","id":"rpc.hello","method":"m"}`},
		{"result with id null", `{"jsonrpc":"2.0","id":null,"result":1}`},
		{"result with another string id", `{"jsonrpc":"2.0","id":"rpc.x","result":{}}`},
		{"error with id null", `{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}`},
		{"error for the hello", `{"jsonrpc":"2.0","id":"rpc.hello","error":{"code":1,"message":""}}`},
		{"hello in an array", "[" + hello + "]"},
		{"hello without id", note("rpc.hello", `{}`)},
		{"hello with a number", `{"jsonrpc":"2.0","id":1,"method":"rpc.hello","params":{}}`},
		{"hello with the id of auth", `{"jsonrpc":"2.0","id":"rpc.auth","method":"rpc.hello","params":{}}`},
		{"hello without params", `{"jsonrpc":"2.0","id":"rpc.hello","method":"rpc.hello"}`},
		{"hello with an array", `{"jsonrpc":"2.0","id":"rpc.hello","method":"rpc.hello","params":[]}`},
		{"auth in an array", `[{"jsonrpc":"2.0","id":"rpc.auth","method":"rpc.auth","params":{}}]`},
		{"welcome in an array", `[{"jsonrpc":"2.0","id":"rpc.hello","result":{}}]`},
		{"welcome no object", `{"jsonrpc":"2.0","id":"rpc.hello","result":1}`},
		{"auth answer in an array", `[{"jsonrpc":"2.0","id":"rpc.auth","result":{}}]`},
		{"control frame with an id", `{"jsonrpc":"2.0","id":1,"method":"rpc.ping","params":{"position":1}}`},
		{"control frame with id null", `{"jsonrpc":"2.0","id":null,"method":"rpc.goaway","params":{}}`},
		{"ping without params", `{"jsonrpc":"2.0","method":"rpc.ping"}`},
		{"ping without position", note("rpc.ping", `{}`)},
		{"ping with an array", note("rpc.ping", `[1]`)},
		{"ack negative", note("rpc.ack", `{"position":-1}`)},
		{"ack twice", note("rpc.ack", `{"position":1,"position":1}`)},
		{"goaway with an array", note("rpc.goaway", `[]`)},
		{"cancel without id", note("rpc.cancel", `{}`)},
		{"cancel id 0", note("rpc.cancel", `{"id":0}`)},
		{"cancel id a string", note("rpc.cancel", `{"id":"1"}`)},
		{"end without id", note("rpc.end", `{}`)},
		{"item without id", note("rpc.item", `{"payload":1}`)},
		{"item caller a number", note("rpc.item", `{"id":1,"caller":1}`)},
		{"item history null", note("rpc.item", `{"id":1,"history":null}`)},
		{"item dropped negative", note("rpc.item", `{"id":1,"dropped":-1}`)},
		{"credit of nothing", note("rpc.credit", `{"id":1}`)},
		{"credit of 0", note("rpc.credit", `{"id":1,"items":0}`)},
		{"credit id 0", note("rpc.credit", `{"id":0,"items":1}`)},
		{"head without an id", note("rpc.head", `{"meta":{}}`)},
		{"head id 0", note("rpc.head", `{"id":0,"meta":{}}`)},
		{"head meta no object", note("rpc.head", `{"id":1,"meta":[]}`)},
		{"head meta no strings", note("rpc.head", `{"id":1,"meta":{"k":1}}`)},
		{"head meta over the limit", note("rpc.head", `{"id":1,"meta":{"k":"`+strings.Repeat("v", MaxMeta)+`"}}`)},
		{"credit window a string", note("rpc.credit", `{"items":1,"window":"1"}`)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			r := Reader{Hello: true}
			_, _, err := r.Read([]byte(tt.msg))
			is.True(errors.Is(err, ErrMalformed))
		})
	}
}

func TestReader_truncated(t *testing.T) {
	is := is.New(t)
	for _, s := range samples {
		for _, hello := range []bool{false, true} {
			for i := range len(s.json) {
				r := Reader{Hello: hello}
				_, _, err := r.Read([]byte(s.json[:i]))
				is.True(errors.Is(err, ErrMalformed))
			}
		}
	}
}

func TestReader_depthIsThePayloads(t *testing.T) {
	is := is.New(t)
	deep := strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth)
	for _, msg := range []string{
		`[{"jsonrpc":"2.0","method":"rpc.item","params":{"id":1,"payload":` + deep + `}}]`,
		`[{"jsonrpc":"2.0","id":1,"result":` + deep + `}]`,
	} {
		is.Equal(one(is, true, msg).ID, uint64(1)) // whatever Valid accepts arrives
	}
	r := Reader{MaxDepth: 1}
	_, _, err := r.Read([]byte(`{"jsonrpc":"2.0","method":"m","params":[[[[]]]]}`))
	is.True(errors.Is(err, ErrMalformed))
}

func TestReader_batchLimit(t *testing.T) {
	is := is.New(t)
	const note = `{"jsonrpc":"2.0","method":"m"}`
	for _, hello := range []bool{false, true} {
		r := Reader{Hello: hello}
		frames, array, err := r.Read([]byte("[" + strings.Repeat(note+",", MaxBatch-1) + note + "]"))
		is.NoErr(err)
		is.True(array)
		is.Equal(len(frames), MaxBatch)
		_, _, err = r.Read([]byte("[" + strings.Repeat(note+",", MaxBatch) + note + "]"))
		var fault *SyntaxError
		is.True(errors.As(err, &fault))
		is.Equal(fault.Code, int64(codeInvalid))
	}
}

func TestJSON_allocations(t *testing.T) {
	dst := make([]byte, 0, 4096)
	for _, s := range samples {
		if s.json == "" {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			is := is.New(t)
			is.Equal(testing.AllocsPerRun(100, func() {
				if _, err := AppendJSON(dst, &s.frame, true); err != nil {
					panic(err)
				}
			}), 0.0) // encoding
			if s.frame.Meta != nil || s.frame.Type == Fail || s.frame.Type < Ping {
				return // metadata, a message, or once in a connection
			}
			for _, msg := range []string{s.json, s.plain} {
				if msg == "" {
					continue
				}
				known := func([]byte) string { return s.frame.Method }
				r := Reader{Hello: msg == s.json, Intern: known}
				data := []byte(msg)
				is.Equal(testing.AllocsPerRun(100, func() {
					if _, _, err := r.Read(data); err != nil {
						panic(err)
					}
				}), 0.0) // decoding
			}
		})
	}
}

// Two bytes of a peer's are not to make a frame's room each time: the room for a
// large batch is used again.
func TestReader_roomOfLargeBatches(t *testing.T) {
	is := is.New(t)
	msg := []byte("[" + strings.Repeat("1,", MaxBatch-1) + "1]")
	r := Reader{}
	read := func() {
		fs, array, err := r.Read(msg)
		if err != nil || !array || len(fs) != MaxBatch || fs[MaxBatch-1].Type != Invalid {
			t.Fatal(len(fs), array, err)
		}
		r.Forget()
	}
	read()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		read()
	}
	runtime.ReadMemStats(&after)
	each := (after.TotalAlloc - before.TotalAlloc) / 100
	t.Logf("%d bytes for each message of %d", each, len(msg))
	is.True(each < 128<<10)  // 606,104 where it grows each time; the race detector drops some
	is.True(r.frames == nil) // nothing of it stays with the connection
}
