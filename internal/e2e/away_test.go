package e2e_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/topic"
)

// A server that is away: what fails because of it says so, since when, and why.

var errDown = errors.New("no route to the house")

// leaves is a client whose server has been away for a minute; attempts are refused
// with down.
func leaves(t *testing.T, o typedrpc.DialOptions, down error) (*lab.Town, *lab.Lab, *typedrpc.Conn) {
	t.Helper()
	o.Backoff = lab.Steady
	w, l, c := lab.Reconnected(t, &o)
	t.Cleanup(func() { c.Close() })
	synctest.Wait()
	w.Mu.Lock()
	w.Refuse = func(int) error { return down }
	w.Mu.Unlock()
	w.Cable().Cut()
	time.Sleep(time.Minute)
	synctest.Wait()
	return w, l, c
}

// says is whether err has all of the texts.
func says(t *testing.T, err error, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("no %q in %q", text, err)
		}
	}
}

// awayUses are all ways to use a connection, each as far as its error.
var awayUses = map[string]func(ctx context.Context, c typedrpc.Caller) error{
	"call": func(ctx context.Context, c typedrpc.Caller) error {
		_, err := typedrpc.Call(ctx, c, lab.Echo, 1)
		return err
	},
	"future": func(ctx context.Context, c typedrpc.Caller) error {
		_, err := typedrpc.Go(ctx, c, lab.Echo, 1).Await(context.Background())
		return err
	},
	"retried": func(ctx context.Context, c typedrpc.Caller) error {
		policy := &typedrpc.RetryPolicy{MaxAttempts: 3, Codes: []typedrpc.Code{200}}
		_, err := typedrpc.Call(ctx, c.With(typedrpc.CallOptions{Retry: policy}), lab.Echo, 1)
		return err
	},
	"intercepted": func(ctx context.Context, c typedrpc.Caller) error {
		passes := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
			return next(ctx, r)
		}
		_, err := typedrpc.Call(ctx, c.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{passes}}), lab.Echo, 1)
		return err
	},
	"server stream": func(ctx context.Context, c typedrpc.Caller) error {
		for _, err := range typedrpc.Receive(ctx, c, lab.FlowDown, 1) {
			return err
		}
		return nil
	},
	"client stream": func(ctx context.Context, c typedrpc.Caller) error {
		_, err := typedrpc.SendAll(ctx, c, lab.FlowUp, 1, func(yield func(string, error) bool) {})
		return err
	},
	"bidi stream": func(ctx context.Context, c typedrpc.Caller) error {
		s, err := typedrpc.Open(ctx, c, lab.FlowBoth, "x")
		if err != nil {
			return err
		}
		_, err = s.Recv()
		return err
	},
	"subscription": func(ctx context.Context, c typedrpc.Caller) error {
		for _, err := range topic.Subscribe(ctx, c, lab.TopicNews, "x") {
			return err
		}
		return nil
	},
	"notification": func(ctx context.Context, c typedrpc.Caller) error {
		for {
			if err := typedrpc.Notify(ctx, c, lab.Note, 1); err != nil {
				return err
			}
		}
	},
}

func TestAway_saysWhy(t *testing.T) {
	for name, use := range awayUses {
		for how, fails := range map[string]struct {
			code typedrpc.Code
			text string
			use  func(ctx context.Context, c *typedrpc.Conn) error
		}{
			"deadline": {typedrpc.DeadlineExceeded, "no connection for 1m3s: ", func(ctx context.Context, c *typedrpc.Conn) error {
				ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
				defer cancel()
				return use(ctx, c)
			}},
			"canceled": {typedrpc.Canceled, "no connection for 1m3s: ", func(ctx context.Context, c *typedrpc.Conn) error {
				ctx, cancel := context.WithCancel(ctx)
				time.AfterFunc(3*time.Second, cancel)
				return use(ctx, c)
			}},
			"fails fast": {typedrpc.Unavailable, "no connection for 1m0s: ", func(ctx context.Context, c *typedrpc.Conn) error {
				return use(ctx, c.With(typedrpc.CallOptions{FailFast: true}))
			}},
		} {
			t.Run(name+"/"+how, func(t *testing.T) {
				everyDialect(t, func(t *testing.T, d typedrpc.Dialect) {
					is := is.New(t)
					_, _, c := leaves(t, typedrpc.DialOptions{Dialect: d}, errDown)
					err := fails.use(t.Context(), c)
					says(t, err, fails.code.Error(), fails.text, "cannot connect to ws://town/rpc: ", errDown.Error())
					is.Equal(typedrpc.CodeOf(err), fails.code)
					is.True(errors.Is(err, errDown))
					is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
					for _, code := range []typedrpc.Code{typedrpc.Unavailable, typedrpc.DeadlineExceeded, typedrpc.Canceled} {
						is.Equal(errors.Is(err, code), code == fails.code) // it says how the call ended
					}
				})
			})
		}
	}
}

