package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
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

// What one peer cannot take is that peer's alone.

var (
	takeNote = typedrpc.NewNotification[typedrpc.Raw]("take.note")
	takeOnce = typedrpc.NewNotification[tallied]("take.once")
	takeAsk  = typedrpc.NewMethod[typedrpc.Raw, int]("take.ask", typedrpc.Idempotent)
	takeFlow = typedrpc.NewServerStream[typedrpc.Raw, int]("take.flow")
	takeNews = topic.New[typedrpc.Raw]("take.news")

	deep = typedrpc.Raw(`[[[[{"a":[1]}]]]]`) // six levels
	long = typedrpc.Raw(`"` + strings.Repeat("x", 3000) + `"`)
)

// tallied counts how often it is encoded.
type tallied struct{ n *atomic.Int32 }

func (c tallied) MarshalJSON() ([]byte, error) {
	if c.n == nil {
		return []byte("null"), nil
	}
	c.n.Add(1)
	return []byte(deep), nil
}

func (c *tallied) UnmarshalJSON([]byte) error { return nil }

// taker is a peer, and what it has taken.
type taker struct {
	near, far *typedrpc.Conn // near calls
	mu        sync.Mutex
	got       []string
	ask       func(ctx context.Context) error
}

func (k *taker) took(m typedrpc.Raw) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.got = append(k.got, nameOf(m))
}

// nameOf is which message m is, as it was or in the list of a JSON-RPC request.
func nameOf(m typedrpc.Raw) string {
	switch {
	case bytes.Contains(m, []byte("a")):
		return "deep"
	case bytes.Contains(m, []byte("x")):
		return "long"
	}
	return "other"
}

func (k *taker) taken() []string {
	synctest.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.got)
}

func (k *taker) mux() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Ask, func(_ context.Context, n int) (int, error) { return n, nil })
	typedrpc.Handle(mux, takeNote, func(_ context.Context, m typedrpc.Raw) error { k.took(m); return nil })
	typedrpc.Handle(mux, takeOnce, func(context.Context, tallied) error { k.took(nil); return nil })
	typedrpc.Handle(mux, takeAsk, func(ctx context.Context, m typedrpc.Raw) (int, error) {
		if k.ask != nil {
			if err := k.ask(ctx); err != nil {
				return 0, err
			}
		}
		k.took(m)
		return 7, nil
	})
	typedrpc.Handle(mux, takeFlow, func(_ context.Context, m typedrpc.Raw, _ func(int) error) error { k.took(m); return nil })
	return mux
}

// newTaker connects a peer that takes what limits say, called by a client or a server.
func newTaker(t *testing.T, d typedrpc.Dialect, down bool, limits typedrpc.Limits) *taker {
	t.Helper()
	k := new(taker)
	srv := lab.New().Server
	o := &typedrpc.DialOptions{Dialect: d}
	var near *typedrpc.Limits
	if down {
		srv.Mux, o.Mux, o.Limits, near = nil, k.mux(), limits, &srv.Limits
	} else {
		srv.Mux, srv.Limits, near = k.mux(), limits, &o.Limits
	}
	if d == typedrpc.JSONRPC { // who announces nothing is taken to be as we are
		*near = limits
	}
	c, s, err := typedrpctest.Dial(srv, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	k.near, k.far = c, s
	if down {
		k.near, k.far = s, c
	}
	return k
}

// alive reports that the connection is as it was.
func (k *taker) alive(t *testing.T) {
	t.Helper()
	n, err := typedrpc.Call(t.Context(), k.near, lab.Ask, 7)
	if err != nil || n != 7 {
		t.Errorf("the connection is gone: %v", err)
	}
}

func eachWay(t *testing.T, test func(t *testing.T, d typedrpc.Dialect, down bool)) {
	t.Helper()
	for name, d := range map[string]typedrpc.Dialect{"binary": typedrpc.Binary, "jsonrpc": typedrpc.Text, "plain": typedrpc.JSONRPC} {
		for _, down := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/toClient=%v", name, down), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { test(t, d, down) })
			})
		}
	}
}

func callers(ks []*taker, o *typedrpc.CallOptions) func(func(typedrpc.Caller) bool) {
	return func(yield func(typedrpc.Caller) bool) {
		for _, k := range ks {
			c := typedrpc.Caller(k.near)
			if o != nil {
				c = k.near.With(*o)
			}
			if !yield(c) {
				return
			}
		}
	}
}

