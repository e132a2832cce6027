package json

//lint:file-ignore SA1019 one of the types is deprecated, to try comments

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"
	"time"

	fast "github.com/typedrpc/typedrpc/cmd/typedrpc/test/json/fast"
	plain "github.com/typedrpc/typedrpc/cmd/typedrpc/test/json/plain"
)

// generated is what the methods look like.
type generated interface {
	AppendJSON([]byte) ([]byte, error)
	UnmarshalJSON([]byte) error
}

// A twin is a type with generated methods, and the same one without.
type twin struct {
	name string
	fast func() generated
	slow func() any
}

func of[F, P any]() twin {
	name := reflect.TypeFor[F]().Name()
	return twin{name, func() generated { return any(new(F)).(generated) }, func() any { return new(P) }}
}

// twins are all types of the packages that have methods.
var twins = []twin{
	of[fast.Addresses, plain.Addresses](),
	of[fast.Aliases, plain.Aliases](),
	of[fast.Ambiguous, plain.Ambiguous](),
	of[fast.Anonymous, plain.Anonymous](),
	of[fast.Binary, plain.Binary](),
	of[fast.Bits, plain.Bits](),
	of[fast.Celsius, plain.Celsius](),
	of[fast.Chain, plain.Chain](),
	of[fast.Collections, plain.Collections](),
	of[fast.Color, plain.Color](),
	of[fast.Custom, plain.Custom](),
	of[fast.Deepest, plain.Deepest](),
	of[fast.Documented, plain.Documented](),
	of[fast.Embedding, plain.Embedding](),
	of[fast.EmbeddingInterface, plain.EmbeddingInterface](),
	of[fast.EmbeddingNamed, plain.EmbeddingNamed](),
	of[fast.EmbeddingPointer, plain.EmbeddingPointer](),
	of[fast.EmbeddingScalar, plain.EmbeddingScalar](),
	of[fast.EmbeddingUnexported, plain.EmbeddingUnexported](),
	of[fast.Empty, plain.Empty](),
	of[fast.Enums, plain.Enums](),
	of[fast.Even, plain.Even](),
	of[fast.Flags, plain.Flags](),
	of[fast.Folded, plain.Folded](),
	of[fast.Foreign, plain.Foreign](),
	of[fast.Forest, plain.Forest](),
	of[fast.Generics, plain.Generics](),
	of[fast.Grid, plain.Grid](),
	of[fast.Handle, plain.Handle](),
	of[fast.Hidden, plain.Hidden](),
	of[fast.HiddenValue, plain.HiddenValue](),
	of[fast.Index, plain.Index](),
	of[fast.Keys, plain.Keys](),
	of[fast.Kind, plain.Kind](),
	of[fast.Knot, plain.Knot](),
	of[fast.List, plain.List](),
	of[fast.Methods, plain.Methods](),
	of[fast.NamedFields, plain.NamedFields](),
	of[fast.Names, plain.Names](),
	of[fast.Nest, plain.Nest](),
	of[fast.Odd, plain.Odd](),
	of[fast.Omitted, plain.Omitted](),
	of[fast.OmittedZero, plain.OmittedZero](),
	of[fast.Ping, plain.Ping](),
	of[fast.Pointers, plain.Pointers](),
	of[fast.Quoted, plain.Quoted](),
	of[fast.QuotedMore, plain.QuotedMore](),
	of[fast.Ratio, plain.Ratio](),
	of[fast.Rawness, plain.Rawness](),
	of[fast.Raws, plain.Raws](),
	of[fast.Real, plain.Real](),
	of[fast.Record, plain.Record](),
	of[fast.Scalars, plain.Scalars](),
	of[fast.Shadowing, plain.Shadowing](),
	of[fast.Small, plain.Small](),
	of[fast.Stamp, plain.Stamp](),
	of[fast.StampedEvent, plain.StampedEvent](),
	of[fast.Switch, plain.Switch](),
	of[fast.Table, plain.Table](),
	of[fast.TagWins, plain.TagWins](),
	of[fast.Tags, plain.Tags](),
	of[fast.Times, plain.Times](),
	of[fast.Tree, plain.Tree](),
	of[fast.Untagged, plain.Untagged](),
	of[fast.Wide, plain.Wide](),
	of[fast.Wrapper, plain.Wrapper](),
	of[fast.Zeros, plain.Zeros](),
}

// letters are what random texts are made of.
var letters = []string{"a", "B", "", "<&>", "\"", "\\", "\n", "\x00", "\x7f", "ü", "\u2028", "\xff", "\xed\xa0\x80", "🙂", "\ufffd", "/", "K", "ſ", "'", "text that is longer than a word"}

func text(r *rand.Rand) string {
	var b strings.Builder
	for range r.IntN(4) {
		b.WriteString(letters[r.IntN(len(letters))])
	}
	return b.String()
}