// What a program said of its context's end is there, too.
func TestAway_causeOfTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		_, _, c := leaves(t, typedrpc.DialOptions{}, errDown)
		bored := errors.New("bored")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(bored) })
		_, err := typedrpc.Call(ctx, c, lab.Echo, 1)
		says(t, err, "canceled: bored; no connection for 1m1s: ")
		is.True(errors.Is(err, bored) && errors.Is(err, errDown) && errors.Is(err, context.Canceled))
	})
}

// Who stops waiting for a call that goes on learns what it waits for.
func TestAway_awaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		_, _, c := leaves(t, typedrpc.DialOptions{}, errDown)
		f := typedrpc.Go(t.Context(), c, lab.Echo, 1)
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, one := f.Await(ctx)
			_, all := typedrpc.All(ctx, f)
			_, first := typedrpc.Any(ctx, f)
			cancel()
			for _, err := range []error{one, all, first} {
				says(t, err, "stopped waiting for ", "; no connection for 1m", errDown.Error())
				is.True(errors.Is(err, errDown) && errors.Is(err, context.DeadlineExceeded))
			}
		}
	})
}

// What was in flight, while its session is kept and when that is lost.
func TestAway_inFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var log lab.Logs
		w, _, c := lab.Reconnected(t, &typedrpc.DialOptions{Backoff: lab.Steady, Limits: typedrpc.Limits{Grace: 30 * time.Second}, Logger: log.Logger()})
		defer time.Sleep(time.Hour) // until the server has given the session up
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		short := typedrpc.Go(ctx, c, lab.Hang, struct{}{})
		long := typedrpc.Go(t.Context(), c, lab.Hang, struct{}{})
		synctest.Wait()
		w.Mu.Lock()
		w.Refuse = func(int) error { return errDown }
		w.Mu.Unlock()
		w.Cable().Cut()
		_, err := short.Await(t.Context())
		says(t, err, "no connection for 10s: cannot connect to ws://town/rpc: ", errDown.Error(), "(may have run)")
		is.True(errors.Is(err, errDown) && errors.Is(err, context.DeadlineExceeded))
		_, err = long.Await(t.Context())
		says(t, err, "connection lost: ", "grace time; cannot connect to ws://town/rpc: ", errDown.Error(), "(may have run)")
		is.True(errors.Is(err, errDown) && errors.Is(err, typedrpc.Unavailable))
		is.True(errors.Is(err, session.ErrGrace))
	})
}

// Before the first attempt is over it is the link's end that is said.
func TestAway_atOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		l.Limits.MaxCalls = 1
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, &typedrpc.DialOptions{Backoff: typedrpc.Backoff{Min: time.Hour, Max: time.Hour}, Limits: typedrpc.Limits{Grace: time.Hour}})
		defer time.Sleep(time.Hour) // until the server has given the session up
		defer c.Close()
		typedrpc.Go(t.Context(), c, lab.Hang, struct{}{})
		fast := c.With(typedrpc.CallOptions{FailFast: true})
		waits := typedrpc.Go(t.Context(), fast, lab.Echo, 1) // for the only place
		synctest.Wait()
		w.Serve(nil)
		w.Cable().Cut()
		_, queued := waits.Await(t.Context())
		_, err := typedrpc.Call(t.Context(), fast, lab.Echo, 1)
		for _, err := range []error{queued, err} {
			says(t, err, "no connection at the moment: ", "the connection to ws://town/rpc ended: ")
			is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
		}
	})
}