func TestTakes_broadcastFailsForThoseWhoCannot(t *testing.T) {
	passes := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		return next(ctx, r)
	}
	eachWay(t, func(t *testing.T, d typedrpc.Dialect, down bool) {
		for what, o := range map[string]*typedrpc.CallOptions{"plainly": nil, "intercepted": {Interceptors: []typedrpc.Interceptor{passes}}} {
			for _, first := range []int{0, 1, 2} { // whoever is served first
				is := is.New(t)
				ks := []*taker{
					newTaker(t, d, down, typedrpc.Limits{}),
					newTaker(t, d, down, typedrpc.Limits{MaxDepth: 5}),
					newTaker(t, d, down, typedrpc.Limits{MaxMessage: 2000}),
					newTaker(t, d, down, typedrpc.Limits{MaxDepth: 6, MaxMessage: 4000}),
				}
				order := slices.Concat(ks[first:], ks[:first])

				err := typedrpc.Broadcast(t.Context(), callers(order, o), takeNote, deep)
				shallow := d != typedrpc.Binary // in which nobody asks for depth
				is.Equal(err != nil, shallow)
				if shallow {
					e := lab.AsError(t, err)
					is.Equal(e.Code, typedrpc.InvalidArgument)
					is.Equal(e.Outcome, typedrpc.NotSent)
					is.True(strings.Contains(e.Message, "nests 6 levels, which is too deep: the peer reads 5"))
					is.Equal(len(ks[1].taken()), 0)
				}
				err = typedrpc.Broadcast(t.Context(), callers(order, o), takeNote, long)
				e := lab.AsError(t, err)
				is.Equal(e.Code, typedrpc.ResourceExhausted)
				is.Equal(e.Outcome, typedrpc.NotSent)
				if got := ks[2].taken(); !slices.Equal(got, []string{"deep"}) {
					t.Errorf("%s: %d, %.20q", what, len(got), got)
				}
				is.Equal(ks[0].taken(), []string{"deep", "long"})
				is.Equal(ks[3].taken(), []string{"deep", "long"})
				for _, k := range ks {
					k.alive(t)
				}
			}
		}
	})
}

func TestTakes_broadcastEncodesOnce(t *testing.T) {
	eachWay(t, func(t *testing.T, d typedrpc.Dialect, down bool) {
		is := is.New(t)
		var ks []*taker
		for i := range 20 {
			ks = append(ks, newTaker(t, d, down, typedrpc.Limits{MaxDepth: 1 + i}))
		}
		m := tallied{new(atomic.Int32)}
		typedrpc.Broadcast(t.Context(), callers(ks, nil), takeOnce, m)
		is.Equal(m.n.Load(), int32(1))
		for i, k := range ks {
			is.Equal(len(k.taken()) == 1, d == typedrpc.Binary || 1+i >= 6)
			k.alive(t)
		}
		// What cannot be encoded at all is not tried for each.
		err := typedrpc.Broadcast(t.Context(), callers(ks, nil), takeNote, typedrpc.Raw("{"))
		is.True(err != nil)
	})
}

// A retry may go to a peer that takes less, or speaks another dialect.
func TestTakes_retriesAreCheckedForTheNextPeer(t *testing.T) {
	for _, from := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text, typedrpc.JSONRPC} {
		for _, to := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text, typedrpc.JSONRPC} {
			for _, down := range []bool{false, true} {
				t.Run(fmt.Sprint(from, to, down), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						is := is.New(t)
						roomy := newTaker(t, from, down, typedrpc.Limits{})
						roomy.near.Close() // the first attempt is made there, and not sent
						small := newTaker(t, to, down, typedrpc.Limits{MaxDepth: 5, MaxMessage: 2000})
						large := newTaker(t, to, down, typedrpc.Limits{})
						var next *taker
						attempts := 0
						c := typedrpc.Pick(func(context.Context, string) (*typedrpc.Conn, error) {
							if attempts++; attempts == 1 {
								return roomy.near, nil
							}
							return next.near, nil
						}).With(typedrpc.CallOptions{Retry: &typedrpc.RetryPolicy{Budget: &typedrpc.RetryBudget{Burst: 1000}}})

						for _, m := range []typedrpc.Raw{deep, long} {
							for _, call := range []func() (int, error){
								func() (int, error) { return typedrpc.Call(t.Context(), c, takeAsk, m) },
								func() (int, error) { return typedrpc.Go(t.Context(), c, takeAsk, m).Await(t.Context()) },
							} {
								attempts, next = 0, small
								_, err := call()
								is.Equal(attempts, 2)
								if string(m) == string(deep) && to == typedrpc.Binary {
									is.NoErr(err)
								} else {
									e := lab.AsError(t, err)
									is.Equal(e.Code, map[bool]typedrpc.Code{true: typedrpc.InvalidArgument, false: typedrpc.ResourceExhausted}[string(m) == string(deep)])
								}
								small.alive(t)
								attempts, next = 0, large
								n, err := call()
								is.NoErr(err)
								is.Equal(n, 7)
							}
						}
					})
				})
			}
		}
	}
}

