package typedrpctest_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// The real net/http, WebSocket and typedrpc over the network in memory.

var (
	greet  = typedrpc.NewMethod[string, string]("greet", typedrpc.Idempotent)
	note   = typedrpc.NewNotification[int]("note")
	count  = typedrpc.NewServerStream[int, int]("count")
	where  = typedrpc.NewMethod[struct{}, string]("where", typedrpc.Idempotent)
	prompt = typedrpc.Backoff{Min: time.Nanosecond, Max: time.Nanosecond, Factor: 1}
)

// greeter answers everything that a conversation says.
func greeter() *typedrpc.Mux {
	mux := doubles()
	typedrpc.Handle(mux, greet, func(_ context.Context, name string) (string, error) {
		if name == "" {
			return "", typedrpc.Errorf(typedrpc.InvalidArgument, "nobody")
		}
		return "hello " + name, nil
	})
	typedrpc.Handle(mux, count, func(_ context.Context, n int, send func(int) error) error {
		for i := range n {
			if err := send(i); err != nil {
				return err
			}
		}
		return nil
	})
	return mux
}

// converse makes calls, notifications and a stream, both ways where it can, and
// returns what came of them.
func converse(ctx context.Context, t *testing.T, h *typedrpctest.Host, o *typedrpc.DialOptions) (results []string) {
	say := func(format string, args ...any) { results = append(results, fmt.Sprintf(format, args...)) }
	srv := &typedrpc.Server{Mux: greeter()}
	var mu sync.Mutex
	var notes []int
	typedrpc.Handle(srv.Mux, note, func(_ context.Context, n int) error {
		mu.Lock()
		defer mu.Unlock()
		notes = append(notes, n)
		return nil
	})
	o.Mux = greeter()
	client, server := h.Pair(t, srv, o)
	for _, c := range []*typedrpc.Conn{client, server} {
		for _, name := range []string{"Ann", "", strings.Repeat("long ", 20_000)} {
			text, err := typedrpc.Call(ctx, c, greet, name)
			say("%d %.20q %v", len(text), text, err)
		}
		var futures []*typedrpc.Future[int]
		for i := range 20 {
			futures = append(futures, typedrpc.Go(ctx, c, double, i))
		}
		for _, f := range futures {
			n, err := f.Await(ctx)
			say("%d %v", n, err)
		}
	}
	for i := range 50 {
		if err := typedrpc.Notify(ctx, client, note, i); err != nil {
			say("%v", err)
		}
	}
	if o.Dialect != typedrpc.JSONRPC {
		sum := 0
		for n, err := range typedrpc.Receive(ctx, client, count, 500) {
			if err != nil {
				say("%v", err)
			}
			sum += n
		}
		say("%d", sum)
	}
	time.Sleep(10 * time.Second) // closing, a plain peer does not know what was handled
	if err := client.Close(); err != nil {
		say("%v", err)
	}
	time.Sleep(10 * time.Second)
	synctest.Wait()
	mu.Lock()
	defer mu.Unlock()
	say("%v", notes)
	return results
}

func TestHost_pairOverTheRealWebSocket(t *testing.T) {
	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text, typedrpc.JSONRPC} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			n := typedrpctest.NewNetwork(nil)
			t.Cleanup(func() { n.Close() })
			srv, o := &typedrpc.Server{Mux: doubles()}, &typedrpc.DialOptions{Dialect: d, Mux: doubles()}
			client, server := n.Host("a").Pair(t, srv, o)
			other, otherEnd := n.Host("a").Pair(t, srv, o)
			is.True(client != other && server != otherEnd)
			for _, c := range []*typedrpc.Conn{client, server, other, otherEnd} {
				got, err := typedrpc.Call(t.Context(), c, double, 21)
				is.NoErr(err)
				is.Equal(got, 42)
			}
			time.Sleep(time.Hour)
			is.Equal(client.State(), typedrpc.StateConnected)
			is.Equal(n.Stats().Dialled, 2)
			is.Equal(n.Stats().Open, 2)
		})
	}
}

