package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
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

// notice is what a subscription tells.
type notice struct {
	Method string
	Params struct {
		Subscription string
		Result       json.RawMessage
		At           string
		Missed       int
		History      bool
		Done         bool
		Error        *struct {
			Code    int
			Message string
		}
	}
}

func notices(t *testing.T, texts []string) (all []notice) {
	t.Helper()
	for _, text := range texts {
		var n notice
		if err := json.Unmarshal([]byte(text), &n); err != nil || n.Params.Subscription == "" {
			t.Fatalf("no notice: %s", text)
		}
		all = append(all, n)
	}
	return all
}

// subscribed subscribes by a request, whose answer is the first message, and returns the
// subscription's id and what came behind.
func subscribed(t *testing.T, p *lab.Stranger, request string) (id string, behind []string) {
	t.Helper()
	p.Send(request)
	got := p.Got()
	var answer struct{ Result string }
	if len(got) == 0 || json.Unmarshal([]byte(got[0]), &answer) != nil || answer.Result == "" {
		t.Fatalf("not subscribed: %v", got)
	}
	return answer.Result, got[1:]
}

type count struct {
	To int `json:"to"`
}

var (
	counting = typedrpc.NewServerStream[count, int]("count")
	forever  = typedrpc.NewServerStream[struct{}, int]("forever")
)

// subscribeMux has streams and topics to subscribe to. Each value of more lets forever send
// one item; left is told when its handler returns.
func subscribeMux(hub *topic.Hub, more chan int, left chan error, interceptors ...typedrpc.Interceptor) *typedrpc.Mux {
	mux := typedrpc.NewMux(interceptors...)
	typedrpc.Handle(mux, counting, func(_ context.Context, req count, send func(int) error) error {
		for i := range req.To {
			if err := send(i); err != nil {
				return err
			}
		}
		if req.To > 3 {
			return typedrpc.Errorf(typedrpc.OutOfRange, "no more than three")
		}
		return nil
	})
	typedrpc.Handle(mux, forever, func(ctx context.Context, _ struct{}, send func(int) error) (err error) {
		defer func() { left <- err }()
		for {
			select {
			case n := <-more:
				if err := send(n); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	topic.Handle(mux, hub, lab.TopicNews, topic.Everybody)
	topic.Handle(mux, hub, lab.TopicChat, func(_ context.Context, a topic.Access) error {
		if a.Key == "closed" {
			return typedrpc.PermissionDenied
		}
		return nil
	})
	return mux
}

func TestSubscribe_serverStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		p, c := lab.Page(t, &typedrpc.Server{Mux: subscribeMux(new(topic.Hub), nil, nil)})
		for _, request := range []string{
			`{"jsonrpc":"2.0","id":"a","method":"rpc.subscribe","params":{"method":"count","params":{"to":2}}}`,
			`{"jsonrpc":"2.0","id":"a","method":"rpc.subscribe","params":["count",{"to":2}]}`,
			`{"jsonrpc":"2.0","id":"a","method":"rpc.subscribe","params":{"params":[{"to":2}],"method":"c\u006funt"}}`,
		} {
			p.Send(request)
			got := p.Got()
			is.Equal(len(got), 4)
			id := notices(t, got[1:2])[0].Params.Subscription
			is.Equal(got, []string{
				`{"jsonrpc":"2.0","id":"a","result":"` + id + `"}`,
				`{"jsonrpc":"2.0","method":"rpc.subscription","params":{"subscription":"` + id + `","result":0}}`,
				`{"jsonrpc":"2.0","method":"rpc.subscription","params":{"subscription":"` + id + `","result":1}}`,
				`{"jsonrpc":"2.0","method":"rpc.subscription","params":{"subscription":"` + id + `","done":true}}`,
			})
		}
		_, behind := subscribed(t, p, `{"jsonrpc":"2.0","id":1,"method":"rpc.subscribe","params":["count",{"to":4}]}`)
		all := notices(t, behind)
		is.Equal(len(all), 5)
		is.Equal(all[4].Params.Error.Code, int(typedrpc.OutOfRange))
		is.Equal(all[4].Params.Error.Message, "no more than three")
		is.Equal(hook.Conn(c).Inbound, 0)
		is.Equal(hook.Conn(c).SentItems, 0)
		is.Equal(hook.Conn(c).Queued, 0)
	})
}

func TestSubscribe_topic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		hub := new(topic.Hub)
		p, _ := lab.Page(t, &typedrpc.Server{Mux: subscribeMux(hub, nil, nil)})
		is.NoErr(topic.Publish(t.Context(), hub, lab.TopicChat, "x", "before anybody came")) // and the room is there
		a, _ := subscribed(t, p, `{"jsonrpc":"2.0","id":1,"method":"rpc.subscribe","params":["test.chat","x"]}`)
		for i := range 5 {
			is.NoErr(topic.Publish(t.Context(), hub, lab.TopicChat, "x", fmt.Sprint(i)))
		}
		is.Equal(len(notices(t, p.Got())), 5)
		b, behind := subscribed(t, p, `{"jsonrpc":"2.0","id":2,"method":"rpc.subscribe","params":{"method":"test.chat","params":"x"}}`)
		is.True(a != b)
		history := notices(t, behind)
		is.Equal(len(history), 3)
		is.True(history[0].Params.History)
		is.Equal(string(history[0].Params.Result), `"2"`)

		p.Send(`{"jsonrpc":"2.0","id":3,"method":"rpc.unsubscribe","params":["` + a + `"]}`)
		is.Equal(p.Got(), []string{`{"jsonrpc":"2.0","id":3,"result":true}`}) // and no word of its end
		is.NoErr(topic.Publish(t.Context(), hub, lab.TopicChat, "x", "after"))
		is.Equal(p.Got(), []string{`{"jsonrpc":"2.0","method":"rpc.subscription","params":{"subscription":"` + b + `","result":"after"}}`})
		for _, gone := range []string{`["` + a + `"]`, `{"subscription":"0x1"}`, `["0x` + strings.Repeat("0", 32) + `"]`} {
			p.Send(`{"jsonrpc":"2.0","id":4,"method":"rpc.unsubscribe","params":` + gone + `}`)
			is.Equal(p.Got(), []string{`{"jsonrpc":"2.0","id":4,"error":{"code":5,"message":"subscription not found"}}`})
		}
		is.NoErr(hub.Close())
		end := notices(t, p.Got())
		is.Equal(len(end), 1)
		is.Equal(end[0].Params.Error.Code, int(typedrpc.Unavailable))
		is.NoErr(lab.Vacated(hub))
	})
}

