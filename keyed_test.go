package typedrpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/wire"
)

var (
	keyAdd   = NewMethod[int, int]("key.add", Keyed)
	keySub   = NewMethod[int, int]("key.sub", Keyed)
	keyHang  = NewMethod[int, int]("key.hang", Keyed)
	keyText  = NewMethod[string, string]("key.text", Keyed)
	keyLane  = NewMethod[int, int]("key.lane", Keyed, Serial)
	keyFault = NewFault[int](Aborted, "a fault of key.text")
)

// ledger is a lab whose Keyed methods note which key ran how often.
type ledger struct {
	*lab
	keysMu sync.Mutex
	runs   map[string]int
	ages   []string
	sum    int
	ctxErr []error // how hanging handlers' contexts ended
}

func newLedger(interceptors ...Interceptor) *ledger {
	l := &ledger{lab: newLab(), runs: map[string]int{}}
	l.Mux = NewMux(interceptors...)
	Handle(l.Mux, labEcho, func(_ context.Context, n int) (int, error) { return n, nil })
	l.register(l.Mux)
	return l
}

func (l *ledger) register(mux *Mux) {
	Handle(mux, keyAdd, func(ctx context.Context, n int) (int, error) { return l.note(ctx, n), nil })
	Handle(mux, keySub, func(ctx context.Context, n int) (int, error) { return l.note(ctx, -n), nil })
	Handle(mux, keyLane, func(ctx context.Context, n int) (int, error) { return l.note(ctx, n), nil })
	Handle(mux, keyHang, func(ctx context.Context, n int) (int, error) {
		l.note(ctx, n)
		l.running.Add(1)
		defer l.running.Add(-1)
		select {
		case <-ctx.Done():
			l.keysMu.Lock()
			l.ctxErr = append(l.ctxErr, ctx.Err())
			l.keysMu.Unlock()
			return 0, ctx.Err()
		case <-l.release:
			return n, nil
		}
	})
	Handle(mux, keyText, func(ctx context.Context, s string) (string, error) {
		n := l.note(ctx, 1)
		RequestFrom(ctx).Reply.Set("run", strconv.Itoa(n))
		switch {
		case s == "panic":
			panic("asked for")
		case s == "exit":
			runtime.Goexit()
		case s == "fault":
			err := keyFault.New(7)
			err.RetryAfter = time.Second
			return "", err
		case s == "foreign":
			return "", errors.New("a secret")
		}
		return s + strconv.Itoa(n), nil
	})
}

func (l *ledger) note(ctx context.Context, n int) int {
	l.keysMu.Lock()
	defer l.keysMu.Unlock()
	m := RequestFrom(ctx).Metadata
	l.runs[m[metaKey]]++
	l.ages = append(l.ages, m[metaAge])
	l.sum += n
	return l.sum
}

// ran is how many runs there were, and how many keys.
func (l *ledger) ran() (runs, keys int) {
	l.keysMu.Lock()
	defer l.keysMu.Unlock()
	for _, n := range l.runs {
		runs += n
	}
	return runs, len(l.runs)
}

func (l *ledger) ended() []error {
	l.keysMu.Lock()
	defer l.keysMu.Unlock()
	return append([]error(nil), l.ctxErr...)
}

// keyedTest runs f in a bubble for each dialect that knows keys.
func keyedTest(t *testing.T, f func(t *testing.T, is *is.I, o *DialOptions)) {
	t.Helper()
	for _, d := range []Dialect{Binary, JSONRPC} {
		t.Run([]string{"binary", "jsonrpc"}[d], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, is.New(t), &DialOptions{Dialect: d, Backoff: steady}) })
		})
	}
}

func withKey(c Caller, k Key) Caller { return c.With(CallOptions{Key: k}) }

func errorOf(t *testing.T, err error, code Code, o Outcome) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Code != code || e.Outcome != o {
		t.Fatalf("got %v (%v), want %v, %v", err, outcomeOf(err), code, o)
	}
	return e
}

func TestKeyed_isForMethods(t *testing.T) {
	for name, declare := range map[string]func(){
		"notification":  func() { NewNotification[int]("n", Keyed) },
		"server stream": func() { NewServerStream[int, int]("s", Keyed) },
		"client stream": func() { NewClientStream[int, int, int]("c", Keyed) },
		"both":          func() { NewBidiStream[int, int, int]("b", Keyed) },
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			defer func() { is.True(strings.Contains(fmt.Sprint(recover()), "Keyed is for methods")) }()
			declare()
		})
	}
}

func TestKeyed_isSentAgainAndRunsOnce(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		l := newLedger()
		w := &town{srv: l.Server}
		c := w.dial(t, o)
		f := Go(t.Context(), c, keyHang, 5)
		for range 3 {
			synctest.Wait()
			w.cable().cut()
			time.Sleep(time.Minute)
			is.Equal(l.running.Load(), int64(1)) // its context did not end
		}
		close(l.release)
		n, err := f.Await(t.Context())
		is.NoErr(err)
		is.Equal(n, 5)
		runs, _ := l.ran()
		is.Equal(runs, 1)
		is.NoErr(c.Close())
	})
}

func TestKeyed_answerThatNobodyHeardIsKept(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		l := newLedger()
		w := &town{srv: l.Server}
		c := w.dial(t, o)
		f := Go(t.Context(), c, keyHang, 5)
		synctest.Wait()
		w.serve(nil)
		w.cable().cut()
		close(l.release)
		time.Sleep(time.Minute) // it returns while there is no session
		is.Equal(l.running.Load(), int64(0))
		w.serve(l.Server)
		n, err := f.Await(t.Context())
		is.NoErr(err)
		is.Equal(n, 5)
		runs, _ := l.ran()
		is.Equal(runs, 1)
		is.NoErr(c.Close())
	})
}

