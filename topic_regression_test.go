package typedrpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
)

// Faults that topics, hubs and transfers had, each with what showed it; and
// what was right next to them and is to stay so.

// Of two hubs that watched a key, the one that asked for the other's members
// did not tell its own, and spared the other its question: the other never
// learned of a change again.
func TestBroker_presenceWhereTwoHubsWatch(t *testing.T) {
	for _, later := range []time.Duration{time.Second, 3 * time.Second, 7 * time.Second} {
		bubble(t, fmt.Sprint(later, " later"), func(t *testing.T, is *is.I) {
			ctx := t.Context()
			hubs, _, servers := nastyHubs(func(m *Mux, h *Hub) { HandleTopic(m, h, topicNews, nil) })
			var conns [2]*Conn
			var look [2]*events[Member]
			for i := range hubs {
				defer hubs[i].Close()
				conns[i] = topicDial(t, servers[i], fmt.Sprint("user", i), DialOptions{})
			}
			look[0] = presenceOf(ctx, conns[0], topicNews, "x")
			time.Sleep(later)
			look[1] = presenceOf(ctx, conns[1], topicNews, "x")
			time.Sleep(5 * time.Minute) // long after what came with the first questions
			for i, c := range conns {
				who := fmt.Sprint("user", i)
				s := subscribeTo(ctx, c, topicNews, "x", nil)
				time.Sleep(time.Minute)
				for _, p := range look {
					is.Equal(p.take(), []Member{{Subject: who}})
				}
				time.Sleep(5 * time.Minute)
				s.leave()
				time.Sleep(time.Minute)
				for _, p := range look {
					is.Equal(p.take(), []Member{{Subject: who, Left: true}})
				}
			}
			for _, p := range look {
				p.leave()
			}
			synctest.Wait()
			for _, h := range hubs {
				is.NoErr(h.isEmpty())
			}
		})
	}
}

// A key that nobody had subscribed to was forgotten before the broker brought
// what had just been published to it.
func TestBroker_historyOfWhatComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		hubs, _, servers := nastyHubs(func(m *Mux, h *Hub) { HandleTopic(m, h, topicChat, nil) })
		for _, h := range hubs {
			defer h.Close()
		}
		for _, v := range []string{"a", "b", "c"} {
			is.NoErr(Publish(ctx, hubs[0], topicChat, "x", v))
			time.Sleep(time.Second)
		}
		s := subscribeTo(ctx, topicDial(t, servers[0], "ann", DialOptions{}), topicChat, "x", nil)
		time.Sleep(time.Second)
		is.Equal(s.take(), []Event[string]{{Value: "a", History: true}, {Value: "b", History: true}, {Value: "c", History: true}})
		s.leave()
		synctest.Wait()
		is.NoErr(hubs[0].isEmpty())
	})
}

// stuckBroker publishes nothing before the context ends, and is not closed
// before what is being published has been.
type stuckBroker struct {
	*nastyClient
	publishing sync.WaitGroup
}

func (b *stuckBroker) Publish(ctx context.Context, _ string, _ []byte) error {
	b.publishing.Add(1)
	defer b.publishing.Done()
	<-ctx.Done()
	return ctx.Err()
}

func (b *stuckBroker) Close() error {
	b.publishing.Wait()
	return b.nastyClient.Close()
}

func newStuckHub() (*Hub, *Server) {
	hub := NewHub(&HubOptions{Broker: &stuckBroker{nastyClient: (&nastyBroker{}).client()}})
	return hub, topicServer(func(m *Mux) { HandleTopic(m, hub, topicNews, nil) })
}

// Close had the broker closed, which waited for a notice that was being
// published, and ended the notice only afterwards: it hung.
func TestHub_closeWhileTheBrokerIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		hub, srv := newStuckHub()
		s := subscribeTo(t.Context(), topicDial(t, srv, "ann", DialOptions{}), topicNews, "x", nil)
		time.Sleep(time.Second)
		is.True(hub.isEmpty() != nil) // the notice is on its way
		began := time.Now()
		is.NoErr(hub.Close())
		is.Equal(time.Since(began), time.Duration(0))
		<-s.done
		is.Equal(CodeOf(s.err), Unavailable)
		synctest.Wait()
		is.NoErr(hub.isEmpty())
	})
}