// TestSubscribe_refused has the request answered with an error, and nothing begun.
func TestSubscribe_refused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		deny := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
			is.Equal(r.Kind, typedrpc.KindServerStream) // whoever asks by whatever way
			if r.Method == "forever" {
				return nil, typedrpc.Errorf(typedrpc.Unauthenticated, "who are you")
			}
			return next(ctx, r)
		}
		p, c := lab.Page(t, &typedrpc.Server{Mux: subscribeMux(new(topic.Hub), nil, nil, deny)})
		for params, code := range map[string]int{
			`["nobody"]`:                           -32601,
			`["count","x"]`:                        -32602, // the stream's request
			`["forever"]`:                          16,     // an interceptor
			`["test.chat","closed"]`:               7,      // a topic's function
			`["test.chat.presence","a"]`:           0,
			`[]`:                                   -32602,
			`[7]`:                                  -32602,
			`{"params":[]}`:                        -32602,
			`{"method":7}`:                         -32602,
			`{"method":"a","method":""}`:           -32602,
			`{"method":""}`:                        -32601,
			`["` + strings.Repeat("x", 300) + `"]`: -32602,
		} {
			p.Send(`{"jsonrpc":"2.0","id":1,"method":"rpc.subscribe","params":` + params + `}`)
			var answer struct{ Error struct{ Code int } }
			got := p.Got()
			is.True(len(got) > 0)
			is.NoErr(json.Unmarshal([]byte(got[0]), &answer))
			is.Equal(answer.Error.Code, code)
		}
		is.Equal(hook.Conn(c).Inbound, 1) // those present
		p.Send(`[{"jsonrpc":"2.0","id":1,"method":"rpc.subscribe","params":["count"]},{"jsonrpc":"2.0","id":2,"method":"rpc.unsubscribe","params":["x"]}]`)
		got := p.Got()
		is.Equal(len(got), 1)
		is.True(strings.Contains(got[0], "cannot begin in a batch") && strings.Contains(got[0], "subscription not found"))
	})
}