// Whatever pieces the bytes come in, what a program sees is the same.
func TestNetwork_slicesChangeNoResult(t *testing.T) {
	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text, typedrpc.JSONRPC} {
		var whole []string
		for _, most := range []int{0, 1, 2, 3, 1000} {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				c := typedrpctest.Conditions{Slice: most}
				n := typedrpctest.NewNetwork(&typedrpctest.NetworkOptions{Up: c, Down: c})
				t.Cleanup(func() { n.Close() })
				got := converse(t.Context(), t, n.Host("a"), &typedrpc.DialOptions{Dialect: d})
				if whole == nil {
					whole = got
				}
				is.Equal(got, whole)
				is.True(len(got) > 45)
				is.Equal(n.Stats().Dialled, 1)
			})
		}
	}
}

func TestNetwork_latencyOfACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		n := typedrpctest.NewNetwork(&typedrpctest.NetworkOptions{
			Up: typedrpctest.Conditions{Latency: 30 * time.Millisecond}, Down: typedrpctest.Conditions{Latency: 20 * time.Millisecond},
		})
		t.Cleanup(func() { n.Close() })
		began := time.Now()
		client, _ := n.Host("a").Pair(t, &typedrpc.Server{Mux: doubles()}, nil)
		is.Equal(time.Since(began), 3*50*time.Millisecond) // TCP, the upgrade, and HELLO
		began = time.Now()
		_, err := typedrpc.Call(t.Context(), client, double, 1)
		is.NoErr(err)
		is.Equal(time.Since(began), 50*time.Millisecond)
	})
}

func TestNetwork_bandwidthOfACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		n := typedrpctest.NewNetwork(&typedrpctest.NetworkOptions{Down: typedrpctest.Conditions{Bandwidth: 100_000}})
		t.Cleanup(func() { n.Close() })
		client, _ := n.Host("a").Pair(t, &typedrpc.Server{Mux: greeter()}, nil)
		began := time.Now()
		_, err := typedrpc.Call(t.Context(), client, greet, strings.Repeat("x", 1_000_000))
		is.NoErr(err)
		took := time.Since(began)
		is.True(took > 10*time.Second && took < 10*time.Second+200*time.Millisecond)
	})
}

// watched tells when a host's ends of connections were closed.
type watched struct {
	net.Listener
	closed chan time.Time
}

type watchedConn struct {
	net.Conn
	once   sync.Once
	closed chan time.Time
}

func (l *watched) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &watchedConn{Conn: c, closed: l.closed}, nil
}

func (c *watchedConn) Close() error {
	c.once.Do(func() { c.closed <- time.Now() })
	return c.Conn.Close()
}

