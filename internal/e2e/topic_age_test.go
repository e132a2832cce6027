package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// price is a state whose age can be told. Pad makes it as large as it is to be.
type price struct {
	At  int64
	Pad string
}

// market publishes a price to a topic, and measures what a subscriber gets of it.
type market struct {
	traits []topic.Trait
	path   typedrpctest.Conditions // in each direction
	opts   typedrpc.DialOptions
	in     []typedrpc.Interceptor    // the server's
	every  time.Duration             // between two prices; 0: a millisecond
	size   int                       // of one; 0: 100 bytes
	pace   func(n int) time.Duration // how long the loop's body takes for the n-th
	lasts  time.Duration             // 0: 2 s
}

// ages is what a subscriber saw of a market.
type ages struct {
	all    []time.Duration
	missed int
	err    error
}

func (a *ages) oldest() time.Duration { return slices.Max(a.all) }

func (a *ages) median() time.Duration {
	s := slices.Sorted(slices.Values(a.all))
	return s[len(s)/2]
}

// run is called in a bubble.
func (m market) run(t *testing.T) (got ages) {
	t.Helper()
	is := is.New(t)
	tp := topic.New[price]("market.price", m.traits...)
	hub := new(topic.Hub)
	n := typedrpctest.NewNetwork(&typedrpctest.NetworkOptions{Up: m.path, Down: m.path})
	quiet := slog.New(slog.DiscardHandler)
	mux := typedrpc.NewMux(m.in...)
	topic.Handle(mux, hub, tp, topic.Everybody)
	srv := &typedrpc.Server{Mux: mux, Logger: quiet}
	h := n.Host("exchange")
	h.Serve(http.HandlerFunc(srv.ServeHTTP))
	o := m.opts
	o.HTTPClient, o.Logger = n.HTTPClient(), quiet
	c, err := typedrpc.Dial(t.Context(), h.URL(), &o)
	is.NoErr(err)

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	var over atomic.Bool
	go func() {
		defer close(done)
		for e, err := range topic.Subscribe(ctx, c, tp, "x") {
			if err != nil {
				got.err = err
				return
			}
			if over.Load() { // it was published just behind another
				continue
			}
			got.all = append(got.all, time.Since(time.Unix(0, e.Value.At)))
			got.missed += e.Missed
			if m.pace != nil {
				time.Sleep(m.pace(len(got.all)))
			}
		}
	}()
	time.Sleep(2 * time.Second)
	size, every, lasts := m.size, m.every, m.lasts
	if size == 0 {
		size = 100
	}
	if every == 0 {
		every = time.Millisecond
	}
	if lasts == 0 {
		lasts = 2 * time.Second
	}
	pad := testkit.Letters(max(0, size-36)) // beside {"At":1767225600000000000,"Pad":""}
	for end := time.Now().Add(lasts); time.Now().Before(end); time.Sleep(every) {
		is.NoErr(topic.Publish(ctx, hub, tp, "x", price{time.Now().UnixNano(), pad}))
	}
	over.Store(true)
	time.Sleep(time.Second)
	cancel()
	<-done
	is.NoErr(hub.Close())
	is.NoErr(c.Close())
	is.NoErr(srv.Shutdown(t.Context()))
	is.NoErr(n.Close())
	synctest.Wait()
	return got
}

const screen = time.Second / 60 // of a page

// steadily takes each price for as long.
func steadily(d time.Duration) func(int) time.Duration {
	return func(int) time.Duration { return d }
}