// A call whose session is lost before its handler begins must not run with a
// dead context, and have that for its answer.
func TestKeyed_lostBeforeItBeganRunsLater(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		gate := make(chan struct{})
		l := newLedger(func(ctx context.Context, r *Request, next RawHandler) (Raw, error) {
			<-gate
			return next(ctx, r)
		})
		w := &town{srv: l.Server}
		c := w.dial(t, o)
		f := Go(t.Context(), c, keyAdd, 5)
		synctest.Wait()
		w.cable().cut()
		gate <- struct{}{} // the first attempt
		synctest.Wait()
		runs, _ := l.ran()
		is.Equal(runs, 0)
		close(gate)
		n, err := f.Await(t.Context())
		is.NoErr(err)
		is.Equal(n, 5)
		is.NoErr(c.Close())
	})
}

func TestKeyed_policyRepeatsWithTheSameKey(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		var keys []string
		l := newLedger(func(ctx context.Context, r *Request, next RawHandler) (Raw, error) {
			raw, err := next(ctx, r)
			keys = append(keys, r.Metadata[metaKey]+" "+r.Metadata[metaAge])
			if len(keys) < 3 {
				return nil, Unavailable
			}
			return raw, err
		})
		seen := 0
		o.Interceptors = []Interceptor{func(ctx context.Context, r *Request, next RawHandler) (Raw, error) {
			seen++
			is.Equal(len(r.Metadata[metaKey]), 32) // on the caller's side too
			is.Equal(r.Metadata[metaAge], "0")
			return next(ctx, r)
		}}
		o.Retry = &RetryPolicy{Attempts: 5, Backoff: Backoff{Min: time.Second, Max: time.Second, Factor: 1}}
		c := (&town{srv: l.Server}).dial(t, o)
		n, err := Call(t.Context(), c, keyAdd, 5)
		is.NoErr(err)
		is.Equal(n, 5)
		runs, _ := l.ran()
		is.Equal(runs, 1)
		is.Equal(seen, 1)
		is.Equal(len(keys), 3)
		last := -1
		for _, k := range keys {
			key, age, _ := strings.Cut(k, " ")
			first, _, _ := strings.Cut(keys[0], " ")
			is.Equal(key, first)
			ms, err := strconv.Atoi(age)
			is.NoErr(err)
			is.True(ms > last) // it grows
			last = ms
		}
		is.NoErr(c.Close())
	})
}

func TestKeyed_repeatHasTheWholeAnswer(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		l := newLedger()
		c := (&town{srv: l.Server}).dial(t, o)
		for i, text := range []string{"x", "", "fault", "panic", "exit", "foreign"} {
			k := NewKey()
			var first error
			var said string
			for n := range 3 {
				var reply Metadata
				got, err := Call(t.Context(), c.With(CallOptions{Key: k, Reply: &reply}), keyText, text)
				if n == 0 {
					first, said = err, got
				}
				is.Equal(got, said)
				is.Equal(CodeOf(err), CodeOf(first))
				if text != "exit" {
					is.Equal(reply["run"], strconv.Itoa(i+1))
				}
				if text == "fault" {
					is.Equal(errorOf(t, err, Aborted, Answered).RetryAfter, time.Second)
					d, ok := keyFault.From(err)
					is.True(ok)
					is.Equal(d, 7)
				}
				if text == "panic" || text == "exit" || text == "foreign" {
					e := errorOf(t, err, Internal, Answered)
					is.True(!strings.Contains(e.Message, "secret"))
				}
			}
		}
		runs, keys := l.ran()
		is.Equal(runs, 6)
		is.Equal(keys, 6)
		is.NoErr(c.Close())
	})
}

func TestKeyed_keyBelongsToItsRequest(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		l := newLedger()
		l.Codecs = []Codec{JSON, aliasCodec{JSON}}
		w := &town{srv: l.Server}
		c := w.dial(t, o)
		k := NewKey()
		_, err := Call(t.Context(), withKey(c, k), keyAdd, 5)
		is.NoErr(err)
		_, err = Call(t.Context(), withKey(c, k), keyAdd, 6)
		errorOf(t, err, InvalidArgument, NotSent)
		_, err = Call(t.Context(), withKey(c, k), keySub, 5) // the same bytes
		errorOf(t, err, InvalidArgument, NotSent)
		if o.Dialect == Binary {
			other := w.dial(t, &DialOptions{Codecs: []Codec{aliasCodec{JSON}}})
			_, err = Call(t.Context(), withKey(other, k), keyAdd, 5) // the same bytes in another codec
			errorOf(t, err, InvalidArgument, NotSent)
			is.NoErr(other.Close())
		}
		runs, _ := l.ran()
		is.Equal(runs, 1)
		is.NoErr(c.Close())
	})
}

// aliasCodec is a codec under another name.
type aliasCodec struct{ Codec }

func (aliasCodec) Name() string { return "alias" }

func TestKeyed_keyBelongsToItsPrincipal(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		l := newLedger()
		l.Authenticate = Authenticate(NewMethod[string, Empty]("auth"), func(_ context.Context, _ *http.Request, name string) (Identity, Empty, error) {
			return Identity{Subject: name}, Empty{}, nil
		})
		w := &town{srv: l.Server}
		k := NewKey()
		for range 2 {
			for i, name := range []string{"ann", "bob"} {
				o.Auth = Credentials(NewMethod[string, Empty]("auth"), func(context.Context) (string, error) { return name, nil })
				c := w.dial(t, o)
				n, err := Call(t.Context(), withKey(c, k), keyAdd, 5)
				is.NoErr(err)
				is.Equal(n, 5*(i+1)) // each has an answer of its own
				is.NoErr(c.Close())
			}
		}
		runs, _ := l.ran()
		is.Equal(runs, 2)
	})
}

func TestKeyed_repeatWaitsForTheFirst(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		l := newLedger()
		w := &town{srv: l.Server}
		a, b := w.dial(t, o), w.dial(t, o)
		k := NewKey()
		f := Go(t.Context(), withKey(a, k), keyHang, 5)
		synctest.Wait()
		g := Go(t.Context(), withKey(b, k), keyHang, 5)
		h := Go(t.Context(), withKey(a, k), keyHang, 5)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := Call(ctx, withKey(b, k), keyHang, 5) // with its own context
		is.True(errors.Is(err, context.DeadlineExceeded))
		close(l.release)
		got, err := All(t.Context(), f, g, h)
		is.NoErr(err)
		is.Equal(got, []int{5, 5, 5})
		runs, _ := l.ran()
		is.Equal(runs, 1)
		is.NoErr(a.Close())
		is.NoErr(b.Close())
	})
}

