package wire

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/matryer/is"
)

// written is a member as a peer may write it; "": it is left out.
type written struct{ text, means string }

// What the peers of the table below write. means is what is to come of it: of an id
// the number, "" where there is none; of a result or an error what it says.
var (
	writtenVersions = []written{
		{`"2.0"`, "ok"}, {``, "odd"}, {`"1.0"`, "odd"}, {`2.0`, "odd"}, {`null`, "odd"}, {`"2.\u0030"`, "ok"}, {`{}`, "odd"},
	}
	writtenIDs = []written{
		{`7`, "7"}, {`7.0`, "7"}, {`7.000`, "7"}, {`7e0`, "7"}, {`7E+0`, "7"}, {`70e-1`, "7"}, {`0.7e1`, "7"}, {`700.0e-2`, "7"},
		{`"7"`, "7"}, {`"7.0"`, "7"}, {`"7e0"`, "7"},
		{``, ""}, {`null`, ""}, {`true`, ""}, {`[7]`, ""}, {`{"id":7}`, ""}, {`""`, ""}, {`"x7"`, ""}, {`" 7"`, ""}, {`"07"`, ""},
		{`"\u0037"`, "7"}, {`7.5`, ""}, {`-7`, ""}, {`0`, ""}, {`1e400`, ""}, {`1e-400`, ""}, {`7e999999999999999999999`, ""},
		{`9007199254740992`, ""}, {`18446744073709551623`, ""}, {`123456789012345678901234567890`, ""},
		{`"` + strings.Repeat("7", 300) + `"`, ""},
	}
	writtenResults = []written{
		{``, "missing"}, {`null`, "null"}, {`1`, "1"}, {`"x"`, `"x"`}, {`{"a":1}`, `{"a":1}`}, {`[]`, `[]`}, {`false`, `false`},
	}
	// code and message of the error, "!" where it cannot be told; the number.
	writtenErrors = []struct {
		text    string
		code    int64
		message string
		number  int64
		odd     bool
	}{
		{text: ``}, {text: `null`},
		{text: `{"code":-32000,"message":"no"}`, code: -32000, message: "no", number: -32000},
		{text: `{"code":-32601,"message":"no","data":[1]}`, code: 12, message: "no", number: -32601},
		{text: `{"code":-32602,"message":""}`, code: 3, message: "", number: -32602},
		{text: `{"code":-32600,"message":"no"}`, code: 3, message: "no", number: -32600},
		{text: `{"code":-32700,"message":"no"}`, code: 3, message: "no", number: -32700},
		{text: `{"code":-32603,"message":"no"}`, code: 13, message: "no", number: -32603},
		{text: `{"code":1,"message":"no"}`, code: 2, message: "no", number: 1},
		{text: `{"code":0,"message":"no"}`, code: 2, message: "no", number: 0},
		{text: `{"code":14,"message":"no","retryAfter":7}`, code: 2, message: "no", number: 14},
		{text: `{"code":99,"message":"no"}`, code: 99, message: "no", number: 99},
		{text: `{"code":3,"message":"no"}`, code: 3, message: "no", number: 3},
		{text: `{"code":4,"message":"no"}`, code: 2, message: "no", number: 4},
		{text: `{"code":100,"message":"no"}`, code: 100, message: "no", number: 100},
		{text: `{"code":2147483648,"message":"no"}`, code: 2147483648, message: "no", number: 2147483648},
		{text: `{"code":-32000.0,"message":"no"}`, code: -32000, message: "no", number: -32000},
		{text: `{"code":-3.2e4,"message":"no"}`, code: -32000, message: "no", number: -32000},
		{text: `{"code":-32000}`, code: -32000, message: "the peer gave no reason", number: -32000, odd: true},
		{text: `{"code":-32000,"message":null}`, code: -32000, message: "the peer gave no reason", number: -32000, odd: true},
		{text: `{"code":-32000,"message":{"en":"no"}}`, code: -32000, message: `{"en":"no"}`, number: -32000, odd: true},
		{text: `{"code":-32000,"message":"no","data":null,"more":1}`, code: -32000, message: "no", number: -32000},
		{text: `{"message":"no"}`, code: 13, message: "no (the peer's answer is malformed: its error has no code)"},
		{text: `{"code":null,"message":"no"}`, code: 13, message: "no (the peer's answer is malformed: its error has no code)"},
		{text: `{"code":1.5,"message":"no"}`, code: 13, message: "no (the peer's answer is malformed: its error has the code 1.5, which is no integer)"},
		{text: `{"code":"E_NO","message":"no"}`, code: 13, message: `no (the peer's answer is malformed: its error has the code "E_NO", which is no integer)`},
		{text: `{"code":"-32000","message":"no"}`, code: 13, message: `no (the peer's answer is malformed: its error has the code "-32000", which is no integer)`},
		{text: `{"code":9223372036854775808,"message":"no"}`, code: 13, message: "no (the peer's answer is malformed: its error has the code 9223372036854775808, which is no integer)"},
		{text: `{"code":1e30,"message":"no"}`, code: 13, message: "no (the peer's answer is malformed: its error has the code 1e30, which is no integer)"},
		{text: `{"code":[1]}`, code: 13, message: "the peer gave no reason (the peer's answer is malformed: its error has the code [1], which is no integer)"},
		{text: `{}`, code: 13, message: "the peer gave no reason (the peer's answer is malformed: its error has no code)"},
		{text: `{"code":1,"code":1,"message":"no"}`, code: 13, message: `{"code":1,"code":1,"message":"no"} (the peer's answer is malformed: its error has a member twice)`},
		{text: `"it broke"`, code: 13, message: "it broke (the peer's answer is malformed: its error is no object)"},
		{text: `"it \"broke\""`, code: 13, message: `it "broke" (the peer's answer is malformed: its error is no object)`},
		{text: `7`, code: 13, message: "7 (the peer's answer is malformed: its error is no object)"},
		{text: `true`, code: 13, message: "true (the peer's answer is malformed: its error is no object)"},
		{text: `false`, code: 13, message: "false (the peer's answer is malformed: its error is no object)"},
		{text: `["no"]`, code: 13, message: `["no"] (the peer's answer is malformed: its error is no object)`},
	}
)

