package e2e_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

var topicDialects = []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text}

func TestTopic_publishSubscribe(t *testing.T) {
	for _, d := range topicDialects {
		t.Run(fmt.Sprint(d), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				ctx := t.Context()
				hub := new(topic.Hub)
				srv := lab.TopicServer(func(m *typedrpc.Mux) { topic.Handle(m, hub, lab.TopicNews, topic.Everybody) })
				a, b := lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{Dialect: d}), lab.TopicDial(t, srv, "bob", typedrpc.DialOptions{Dialect: d})
				one, two := lab.SubscribeTo(ctx, a, lab.TopicNews, "x", nil), lab.SubscribeTo(ctx, b, lab.TopicNews, "x", nil)
				other := lab.SubscribeTo(ctx, b, lab.TopicNews, "", nil)
				synctest.Wait()
				for i := range 100 {
					is.NoErr(topic.Publish(ctx, hub, lab.TopicNews, "x", fmt.Sprint(i)))
				}
				is.NoErr(topic.Publish(ctx, hub, lab.TopicNews, "", "alone"))
				is.NoErr(topic.Publish(ctx, hub, lab.TopicNews, "nobody", "?"))
				for _, e := range []*lab.Events[topic.Event[string]]{one, two} {
					got := e.Take()
					is.Equal(len(got), 100)
					for i, v := range got {
						is.Equal(v, topic.Event[string]{Value: fmt.Sprint(i)})
					}
				}
				is.Equal(other.Take(), []topic.Event[string]{{Value: "alone"}})
				is.Equal(typedrpc.CodeOf(one.Leave()), typedrpc.Canceled)
				two.Leave()
				a.Close()
				b.Close()
				<-other.Done
				is.Equal(typedrpc.CodeOf(other.Err), typedrpc.Unavailable)
				synctest.Wait()
				is.NoErr(lab.Vacated(hub))
				is.NoErr(hub.Close())
			})
		})
	}
}

// TestTopic_leave leaves the loop in every way.
func TestTopic_leave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		hub := new(topic.Hub)
		srv := lab.TopicServer(func(m *typedrpc.Mux) { topic.Handle(m, hub, lab.TopicNews, topic.Everybody) })
		c := lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{})
		for _, how := range []string{"break", "panic", "return", "context", "deadline"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			left := make(chan error, 1)
			go func() {
				defer func() {
					recover()
					left <- nil
				}()
				for _, err := range topic.Subscribe(ctx, c, lab.TopicNews, "x") {
					switch {
					case err != nil:
						left <- err
						return
					case how == "panic":
						panic("left")
					case how == "return":
						return
					case how == "break":
					default:
						continue
					}
					break
				}
			}()
			synctest.Wait()
			is.NoErr(topic.Publish(ctx, hub, lab.TopicNews, "x", "first"))
			synctest.Wait()
			if how == "context" {
				cancel()
			}
			switch err := <-left; how {
			case "context":
				is.Equal(typedrpc.CodeOf(err), typedrpc.Canceled)
			case "deadline":
				is.Equal(typedrpc.CodeOf(err), typedrpc.DeadlineExceeded)
			default:
				is.NoErr(err)
			}
			cancel()
			synctest.Wait()
			is.NoErr(lab.Vacated(hub))
		}
	})
}

