package storm_test

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/idempotency"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// Clients that repeat until they are answered, over links that are lost at
// random, and servers that are started again.
func TestKeyed_storm(t *testing.T) {
	for _, tt := range []struct {
		name            string
		restart, shared bool
	}{{"one server", false, false}, {"restarts with one cache", true, true}, {"restarts with fresh caches", true, false}} {
		for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text} {
			t.Run(tt.name+" "+[]string{"binary", "jsonrpc"}[d], func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { keyedStorm(t, d, tt.restart, tt.shared) })
			})
		}
	}
}

func keyedStorm(t *testing.T, d typedrpc.Dialect, restart, shared bool) {
	is := is.New(t)
	const clients = 16
	each := max(testkit.Size(2000, 1000), 400) // with fewer, links may be lost where nothing is left unknown
	l := lab.NewLedger(func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
		raw, err := next(ctx, r)
		time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
		return raw, err
	})
	cache := &idempotency.Cache{TTL: 24 * time.Hour}
	serve := func() *typedrpc.Server {
		s := &typedrpc.Server{Mux: l.Mux, Logger: slog.New(slog.DiscardHandler)}
		if shared {
			s.Replays = cache
		}
		return s
	}
	w := &lab.Town{Srv: serve()}
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
				w.Serve(serve())
			}
			w.Mu.Lock()
			if n := len(w.Lines); n > 0 {
				i := rand.IntN(n)
				w.Lines[i].A.Kill()
				w.Lines[i].B.Kill()
				w.Lines = slices.Delete(w.Lines, i, i+1)
			}
			w.Mu.Unlock()
		}
	})
	var wg sync.WaitGroup
	var mu sync.Mutex
	acked, unknown := 0, 0
	for range clients {
		wg.Go(func() {
			var c *typedrpc.Conn
			for err := error(typedrpc.Unavailable); err != nil; {
				c, err = w.TryDial(t.Context(), &typedrpc.DialOptions{Dialect: d, Backoff: typedrpc.Backoff{Min: time.Millisecond, Max: 5 * time.Millisecond}})
			}
			defer c.Close()
			for range each {
				k := idempotency.NewKey()
				for {
					_, err := typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyAdd, 1)
					if err == nil {
						mu.Lock()
						acked++
						mu.Unlock()
						break
					}
					if typedrpc.CodeOf(err) == typedrpc.FailedPrecondition && typedrpc.OutcomeOf(err) == typedrpc.MayHaveRun {
						mu.Lock()
						unknown++
						mu.Unlock()
						break
					}
					if typedrpc.CodeOf(err) != typedrpc.Unavailable {
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
	runs, keys := l.Ran()
	is.Equal(runs, keys) // none ran twice
	is.Equal(acked+unknown, clients*each)
	is.Equal(l.Sum, runs)
	is.True(acked <= runs && runs <= acked+unknown)
	if restart && !shared {
		is.True(unknown > 0)
	} else {
		is.Equal(acked, clients*each)
		is.Equal(l.Sum, clients*each)
	}
	t.Logf("%d links, %d acknowledged, %d not known", w.Dialled(), acked, unknown)
}