func TestKeyed_serialRepeats(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		l := newLedger()
		c := (&town{srv: l.Server}).dial(t, o)
		k := NewKey()
		for range 3 {
			n, err := Call(t.Context(), withKey(c, k), keyLane, 2)
			is.NoErr(err)
			is.Equal(n, 2)
		}
		is.NoErr(c.Close())
	})
}

func TestKeyed_cancelEndsTheHandler(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		l := newLedger()
		w := &town{srv: l.Server}
		c := w.dial(t, o)
		f := Go(t.Context(), c, keyHang, 1)
		synctest.Wait()
		f.Cancel()
		synctest.Wait()
		is.Equal(l.running.Load(), int64(0))

		// Also when the caller cancels the repeat, on the next session.
		f = Go(t.Context(), c, keyHang, 2)
		synctest.Wait()
		w.cable().cut()
		time.Sleep(time.Minute)
		is.Equal(l.running.Load(), int64(1))
		f.Cancel()
		synctest.Wait()
		is.Equal(l.running.Load(), int64(0))

		// But not while somebody else waits, whoever was first.
		for _, firstLeaves := range []bool{true, false} {
			k := NewKey()
			f, g := Go(t.Context(), withKey(c, k), keyHang, 3), (*Future[int])(nil)
			synctest.Wait()
			g = Go(t.Context(), withKey(c, k), keyHang, 3)
			synctest.Wait()
			if !firstLeaves {
				f, g = g, f
			}
			f.Cancel()
			synctest.Wait()
			is.Equal(l.running.Load(), int64(1))
			g.Cancel()
			synctest.Wait()
			is.Equal(l.running.Load(), int64(0))
			_, err := Call(t.Context(), withKey(c, k), keyHang, 3)
			errorOf(t, err, Canceled, Answered) // that was its answer
		}
		is.Equal(len(l.ended()), 4)
		is.NoErr(c.Close())
	})
}

func TestKeyed_deadlineEndsTheHandler(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		l := newLedger()
		w := &town{srv: l.Server}
		c := w.dial(t, o)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		f := Go(ctx, c, keyHang, 1)
		synctest.Wait()
		w.serve(nil)
		w.cable().cut()
		time.Sleep(5 * time.Minute)
		is.Equal(l.running.Load(), int64(1))
		w.serve(l.Server) // it comes back, and waits
		time.Sleep(54 * time.Minute)
		is.Equal(l.running.Load(), int64(1))
		_, err := f.Await(t.Context())
		is.True(errors.Is(err, context.DeadlineExceeded))
		is.Equal(time.Since(began), time.Hour)
		synctest.Wait()
		is.Equal(l.running.Load(), int64(0))
		is.NoErr(c.Close())
	})
}

func TestKeyed_handlerThatNobodyComesBackForEnds(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		l := newLedger()
		w := &town{srv: l.Server}
		c := w.dial(t, o)
		Go(t.Context(), c, keyHang, 1)
		synctest.Wait()
		is.NoErr(c.Close())
		time.Sleep(10*time.Minute - time.Second)
		is.Equal(l.running.Load(), int64(1))
		time.Sleep(2 * time.Second)
		is.Equal(l.running.Load(), int64(0))
	})
}

func TestKeyed_handlersOfLostSessionsAreBounded(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		l := newLedger()
		l.Limits.MaxCalls = 3
		w := &town{srv: l.Server}
		for range 4 {
			c := w.dial(t, o)
			for range 3 {
				Go(t.Context(), c, keyHang, 1)
			}
			synctest.Wait()
			is.NoErr(c.Close())
			synctest.Wait()
			is.Equal(l.running.Load(), int64(3)) // the contexts of the others ended
		}
		close(l.release)
	})
}

func TestKeyed_shutdown(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		for _, patient := range []bool{true, false} {
			l := newLedger()
			w := &town{srv: l.Server}
			c := w.dial(t, o)
			Go(t.Context(), c, keyHang, 1)
			synctest.Wait()
			is.NoErr(c.Close())
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if patient {
				time.AfterFunc(time.Second, func() { close(l.release) })
			}
			began := time.Now()
			l.Shutdown(ctx)
			cancel()
			synctest.Wait()
			is.Equal(l.running.Load(), int64(0))
			if patient {
				is.Equal(time.Since(began), time.Second) // it waits for the handler
				is.Equal(len(l.ended()), 0)
			} else {
				is.Equal(time.Since(began), time.Minute)
				is.Equal(len(l.ended()), 1) // and then ends it
			}
		}
	})
}

// Another cache does not know what ran: nothing is sent there.
func TestKeyed_anotherCacheIsNotAsked(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		a, b := newLedger(), newLedger()
		w := &town{srv: a.Server}
		c := w.dial(t, o)
		k := NewKey()
		f := Go(t.Context(), c, keyHang, 1)
		g := Go(t.Context(), withKey(c, k), keyHang, 2)
		synctest.Wait()
		w.serve(b.Server)
		w.cable().cut()
		for _, f := range []*Future[int]{f, g} {
			_, err := f.Await(t.Context())
			errorOf(t, err, Unavailable, MayHaveRun)
		}
		for range 2 {
			_, err := Call(t.Context(), withKey(c, k), keyHang, 2)
			errorOf(t, err, FailedPrecondition, MayHaveRun)
		}
		runs, _ := b.ran()
		is.Equal(runs, 0)
		n, err := Call(t.Context(), c, keyAdd, 3) // other calls are made as always
		is.NoErr(err)
		is.Equal(n, 3)
		w.serve(a.Server) // back
		w.cable().cut()
		close(a.release)
		n, err = Call(t.Context(), withKey(c, k), keyHang, 2)
		is.NoErr(err)
		is.Equal(n, 2)
		runs, _ = a.ran()
		is.Equal(runs, 2)
		is.NoErr(c.Close())
	})
}

