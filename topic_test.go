package typedrpc

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
)

var (
	topicNews = NewTopic[string]("test.news")
	topicChat = NewTopic[string]("test.chat", History(3, 0))
)

// topicServer is a server that serves topics over pipes; authentication makes
// the subject of the credentials.
func topicServer(register func(*Mux), codecs ...Codec) *Server {
	mux := NewMux()
	register(mux)
	srv := &Server{Mux: mux, Codecs: codecs, Logger: slog.New(slog.DiscardHandler)}
	srv.Authenticate = Authenticate(topicLogin, func(_ context.Context, _ *http.Request, who string) (Identity, Empty, error) {
		return Identity{Subject: who}, Empty{}, nil
	})
	return srv
}

var topicLogin = NewMethod[string, Empty]("test.login")

func topicDial(t *testing.T, srv *Server, who string, o DialOptions) *Conn {
	t.Helper()
	o.Auth = Credentials(topicLogin, func(context.Context) (string, error) { return who, nil })
	c, _, err := dialPipe(t.Context(), srv, &o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// events collects a subscription on a goroutine of its own.
type events[E any] struct {
	mu   sync.Mutex
	got  []E
	err  error
	stop context.CancelFunc
	gate chan struct{} // nil: receives at once; each value lets one pass
	done chan struct{}
}

func gather[E any](ctx context.Context, gate chan struct{}, seq func(context.Context) func(func(E, error) bool)) *events[E] {
	e := &events[E]{done: make(chan struct{}), gate: gate}
	ctx, e.stop = context.WithCancel(ctx)
	go func() {
		defer close(e.done)
		for v, err := range seq(ctx) {
			if err != nil {
				e.err = err
				return
			}
			e.mu.Lock()
			e.got = append(e.got, v)
			e.mu.Unlock()
			if e.gate != nil {
				select {
				case <-e.gate:
				case <-ctx.Done():
				}
			}
		}
	}()
	return e
}

func subscribeTo[T any](ctx context.Context, c Caller, tp Topic[T], key string, gate chan struct{}) *events[Event[T]] {
	return gather(ctx, gate, func(ctx context.Context) func(func(Event[T], error) bool) {
		return Subscribe(ctx, c, tp, key)
	})
}

func presenceOf[T any](ctx context.Context, c Caller, tp Topic[T], key string) *events[Member] {
	return gather(ctx, nil, func(ctx context.Context) func(func(Member, error) bool) {
		return Presence(ctx, c, tp, key)
	})
}

func (e *events[E]) leave() error {
	e.stop()
	<-e.done
	return e.err
}

// take returns what has come since the last time.
func (e *events[E]) take() []E {
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	got := e.got
	e.got = nil
	return got
}

func (h *Hub) isEmpty() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.amu.Lock()
	defer h.amu.Unlock()
	if len(h.rooms) != h.idle.Len() || len(h.accounts) > 0 || len(h.watched) > 0 || h.running {
		return fmt.Errorf("%d rooms (%d idle), %d accounts, %d watched", len(h.rooms), h.idle.Len(), len(h.accounts), len(h.watched))
	}
	if b, ok := h.broker.(*memoryBroker); ok && len(b.channels) != h.idle.Len() {
		return fmt.Errorf("%d channels", len(b.channels))
	}
	return nil
}

var topicDialects = []Dialect{Binary, JSONRPC}

func TestTopic_publishSubscribe(t *testing.T) {
	for _, d := range topicDialects {
		t.Run(fmt.Sprint(d), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				ctx := t.Context()
				hub := NewHub(nil)
				srv := topicServer(func(m *Mux) { HandleTopic(m, hub, topicNews, nil) })
				a, b := topicDial(t, srv, "ann", DialOptions{Dialect: d}), topicDial(t, srv, "bob", DialOptions{Dialect: d})
				one, two := subscribeTo(ctx, a, topicNews, "x", nil), subscribeTo(ctx, b, topicNews, "x", nil)
				other := subscribeTo(ctx, b, topicNews, "", nil)
				synctest.Wait()
				for i := range 100 {
					is.NoErr(Publish(ctx, hub, topicNews, "x", fmt.Sprint(i)))
				}
				is.NoErr(Publish(ctx, hub, topicNews, "", "alone"))
				is.NoErr(Publish(ctx, hub, topicNews, "nobody", "?"))
				for _, e := range []*events[Event[string]]{one, two} {
					got := e.take()
					is.Equal(len(got), 100)
					for i, v := range got {
						is.Equal(v, Event[string]{Value: fmt.Sprint(i)})
					}
				}
				is.Equal(other.take(), []Event[string]{{Value: "alone"}})
				is.Equal(CodeOf(one.leave()), Canceled)
				two.leave()
				a.Close()
				b.Close()
				<-other.done
				is.Equal(CodeOf(other.err), Unavailable)
				synctest.Wait()
				is.NoErr(hub.isEmpty())
				is.NoErr(hub.Close())
			})
		})
	}
}