// objectOf writes one, leaving out what is "".
func objectOf(members ...string) string {
	var b strings.Builder
	for i := 0; i < len(members); i += 2 {
		if members[i+1] != "" {
			fmt.Fprintf(&b, `,%q:%s`, members[i], members[i+1])
		}
	}
	return "{" + strings.TrimPrefix(b.String(), ",") + "}"
}

// Every way to write an answer, well and badly: it ends the call that it is for,
// with what it says where that is clear, and it is no request.
func TestReader_answersOfPlainPeers(t *testing.T) {
	n := 0
	for _, version := range writtenVersions {
		for _, id := range writtenIDs {
			for _, result := range writtenResults {
				for _, fault := range writtenErrors {
					text := objectOf("jsonrpc", version.text, "id", id.text, "result", result.text, "error", fault.text)
					swapped := objectOf("error", fault.text, "result", result.text, "id", id.text, "jsonrpc", version.text)
					want := Frame{}
					fmt.Sscan(id.means, &want.ID)
					if raw := []byte(id.text); legalID(raw) || isNull(raw) {
						want.RawID = raw
					}
					isNone := fault.text == "" || fault.text == "null"
					odd := version.means == "odd" || id.text != "7" || fault.odd
					bad := want.ID == 0
					switch {
					case result.text == "" && fault.text == "":
						if want.ID == 0 {
							continue // nobody's, see the next test
						}
						want.Type, want.Code, want.Message = Fail, 13, "the peer's answer cannot be read: it has neither a result nor an error"
						bad = true
					case result.text == "" && isNone:
						want.Type, want.Code, want.Message = Fail, 13, "the peer's answer cannot be read: it has neither a result nor an error"
						bad = true
					case isNone:
						want.Type, want.Payload = Result, []byte(result.text)
						odd = odd || fault.text == "null"
					case result.text == "" || result.text == "null":
						want.Type, want.Code, want.Message, want.Number = Fail, fault.code, fault.message, fault.number
						odd, bad = odd || result.text == "null", bad || fault.code == 13 && fault.number == 0
						if strings.Contains(fault.text, `"data":[1]`) {
							want.Payload = []byte("[1]")
						}
					default:
						want.Type, want.Code, want.Message = Fail, 13, "the peer's answer cannot be read: it has both a result and an error"
						bad = true
					}
					for _, msg := range []string{text, swapped, "[" + text + "]", "\n" + text + " "} {
						n++
						r := Reader{Ours: func(id uint64) bool { return id == 7 }}
						frames, _, err := r.Read([]byte(msg))
						if err != nil || len(frames) != 1 || !equal(&frames[0], &want) {
							t.Fatalf("%s\nread as %+v, %v\nwant     %+v", msg, frames, err, want)
						}
						understood := true
						for _, o := range r.Odd {
							understood = understood && o.Understood
						}
						if (len(r.Odd) > 0) != (odd || bad) || understood == bad {
							t.Fatalf("%s\nnoted %+v", msg, r.Odd)
						}
					}
				}
			}
		}
	}
	if n < 100_000 {
		t.Fatalf("only %d", n)
	}
}