// What waits for a link is checked for the server that it comes to.
func TestTakes_nextSessionIsAskedAnew(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		var log lab.Logs
		before, after := new(taker), new(taker)
		gone := make(chan struct{})
		before.ask = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		l := lab.New()
		l.Server.Mux = before.mux()
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, &typedrpc.DialOptions{Dialect: d, Backoff: lab.Steady, Logger: log.Logger()})
		defer c.Close()
		inFlight := typedrpc.Go(t.Context(), c, takeAsk, deep) // Idempotent: it is sent again
		synctest.Wait()
		w.Serve(nil)
		w.Cable().Cut()
		synctest.Wait()

		waiting := []*typedrpc.Future[int]{inFlight, typedrpc.Go(t.Context(), c, takeAsk, deep), typedrpc.Go(t.Context(), c, takeAsk, long)}
		is.NoErr(typedrpc.Notify(t.Context(), c, takeNote, deep))
		is.NoErr(typedrpc.Notify(t.Context(), c, takeNote, long))
		is.NoErr(typedrpc.Notify(t.Context(), c, takeNote, typedrpc.Raw("1")))
		var stream error
		go func() {
			defer close(gone)
			for _, err := range typedrpc.Receive(t.Context(), c, takeFlow, deep) {
				stream = err
			}
		}()
		synctest.Wait()

		next := lab.New()
		next.Server.Mux, next.Server.Limits = after.mux(), typedrpc.Limits{MaxDepth: 5, MaxMessage: 2000}
		w.Serve(next.Server)
		time.Sleep(time.Minute)
		dials := w.Dialled()
		_, err := waiting[2].Await(t.Context())
		is.Equal(typedrpc.CodeOf(err), typedrpc.ResourceExhausted)
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		<-gone
		want := []string{"other"}
		if d == typedrpc.Text {
			for i, o := range []typedrpc.Outcome{typedrpc.MayHaveRun, typedrpc.NotSent} {
				_, err := waiting[i].Await(t.Context())
				is.Equal(typedrpc.CodeOf(err), typedrpc.InvalidArgument)
				is.Equal(typedrpc.OutcomeOf(err), o)
			}
			is.Equal(typedrpc.CodeOf(stream), typedrpc.InvalidArgument)
		} else {
			want = []string{"deep", "deep", "deep", "deep", "other"}
			is.NoErr(stream)
			for i := range 2 {
				_, err := waiting[i].Await(t.Context())
				is.NoErr(err)
			}
		}
		got := after.taken()
		slices.Sort(got)
		is.Equal(got, want)
		is.True(log.Has("notification dropped: it waited for a peer that cannot take it"))
		time.Sleep(time.Minute)
		is.Equal(w.Dialled(), dials) // nobody was killed
		is.Equal(hook.Conn(c).NotifyUsed, 0)
		lab.Settled(t, c)
		is.NoErr(c.Close())
	})
}