func TestTopic_allow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		hub := new(topic.Hub)
		srv := lab.TopicServer(func(m *typedrpc.Mux) {
			topic.Handle(m, hub, lab.TopicNews, func(ctx context.Context, a topic.Access) error {
				key := a.Key
				switch key {
				case "panic":
					panic("boom")
				case typedrpc.ConnFrom(ctx).Identity().Subject:
					return nil
				}
				return typedrpc.Errorf(typedrpc.PermissionDenied, "%q is not yours", key)
			})
		})
		c := lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{})
		for key, want := range map[string]typedrpc.Code{
			"bob": typedrpc.PermissionDenied, "panic": typedrpc.Internal, strings.Repeat("k", 256): typedrpc.InvalidArgument,
		} {
			e := lab.SubscribeTo(ctx, c, lab.TopicNews, key, nil)
			<-e.Done
			is.Equal(typedrpc.CodeOf(e.Err), want)
			p := lab.PresenceOf(ctx, c, lab.TopicNews, key)
			<-p.Done
			is.Equal(typedrpc.CodeOf(p.Err), want)
		}
		is.Equal(typedrpc.CodeOf(topic.Publish(ctx, hub, lab.TopicNews, "\xff", "")), typedrpc.InvalidArgument)
		is.NoErr(topic.Publish(ctx, hub, lab.TopicNews, strings.Repeat("k", 255), ""))
		e := lab.SubscribeTo(ctx, c, lab.TopicNews, "ann", nil)
		synctest.Wait()
		is.NoErr(topic.Publish(ctx, hub, lab.TopicNews, "ann", "hello"))
		is.Equal(len(e.Take()), 1)
		is.Equal(typedrpc.CodeOf(topic.Publish(ctx, hub, lab.TopicNews, strings.Repeat("k", 256), "")), typedrpc.InvalidArgument)
		e.Leave()
		synctest.Wait()
		is.NoErr(lab.Vacated(hub))
	})
}

func TestTopic_history(t *testing.T) {
	recent := topic.New[string]("test.recent", topic.History(0, time.Minute))
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		hub := &topic.Hub{MaxIdleKeys: 2, MaxKeyHistory: 1000}
		srv := lab.TopicServer(func(m *typedrpc.Mux) {
			topic.Handle(m, hub, lab.TopicChat, topic.Everybody)
			topic.Handle(m, hub, recent, topic.Everybody)
		})
		c := lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{})
		values := func(es []topic.Event[string]) (all string) {
			for _, e := range es {
				all += e.Value
				if e.History {
					all += "!"
				}
				if e.Missed != 0 {
					all += fmt.Sprint(e.Missed)
				}
			}
			return all
		}
		for _, v := range []string{"a", "b", "c", "d"} {
			is.NoErr(topic.Publish(ctx, hub, lab.TopicChat, "x", v))
		}
		e := lab.SubscribeTo(ctx, c, lab.TopicChat, "x", nil)
		is.Equal(values(e.Take()), "b!c!d!")
		is.NoErr(topic.Publish(ctx, hub, lab.TopicChat, "x", "e"))
		is.Equal(values(e.Take()), "e")
		e.Leave()
		synctest.Wait()

		// After a loss by the broker it is told where.
		hook.Deliver(hub, "test.chat", "x", nil)
		e = lab.SubscribeTo(ctx, c, lab.TopicChat, "x", nil)
		is.Equal(values(e.Take()), "c!d!e!")
		is.NoErr(topic.Publish(ctx, hub, lab.TopicChat, "x", "f"))
		is.Equal(values(e.Take()), "f-1")
		e.Leave()
		e = lab.SubscribeTo(ctx, c, lab.TopicChat, "x", nil)
		is.Equal(values(e.Take()), "d!e!f!-1")
		e.Leave()
		synctest.Wait()

		// The key that was not used for longest goes.
		is.NoErr(topic.Publish(ctx, hub, lab.TopicChat, "y", "y"))
		is.NoErr(topic.Publish(ctx, hub, lab.TopicChat, "x", "g"))
		is.NoErr(topic.Publish(ctx, hub, lab.TopicChat, "z", "z"))
		is.Equal(hook.Hub(hub).Rooms, 2)
		for key, want := range map[string]string{"x": "e!f!-1g!", "z": "z!"} {
			e = lab.SubscribeTo(ctx, c, lab.TopicChat, key, nil)
			is.Equal(values(e.Take()), want)
			e.Leave()
			synctest.Wait()
		}
		is.NoErr(lab.Vacated(hub))

		// By age, and by bytes.
		is.NoErr(topic.Publish(ctx, hub, recent, "x", "old"))
		time.Sleep(40 * time.Second)
		is.NoErr(topic.Publish(ctx, hub, recent, "x", "new"))
		time.Sleep(30 * time.Second)
		e = lab.SubscribeTo(ctx, c, recent, "x", nil)
		is.Equal(values(e.Take()), "new!")
		time.Sleep(40 * time.Second)
		for range 10 {
			is.NoErr(topic.Publish(ctx, hub, recent, "x", strings.Repeat("v", 200)))
		}
		is.Equal(len(e.Take()), 10)
		e.Leave()
		e = lab.SubscribeTo(ctx, c, recent, "x", nil)
		is.Equal(len(e.Take()), 3) // of 266 bytes each
		e.Leave()
		time.Sleep(time.Minute)
		e = lab.SubscribeTo(ctx, c, recent, "x", nil)
		is.Equal(len(e.Take()), 0)
		e.Leave()
		is.NoErr(hub.Close())
		synctest.Wait()
		is.Equal(hook.Hub(hub).Rooms, 0)
	})
}