// What is no request and answers nothing of ours is answered once, with no id; what
// may be an answer is not.
func TestReader_neitherRequestNorAnswer(t *testing.T) {
	ours := func(id uint64) bool { return id == 7 }
	for _, tt := range []struct {
		msg  string
		typ  Type
		id   uint64
		echo string
	}{
		{`{}`, Invalid, 0, ``},
		{`{"foo":1}`, Invalid, 0, ``},
		{`{"jsonrpc":"2.0"}`, Invalid, 0, ``},
		{`{"jsonrpc":"2.0","id":8}`, Invalid, 0, ``},
		{`{"jsonrpc":"2.0","id":"x"}`, Invalid, 0, ``},
		{`{"jsonrpc":"2.0","id":null}`, Invalid, 0, ``},
		{`{"jsonrpc":"2.0","id":7}`, Fail, 7, ``},
		{`{"id":"7.0"}`, Fail, 7, ``},
		{`{"id":7,"method":null}`, Fail, 7, ``},
		{`{"id":7,"id":8}`, Invalid, 0, ``},
		{`{"id":7,"x":1,"x":2}`, Fail, 7, ``},
		{`{"jsonrpc":"2.0","id":7,"method":"m","result":1}`, Result, 7, ``}, // some echo the method
		{`{"jsonrpc":"2.0","id":7,"method":"m","error":{"code":-1,"message":""}}`, Fail, 7, ``},
		{`{"jsonrpc":"2.0","id":8,"method":"m","result":1}`, Invalid, 0, `8`},
		{`{"jsonrpc":"2.0","id":"x","method":"m","result":1}`, Invalid, 0, `"x"`},
		{`{"jsonrpc":"2.0","id":7,"method":"m","result":null,"error":null}`, Call, 7, `7`}, // null is nothing
		{`{"jsonrpc":"2.0","method":"m","result":null}`, Notify, 0, ``},
		{`{"jsonrpc":"2.0","id":8,"result":1}`, Result, 8, ``},
		{`{"result":1}`, Result, 0, ``},
		{`{"error":"no"}`, Fail, 0, ``},
		{`{"jsonrpc":"2.0","id":7,"result":1` + manyMembers(200) + `}`, Fail, 7, ``},
		{`{"jsonrpc":"2.0","id":7,"result":1,"result":2}`, Fail, 7, ``},
		{`{"jsonrpc":"2.0","id":7,"id":7,"result":2}`, Fail, 7, ``},
		{`{"jsonrpc":"2.0","id":7,"id":8,"result":2}`, Fail, 0, ``},
		{`{"jsonrpc":"2.0"` + manyMembers(200) + `,"id":7,"result":1}`, Fail, 7, ``},
		{`{"jsonrpc":"2.0","id":7,"result":1,"meta":{"k":null}}`, Result, 7, ``},
		{`{"jsonrpc":"2.0","id":7,"notRun":1,"error":{"code":1,"message":""}}`, Fail, 7, ``},
	} {
		t.Run(tt.msg, func(t *testing.T) {
			is := is.New(t)
			for _, msg := range []string{tt.msg, "[" + tt.msg + "]"} {
				r := Reader{Ours: ours}
				frames, _, err := r.Read([]byte(msg))
				is.NoErr(err)
				is.Equal(len(frames), 1)
				is.Equal(frames[0].Type, tt.typ)
				is.Equal(frames[0].ID, tt.id)
				if tt.typ == Invalid || tt.typ == Call {
					is.Equal(string(frames[0].RawID), tt.echo)
				}
				is.Equal(frames[0].Flags&NotRun, Flags(0)) // plain peers cannot say it
			}
		})
	}
}

