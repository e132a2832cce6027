package typedrpc_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
)

// A Code is printed in words by whatever prints errors, and is a number where a number is
// asked for.
func TestCode_printed(t *testing.T) {
	for _, tt := range []struct{ format, want string }{
		{"%v", "not found"}, {"%+v", "not found"}, {"%s", "not found"}, {"%q", `"not found"`}, {"%d", "5"}, {"%x", "6e6f7420666f756e64"},
		{"%#v", "5"}, {"%T", "typedrpc.Code"},
	} {
		is := is.New(t)
		is.Equal(fmt.Sprintf(tt.format, typedrpc.NotFound), tt.want)
	}
	is := is.New(t)
	is.Equal(fmt.Sprint([]typedrpc.Code{typedrpc.OK, 1234}, map[string]typedrpc.Code{"a": typedrpc.Aborted}), "[ok code 1234] map[a:aborted]")
	is.Equal(fmt.Sprintf("%v", struct{ Code typedrpc.Code }{typedrpc.Aborted}), "{aborted}")
	data, err := json.Marshal(typedrpc.NotFound)
	is.NoErr(err)
	is.Equal(string(data), "5")

	plain := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == "code" {
			return a
		}
		return slog.Attr{}
	}
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: plain})).Info("", "code", typedrpc.NotFound)
	slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{ReplaceAttr: plain})).Info("", "code", typedrpc.NotFound)
	is.Equal(out.String(), "code=\"not found\"\n{\"code\":\"not found\"}\n")
}
