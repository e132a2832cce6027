package server

import (
	"bytes"
	"net/url"
	"testing"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// FuzzReadQuery makes a request of what a GET asks for: it must be one.
func FuzzReadQuery(f *testing.F) {
	for _, seed := range []string{"method=a", "method=a&params=%7B%22x%22:1%7D", "method=%22&params=7", "method=a&params=%20null", "method=%zz", "params=[]&method=a;b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		name, params, bad := readQuery(query, 0)
		if bad != "" {
			return
		}
		q, err := url.ParseQuery(query)
		if err != nil || name != q.Get("method") || name == "" {
			t.Fatalf("%q is %q, %v", query, name, err)
		}
		x := new(exchange)
		b := x.request(`"method":`, name, `,"params":`, list(params))
		defer b.Release()
		if err := wire.Valid(b.B, wire.MaxDepth+1); err != nil {
			t.Fatalf("%q becomes %q: %v", query, b.B, err)
		}
	})
}

// FuzzAppendData keeps an item what it was, whatever white space is in it.
func FuzzAppendData(f *testing.F) {
	for _, seed := range []string{"1", "{\r\n\"a\":\t1}", "\n[\r]\n", ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var back []byte
		for i, line := range bytes.Split(appendData(nil, data), []byte("\n")) {
			text, ok := bytes.CutPrefix(line, []byte("data: "))
			if len(line) == 0 {
				continue // the end
			}
			if !ok || bytes.ContainsAny(text, "\r\n") {
				t.Fatalf("line %d of %q is %q", i, data, line)
			}
			back = append(append(back, text...), '\n')
		}
		strip := func(b []byte) string {
			return string(bytes.Map(func(r rune) rune {
				if r == '\r' || r == '\n' {
					return -1
				}
				return r
			}, b))
		}
		if strip(back) != strip(data) {
			t.Fatalf("%q came as %q", data, back)
		}
	})
}
