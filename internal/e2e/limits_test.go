package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

func TestMaxSize(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		small := typedrpc.NewMethod[string, string]("small", typedrpc.MaxSize(100))
		note := typedrpc.NewNotification[string]("note", typedrpc.MaxSize(100))
		ran := make(chan string, 10)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, small, func(_ context.Context, s string) (string, error) {
			ran <- s
			return strings.Repeat(s, 60), nil
		})
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)

		got, err := typedrpc.Call(t.Context(), client, small, "x")
		is.NoErr(err)
		is.Equal(len(got), 60)
		is.Equal(<-ran, "x")

		_, err = typedrpc.Call(t.Context(), client, small, strings.Repeat("x", 100)) // with quotes it is 102
		is.True(errors.Is(err, typedrpc.ResourceExhausted))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		is.Equal(len(ran), 0)

		_, err = typedrpc.Call(t.Context(), client, small, "xx")
		is.True(errors.Is(err, typedrpc.ResourceExhausted)) // the response of 122 bytes
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.Answered)

		err = typedrpc.Notify(t.Context(), client, note, strings.Repeat("x", 100))
		is.True(errors.Is(err, typedrpc.ResourceExhausted))
	})
}

func TestMaxSize_checkedByReceiver(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		// The same names, declared without a bound by a careless client.
		strict := typedrpc.NewMethod[string, string]("x.call", typedrpc.MaxSize(10))
		loose := typedrpc.NewMethod[string, string]("x.call")
		strictNote := typedrpc.NewNotification[string]("x.note", typedrpc.MaxSize(10))
		looseNote := typedrpc.NewNotification[string]("x.note")
		noted := make(chan string, 2)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, strict, lab.HandleShout)
		typedrpc.Handle(mux, strictNote, func(_ context.Context, s string) error { noted <- s; return nil })
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		_, err := typedrpc.Call(t.Context(), client, loose, "0123456789")
		is.True(errors.Is(err, typedrpc.ResourceExhausted))
		is.NoErr(typedrpc.Notify(t.Context(), client, looseNote, "0123456789"))
		is.NoErr(typedrpc.Notify(t.Context(), client, looseNote, "ok"))
		is.Equal(<-noted, "ok") // the large one was dropped
	})
}

func TestLimits_tooBigFailsTheCall(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		grow := typedrpc.NewMethod[int, string]("grow")
		note := typedrpc.NewNotification[string]("note")
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, grow, func(_ context.Context, n int) (string, error) { return strings.Repeat("x", n), nil })
		typedrpc.Handle(mux, lab.Shout, lab.HandleShout)
		limits := typedrpc.Limits{MaxMessage: 10_000}
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux, Limits: limits}, &typedrpc.DialOptions{Limits: limits})
		big := strings.Repeat("x", 20_000)

		_, err := typedrpc.Call(t.Context(), client, lab.Shout, big)
		is.True(errors.Is(err, typedrpc.ResourceExhausted))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent) // refused locally
		_, err = typedrpc.Call(t.Context(), client, grow, len(big))
		is.True(errors.Is(err, typedrpc.ResourceExhausted))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.Answered)
		err = typedrpc.Notify(t.Context(), client, note, big)
		is.True(errors.Is(err, typedrpc.ResourceExhausted))
		_, err = typedrpc.Go(t.Context(), client, lab.Shout, big).Await(t.Context())
		is.True(errors.Is(err, typedrpc.ResourceExhausted))

		got, err := typedrpc.Call(t.Context(), client, grow, 9_000)
		is.NoErr(err) // the link never broke
		is.Equal(len(got), 9_000)
		is.Equal(client.State(), typedrpc.StateConnected)
	})
}

func TestLimits_bytesInFlight(t *testing.T) {
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		var running, most atomic.Int32
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Shout, func(_ context.Context, s string) (string, error) {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			return s[:1], nil
		})
		// Two requests of 9,000 bytes are more than the server holds: the
		// client waits with the second.
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux, Limits: typedrpc.Limits{MaxBuffered: 10_000}}, nil)
		var futures []*typedrpc.Future[string]
		for range 20 {
			futures = append(futures, typedrpc.Go(t.Context(), client, lab.Shout, strings.Repeat("x", 9_000)))
		}
		_, err := typedrpc.All(t.Context(), futures...)
		is.NoErr(err) // none was refused
		is.Equal(most.Load(), int32(1))
	})
}