// TestSubscribe_ends ends subscriptions while their items are on the way, and
// in all other ways.
func TestSubscribe_ends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		more, left := make(chan int), make(chan error, 1)
		srv := &typedrpc.Server{Mux: subscribeMux(new(topic.Hub), more, left), Limits: typedrpc.Limits{MaxCalls: 2}}
		p, c := lab.Page(t, srv)
		const request = `{"jsonrpc":"2.0","id":7,"method":"rpc.subscribe","params":["forever"]}`
		id, _ := subscribed(t, p, request)
		more <- 1
		p.Send(`{"jsonrpc":"2.0","id":9,"method":"rpc.unsubscribe","params":{"subscription":"` + id + `"}}`)
		got := p.Got()
		is.Equal(got[len(got)-1], `{"jsonrpc":"2.0","id":9,"result":true}`)
		is.Equal(typedrpc.CodeOf(<-left), typedrpc.Canceled)
		is.Equal(hook.Conn(c).Inflow, 0) // the place is free

		// The request was answered: its id names it no more.
		id, _ = subscribed(t, p, request)
		p.Send(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":7}}`)
		more <- 2
		is.Equal(string(notices(t, p.Got())[0].Params.Result), "2")

		// One of two places may be a stream's.
		p.Send(request)
		is.True(strings.Contains(p.Got()[0], `"code":8`))

		// A shutdown tells it, and ends.
		go srv.Shutdown(t.Context())
		all := notices(t, p.Got()[:1])
		is.Equal(all[0].Params.Subscription, id)
		is.Equal(all[0].Params.Error.Code, int(typedrpc.Unavailable))
		<-left
		is.True(p.Ended() != nil)
		is.Equal(hook.Server(srv).Budget, int64(0))
	})
}

// TestSubscribe_linkEnds ends the link under a subscription.
func TestSubscribe_linkEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		more, left := make(chan int), make(chan error, 1)
		hub := new(topic.Hub)
		srv := &typedrpc.Server{Mux: subscribeMux(hub, more, left)}
		p, _ := lab.Page(t, srv)
		subscribed(t, p, `{"jsonrpc":"2.0","id":7,"method":"rpc.subscribe","params":["forever"]}`)
		subscribed(t, p, `{"jsonrpc":"2.0","id":8,"method":"rpc.subscribe","params":["test.news","x"]}`)
		p.T.Kill()
		is.True(<-left != nil)
		synctest.Wait()
		is.NoErr(lab.Vacated(hub))
		is.Equal(hook.Server(srv).Budget, int64(0))
		is.Equal(hook.Server(srv).Plain, 0)
	})
}

// TestSubscribe_ethereum speaks as go-ethereum's server does.
func TestSubscribe_ethereum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		type filter struct {
			Address string `json:"address"`
		}
		mux := typedrpc.NewMux()
		heads, more := typedrpc.NewServerStream[struct{}, int]("eth_newHeads"), make(chan int)
		typedrpc.Handle(mux, heads, func(ctx context.Context, _ struct{}, send func(int) error) error {
			for {
				select {
				case n := <-more:
					send(n)
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		})
		logs := typedrpc.NewServerStream[filter, string]("eth_logs")
		typedrpc.Handle(mux, logs, func(_ context.Context, f filter, send func(string) error) error { return send(f.Address) })
		p, _ := lab.Page(t, &typedrpc.Server{Mux: mux, Subscribes: []string{"eth"}})
		id, _ := subscribed(t, p, `{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["newHeads"]}`)
		more <- 1
		is.Equal(p.Got(), []string{`{"jsonrpc":"2.0","method":"eth_subscription","params":{"subscription":"` + id + `","result":1}}`})
		_, behind := subscribed(t, p, `{"jsonrpc":"2.0","id":2,"method":"eth_subscribe","params":["logs",{"address":"0x7"}]}`)
		is.Equal(string(notices(t, behind)[0].Params.Result), `"0x7"`)
		p.Send(`{"jsonrpc":"2.0","id":3,"method":"rpc.unsubscribe","params":["` + id + `"]}`) // whose it is not
		is.True(strings.Contains(p.Got()[0], "not found"))
		p.Send(`{"jsonrpc":"2.0","id":3,"method":"eth_unsubscribe","params":["` + id + `"]}`)
		is.Equal(p.Got(), []string{`{"jsonrpc":"2.0","id":3,"result":true}`})
		p.Send(`{"jsonrpc":"2.0","id":3,"method":"eth_unsubscribe","params":["` + id + `"]}`)
		is.Equal(p.Got(), []string{`{"jsonrpc":"2.0","id":3,"error":{"code":-32000,"message":"subscription not found"}}`})
		p.Send(`{"jsonrpc":"2.0","id":4,"method":"net_subscribe","params":["newHeads"]}`)
		is.True(strings.Contains(p.Got()[0], `no method \"net_subscribe\"`))
	})
	is := is.New(t)
	for _, bad := range [][]string{{""}, {"eth", "eth"}, {"a b"}, {strings.Repeat("n", 250)}} {
		is.True((&typedrpc.Server{Subscribes: bad}).Check() != nil)
	}
	for _, name := range []string{"eth_subscribe", "eth_unsubscribe"} {
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, typedrpc.NewNotification[int](name), func(context.Context, int) error { return nil })
		err := (&typedrpc.Server{Mux: mux, Subscribes: []string{"eth"}}).Check()
		is.True(err != nil && strings.Contains(err.Error(), name))                          // which of them would answer?
		is.NoErr((&typedrpc.Server{Mux: mux, Subscribes: []string{"net", "ethx"}}).Check()) // others are not meant
	}
}

