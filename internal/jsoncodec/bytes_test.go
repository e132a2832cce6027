package jsoncodec

import (
	"testing"

	"github.com/matryer/is"
)

func TestBytes_decodeJSON(t *testing.T) {
	for text, want := range map[string]string{
		`"AP8/"`: "\x00\xff?", `"AP8\/"`: "\x00\xff?", `""`: "", `null`: "", ``: "",
		`"AP8"`: "want base64 in a string", `"_w=="`: "want base64 in a string", `7`: "want base64 in a string, have a number",
	} {
		is := is.New(t)
		b, err := DecodeBytes(nil, []byte(text))
		if err != nil {
			is.Equal(err.Error(), want)
			continue
		}
		is.Equal(string(b), want)
	}
}