func TestLimits_callersWait(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		var running, most atomic.Int32
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Ask, func(_ context.Context, n int) (int, error) {
			now := running.Add(1)
			for {
				seen := most.Load()
				if now <= seen || most.CompareAndSwap(seen, now) {
					break
				}
			}
			defer running.Add(-1)
			return n, nil
		})
		limits := typedrpc.Limits{MaxCalls: 2}
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux, Limits: limits}, &typedrpc.DialOptions{Limits: limits})
		var futures []*typedrpc.Future[int]
		for i := range 200 {
			futures = append(futures, typedrpc.Go(t.Context(), client, lab.Ask, i))
		}
		got, err := typedrpc.All(t.Context(), futures...)
		is.NoErr(err) // none was refused
		is.Equal(got[199], 199)
		is.True(most.Load() <= 2)
	})
}

func TestLimits_waitingEndsWithContext(t *testing.T) {
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		h := lab.NewHanging()
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Stay, h.Handle)
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux, Limits: typedrpc.Limits{MaxCalls: 1}}, nil)
		first := typedrpc.Go(t.Context(), client, lab.Stay, struct{}{})
		<-h.Begun
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := typedrpc.Call(ctx, client, lab.Stay, struct{}{})
		is.True(errors.Is(err, context.DeadlineExceeded))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		first.Cancel()
		<-h.Ended
		is.Equal(len(h.Begun), 0)
	})
}

func TestLimits_handlersDoNotWait(t *testing.T) {
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		h := lab.NewHanging()
		serverMux, clientMux := typedrpc.NewMux(), typedrpc.NewMux()
		typedrpc.Handle(clientMux, lab.Stay, h.Handle)
		typedrpc.Handle(clientMux, lab.Shout, lab.HandleShout)
		typedrpc.Handle(serverMux, lab.Shout, func(ctx context.Context, s string) (string, error) {
			return typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), lab.Shout, s)
		})
		client, server := o.Connect(t, &typedrpc.Server{Mux: serverMux},
			&typedrpc.DialOptions{Mux: clientMux, Limits: typedrpc.Limits{MaxCalls: 1}})
		busy := typedrpc.Go(t.Context(), server, lab.Stay, struct{}{})
		<-h.Begun
		_, err := typedrpc.Call(t.Context(), client, lab.Shout, "x")
		e := lab.AsError(t, err)
		is.Equal(e.Code, typedrpc.ResourceExhausted)
		is.Equal(e.Outcome, typedrpc.Answered)
		is.True(strings.Contains(e.Message, "a handler of the same connection must not wait"))
		busy.Cancel()
		<-h.Ended
	})
}

// What was sent and is not acknowledged counts in what may wait for the socket.
func TestLimits_unackedCountsInMaxBuffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		l.Limits = typedrpc.Limits{MaxBuffered: 128 << 10, MaxUnacked: 64 << 10}
		accepted := make(chan *typedrpc.Conn, 1)
		l.OnConnect = func(c *typedrpc.Conn) { accepted <- c }
		p, err := testkit.Join(l.Server, testkit.BinaryProtocol)
		is.NoErr(err)
		h := testkit.HelloOf(1)
		h.Limits.Window = 1 << 20
		is.NoErr(p.Send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
		_, err = p.Until(wire.Welcome)
		is.NoErr(err)
		is.NoErr(p.Send(wire.Frame{Type: wire.Ack}))
		c := <-accepted
		text := typedrpc.NewNotification[string]("test.text")
		sent := 0
		for { // to a peer that acknowledges nothing
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err := typedrpc.Notify(ctx, c, text, strings.Repeat("x", 4000))
			cancel()
			if err != nil {
				break
			}
			sent += 4000
			synctest.Wait()
		}
		is.True(sent > 110<<10)
		is.True(sent < 140<<10)
		p.T.Kill()
		synctest.Wait()
		l.Revoke("", nil)
	})
}