func TestKeyed_sharedCacheIsTheSame(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		a, b := newLedger(), newLedger()
		a.Replays = NewReplayCache(ReplayOptions{})
		b.Replays = a.Replays
		w := &town{srv: a.Server}
		c := w.dial(t, o)
		f := Go(t.Context(), c, keyHang, 1)
		synctest.Wait()
		w.serve(b.Server)
		w.cable().cut()
		time.Sleep(time.Minute)
		close(a.release)
		n, err := f.Await(t.Context())
		is.NoErr(err)
		is.Equal(n, 1)
		runs, _ := b.ran()
		is.Equal(runs, 0)
		is.NoErr(c.Close())
	})
}

// What did not run may go to another cache: after an answer that says so …
func TestKeyed_whatDidNotRunGoesAnywhere(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		l := newLedger()
		w := &town{srv: newLab().Server}
		c := w.dial(t, o)
		k := NewKey()
		_, err := Call(t.Context(), withKey(c, k), keyAdd, 5)
		errorOf(t, err, Unimplemented, NotSent)
		w.serve(l.Server)
		w.cable().cut()
		n, err := Call(t.Context(), withKey(c, k), keyAdd, 5)
		is.NoErr(err)
		is.Equal(n, 5)
		is.NoErr(c.Close())
	})
}

// … and from a draining server to the next one, without a word.
func TestKeyed_drainingServersCallsGoAnywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		keys := make(chan string, 9)
		_, c := scripted(t, &DialOptions{Backoff: steady}, func(n int, p *wirePeer) {
			p.until(wire.Hello)
			p.answers = true
			w := wire.WelcomeBody{Token: "token", Limits: roomy, Cache: strconv.Itoa(n)}
			p.send(wire.Frame{Type: wire.Welcome, Payload: w.Append(nil)})
			f, err := p.until(wire.Call)
			if err != nil {
				return
			}
			keys <- f.Meta[metaKey] + f.Meta[metaAge]
			if n == 1 {
				bye := wire.GoAwayBody{}
				p.send(wire.Frame{Type: wire.GoAway, Payload: bye.Append(nil)},
					wire.Frame{Type: wire.Fail, ID: f.ID, Code: int64(Unavailable), Flags: wire.NotRun})
			} else {
				p.send(wire.Frame{Type: wire.Result, ID: f.ID, Payload: []byte("5")})
			}
			p.closeCode()
		})
		n, err := Call(t.Context(), c, keyAdd, 5)
		is.NoErr(err)
		is.Equal(n, 5)
		first, second := <-keys, <-keys
		is.Equal(first[:32], second[:32])
		is.NoErr(c.Close())
	})
}

func TestKeyed_peersWithoutACacheAreAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		calls := make(chan string, 9)
		_, c := scripted(t, &DialOptions{Backoff: steady}, func(_ int, p *wirePeer) {
			p.welcome()
			f, err := p.until(wire.Call)
			if err == nil {
				calls <- f.Meta[metaKey]
			}
			p.t.Kill()
		})
		k := NewKey()
		_, err := Call(t.Context(), withKey(c, k), keyAdd, 5)
		errorOf(t, err, Unavailable, MayHaveRun)
		_, err = Call(t.Context(), withKey(c, k), keyAdd, 5)
		errorOf(t, err, FailedPrecondition, MayHaveRun)
		errorOf(t, NewKey().Bind(c), FailedPrecondition, NotSent)
		is.Equal(len(calls), 1)
		is.Equal(len(<-calls), 32)
		is.NoErr(c.Close())
	})
}

func TestKeyed_serversCallClients(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		conns := make(chan *Conn, 9)
		srv := newLab()
		srv.OnConnect = func(c *Conn) { conns <- c }
		w := &town{srv: srv.Server}
		l := newLedger()
		o.Mux = l.Mux
		c := w.dial(t, o)
		k := NewKey()
		f := Go(t.Context(), withKey(<-conns, k), keyHang, 5)
		synctest.Wait()
		w.cable().cut()
		_, err := f.Await(t.Context())
		errorOf(t, err, Unavailable, MayHaveRun)
		next := <-conns
		is.Equal(l.running.Load(), int64(1))
		close(l.release)
		n, err := Call(t.Context(), withKey(next, k), keyHang, 5)
		is.NoErr(err)
		is.Equal(n, 5)
		is.NoErr(c.Close())
		runs, _ := l.ran()
		is.Equal(runs, 1)

		fresh := w.dial(t, o) // a cache of its own
		_, err = Call(t.Context(), withKey(<-conns, k), keyHang, 5)
		errorOf(t, err, FailedPrecondition, MayHaveRun)
		is.NoErr(fresh.Close())

		o.Replays = NewReplayCache(ReplayOptions{})
		k = NewKey()
		for range 2 {
			c := w.dial(t, o)
			n, err := Call(t.Context(), withKey(<-conns, k), keyAdd, 5)
			is.NoErr(err)
			is.Equal(n, 10)
			is.NoErr(c.Close())
		}
	})
}

// Closing a dialled connection ends what its lost sessions left running.
func TestKeyed_closeEndsTheHandlersOfLostSessions(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		conns := make(chan *Conn, 9)
		srv := newLab()
		srv.OnConnect = func(c *Conn) { conns <- c }
		w := &town{srv: srv.Server}
		l := newLedger()
		o.Mux = l.Mux
		c := w.dial(t, o)
		Go(t.Context(), <-conns, keyHang, 5)
		synctest.Wait()
		w.cable().cut()
		<-conns
		is.Equal(l.running.Load(), int64(1))
		is.NoErr(c.Close())
		synctest.Wait()
		is.Equal(l.running.Load(), int64(0))
	})
}

func TestKeyed_interceptorsSeeRepeats(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		allowed := true
		l := newLedger(func(ctx context.Context, r *Request, next RawHandler) (Raw, error) {
			if !allowed {
				return nil, PermissionDenied
			}
			first, err := next(ctx, r)
			again, errAgain := next(ctx, r) // once for each key
			if string(first) != string(again) || CodeOf(err) != CodeOf(errAgain) {
				return nil, Internal
			}
			return again, errAgain
		})
		c := (&town{srv: l.Server}).dial(t, o)
		k := NewKey()
		n, err := Call(t.Context(), withKey(c, k), keyAdd, 5)
		is.NoErr(err)
		is.Equal(n, 5)
		allowed = false
		_, err = Call(t.Context(), withKey(c, k), keyAdd, 5)
		errorOf(t, err, PermissionDenied, Answered)
		runs, _ := l.ran()
		is.Equal(runs, 1)
		is.NoErr(c.Close())
	})
}