// TestTopic_historyWhilePublishing subscribes again and again while others
// publish: from the first message on none is missing and none is there twice.
func TestTopic_historyWhilePublishing(t *testing.T) {
	tally := topic.New[int]("test.tally", topic.History(50, 0), topic.WaitAtMost(time.Minute))
	is := is.New(t)
	ctx := t.Context()
	hub := new(topic.Hub)
	srv := lab.TopicServer(func(m *typedrpc.Mux) { topic.Handle(m, hub, tally, topic.Everybody) })
	c := lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{})
	stop := make(chan struct{})
	published := make(chan error, 1)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				published <- nil
				return
			default:
			}
			if err := topic.Publish(ctx, hub, tally, "x", n); err != nil {
				published <- err
				return
			}
		}
	}()
	for range 30 {
		got, live, next := 0, 0, -1
		for e, err := range topic.Subscribe(ctx, c, tally, "x") {
			is.NoErr(err)
			if next < 0 {
				next = e.Value
			}
			is.Equal(e.Value, next) // no gap, no repetition
			is.Equal(e.Missed, 0)
			is.True(!e.History || live == 0)
			if !e.History {
				live++
			}
			next++
			if got++; got == 300 {
				break
			}
		}
		is.Equal(got, 300)
		is.True(live > 0)
	}
	close(stop)
	is.NoErr(<-published)
	is.NoErr(hub.Close())
}

// countingCodec counts what it encodes and decodes.
type countingCodec struct {
	typedrpc.Codec
	name         string
	encoded, dec *atomic.Int64
}

func (c countingCodec) Name() string { return c.name }

func (c countingCodec) Append(dst []byte, v any) ([]byte, error) {
	if _, ok := v.(*tally); ok {
		c.encoded.Add(1)
	}
	return c.Codec.Append(dst, v)
}

func (c countingCodec) Decode(data []byte, v any) error {
	if _, ok := v.(*tally); ok {
		c.dec.Add(1)
	}
	return c.Codec.Decode(data, v)
}

type tally struct{ N int }

func TestTopic_encodedOnce(t *testing.T) {
	tp := topic.New[tally]("test.once", topic.History(10, 0))
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		var hubs, others, decoded, n atomic.Int64
		mine := countingCodec{typedrpc.JSON, "mine", &hubs, &decoded}
		other := countingCodec{typedrpc.JSON, "other", &others, &n}
		hub := &topic.Hub{Codec: mine}
		srv := lab.TopicServer(func(m *typedrpc.Mux) { topic.Handle(m, hub, tp, topic.Everybody) }, mine, other, typedrpc.JSON)
		var all []*lab.Events[topic.Event[tally]]
		for _, o := range []typedrpc.DialOptions{
			{Codecs: []typedrpc.Codec{mine}}, {Codecs: []typedrpc.Codec{mine}}, {Codecs: []typedrpc.Codec{other}}, {Codecs: []typedrpc.Codec{other}},
			{Codecs: []typedrpc.Codec{typedrpc.JSON}}, {Dialect: typedrpc.Text}, {Dialect: typedrpc.Text},
		} {
			o.Limits.KeepAlive = time.Hour
			c := lab.TopicDial(t, srv, "ann", o)
			for range 5 {
				all = append(all, lab.SubscribeTo(ctx, c, tp, "x", nil))
			}
		}
		synctest.Wait()
		for i := range 3 {
			is.NoErr(topic.Publish(ctx, hub, tp, "x", tally{i}))
		}
		for _, e := range all {
			is.Equal(e.Take(), []topic.Event[tally]{{Value: tally{0}}, {Value: tally{1}}, {Value: tally{2}}})
		}
		is.Equal(hubs.Load(), int64(3))
		is.Equal(others.Load(), int64(3))
		is.Equal(decoded.Load(), int64(3*10+3*2)) // by ten subscribers, and for two other codecs
		late := lab.SubscribeTo(ctx, lab.TopicDial(t, srv, "bob", typedrpc.DialOptions{Codecs: []typedrpc.Codec{other}}), tp, "x", nil)
		is.Equal(len(late.Take()), 3)
		is.Equal(others.Load(), int64(3)) // the history too
		is.NoErr(hub.Close())
	})
}