// What LatestOnly delivers is at most two round trips and one item old, whatever the
// window is: neither what waits for the subscriber nor what is under way to it is older.
// On a slow line an item is what it takes there, too.
func TestTopic_latestOnlyIsFresh(t *testing.T) {
	type path struct {
		rtt  time.Duration
		rate int
		d    typedrpc.Dialect
	}
	paths := []path{
		{0, 0, typedrpc.Binary}, {10 * time.Millisecond, 0, typedrpc.Binary}, {50 * time.Millisecond, 0, typedrpc.Text},
		{50 * time.Millisecond, 100_000, typedrpc.Binary}, {200 * time.Millisecond, 2_000_000, typedrpc.Binary}, {0, 100_000, typedrpc.Text},
	}
	for name, m := range map[string]market{
		"a page":                     {pace: steadily(screen)},
		"a page with a large window": {pace: steadily(screen), opts: typedrpc.DialOptions{Limits: typedrpc.Limits{Window: 1 << 20}}},
		"slow":                       {pace: steadily(time.Second), lasts: 5 * time.Second},
		"fast":                       {},
		"fast, then slow":            {pace: func(n int) time.Duration { return time.Duration(min(1, n/100)) * screen }, lasts: 3 * time.Second},
		"large items":                {pace: steadily(screen), size: 20_000, every: 5 * time.Millisecond},
		"interceptors at the server": {pace: steadily(screen), in: []typedrpc.Interceptor{watching}},
		"interceptors at the client": {pace: steadily(screen), opts: typedrpc.DialOptions{OutgoingInterceptors: []typedrpc.Interceptor{watching}}},
	} {
		for _, p := range paths {
			testkit.Bubble(t, fmt.Sprint(name, "/", p.rtt, "/", p.rate, "/", p.d), func(t *testing.T, is *is.I) {
				m := m
				m.traits, m.opts.Dialect = []topic.Trait{topic.LatestOnly}, p.d
				m.path = typedrpctest.Conditions{Latency: p.rtt / 2, Bandwidth: p.rate}
				got := m.run(t)
				is.Equal(typedrpc.CodeOf(got.err), typedrpc.Canceled)
				item, trip := time.Duration(0), p.rtt
				for i := range got.all {
					if m.pace != nil {
						item = max(item, m.pace(i+1))
					}
				}
				if p.rate > 0 { // with all that is around it
					trip += time.Duration(max(m.size, 100)+300) * time.Second / time.Duration(p.rate)
				}
				t.Logf("%d, median %v, oldest %v", len(got.all), got.median(), got.oldest())
				is.True(got.oldest() <= 2*trip+item+max(m.every, time.Millisecond)) // two round trips and one item
				is.True(got.missed > 0 || m.pace == nil)
			})
		}
	}
}

// watching sees the items of what it wraps.
func watching(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
	r.OnItem(func(typedrpc.Raw, bool) error { return nil })
	return next(ctx, r)
}

// What keeps its items young does not stop after each for a round trip: a page has all
// that it takes, whatever the path.
func TestTopic_latestOnlyKeepsThePathBusy(t *testing.T) {
	for _, rtt := range []time.Duration{10 * time.Millisecond, 50 * time.Millisecond, 200 * time.Millisecond} {
		testkit.Bubble(t, fmt.Sprint(rtt), func(t *testing.T, is *is.I) {
			m := market{traits: []topic.Trait{topic.LatestOnly}, pace: steadily(screen), lasts: 20 * time.Second, path: typedrpctest.Conditions{Latency: rtt / 2}}
			got := m.run(t)
			t.Log(len(got.all))
			is.True(len(got.all) >= 20*60*9/10)
		})
	}
}

// TestTopic_agesByPolicy measures what package topic says of the policies: prices of 100
// bytes at a thousand a second, for a page that takes sixty, over a path of 50 ms.
func TestTopic_agesByPolicy(t *testing.T) {
	small := topic.MaxQueued(16 << 10)
	for _, c := range []struct {
		name   string
		traits []topic.Trait
		window int
		lasts  time.Duration
		oldest time.Duration
		end    typedrpc.Code
	}{
		{"LatestOnly", []topic.Trait{topic.LatestOnly}, 0, 10 * time.Second, 43 * time.Millisecond, typedrpc.Canceled},
		{"DropOldest", []topic.Trait{topic.DropOldest}, 0, 60 * time.Second, 8100 * time.Millisecond, typedrpc.Canceled},
		{"DropOldest, MaxQueued 16 KiB", []topic.Trait{topic.DropOldest, small}, 0, 30 * time.Second, 6600 * time.Millisecond, typedrpc.Canceled},
		{"DropOldest, MaxQueued 16 KiB", []topic.Trait{topic.DropOldest, small}, 4 << 10, 10 * time.Second, 480 * time.Millisecond, typedrpc.Canceled},
		{"DropNewest", []topic.Trait{topic.DropNewest}, 0, 80 * time.Second, 33500 * time.Millisecond, typedrpc.Canceled},
		{"DropNewest, MaxQueued 16 KiB", []topic.Trait{topic.DropNewest, small}, 4 << 10, 10 * time.Second, 2060 * time.Millisecond, typedrpc.Canceled},
		{"WaitAtMost(1 min)", []topic.Trait{topic.WaitAtMost(time.Minute)}, 0, 80 * time.Second, 33500 * time.Millisecond, typedrpc.ResourceExhausted},
		{"Disconnect", nil, 0, 10 * time.Second, 6400 * time.Millisecond, typedrpc.ResourceExhausted},
	} {
		testkit.Bubble(t, fmt.Sprint(c.name, "/", c.window), func(t *testing.T, is *is.I) {
			m := market{
				traits: c.traits, pace: steadily(screen), lasts: c.lasts,
				opts: typedrpc.DialOptions{Limits: typedrpc.Limits{Window: c.window}},
				path: typedrpctest.Conditions{Latency: 25 * time.Millisecond},
			}
			got := m.run(t)
			t.Logf("| %-28s | %2d KiB | %8v | %8v | %6d taken | %6d missed | %v", c.name, c.window>>10,
				got.median().Round(time.Millisecond), got.oldest().Round(time.Millisecond), len(got.all), got.missed, got.err)
			is.Equal(typedrpc.CodeOf(got.err), c.end)
			is.True(got.oldest() >= c.oldest*9/10 && got.oldest() <= c.oldest*11/10)
		})
	}
}