// A connection of which one end does not learn that it is over, or one way of
// which carries nothing, is given up by both ends within two intervals. (A
// goodbye takes another second where nobody answers it.)
func TestNetwork_keepAliveFindsOut(t *testing.T) {
	const most = 2*20*time.Second + time.Second
	faults := map[string]func(n *typedrpctest.Network){
		"the client vanished": func(n *typedrpctest.Network) { n.CutAll(typedrpctest.CutDialer) },
		"the server vanished": func(n *typedrpctest.Network) { n.CutAll(typedrpctest.CutListener) },
		"up is a black hole": func(n *typedrpctest.Network) {
			n.Links()[0].Set(typedrpctest.Up, typedrpctest.Conditions{BlackHole: true})
		},
		"down is a black hole": func(n *typedrpctest.Network) {
			n.Links()[0].Set(typedrpctest.Down, typedrpctest.Conditions{BlackHole: true})
		},
		"both are": func(n *typedrpctest.Network) {
			n.Links()[0].Set(typedrpctest.Both, typedrpctest.Conditions{BlackHole: true})
		},
	}
	for name, fault := range faults {
		for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					is := is.New(t)
					n := typedrpctest.NewNetwork(nil)
					t.Cleanup(func() { n.Close() })
					l, err := n.Host("a").Listen()
					is.NoErr(err)
					w := &watched{l, make(chan time.Time, 10)}
					srv := &typedrpc.Server{Mux: doubles()}
					hs := &http.Server{Handler: srv}
					go hs.Serve(w)
					// A new link would tell the server about the old one.
					var away atomic.Bool
					dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
						if away.Load() {
							return nil, syscall.ENETUNREACH
						}
						return n.DialContext(ctx, network, addr)
					}
					lost := make(chan time.Time, 1000)
					client, err := typedrpc.Dial(t.Context(), n.Host("a").URL(), &typedrpc.DialOptions{
						Dialect: d, Backoff: typedrpc.Backoff{Min: time.Second, Max: time.Second},
						HTTPClient: &http.Client{Transport: &http.Transport{DialContext: dial}},
						OnState: func(s typedrpc.StateChange) {
							if s.State == typedrpc.StateWaiting {
								lost <- time.Now()
							}
						},
					})
					is.NoErr(err)
					time.Sleep(time.Hour + 7*time.Second)
					is.Equal(len(lost), 0)
					began := time.Now()
					fault(n)
					away.Store(true)
					is.True((<-lost).Sub(began) <= most)     // the client
					is.True((<-w.closed).Sub(began) <= most) // the server
					away.Store(false)
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					_, err = typedrpc.Call(ctx, client, double, 1)
					is.NoErr(err)
					is.NoErr(client.Close())
				})
			})
		}
	}
}

// Both ends go on after an outage that was shorter than their patience, over
// the same connection, and nothing is lost.
func TestHost_unplugForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		n := typedrpctest.NewNetwork(nil)
		t.Cleanup(func() { n.Close() })
		h := n.Host("a")
		client, _ := h.Pair(t, &typedrpc.Server{Mux: doubles()}, nil)
		for range 10 {
			h.Unplug()
			f := typedrpc.Go(t.Context(), client, double, 21)
			time.Sleep(10 * time.Second)
			synctest.Wait()
			select {
			case <-f.Done():
				t.Error("answered over a cable that is unplugged")
			default:
			}
			h.Start()
			got, err := f.Await(t.Context())
			is.NoErr(err)
			is.Equal(got, 42)
		}
		is.Equal(n.Stats().Dialled, 1)
	})
}

func TestHost_unplugForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		n := typedrpctest.NewNetwork(nil)
		t.Cleanup(func() { n.Close() })
		h := n.Host("a")
		client, _ := h.Pair(t, &typedrpc.Server{Mux: greeter()}, nil)
		h.Unplug()
		time.Sleep(time.Hour)
		is.True(client.State() != typedrpc.StateConnected)
		time.AfterFunc(time.Minute, h.Start)
		got, err := typedrpc.Call(t.Context(), client, greet, "Ann")
		is.NoErr(err)
		is.Equal(got, "hello Ann")
	})
}

func TestHost_stopAndServeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		n := typedrpctest.NewNetwork(nil)
		t.Cleanup(func() { n.Close() })
		at := func(name string) *typedrpc.Server {
			srv := &typedrpc.Server{Mux: typedrpc.NewMux()}
			typedrpc.Handle(srv.Mux, where, func(context.Context, struct{}) (string, error) { return name, nil })
			return srv
		}
		a, b := n.Host("a"), n.Host("b")
		b.Serve(at("b"))
		client, _ := a.Pair(t, at("a"), nil)
		other, err := typedrpc.Dial(t.Context(), b.URL(), &typedrpc.DialOptions{HTTPClient: n.HTTPClient()})
		is.NoErr(err)
		t.Cleanup(func() { other.Close() })
		ask := func(c *typedrpc.Conn, patience time.Duration) string {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			got, err := typedrpc.Call(ctx, c, where, struct{}{})
			if err != nil {
				return "nobody"
			}
			return got
		}
		is.Equal(ask(client, time.Second), "a")
		a.Stop()
		is.Equal(ask(client, time.Minute), "nobody")
		is.Equal(ask(other, time.Second), "b") // another host is another matter
		a.Start()
		is.Equal(ask(client, time.Minute), "a")
		a.Stop()
		a.Serve(at("a, born again"))
		is.Equal(ask(client, time.Minute), "a, born again")
	})
}