func TestKeyed_metadataDoesNotClash(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		l := newLedger()
		w := &town{srv: l.Server}
		c := w.dial(t, o)
		for _, name := range []string{metaKey, metaAge} {
			_, err := Call(t.Context(), c.With(CallOptions{Metadata: Metadata{name: "1"}}), keyAdd, 5)
			errorOf(t, err, InvalidArgument, NotSent)
			_, err = Call(t.Context(), c.With(CallOptions{Metadata: Metadata{name: "1"}}), labEcho, 5)
			is.NoErr(err) // of other methods it is the program's
		}
		_, err := Call(t.Context(), withKey(c, NewKey()), labEcho, 5)
		errorOf(t, err, InvalidArgument, NotSent)
		_, err = Go(t.Context(), withKey(c, NewKey()), labEcho, 5).Await(t.Context())
		errorOf(t, err, InvalidArgument, NotSent)
		errorOf(t, Notify(t.Context(), withKey(c, NewKey()), labNote, 5), InvalidArgument, NotSent)

		// The key and the longest age count.
		room := wire.MaxMeta - len(metaKey) - 32 - len(metaAge) - ageDigits - 1
		for over := range 2 {
			m := Metadata{"x": strings.Repeat("x", room+over)}
			_, err := Call(t.Context(), c.With(CallOptions{Metadata: m}), keyAdd, 5)
			_, errGo := Go(t.Context(), c.With(CallOptions{Metadata: m}), keyAdd, 5).Await(t.Context())
			is.Equal(err == nil, over == 0)
			is.Equal(errGo == nil, over == 0)
			is.Equal(len(m), 1) // it is the caller's
		}
		o.Interceptors = []Interceptor{func(ctx context.Context, r *Request, next RawHandler) (Raw, error) {
			r.Metadata[metaKey] = strings.Repeat("0", 32)
			return next(ctx, r)
		}}
		changed := w.dial(t, o)
		_, err = Call(t.Context(), changed, keyAdd, 5)
		errorOf(t, err, InvalidArgument, NotSent)
		is.NoErr(changed.Close())
		is.NoErr(c.Close())
	})
}

func TestKeyed_full(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		l := newLedger()
		l.Replays = NewReplayCache(ReplayOptions{Entries: 3, TTL: time.Minute})
		c := (&town{srv: l.Server}).dial(t, o)
		keys := []Key{NewKey(), NewKey(), NewKey()}
		for i, k := range keys {
			_, err := Call(t.Context(), withKey(c, k), keyAdd, i)
			is.NoErr(err)
			time.Sleep(time.Second)
		}
		k := NewKey()
		_, err := Call(t.Context(), withKey(c, k), keyAdd, 9)
		is.Equal(errorOf(t, err, ResourceExhausted, NotSent).RetryAfter, 57*time.Second)
		for i, k := range keys { // none of them was forgotten
			_, err := Call(t.Context(), withKey(c, k), keyAdd, i)
			is.NoErr(err)
		}
		runs, _ := l.ran()
		is.Equal(runs, 3)
		time.Sleep(57 * time.Second)
		_, err = Call(t.Context(), withKey(c, k), keyAdd, 9) // there is room
		is.NoErr(err)
		_, err = Call(t.Context(), c, keyAdd, 9)
		errorOf(t, err, ResourceExhausted, NotSent)
		time.Sleep(time.Hour)
		l.Replays.mu.Lock()
		defer l.Replays.mu.Unlock()
		is.Equal(len(l.Replays.entries), 0) // without another call
		is.Equal(l.Replays.total, usage{})
		is.NoErr(c.Close())
	})
}

// Handlers that run hold their places, however long.
func TestKeyed_fullOfRunning(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		l := newLedger()
		l.Replays = NewReplayCache(ReplayOptions{Entries: 1, TTL: time.Minute})
		c := (&town{srv: l.Server}).dial(t, o)
		k := NewKey()
		f := Go(t.Context(), withKey(c, k), keyHang, 1)
		time.Sleep(time.Hour)
		_, err := Call(t.Context(), c, keyAdd, 1)
		is.Equal(errorOf(t, err, ResourceExhausted, NotSent).RetryAfter, time.Second)
		g := Go(t.Context(), withKey(c, k), keyHang, 1) // old, and known
		synctest.Wait()
		close(l.release)
		_, err = All(t.Context(), f, g)
		is.NoErr(err)
		runs, _ := l.ran()
		is.Equal(runs, 1)
		is.NoErr(c.Close())
	})
}

func TestKeyed_bytes(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		l := newLedger()
		l.Replays = NewReplayCache(ReplayOptions{Bytes: 2*replayOverhead + 2000})
		c := (&town{srv: l.Server}).dial(t, o)
		big, k := strings.Repeat("x", 3000), NewKey()
		got, err := Call(t.Context(), withKey(c, k), keyText, big)
		is.NoErr(err) // the first caller has it
		is.Equal(got, big+"1")
		for range 2 {
			_, err = Call(t.Context(), withKey(c, k), keyText, big)
			errorOf(t, err, DataLoss, Answered) // and the others know that it ran
		}
		k = NewKey()
		for range 2 {
			got, err = Call(t.Context(), withKey(c, k), keyText, big[:1900])
			is.NoErr(err)
			is.Equal(got, big[:1900]+"2")
		}
		_, err = Call(t.Context(), c, keyAdd, 1)
		errorOf(t, err, ResourceExhausted, NotSent)
		runs, _ := l.ran()
		is.Equal(runs, 2)
		is.NoErr(c.Close())
	})
}