// TestTopic_leave leaves the loop in every way.
func TestTopic_leave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		hub := NewHub(nil)
		srv := topicServer(func(m *Mux) { HandleTopic(m, hub, topicNews, nil) })
		c := topicDial(t, srv, "ann", DialOptions{})
		for _, how := range []string{"break", "panic", "return", "context", "deadline"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			left := make(chan error, 1)
			go func() {
				defer func() {
					recover()
					left <- nil
				}()
				for _, err := range Subscribe(ctx, c, topicNews, "x") {
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
			is.NoErr(Publish(ctx, hub, topicNews, "x", "first"))
			synctest.Wait()
			if how == "context" {
				cancel()
			}
			switch err := <-left; how {
			case "context":
				is.Equal(CodeOf(err), Canceled)
			case "deadline":
				is.Equal(CodeOf(err), DeadlineExceeded)
			default:
				is.NoErr(err)
			}
			cancel()
			synctest.Wait()
			is.NoErr(hub.isEmpty())
		}
	})
}

func TestTopic_allow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		hub := NewHub(nil)
		srv := topicServer(func(m *Mux) {
			HandleTopic(m, hub, topicNews, func(ctx context.Context, key string) error {
				switch key {
				case "panic":
					panic("boom")
				case ConnFrom(ctx).Identity().Subject:
					return nil
				}
				return Errorf(PermissionDenied, "%q is not yours", key)
			})
		})
		c := topicDial(t, srv, "ann", DialOptions{})
		for key, want := range map[string]Code{
			"bob": PermissionDenied, "panic": Internal, strings.Repeat("k", 256): InvalidArgument,
		} {
			e := subscribeTo(ctx, c, topicNews, key, nil)
			<-e.done
			is.Equal(CodeOf(e.err), want)
			p := presenceOf(ctx, c, topicNews, key)
			<-p.done
			is.Equal(CodeOf(p.err), want)
		}
		is.Equal(CodeOf(checkKey("\xff")), InvalidArgument)
		is.NoErr(checkKey(strings.Repeat("k", 255)))
		e := subscribeTo(ctx, c, topicNews, "ann", nil)
		synctest.Wait()
		is.NoErr(Publish(ctx, hub, topicNews, "ann", "hello"))
		is.Equal(len(e.take()), 1)
		is.Equal(CodeOf(Publish(ctx, hub, topicNews, strings.Repeat("k", 256), "")), InvalidArgument)
		e.leave()
		synctest.Wait()
		is.NoErr(hub.isEmpty())
	})
}