// Cut at any byte of an opening, from TCP to the first answer, the next attempt
// gets through.
func TestNetwork_cutAtEveryByteOfTheOpening(t *testing.T) {
	for _, dialect := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text} {
		for _, d := range ways {
			for _, how := range []typedrpctest.Cut{typedrpctest.CutClose, typedrpctest.CutReset} {
				if dialect == typedrpc.Text && how == typedrpctest.CutReset {
					continue // seconds, for what Binary has shown
				}
				t.Run(fmt.Sprint(dialect, d, how), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { cutOpenings(t, dialect, d, how) })
				})
			}
		}
	}
}

func cutOpenings(t *testing.T, dialect typedrpc.Dialect, d typedrpctest.Direction, how typedrpctest.Cut) {
	is := is.New(t)
	n := typedrpctest.NewNetwork(nil)
	t.Cleanup(func() { n.Close() })
	rec := typedrpctest.NewRecorder(nil)
	rec.LogOnFailure(t)
	o := rec.Tap(&typedrpc.DialOptions{Dialect: dialect, Backoff: typedrpc.Backoff{Min: 10 * time.Millisecond, Max: 10 * time.Millisecond}})
	client, _ := n.Host("a").Pair(t, &typedrpc.Server{Mux: greeter()}, o)
	again := func() int64 { // the bytes of a call over a new connection
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		got, err := typedrpc.Call(ctx, client, greet, "Ann")
		is.NoErr(err)
		is.Equal(got, "hello Ann")
		is.Equal(client.State(), typedrpc.StateConnected)
		links := n.Links()
		is.Equal(len(links), 1)
		return links[0].Received(d)
	}
	n.CutAll(how)
	all := again()
	is.True(all > 300)
	for after := int64(0); after < all; after++ {
		before := n.Stats()
		n.CutEach(d, after, after, how)
		n.CutAll(how)
		f := typedrpc.Go(t.Context(), client, greet, "Ann")
		for began := time.Now(); n.Stats().Cuts < before.Cuts+2; {
			time.Sleep(100 * time.Microsecond)
			if time.Since(began) > 10*time.Second {
				t.Fatalf("not cut after %d bytes", after)
			}
		}
		n.CutEach(d, -1, -1, how)
		got, err := f.Await(t.Context())
		is.NoErr(err)
		is.Equal(got, "hello Ann")
		again()
	}
}

