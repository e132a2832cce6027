package e2e_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/stats"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// TestStats_calls has calls, streams and notifications under way, and looks at both
// ends.
func TestStats_calls(t *testing.T) {
	everyDialect(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		l := lab.New()
		l.Limits.MaxCalls = 4
		c, s, err := typedrpctest.Dial(l.Server, &typedrpc.DialOptions{Dialect: d})
		is.NoErr(err)
		defer c.Close()
		plain := d == typedrpc.JSONRPC
		if got := s.Stats(); plain {
			is.Equal(got.NotifyIn.Size, int64(0))
		} else {
			is.Equal(got.NotifyIn.Size, int64(64<<10))
		}
		const calls = 4
		for range calls + 2 {
			typedrpc.Go(t.Context(), c, lab.Hang, struct{}{})
		}
		synctest.Wait()
		at, there := c.Stats(), s.Stats()
		if !plain { // which knows no limit of its peer's
			is.Equal(at.Out.Calls, calls)
			is.Equal(at.Out.Most, calls)
			is.Equal(at.Waiting, 2)
			is.True(at.Out.Bytes > 0)
			is.Equal(there.In.Calls, calls)
		}
		is.Equal(there.In.Most, calls)
		is.Equal(there.Out, stats.Places{Most: there.Out.Most, MaxBytes: there.Out.MaxBytes})
		is.True(at.Linked && there.Linked)
		is.Equal(at.Sessions, int64(1))
		is.Equal(there.Resumes, int64(0))
		is.True(there.Memory > 0)
		is.Equal(at.Memory, int64(0))
		close(l.Release)
		synctest.Wait()
		for n := range 100 {
			is.NoErr(typedrpc.Notify(t.Context(), c, lab.Note, n))
		}
		time.Sleep(5 * time.Second) // all is acknowledged
		at, there = c.Stats(), s.Stats()
		is.Equal(at.Out.Calls+at.Waiting+there.In.Calls, 0)
		is.Equal(at.NotifyOut.Used+there.NotifyIn.Used, int64(0))
		is.Equal(at.Unacked+there.Unacked, int64(0))
		is.Equal(at.Buffered+there.Buffered, int64(0))
		is.Equal(at.Sent, there.Received) // not a byte more or less
		is.Equal(there.Sent, at.Received)
		is.True(at.Sent.Messages > 1)
		is.True(at.Sent.Bytes > at.Sent.Messages)
	})
}

// TestStats_streams looks at items that nobody receives.
func TestStats_streams(t *testing.T) {
	testkit.Bubble(t, "both sides", func(t *testing.T, is *is.I) {
		mux := typedrpc.NewMux()
		hold := make(chan struct{})
		typedrpc.Handle(mux, lab.FlowBoth, func(ctx context.Context, _ string, s *typedrpc.Stream[string, string]) error {
			<-hold
			return nil
		})
		c, s, err := typedrpctest.Dial(&typedrpc.Server{Mux: mux}, nil)
		is.NoErr(err)
		defer c.Close()
		x, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
		is.NoErr(err)
		for range 10 {
			is.NoErr(x.Send(strings.Repeat("x", 98))) // 100 with its quotes
		}
		synctest.Wait()
		at, there := c.Stats(), s.Stats()
		is.Equal(at.Out.Streams, 1)
		is.Equal(there.In.Streams, 1)
		is.Equal(at.ItemsOut.Used, int64(10*(100+64)))
		is.True(at.ItemsOut.Size > at.ItemsOut.Used)
		is.Equal(there.Unread, int64(10*(100+64)))
		close(hold)
		synctest.Wait()
		at, there = c.Stats(), s.Stats()
		is.Equal(at.Out.Streams+there.In.Streams, 0)
		is.Equal(at.ItemsOut.Used+there.Unread, int64(0))
	})
}