func TestTopic_history(t *testing.T) {
	recent := NewTopic[string]("test.recent", History(0, time.Minute))
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		hub := NewHub(&HubOptions{IdleKeys: 2, HistoryBytes: 1000})
		srv := topicServer(func(m *Mux) {
			HandleTopic(m, hub, topicChat, nil)
			HandleTopic(m, hub, recent, nil)
		})
		c := topicDial(t, srv, "ann", DialOptions{})
		values := func(es []Event[string]) (all string) {
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
			is.NoErr(Publish(ctx, hub, topicChat, "x", v))
		}
		e := subscribeTo(ctx, c, topicChat, "x", nil)
		is.Equal(values(e.take()), "b!c!d!")
		is.NoErr(Publish(ctx, hub, topicChat, "x", "e"))
		is.Equal(values(e.take()), "e")
		e.leave()
		synctest.Wait()

		// After a loss by the broker it is told where.
		hub.rooms[roomID{topicChat.spec, "x"}].deliver(nil)
		e = subscribeTo(ctx, c, topicChat, "x", nil)
		is.Equal(values(e.take()), "c!d!e!")
		is.NoErr(Publish(ctx, hub, topicChat, "x", "f"))
		is.Equal(values(e.take()), "f-1")
		e.leave()
		e = subscribeTo(ctx, c, topicChat, "x", nil)
		is.Equal(values(e.take()), "d!e!f!-1")
		e.leave()
		synctest.Wait()

		// The key that was not used for longest goes.
		is.NoErr(Publish(ctx, hub, topicChat, "y", "y"))
		is.NoErr(Publish(ctx, hub, topicChat, "x", "g"))
		is.NoErr(Publish(ctx, hub, topicChat, "z", "z"))
		is.Equal(len(hub.rooms), 2)
		for key, want := range map[string]string{"x": "e!f!-1g!", "z": "z!"} {
			e = subscribeTo(ctx, c, topicChat, key, nil)
			is.Equal(values(e.take()), want)
			e.leave()
			synctest.Wait()
		}
		is.NoErr(hub.isEmpty())

		// By age, and by bytes.
		is.NoErr(Publish(ctx, hub, recent, "x", "old"))
		time.Sleep(40 * time.Second)
		is.NoErr(Publish(ctx, hub, recent, "x", "new"))
		time.Sleep(30 * time.Second)
		e = subscribeTo(ctx, c, recent, "x", nil)
		is.Equal(values(e.take()), "new!")
		time.Sleep(40 * time.Second)
		for range 10 {
			is.NoErr(Publish(ctx, hub, recent, "x", strings.Repeat("v", 200)))
		}
		is.Equal(len(e.take()), 10)
		e.leave()
		e = subscribeTo(ctx, c, recent, "x", nil)
		is.Equal(len(e.take()), 3) // of 266 bytes each
		e.leave()
		time.Sleep(time.Minute)
		e = subscribeTo(ctx, c, recent, "x", nil)
		is.Equal(len(e.take()), 0)
		e.leave()
		is.NoErr(hub.Close())
		synctest.Wait()
		is.Equal(len(hub.rooms), 0)
	})
}

