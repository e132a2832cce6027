package storm_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// herd is many clients of one address in memory, without cables.
type herd struct {
	mu      sync.Mutex
	srv     *typedrpc.Server // nil: nobody
	refusal error            // what is said then
	dials   []time.Time
	waits   []typedrpc.StateChange // Waiting, with Next made the delay
	since   []time.Time            // when those were told
	near    []link.Transport
	all     []*typedrpc.Conn
}

func (h *herd) connect(_ context.Context, _ string, offers []string) (link.Transport, string, *http.Response, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dials = append(h.dials, time.Now())
	if h.srv == nil {
		var u *typedrpc.UpgradeError
		if errors.As(h.refusal, &u) {
			return nil, "", &http.Response{StatusCode: u.Status, Header: u.Header}, h.refusal
		}
		return nil, "", nil, errors.New("connection refused")
	}
	near, far := link.Pipe()
	name, refused := hook.Accept(h.srv, far, testkit.NewUpgrade(), offers)
	if refused != nil {
		return nil, "", refused, errors.New("refused")
	}
	h.near = append(h.near, near)
	return near, name, nil, nil
}

func newHerd(t *testing.T, n int, d typedrpc.Dialect, srv *typedrpc.Server) *herd {
	t.Helper()
	h := &herd{srv: srv}
	t.Cleanup(h.close)
	var mu sync.Mutex
	on := func(s typedrpc.StateChange) {
		if s.State == typedrpc.StateWaiting {
			mu.Lock()
			defer mu.Unlock()
			h.waits, h.since = append(h.waits, s), append(h.since, time.Now())
		}
	}
	for range n {
		o := &typedrpc.DialOptions{
			Dialect: d, OnState: on, Limits: typedrpc.Limits{KeepAlive: time.Hour, Grace: time.Hour}, Logger: slog.New(slog.DiscardHandler),
		}
		c, err := typedrpc.Dial(t.Context(), "ws://herd/", hook.Connect(o, h.connect).(*typedrpc.DialOptions))
		if err != nil {
			t.Fatal(err)
		}
		h.all = append(h.all, c)
	}
	time.Sleep(10 * time.Second) // acknowledgements, and the writers' lingering
	synctest.Wait()
	h.dials = nil
	return h
}

func (h *herd) serve(srv *typedrpc.Server) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.srv = srv
}

func (h *herd) close() {
	for _, c := range h.all {
		go c.Close()
	}
	for _, c := range h.all {
		<-c.Context().Done()
	}
}

// peak is the largest number of times within any stretch of the given length.
func peak(at []time.Time, within time.Duration) (most int) {
	slices.SortFunc(at, time.Time.Compare)
	first := 0
	for i, t := range at {
		for t.Sub(at[first]) >= within {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// A restart brings all clients back, and never many of them at once.
func TestHerd_restart(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		n := testkit.Crowd(5000, 1000, 1000)
		const window = 2 * time.Second
		serve := func() *typedrpc.Server {
			l := lab.New()
			l.ReconnectSpread, l.Limits.KeepAlive = window, time.Hour
			return l.Server
		}
		old, next := serve(), serve()
		var mu sync.Mutex
		var back []time.Time
		next.OnConnect = func(*typedrpc.Conn) {
			mu.Lock()
			defer mu.Unlock()
			back = append(back, time.Now())
		}
		h := newHerd(t, n, d, old)
		began := time.Now()
		h.serve(next)
		is.NoErr(old.Shutdown(t.Context()))
		is.True(time.Since(began) < time.Second)
		time.Sleep(window)
		synctest.Wait()
		average := n / int(window/(100*time.Millisecond))
		is.Equal(len(back), n)    // all, once
		is.Equal(len(h.dials), n) // and without attempts in vain
		most := peak(back, 100*time.Millisecond)
		t.Logf("%d clients: at most %d of them in any 100 ms, %d on average over %v; the last after %v",
			n, most, average, window, back[len(back)-1].Sub(began))
		is.True(testing.Short() || most <= 2*average)
	})
}

// Those that find nobody during their window come back by their backoff: later,
// and not together either.
func TestHerd_restartWithAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		n := testkit.Crowd(5000, 1000, 1000)
		old, next := lab.New(), lab.New()
		var mu sync.Mutex
		var back []time.Time
		next.OnConnect = func(*typedrpc.Conn) {
			mu.Lock()
			defer mu.Unlock()
			back = append(back, time.Now())
		}
		h := newHerd(t, n, typedrpc.Binary, old.Server)
		h.serve(nil)
		began := time.Now()
		is.NoErr(old.Shutdown(t.Context()))
		time.Sleep(time.Second)
		h.serve(next.Server)
		time.Sleep(9 * time.Second)
		synctest.Wait()
		is.Equal(len(back), n)
		late := slices.IndexFunc(back, func(at time.Time) bool { return at.Sub(began) > 4*time.Second })
		is.True(late < 0 || late > n*97/100) // nearly all within twice the window
		t.Logf("%d clients, nobody there for a second: at most %d come in any 100 ms, %d attempts; the last after %v",
			n, peak(back, 100*time.Millisecond), len(h.dials), back[len(back)-1].Sub(began))
	})
}