// TestTopic_unfit publishes what some subscribers cannot be given.
func TestTopic_unfit(t *testing.T) {
	raw := topic.New[typedrpc.Raw]("test.raw")
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		hub := new(topic.Hub)
		srv := lab.TopicServer(func(m *typedrpc.Mux) { topic.Handle(m, hub, raw, topic.Everybody) })
		big := lab.SubscribeTo(ctx, lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{}), raw, "x", nil)
		small := lab.SubscribeTo(ctx, lab.TopicDial(t, srv, "bob", typedrpc.DialOptions{Limits: typedrpc.Limits{MaxMessage: 100}}), raw, "x", nil)
		flat := lab.SubscribeTo(ctx, lab.TopicDial(t, srv, "cat", typedrpc.DialOptions{Dialect: typedrpc.Text, Limits: typedrpc.Limits{MaxDepth: 5}}), raw, "x", nil)
		synctest.Wait()
		for _, v := range []string{`"` + strings.Repeat("v", 100) + `"`, `[[[[[[1]]]]]]`, `1`} {
			is.NoErr(topic.Publish(ctx, hub, raw, "x", typedrpc.Raw(v)))
		}
		is.Equal(typedrpc.CodeOf(topic.Publish(ctx, hub, raw, "x", typedrpc.Raw("{"))), typedrpc.InvalidArgument)
		is.Equal(len(big.Take()), 3)
		got := small.Take()
		is.Equal(len(got), 2)
		is.Equal(got[0].Missed, 1)
		got = flat.Take()
		is.Equal(len(got), 2)
		is.Equal(got[1], topic.Event[typedrpc.Raw]{Value: typedrpc.Raw("1"), Missed: 1})
		is.NoErr(hub.Close())
	})
}

// TestTopic_undecodable has the broker bring what is no message: subscribers of
// the hub's codec may make of it what they can, others miss it, and the log
// tells, here into the topic itself.
func TestTopic_undecodable(t *testing.T) {
	tp := topic.New[tally]("test.undecodable")
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		var n atomic.Int64
		other := countingCodec{typedrpc.JSON, "other", &n, &n}
		hub := new(topic.Hub)
		srv := lab.TopicServer(func(m *typedrpc.Mux) { topic.Handle(m, hub, tp, topic.Everybody) }, other)
		srv.Logger = slog.New(publishingLog{slog.DiscardHandler, func() error {
			return topic.Publish(ctx, hub, tp, "x", tally{1})
		}})
		e := lab.SubscribeTo(ctx, lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{Codecs: []typedrpc.Codec{other}}), tp, "x", nil)
		synctest.Wait()
		hook.Deliver(hub, "test.undecodable", "x", []byte("junk"))
		is.Equal(e.Take(), []topic.Event[tally]{{Value: tally{1}, Missed: 1}})
		is.NoErr(hub.Close())
	})
}

type publishingLog struct {
	slog.Handler
	publish func() error
}

func (l publishingLog) Enabled(context.Context, slog.Level) bool { return true }

func (l publishingLog) Handle(_ context.Context, r slog.Record) error { return l.publish() }