// Links that are there say nothing, and what was said of an earlier outage is over.
func TestAway_back(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, _, c := leaves(t, typedrpc.DialOptions{}, errDown)
		w.Mu.Lock()
		w.Refuse = nil
		w.Mu.Unlock()
		time.Sleep(time.Minute)
		ctx, cancel := context.WithCancel(t.Context()) // a deadline would pass at both ends in one moment
		defer time.AfterFunc(time.Second, cancel).Stop()
		_, err := typedrpc.Call(ctx, c, lab.Hang, struct{}{})
		is.Equal(err.Error(), "canceled (may have run)")
		is.True(!errors.Is(err, errDown))
	})
}

// An answer of HTTP is in the chain, and so is what a server said to HELLO.
func TestAway_refusals(t *testing.T) {
	full := &typedrpc.UpgradeError{Status: http.StatusServiceUnavailable, Body: "full house"}
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		_, _, c := leaves(t, typedrpc.DialOptions{}, full)
		_, err := typedrpc.Call(t.Context(), c.With(typedrpc.CallOptions{FailFast: true}), lab.Echo, 1)
		says(t, err, "the server answered 503 Service Unavailable: full house")
		var u *typedrpc.UpgradeError
		is.True(errors.As(err, &u))
		is.Equal(u.Status, 503)
	})
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		_, c := lab.Scripted(t, &typedrpc.DialOptions{Backoff: lab.Steady}, func(n int, p *testkit.Peer) {
			if n == 1 {
				p.Welcome()
				p.T.Kill()
				return
			}
			p.Refuse(int64(typedrpc.ResourceExhausted), session.CloseOverload)
		})
		defer c.Close()
		time.Sleep(time.Minute)
		_, err := typedrpc.Call(t.Context(), c.With(typedrpc.CallOptions{FailFast: true}), lab.Echo, 1)
		says(t, err, "unavailable: no connection for 1m0s: resource exhausted")
		is.True(errors.Is(err, typedrpc.ResourceExhausted))
		var ce *typedrpc.CloseError
		is.True(errors.As(err, &ce))
		is.Equal(ce.Code, session.CloseOverload)
	})
}

// A connection that was given up says why to what waited, and to what comes later.
func TestAway_givenUp(t *testing.T) {
	for name, tt := range map[string]struct {
		o    typedrpc.DialOptions
		down error
		text string
		is   error
	}{
		"attempts":    {typedrpc.DialOptions{MaxAttempts: 3}, errDown, "unavailable: cannot connect to ws://town/rpc: " + errDown.Error(), errDown},
		"not allowed": {typedrpc.DialOptions{}, &typedrpc.UpgradeError{Status: 401, Body: "who?"}, "the server answered 401 Unauthorized: who?", typedrpc.Unauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				tt.o.Backoff = lab.Steady
				w, _, c := lab.Reconnected(t, &tt.o)
				synctest.Wait()
				w.Mu.Lock()
				w.Refuse = func(int) error { return tt.down }
				w.Mu.Unlock()
				w.Cable().Cut()
				_, waited := typedrpc.Call(t.Context(), c, lab.Echo, 1)
				<-c.Context().Done()
				says(t, c.Err(), tt.text)
				says(t, waited, tt.text)
				is.True(errors.Is(waited, tt.is))
				_, err := typedrpc.Call(t.Context(), c, lab.Echo, 1)
				says(t, err, ": the connection is closed: ", strings.TrimPrefix(tt.text, "unavailable: "))
				is.True(errors.Is(err, tt.is))
				told := typedrpc.Notify(t.Context(), c, lab.Note, 1)
				says(t, told, "the connection is closed: ")
				_, opened := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
				_, gone := typedrpc.Go(t.Context(), c, lab.Echo, 1).Await(t.Context())
				for _, err := range []error{waited, err, told, opened, gone} { // one fact, one code
					is.Equal(typedrpc.CodeOf(err), typedrpc.CodeOf(c.Err()))
					is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
				}
			})
		})
	}
}

