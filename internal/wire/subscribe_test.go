package wire

import (
	"bytes"
	"testing"
	"unicode/utf8"

	"github.com/matryer/is"
)

func TestReadSubscribe(t *testing.T) {
	for params, want := range map[string]Subscribe{
		`{"method":"a","params":{"x":[1, 2]}}`:  {Name: "a", Params: []byte(`{"x":[1, 2]}`)},
		`{"params":"lobby","method":"\u0061"}`:  {Name: "a", Params: []byte(`"lobby"`)},
		`{"method":"a","params":null,"more":1}`: {Name: "a"},
		`["a"]`:                                 {Name: "a"},
		`["a", {"x":1} , 7 ]`:                   {Name: "a", Params: []byte(`[{"x":1},7]`)},
	} {
		is := is.New(t)
		got, bad := ReadSubscribe([]byte(params))
		is.Equal(bad, "")
		is.Equal(got, want)
	}
	got, bad := ReadSubscribe([]byte(`{"method":"a","from":""}`))
	is.New(t).Equal(bad, "")
	is.New(t).Equal(got, Subscribe{Name: "a", Marks: true})
	for _, params := range []string{``, `{"method":"a","from":1}`, `[]`, `[1,"a"]`, `{}`, `{"method":1}`, `{"method":"a","method":"b"}`} {
		is := is.New(t)
		_, bad := ReadSubscribe([]byte(params))
		is.True(bad != "")
	}
}

func TestReadNotice(t *testing.T) {
	is := is.New(t)
	for text, want := range map[string]Notice{
		`{"jsonrpc":"2.0","id":1,"result":"0x1"}`:                                                            {Answer: true, Result: []byte(`"0x1"`)},
		`{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"m"}}`:                                     {Answer: true, Error: []byte(`{"code":-32602,"message":"m"}`), Code: -32602},
		`{"jsonrpc":"2.0","method":"e","params":{"subscription":"0x1","missed":3,"result":[1],"at":"a\"1"}}`: {Result: []byte(`[1]`), At: `a"1`, Missed: 3},
		`{"jsonrpc":"2.0","method":"e","params":{"subscription":"0x1","done":true}}`:                         {Done: true},
	} {
		got, err := ReadNotice([]byte(text))
		is.NoErr(err)
		is.Equal(got, want)
	}
}

// FuzzReadNotice has notices read as they were written.
func FuzzReadNotice(f *testing.F) {
	f.Add([]byte(`{"a":1}`), "place", uint64(7))
	f.Add([]byte("[\n1]"), "\"\x00\u2028", uint64(0))
	f.Fuzz(func(t *testing.T, payload []byte, at string, missed uint64) {
		if Valid(payload, 0) != nil || !utf8.ValidString(at) || missed > maxSafeID {
			return
		}
		marked := payload
		if at != "" {
			marked = AppendMark(bytes.Clone(payload), at)
		}
		text, err := AppendJSON(nil, &Frame{Type: Item, Method: "m", RawID: []byte(`"0x1"`), Payload: marked, Dropped: missed}, false)
		if err != nil {
			t.Fatal(err)
		}
		n, err := ReadNotice(text)
		if err != nil || n.Answer || n.At != at || n.Missed != missed || !bytes.Equal(n.Result, bytes.TrimSpace(payload)) {
			t.Fatalf("%q is read as %+v, %v", text, n, err)
		}
	})
}

// FuzzReadSubscribe reads the params of requests, which were found to be JSON before.
func FuzzReadSubscribe(f *testing.F) {
	for _, seed := range []string{`{"method":"a","params":{"x":1}}`, `["a",{"x":1},7]`, `["0x1"]`, `{"subscription":"0x1"}`, `[[]]`, `{"method":"\ud800"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if Valid(data, 0) != nil || len(data) == 0 || data[0] != '{' && data[0] != '[' {
			return
		}
		ReadUnsubscribe(data)
		s, bad := ReadSubscribe(data)
		if bad != "" {
			return
		}
		if len(s.Params) > 0 && Valid(s.Params, 0) != nil {
			t.Fatalf("%q has params %q", data, s.Params)
		}
		item := Frame{Type: Item, Method: s.Name, RawID: []byte(`"0x1"`), Payload: s.Params, Dropped: 1}
		text, err := AppendJSON(nil, &item, false)
		if s.Name != "" && (err != nil || Valid(text, MaxDepth+envelopeDepth) != nil) {
			t.Fatalf("%q is told as %q, %v", data, text, err)
		}
	})
}
