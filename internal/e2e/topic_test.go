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
	"github.com/typedrpc/typedrpc/typedrpctest"
)

var topicDialects = []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text}

func TestTopic_publishSubscribe(t *testing.T) {
	for _, d := range topicDialects {
		t.Run(fmt.Sprint(d), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				ctx := t.Context()
				hub := typedrpc.NewHub(nil)
				srv := lab.TopicServer(func(m *typedrpc.Mux) { typedrpc.HandleTopic(m, hub, lab.TopicNews, nil) })
				a, b := lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{Dialect: d}), lab.TopicDial(t, srv, "bob", typedrpc.DialOptions{Dialect: d})
				one, two := lab.SubscribeTo(ctx, a, lab.TopicNews, "x", nil), lab.SubscribeTo(ctx, b, lab.TopicNews, "x", nil)
				other := lab.SubscribeTo(ctx, b, lab.TopicNews, "", nil)
				synctest.Wait()
				for i := range 100 {
					is.NoErr(typedrpc.Publish(ctx, hub, lab.TopicNews, "x", fmt.Sprint(i)))
				}
				is.NoErr(typedrpc.Publish(ctx, hub, lab.TopicNews, "", "alone"))
				is.NoErr(typedrpc.Publish(ctx, hub, lab.TopicNews, "nobody", "?"))
				for _, e := range []*lab.Events[typedrpc.Event[string]]{one, two} {
					got := e.Take()
					is.Equal(len(got), 100)
					for i, v := range got {
						is.Equal(v, typedrpc.Event[string]{Value: fmt.Sprint(i)})
					}
				}
				is.Equal(other.Take(), []typedrpc.Event[string]{{Value: "alone"}})
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
		hub := typedrpc.NewHub(nil)
		srv := lab.TopicServer(func(m *typedrpc.Mux) { typedrpc.HandleTopic(m, hub, lab.TopicNews, nil) })
		c := lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{})
		for _, how := range []string{"break", "panic", "return", "context", "deadline"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			left := make(chan error, 1)
			go func() {
				defer func() {
					recover()
					left <- nil
				}()
				for _, err := range typedrpc.Subscribe(ctx, c, lab.TopicNews, "x") {
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
			is.NoErr(typedrpc.Publish(ctx, hub, lab.TopicNews, "x", "first"))
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
		hub := typedrpc.NewHub(nil)
		srv := lab.TopicServer(func(m *typedrpc.Mux) {
			typedrpc.HandleTopic(m, hub, lab.TopicNews, func(ctx context.Context, key string) error {
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
		is.Equal(typedrpc.CodeOf(typedrpc.Publish(ctx, hub, lab.TopicNews, "\xff", "")), typedrpc.InvalidArgument)
		is.NoErr(typedrpc.Publish(ctx, hub, lab.TopicNews, strings.Repeat("k", 255), ""))
		e := lab.SubscribeTo(ctx, c, lab.TopicNews, "ann", nil)
		synctest.Wait()
		is.NoErr(typedrpc.Publish(ctx, hub, lab.TopicNews, "ann", "hello"))
		is.Equal(len(e.Take()), 1)
		is.Equal(typedrpc.CodeOf(typedrpc.Publish(ctx, hub, lab.TopicNews, strings.Repeat("k", 256), "")), typedrpc.InvalidArgument)
		e.Leave()
		synctest.Wait()
		is.NoErr(lab.Vacated(hub))
	})
}

func TestTopic_history(t *testing.T) {
	recent := typedrpc.NewTopic[string]("test.recent", typedrpc.History(0, time.Minute))
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		hub := typedrpc.NewHub(&typedrpc.HubOptions{IdleKeys: 2, HistoryBytes: 1000})
		srv := lab.TopicServer(func(m *typedrpc.Mux) {
			typedrpc.HandleTopic(m, hub, lab.TopicChat, nil)
			typedrpc.HandleTopic(m, hub, recent, nil)
		})
		c := lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{})
		values := func(es []typedrpc.Event[string]) (all string) {
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
			is.NoErr(typedrpc.Publish(ctx, hub, lab.TopicChat, "x", v))
		}
		e := lab.SubscribeTo(ctx, c, lab.TopicChat, "x", nil)
		is.Equal(values(e.Take()), "b!c!d!")
		is.NoErr(typedrpc.Publish(ctx, hub, lab.TopicChat, "x", "e"))
		is.Equal(values(e.Take()), "e")
		e.Leave()
		synctest.Wait()

		// After a loss by the broker it is told where.
		hook.Deliver(hub, "test.chat", "x", nil)
		e = lab.SubscribeTo(ctx, c, lab.TopicChat, "x", nil)
		is.Equal(values(e.Take()), "c!d!e!")
		is.NoErr(typedrpc.Publish(ctx, hub, lab.TopicChat, "x", "f"))
		is.Equal(values(e.Take()), "f-1")
		e.Leave()
		e = lab.SubscribeTo(ctx, c, lab.TopicChat, "x", nil)
		is.Equal(values(e.Take()), "d!e!f!-1")
		e.Leave()
		synctest.Wait()

		// The key that was not used for longest goes.
		is.NoErr(typedrpc.Publish(ctx, hub, lab.TopicChat, "y", "y"))
		is.NoErr(typedrpc.Publish(ctx, hub, lab.TopicChat, "x", "g"))
		is.NoErr(typedrpc.Publish(ctx, hub, lab.TopicChat, "z", "z"))
		is.Equal(hook.Hub(hub).Rooms, 2)
		for key, want := range map[string]string{"x": "e!f!-1g!", "z": "z!"} {
			e = lab.SubscribeTo(ctx, c, lab.TopicChat, key, nil)
			is.Equal(values(e.Take()), want)
			e.Leave()
			synctest.Wait()
		}
		is.NoErr(lab.Vacated(hub))

		// By age, and by bytes.
		is.NoErr(typedrpc.Publish(ctx, hub, recent, "x", "old"))
		time.Sleep(40 * time.Second)
		is.NoErr(typedrpc.Publish(ctx, hub, recent, "x", "new"))
		time.Sleep(30 * time.Second)
		e = lab.SubscribeTo(ctx, c, recent, "x", nil)
		is.Equal(values(e.Take()), "new!")
		time.Sleep(40 * time.Second)
		for range 10 {
			is.NoErr(typedrpc.Publish(ctx, hub, recent, "x", strings.Repeat("v", 200)))
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
	tally := typedrpc.NewTopic[int]("test.tally", typedrpc.History(50, 0), typedrpc.Slow(typedrpc.WaitAtMost(time.Minute)))
	is := is.New(t)
	ctx := t.Context()
	hub := typedrpc.NewHub(nil)
	srv := lab.TopicServer(func(m *typedrpc.Mux) { typedrpc.HandleTopic(m, hub, tally, nil) })
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
			if err := typedrpc.Publish(ctx, hub, tally, "x", n); err != nil {
				published <- err
				return
			}
		}
	}()
	for range 30 {
		got, live, next := 0, 0, -1
		for e, err := range typedrpc.Subscribe(ctx, c, tally, "x") {
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
	topic := typedrpc.NewTopic[tally]("test.once", typedrpc.History(10, 0))
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		var hubs, others, decoded, n atomic.Int64
		mine := countingCodec{typedrpc.JSON, "mine", &hubs, &decoded}
		other := countingCodec{typedrpc.JSON, "other", &others, &n}
		hub := typedrpc.NewHub(&typedrpc.HubOptions{Codec: mine})
		srv := lab.TopicServer(func(m *typedrpc.Mux) { typedrpc.HandleTopic(m, hub, topic, nil) }, mine, other, typedrpc.JSON)
		var all []*lab.Events[typedrpc.Event[tally]]
		for _, o := range []typedrpc.DialOptions{
			{Codecs: []typedrpc.Codec{mine}}, {Codecs: []typedrpc.Codec{mine}}, {Codecs: []typedrpc.Codec{other}}, {Codecs: []typedrpc.Codec{other}},
			{Codecs: []typedrpc.Codec{typedrpc.JSON}}, {Dialect: typedrpc.Text}, {Dialect: typedrpc.Text},
		} {
			o.Limits.KeepAlive = time.Hour
			c := lab.TopicDial(t, srv, "ann", o)
			for range 5 {
				all = append(all, lab.SubscribeTo(ctx, c, topic, "x", nil))
			}
		}
		synctest.Wait()
		for i := range 3 {
			is.NoErr(typedrpc.Publish(ctx, hub, topic, "x", tally{i}))
		}
		for _, e := range all {
			is.Equal(e.Take(), []typedrpc.Event[tally]{{Value: tally{0}}, {Value: tally{1}}, {Value: tally{2}}})
		}
		is.Equal(hubs.Load(), int64(3))
		is.Equal(others.Load(), int64(3))
		is.Equal(decoded.Load(), int64(3*10+3*2)) // by ten subscribers, and for two other codecs
		late := lab.SubscribeTo(ctx, lab.TopicDial(t, srv, "bob", typedrpc.DialOptions{Codecs: []typedrpc.Codec{other}}), topic, "x", nil)
		is.Equal(len(late.Take()), 3)
		is.Equal(others.Load(), int64(3)) // the history too
		is.NoErr(hub.Close())
	})
}

// TestTopic_unfit publishes what some subscribers cannot be given.
func TestTopic_unfit(t *testing.T) {
	raw := typedrpc.NewTopic[typedrpc.Raw]("test.raw")
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		hub := typedrpc.NewHub(nil)
		srv := lab.TopicServer(func(m *typedrpc.Mux) { typedrpc.HandleTopic(m, hub, raw, nil) })
		big := lab.SubscribeTo(ctx, lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{}), raw, "x", nil)
		small := lab.SubscribeTo(ctx, lab.TopicDial(t, srv, "bob", typedrpc.DialOptions{Limits: typedrpc.Limits{MaxMessage: 100}}), raw, "x", nil)
		flat := lab.SubscribeTo(ctx, lab.TopicDial(t, srv, "cat", typedrpc.DialOptions{Dialect: typedrpc.Text, Limits: typedrpc.Limits{MaxDepth: 5}}), raw, "x", nil)
		synctest.Wait()
		for _, v := range []string{`"` + strings.Repeat("v", 100) + `"`, `[[[[[[1]]]]]]`, `1`} {
			is.NoErr(typedrpc.Publish(ctx, hub, raw, "x", typedrpc.Raw(v)))
		}
		is.Equal(typedrpc.CodeOf(typedrpc.Publish(ctx, hub, raw, "x", typedrpc.Raw("{"))), typedrpc.InvalidArgument)
		is.Equal(len(big.Take()), 3)
		got := small.Take()
		is.Equal(len(got), 2)
		is.Equal(got[0].Missed, 1)
		got = flat.Take()
		is.Equal(len(got), 2)
		is.Equal(got[1], typedrpc.Event[typedrpc.Raw]{Value: typedrpc.Raw("1"), Missed: 1})
		is.NoErr(hub.Close())
	})
}