// Honest concurrent large requests were refused because nobody said how many
// bytes the server holds at once.
func TestLimits_budgetIsWaitedFor(t *testing.T) {
	upload := typedrpc.NewMethod[[]byte, int]("upload")
	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text} {
		for _, load := range []struct{ n, size int }{{16, 1 << 20}, {256, 64 << 10}} {
			if d == typedrpc.Text && load.n > 16 {
				continue // the same, and slow under -race
			}
			t.Run(fmt.Sprint(d, "/", load.n), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					is := is.New(t)
					l := lab.New()
					typedrpc.Handle(l.Mux, upload, func(_ context.Context, b []byte) (int, error) {
						time.Sleep(200 * time.Millisecond)
						return len(b), nil
					})
					c, _, err := typedrpctest.Dial(l.Server, &typedrpc.DialOptions{Dialect: d})
					is.NoErr(err)
					defer c.Close()
					var fs []*typedrpc.Future[int]
					for range load.n {
						fs = append(fs, typedrpc.Go(t.Context(), c, upload, make([]byte, load.size)))
					}
					for _, f := range fs {
						n, err := f.Await(t.Context())
						is.NoErr(err)
						is.Equal(n, load.size)
					}
				})
			})
		}
	}
}

// A call in flight that is cancelled keeps its bytes until the server is done
// with them, and a request larger than the budget goes alone.
func TestLimits_budgetOfCancelledCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		upload := typedrpc.NewMethod[string, struct{}]("upload")
		l := lab.New()
		l.Limits.MaxBuffered = 10_000
		var most, now atomic.Int64
		typedrpc.Handle(l.Mux, upload, func(context.Context, string) (struct{}, error) {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Second) // whether or not somebody waits for it
			now.Add(-1)
			return struct{}{}, nil
		})
		c, _, err := typedrpctest.Dial(l.Server, nil)
		is.NoErr(err)
		defer c.Close()
		for range 4 {
			f := typedrpc.Go(t.Context(), c, upload, strings.Repeat("x", 4000))
			synctest.Wait()
			f.Cancel()
		}
		_, err = typedrpc.Call(t.Context(), c, upload, strings.Repeat("x", 9000))
		is.NoErr(err)
		_, err = typedrpc.Call(t.Context(), c, upload, strings.Repeat("x", 50_000))
		is.NoErr(err)
		is.Equal(most.Load(), int64(2)) // of 4,000 bytes each
	})
}

// A WELCOME or HELLO that announces nothing announced limits of 0, and nothing
// could be sent.
func TestLimits_announcedByNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		_, c := lab.Scripted(t, nil, func(_ int, p *testkit.Peer) {
			p.Until(wire.Hello)
			p.Answers = true
			w := wire.WelcomeBody{Token: "token"}
			p.Send(wire.Frame{Type: wire.Welcome, Payload: w.Append(nil)})
			f, _ := p.Until(wire.Call)
			p.Send(wire.Frame{Type: wire.Result, ID: f.ID, Payload: f.Payload})
			p.CloseCode()
		})
		defer c.Close()
		n, err := typedrpc.Call(t.Context(), c, lab.Echo, 7)
		is.NoErr(err)
		is.Equal(n, 7)
	})
}