// TestStats_sessions cuts links, and lets sessions go.
func TestStats_sessions(t *testing.T) {
	testkit.Bubble(t, "resumed, and lost", func(t *testing.T, is *is.I) {
		net := typedrpctest.NewNetwork(&typedrpctest.NetworkOptions{Up: typedrpctest.Conditions{Latency: 20 * time.Millisecond}, Down: typedrpctest.Conditions{Latency: 10 * time.Millisecond}})
		defer net.Close()
		l := lab.New()
		host := net.Host("server")
		host.Serve(l.Server)
		c, err := typedrpc.Dial(t.Context(), host.URL(), &typedrpc.DialOptions{HTTPClient: net.HTTPClient(), Backoff: lab.Steady})
		is.NoErr(err)
		defer c.Close()
		synctest.Wait()
		is.Equal(c.Stats().RoundTrip, 30*time.Millisecond)
		far := l.Server.Stats()
		is.Equal(far.Conns, 1)
		is.Equal(far.Links, 1)
		is.Equal(far.Accepted, int64(1))
		is.Equal(far.Kept, 0)
		is.Equal(far.MaxKept, 10_000)

		host.Stop()
		time.Sleep(500 * time.Millisecond)
		is.True(!c.Stats().Linked)
		is.Equal(l.Server.Stats().Kept, 1)
		is.Equal(l.Server.Stats().Links, 0)
		host.Start()
		time.Sleep(20 * time.Second)
		is.Equal(c.Stats().Resumes, int64(1))
		is.Equal(c.Stats().Sessions, int64(1))
		is.Equal(l.Server.Stats().Resumes, int64(1))
		is.Equal(l.Server.Stats().Kept, 0)

		_, err = typedrpc.Call(t.Context(), c, lab.Echo, 1)
		is.NoErr(err)
		time.Sleep(5 * time.Second)
		before, beforeFar := c.Stats(), l.Server.Stats()
		host.Unplug()
		time.Sleep(5 * time.Minute)
		host.Start()
		time.Sleep(time.Minute)
		after, afterFar := c.Stats(), l.Server.Stats()
		is.Equal(after.Sessions, int64(2))
		is.Equal(after.Resumes, int64(1))
		is.True(after.Sent.Bytes >= before.Sent.Bytes)
		is.True(before.Sent.Bytes > 0)
		is.Equal(afterFar.Accepted, int64(2))
		is.Equal(afterFar.Conns, 1)
		is.Equal(afterFar.Resumes, int64(1)) // of one that has ended
		is.True(afterFar.Received.Bytes >= beforeFar.Received.Bytes)
		is.Equal(afterFar.Evicted, stats.Evicted{Grace: 1})
	})
	testkit.Bubble(t, "evicted", func(t *testing.T, is *is.I) {
		l := lab.New()
		l.MaxKept = 1
		w := &lab.Town{Srv: l.Server}
		var all []*typedrpc.Conn
		for range 3 {
			all = append(all, w.Dial(t, &typedrpc.DialOptions{Limits: typedrpc.Limits{Grace: time.Minute}}))
		}
		synctest.Wait()
		w.Mu.Lock()
		w.Srv = nil
		for _, line := range w.Lines {
			line.Cut()
		}
		w.Mu.Unlock()
		synctest.Wait()
		got := l.Server.Stats()
		is.Equal(got.Evicted, stats.Evicted{Kept: 2})
		is.Equal(got.Kept, 1)
		is.Equal(got.Conns, 1)
		is.Equal(got.Accepted, int64(3))
		for _, c := range all {
			c.Close()
		}
		time.Sleep(time.Hour)
	})
	testkit.Bubble(t, "closed for memory", func(t *testing.T, is *is.I) {
		l := lab.New()
		l.MaxMemory = 1 << 20
		for range 15 {
			c, _, err := typedrpctest.Dial(l.Server, nil)
			is.NoErr(err)
			defer c.Close()
			for range 8 { // each takes 8 KiB and more
				typedrpc.Go(t.Context(), c, lab.Hang, struct{}{})
			}
			synctest.Wait()
			time.Sleep(time.Second)
		}
		got := l.Server.Stats()
		is.Equal(got.MaxMemory, int64(1<<20))
		is.True(got.Memory > 1<<18)
		is.True(got.Evicted.Memory > 0)
		is.Equal(got.Evicted, stats.Evicted{Memory: got.Evicted.Memory})
	})
}

// TestStats_ended has the numbers of what is over.
func TestStats_ended(t *testing.T) {
	testkit.Bubble(t, "connections and POSTs", func(t *testing.T, is *is.I) {
		l := lab.New()
		is.Equal(l.Server.Stats(), stats.Server{}) // it has served nobody
		is.Equal((*typedrpc.Server)(nil).Stats(), stats.Server{})
		c, s, err := typedrpctest.Dial(l.Server, nil)
		is.NoErr(err)
		_, err = typedrpc.Call(t.Context(), c, lab.Echo, 1)
		is.NoErr(err)
		c.Close()
		time.Sleep(time.Second)
		was := l.Server.Stats()
		is.Equal(was.Conns, 0)
		is.Equal(was.Received, s.Stats().Received)
		is.True(was.Received.Bytes > 0)
		is.Equal(s.Stats().Linked, false)
		const body = `{"jsonrpc":"2.0","id":1,"method":"lab.echo","params":[1]}`
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		l.Server.ServeHTTP(w, r)
		is.Equal(w.Code, http.StatusOK)
		now := l.Server.Stats()
		is.Equal(now.Received.Bytes-was.Received.Bytes, int64(len(body)))
		is.Equal(now.Received.Messages-was.Received.Messages, int64(1))
		is.Equal(now.Sent.Bytes-was.Sent.Bytes, int64(w.Body.Len()))
		is.Equal(now.Posts, 0)
		is.Equal(now.Memory, int64(0))
	})
}

// TestStats_allocates nothing.
func TestStats_allocates(t *testing.T) {
	is := is.New(t)
	c, s := typedrpctest.Pair(t, lab.New().Server, nil)
	for _, conn := range []*typedrpc.Conn{c, s} {
		is.Equal(testing.AllocsPerRun(100, func() { conn.Stats() }), 0.0)
	}
}

// BenchmarkStats asks ten thousand connections for their numbers, one by one and at
// their server, and says what asking all of them every second takes of a processor.
func BenchmarkStats(b *testing.B) {
	const crowd = 10_000
	l := lab.New()
	var conns, far []*typedrpc.Conn
	for range crowd / 2 {
		c, s, err := typedrpctest.Dial(l.Server, nil)
		if err != nil {
			b.Fatal(err)
		}
		conns, far = append(conns, c), append(far, s)
	}
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	all := append(far, conns...)
	core := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1e9*100, "%core")
	}
	b.Run("each", func(b *testing.B) {
		for b.Loop() {
			for _, c := range all {
				c.Stats()
			}
		}
		core(b)
	})
	b.Run("server", func(b *testing.B) { // of half as many
		for b.Loop() {
			l.Server.Stats()
		}
		core(b)
	})
}
