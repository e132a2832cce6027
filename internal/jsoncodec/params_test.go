package jsoncodec

import (
	"strings"
	"testing"

	"github.com/matryer/is"
)

func TestNameParams(t *testing.T) {
	two := []string{"a", `quo"te`}
	for _, tt := range []struct {
		names      []string
		list, want string // want: "": refused
	}{
		{two, `[1,"x"]`, `{"a":1,"quo\"te":"x"}`},
		{two, ` [ 1 , {"b" : [ 2 ]} ] `, `{"a":1,"quo\"te":{"b" : [ 2 ]}}`}, // values as they were written
		{two, `[null]`, `{"a":null}`},                                       // the last ones are left out
		{two, `["]",[",","]"]]`, `{"a":"]","quo\"te":[",","]"]}`},
		{two, `[1e400,"\ud800"]`, `{"a":1e400,"quo\"te":"\ud800"}`}, // nothing is decoded
		{two, `[]`, `{}`}, {nil, `[]`, `{}`},
		{two, `[1,2,3]`, ""}, {nil, `[1]`, ""},
		{two, `{"a":1}`, ""}, {two, `null`, ""}, {two, `"[]"`, ""}, {two, ``, ""},
		{two, `[1`, ""}, {two, `[1,]`, ""}, {two, `[,1]`, ""}, {two, `[1 2]`, ""}, {two, `[1] 2`, ""}, {two, `[1]]`, ""},
		{two, "[\"\xff\"]", ""}, {two, nested(RawDepth + 1), ""},
		{two, nested(RawDepth), `{"a":` + nested(RawDepth-1) + `}`},
	} {
		t.Run(tt.list[:min(len(tt.list), 20)], func(t *testing.T) {
			is := is.New(t)
			got, err := NameParams(tt.names, []byte(tt.list))
			is.Equal(err == nil, tt.want != "")
			if err == nil {
				is.Equal(string(got), tt.want)
			}
		})
	}
}

func TestNameParams_tooMany(t *testing.T) {
	is := is.New(t)
	_, err := NameParams([]string{"a", "b"}, []byte(`[1,2,3,4]`))
	is.Equal(err.Error(), "params has more than 2 elements")
}

func TestOnlyElement(t *testing.T) {
	for list, want := range map[string]string{
		`[1]`: `1`, ` [ {"a" : 1} ] `: `{"a" : 1}`, `[null]`: `null`, `[[]]`: `[]`, `[["x","y"]]`: `["x","y"]`, `["a,b"]`: `"a,b"`,
		`[]`: "", `[1,2]`: "", `[1,1,1]`: "", `{"a":1}`: "", `null`: "", `1`: "", ``: "",
		`[1`: "", `[1,]`: "", `[1]x`: "", `[tru]`: "", nested(RawDepth + 1): "", nested(RawDepth): nested(RawDepth - 1),
	} {
		t.Run(list[:min(len(list), 20)], func(t *testing.T) {
			is := is.New(t)
			got := OnlyElement([]byte(list))
			is.Equal(string(got), want)
			is.Equal(got == nil, want == "")
		})
	}
}

// What is appended to an element does not get into its list.
func TestOnlyElement_isCapped(t *testing.T) {
	is := is.New(t)
	list := []byte(`[1]` + strings.Repeat(" ", 10))
	_ = append(OnlyElement(list), "garbage"...)
	is.Equal(strings.TrimSpace(string(list)), `[1]`)
}
