// Package json tries what "typedrpc json" writes: package fast has it, and package plain,
// which is the same otherwise, has encoding/json.
package json

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"
)

// safely runs f, and makes an error of a panic: methods of the packages' types have some.
func safely(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return f()
}

// encode compares what the two ways append. It returns what it is if both do.
func encode(t *testing.T, tw twin, a generated, b any) []byte {
	t.Helper()
	var got, want []byte
	err := safely(func() (err error) { got, err = a.AppendJSON([]byte("before")); return err })
	theirs := safely(func() (err error) { want, err = json.Marshal(b); return err })
	if (err == nil) != (theirs == nil) {
		t.Fatalf("%s: %+v: %v, and encoding/json says %v\n%s", tw.name, reflect.ValueOf(a).Elem(), err, theirs, want)
	}
	if err != nil {
		return nil
	}
	if string(got) != "before"+string(want) {
		t.Fatalf("%s: it appends\n%s\nand encoding/json\n%s", tw.name, got, want)
	}
	return want
}

// decode compares what the two ways make of data, on top of random values.
func decode(t *testing.T, tw twin, seed uint64, data []byte) {
	t.Helper()
	a, b := values(tw, seed)
	err := safely(func() error { return a.UnmarshalJSON(data) })
	theirs := safely(func() error { return json.Unmarshal(data, b) })
	if (err == nil) != (theirs == nil) {
		t.Fatalf("%s: %q: %v, and encoding/json says %v", tw.name, data, err, theirs)
	}
	if err != nil {
		return
	}
	if d := differ(reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()); d != "" {
		t.Fatalf("%s: %q: v%s: %+v and %+v", tw.name, data, d, reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem())
	}
	encode(t, tw, a, b)
}

// values are a random value of each twin, the zero value for the seed 0.
func values(tw twin, seed uint64) (generated, any) {
	a, b := tw.fast(), tw.slow()
	if seed != 0 {
		fill(rand.New(rand.NewPCG(seed, 1)), reflect.ValueOf(a).Elem(), 0)
		fill(rand.New(rand.NewPCG(seed, 1)), reflect.ValueOf(b).Elem(), 0)
	}
	return a, b
}

// tokens are what is put into JSON to make it another, valid or not.
var tokens = []string{"null", "true", "false", "0", "-0", "1", "-1", "1e3", "1.5", "1E400", "12345678901234567890123", "255", "256", "\"\"", `"x"`, `"null"`, `"1"`, `"true"`,
	`"\"q\""`, `"AQI="`, `"A Q="`, `"\u00e9"`, `"\ud83d\ude00"`, `"\ud800"`, `"\udc00x"`, `"\x"`, "\"\xff\"", "{}", "[]", "[1,2,3]", `{"a":1}`, `["a"]`, "[[]]", "[null,1]", `{"1":null,"a":{}}`,
	" ", "\n", ",", ":", "[", "]", "{", "}", "\"", "\\", "x", `"2026-12-01T08:30:15Z"`, `"@h"`, "\x00", `"xx"`, `"b12"`, "'", "-", ".", "nul", "\ufeff"}

// mutate changes JSON at random places.
func mutate(r *rand.Rand, data []byte) []byte {
	data = bytes.Clone(data)
	for range r.IntN(4) {
		at, token := r.IntN(len(data)+1), tokens[r.IntN(len(tokens))]
		switch r.IntN(6) {
		case 0: // a value in place of another
			starts := places(data)
			if len(starts) == 0 {
				break
			}
			at = starts[r.IntN(len(starts))]
			d := json.NewDecoder(bytes.NewReader(data[at:]))
			var raw json.RawMessage
			if d.Decode(&raw) == nil {
				data = append(append(bytes.Clone(data[:at]), token...), data[at+int(d.InputOffset()):]...)
			}
		case 1: // letters in another case
			for i := range data {
				if r.IntN(4) == 0 {
					data[i] = bytes.ToUpper(data[i : i+1])[0]
				}
			}
		case 2: // a member twice, or another's value
			members := bytes.Split(data, []byte(","))
			members = append(members, members[r.IntN(len(members))])
			r.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
			data = bytes.Join(members, []byte(","))
		case 3:
			data = append(append(bytes.Clone(data[:at]), token...), data[at:]...)
		case 4:
			data = data[:at]
		default:
			if len(data) > 0 {
				data[at%len(data)] = byte(r.IntN(256))
			}
		}
	}
	return data
}

// places are where values may begin.
func places(data []byte) (all []int) {
	all = append(all, 0)
	for i, c := range data {
		if c == ':' || c == '[' || c == ',' {
			all = append(all, i+1)
		}
	}
	return all
}

// TestDifference has random values and random JSON go both ways.
func TestDifference(t *testing.T) {
	rounds := 200
	if os.Getenv("TYPEDRPC_FULL") != "" {
		rounds = 500
	}
	for _, tw := range twins {
		t.Run(tw.name, func(t *testing.T) {
			for seed := range uint64(rounds) {
				a, b := values(tw, seed)
				data := encode(t, tw, a, b)
				if data == nil {
					data = []byte("{}")
				}
				r := rand.New(rand.NewPCG(seed, 2))
				decode(t, tw, 0, data)
				decode(t, tw, seed+1, data)
				for range 5 {
					decode(t, tw, r.Uint64N(3)*seed, mutate(r, data))
				}
			}
			for _, token := range tokens {
				decode(t, tw, 0, []byte(token))
				decode(t, tw, 7, []byte(" "+token+" "))
			}
		})
	}
}

// FuzzDifference does so with what the fuzzer thinks of.
func FuzzDifference(f *testing.F) {
	for i, tw := range twins {
		a, _ := values(tw, 3)
		if data, err := a.AppendJSON(nil); err == nil {
			f.Add(uint64(3), uint8(i), data)
		}
	}
	f.Fuzz(func(t *testing.T, seed uint64, which uint8, data []byte) {
		tw := twins[int(which)%len(twins)]
		a, b := values(tw, seed)
		encode(t, tw, a, b)
		decode(t, tw, 0, data)
		decode(t, tw, seed, data)
	})
}

// TestDepth nests as deep as encoding/json reads, and one deeper.
func TestDepth(t *testing.T) {
	for _, form := range []struct{ name, open, core, closing string }{
		{"Chain", `{"next":`, "{}", "}"}, {"Chain", `{"More":[`, "{}", "]}"}, {"Chain", `{"x":`, "1", "}"}, {"Chain", `{"By":{"k":`, "null", "}}"},
		{"Nest", "[", "[]", "]"}, {"Forest", `{"":`, "{}", "}"}, {"Untagged", `{"x":[`, "1", "]}"}, {"Raws", `{"Raw":[`, "1", "]}"},
	} {
		for _, tw := range twins {
			if tw.name != form.name {
				continue
			}
			per := strings.Count(form.open, "{") + strings.Count(form.open, "[")
			for _, n := range []int{9_990 / per, 9_999 / per, 10_000 / per, 10_001 / per, 10_002 / per, 100_000} {
				if form.name == "Untagged" || form.name == "Raws" {
					n = n * per
					decode(t, tw, 0, []byte(form.open+strings.Repeat("[", n-2)+strings.Repeat("]", n-2)+form.closing))
					continue
				}
				decode(t, tw, 0, []byte(strings.Repeat(form.open, n)+form.core+strings.Repeat(form.closing, n)))
			}
		}
	}
}
