package e2e_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/idempotency"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
)

func TestKeyed_metadataDoesNotClash(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		l := lab.NewLedger()
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, o)
		for _, name := range []string{lab.KeyHeader, lab.AgeHeader} {
			_, err := typedrpc.Call(t.Context(), c.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{name: "1"}}), lab.KeyAdd, 5)
			lab.ErrorOf(t, err, typedrpc.InvalidArgument, typedrpc.NotSent)
			_, err = typedrpc.Call(t.Context(), c.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{name: "1"}}), lab.Echo, 5)
			is.NoErr(err) // of other methods it is the program's
		}
		_, err := typedrpc.Call(t.Context(), lab.WithKey(c, idempotency.NewKey()), lab.Echo, 5)
		lab.ErrorOf(t, err, typedrpc.InvalidArgument, typedrpc.NotSent)
		_, err = typedrpc.Go(t.Context(), lab.WithKey(c, idempotency.NewKey()), lab.Echo, 5).Await(t.Context())
		lab.ErrorOf(t, err, typedrpc.InvalidArgument, typedrpc.NotSent)
		lab.ErrorOf(t, typedrpc.Notify(t.Context(), lab.WithKey(c, idempotency.NewKey()), lab.Note, 5), typedrpc.InvalidArgument, typedrpc.NotSent)

		// The key and the longest age count.
		room := wire.MaxMeta - len(lab.KeyHeader) - 32 - len(lab.AgeHeader) - 16 - 1
		for over := range 2 {
			m := typedrpc.Metadata{"x": strings.Repeat("x", room+over)}
			_, err := typedrpc.Call(t.Context(), c.With(typedrpc.CallOptions{Metadata: m}), lab.KeyAdd, 5)
			_, errGo := typedrpc.Go(t.Context(), c.With(typedrpc.CallOptions{Metadata: m}), lab.KeyAdd, 5).Await(t.Context())
			is.Equal(err == nil, over == 0)
			is.Equal(errGo == nil, over == 0)
			is.Equal(len(m), 1) // it is the caller's
		}
		o.OutgoingInterceptors = []typedrpc.Interceptor{func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
			r.Metadata[lab.KeyHeader] = strings.Repeat("0", 32)
			return next(ctx, r)
		}}
		changed := w.Dial(t, o)
		_, err = typedrpc.Call(t.Context(), changed, lab.KeyAdd, 5)
		lab.ErrorOf(t, err, typedrpc.InvalidArgument, typedrpc.NotSent)
		is.NoErr(changed.Close())
		is.NoErr(c.Close())
	})
}

func TestKeyed_full(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		l := lab.NewLedger()
		l.Replays = &idempotency.Cache{MaxEntries: 3, TTL: time.Minute}
		c := (&lab.Town{Srv: l.Server}).Dial(t, o)
		keys := []idempotency.Key{idempotency.NewKey(), idempotency.NewKey(), idempotency.NewKey()}
		for i, k := range keys {
			_, err := typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyAdd, i)
			is.NoErr(err)
			time.Sleep(time.Second)
		}
		k := idempotency.NewKey()
		_, err := typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyAdd, 9)
		is.Equal(lab.ErrorOf(t, err, typedrpc.ResourceExhausted, typedrpc.NotSent).RetryAfter, 57*time.Second)
		for i, k := range keys { // none of them was forgotten
			_, err := typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyAdd, i)
			is.NoErr(err)
		}
		runs, _ := l.Ran()
		is.Equal(runs, 3)
		time.Sleep(57 * time.Second)
		_, err = typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyAdd, 9) // there is room
		is.NoErr(err)
		_, err = typedrpc.Call(t.Context(), c, lab.KeyAdd, 9)
		lab.ErrorOf(t, err, typedrpc.ResourceExhausted, typedrpc.NotSent)
		time.Sleep(time.Hour)
		s := hook.Replay(l.Replays)
		is.Equal(s.Entries, 0) // without another call
		is.Equal(s.Used, 0)
		is.Equal(s.Bytes, int64(0))
		is.NoErr(c.Close())
	})
}

// Handlers that run hold their places, however long.
func TestKeyed_fullOfRunning(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		l := lab.NewLedger()
		l.Replays = &idempotency.Cache{MaxEntries: 1, TTL: time.Minute}
		c := (&lab.Town{Srv: l.Server}).Dial(t, o)
		k := idempotency.NewKey()
		f := typedrpc.Go(t.Context(), lab.WithKey(c, k), lab.KeyHang, 1)
		time.Sleep(time.Hour)
		_, err := typedrpc.Call(t.Context(), c, lab.KeyAdd, 1)
		is.Equal(lab.ErrorOf(t, err, typedrpc.ResourceExhausted, typedrpc.NotSent).RetryAfter, time.Second)
		g := typedrpc.Go(t.Context(), lab.WithKey(c, k), lab.KeyHang, 1) // old, and known
		synctest.Wait()
		close(l.Release)
		_, err = typedrpc.All(t.Context(), f, g)
		is.NoErr(err)
		runs, _ := l.Ran()
		is.Equal(runs, 1)
		is.NoErr(c.Close())
	})
}