// TestTopic_historyWhilePublishing subscribes again and again while others
// publish: from the first message on none is missing and none is there twice.
func TestTopic_historyWhilePublishing(t *testing.T) {
	counted := NewTopic[int]("test.counted", History(50, 0), Slow(WaitAtMost(time.Minute)))
	is := is.New(t)
	ctx := t.Context()
	hub := NewHub(nil)
	srv := topicServer(func(m *Mux) { HandleTopic(m, hub, counted, nil) })
	c := topicDial(t, srv, "ann", DialOptions{})
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
			if err := Publish(ctx, hub, counted, "x", n); err != nil {
				published <- err
				return
			}
		}
	}()
	for range 30 {
		got, live, next := 0, 0, -1
		for e, err := range Subscribe(ctx, c, counted, "x") {
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
	Codec
	name         string
	encoded, dec *atomic.Int64
}

func (c countingCodec) Name() string { return c.name }

func (c countingCodec) Append(dst []byte, v any) ([]byte, error) {
	if _, ok := v.(*counted); ok {
		c.encoded.Add(1)
	}
	return c.Codec.Append(dst, v)
}

func (c countingCodec) Decode(data []byte, v any) error {
	if _, ok := v.(*counted); ok {
		c.dec.Add(1)
	}
	return c.Codec.Decode(data, v)
}

type counted struct{ N int }

func TestTopic_encodedOnce(t *testing.T) {
	topic := NewTopic[counted]("test.once", History(10, 0))
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		var hubs, others, decoded, n atomic.Int64
		mine := countingCodec{JSON, "mine", &hubs, &decoded}
		other := countingCodec{JSON, "other", &others, &n}
		hub := NewHub(&HubOptions{Codec: mine})
		srv := topicServer(func(m *Mux) { HandleTopic(m, hub, topic, nil) }, mine, other, JSON)
		var all []*events[Event[counted]]
		for _, o := range []DialOptions{
			{Codecs: []Codec{mine}}, {Codecs: []Codec{mine}}, {Codecs: []Codec{other}}, {Codecs: []Codec{other}},
			{Codecs: []Codec{JSON}}, {Dialect: JSONRPC}, {Dialect: JSONRPC},
		} {
			o.Limits.KeepAlive = time.Hour
			c := topicDial(t, srv, "ann", o)
			for range 5 {
				all = append(all, subscribeTo(ctx, c, topic, "x", nil))
			}
		}
		synctest.Wait()
		for i := range 3 {
			is.NoErr(Publish(ctx, hub, topic, "x", counted{i}))
		}
		for _, e := range all {
			is.Equal(e.take(), []Event[counted]{{Value: counted{0}}, {Value: counted{1}}, {Value: counted{2}}})
		}
		is.Equal(hubs.Load(), int64(3))
		is.Equal(others.Load(), int64(3))
		is.Equal(decoded.Load(), int64(3*10+3*2)) // by ten subscribers, and for two other codecs
		late := subscribeTo(ctx, topicDial(t, srv, "bob", DialOptions{Codecs: []Codec{other}}), topic, "x", nil)
		is.Equal(len(late.take()), 3)
		is.Equal(others.Load(), int64(3)) // the history too
		is.NoErr(hub.Close())
	})
}

// TestTopic_unfit publishes what some subscribers cannot be given.
func TestTopic_unfit(t *testing.T) {
	raw := NewTopic[Raw]("test.raw")
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		hub := NewHub(nil)
		srv := topicServer(func(m *Mux) { HandleTopic(m, hub, raw, nil) })
		big := subscribeTo(ctx, topicDial(t, srv, "ann", DialOptions{}), raw, "x", nil)
		small := subscribeTo(ctx, topicDial(t, srv, "bob", DialOptions{Limits: Limits{MaxMessage: 100}}), raw, "x", nil)
		flat := subscribeTo(ctx, topicDial(t, srv, "cat", DialOptions{Dialect: JSONRPC, Limits: Limits{MaxDepth: 5}}), raw, "x", nil)
		synctest.Wait()
		for _, v := range []string{`"` + strings.Repeat("v", 100) + `"`, `[[[[[[1]]]]]]`, `1`} {
			is.NoErr(Publish(ctx, hub, raw, "x", Raw(v)))
		}
		is.Equal(CodeOf(Publish(ctx, hub, raw, "x", Raw("{"))), InvalidArgument)
		is.Equal(len(big.take()), 3)
		got := small.take()
		is.Equal(len(got), 2)
		is.Equal(got[0].Missed, 1)
		got = flat.take()
		is.Equal(len(got), 2)
		is.Equal(got[1], Event[Raw]{Value: Raw("1"), Missed: 1})
		is.NoErr(hub.Close())
	})
}