// A notice could wait for ever, and all keys that came and went meanwhile were
// held until they had been announced.
func TestHub_stuckBrokerHoldsNoKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		hub, srv := newStuckHub()
		defer hub.Close()
		c := topicDial(t, srv, "ann", DialOptions{})
		for i := range 20 {
			s := subscribeTo(t.Context(), c, topicNews, fmt.Sprint(i), nil)
			time.Sleep(time.Second)
			s.leave()
		}
		time.Sleep(time.Hour)
		is.NoErr(hub.isEmpty())
	})
}

// panicBroker panics when it is to publish a notice.
type panicBroker struct{ *nastyClient }

func (b panicBroker) Publish(ctx context.Context, channel string, msg []byte) error {
	if strings.HasPrefix(channel, "presence ") {
		panic("out of cards")
	}
	return b.nastyClient.Publish(ctx, channel, msg)
}

// A broker that panicked on the hub's own goroutine took the process with it.
func TestHub_brokerPanicsOnANotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var logged bytes.Buffer
		old := log.Writer()
		log.SetOutput(&logged)
		defer log.SetOutput(old)
		ctx := t.Context()
		hub := NewHub(&HubOptions{Broker: panicBroker{(&nastyBroker{}).client()}})
		srv := topicServer(func(m *Mux) { HandleTopic(m, hub, topicNews, nil) })
		s := subscribeTo(ctx, topicDial(t, srv, "ann", DialOptions{}), topicNews, "x", nil)
		time.Sleep(time.Second)
		is.NoErr(Publish(ctx, hub, topicNews, "x", "hello"))
		time.Sleep(time.Second)
		is.Equal(s.take(), []Event[string]{{Value: "hello"}})
		s.leave()
		synctest.Wait()
		is.NoErr(hub.isEmpty())
		is.NoErr(hub.Close())
		is.True(strings.Contains(logged.String(), "out of cards"))
	})
}

// uncomparableCodec panics when one is compared with another.
type uncomparableCodec struct {
	Codec
	_ []int
}

func (uncomparableCodec) Name() string { return "uncomparable" }

// Codecs were compared as values, which panics for some types.
func TestTopic_codecsThatCannotBeCompared(t *testing.T) {
	odd := uncomparableCodec{Codec: JSON}
	for name, codec := range map[string]Codec{"subscribers": nil, "hub and subscribers": odd} {
		bubble(t, name, func(t *testing.T, is *is.I) {
			ctx := t.Context()
			hub := NewHub(&HubOptions{Codec: codec})
			defer hub.Close()
			srv := topicServer(func(m *Mux) { HandleTopic(m, hub, topicChat, nil) }, odd, JSON)
			var all []*events[Event[string]]
			for _, c := range []Codec{odd, odd, JSON} {
				all = append(all, subscribeTo(ctx, topicDial(t, srv, "ann", DialOptions{Codecs: []Codec{c}}), topicChat, "x", nil))
			}
			synctest.Wait()
			is.NoErr(Publish(ctx, hub, topicChat, "x", "hello"))
			for _, e := range all {
				is.Equal(e.take(), []Event[string]{{Value: "hello"}})
				e.leave()
			}
			late := subscribeTo(ctx, topicDial(t, srv, "bob", DialOptions{Codecs: []Codec{odd}}), topicChat, "x", nil)
			is.Equal(late.take(), []Event[string]{{Value: "hello", History: true}})
			late.leave()
		})
	}
}

