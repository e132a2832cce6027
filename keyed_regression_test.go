package typedrpc

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
)

// Faults that keyed calls and authentication had, each with what showed it.

// The age that a keyed CALL tells was not brought up to date when its session
// sent it again: the call ran twice.
func TestKeyed_ageOfWhatIsSentAgain(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		l := newLedger()
		l.Replays = NewReplayCache(ReplayOptions{TTL: time.Minute})
		w := &town{srv: l.Server}
		o.Limits.Grace = 30 * time.Second // the default
		c := w.dial(t, o)
		k := NewKey()
		_, err := Call(t.Context(), withKey(c, k), keyAdd, 5)
		is.NoErr(err)
		time.Sleep(47 * time.Second) // < 4/5 TTL
		w.cable().swallow()
		f := Go(t.Context(), withKey(c, k), keyAdd, 5)
		synctest.Wait()
		w.serve(nil)
		w.cable().cut()
		time.Sleep(20 * time.Second) // < Grace
		w.serve(l.Server)
		_, err = f.Await(t.Context())
		is.Equal(CodeOf(err), FailedPrecondition) // it is too old to be known
		is.Equal(OutcomeOf(err), MayHaveRun)
		runs, _ := l.ran()
		is.Equal(runs, 1)
		is.NoErr(c.Close())
	})
}

// The same with all defaults: links that come back and break before anything gets
// through.
func TestKeyed_ageOfWhatIsSentAgainOften(t *testing.T) {
	keyedTest(t, func(t *testing.T, is *is.I, o *DialOptions) {
		l := newLedger()
		w := &town{srv: l.Server}
		o.Limits.Grace = 30 * time.Second
		c := w.dial(t, o)
		k := NewKey()
		_, err := Call(t.Context(), withKey(c, k), keyAdd, 5)
		is.NoErr(err)
		time.Sleep(7*time.Minute + 55*time.Second)
		w.cable().swallow()
		f := Go(t.Context(), withKey(c, k), keyAdd, 5)
		synctest.Wait()
		w.mu.Lock()
		w.fuse = func() int64 { return 2 } // HELLO, WELCOME
		w.mu.Unlock()
		w.serve(nil)
		w.cable().cut()
		for range 6 {
			time.Sleep(25 * time.Second)
			n := w.dialled()
			w.serve(l.Server)
			for w.dialled() == n {
				time.Sleep(100 * time.Millisecond)
			}
			w.serve(nil)
		}
		w.mu.Lock()
		w.fuse = nil
		w.mu.Unlock()
		w.serve(l.Server)
		_, err = f.Await(t.Context())
		is.Equal(OutcomeOf(err), MayHaveRun)
		runs, _ := l.ran()
		is.Equal(runs, 1)
		is.NoErr(c.Close())
	})
}

// A handler that forwarded one request twice at once ended the process.
func TestKeyed_forwardTwiceAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLedger()
		w := &town{srv: l.Server}
		back := w.dial(t, &DialOptions{Backoff: steady})
		mux := NewMux()
		panics := make(chan any, 2)
		mux.HandleFallback(func(ctx context.Context, r *Request) (Raw, error) {
			var wg sync.WaitGroup
			var raw Raw
			for i := range 2 {
				mine := *r
				wg.Go(func() {
					defer func() {
						if p := recover(); p != nil {
							panics <- p
						}
					}()
					b, err := Forward(ctx, back, &mine)
					if i == 0 && err == nil {
						raw = b
					}
				})
			}
			wg.Wait()
			return raw, nil
		})
		front := &town{srv: &Server{Mux: mux}}
		c := front.dial(t, &DialOptions{Backoff: steady})
		f := Go(t.Context(), c, keyHang, 5)
		time.Sleep(time.Second)
		close(l.release)
		_, err := f.Await(t.Context())
		is.NoErr(err)
		select {
		case p := <-panics:
			t.Errorf("Forward panicked: %v", p)
		default:
		}
		c.Close()
		back.Close()
	})
}