// TestTopic_agesOfPlainSubscribers measures what package topic says of those who credit
// nothing, over 10 ms and with 64 KiB of buffers: LatestOnly takes nothing back that a socket has taken.
func TestTopic_agesOfPlainSubscribers(t *testing.T) {
	for how, subscribe := range map[string]func(ctx context.Context, is *is.I, n *typedrpctest.Network, url string) (next func() ([]byte, error)){
		"rpc.subscribe": plainPrices,
		"GET":           gottenPrices,
	} {
		testkit.Bubble(t, how, func(t *testing.T, is *is.I) {
			tp, hub := topic.New[price]("market.price", topic.LatestOnly, typedrpc.Safe), new(topic.Hub)
			path := typedrpctest.Conditions{Latency: 5 * time.Millisecond, Buffer: 64 << 10}
			n := typedrpctest.NewNetwork(&typedrpctest.NetworkOptions{Up: path, Down: path})
			mux := typedrpc.NewMux()
			topic.Handle(mux, hub, tp, topic.Everybody)
			srv := &typedrpc.Server{Mux: mux, Logger: slog.New(slog.DiscardHandler)}
			h := n.Host("exchange")
			h.Serve(http.HandlerFunc(srv.ServeHTTP))
			ctx, cancel := context.WithCancel(t.Context())
			next := subscribe(ctx, is, n, h.URL())
			var got ages
			done := make(chan struct{})
			go func() {
				defer close(done)
				for text, err := next(); err == nil; text, err = next() {
					var p price
					if json.Unmarshal(text, &p) == nil && p.At > 0 {
						got.all = append(got.all, time.Since(time.Unix(0, p.At)))
						time.Sleep(screen)
					}
				}
			}()
			time.Sleep(time.Second)
			for range 10_000 {
				is.NoErr(topic.Publish(ctx, hub, tp, "x", price{time.Now().UnixNano(), testkit.Letters(64)}))
				time.Sleep(time.Millisecond)
			}
			cancel()
			<-done
			t.Logf("%d, median %v, oldest %v", len(got.all), got.median(), got.oldest())
			is.True(got.median() > 4*time.Second && got.oldest() < 10*time.Second)
			is.NoErr(hub.Close())
			is.NoErr(srv.Shutdown(t.Context()))
			is.NoErr(n.Close())
			synctest.Wait()
		})
	}
}

// plainPrices are those that rpc.subscribe brings.
func plainPrices(ctx context.Context, is *is.I, n *typedrpctest.Network, url string) func() ([]byte, error) {
	ws, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: n.HTTPClient()})
	is.NoErr(err)
	is.NoErr(ws.Write(ctx, websocket.MessageText, []byte(`{"jsonrpc":"2.0","id":1,"method":"rpc.subscribe","params":["market.price","x"]}`)))
	var waiting []notice
	return func() ([]byte, error) {
		for len(waiting) == 0 {
			_, text, err := ws.Read(ctx)
			if err != nil {
				return nil, err
			}
			if json.Unmarshal(text, &waiting) != nil { // it is alone
				waiting = make([]notice, 1)
				json.Unmarshal(text, &waiting[0])
			}
		}
		first := waiting[0]
		waiting = waiting[1:]
		return first.Params.Result, nil
	}
}

// gottenPrices are those that a GET brings.
func gottenPrices(ctx context.Context, is *is.I, n *typedrpctest.Network, at string) func() ([]byte, error) {
	query := url.Values{"method": {"market.price"}, "params": {`"x"`}}.Encode()
	r, err := http.NewRequestWithContext(ctx, "GET", strings.Replace(at, "ws:", "http:", 1)+"?"+query, nil)
	is.NoErr(err)
	resp, err := n.HTTPClient().Do(r)
	is.NoErr(err)
	lines := bufio.NewReader(resp.Body)
	return func() ([]byte, error) {
		line, err := lines.ReadBytes('\n')
		return bytes.TrimPrefix(line, []byte("data: ")), err
	}
}
