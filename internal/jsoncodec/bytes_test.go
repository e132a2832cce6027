package jsoncodec

import (
	"testing"

	"github.com/matryer/is"
)

func TestBytes_decodeJSON(t *testing.T) {
	for text, want := range map[string]string{
		`"AP8/"`: "\x00\xff?", `"AP8\/"`: "\x00\xff?", `"\u0041P8/"`: "\x00\xff?", `""`: "", `null`: "", ``: "",
		`"AP8"`: "want base64 in a string", `"_w=="`: "want base64 in a string", `"A\"=="`: "want base64 in a string",
		`7`: "want base64 in a string, have a number", `["AP8/"]`: "want base64 in a string, have an array",
	} {
		t.Run(text, func(t *testing.T) {
			is := is.New(t)
			b, err := DecodeBytes([]byte("before "), []byte(text))
			if err != nil {
				is.Equal(err.Error(), want)
				want = ""
			}
			is.Equal(string(b), "before "+want) // as it was, after an error
		})
	}
}

func TestBytes_appendJSON(t *testing.T) {
	for b, want := range map[string]string{"": `""`, "\x00\xff?": `"AP8/"`, "a": `"YQ=="`} {
		is := is.New(t)
		is.Equal(string(AppendBytes([]byte("before "), []byte(b))), "before "+want)
	}
}