func TestTopic_hooksSeeItems(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		hub := new(topic.Hub)
		var seen []string
		mux := typedrpc.NewMux(func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
			r.OnItem(func(item typedrpc.Raw, sent bool) error {
				if string(item) == `"stop"` {
					return typedrpc.Errorf(typedrpc.Aborted, "stopped")
				}
				seen = append(seen, string(item))
				return nil
			})
			return next(ctx, r)
		})
		topic.Handle(mux, hub, lab.TopicNews, topic.Everybody)
		c, _, err := typedrpctest.Dial(&typedrpc.Server{Mux: mux}, nil)
		is.NoErr(err)
		defer c.Close()
		e := lab.SubscribeTo(ctx, c, lab.TopicNews, "x", nil)
		synctest.Wait()
		for _, v := range []string{"a", "b", "stop", "c"} {
			is.NoErr(topic.Publish(ctx, hub, lab.TopicNews, "x", v))
		}
		<-e.Done
		is.Equal(len(e.Got), 2)
		is.Equal(seen, []string{`"a"`, `"b"`})
		is.Equal(typedrpc.CodeOf(e.Err), typedrpc.Aborted)
		synctest.Wait()
		is.NoErr(lab.Vacated(hub))
	})
}

func TestTopic_close(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		hub := new(topic.Hub)
		srv := lab.TopicServer(func(m *typedrpc.Mux) { topic.Handle(m, hub, lab.TopicChat, topic.Everybody) })
		c := lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{})
		e, p := lab.SubscribeTo(ctx, c, lab.TopicChat, "x", nil), lab.PresenceOf(ctx, c, lab.TopicChat, "x")
		synctest.Wait()
		is.NoErr(topic.Publish(ctx, hub, lab.TopicChat, "x", "last"))
		is.NoErr(topic.Publish(ctx, hub, lab.TopicChat, "idle", "last"))
		is.NoErr(hub.Close())
		is.NoErr(hub.Close())
		<-e.Done
		<-p.Done
		is.Equal(len(e.Got), 1) // what was published before still comes
		is.Equal(typedrpc.CodeOf(e.Err), typedrpc.Unavailable)
		is.Equal(typedrpc.CodeOf(p.Err), typedrpc.Unavailable)
		is.Equal(typedrpc.CodeOf(topic.Publish(ctx, hub, lab.TopicChat, "x", "no")), typedrpc.Unavailable)
		e = lab.SubscribeTo(ctx, c, lab.TopicChat, "x", nil)
		<-e.Done
		is.Equal(typedrpc.CodeOf(e.Err), typedrpc.Unavailable)
		synctest.Wait()
		is.Equal(hook.Hub(hub).Rooms, 0)
		is.Equal(len(hook.Hub(hub).Accounts), 0)
	})
}

func TestTopic_declarations(t *testing.T) {
	hub := new(topic.Hub)
	for name, declare := range map[string]func(){
		"history without bounds": func() { topic.New[int]("m", topic.History(0, 0)) },
		"negative history":       func() { topic.New[int]("m", topic.History(-1, 0)) },
		"two histories":          func() { topic.New[int]("m", topic.History(1, 0), topic.History(0, time.Second)) },
		"bytes":                  func() { topic.New[typedrpc.Bytes]("m") },
		"no wait":                func() { topic.New[int]("m", topic.WaitAtMost(0)) },
		"no bytes":               func() { topic.New[int]("m", topic.DropNewest, topic.MaxQueued(0)) },
		"two bounds":             func() { topic.New[int]("m", topic.MaxQueued(1), topic.MaxQueued(2)) },
		"a bound for one":        func() { topic.New[int]("m", topic.MaxQueued(1), topic.LatestOnly) },
		"two policies":           func() { topic.New[int]("m", topic.Disconnect, topic.DropOldest) },
		"a policy and a wait":    func() { topic.New[int]("m", topic.WaitAtMost(1), topic.LatestOnly) },
		"no policy":              func() { topic.New[int]("m", topic.LatestOnly+1) },
		"nil trait":              func() { topic.New[int]("m", nil) },
		"strange trait":          func() { topic.New[int]("m", strangeTrait{}) },
		"params":                 func() { topic.New[int]("m", typedrpc.Params("key")) },
		"long name":              func() { topic.New[int](strings.Repeat("m", 247)) },
		"no mux":                 func() { topic.Handle(nil, hub, lab.TopicNews, topic.Everybody) },
		"no hub":                 func() { topic.Handle(typedrpc.NewMux(), nil, lab.TopicNews, topic.Everybody) },
		"no topic":               func() { topic.Handle(typedrpc.NewMux(), hub, topic.Topic[int]{}, topic.Everybody) },
		"codec":                  func() { topic.Handle(typedrpc.NewMux(), hub, topic.New[chan int]("m"), topic.Everybody) },
		"hub's fields":           func() { topic.Handle(typedrpc.NewMux(), &topic.Hub{MaxIdleKeys: -1}, lab.TopicNews, topic.Everybody) },
		"twice": func() {
			m := typedrpc.NewMux()
			topic.Handle(m, hub, lab.TopicNews, topic.Everybody)
			topic.Handle(m, hub, lab.TopicNews, topic.Everybody)
		},
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			defer func() {
				text, ok := recover().(string)
				is.True(ok && strings.HasPrefix(text, "typedrpc: ")) // a sentence
			}()
			declare()
		})
	}
}