// At the cap the delays are spread over all of it, whatever the clients find, and
// also while the cap is lowered because a session waits.
func TestHerd_delaysAtTheCap(t *testing.T) {
	for name, tt := range map[string]struct {
		refusal error
		grace   time.Duration
		look    time.Duration // from the loss on
		until   time.Duration
		cap     time.Duration
	}{
		"refused":                       {nil, -1, 2 * time.Minute, 5 * time.Minute, 30 * time.Second},
		"503":                           {&typedrpc.UpgradeError{Status: 503, Header: http.Header{"Retry-After": {"1"}}}, -1, 2 * time.Minute, 5 * time.Minute, 30 * time.Second},
		"503, later":                    {&typedrpc.UpgradeError{Status: 503, Header: http.Header{"Retry-After": {"10"}}}, -1, 2 * time.Minute, 5 * time.Minute, 30 * time.Second},
		"refused, with a session":       {nil, 40 * time.Second, 20 * time.Second, 39 * time.Second, 10 * time.Second},
		"503, with a session":           {&typedrpc.UpgradeError{Status: 503, Header: http.Header{"Retry-After": {"1"}}}, 40 * time.Second, 20 * time.Second, 39 * time.Second, 10 * time.Second},
		"refused, without one any more": {nil, 40 * time.Second, 3 * time.Minute, 6 * time.Minute, 30 * time.Second},
	} {
		testkit.Bubble(t, name, func(t *testing.T, is *is.I) {
			n := testkit.Crowd(5000, 1000, 1000)
			l := lab.New()
			l.Limits.Grace, l.Limits.KeepAlive = tt.grace, time.Hour
			h := newHerd(t, n, typedrpc.Binary, l.Server)
			h.refusal = tt.refusal
			h.serve(nil)
			began := time.Now()
			for _, near := range h.near {
				near.Kill()
			}
			time.Sleep(tt.until)
			synctest.Wait()
			times := map[time.Duration]int{} // to a millisecond
			all := 0
			longest := time.Duration(0)
			for i, s := range h.waits {
				if at := h.since[i].Sub(began); at < tt.look || at > tt.until {
					continue
				}
				delay := s.Next.Sub(h.since[i])
				longest = max(longest, delay)
				times[delay.Truncate(time.Millisecond)]++
				all++
			}
			most, which := 0, time.Duration(0)
			for delay, n := range times {
				if n > most {
					most, which = n, delay
				}
			}
			t.Logf("%d delays of %d clients, up to %v; %d of them were %v", all, n, longest, most, which)
			is.True(all >= n)
			is.True(longest > tt.cap*9/10)
			is.True(longest <= tt.cap+tt.cap/2)
			is.True(most <= 3 || most*50 <= all) // 2 %
			is.NoErr(l.Shutdown(t.Context()))
		})
	}
}
