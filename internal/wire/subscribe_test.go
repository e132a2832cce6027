package wire

import (
	"testing"

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
	for _, params := range []string{``, `[]`, `[1,"a"]`, `{}`, `{"method":1}`, `{"method":"a","method":"b"}`} {
		is := is.New(t)
		_, bad := ReadSubscribe([]byte(params))
		is.True(bad != "")
	}
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
