package e2e_test

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/idempotency"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

func TestKeyed_isSentAgainAndRunsOnce(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		l := lab.NewLedger()
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, o)
		f := typedrpc.Go(t.Context(), c, lab.KeyHang, 5)
		for range 3 {
			synctest.Wait()
			w.Cable().Cut()
			time.Sleep(time.Minute)
			is.Equal(l.Running.Load(), int64(1)) // its context did not end
		}
		close(l.Release)
		n, err := f.Await(t.Context())
		is.NoErr(err)
		is.Equal(n, 5)
		runs, _ := l.Ran()
		is.Equal(runs, 1)
		is.NoErr(c.Close())
	})
}

func TestKeyed_answerThatNobodyHeardIsKept(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		l := lab.NewLedger()
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, o)
		f := typedrpc.Go(t.Context(), c, lab.KeyHang, 5)
		synctest.Wait()
		w.Serve(nil)
		w.Cable().Cut()
		close(l.Release)
		time.Sleep(time.Minute) // it returns while there is no session
		is.Equal(l.Running.Load(), int64(0))
		w.Serve(l.Server)
		n, err := f.Await(t.Context())
		is.NoErr(err)
		is.Equal(n, 5)
		runs, _ := l.Ran()
		is.Equal(runs, 1)
		is.NoErr(c.Close())
	})
}

// A call whose session is lost before its handler begins must not run with a
// dead context, and have that for its answer.
func TestKeyed_lostBeforeItBeganRunsLater(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		gate := make(chan struct{})
		l := lab.NewLedger(func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
			<-gate
			return next(ctx, r)
		})
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, o)
		f := typedrpc.Go(t.Context(), c, lab.KeyAdd, 5)
		synctest.Wait()
		w.Cable().Cut()
		gate <- struct{}{} // the first attempt
		synctest.Wait()
		runs, _ := l.Ran()
		is.Equal(runs, 0)
		close(gate)
		n, err := f.Await(t.Context())
		is.NoErr(err)
		is.Equal(n, 5)
		is.NoErr(c.Close())
	})
}

func TestKeyed_policyRepeatsWithTheSameKey(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		var keys []string
		l := lab.NewLedger(func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
			raw, err := next(ctx, r)
			keys = append(keys, r.Metadata[lab.KeyHeader]+" "+r.Metadata[lab.AgeHeader])
			if len(keys) < 3 {
				return nil, typedrpc.Unavailable
			}
			return raw, err
		})
		seen := 0
		o.OutgoingInterceptors = []typedrpc.Interceptor{func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
			seen++
			is.Equal(len(r.Metadata[lab.KeyHeader]), 32) // on the caller's side too
			is.Equal(r.Metadata[lab.AgeHeader], "0")
			return next(ctx, r)
		}}
		o.OutgoingRetry = &typedrpc.RetryPolicy{MaxAttempts: 5, Backoff: typedrpc.Backoff{Min: time.Second, Max: time.Second, Factor: 1}}
		c := (&lab.Town{Srv: l.Server}).Dial(t, o)
		n, err := typedrpc.Call(t.Context(), c, lab.KeyAdd, 5)
		is.NoErr(err)
		is.Equal(n, 5)
		runs, _ := l.Ran()
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
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		l := lab.NewLedger()
		c := (&lab.Town{Srv: l.Server}).Dial(t, o)
		for i, text := range []string{"x", "", "fault", "panic", "exit", "foreign"} {
			k := idempotency.NewKey()
			var first error
			var said string
			for n := range 3 {
				var reply typedrpc.Metadata
				got, err := typedrpc.Call(t.Context(), c.With(typedrpc.CallOptions{Key: k, ReplyMetadata: &reply}), lab.KeyText, text)
				if n == 0 {
					first, said = err, got
				}
				is.Equal(got, said)
				is.Equal(typedrpc.CodeOf(err), typedrpc.CodeOf(first))
				if text != "exit" {
					is.Equal(reply["run"], strconv.Itoa(i+1))
				}
				if text == "fault" {
					is.Equal(lab.ErrorOf(t, err, typedrpc.Aborted, typedrpc.Answered).RetryAfter, time.Second)
					d, ok := lab.KeyFault.From(err)
					is.True(ok)
					is.Equal(d, 7)
				}
				if text == "panic" || text == "exit" || text == "foreign" {
					e := lab.ErrorOf(t, err, typedrpc.Internal, typedrpc.Answered)
					is.True(!strings.Contains(e.Message, "secret"))
				}
			}
		}
		runs, keys := l.Ran()
		is.Equal(runs, 6)
		is.Equal(keys, 6)
		is.NoErr(c.Close())
	})
}

