package fast

import (
	"encoding/json"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/bench/internal/msg"
)

func TestFast_isJSON(t *testing.T) {
	for _, r := range []msg.Request{{A: 3, B: -1000, Tag: msg.Tag}, {Tag: "ein \"Zitat\"\n\\ \u00e4\u2028"}, {}} {
		is := is.New(t)
		fast := Request(r)
		data, err := fast.AppendJSON(nil)
		is.NoErr(err)
		var plain msg.Request
		is.NoErr(json.Unmarshal(data, &plain))
		is.Equal(plain, r)
		var back Request
		is.NoErr(back.UnmarshalJSON(data))
		is.Equal(msg.Request(back), r)
		is.NoErr(back.UnmarshalJSON([]byte(`{"Tag": "x", "B": 1}`))) // in any order
		is.Equal(back.Tag, "x")

		reply := Reply{Sum: r.B, Text: r.Tag}
		data, err = reply.AppendJSON(nil)
		is.NoErr(err)
		var got Reply
		is.NoErr(got.UnmarshalJSON(data))
		is.Equal(got, reply)
	}
}