func TestKeyed_share(t *testing.T) {
	is := is.New(t)
	c := NewReplayCache(ReplayOptions{Entries: 100, Bytes: 100 * replayOverhead * 2, Share: 0.1})
	begin := func(subject string) error {
		k := NewKey().s
		_, _, err := c.begin(replayKey{subject, k.id}, [32]byte{}, 0, nil)
		return err
	}
	for range 10 {
		is.NoErr(begin("ann"))
	}
	is.Equal(CodeOf(begin("ann")), ResourceExhausted)
	is.NoErr(begin("bob"))
	for range 89 {
		is.NoErr(begin("")) // who is nobody has no share
	}
	is.Equal(CodeOf(begin("bob")), ResourceExhausted)
}

func TestKeyed_optionsOutOfRange(t *testing.T) {
	for _, o := range []ReplayOptions{{TTL: -1}, {Entries: -1}, {Bytes: -1}, {Share: -0.1}, {Share: 1.1}} {
		func() {
			is := is.New(t)
			defer func() { is.True(recover() != nil) }()
			NewReplayCache(o)
		}()
	}
}

func TestKeyed_tooOldToBeKnown(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		l := newLedger()
		w := &town{srv: l.Server}
		c := w.dial(t, o)
		k := NewKey()
		_, err := Call(t.Context(), withKey(c, k), keyAdd, 5)
		is.NoErr(err)
		time.Sleep(10*time.Minute - time.Millisecond)
		n, err := Call(t.Context(), withKey(c, k), keyAdd, 5) // known, whatever its age
		is.NoErr(err)
		is.Equal(n, 5)
		time.Sleep(time.Millisecond)
		_, err = Call(t.Context(), withKey(c, k), keyAdd, 5)
		errorOf(t, err, FailedPrecondition, MayHaveRun)

		// One that never arrived may be repeated for four fifths.
		for _, old := range []time.Duration{8*time.Minute - time.Millisecond, 8 * time.Minute} {
			k := NewKey()
			is.NoErr(k.Bind(c))
			is.True(k.String() != "") // from here on it ages
			time.Sleep(old)
			_, err = Call(t.Context(), withKey(c, k), keyAdd, 5)
			is.Equal(err == nil, old < 8*time.Minute)
		}
		// And one that waits for a link is not old when it leaves at last.
		w.serve(nil)
		w.cable().cut()
		time.AfterFunc(time.Hour, func() { w.serve(l.Server) })
		_, err = Call(t.Context(), c, keyAdd, 5)
		is.NoErr(err)
		is.NoErr(c.Close())
	})
}

// The time that a request waits at the handler's side counts.
func TestKeyed_agesWhileItWaitsToRun(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		var slow time.Duration
		l := newLedger(func(ctx context.Context, r *Request, next RawHandler) (Raw, error) {
			time.Sleep(slow)
			return next(ctx, r)
		})
		c := (&town{srv: l.Server}).dial(t, o)
		slow = 8 * time.Minute
		_, err := Call(t.Context(), c, keyAdd, 5)
		errorOf(t, err, FailedPrecondition, MayHaveRun)
		slow -= time.Second
		_, err = Call(t.Context(), c, keyAdd, 5)
		is.NoErr(err)
		is.NoErr(c.Close())
	})
}

func TestKeyed_ages(t *testing.T) {
	is := is.New(t)
	now := time.Now()
	wall := now.Round(0) // without the monotonic clock
	is.Equal(age(now, now.Add(time.Minute)), time.Minute)
	is.Equal(age(wall.Add(-time.Hour), now), time.Hour)
	is.Equal(age(wall.Add(time.Hour), now), -time.Hour)
	is.Equal(age(time.UnixMilli(0), time.UnixMilli(maxMillis)) > 0, true) // saturates

	k := &keyState{born: time.UnixMilli(0)}
	ms, err := strconv.ParseUint(k.stamp(Metadata{})[metaAge], 10, 53)
	is.NoErr(err)
	is.True(ms > 0)
	k = &keyState{born: time.Now().Add(5 * time.Second).Round(0)} // a clock that is a little ahead
	is.Equal(k.stamp(map[string]string{})[metaAge], "0")
	is.True(k.claim("c", false) == nil)
	k = &keyState{born: time.Now().Add(time.Minute).Round(0)}
	errorOf(t, k.claim("c", false), FailedPrecondition, MayHaveRun)
}

// A key that was told to somebody may have been used there.
func TestKey_toldKeysKeepTheirAgeAndTheirCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		for _, told := range []bool{false, true} {
			k := NewKey()
			if told {
				_ = k.String()
			}
			is.True(k.s.claim("a", false) == nil)
			k.s.stamp(map[string]string{})
			k.s.release() // it did not run
			time.Sleep(time.Minute)
			is.Equal(k.s.stamp(map[string]string{})[metaAge], map[bool]string{false: "0", true: "60000"}[told])

			k = NewKey()
			is.True(k.s.claim("a", false) == nil)
			if told {
				_ = k.String() // names the cache
			}
			k.s.release()
			is.Equal(k.s.claim("b", false) == nil, !told)
		}
	})
}