// TestTopic_undecodable has the broker bring what is no message: subscribers of
// the hub's codec may make of it what they can, others miss it, and the log
// tells, here into the topic itself.
func TestTopic_undecodable(t *testing.T) {
	topic := typedrpc.NewTopic[tally]("test.undecodable")
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		var n atomic.Int64
		other := countingCodec{typedrpc.JSON, "other", &n, &n}
		hub := typedrpc.NewHub(nil)
		srv := lab.TopicServer(func(m *typedrpc.Mux) { typedrpc.HandleTopic(m, hub, topic, nil) }, other)
		srv.Logger = slog.New(publishingLog{slog.DiscardHandler, func() error {
			return typedrpc.Publish(ctx, hub, topic, "x", tally{1})
		}})
		e := lab.SubscribeTo(ctx, lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{Codecs: []typedrpc.Codec{other}}), topic, "x", nil)
		synctest.Wait()
		hook.Deliver(hub, "test.undecodable", "x", []byte("junk"))
		is.Equal(e.Take(), []typedrpc.Event[tally]{{Value: tally{1}, Missed: 1}})
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
		hub := typedrpc.NewHub(nil)
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
		typedrpc.HandleTopic(mux, hub, lab.TopicNews, nil)
		c, _, err := typedrpctest.Dial(&typedrpc.Server{Mux: mux}, nil)
		is.NoErr(err)
		defer c.Close()
		e := lab.SubscribeTo(ctx, c, lab.TopicNews, "x", nil)
		synctest.Wait()
		for _, v := range []string{"a", "b", "stop", "c"} {
			is.NoErr(typedrpc.Publish(ctx, hub, lab.TopicNews, "x", v))
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
		hub := typedrpc.NewHub(nil)
		srv := lab.TopicServer(func(m *typedrpc.Mux) { typedrpc.HandleTopic(m, hub, lab.TopicChat, nil) })
		c := lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{})
		e, p := lab.SubscribeTo(ctx, c, lab.TopicChat, "x", nil), lab.PresenceOf(ctx, c, lab.TopicChat, "x")
		synctest.Wait()
		is.NoErr(typedrpc.Publish(ctx, hub, lab.TopicChat, "x", "last"))
		is.NoErr(typedrpc.Publish(ctx, hub, lab.TopicChat, "idle", "last"))
		is.NoErr(hub.Close())
		is.NoErr(hub.Close())
		<-e.Done
		<-p.Done
		is.Equal(len(e.Got), 1) // what was published before still comes
		is.Equal(typedrpc.CodeOf(e.Err), typedrpc.Unavailable)
		is.Equal(typedrpc.CodeOf(p.Err), typedrpc.Unavailable)
		is.Equal(typedrpc.CodeOf(typedrpc.Publish(ctx, hub, lab.TopicChat, "x", "no")), typedrpc.Unavailable)
		e = lab.SubscribeTo(ctx, c, lab.TopicChat, "x", nil)
		<-e.Done
		is.Equal(typedrpc.CodeOf(e.Err), typedrpc.Unavailable)
		synctest.Wait()
		is.Equal(hook.Hub(hub).Rooms, 0)
		is.Equal(len(hook.Hub(hub).Accounts), 0)
	})
}

