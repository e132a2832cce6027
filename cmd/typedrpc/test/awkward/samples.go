package awkward

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/cmd/typedrpc/test/awkward/other"
)

// A Sample is a value of a type, and the method that echoes it.
type Sample struct {
	Var   string // the method's variable
	Name  string // and its name
	Value any
	back  func([]byte) (any, error)
	JSON  []byte

	// Ask calls the method, and reports whether the value came back.
	Ask func(context.Context, typedrpc.Caller) error
	// Echo handles the method: it takes the values of its samples, and no others.
	Echo func(*typedrpc.Mux)
}

// Returns decodes what came back, and reports whether it is the value.
func (s Sample) Returns(data []byte) error {
	v, err := s.back(data)
	if err != nil {
		return fmt.Errorf("%s: %s does not decode: %w", s.Var, data, err)
	}
	if !reflect.DeepEqual(v, s.Value) {
		return fmt.Errorf("%s: %#v came back as %#v, by %s", s.Var, s.Value, v, data)
	}
	return nil
}

type samples []Sample

func add[T any](s *samples, name string, m typedrpc.Method[T, T], values ...T) {
	echo := func(mux *typedrpc.Mux) {
		typedrpc.Handle(mux, m, func(_ context.Context, got T) (T, error) {
			if !slices.ContainsFunc(values, func(v T) bool { return reflect.DeepEqual(v, got) }) {
				return got, typedrpc.Errorf(typedrpc.InvalidArgument, "%s: %#v came, which is none of %#v", name, got, values)
			}
			return got, nil
		})
	}
	for _, v := range values {
		data, err := typedrpc.JSON.Append(nil, &v)
		if err != nil {
			panic(fmt.Sprintf("%s: %v", name, err))
		}
		back := func(data []byte) (any, error) {
			var v T
			err := typedrpc.JSON.Decode(data, &v)
			return v, err
		}
		ask := func(ctx context.Context, c typedrpc.Caller) error {
			got, err := typedrpc.Call(ctx, c, m, v)
			if err == nil && !reflect.DeepEqual(got, v) {
				err = fmt.Errorf("%s: %#v came back as %#v", name, v, got)
			}
			return err
		}
		*s = append(*s, Sample{name, m.Name(), v, back, data, ask, echo})
	}
}

func ptr[T any](v T) *T { return &v }

// Samples are values of all types that the methods are of.
func Samples() []Sample {
	var s samples
	at := time.Date(2026, 12, 1, 8, 30, 15, 123456789, time.UTC)
	scalars := Scalars{true, -1, -128, 32767, -1 << 31, 1 << 40, 255, 65535, 1<<32 - 1, 0.1, 1e300, "ü\u2028</script>\x00\\\"", '🙂'}
	addScalars(&s, at)
	add(&s, "EchoScalars", EchoScalars, Scalars{}, scalars)
	add(&s, "EchoUntagged", EchoUntagged, Untagged{Name: "n", Count: 1})
	add(&s, "EchoNames", EchoNames, Names{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0})
	add(&s, "EchoOmitted", EchoOmitted, Omitted{}, Omitted{1, "s", []string{""}, map[string]int{"a": 0}, ptr(0), []byte{1}, Empty{}, [2]int{0, 1}, [0]int{}, 1.5, map[string]string{"k": "v"}})
	add(&s, "EchoOmittedZero", EchoOmittedZero, OmittedZero{}, OmittedZero{at, scalars, [2]int{1}, []int{}, &Empty{}, []int{1}, Zeroer{2}})
	add(&s, "EchoQuoted", EchoQuoted, Quoted{}, Quoted{-1, 1<<62 + 1, 1<<64 - 1, 1e21, true, "a\"b", ptr(int64(1<<53 + 1)), 5, -7, []string{"x"}})
	add(&s, "EchoPointers", EchoPointers, Pointers{}, Pointers{ptr(0), &Empty{}, &[]int{1}, ptr(ptr("x")), []*int{nil, ptr(1)}, &Pointers{}})
	add(&s, "EchoEmpty", EchoEmpty, Empty{})
	add(&s, "EchoCollections", EchoCollections, Collections{}, Collections{
		[]string{"a"}, [][]float64{nil, {}, {0.5, -0.25}}, [2]string{"x", "y"}, [20]int{19: 1}, [0]string{}, [2][3]int{{1, 2, 3}, {4}},
		map[string]int{"": 0, "constructor": 1}, map[int]string{-5: "m", 1: "a"}, map[int64]bool{1<<62 + 1: true}, map[Color]int{ColorRed: 1},
		map[string]map[string]int{"a": nil, "b": {"c": 1}}, map[string][]*Scalars{"a": {nil, &scalars}, "b": nil}, map[netip.Addr]string{netip.MustParseAddr("::1"): "me"},
		[]Untagged{{Name: "x"}}})
	add(&s, "EchoBinary", EchoBinary, Binary{}, Binary{[]byte{0, 255}, Digest{}, [4]byte{1, 2, 3, 255}, [][]byte{nil, {}, {62, 63, 255}}, map[string][]byte{"a": {1}}, []Octet{1, 2}, []TextByte{3, 0}})
	add(&s, "EchoTimes", EchoTimes, Times{Month: time.May}, Times{at, &at, &at, time.Hour, ptr(time.Nanosecond), time.December, []time.Time{at}, Stamp{at}, StampedEvent{Time: at}})
	add(&s, "EchoStamp", EchoStamp, Stamp{at})
	add(&s, "EchoStampedEvent", EchoStampedEvent, StampedEvent{Time: at})
	add(&s, "EchoRawness", EchoRawness, Rawness{Raw: json.RawMessage("null"), Number: "0"}, Rawness{json.RawMessage(`{"a":[1,null]}`), "1.5", []any{"x", 1.0, nil}, map[string]any{"k": false}, map[string]json.RawMessage{"r": json.RawMessage("1")}})
	addEnums(&s)
	add(&s, "EchoNamedFields", EchoNamedFields, NamedFields{}, NamedFields{36.6, "t", true, Tags{"a"}, Tags{"b"}, Index{"i": 1}, ptr(Title("m")), Table{1, 2, 3}})
	add(&s, "EchoOtherKind", EchoOtherKind, other.Kind{Deep: 1, Other: true})
	addStructs(&s)
	return s
}