// One subscription of a connection that did not receive used up what all of
// them may have waiting. Another whose window was full for a moment was then
// never given a message again, or ended for being slow, with nothing in its
// queue and an open window.
func TestTopic_neighbourOfAStalledSubscription(t *testing.T) {
	for name, policy := range map[string]SlowPolicy{
		"drop newest": DropNewest, "drop oldest": DropOldest, "latest only": LatestOnly, "wait": WaitAtMost(5 * time.Second),
	} {
		stalled := NewTopic[string]("test.stalled", Slow(DropNewest.Within(1<<20)))
		topic := NewTopic[string]("test.neighbour", Slow(policy))
		bubble(t, name, func(t *testing.T, is *is.I) {
			ctx := t.Context()
			hub := NewHub(nil)
			defer hub.Close()
			srv := topicServer(func(m *Mux) {
				HandleTopic(m, hub, stalled, nil)
				HandleTopic(m, hub, topic, nil)
			})
			srv.Limits.MaxBuffered = 64 << 10
			c := topicDial(t, srv, "ann", DialOptions{Limits: Limits{Window: 2000}})
			s := subscribeTo(ctx, c, stalled, "x", make(chan struct{}))
			synctest.Wait()
			for i := range 400 {
				v := fmt.Sprint(i)
				if i < 200 {
					v = fmt.Sprintf("%0400d", i)
				}
				is.NoErr(Publish(ctx, hub, stalled, "x", v))
				synctest.Wait()
			}
			is.Equal(len(hub.accounts), 1)
			for _, a := range hub.accounts {
				is.True(a.own.used.Load()+messageOverhead+3 > a.own.max)
			}

			f := subscribeTo(ctx, c, topic, "x", nil)
			synctest.Wait()
			for i := range 10 { // more than the window at once
				is.NoErr(Publish(ctx, hub, topic, "x", fmt.Sprintf("%0400d", i)))
			}
			time.Sleep(time.Minute)
			got := f.take()
			is.True(len(got) > 0)
			if policy.do == waitAtMost {
				is.Equal(len(got), 10)
			}
			told := len(got)
			for _, e := range got {
				told += e.Missed
			}
			for i := range 10 {
				is.NoErr(Publish(ctx, hub, topic, "x", fmt.Sprint(i)))
				time.Sleep(time.Minute)
				got := f.take()
				is.Equal(len(got), 1)
				is.Equal(got[0].Value, fmt.Sprint(i))
				told += got[0].Missed
			}
			is.Equal(told, 10) // all of them were received or told as missed
			is.Equal(CodeOf(f.leave()), Canceled)
			s.leave()
			synctest.Wait()
			is.NoErr(hub.isEmpty())
			is.Equal(srv.config.budget.used.Load(), int64(0))
		})
	}
}

// A history that is not sent to its end, whatever ends it, gives its bytes of
// the server's budget back.
func TestTopic_leavingInTheMiddleOfHistory(t *testing.T) {
	topic := NewTopic[string]("test.long", History(50, 0))
	for how, code := range map[string]Code{
		"break": 0, "cancel": Canceled, "deadline": DeadlineExceeded, "close": Unavailable, "hub": Unavailable, "shutdown": Unavailable,
	} {
		bubble(t, how, func(t *testing.T, is *is.I) {
			hub := NewHub(nil)
			defer hub.Close()
			srv := topicServer(func(m *Mux) { HandleTopic(m, hub, topic, nil) })
			for i := range 50 {
				is.NoErr(Publish(t.Context(), hub, topic, "x", fmt.Sprintf("%0300d", i)))
			}
			c := topicDial(t, srv, "ann", DialOptions{Limits: Limits{Window: 1000}})
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			gate, left := make(chan struct{}), make(chan error, 1)
			go func() {
				for _, err := range Subscribe(ctx, c, topic, "x") {
					if err != nil {
						left <- err
						return
					}
					<-gate
					if how == "break" {
						break
					}
				}
				left <- nil
			}()
			synctest.Wait()
			used := &srv.config.budget.used
			is.True(used.Load() > 40*(300+messageOverhead)) // most of it waits
			is.NoErr(Publish(ctx, hub, topic, "x", "behind it"))
			switch how {
			case "cancel":
				cancel()
			case "deadline":
				time.Sleep(time.Hour)
			case "close":
				is.NoErr(c.Close())
			case "hub":
				is.NoErr(hub.Close())
			case "shutdown":
				short, stop := context.WithTimeout(ctx, time.Minute)
				srv.Shutdown(short)
				stop()
			}
			synctest.Wait()
			close(gate)
			err := <-left
			if code == 0 {
				is.NoErr(err)
			} else {
				is.Equal(CodeOf(err), code)
			}
			time.Sleep(5 * time.Second)
			synctest.Wait()
			is.Equal(used.Load(), int64(0))
			is.Equal(len(hub.accounts), 0)
			if how != "hub" {
				is.NoErr(hub.isEmpty())
			}
		})
	}
}