func TestTopic_declarations(t *testing.T) {
	hub := typedrpc.NewHub(nil)
	for name, declare := range map[string]func(){
		"history without bounds": func() { typedrpc.NewTopic[int]("m", typedrpc.History(0, 0)) },
		"negative history":       func() { typedrpc.NewTopic[int]("m", typedrpc.History(-1, 0)) },
		"bytes":                  func() { typedrpc.NewTopic[typedrpc.Bytes]("m") },
		"no wait":                func() { typedrpc.NewTopic[int]("m", typedrpc.Slow(typedrpc.WaitAtMost(0))) },
		"no bytes":               func() { typedrpc.NewTopic[int]("m", typedrpc.Slow(typedrpc.DropNewest.Within(0))) },
		"long name":              func() { typedrpc.NewTopic[int](strings.Repeat("m", 247)) },
		"no hub":                 func() { typedrpc.HandleTopic(typedrpc.NewMux(), nil, lab.TopicNews, nil) },
		"no topic":               func() { typedrpc.HandleTopic(typedrpc.NewMux(), hub, typedrpc.Topic[int]{}, nil) },
		"codec":                  func() { typedrpc.HandleTopic(typedrpc.NewMux(), hub, typedrpc.NewTopic[chan int]("m"), nil) },
		"twice": func() {
			m := typedrpc.NewMux()
			typedrpc.HandleTopic(m, hub, lab.TopicNews, nil)
			typedrpc.HandleTopic(m, hub, lab.TopicNews, nil)
		},
		"options": func() { typedrpc.NewHub(&typedrpc.HubOptions{IdleKeys: -1}) },
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			defer func() { is.True(recover() != nil) }()
			declare()
		})
	}
}