// The credentials function had the context of who asked, and outlived the
// connection.
func TestReauthenticate_endsWithTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		ctx, cancel := context.WithCancel(context.Background())
		creds := Credentials(porchSign, func(ctx context.Context) (string, error) {
			if n++; n == 1 {
				return "ann", nil
			}
			<-ctx.Done() // heeds it
			return "", ctx.Err()
		})
		g := newGated(t, Binary, time.Hour, &DialOptions{Auth: creds})
		done := make(chan error, 1)
		go func() { done <- g.client.Reauthenticate(ctx) }()
		synctest.Wait()
		g.client.Close()
		if err := <-done; err == nil {
			t.Error("no error")
		}
		cancel()
	})
}

var regressionHang = NewMethod[string, int]("regression.hang", Keyed)

// The requests of keyed calls whose sessions were lost were in no budget.
func TestKeyed_detachedRunsCountInTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLedger()
		l.Limits = Limits{Grace: -1}
		l.MaxBuffered = 4 << 20
		Handle(l.Mux, regressionHang, func(ctx context.Context, _ string) (int, error) {
			l.running.Add(1)
			defer l.running.Add(-1)
			<-ctx.Done()
			return 0, ctx.Err()
		})
		w := &town{srv: l.Server}
		big := strings.Repeat("x", 1<<20)
		for range 32 {
			c := w.dial(t, nil)
			f := Go(t.Context(), c, regressionHang, big)
			synctest.Wait()
			w.cable().cut()
			c.Close()
			f.Await(t.Context())
		}
		synctest.Wait()
		is.True(l.running.Load() <= 4) // each holds a request of 1 MiB
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		l.Shutdown(ctx)
		synctest.Wait()
		is.Equal(l.running.Load(), int64(0))
		is.Equal(l.config.budget.used.Load(), int64(0)) // given back
	})
}

// Revoke left keyed handlers alone whose sessions were lost.
func TestRevoke_detachedRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.Limits = Limits{Grace: -1}
		l.Authenticate = Authenticate(porchSign, func(_ context.Context, _ *http.Request, who string) (Identity, int, error) {
			return Identity{Subject: who}, 1, nil
		})
		w := &town{srv: l.Server}
		c := w.dial(t, &DialOptions{Auth: ann, Backoff: steady})
		f := Go(t.Context(), c, keyHang, 5)
		synctest.Wait()
		w.serve(nil)
		w.cable().cut()
		synctest.Wait()
		l.Revoke("ann")
		synctest.Wait()
		if n := l.running.Load(); n != 0 {
			t.Errorf("%d handlers of a revoked subject still run", n)
		}
		close(l.release)
		c.Close()
		f.Await(t.Context())
	})
}

// What Authenticate was given did not end with a plain peer.
func TestAuthenticate_contextEndsWithThePeer(t *testing.T) {
	for _, d := range []Dialect{Binary, JSONRPC, PlainJSONRPC} {
		synctest.Test(t, func(t *testing.T) {
			l := newLab()
			var got context.Context
			l.Authenticate = Authenticate(porchSign, func(ctx context.Context, _ *http.Request, who string) (Identity, int, error) {
				got = ctx
				return Identity{Subject: "x", Context: ctx}, 1, nil
			})
			w := &town{srv: l.Server}
			c := w.dial(t, &DialOptions{Dialect: d, Backoff: steady})
			c.Close()
			synctest.Wait()
			time.Sleep(time.Hour)
			if got.Err() == nil {
				t.Errorf("dialect %v: Authenticate's context has not ended an hour after the connection did", d)
			}
		})
	}
}

// Close did not wait for a refresh of the credentials.
func TestClose_waitsForCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		var running atomic.Bool
		creds := Credentials(porchSign, func(ctx context.Context) (string, error) {
			if n++; n == 1 {
				return "ann", nil
			}
			running.Store(true)
			defer running.Store(false)
			<-ctx.Done()
			time.Sleep(100 * time.Millisecond) // tidies up
			return "", ctx.Err()
		})
		g := newGated(t, Binary, 10*time.Second, &DialOptions{Auth: creds})
		for !running.Load() {
			time.Sleep(100 * time.Millisecond)
		}
		g.client.Close()
		if running.Load() {
			t.Error("Close returned while the credentials function runs")
		}
		time.Sleep(time.Minute)
	})
}