// Every policy tells in the right place how many messages are missing, in the
// middle of a history too.
func TestTopic_missedIsExact(t *testing.T) {
	for name, policy := range map[string]SlowPolicy{"drop oldest": DropOldest, "drop newest": DropNewest, "latest only": LatestOnly} {
		topic := NewTopic[string]("test.exact", History(5, 0), Slow(policy.Within(2000)))
		bubble(t, name, func(t *testing.T, is *is.I) {
			ctx := t.Context()
			hub := NewHub(nil)
			defer hub.Close()
			srv := topicServer(func(m *Mux) { HandleTopic(m, hub, topic, nil) })
			publish := func(from, to int) {
				for i := from; i < to; i++ {
					is.NoErr(Publish(ctx, hub, topic, "x", fmt.Sprintf("%0300d", i)))
				}
			}
			publish(0, 10)
			gate := make(chan struct{})
			s := subscribeTo(ctx, topicDial(t, srv, "ann", DialOptions{Limits: Limits{Window: 1000}}), topic, "x", gate)
			synctest.Wait()
			publish(10, 100)
			close(gate)
			synctest.Wait()
			publish(100, 101)
			next, missed := 5, 0
			for _, e := range s.take() {
				n, err := strconv.Atoi(e.Value)
				is.NoErr(err)
				is.True(e.Missed >= 0)
				is.Equal(n, next+e.Missed)
				is.Equal(e.History, n < 10)
				next = n + 1
				missed += e.Missed
			}
			is.Equal(next, 101)
			is.True(missed > 0)
			s.leave()
			synctest.Wait()
			is.NoErr(hub.isEmpty())
		})
	}
}

// Shutdown ends subscriptions, which never end by themselves, and does not wait
// for the hub to be closed.
func TestTopic_shutdownEndsSubscriptions(t *testing.T) {
	for _, d := range topicDialects {
		bubble(t, fmt.Sprint(d), func(t *testing.T, is *is.I) {
			ctx := t.Context()
			hub := NewHub(nil)
			defer hub.Close()
			srv := topicServer(func(m *Mux) { HandleTopic(m, hub, topicNews, nil) })
			c := topicDial(t, srv, "ann", DialOptions{Dialect: d})
			s, p := subscribeTo(ctx, c, topicNews, "x", nil), presenceOf(ctx, c, topicNews, "x")
			synctest.Wait()
			is.NoErr(Publish(ctx, hub, topicNews, "x", "last"))
			short, stop := context.WithTimeout(ctx, time.Minute)
			defer stop()
			is.NoErr(srv.Shutdown(short))
			<-s.done
			<-p.done
			is.Equal(s.take(), []Event[string]{{Value: "last"}})
			is.Equal(CodeOf(s.err), Unavailable)
			is.Equal(CodeOf(p.err), Unavailable)
			synctest.Wait()
			is.NoErr(hub.isEmpty())
		})
	}
}

// idleReader returns nothing and no error so many times before each Read of r;
// without r for ever.
type idleReader struct {
	r     io.Reader
	times int
	n     int
}

func (i *idleReader) Read(p []byte) (int, error) {
	if i.n++; i.r == nil || i.n <= i.times {
		return 0, nil
	}
	i.n = 0
	return i.r.Read(p)
}

// A source that returned nothing and no error was read again for ever, also
// when nobody wanted it any more.
func TestTransfer_sourceWithoutProgress(t *testing.T) {
	up := NewClientStream[Empty, Bytes, int]("test.up")
	down := NewServerStream[Empty, Bytes]("test.down")
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		ctx := t.Context()
		mux := NewMux()
		received, sent := make(chan error, 1), make(chan error, 1)
		HandleClientStream(mux, up, func(_ context.Context, _ Empty, items iter.Seq2[Bytes, error]) (int, error) {
			r, err := NewReader(items, nil)
			var n int64
			if err == nil {
				n, err = io.Copy(io.Discard, r)
			}
			received <- err
			return int(n), err
		})
		HandleServerStream(mux, down, func(_ context.Context, _ Empty, send func(Bytes) error) error {
			err := SendReader(send, &idleReader{}, nil)
			sent <- err
			return err
		})
		c, s, err := dialPipe(ctx, &Server{Mux: mux, Logger: slog.New(slog.DiscardHandler)}, &DialOptions{Dialect: d})
		is.NoErr(err)
		defer c.Close()

		_, err = Upload(ctx, c, up, Empty{}, &idleReader{}, nil)
		is.True(errors.Is(err, io.ErrNoProgress))
		is.True(<-received != nil)

		r, err := Download(ctx, c, down, Empty{}, nil)
		if err == nil { // its head has come
			_, err = io.Copy(io.Discard, r)
		}
		is.True(err != nil)
		is.True(errors.Is(<-sent, io.ErrNoProgress))

		// One that is idle now and then is none of those.
		data := noise(300_000)
		n, err := Upload(ctx, c, up, Empty{}, &idleReader{r: bytes.NewReader(data), times: 20}, nil)
		is.NoErr(err)
		is.NoErr(<-received)
		is.Equal(n, len(data))
		idle(is, c, s)
	})
}