func TestKey_text(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		a, b := newLedger(), newLedger()
		w := &town{srv: a.Server}
		c := w.dial(t, nil)

		is.Equal(Key{}.String(), "")
		errorOf(t, Key{}.Bind(c), InvalidArgument, NotSent)
		for _, text := range []string{
			"", "x", "k1...", "k2." + strings.Repeat("0", 32) + ".0.", "k1." + strings.Repeat("0", 31) + ".0.",
			"k1." + strings.Repeat("g", 32) + ".0.", "k1." + strings.Repeat("0", 32) + ".-1.",
			"k1." + strings.Repeat("0", 32) + ".9007199254740992.", "k1." + strings.Repeat("0", 32) + ".0.a-b",
			"k1." + strings.Repeat("0", 32) + ".0.a.b", "k1." + strings.Repeat("0", 32) + ".0." + strings.Repeat("a", 65),
		} {
			_, err := ParseKey(text)
			errorOf(t, err, InvalidArgument, NotSent)
		}
		parse := func(k Key) Key {
			p, err := ParseKey(k.String())
			is.NoErr(err)
			is.Equal(p.String(), k.String())
			return p
		}

		// Written down before its use, and not bound.
		k := NewKey()
		p := parse(k)
		_, err := Call(t.Context(), withKey(c, p), keyAdd, 5)
		errorOf(t, err, FailedPrecondition, MayHaveRun)
		is.NoErr(p.Bind(c))
		_, err = Call(t.Context(), withKey(c, p), keyAdd, 5)
		is.NoErr(err)

		// Bound first, or used first.
		bound, used := NewKey(), NewKey()
		is.NoErr(bound.Bind(c))
		_, err = Call(t.Context(), withKey(c, used), keyAdd, 5)
		is.NoErr(err)
		first, err := Call(t.Context(), withKey(c, bound), keyAdd, 5)
		is.NoErr(err)
		time.Sleep(time.Minute)
		again, err := Call(t.Context(), withKey(c, parse(bound)), keyAdd, 5)
		is.NoErr(err)
		is.Equal(again, first)
		_, err = Call(t.Context(), withKey(c, parse(used)), keyAdd, 5)
		is.NoErr(err)
		runs, _ := a.ran()
		is.Equal(runs, 3)
		is.Equal(a.ages[2], "0")

		// Another server does not know them.
		w.serve(b.Server)
		w.cable().cut()
		_, err = Call(t.Context(), c, labEcho, 1)
		is.NoErr(err)
		for _, k := range []Key{bound, used, parse(bound), parse(used)} {
			_, err := Call(t.Context(), withKey(c, k), keyAdd, 5)
			errorOf(t, err, FailedPrecondition, MayHaveRun)
			errorOf(t, k.Bind(c), FailedPrecondition, NotSent)
		}
		runs, _ = b.ran()
		is.Equal(runs, 0)
		is.NoErr(c.Close())
	})
}

func TestKeyed_plainPeersAndPosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLedger()
		is.NoErr(l.Check())
		p, err := join(l.Server, "")
		is.NoErr(err)
		ask := map[string]func(string) string{
			"socket": func(text string) string {
				is.NoErr(p.t.Write([]byte(text), true, func() {}))
				m, _, err := p.t.Read(func() {})
				is.NoErr(err)
				return string(m.B)
			},
			"post": func(text string) string {
				r := httptest.NewRequest(http.MethodPost, "http://town/", strings.NewReader(text))
				r.Header.Set("Content-Type", "application/json")
				rec := httptest.NewRecorder()
				l.ServeHTTP(rec, r)
				return rec.Body.String()
			},
		}
		call := func(n, meta string) string {
			if meta != "" {
				meta = `,"meta":{` + meta + `}`
			}
			return `{"jsonrpc":"2.0","id":1,"method":"key.add","params":[` + n + `]` + meta + `}`
		}
		id := strings.Repeat("ab", 16)
		key := `"idempotency-key":"` + id + `"`
		for name, ask := range ask {
			answer := ask(call("5", key+`,"idempotency-age":"0"`))
			is.Equal(answer, `{"jsonrpc":"2.0","id":1,"result":5}`) // both together
			is.Equal(ask(call("5", key+`,"idempotency-age":"1000"`)), answer)
			is.True(strings.Contains(ask(call("6", key+`,"idempotency-age":"0"`)), "-32602"))
			for _, bad := range []string{
				key, key + `,"idempotency-age":""`, key + `,"idempotency-age":"-1"`, key + `,"idempotency-age":"1.5"`,
				key + `,"idempotency-age":"9007199254740992"`, key + `,"idempotency-age":"99999999999999999999"`,
				`"idempotency-key":"","idempotency-age":"0"`, `"idempotency-key":"ab","idempotency-age":"0"`,
				`"idempotency-key":"` + id[1:] + `x","idempotency-age":"0"`,
			} {
				if got := ask(call("5", bad)); !strings.Contains(got, "-32602") {
					t.Errorf("%s: %s is answered with %s", name, bad, got)
				}
			}
			fresh := strings.Replace(key, "ab", map[string]string{"socket": "cd", "post": "ef"}[name], 1)
			is.True(strings.Contains(ask(call("5", fresh+`,"idempotency-age":"9007199254740991"`)), "no longer known"))
		}
		runs, _ := l.ran()
		is.Equal(runs, 1)
		for range 2 {
			ask["socket"](call("5", "")) // without a key they just run
		}
		runs, _ = l.ran()
		is.Equal(runs, 3)
		p.t.Kill()
		synctest.Wait()
	})
}

// proxied is a proxy in front of the servers of town w.
func proxied(t *testing.T, w *town) (front *town, back *Conn) {
	back = w.dial(t, &DialOptions{Backoff: steady})
	mux := NewMux()
	mux.HandleFallback(func(ctx context.Context, r *Request) (Raw, error) {
		time.Sleep(time.Second)
		return Forward(ctx, back, r)
	})
	return &town{srv: &Server{Mux: mux, Logger: slog.New(slog.DiscardHandler)}}, back
}

func TestKeyed_forward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLedger()
		w := &town{srv: l.Server}
		front, back := proxied(t, w)
		c := front.dial(t, &DialOptions{Backoff: steady})
		k := NewKey()
		f := Go(t.Context(), withKey(c, k), keyHang, 5)
		time.Sleep(2 * time.Second)
		front.cable().cut() // either link
		time.Sleep(10 * time.Second)
		w.cable().cut()
		time.Sleep(10 * time.Second)
		close(l.release)
		n, err := f.Await(t.Context())
		is.NoErr(err)
		is.Equal(n, 5)
		runs, _ := l.ran()
		is.Equal(runs, 1)
		is.Equal(l.ages, []string{"1000"}) // what it waited at the proxy, once

		// A key of the proxy's own would be another.
		_, err = Call(t.Context(), withKey(c, k), keyHang, 6)
		errorOf(t, err, InvalidArgument, NotSent)

		// The client's peer is the same one, and the one behind it is not.
		g := newLedger()
		k = NewKey()
		n, err = Call(t.Context(), withKey(c, k), keyAdd, 5)
		is.NoErr(err)
		is.Equal(n, 10)
		w.serve(g.Server)
		w.cable().cut()
		time.Sleep(time.Minute)
		_, err = Call(t.Context(), withKey(c, k), keyAdd, 5)
		errorOf(t, err, FailedPrecondition, MayHaveRun)
		runs, _ = g.ran()
		is.Equal(runs, 0)
		n, err = Call(t.Context(), c, keyAdd, 5)
		is.NoErr(err)
		is.Equal(n, 5)
		is.NoErr(c.Close())
		is.NoErr(back.Close())
	})
}