// strangeTrait says that it is a trait, and is none.
type strangeTrait struct{}

func (strangeTrait) RequestTrait() {}

// Traits of the root hold for topics.
func TestTopic_traitsOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		small := topic.New[*tally]("test.small", typedrpc.MaxSize(20), typedrpc.Alloc[tally](), topic.DropOldest)
		hub := new(topic.Hub)
		defer hub.Close()
		srv := lab.TopicServer(func(m *typedrpc.Mux) { topic.Handle(m, hub, small, topic.Everybody) })
		e := lab.SubscribeTo(t.Context(), lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{}), small, "x", nil)
		synctest.Wait()
		is.NoErr(topic.Publish(t.Context(), hub, small, "x", &tally{7}))
		is.Equal(e.Take()[0].Value.N, 7)
		is.True(topic.Publish(t.Context(), hub, small, "x", nil) != nil) // which Alloc makes an error
		is.Equal(typedrpc.CodeOf(topic.Publish(t.Context(), hub, small, "x", &tally{1 << 60})), typedrpc.ResourceExhausted)
	})
}

// Zero values and nil are errors, and no panics.
func TestTopic_zeroValues(t *testing.T) {
	is := is.New(t)
	ctx := t.Context()
	bad := &topic.Hub{MaxHistory: -1}
	last := func(seq func(func(topic.Event[string], error) bool)) (err error) {
		for _, err = range seq {
		}
		return err
	}
	for want, hub := range map[typedrpc.Code]*topic.Hub{typedrpc.InvalidArgument: nil, typedrpc.FailedPrecondition: bad} {
		is.Equal(typedrpc.CodeOf(topic.Publish(ctx, hub, lab.TopicNews, "x", "")), want)
		is.Equal(typedrpc.CodeOf(last(topic.Listen(ctx, hub, lab.TopicNews, "x"))), want)
		_, err := topic.Members(hub, lab.TopicNews, "x")
		is.Equal(typedrpc.CodeOf(err), want)
		_, err = topic.Remove(hub, lab.TopicNews, "x", "ann", nil)
		is.Equal(typedrpc.CodeOf(err), want)
		is.Equal(typedrpc.CodeOf(hub.Close()), want)
	}
	var hub topic.Hub
	var none topic.Topic[string]
	is.Equal(none.Name(), "")
	is.Equal(typedrpc.CodeOf(topic.Publish(ctx, &hub, none, "x", "")), typedrpc.InvalidArgument)
	is.Equal(typedrpc.CodeOf(last(topic.Listen(ctx, &hub, none, "x"))), typedrpc.InvalidArgument)
	is.Equal(typedrpc.CodeOf(last(topic.Subscribe(ctx, nil, none, "x"))), typedrpc.InvalidArgument)
	is.Equal(typedrpc.CodeOf(last(topic.Subscribe(ctx, nil, lab.TopicNews, "x"))), typedrpc.InvalidArgument)
	for _, err := range topic.Watch(ctx, nil, none, "x") {
		is.Equal(typedrpc.CodeOf(err), typedrpc.InvalidArgument)
	}
	is.NoErr(hub.Close()) // one that was never used
	is.Equal(typedrpc.CodeOf(topic.Publish(ctx, &hub, lab.TopicNews, "x", "")), typedrpc.Unavailable)
}
