package topic_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/seam"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// A hub tells which keys it has, and who is there.
func TestListing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		hub, news := new(topic.Hub), topic.New[int]("news", topic.History(3, 0), topic.LatestOnly)
		mux := typedrpc.NewMux()
		topic.Handle(mux, hub, news, topic.Everybody)
		conn, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: mux}, nil)
		gate, ended := make(chan struct{}), make(chan struct{})
		for _, key := range []string{"a", "a", "b"} {
			go func() {
				for range topic.Subscribe(t.Context(), conn, news, key) {
					<-gate
				}
				ended <- struct{}{}
			}()
		}
		synctest.Wait()
		for i := range 50 {
			is.NoErr(topic.Publish(t.Context(), hub, news, "a", i))
		}
		for i := range 3 {
			is.NoErr(topic.Publish(t.Context(), hub, news, fmt.Sprint("idle", i), i))
		}
		l, err := seam.List(hub, "", 2)
		is.NoErr(err)
		is.Equal(l.Keys, 5)
		is.Equal(l.Found, 5)
		is.Equal(l.Subscribers, 3)
		is.Equal(len(l.Rows), 2) // those with the most
		a := l.Rows[0]
		is.Equal(a.Topic, "news")
		is.Equal(a.Key, "a")
		is.Equal(a.Subscribers, 2)
		is.Equal(a.History, 3)
		is.Equal(a.Messages, uint64(50))
		is.Equal(l.Rows[1].Key, "b")

		l, err = seam.List(hub, "idle1", 10)
		is.NoErr(err)
		is.Equal(l.Keys, 5)
		is.Equal(len(l.Rows), 1)
		is.Equal(l.Rows[0].Subscribers, 0)

		close(gate)
		conn.Close()
		for range 3 {
			<-ended
		}
		is.NoErr(hub.Close())
		_, err = seam.List(&topic.Hub{MaxHistory: -1}, "", 1)
		is.True(err != nil)
	})
}
