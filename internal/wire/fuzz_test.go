package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// What the fuzzers start from besides testdata/fuzz: every golden frame.
func FuzzBinary(f *testing.F) {
	for _, s := range samples {
		f.Add([]byte(s.binary))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var first, second Frame
		n, err := DecodeBinary(data, &first, internSum)
		if err != nil {
			if !errors.Is(err, ErrMalformed) || n != 0 {
				t.Fatalf("n %d, err %v", n, err)
			}
			return
		}
		if n < headerSize || n > len(data) {
			t.Fatalf("consumed %d of %d", n, len(data))
		}
		again, err := AppendBinary(nil, &first)
		if err != nil {
			t.Fatalf("%+v decodes but does not encode: %v", first, err)
		}
		if len(again) > BinarySize(&first) {
			t.Fatalf("%d bytes, estimated %d", len(again), BinarySize(&first))
		}
		if _, err := DecodeBinary(again, &second, nil); err != nil || !equal(&first, &second) {
			t.Fatalf("%+v came back as %+v, %v", first, second, err)
		}
	})
}

func FuzzJSON(f *testing.F) {
	for _, s := range samples {
		f.Add([]byte(s.json))
		f.Add([]byte("[" + s.json + "," + s.plain + ",1]"))
	}
	for _, s := range invalidSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		checkValid(t, data)
		checkUnquote(t, data)
		for _, hello := range []bool{false, true} {
			checkReader(t, data, hello)
		}
		_, _ = ParseHello(data)
		_, _ = ParseWelcome(data)
		_, _ = ParseAuth(data)
		_, _ = ParseAuthOK(data)
		_, _ = ParseGoAway(data)
	})
}

var invalidSeeds = []string{
	`[1,2,3]`, `{"foo":"boo"}`, `{"jsonrpc":"2.0","id":1e400,"method":"m"}`, "\uFEFF{}", `"\ud800\udc00"`,
	`{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"x","data":null}}`, "\"\u2028\xff\"", `-0.1e+1`,
}

// checkValid holds Valid against encoding/json: we accept a subset, smaller by
// depth, UTF-8 and the byte-order mark only.
func checkValid(t *testing.T, data []byte) {
	err := Valid(data, MaxDepth)
	theirs := json.Valid(data)
	switch {
	case err == nil && !theirs:
		t.Fatalf("only we accept %q", data)
	case err == nil || !theirs:
		return
	case !errors.Is(err, ErrMalformed):
		t.Fatalf("%q: %v", data, err)
	case utf8.Valid(data) && !bytes.HasPrefix(data, []byte("\uFEFF")) && !strings.Contains(err.Error(), textDeep):
		t.Fatalf("only they accept %q: %v", data, err)
	}
}

func checkUnquote(t *testing.T, data []byte) {
	got, err := Unquote(data)
	if err != nil {
		return
	}
	var want string
	if err := json.Unmarshal(data, &want); err != nil || got != want {
		t.Fatalf("%q is %q to us and %q (%v) to them", data, got, want, err)
	}
	if back, err := Unquote(AppendString(nil, got)); err != nil || back != got {
		t.Fatalf("%q came back as %q, %v", got, back, err)
	}
}

func checkReader(t *testing.T, data []byte, hello bool) {
	r := Reader{Hello: hello, Intern: internSum}
	frames, _, err := r.Read(data)
	if err != nil {
		var fault *SyntaxError
		if !errors.As(err, &fault) || !errors.Is(err, ErrMalformed) || len(frames) > 0 {
			t.Fatalf("%d frames and %v", len(frames), err)
		}
		return
	}
	if Valid(data, MaxDepth+envelopeDepth) != nil {
		t.Fatalf("read what is not valid: %q", data)
	}
	for _, first := range frames {
		if first.Type == numTypes {
			continue // nothing to say it with
		}
		if first.Type == Invalid { // it must have an answer
			if hello {
				t.Fatalf("invalid element in hello mode: %q", data)
			}
			first = Frame{Type: Fail, RawID: first.RawID, Code: first.Code, Message: first.Message}
			if _, err := AppendJSON(nil, &first, false); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if !hello {
			if first.ID == 0 && first.Type == Result {
				continue // for nobody
			}
			first = plainOf(first)
			if first.ID == 0 && first.Type == Fail {
				first.RawID = []byte("null")
			}
		}
		checkAgain(t, &first, hello)
	}
}

// checkAgain writes what was read and reads it back.
func checkAgain(t *testing.T, first *Frame, hello bool) {
	text, err := AppendJSON(nil, first, hello)
	if err != nil {
		t.Fatalf("%+v decodes but does not encode: %v", first, err)
	}
	if len(text) > JSONSize(first) {
		t.Fatalf("%d bytes, estimated %d", len(text), JSONSize(first))
	}
	r := Reader{Hello: hello}
	frames, array, err := r.Read(text)
	if err != nil || array || len(frames) != 1 || !equal(first, &frames[0]) {
		t.Fatalf("%+v came back as %+v, %v", first, frames, err)
	}
}

// TestSeeds keeps the corpus in testdata/fuzz in step with the samples: run it
// with WIRE_SEEDS=1 after they change. Other fuzzers of the same formats, in
// other languages too, can start from it.
func TestSeeds(t *testing.T) {
	seeds := map[string]string{}
	for i, s := range samples {
		seeds[fmt.Sprintf("FuzzBinary/sample-%02d", i)] = s.binary
		if s.json != "" {
			seeds[fmt.Sprintf("FuzzJSON/sample-%02d", i)] = s.json
		}
	}
	for i, s := range invalidSeeds {
		seeds[fmt.Sprintf("FuzzJSON/invalid-%02d", i)] = s
	}
	for name, data := range seeds {
		path := filepath.Join("testdata", "fuzz", name)
		want := "go test fuzz v1\n[]byte(" + strconv.Quote(data) + ")\n"
		if os.Getenv("WIRE_SEEDS") != "" {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s is not its sample's (%v); WIRE_SEEDS=1 go test -run TestSeeds", path, err)
		}
	}
}