// Each address is named with what became of it.
func TestAway_severalURLs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		errs := map[string]error{"a": errors.New("a is down"), "b": errors.New("b is down"), "c": &typedrpc.UpgradeError{Status: 503, Body: "c is full"}}
		refusing := func(name string) *lab.Town { return &lab.Town{Refuse: func(int) error { return errs[name] }} }
		urls := []string{"ws://b/", "ws://c/"}
		all := func(err error) {
			t.Helper()
			for name, e := range errs {
				says(t, err, "cannot connect to ws://"+name+"/: ", name+" is ")
				var u *typedrpc.UpgradeError
				is.True(errors.Is(err, e) || name == "c" && errors.As(err, &u) && u.Status == 503)
			}
		}
		for range 10 { // orders
			a := lab.NewAtlas(refusing("a"), refusing("b"), refusing("c"))
			_, err := a.TryDial(t.Context(), "ws://a/", &typedrpc.DialOptions{URLs: urls})
			all(err)
		}
		_, towns := lab.NewTowns(3)
		a := lab.NewAtlas(towns...)
		c := a.Dial(t, &typedrpc.DialOptions{Backoff: lab.Steady, URLs: urls})
		defer c.Close()
		synctest.Wait()
		for i, name := range []string{"a", "b", "c"} {
			w := towns[i]
			w.Mu.Lock()
			w.Refuse = func(int) error { return errs[name] }
			w.Mu.Unlock()
			if len(w.Lines) > 0 {
				w.Cable().Cut()
			}
		}
		time.Sleep(10 * time.Second)
		_, err := typedrpc.Call(t.Context(), c.With(typedrpc.CallOptions{FailFast: true}), lab.Echo, 1)
		says(t, err, "no connection for 10s: ")
		all(err)
	})
}

// OnState is told of each attempt what the last one ended with.
func TestAway_state(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var seen lab.Watch
		_, _, c := leaves(t, typedrpc.DialOptions{OnState: seen.On}, errDown)
		_, err := typedrpc.Call(t.Context(), c.With(typedrpc.CallOptions{FailFast: true}), lab.Echo, 1)
		all := seen.Seen()
		for i, s := range all[2:] {
			is.True(s.Err != nil)
			is.Equal(errors.Is(s.Err, errDown), i > 1)
			is.Equal(s.Since, all[2].Since)
		}
		is.Equal(time.Since(all[2].Since), time.Minute)
		is.True(errors.Is(err, all[len(all)-1].Err)) // the very error
	})
}

// A Dial that is out of time says what it was waiting for.
func TestAway_dial(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		silent := &lab.Town{Script: func(_ int, p *testkit.Peer) {
			if d == typedrpc.Text {
				p.Dialect = session.JSON
			}
			p.CloseCode()
		}, Names: func() string {
			if d == typedrpc.Text {
				return testkit.HelloProtocol
			}
			return testkit.BinaryProtocol
		}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := silent.TryDial(ctx, &typedrpc.DialOptions{Dialect: d})
		says(t, err, "deadline exceeded: no handshake with ws://town/rpc")
		is.True(errors.Is(err, context.DeadlineExceeded))

		a := lab.NewAtlas(nil, &lab.Town{Refuse: func(int) error { return errDown }})
		a.Hangs["ws://a/"] = true
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for range 20 {
			_, err = a.TryDial(ctx, "ws://a/", &typedrpc.DialOptions{URLs: []string{"ws://b/"}})
			if errors.Is(err, errDown) {
				break
			}
			ctx, cancel = context.WithTimeout(t.Context(), time.Second)
			defer cancel()
		}
		says(t, err, "deadline exceeded: no answer of ws://a/; cannot connect to ws://b/: "+errDown.Error())
		is.True(!errors.Is(err, typedrpc.Unavailable))
	})
}

// A peer that leaves is not away, and says so.
func TestAway_drains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		goaway := wire.GoAwayBody{Min: 1, Max: 10}
		_, c := lab.Scripted(t, &typedrpc.DialOptions{Backoff: lab.Steady}, func(_ int, p *testkit.Peer) {
			p.Until(wire.Hello)
			welcome := wire.WelcomeBody{Token: "token", Features: []string{"streams"}}
			p.Send(wire.Frame{Type: wire.Welcome, Payload: welcome.Append(nil)})
			p.Until(wire.Call)
			p.Send(wire.Frame{Type: wire.GoAway, Payload: goaway.Append(nil)})
			p.CloseCode()
		})
		typedrpc.Go(t.Context(), c, lab.Hang, struct{}{})
		synctest.Wait()
		time.Sleep(2 * time.Second)
		for name, use := range awayUses {
			if name == "notification" {
				continue // it is taken
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err := use(ctx, c)
			cancel()
			says(t, err, "deadline exceeded: the peer has been shutting down for ")
			is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
		}
		is.NoErr(c.Close())
	})
}

