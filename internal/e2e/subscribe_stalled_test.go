package e2e_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/topic"
)

// stalledServer has a stream that is faster than any reader, a topic with a policy, and a
// method. left is told what the stream's handler was.
func stalledServer(hub *topic.Hub, left chan error) *typedrpc.Server {
	mux := subscribeMux(hub, nil, nil)
	flood := typedrpc.NewServerStream[struct{}, string]("flood")
	typedrpc.Handle(mux, flood, func(ctx context.Context, _ struct{}, send func(string) error) error {
		for {
			if err := send(strings.Repeat("x", 1000)); err != nil {
				left <- err
				<-ctx.Done() // which has ended, too
				return err
			}
		}
	})
	typedrpc.Handle(mux, square, func(_ context.Context, n int) (int, error) { return n * n, nil })
	return &typedrpc.Server{Mux: mux, Limits: typedrpc.Limits{WriteTimeout: 10 * time.Second}}
}

// TestSubscribe_stalled ends the subscription of a peer that takes nothing, and tells both sides. What
// else there is on the link goes on when the peer reads again.
func TestSubscribe_stalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		hub, left := new(topic.Hub), make(chan error, 1)
		srv := stalledServer(hub, left)
		p, c := lab.Page(t, srv)
		news, _ := subscribed(t, p, `{"jsonrpc":"2.0","id":1,"method":"rpc.subscribe","params":["test.news","x"]}`)
		resume := p.Stop()
		began := time.Now()
		p.Send(`{"jsonrpc":"2.0","id":2,"method":"rpc.subscribe","params":["flood"]}`)
		err := <-left
		took := time.Since(began)
		is.Equal(typedrpc.CodeOf(err), typedrpc.ResourceExhausted)
		is.True(strings.Contains(err.Error(), "the subscriber takes nothing"))
		is.True(took >= 5*time.Second && took < 7*time.Second)
		synctest.Wait()
		is.True(hook.Conn(c).Queued <= 66<<10)
		is.NoErr(topic.Publish(t.Context(), hub, lab.TopicNews, "x", "while nobody reads"))
		p.Send(`{"jsonrpc":"2.0","id":3,"method":"square","params":[7]}`)
		is.NoErr(c.Err())

		resume()
		got := p.Got()
		is.True(strings.Contains(got[len(got)-1], "flood") || len(got) > 100)
		var ended, told, answered int
		for _, text := range got {
			switch {
			case strings.Contains(text, `"error":{"code":8,"message":"the subscriber takes nothing`):
				ended++
			case strings.Contains(text, news) && strings.Contains(text, "while nobody reads"):
				told++
			case text == `{"jsonrpc":"2.0","id":3,"result":49}`:
				answered++
			}
		}
		is.Equal([]int{ended, told, answered}, []int{1, 1, 1})
		time.Sleep(time.Minute)
		is.NoErr(c.Err())
		is.Equal(hook.Conn(c).Inbound, 1) // the topic's
		is.Equal(hook.Conn(c).SentItems, 0)
		is.Equal(hook.Conn(c).Queued, 0)
	})
}

// TestSubscribe_stalledForGood ends the link of a peer that never reads again.
func TestSubscribe_stalledForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		left := make(chan error, 1)
		srv := stalledServer(new(topic.Hub), left)
		p, c := lab.Page(t, srv)
		defer p.Stop()()
		began := time.Now()
		p.Send(`{"jsonrpc":"2.0","id":2,"method":"rpc.subscribe","params":["flood"]}`)
		is.Equal(typedrpc.CodeOf(<-left), typedrpc.ResourceExhausted)
		<-c.Context().Done()
		is.True(time.Since(began) < 13*time.Second)
		synctest.Wait()
		is.Equal(hook.Server(srv).Budget, int64(0))
		is.Equal(hook.Server(srv).Plain, 0)
	})
}

// TestSubscribe_slowReader has a peer read one message in four seconds, which is slow and not stalled.
func TestSubscribe_slowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		left := make(chan error, 1)
		srv := stalledServer(new(topic.Hub), left)
		srv.Limits.KeepAlive = time.Hour // a pipe does not tell that something leaves it
		p, c := lab.Page(t, srv)
		resume := p.Stop()
		p.Send(`{"jsonrpc":"2.0","id":2,"method":"rpc.subscribe","params":["flood"]}`)
		for range 30 {
			time.Sleep(4 * time.Second)
			resume()
			resume = p.Stop()
		}
		select {
		case err := <-left:
			t.Fatal(err)
		default:
		}
		is.NoErr(c.Err())
		p.T.Kill()
		resume()
		is.Equal(typedrpc.CodeOf(<-left), typedrpc.Unavailable)
	})
}