// Plain peers, which are told no limit, were closed with 4429 when they passed
// it often enough.
func TestLimits_plainPeerIsOnlyRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		l.Limits.MaxCalls = 4
		p, err := testkit.Join(l.Server, "")
		is.NoErr(err)
		is.Equal(p.Dialect, session.Plain)
		for i := range 2 * testkit.FloodBurst {
			is.NoErr(p.Write(fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%d,"method":"lab.hang"}`, i)))
			if i < 4 {
				continue
			}
			f, err := p.Until(wire.Fail)
			is.NoErr(err)
			is.Equal(string(f.RawID), fmt.Sprint(i))
			is.Equal(typedrpc.Code(f.Code), typedrpc.ResourceExhausted)
		}
		is.Equal(l.Hung.Load(), int64(4))
		close(l.Release)
		for range 4 {
			f, err := p.Until(wire.Result)
			is.NoErr(err)
			is.True(len(f.RawID) == 1)
		}
		is.NoErr(p.Write([]byte(`{"jsonrpc":"2.0","id":"last","method":"lab.echo","params":[5]}`)))
		f, err := p.Next()
		is.NoErr(err)
		is.Equal(string(f.Payload), "5")
		p.T.Kill()
	})
}

// Only the bytes of replies counted in the budget: a peer that read slowly made
// the server keep a million small ones, with all that belonged to their calls.
func TestLimits_smallRepliesCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		l.Limits.MaxBuffered = 64 << 10
		p, err := testkit.Join(l.Server, testkit.BinaryProtocol)
		is.NoErr(err)
		defer p.T.Kill()
		_, err = p.Hello()
		is.NoErr(err)
		var c *typedrpc.Conn
		for conn := range l.Conns() {
			c = conn
		}
		for id := range uint64(100_000) { // nothing is read
			is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: id + 1, Method: "lab.echo", Payload: []byte("1")}))
			synctest.Wait()
			if s := hook.Conn(c); s.Parked > 0 {
				is.True(s.Queue <= 64) // 64 KiB, at a kibibyte for each
				return
			}
		}
		t.Error("the server goes on for a peer that reads nothing")
	})
}

// A peer that made calls and read no answer had as many run as it liked, each
// holding its reply.
func TestLimits_unreadRepliesStopNewCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		big := typedrpc.NewMethod[struct{}, string]("big")
		l := lab.New()
		l.Limits.MaxBuffered = 128 << 10
		var ran atomic.Int64
		typedrpc.Handle(l.Mux, big, func(context.Context, struct{}) (string, error) {
			ran.Add(1)
			return strings.Repeat("x", 64<<10), nil
		})
		p, err := testkit.Join(l.Server, testkit.BinaryProtocol)
		is.NoErr(err)
		defer p.T.Kill()
		_, err = p.Hello()
		is.NoErr(err)
		const calls = 200
		for id := range uint64(calls) {
			is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: id + 1, Method: "big"}))
			synctest.Wait()
		}
		is.True(ran.Load() < 20) // what the pipe and the writer hold, and twice 128 KiB
		for range calls {        // they begin as their predecessors' replies are read
			_, err = p.Until(wire.Result)
			is.NoErr(err)
		}
		is.Equal(ran.Load(), int64(calls))
	})
}

// The answers that a batch had already did not count while one of its calls was
// still running.
func TestLimits_unfinishedBatchesStopNewCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		big := typedrpc.NewMethod[struct{}, string]("big")
		l := lab.New()
		l.Limits.MaxBuffered = 256 << 10
		all := make(chan struct{}) // have begun, before the first reply makes it crowded
		typedrpc.Handle(l.Mux, big, func(context.Context, struct{}) (string, error) {
			<-all
			return strings.Repeat("x", 60_000), nil
		})
		p, err := testkit.Join(l.Server, "")
		is.NoErr(err)
		defer p.T.Kill()
		const batch = `[{"jsonrpc":"2.0","id":3,"method":"lab.hang"},{"jsonrpc":"2.0","id":1,"method":"big"},{"jsonrpc":"2.0","id":2,"method":"big"}]`
		const single = `{"jsonrpc":"2.0","id":4,"method":"lab.echo","params":[7]}`
		for range 2 {
			is.NoErr(p.Write([]byte(batch)))
			synctest.Wait()
		}
		close(all)
		time.Sleep(time.Second) // by now it is known what they answer
		is.NoErr(p.Write([]byte(`[{"jsonrpc":"2.0","id":5,"method":"big"}]`)))
		f, err := p.Next()
		is.NoErr(err)
		is.Equal(f.Type, wire.Fail) // a batch cannot wait for itself
		is.Equal(typedrpc.Code(f.Code), typedrpc.ResourceExhausted)
		is.NoErr(p.Write([]byte(single)))
		synctest.Wait()
		close(l.Release)
		began := false
		for range 2*3 + 1 { // in any order
			f, err = p.Next()
			is.NoErr(err)
			is.Equal(f.Type, wire.Result)
			began = began || string(f.Payload) == "7"
		}
		is.True(began) // when there was room
	})
}