// On a server the same is true of a client that is away.
func TestAway_client(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		conns := make(chan *typedrpc.Conn, 1)
		l := lab.New()
		l.OnConnect = func(c *typedrpc.Conn) { conns <- c }
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, &typedrpc.DialOptions{Backoff: typedrpc.Backoff{Min: time.Hour, Max: time.Hour}, Limits: typedrpc.Limits{Grace: time.Hour}})
		defer time.Sleep(time.Hour) // until the server has given the session up
		defer c.Close()
		server := <-conns
		gone(w)
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := typedrpc.Call(ctx, server, lab.Echo, 1)
		says(t, err, "deadline exceeded: no connection for 2s: ", "link lost")
		_, err = typedrpc.Call(t.Context(), server.With(typedrpc.CallOptions{FailFast: true}), lab.Echo, 1)
		says(t, err, "unavailable: no connection for 2s: ", "link lost")
		is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
	})
}

// The callers of a proxy learn that there is no connection, and nothing of the hosts behind
// it.
func TestAway_forward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		_, _, behind := leaves(t, typedrpc.DialOptions{}, errDown)
		mux := typedrpc.NewMux()
		mux.HandleFallback(func(ctx context.Context, r *typedrpc.Request) (typedrpc.Raw, error) {
			raw, err := typedrpc.Forward(ctx, behind.With(typedrpc.CallOptions{FailFast: true}), r)
			is.True(errors.Is(err, errDown)) // here it is known
			return raw, err
		})
		c, _ := lab.Over{}.Connect(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{})
		defer c.Close()
		_, err := typedrpc.Call(t.Context(), c, lab.Echo, 1)
		is.Equal(err.Error(), "unavailable: no connection for 1m0s")
		for _, err := range typedrpc.Receive(t.Context(), c, lab.FlowDown, 1) {
			is.Equal(err.Error(), "unavailable: no connection for 1m0s")
		}
	})
}

// Over the real thing: the error of the socket is in the chain, and no secret of the
// address in any text.
func TestAway_socket(t *testing.T) {
	is := is.New(t)
	l := lab.New()
	srv := httptest.NewServer(l.Server)
	defer srv.Close()
	u, err := url.Parse(srv.URL)
	is.NoErr(err)
	u.Scheme, u.User, u.RawQuery = "ws", url.UserPassword("ann", "hunter2"), "token=hunter3"
	down := make(chan error, 100)
	c, err := typedrpc.Dial(t.Context(), u.String(), &typedrpc.DialOptions{
		Limits: typedrpc.Limits{Grace: -1}, Backoff: typedrpc.Backoff{Min: time.Millisecond, Max: time.Millisecond},
		OnState: func(s typedrpc.StateChange) {
			if s.State == typedrpc.StateWaiting {
				select {
				case down <- s.Err:
				default:
				}
			}
		},
	})
	is.NoErr(err)
	defer c.Close()
	l.Server.Shutdown(t.Context())
	srv.Close()
	for !errors.Is(<-down, syscall.ECONNREFUSED) {
	}
	_, err = typedrpc.Call(t.Context(), c.With(typedrpc.CallOptions{FailFast: true}), lab.Echo, 1)
	says(t, err, "no connection", "cannot connect to ws://"+u.Host+": ", "connection refused")
	is.True(errors.Is(err, syscall.ECONNREFUSED))
	var op *net.OpError
	is.True(errors.As(err, &op))
	_, again := typedrpc.Dial(t.Context(), u.String(), nil)
	is.True(errors.Is(again, syscall.ECONNREFUSED))
	for _, err := range []error{err, again} {
		is.True(!strings.Contains(err.Error(), "hunter"))
	}
}