// TestTopic_undecodable has the broker bring what is no message: subscribers of
// the hub's codec may make of it what they can, others miss it, and the log
// tells, here into the topic itself.
func TestTopic_undecodable(t *testing.T) {
	topic := NewTopic[counted]("test.undecodable")
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		var n atomic.Int64
		other := countingCodec{JSON, "other", &n, &n}
		hub := NewHub(nil)
		srv := topicServer(func(m *Mux) { HandleTopic(m, hub, topic, nil) }, other)
		srv.Logger = slog.New(publishingLog{slog.DiscardHandler, func() error {
			return Publish(ctx, hub, topic, "x", counted{1})
		}})
		e := subscribeTo(ctx, topicDial(t, srv, "ann", DialOptions{Codecs: []Codec{other}}), topic, "x", nil)
		synctest.Wait()
		is.NoErr(hub.broker.Publish(ctx, channelOf(topic.spec, "x"), []byte("junk")))
		is.Equal(e.take(), []Event[counted]{{Value: counted{1}, Missed: 1}})
		is.NoErr(hub.Close())
	})
}

type publishingLog struct {
	slog.Handler
	publish func() error
}

func (l publishingLog) Enabled(context.Context, slog.Level) bool      { return true }
func (l publishingLog) Handle(_ context.Context, r slog.Record) error { return l.publish() }

func TestTopic_hooksSeeItems(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		hub := NewHub(nil)
		var seen []string
		mux := NewMux(func(ctx context.Context, r *Request, next RawHandler) (Raw, error) {
			r.OnItem(func(item Raw, sent bool) error {
				if string(item) == `"stop"` {
					return Errorf(Aborted, "stopped")
				}
				seen = append(seen, string(item))
				return nil
			})
			return next(ctx, r)
		})
		HandleTopic(mux, hub, topicNews, nil)
		c, _, err := dialPipe(ctx, &Server{Mux: mux}, nil)
		is.NoErr(err)
		defer c.Close()
		e := subscribeTo(ctx, c, topicNews, "x", nil)
		synctest.Wait()
		for _, v := range []string{"a", "b", "stop", "c"} {
			is.NoErr(Publish(ctx, hub, topicNews, "x", v))
		}
		<-e.done
		is.Equal(len(e.got), 2)
		is.Equal(seen, []string{`"a"`, `"b"`})
		is.Equal(CodeOf(e.err), Aborted)
		synctest.Wait()
		is.NoErr(hub.isEmpty())
	})
}

func TestTopic_close(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		hub := NewHub(nil)
		srv := topicServer(func(m *Mux) { HandleTopic(m, hub, topicChat, nil) })
		c := topicDial(t, srv, "ann", DialOptions{})
		e, p := subscribeTo(ctx, c, topicChat, "x", nil), presenceOf(ctx, c, topicChat, "x")
		synctest.Wait()
		is.NoErr(Publish(ctx, hub, topicChat, "x", "last"))
		is.NoErr(Publish(ctx, hub, topicChat, "idle", "last"))
		is.NoErr(hub.Close())
		is.NoErr(hub.Close())
		<-e.done
		<-p.done
		is.Equal(len(e.got), 1) // what was published before still comes
		is.Equal(CodeOf(e.err), Unavailable)
		is.Equal(CodeOf(p.err), Unavailable)
		is.Equal(CodeOf(Publish(ctx, hub, topicChat, "x", "no")), Unavailable)
		e = subscribeTo(ctx, c, topicChat, "x", nil)
		<-e.done
		is.Equal(CodeOf(e.err), Unavailable)
		synctest.Wait()
		is.Equal(len(hub.rooms), 0)
		is.Equal(len(hub.accounts), 0)
	})
}