func TestKeyed_bytes(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		l := lab.NewLedger()
		l.Replays = &idempotency.Cache{MaxBytes: 2*512 + 2000}
		c := (&lab.Town{Srv: l.Server}).Dial(t, o)
		big, k := strings.Repeat("x", 3000), idempotency.NewKey()
		got, err := typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyText, big)
		is.NoErr(err) // the first caller has it
		is.Equal(got, big+"1")
		for range 2 {
			_, err = typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyText, big)
			lab.ErrorOf(t, err, typedrpc.DataLoss, typedrpc.Answered) // and the others know that it ran
		}
		k = idempotency.NewKey()
		for range 2 {
			got, err = typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyText, big[:1900])
			is.NoErr(err)
			is.Equal(got, big[:1900]+"2")
		}
		_, err = typedrpc.Call(t.Context(), c, lab.KeyAdd, 1)
		lab.ErrorOf(t, err, typedrpc.ResourceExhausted, typedrpc.NotSent)
		runs, _ := l.Ran()
		is.Equal(runs, 2)
		is.NoErr(c.Close())
	})
}

func TestKeyed_optionsOutOfRange(t *testing.T) {
	is := is.New(t)
	for _, cache := range []*idempotency.Cache{{TTL: -1}, {MaxEntries: -1}, {MaxBytes: -1}, {Share: -0.1}, {Share: 1.1}} {
		for range 2 {
			err := (&typedrpc.Server{Replays: cache}).Check()
			is.True(err != nil && strings.Contains(err.Error(), "idempotency.Cache"))
			_, err = typedrpc.Dial(t.Context(), "ws://nowhere/", &typedrpc.DialOptions{Replays: cache})
			is.True(errors.Is(err, typedrpc.InvalidArgument))
		}
	}
}

func TestKeyed_tooOldToBeKnown(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		l := lab.NewLedger()
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, o)
		k := idempotency.NewKey()
		_, err := typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyAdd, 5)
		is.NoErr(err)
		time.Sleep(10*time.Minute - time.Millisecond)
		n, err := typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyAdd, 5) // known, whatever its age
		is.NoErr(err)
		is.Equal(n, 5)
		time.Sleep(time.Millisecond)
		_, err = typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyAdd, 5)
		lab.ErrorOf(t, err, typedrpc.FailedPrecondition, typedrpc.MayHaveRun)

		// One that never arrived may be repeated for four fifths.
		for _, old := range []time.Duration{8*time.Minute - time.Millisecond, 8 * time.Minute} {
			k := idempotency.NewKey()
			is.NoErr(c.Bind(k))
			is.True(k.String() != "") // from here on it ages
			time.Sleep(old)
			_, err = typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyAdd, 5)
			is.Equal(err == nil, old < 8*time.Minute)
		}
		// And one that waits for a link is not old when it leaves at last.
		w.Serve(nil)
		w.Cable().Cut()
		time.AfterFunc(time.Hour, func() { w.Serve(l.Server) })
		_, err = typedrpc.Call(t.Context(), c, lab.KeyAdd, 5)
		is.NoErr(err)
		is.NoErr(c.Close())
	})
}

// The time that a request waits at the handler's side counts.
func TestKeyed_agesWhileItWaitsToRun(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		var slow time.Duration
		l := lab.NewLedger(func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
			time.Sleep(slow)
			return next(ctx, r)
		})
		c := (&lab.Town{Srv: l.Server}).Dial(t, o)
		slow = 8 * time.Minute
		_, err := typedrpc.Call(t.Context(), c, lab.KeyAdd, 5)
		lab.ErrorOf(t, err, typedrpc.FailedPrecondition, typedrpc.MayHaveRun)
		slow -= time.Second
		_, err = typedrpc.Call(t.Context(), c, lab.KeyAdd, 5)
		is.NoErr(err)
		is.NoErr(c.Close())
	})
}