// TestSubscribe_ownMethod leaves the names to a program that has handlers of them.
func TestSubscribe_ownMethod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, typedrpc.NewMethod[[]string, string]("rpc.subscribe"), func(context.Context, []string) (string, error) { return "own", nil })
		p, _ := lab.Page(t, &typedrpc.Server{Mux: mux})
		p.Send(`{"jsonrpc":"2.0","id":1,"method":"rpc.subscribe","params":["count"]}`)
		is.Equal(p.Got(), []string{`{"jsonrpc":"2.0","id":1,"result":"own"}`})
	})
}

// TestSubscribe_stopsReading is of peers that read no more: what is made for them is
// bounded by the stream's window and the topic's policy.
func TestSubscribe_stopsReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		hub, text := new(topic.Hub), strings.Repeat("x", 1000)
		policies := map[string]topic.Topic[string]{
			"disconnect": topic.New[string]("disconnect", topic.MaxQueued(10_000)),
			"oldest":     topic.New[string]("oldest", topic.MaxQueued(10_000), topic.DropOldest),
			"latest":     topic.New[string]("latest", topic.LatestOnly),
		}
		mux := typedrpc.NewMux()
		for _, x := range policies {
			topic.Handle(mux, hub, x, topic.Everybody)
		}
		for name, x := range policies {
			p, c := lab.Page(t, &typedrpc.Server{Mux: mux, Limits: typedrpc.Limits{WriteTimeout: time.Hour, KeepAlive: time.Hour}})
			subscribed(t, p, `{"jsonrpc":"2.0","id":1,"method":"rpc.subscribe","params":["`+name+`",""]}`)
			resume := p.Stop()
			for i := range 500 {
				is.NoErr(topic.Publish(t.Context(), hub, x, "", fmt.Sprint(i, text)))
			}
			synctest.Wait()
			held := hook.Conn(c)
			is.True(held.Queued <= 65<<10) // the window, and no more
			is.True(held.Account < 120<<10)
			resume()
			all := notices(t, p.Got())
			came, missed, last := 0, 0, all[len(all)-1].Params
			for _, n := range all {
				missed += n.Params.Missed
				if n.Params.Result != nil {
					came++
				}
			}
			if name == "disconnect" {
				is.Equal(last.Error.Code, int(typedrpc.ResourceExhausted))
			} else {
				is.Equal(came+missed, 500) // each came, or is told
				is.True(missed > 0)
				is.True(strings.HasPrefix(string(last.Result), `"499x`))
			}
			p.T.Kill()
		}
		synctest.Wait()
		is.NoErr(lab.Vacated(hub))
	})
}

// TestSubscribe_streamWaits has a stream's handler wait for a peer that reads slowly, and
// the link end that takes nothing.
func TestSubscribe_streamWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		mux, sent := typedrpc.NewMux(), 0
		left := make(chan error, 1)
		flood := typedrpc.NewServerStream[struct{}, string]("flood")
		typedrpc.Handle(mux, flood, func(_ context.Context, _ struct{}, send func(string) error) (err error) {
			defer func() { left <- err }()
			for {
				if err := send(strings.Repeat("x", 1000)); err != nil {
					return err
				}
				sent++
			}
		})
		p, c := lab.Page(t, &typedrpc.Server{Mux: mux})
		resume := p.Stop()
		defer resume()
		p.Send(`{"jsonrpc":"2.0","id":1,"method":"rpc.subscribe","params":["flood"]}`)
		synctest.Wait()
		is.True(sent > 250 && sent < 350) // what the pipe holds, and the window of 64 KiB
		is.True(hook.Conn(c).Queued <= 65<<10)
		is.True(<-left != nil) // Limits.WriteTimeout later
	})
}