// A repeat never finds its entry gone: random times around the bounds, against
// a cache that remembers everything.
func TestKeyed_neverForgetsWhatItWouldRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		c := NewReplayCache(ReplayOptions{TTL: 100 * time.Millisecond, Entries: 100})
		type known struct {
			born time.Time
			ran  bool
		}
		keys := map[[16]byte]*known{}
		var all [][16]byte
		refused, replayed, forgotten := 0, 0, 0
		for range size(50_000) {
			time.Sleep(time.Duration(rand.IntN(600)) * time.Microsecond)
			var id [16]byte
			if len(all) == 0 || rand.IntN(3) == 0 {
				id = newKeyState().id
				keys[id] = &known{born: time.Now()}
				all = append(all, id)
			} else {
				id = all[max(0, len(all)-1-rand.IntN(200))]
			}
			k := keys[id]
			late := time.Duration(rand.IntN(20)) * time.Millisecond // on the way, within the last fifth
			run, first, err := c.begin(replayKey{"", id}, [32]byte{}, max(0, time.Since(k.born)-late), nil)
			switch {
			case first:
				is.True(!k.ran) // once
				k.ran = true
				c.end(run, answer{})
			case err == nil:
				is.True(k.ran)
				replayed++
			case CodeOf(err) == ResourceExhausted:
				is.True(!k.ran) // what ran is known
				refused++
			default:
				forgotten++
			}
			c.mu.Lock()
			is.True(len(c.entries) <= 100)
			c.mu.Unlock()
		}
		is.True(refused > 0 && replayed > 0 && forgotten > 0) // the bounds were reached
	})
}

// Clients that repeat until they are answered, over links that are lost at
// random, and servers that are started again.
func TestKeyed_storm(t *testing.T) {
	for _, tt := range []struct {
		name            string
		restart, shared bool
	}{{"one server", false, false}, {"restarts with one cache", true, true}, {"restarts with fresh caches", true, false}} {
		for _, d := range []Dialect{Binary, JSONRPC} {
			t.Run(tt.name+" "+[]string{"binary", "jsonrpc"}[d], func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { keyedStorm(t, d, tt.restart, tt.shared) })
			})
		}
	}
}

func keyedStorm(t *testing.T, d Dialect, restart, shared bool) {
	is := is.New(t)
	const clients = 16
	each := size(2000)
	l := newLedger(func(ctx context.Context, r *Request, next RawHandler) (Raw, error) {
		time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
		raw, err := next(ctx, r)
		time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
		return raw, err
	})
	cache := NewReplayCache(ReplayOptions{TTL: 24 * time.Hour})
	serve := func() *Server {
		s := &Server{Mux: l.Mux, Logger: slog.New(slog.DiscardHandler)}
		if shared {
			s.Replays = cache
		}
		return s
	}
	w := &town{srv: serve()}
	stop := make(chan struct{})
	var chaos sync.WaitGroup
	chaos.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(rand.IntN(20)) * time.Millisecond):
			}
			if restart && i%50 == 0 {
				w.serve(serve())
			}
			w.mu.Lock()
			if n := len(w.lines); n > 0 {
				i := rand.IntN(n)
				w.lines[i].a.Kill()
				w.lines[i].b.Kill()
				w.lines = slices.Delete(w.lines, i, i+1)
			}
			w.mu.Unlock()
		}
	})
	var wg sync.WaitGroup
	var mu sync.Mutex
	acked, unknown := 0, 0
	for range clients {
		wg.Go(func() {
			var c *Conn
			for err := error(Unavailable); err != nil; {
				c, err = w.tryDial(t.Context(), &DialOptions{Dialect: d, Backoff: Backoff{Min: time.Millisecond, Max: 5 * time.Millisecond}})
			}
			defer c.Close()
			for range each {
				k := NewKey()
				for {
					_, err := Call(t.Context(), withKey(c, k), keyAdd, 1)
					if err == nil {
						mu.Lock()
						acked++
						mu.Unlock()
						break
					}
					if CodeOf(err) == FailedPrecondition && OutcomeOf(err) == MayHaveRun {
						mu.Lock()
						unknown++
						mu.Unlock()
						break
					}
					if CodeOf(err) != Unavailable {
						t.Errorf("%v", err)
						break
					}
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	chaos.Wait()
	time.Sleep(time.Minute)
	runs, keys := l.ran()
	is.Equal(runs, keys) // none ran twice
	is.Equal(acked+unknown, clients*each)
	is.Equal(l.sum, runs)
	is.True(acked <= runs && runs <= acked+unknown)
	if restart && !shared {
		is.True(unknown > 0)
	} else {
		is.Equal(acked, clients*each)
		is.Equal(l.sum, clients*each)
	}
	t.Logf("%d links, %d acknowledged, %d not known", w.dialled(), acked, unknown)
}

// What is written for a lost session must not change under its writer's eyes.
func TestKeyed_stampLeavesTheOldMetadata(t *testing.T) {
	is := is.New(t)
	k := newKeyState()
	meta := map[string]string{metaKey: "k", metaAge: "0000"}
	before := maps.Clone(meta)
	got := k.stamp(meta)
	is.Equal(meta, before)
	is.Equal(got[metaAge], "0")
}

func TestKeyed_handshakeNamesTheCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLedger()
		l.Replays = NewReplayCache(ReplayOptions{})
		p, err := join(l.Server, helloProtocol)
		is.NoErr(err)
		w, err := p.hello()
		is.NoErr(err)
		is.Equal(w.Cache, l.Replays.id)
		is.Equal(len(w.Cache), 32)
		p.t.Kill()
		c, s, err := dialPipe(t.Context(), l.Server, nil)
		is.NoErr(err)
		is.Equal(c.peerCache, l.Replays.id)
		is.Equal(s.peerCache, c.config.replays.id)
		is.True(s.peerCache != c.peerCache)
		is.NoErr(c.Close())
		is.Equal(checkCache("not an identity"), "")
	})
}
