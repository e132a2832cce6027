package hub

import (
	"fmt"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/flow"
)

func TestSubscriber_policies(t *testing.T) {
	const size = flow.MessageOverhead + 1
	for _, test := range []struct {
		do     Do
		queue  string // message, and how many were lost before it
		missed uint64 // before the next one
	}{
		{DropOldest, "2+2 3+0 ", 0},
		{DropNewest, "0+0 1+0 ", 2},
		{LatestOnly, "3+3 ", 0},
		{WaitAtMost, "0+0 1+0 ", 0},
	} {
		is := is.New(t)
		own := flow.NewBudget(10 * size)
		s := &subscriber{x: new(engine.Stream), backlog: &nothing, room: &room{heard: new(heard), declared: &declared{topic: &Topic{Policy: Policy{Do: test.do, Bytes: 2 * size}}}}, account: &account{own: own}}
		for i := range 4 {
			took := s.give(&newMessage("", fmt.Append(nil, i)).encoding)
			is.Equal(took, i < 2 || test.do != WaitAtMost)
		}
		is.Equal(s.missed, test.missed)
		is.Equal(own.Used(), int64(s.queue.Len()*size))
		var got string
		for i := range s.queue.Len() {
			q := s.queue.At(i)
			got += fmt.Sprintf("%s+%d ", q.body.B, q.dropped)
		}
		is.Equal(got, test.queue)
		s.drop()
		is.Equal(own.Used(), int64(0))
	}
}