// A trace depends on nothing but the seed.
func TestNetwork_sameSeedSameTrace(t *testing.T) {
	trace := func(dialect typedrpc.Dialect, seed uint64) (text string, stats typedrpctest.Stats) {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			n := typedrpctest.NewNetwork(&typedrpctest.NetworkOptions{
				Seed: seed,
				Up:   typedrpctest.Conditions{Latency: 11 * time.Millisecond, Jitter: 30 * time.Millisecond, Bandwidth: 100_000},
				Down: typedrpctest.Conditions{Latency: 23 * time.Millisecond, Jitter: 30 * time.Millisecond, Bandwidth: 70_000, Slice: 100},
			})
			t.Cleanup(func() { n.Close() })
			rec := typedrpctest.NewRecorder(nil)
			client, _ := n.Host("a").Pair(t, &typedrpc.Server{Mux: greeter()}, rec.Tap(&typedrpc.DialOptions{
				Mux: greeter(), Dialect: dialect, Backoff: prompt,
			}))
			// What several goroutines do at one and the same time has no order,
			// so there are pauses.
			time.Sleep(5 * time.Second)
			n.CutEach(typedrpctest.Down, 1_000, 20_000, typedrpctest.CutClose)
			n.CutAll(typedrpctest.CutClose)
			time.Sleep(5 * time.Second)
			for i := range 60 {
				got, err := typedrpc.Call(t.Context(), client, greet, strings.Repeat("x", 10+i*i))
				is.NoErr(err)
				is.Equal(len(got), 16+i*i)
				time.Sleep(time.Duration(i) * time.Millisecond)
			}
			// In milliseconds: the client's backoff is 0 or 1 ns, at random.
			text, stats = micros.ReplaceAllString(rec.String(), "${1}s"), n.Stats()
		})
		return text, stats
	}
	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text} {
		is := is.New(t)
		one, stats := trace(d, 1)
		same, statsToo := trace(d, 1)
		other, _ := trace(d, 2)
		if one != same {
			diff(t, one, same)
		}
		is.Equal(stats, statsToo)
		is.True(one != other)
		is.True(stats.Cuts > 3)
		is.True(strings.Count(one, "\n") > 150)
	}
}

var micros = regexp.MustCompile(`(\d+\.\d{3})\d{3}s`)

func diff(t *testing.T, a, b string) {
	t.Helper()
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			t.Errorf("line %d:\n%s\n%s", i, strings.Join(x[max(0, i-3):i+1], "\n"), y[i])
			return
		}
	}
	t.Errorf("%d lines and %d", len(x), len(y))
}

// Every call is answered or fails, whatever happens to the bytes, and nothing is
// left behind.
func TestNetwork_storm(t *testing.T) {
	for seed := range uint64(3) {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			n := typedrpctest.NewNetwork(&typedrpctest.NetworkOptions{
				Seed: seed,
				Up:   typedrpctest.Conditions{Latency: time.Millisecond, Jitter: 5 * time.Millisecond, Slice: 13},
				Down: typedrpctest.Conditions{Latency: time.Millisecond, Jitter: 5 * time.Millisecond, Buffer: 4000},
			})
			t.Cleanup(func() { n.Close() })
			n.CutEach(typedrpctest.Both, 3_000, 50_000, typedrpctest.CutReset)
			client, _ := n.Host("a").Pair(t, &typedrpc.Server{Mux: greeter()}, &typedrpc.DialOptions{Backoff: prompt})
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() {
					for j := range 20 {
						got, err := typedrpc.Call(t.Context(), client, greet, strings.Repeat("y", 1+50*(i+j)))
						if err == nil && len(got) != 7+50*(i+j) {
							t.Errorf("%d bytes", len(got))
						}
						if err != nil && !errors.Is(err, typedrpc.Unavailable) { // lost too often
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			is.True(n.Stats().Cuts > 5)
			is.True(slices.IsSortedFunc(n.Links(), func(a, b *typedrpctest.Link) int { return a.Number() - b.Number() }))
		})
	}
}

func TestNetwork_closeEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		n := typedrpctest.NewNetwork(nil)
		n.Host("a").Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hi") }))
		resp, err := n.HTTPClient().Get("http://a/") // its connection stays, idle
		is.NoErr(err)
		resp.Body.Close()
		n.Host("b").Pair(t, &typedrpc.Server{}, nil)
		n.Host("b").Pair(t, &typedrpc.Server{}, nil)
		is.Equal(n.Stats().Dialled, 3)
		n.CutAll(typedrpctest.CutDialer) // of which the servers do not learn
		n.Close()
		is.Equal(n.Stats().Open, 0)
		n.Host("a").Serve(http.NotFoundHandler())
		_, err = n.HTTPClient().Get("http://a/")
		is.True(errors.Is(err, net.ErrClosed))
	})
}