// TestSubscribe_from goes on behind the last item that was had, over another connection.
func TestSubscribe_from(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		hub := new(topic.Hub)
		mux := subscribeMux(hub, nil, nil, func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
			if string(r.Payload) == `{"after":7}` {
				return nil, typedrpc.PermissionDenied // whoever it comes from
			}
			r.OnItem(func(item typedrpc.Raw, _ bool) error {
				is.True(!strings.Contains(string(item), "at")) // the item, and no more
				return nil
			})
			return next(ctx, r)
		})
		typedrpc.Handle(mux, pages, func(_ context.Context, p page, send func(int) error) error { return send(p.After + 1) })
		p, _ := lab.Page(t, &typedrpc.Server{Mux: mux})
		ask := func(stream, from string) (all []notice, answer string) {
			p.Send(`{"jsonrpc":"2.0","id":1,"method":"rpc.subscribe","params":{"method":"` + stream + `","params":["x"],"from":` + from + `}}`)
			got := p.Got()
			return notices(t, got[1:]), got[0]
		}
		for i := range 5 {
			is.NoErr(topic.Publish(t.Context(), hub, lab.TopicChat, "x", fmt.Sprint(i)))
		}
		all, _ := ask("test.chat", `""`)
		is.Equal(len(all), 3) // the history
		all, _ = ask("test.chat", `"`+all[1].Params.At+`"`)
		is.Equal(len(all), 1)
		is.Equal(string(all[0].Params.Result), `"4"`)
		is.NoErr(topic.Publish(t.Context(), hub, lab.TopicChat, "x", "5"))
		live := notices(t, p.Got())
		is.Equal(len(live), 2)
		is.Equal(live[0].Params.At, live[1].Params.At)
		for i := 6; i < 12; i++ { // the history has three of them
			is.NoErr(topic.Publish(t.Context(), hub, lab.TopicChat, "x", fmt.Sprint(i)))
		}
		p.Got()
		all, _ = ask("test.chat", `"`+live[0].Params.At+`"`)
		is.Equal(len(all), 3)
		is.Equal(all[0].Params.Missed, 3)
		is.Equal(string(all[0].Params.Result), `"9"`)
		all, _ = ask("test.chat", `"0-1"`)
		is.Equal(all[0].Params.Missed, 1<<53-1) // nobody knows how many

		p.Send(`{"jsonrpc":"2.0","id":1,"method":"rpc.subscribe","params":{"method":"pages","from":""}}`)
		is.Equal(notices(t, p.Got()[1:2])[0].Params.At, `{"after":1}`)
		p.Send(`{"jsonrpc":"2.0","id":1,"method":"rpc.subscribe","params":{"method":"pages","from":"{\"after\":6}"}}`)
		is.Equal(notices(t, p.Got()[1:2])[0].Params.At, `{"after":7}`)
		for from, code := range map[string]string{`{\"after\":7}`: `7`, `x`: `-32602`, `{\"after\":\"\"}`: `-32602`} {
			p.Send(`{"jsonrpc":"2.0","id":1,"method":"rpc.subscribe","params":{"method":"pages","from":"` + from + `"}}`)
			is.True(strings.Contains(p.Got()[0], `"error":{"code":`+code))
		}
		_, answer := ask("count", `"x"`)
		is.True(strings.Contains(answer, "cannot go on from a place"))
	})
}

// TestSubscribe_longFrom has places that nobody was told: a subscription keeps the one that
// it begins with, and there may be a thousand.
func TestSubscribe_longFrom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		p, c := lab.Page(t, &typedrpc.Server{Mux: subscribeMux(new(topic.Hub), nil, nil)})
		ask := func(bytes int) string {
			p.Send(`{"jsonrpc":"2.0","id":1,"method":"rpc.subscribe","params":{"method":"test.news","params":"x","from":"` + strings.Repeat("x", bytes) + `"}}`)
			return p.Got()[0]
		}
		is.True(strings.Contains(ask(1025), `"error":{"code":-32602`))
		is.Equal(hook.Conn(c).Inbound, 0)
		takes := func(bytes int) int64 {
			before := hook.Conn(c).Account
			is.True(strings.Contains(ask(bytes), `"result"`))
			return int64(hook.Conn(c).Account - before)
		}
		takes(0) // the room is there
		is.Equal(takes(1024)-takes(0), int64(1024))
	})
}

// TestSubscribe_post is refused: there is nobody to be sent items.
func TestSubscribe_post(t *testing.T) {
	is := is.New(t)
	url := serve(t, &typedrpc.Server{Mux: subscribeMux(new(topic.Hub), nil, nil)})
	status, text := post(t, url, `{"jsonrpc":"2.0","id":1,"method":"rpc.subscribe","params":["count",{"to":1}]}`)
	is.Equal(status, 200)
	is.True(strings.Contains(text, "over HTTP POST nobody is there"))
}