func TestTopic_declarations(t *testing.T) {
	hub := NewHub(nil)
	for name, declare := range map[string]func(){
		"slow on a method":       func() { NewMethod[int, int]("m", Slow(DropOldest)) },
		"history on a stream":    func() { NewServerStream[int, int]("m", History(1, 0)) },
		"history without bounds": func() { NewTopic[int]("m", History(0, 0)) },
		"negative history":       func() { NewTopic[int]("m", History(-1, 0)) },
		"serial":                 func() { NewTopic[int]("m", Serial) },
		"bytes":                  func() { NewTopic[Bytes]("m") },
		"idempotent":             func() { NewTopic[int]("m", Idempotent) },
		"no wait":                func() { NewTopic[int]("m", Slow(WaitAtMost(0))) },
		"no bytes":               func() { NewTopic[int]("m", Slow(DropNewest.Within(0))) },
		"long name":              func() { NewTopic[int](strings.Repeat("m", 247)) },
		"no hub":                 func() { HandleTopic(NewMux(), nil, topicNews, nil) },
		"no topic":               func() { HandleTopic(NewMux(), hub, Topic[int]{}, nil) },
		"codec":                  func() { HandleTopic(NewMux(), hub, NewTopic[chan int]("m"), nil) },
		"twice": func() {
			m := NewMux()
			HandleTopic(m, hub, topicNews, nil)
			HandleTopic(m, hub, topicNews, nil)
		},
		"options": func() { NewHub(&HubOptions{IdleKeys: -1}) },
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			defer func() { is.True(recover() != nil) }()
			declare()
		})
	}
}

func TestTopic_presence(t *testing.T) {
	for _, d := range topicDialects {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			ctx := t.Context()
			hub := NewHub(nil)
			srv := topicServer(func(m *Mux) { HandleTopic(m, hub, topicNews, nil) })
			o := DialOptions{Dialect: d}
			ann, ann2, bob := topicDial(t, srv, "ann", o), topicDial(t, srv, "ann", o), topicDial(t, srv, "bob", o)
			nobody := topicDial(t, srv, "", o)
			one := subscribeTo(ctx, ann, topicNews, "x", nil)
			synctest.Wait()
			p := presenceOf(ctx, bob, topicNews, "x")
			is.Equal(p.take(), []Member{{Subject: "ann", History: true}})
			two := subscribeTo(ctx, ann2, topicNews, "x", nil)
			three := subscribeTo(ctx, ann, topicNews, "x", nil)
			is.Equal(len(p.take()), 0)
			subscribeTo(ctx, bob, topicNews, "x", nil)
			is.Equal(p.take(), []Member{{Subject: "bob"}})
			subscribeTo(ctx, nobody, topicNews, "x", nil)
			is.Equal(p.take(), []Member{{Subject: ""}})
			one.leave()
			two.leave()
			is.Equal(len(p.take()), 0)
			three.leave()
			is.Equal(p.take(), []Member{{Subject: "ann", Left: true}})
			nobody.Close()
			is.Equal(p.take(), []Member{{Subject: "", Left: true}})
			bob.Close()
			<-p.done
			synctest.Wait()
			is.NoErr(hub.isEmpty())
		})
	}
}

// TestTopic_presenceCoalesces stalls one who looks on while others come and go.
func TestTopic_presenceCoalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		hub := NewHub(nil)
		srv := topicServer(func(m *Mux) { HandleTopic(m, hub, topicNews, nil) })
		c := topicDial(t, srv, "ann", DialOptions{})
		gate := make(chan struct{})
		p := gather(ctx, gate, func(ctx context.Context) func(func(Member, error) bool) {
			return Presence(ctx, c, topicNews, "x")
		})
		synctest.Wait()
		r := hub.rooms[roomID{topicNews.spec, "x"}]
		change := func(who string, by int) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.presentLocked(who, by)
		}
		for range 5000 {
			change("stays", 1)
			change("stays", -1)
			change("goes", 1)
			change("goes", -1)
		}
		change("stays", 1)
		synctest.Wait()
		pending := 0
		for w := range r.onlookers {
			pending += w.pending.Len()
		}
		is.True(pending <= 2)
		close(gate)
		here := map[string]bool{}
		for _, m := range p.take() {
			is.Equal(here[m.Subject], m.Left) // they alternate
			here[m.Subject] = !m.Left
		}
		is.True(here["stays"])
		is.True(!here["goes"]) // nobody need have been told that it came
		p.leave()
	})
}
