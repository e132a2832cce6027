package msg

import (
	"encoding/json"
	"testing"

	"github.com/matryer/is"
)

func TestFast_isJSON(t *testing.T) {
	for _, r := range []Request{{A: 3, B: -1000, Tag: Tag}, {Tag: "ein \"Zitat\"\n\\ \u00e4\u2028"}, {}} {
		is := is.New(t)
		fast := FastRequest(r)
		data, err := fast.AppendJSON(nil)
		is.NoErr(err)
		var plain Request
		is.NoErr(json.Unmarshal(data, &plain))
		is.Equal(plain, r)
		var back FastRequest
		is.NoErr(back.UnmarshalJSON(data))
		is.Equal(Request(back), r)
		is.NoErr(back.UnmarshalJSON([]byte(`{"Tag": "x", "B": 1}`))) // in any order
		is.Equal(Request(back).Tag, "x")

		reply := FastReply{Sum: r.B, Text: r.Tag}
		data, err = reply.AppendJSON(nil)
		is.NoErr(err)
		var got FastReply
		is.NoErr(got.UnmarshalJSON(data))
		is.Equal(got, reply)
	}
}

func TestHand_roundTrip(t *testing.T) {
	is := is.New(t)
	r := Request{A: 3, B: -1000, Tag: Tag}
	var got Request
	is.NoErr(got.Decode(r.Append(nil)))
	is.Equal(got, r)
	is.True(got.Decode(nil) != nil)
	reply := Answer(r)
	var back Reply
	is.NoErr(back.Decode(reply.Append(nil)))
	is.NoErr(Verify(r, back))
	is.True(back.Decode(nil) != nil)
	is.True(Verify(Request{A: 1}, back) != nil)
}