func addScalars(s *samples, at time.Time) {
	add(s, "EchoBool", EchoBool, true, false)
	add(s, "EchoInt", EchoInt, 0, -42)
	add(s, "EchoInt32", EchoInt32, 1<<31-1)
	add(s, "EchoUint8", EchoUint8, 255)
	add(s, "EchoFloat", EchoFloat, 0.1, 1e21, -1e-7, 5e-324)
	add(s, "EchoText", EchoText, "", "häuser 🙂 \u2029 `${x}` */")
	add(s, "EchoBytes", EchoBytes, nil, []byte{}, []byte{0, 1, 254})
	add(s, "EchoStrings", EchoStrings, nil, []string{}, []string{"a", ""})
	add(s, "EchoMapOfInts", EchoMapOfInts, nil, map[string]int{}, map[string]int{"a b": 1})
	add(s, "EchoPointer", EchoPointer, nil, ptr("x"))
	add(s, "EchoPointerToStruct", EchoPointerToStruct, nil, &Empty{})
	add(s, "EchoNothing", EchoNothing, struct{}{})
	add(s, "EchoAnything", EchoAnything, nil, any("x"), any([]any{1.0}), any(map[string]any{"a": true}))
	add(s, "EchoRawJSON", EchoRawJSON, json.RawMessage(`[1,"a",null]`))
	add(s, "EchoTime", EchoTime, at, time.Time{})
	add(s, "EchoDuration", EchoDuration, 90*time.Minute)
	add(s, "EchoMaybeTime", EchoMaybeTime, nil, &at)
	add(s, "EchoNumbers", EchoNumbers, [3]int{1, 2, 3})
	add(s, "EchoAddr", EchoAddr, netip.MustParseAddr("192.0.2.1"))
	add(s, "EchoURL", EchoURL, url.URL{Scheme: "https", Host: "example.com", Path: "/a b"})
	add(s, "EchoMatrix", EchoMatrix, nil, [][]*float64{nil, {nil, ptr(0.5)}})
	add(s, "EchoDeepNull", EchoDeepNull, map[string][]map[string]*[]string{"a": nil, "b": {nil, {"c": nil, "d": {}}}})
}

func addEnums(s *samples) {
	add(s, "EchoColor", EchoColor, ColorRed, ColorBlue)
	add(s, "EchoKind", EchoKind, KindNone, kindSecret)
	add(s, "EchoFlags", EchoFlags, 0, FlagRead|FlagWrite)
	add(s, "EchoRatio", EchoRatio, RatioHalf, RatioTiny)
	add(s, "EchoSwitch", EchoSwitch, SwitchOn)
	add(s, "EchoLevel", EchoLevel, other.LevelLow, other.Hidden())
	add(s, "EchoEnums", EchoEnums, Enums{ColorRed, KindLarge, FlagRead | FlagWrite, RatioHalf, true, other.LevelHigh, ptr(ColorGreen), []Kind{KindSmall}, KindLarge, map[Color]Color{ColorRed: ColorBlue}, other.Kind{}})
	add(s, "EchoCelsius", EchoCelsius, -273.15)
	add(s, "EchoTags", EchoTags, nil, Tags{"x"})
	add(s, "EchoIndex", EchoIndex, nil, Index{"x": 1})
	add(s, "EchoTable", EchoTable, Table{1, 2, 3})
	add(s, "EchoColorsByKind", EchoColorsByKind, map[Kind]Color{KindSmall: ColorRed})
	add(s, "EchoKindsByColor", EchoKindsByColor, map[Color]*Kind{ColorRed: nil, ColorBlue: ptr(KindLarge)})
}