func TestKey_text(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		a, b := lab.NewLedger(), lab.NewLedger()
		w := &lab.Town{Srv: a.Server}
		c := w.Dial(t, nil)

		is.Equal(idempotency.Key{}.String(), "")
		lab.ErrorOf(t, c.Bind(idempotency.Key{}), typedrpc.InvalidArgument, typedrpc.NotSent)
		for _, text := range []string{
			"", "x", "k1...", "k2." + strings.Repeat("0", 32) + ".0.", "k1." + strings.Repeat("0", 31) + ".0.",
			"k1." + strings.Repeat("g", 32) + ".0.", "k1." + strings.Repeat("0", 32) + ".-1.",
			"k1." + strings.Repeat("0", 32) + ".9007199254740992.", "k1." + strings.Repeat("0", 32) + ".0.a-b",
			"k1." + strings.Repeat("0", 32) + ".0.a.b", "k1." + strings.Repeat("0", 32) + ".0." + strings.Repeat("a", 65),
		} {
			_, err := idempotency.ParseKey(text)
			lab.ErrorOf(t, err, typedrpc.InvalidArgument, typedrpc.NotSent)
		}
		parse := func(k idempotency.Key) idempotency.Key {
			p, err := idempotency.ParseKey(k.String())
			is.NoErr(err)
			is.Equal(p.String(), k.String())
			return p
		}

		// Written down before its use, and not bound.
		k := idempotency.NewKey()
		p := parse(k)
		_, err := typedrpc.Call(t.Context(), lab.WithKey(c, p), lab.KeyAdd, 5)
		lab.ErrorOf(t, err, typedrpc.FailedPrecondition, typedrpc.MayHaveRun)
		is.NoErr(c.Bind(p))
		_, err = typedrpc.Call(t.Context(), lab.WithKey(c, p), lab.KeyAdd, 5)
		is.NoErr(err)

		// Bound first, or used first.
		bound, used := idempotency.NewKey(), idempotency.NewKey()
		is.NoErr(c.Bind(bound))
		_, err = typedrpc.Call(t.Context(), lab.WithKey(c, used), lab.KeyAdd, 5)
		is.NoErr(err)
		first, err := typedrpc.Call(t.Context(), lab.WithKey(c, bound), lab.KeyAdd, 5)
		is.NoErr(err)
		time.Sleep(time.Minute)
		again, err := typedrpc.Call(t.Context(), lab.WithKey(c, parse(bound)), lab.KeyAdd, 5)
		is.NoErr(err)
		is.Equal(again, first)
		_, err = typedrpc.Call(t.Context(), lab.WithKey(c, parse(used)), lab.KeyAdd, 5)
		is.NoErr(err)
		runs, _ := a.Ran()
		is.Equal(runs, 3)
		is.Equal(a.Ages[2], "0")

		// Another server does not know them.
		w.Serve(b.Server)
		w.Cable().Cut()
		_, err = typedrpc.Call(t.Context(), c, lab.Echo, 1)
		is.NoErr(err)
		for _, k := range []idempotency.Key{bound, used, parse(bound), parse(used)} {
			_, err := typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyAdd, 5)
			lab.ErrorOf(t, err, typedrpc.FailedPrecondition, typedrpc.MayHaveRun)
			lab.ErrorOf(t, c.Bind(k), typedrpc.FailedPrecondition, typedrpc.NotSent)
		}
		runs, _ = b.Ran()
		is.Equal(runs, 0)
		is.NoErr(c.Close())
	})
}

// Faults that keyed calls and authentication had, each with what showed it.

// The age that a keyed CALL tells was not brought up to date when its session
// sent it again: the call ran twice.
func TestKeyed_ageOfWhatIsSentAgain(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		l := lab.NewLedger()
		l.Replays = &idempotency.Cache{TTL: time.Minute}
		w := &lab.Town{Srv: l.Server}
		o.Limits.Grace = 30 * time.Second // the default
		c := w.Dial(t, o)
		k := idempotency.NewKey()
		_, err := typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyAdd, 5)
		is.NoErr(err)
		time.Sleep(47 * time.Second) // < 4/5 TTL
		w.Cable().Swallow()
		f := typedrpc.Go(t.Context(), lab.WithKey(c, k), lab.KeyAdd, 5)
		synctest.Wait()
		w.Serve(nil)
		w.Cable().Cut()
		time.Sleep(20 * time.Second) // < Grace
		w.Serve(l.Server)
		_, err = f.Await(t.Context())
		is.Equal(typedrpc.CodeOf(err), typedrpc.FailedPrecondition) // it is too old to be known
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
		runs, _ := l.Ran()
		is.Equal(runs, 1)
		is.NoErr(c.Close())
	})
}

// The same with all defaults: links that come back and break before anything gets
// through.
func TestKeyed_ageOfWhatIsSentAgainOften(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		l := lab.NewLedger()
		w := &lab.Town{Srv: l.Server}
		o.Limits.Grace = 30 * time.Second
		c := w.Dial(t, o)
		k := idempotency.NewKey()
		_, err := typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyAdd, 5)
		is.NoErr(err)
		time.Sleep(7*time.Minute + 55*time.Second)
		w.Cable().Swallow()
		f := typedrpc.Go(t.Context(), lab.WithKey(c, k), lab.KeyAdd, 5)
		synctest.Wait()
		w.Mu.Lock()
		w.Fuse = func() int64 { return 2 } // HELLO, WELCOME
		w.Mu.Unlock()
		w.Serve(nil)
		w.Cable().Cut()
		for range 6 {
			time.Sleep(25 * time.Second)
			n := w.Dialled()
			w.Serve(l.Server)
			for w.Dialled() == n {
				time.Sleep(100 * time.Millisecond)
			}
			w.Serve(nil)
		}
		w.Mu.Lock()
		w.Fuse = nil
		w.Mu.Unlock()
		w.Serve(l.Server)
		_, err = f.Await(t.Context())
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
		runs, _ := l.Ran()
		is.Equal(runs, 1)
		is.NoErr(c.Close())
	})
}