// An answer that is no JSON ends its call too, and is not answered.
func TestReader_answersThatAreNoJSON(t *testing.T) {
	ours := func(id uint64) bool { return id == 7 || id == 8 }
	deep := strings.Repeat("[", 100) + strings.Repeat("]", 100)
	for _, tt := range []struct {
		msg  string
		ends []uint64
		mute bool
	}{
		{`{"jsonrpc":"2.0","id":7,"result":NaN}`, []uint64{7}, true},
		{`{"jsonrpc":"2.0","result":{"a":[1,{"b":Infinity}]},"id":7}`, []uint64{7}, true},
		{`{"jsonrpc":"2.0","result":` + deep + `,"id":"7"}`, []uint64{7}, true},
		{"{\"jsonrpc\":\"2.0\",\"result\":\"\xff\",\"id\":7}", []uint64{7}, true},
		{"{\"jsonrpc\":\"2.0\",\"result\":\"a\tb\\\"id\\\":8\",\"id\":7}", []uint64{7}, true},
		{`{"jsonrpc":"2.0","id":7,"error":{"code":-32000,"message":"cut o`, []uint64{7}, true},
		{`{"jsonrpc":"2.0","id":7,"result":[1,}`, []uint64{7}, true},
		{`{"jsonrpc":"2.0","id":7,"result":1}}`, []uint64{7}, true},
		{`{"jsonrpc":"2.0","id":7,"result":1} {"jsonrpc":"2.0","id":8,"result":1}`, []uint64{7, 8}, true},
		{"\ufeff" + `{"jsonrpc":"2.0","id":7,"result":1}`, []uint64{7}, true},
		{"\ufeff" + `[{"jsonrpc":"2.0","id":7,"result":1}]`, []uint64{7}, true},
		{`{"jsonrpc":"2.0","id":7,'result':1}`, []uint64{7}, true},
		{`{"jsonrpc":"2.0","id":7,"result":1,}`, []uint64{7}, true},
		{`{"jsonrpc":"2.0","result":1,"id"`, []uint64{0}, true},
		{`{"jsonrpc":"2.0","result":1,"id":`, []uint64{0}, true},
		{`[{"id":7,"result":NaN},{"result":1,"id":8}]`, []uint64{7, 8}, true},
		{`[{"id":7,"result":NaN},{"method":"m","id":8}]`, []uint64{7}, false},
		{`[{"id":7,"result":NaN},3]`, []uint64{7}, false},
		{`[{"id":7,"result":1},]`, []uint64{7}, true},
		{`{"jsonrpc":"2.0","id":7,"method":"m","params":[NaN]}`, nil, false},
		{`{"jsonrpc":"2.0","id":9`, nil, false},
		{`{"jsonrpc":"2.0","id":7`, []uint64{7}, true},
		{`{"params":{"result":1},"id":`, nil, false},
		{`{`, nil, false}, {`[`, nil, false}, {`[{`, nil, false}, {`{"`, nil, false}, {`{"\`, nil, false}, {`]`, nil, false},
		{`tru`, nil, false}, {``, nil, false}, {`"result`, nil, false}, {`{"result`, nil, false},
	} {
		t.Run(tt.msg, func(t *testing.T) {
			is := is.New(t)
			r := Reader{Ours: ours}
			frames, _, err := r.Read([]byte(tt.msg))
			var fault *SyntaxError
			is.True(errors.As(err, &fault))
			is.Equal(len(frames), 0)
			var ends []uint64
			for _, f := range fault.Answers {
				is.Equal(f.Type, Fail)
				is.Equal(f.Code, int64(13))
				is.True(strings.HasPrefix(f.Message, "the peer's answer cannot be read: "))
				ends = append(ends, f.ID)
			}
			is.Equal(ends, tt.ends)
			is.Equal(fault.Mute, tt.mute)
			is.Equal(len(r.Odd), len(tt.ends))

			r = Reader{Hello: true}
			_, _, err = r.Read([]byte(tt.msg))
			is.True(errors.As(err, &fault))
			is.Equal(len(fault.Answers), 0)
		})
	}
}

// However a message is broken, looking through it comes to an end.
func TestReader_skimsAnything(t *testing.T) {
	for _, s := range samples {
		for _, text := range []string{s.plain, "[" + s.plain + "]"} {
			for i := range len(text) {
				for _, c := range []byte("{}[]\",:\\ x\x00\xff") {
					broken := []byte(text)
					broken[i] = c
					r := Reader{}
					_, _, _ = r.Read(broken)
					_, _, _ = r.Read(append(broken[:i:i], text[min(i+1, len(text)):]...))
				}
			}
		}
	}
}

func TestIntegerOf(t *testing.T) {
	is := is.New(t)
	for text, want := range map[string]int64{
		`0`: 0, `-0`: 0, `0.0`: 0, `0e9`: 0, `-0.00e-5`: 0, `1`: 1, `-1.0`: -1, `10e-1`: 1, `1.5e1`: 15, `12.30e1`: 123,
		`9223372036854775807`: 1<<63 - 1, `-9223372036854775808`: -1 << 63, `9223372036854775807.0`: 1<<63 - 1,
		`922337203685477580.7e1`: 1<<63 - 1, `0.0000001e7`: 1, `1e18`: 1e18, `1000000000000000000000e-3`: 1e18,
	} {
		got, ok := integerOf([]byte(text))
		is.True(ok) // of all
		is.Equal(got, want)
	}
	for _, text := range []string{
		``, `x`, `"1"`, `1.5`, `1e-1`, `15e-2`, `9223372036854775808`, `1e19`, `1e400`, `1e-400`, `1e99999999999999999999`,
		`-`, `1.`, `1e`, `01`, `1 `, `0x1`, `1_0`, `123456789012345678901234567890`, `0.1`,
	} {
		_, ok := integerOf([]byte(text))
		is.True(!ok) // of any
	}
}