func addStructs(s *samples) {
	base := other.Base{ID: "i", Version: 2}
	add(s, "EchoEmbedding", EchoEmbedding, Embedding{base, "n"}, Embedding{})
	add(s, "EchoEmbeddingPointer", EchoEmbeddingPointer, EmbeddingPointer{&base, "n"}, EmbeddingPointer{nil, "n"})
	add(s, "EchoEmbeddingNamed", EchoEmbeddingNamed, EmbeddingNamed{base, "n"})
	add(s, "EchoEmbeddingUnexported", EchoEmbeddingUnexported, EmbeddingUnexported{unexported{Seen: 1}, "n"})
	add(s, "EchoEmbeddingScalar", EchoEmbeddingScalar, EmbeddingScalar{"t", Tags{"x"}, ColorRed})
	add(s, "EchoAmbiguous", EchoAmbiguous, Ambiguous{Left{L: 1}, Right{R: 2}})
	add(s, "EchoShadowing", EchoShadowing, Shadowing{Left{L: 1}, Right{R: 2}, "c"})
	add(s, "EchoTagWins", EchoTagWins, TagWins{Plain{}, Marked{"v"}})
	add(s, "EchoDeepest", EchoDeepest, Deepest{Middle{&base, "m"}, "t"}, Deepest{})
	add(s, "EchoEmbeddingInterface", EchoEmbeddingInterface, EmbeddingInterface{})
	add(s, "EchoTree", EchoTree, Tree{1, []Tree{{2, nil}, {3, []Tree{}}}})
	add(s, "EchoList", EchoList, List{1, &List{2, nil}})
	add(s, "EchoEven", EchoEven, Even{}, Even{&Odd{map[string]Even{"x": {}}}})
	add(s, "EchoOdd", EchoOdd, Odd{})
	add(s, "EchoForest", EchoForest, Forest{"a": nil, "b": {"c": Forest{}}})
	add(s, "EchoNest", EchoNest, Nest{nil, {}, {{}}})
	add(s, "EchoPing", EchoPing, Ping{"a": {"b": nil}})
	add(s, "EchoKnot", EchoKnot, Knot{"a": {nil, {"b": nil}}})
	add(s, "EchoPairStringInt", EchoPairStringInt, Pair[string, int]{"a", 1})
	add(s, "EchoPairOfPairs", EchoPairOfPairs, Pair[Pair[int, bool], []int]{Pair[int, bool]{1, true}, nil})
	add(s, "EchoNodeOfColor", EchoNodeOfColor, Node[Color]{ColorRed, []*Node[Color]{nil, {ColorBlue, nil}}})
	add(s, "EchoBoxOfBytes", EchoBoxOfBytes, Box[byte]{[]byte{1, 2}})
	add(s, "EchoBoxOfLists", EchoBoxOfLists, Box[[]string]{[][]string{{"a"}, nil}})
	add(s, "EchoPageOfTitles", EchoPageOfTitles, other.Page[Title]{Items: []Title{"a"}, Next: ptr("n")})
	add(s, "EchoPageOfPages", EchoPageOfPages, other.Page[other.Page[int]]{Items: []other.Page[int]{{Items: []int{1}}}})
	add(s, "EchoWrapper", EchoWrapper, Wrapper{other.Page[Title]{}, 1})
	add(s, "EchoGenerics", EchoGenerics, Generics{Node: Node[Color]{Value: ColorRed}}, Generics{
		Pair[string, int]{"a", 1}, Pair[Pair[int, bool], []int]{}, Node[Color]{ColorGreen, nil}, Box[byte]{[]byte{9}}, Box[*string]{[]*string{nil, ptr("s")}},
		other.Page[map[string]Kind]{Items: []map[string]Kind{{"k": KindLarge}, nil}}, ptr("m")})
	anonymous := Anonymous{}
	anonymous.Inner.A = 1
	anonymous.Inner.B.C = []string{"x"}
	anonymous.List = append(anonymous.List, struct {
		X int `json:"x,omitempty"`
	}{5})
	add(s, "EchoAnonymous", EchoAnonymous, Anonymous{}, anonymous)
	add(s, "EchoInline", EchoInline, struct {
		A int `json:"a"`
		B []struct {
			C bool `json:"c"`
		} `json:"b"`
	}{A: 1})
	add(s, "EchoAlias", EchoAlias, Alias{Name: "a"})
	add(s, "EchoAliasOfInts", EchoAliasOfInts, AliasOf[int]{"x": 1})
	add(s, "EchoAliases", EchoAliases, Aliases{Alias{}, AliasOf[Alias]{"a": {Count: 1}}, "x"})
	add(s, "EchoMoney", EchoMoney, Cents(1250))
	add(s, "EchoPoint", EchoPoint, Point{1, 2})
	add(s, "EchoHandle", EchoHandle, HandleOf("me"))
	add(s, "EchoCustom", EchoCustom, Custom{Cents(1), []Money{Cents(200)}, Point{1, 2}, map[string]Point{"a": {3, 4}}, HandleOf("x"), map[Handle]Handle{HandleOf("k"): HandleOf("v")}, ptr(HandleOf("m")), json.RawMessage(`{"kind":"a"}`), []string{}})
	add(s, "EchoRecord", EchoRecord, Record{map[string]Promise{"p": {ptr(Object("o"))}}})
	add(s, "EchoDocumented", EchoDocumented, Documented{1})
}
