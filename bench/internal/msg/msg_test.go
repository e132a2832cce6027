package msg

import (
	"testing"

	"github.com/matryer/is"
)

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