func TestKeyed_keyBelongsToItsRequest(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		l := lab.NewLedger()
		l.Codecs = []typedrpc.Codec{typedrpc.JSON, aliasCodec{typedrpc.JSON}}
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, o)
		k := idempotency.NewKey()
		_, err := typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyAdd, 5)
		is.NoErr(err)
		_, err = typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyAdd, 6)
		lab.ErrorOf(t, err, typedrpc.InvalidArgument, typedrpc.NotSent)
		_, err = typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeySub, 5) // the same bytes
		lab.ErrorOf(t, err, typedrpc.InvalidArgument, typedrpc.NotSent)
		if o.Dialect == typedrpc.Binary {
			other := w.Dial(t, &typedrpc.DialOptions{Codecs: []typedrpc.Codec{aliasCodec{typedrpc.JSON}}})
			_, err = typedrpc.Call(t.Context(), lab.WithKey(other, k), lab.KeyAdd, 5) // the same bytes in another codec
			lab.ErrorOf(t, err, typedrpc.InvalidArgument, typedrpc.NotSent)
			is.NoErr(other.Close())
		}
		runs, _ := l.Ran()
		is.Equal(runs, 1)
		is.NoErr(c.Close())
	})
}

// aliasCodec is a codec under another name.
type aliasCodec struct{ typedrpc.Codec }

func (aliasCodec) Name() string { return "alias" }

func TestKeyed_keyBelongsToItsPrincipal(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		l := lab.NewLedger()
		l.SignIn = typedrpc.NewSignIn[string, struct{}]().Verify(func(_ context.Context, _ *http.Request, name *string) (typedrpc.Identity, struct{}, error) {
			return typedrpc.Identity{Subject: *name}, struct{}{}, nil
		})
		w := &lab.Town{Srv: l.Server}
		k := idempotency.NewKey()
		for range 2 {
			for i, name := range []string{"ann", "bob"} {
				o.SignIn = typedrpc.NewSignIn[string, struct{}]().Present(func(context.Context) (string, error) { return name, nil })
				c := w.Dial(t, o)
				n, err := typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyAdd, 5)
				is.NoErr(err)
				is.Equal(n, 5*(i+1)) // each has an answer of its own
				is.NoErr(c.Close())
			}
		}
		runs, _ := l.Ran()
		is.Equal(runs, 2)
	})
}

func TestKeyed_repeatWaitsForTheFirst(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		l := lab.NewLedger()
		w := &lab.Town{Srv: l.Server}
		a, b := w.Dial(t, o), w.Dial(t, o)
		k := idempotency.NewKey()
		f := typedrpc.Go(t.Context(), lab.WithKey(a, k), lab.KeyHang, 5)
		synctest.Wait()
		g := typedrpc.Go(t.Context(), lab.WithKey(b, k), lab.KeyHang, 5)
		h := typedrpc.Go(t.Context(), lab.WithKey(a, k), lab.KeyHang, 5)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := typedrpc.Call(ctx, lab.WithKey(b, k), lab.KeyHang, 5) // with its own context
		is.True(errors.Is(err, context.DeadlineExceeded))
		close(l.Release)
		got, err := typedrpc.All(t.Context(), f, g, h)
		is.NoErr(err)
		is.Equal(got, []int{5, 5, 5})
		runs, _ := l.Ran()
		is.Equal(runs, 1)
		is.NoErr(a.Close())
		is.NoErr(b.Close())
	})
}

func TestKeyed_serialRepeats(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		l := lab.NewLedger()
		c := (&lab.Town{Srv: l.Server}).Dial(t, o)
		k := idempotency.NewKey()
		for range 3 {
			n, err := typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyLane, 2)
			is.NoErr(err)
			is.Equal(n, 2)
		}
		is.NoErr(c.Close())
	})
}