// Of subscribers those miss a message who cannot take it, and are told.
func TestTakes_publishingFailsForThoseWhoCannot(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		h := new(topic.Hub)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Ask, func(_ context.Context, n int) (int, error) { return n, nil })
		topic.Handle(mux, h, takeNews, topic.Everybody)
		srv := lab.New().Server
		srv.Mux = mux
		var mu sync.Mutex
		got := map[int][]string{}
		ctx, cancel := context.WithCancel(t.Context())
		var conns []*typedrpc.Conn
		for i, limits := range []typedrpc.Limits{{MaxDepth: 5}, {}, {MaxMessage: 2000}, {MaxDepth: 6}, {MaxDepth: 100}} {
			c, _, err := typedrpctest.Dial(srv, &typedrpc.DialOptions{Dialect: d, Limits: limits})
			is.NoErr(err)
			conns = append(conns, c)
			go func() {
				for e, err := range topic.Subscribe(ctx, c, takeNews, "x") {
					if err != nil {
						return
					}
					mu.Lock()
					got[i] = append(got[i], fmt.Sprint(e.Missed, " ", len(e.Value)))
					mu.Unlock()
				}
			}()
		}
		synctest.Wait()
		for _, m := range []typedrpc.Raw{deep, long, typedrpc.Raw("1")} {
			is.NoErr(topic.Publish(ctx, h, takeNews, "x", m))
		}
		synctest.Wait()
		all := []string{fmt.Sprint("0 ", len(deep)), fmt.Sprint("0 ", len(long)), "0 1"}
		mu.Lock()
		is.Equal(got[1], all)
		is.Equal(got[2], []string{all[0], "1 1"})
		is.Equal(got[3], all)
		is.Equal(got[4], all)
		if d == typedrpc.Text {
			is.Equal(got[0], []string{fmt.Sprint("1 ", len(long)), "0 1"})
		} else {
			is.Equal(got[0], all)
		}
		mu.Unlock()
		for _, c := range conns {
			_, err := typedrpc.Call(ctx, c, lab.Ask, 1)
			is.NoErr(err)
		}
		cancel()
		for _, c := range conns {
			c.Close()
		}
		is.NoErr(h.Close())
	})
}

// What the server says of credentials, and what a client presents on a live link, is held
// against what the other side reads: a broken message would end the connection for good.
func TestTakes_signIn(t *testing.T) {
	nests := func(n int) typedrpc.Raw { return typedrpc.Raw(strings.Repeat("[", n) + strings.Repeat("]", n)) }
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		signIn := typedrpc.NewSignIn[typedrpc.Raw, typedrpc.Raw]()
		creds, reply, refuses := nests(1), nests(1), error(nil)
		srv := lab.New().Server
		srv.Limits.MaxDepth = 5
		srv.SignIn = signIn.Verify(func(context.Context, *http.Request, *typedrpc.Raw) (typedrpc.Identity, typedrpc.Raw, error) {
			return typedrpc.Identity{}, reply, refuses
		})
		w := &lab.Town{Srv: srv}
		o := &typedrpc.DialOptions{
			Dialect: d, MaxAttempts: -1, Limits: typedrpc.Limits{MaxDepth: 5},
			SignIn: signIn.Present(func(context.Context) (typedrpc.Raw, error) { return creds, nil }),
		}
		shallow := d != typedrpc.Binary // in which nobody asks for depth
		told := func(err error, code typedrpc.Code, text string) {
			t.Helper()
			if !shallow {
				code = typedrpc.OK
			}
			is.Equal(typedrpc.CodeOf(err), code)
			is.True(!shallow || strings.Contains(err.Error(), text))
		}
		c := w.Dial(t, o)
		defer c.Close()
		creds = nests(20)
		told(c.Reauthenticate(t.Context()), typedrpc.InvalidArgument, "nests 20 levels, which is too deep: the peer reads 5")
		creds, reply = nests(1), nests(20)
		told(c.Reauthenticate(t.Context()), typedrpc.Internal, "nests deeper than the client reads")
		other, err := w.TryDial(t.Context(), o)
		told(err, typedrpc.Internal, "nests deeper than the client reads")
		if err == nil {
			other.Close()
		}
		refuses = &typedrpc.Error{Code: typedrpc.Unavailable, Message: "later", Data: nests(20)}
		is.Equal(typedrpc.CodeOf(c.Reauthenticate(t.Context())), typedrpc.Unavailable) // without the data
		_, err = w.TryDial(t.Context(), o)
		is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable)
		_, err = typedrpc.Call(t.Context(), c, lab.Echo, 1)
		is.NoErr(err) // nothing of it has ended the connection
	})
}