// fill makes v random. It asks r the same questions for types that look the same.
func fill(r *rand.Rand, v reflect.Value, depth int) {
	if !v.CanSet() {
		return
	}
	some := func() int {
		if depth > 4 {
			return 0
		}
		return r.IntN(4)
	}
	switch p := v.Addr().Interface().(type) {
	case *time.Time:
		*p = time.Unix(r.Int64N(1<<33), r.Int64N(1e9)).UTC()
		if r.IntN(20) == 0 {
			*p = p.AddDate(9000, 0, 0)
		}
		return
	case *json.RawMessage:
		*p = json.RawMessage([]string{"null", ` { "a<" : [ 1 , "\u2028" , null ] } `, `"\ufffd"`, "1", "", "[", "\"\xff\""}[r.IntN(7)])
		return
	case *json.Number:
		*p = json.Number([]string{"", "0", "-1.5e3", "12", "x", "01"}[r.IntN(6)])
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(r.Int64() >> r.IntN(64) * int64(1-2*r.IntN(2)))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		v.SetUint(r.Uint64() >> r.IntN(64))
	case reflect.Float32, reflect.Float64:
		v.SetFloat(number(r))
	case reflect.String:
		v.SetString(text(r))
	case reflect.Pointer:
		if r.IntN(3) > 0 && depth < 6 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(r, v.Elem(), depth+1)
		}
	case reflect.Slice:
		if n := some(); n > 0 {
			v.Set(reflect.MakeSlice(v.Type(), n-1, n))
			for i := range n - 1 {
				fill(r, v.Index(i), depth+1)
			}
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(r, v.Index(i), depth+1)
		}
	case reflect.Map:
		if n := some(); n > 0 {
			v.Set(reflect.MakeMap(v.Type()))
			for range n - 1 {
				key, elem := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
				fill(r, key, depth+1)
				fill(r, elem, depth+1)
				v.SetMapIndex(key, elem)
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(r, v.Field(i), depth+1)
		}
	case reflect.Interface:
		all := []any{nil, "<x>", 1.5, true, []any{nil, "y"}, map[string]any{"k": 1.0}, math.NaN()}
		if x := all[r.IntN(len(all))]; x != nil && v.NumMethod() == 0 {
			v.Set(reflect.ValueOf(x))
		}
	}
}

func number(r *rand.Rand) float64 {
	switch r.IntN(8) {
	case 0:
		return 0
	case 1:
		return math.Copysign(0, -1)
	case 2:
		return math.Float64frombits(r.Uint64())
	case 3:
		return float64(r.IntN(1000)) / 8
	case 4:
		return float64(r.Int64())
	case 5:
		return math.Pow(10, float64(r.IntN(60)-30))
	}
	return r.NormFloat64()
}

// differ says where two values of twins are different, "": nowhere.
func differ(a, b reflect.Value) string {
	if a.Kind() == reflect.Interface || a.Kind() == reflect.Pointer || a.Kind() == reflect.Slice || a.Kind() == reflect.Map {
		if a.IsNil() || b.IsNil() {
			if a.IsNil() != b.IsNil() {
				return " is nil in one"
			}
			return ""
		}
	}
	switch a.Kind() {
	case reflect.Bool:
		return unless(a.Bool() == b.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return unless(a.Int() == b.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return unless(a.Uint() == b.Uint())
	case reflect.Float32, reflect.Float64:
		return unless(math.Float64bits(a.Float()) == math.Float64bits(b.Float()) || a.Float() != a.Float() && b.Float() != b.Float())
	case reflect.String:
		return unless(a.String() == b.String())
	case reflect.Interface, reflect.Pointer:
		if a.Kind() == reflect.Interface && a.Elem().Kind() != b.Elem().Kind() {
			return " has two kinds"
		}
		return differ(a.Elem(), b.Elem())
	case reflect.Slice, reflect.Array:
		if a.Len() != b.Len() {
			return " has two lengths"
		}
		for i := range a.Len() {
			if d := differ(a.Index(i), b.Index(i)); d != "" {
				return "[" + strconv.Itoa(i) + "]" + d
			}
		}
	case reflect.Map:
		if a.Len() != b.Len() {
			return " has two lengths"
		}
	keys:
		for _, key := range a.MapKeys() {
			for _, other := range b.MapKeys() {
				if differ(key, other) == "" {
					if d := differ(a.MapIndex(key), b.MapIndex(other)); d != "" {
						return "[]" + d
					}
					continue keys
				}
			}
			return " has other keys"
		}
	case reflect.Struct:
		for i := range a.NumField() {
			if d := differ(a.Field(i), b.Field(i)); d != "" {
				return "." + a.Type().Field(i).Name + d
			}
		}
	}
	return ""
}

func unless(same bool) string {
	if same {
		return ""
	}
	return " differs"
}
