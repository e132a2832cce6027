package chaos_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// chaosGrace outlasts any wait between attempts.
const chaosGrace = 100 * time.Hour

// run does what the plan says. In a bubble.
func (p chaosPlan) run(t *testing.T) { p.do(t) }

// do returns how long it took, and what was received.
func (p chaosPlan) do(t *testing.T) (took time.Duration, stats typedrpctest.Stats) {
	is := is.New(t)
	var done atomic.Int64
	up, down := newChaosSide(&p, "client", &done), newChaosSide(&p, "server", &done)
	n := typedrpctest.NewNetwork(&typedrpctest.NetworkOptions{Seed: p.seed, Up: p.weather, Down: p.weather})
	defer n.Close()
	w := &weather{
		net: &n.Faults, connect: n.DialContext, base: p.weather, cuts: p.cuts, large: p.largest(), rng: rand.New(rand.NewPCG(p.seed, 3)),
	}
	p.client.Grace, p.server.Grace = chaosGrace, chaosGrace
	srv := &typedrpc.Server{Mux: up.mux(), Limits: p.server, Logger: slog.New(slog.DiscardHandler)}
	host := n.Host("chaos")
	host.Serve(srv)
	rec := typedrpctest.NewRecorder(&typedrpctest.RecorderOptions{Messages: 100, Bytes: 64 << 10})
	rec.LogOnFailure(t)
	var resumed, begun atomic.Int64
	hc := w.client()
	defer hc.CloseIdleConnections()
	var c *typedrpc.Conn
	var err error
	for range 100 { // the first one may be cut, too
		c, err = typedrpc.Dial(t.Context(), host.URL(), rec.Tap(&typedrpc.DialOptions{
			Dialect: p.dialect, Mux: down.mux(), Limits: p.client, HTTPClient: hc, Logger: slog.New(slog.DiscardHandler),
			Backoff: typedrpc.Backoff{Min: 10 * time.Millisecond, Max: time.Second},
			OnState: func(s typedrpc.StateChange) {
				if s.State == typedrpc.StateConnected && s.Resumed {
					resumed.Add(1)
				} else if s.State == typedrpc.StateConnected {
					begun.Add(1)
				}
			},
		}))
		if err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	is.NoErr(err)
	defer c.Close()
	s, err := up.introduce(t.Context(), c)
	is.NoErr(err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watchdog := time.AfterFunc(chaosGrace/2, cancel)
	defer watchdog.Stop()
	began := time.Now()
	var g sync.WaitGroup
	g.Go(func() { up.send(ctx, c) })
	g.Go(func() { down.send(ctx, s) })
	g.Wait()
	took, stats = time.Since(began), n.Stats()
	cuts := w.cut()
	w.clear()
	for end := time.Now().Add(time.Hour); idle(c, s) != "" && time.Now().Before(end); {
		time.Sleep(10 * time.Second)
	}
	if left := idle(c, s); left != "" {
		t.Errorf("left: %s", left)
	}
	sent, received := lab.Positions(c)
	sent2, received2 := lab.Positions(s)
	is.Equal(sent, received2) // what the client sent and the server received
	is.Equal(received, sent2)
	upWrong, upCalls := up.result()
	downWrong, downCalls := down.result()
	for _, wrong := range append(upWrong, downWrong...) {
		t.Error(wrong)
	}
	is.Equal(begun.Load(), int64(1)) // sessions
	if cuts < p.cuts/4 || p.n >= 1000 && cuts < p.cuts*9/10-2 {
		t.Errorf("%d cuts of %d", cuts, p.cuts)
	}
	w.mu.Lock()
	t.Logf("seed %d: %d cuts (%v), %d resumes, %d MB; calls answered, maybe run, not sent: %v, %v",
		p.seed, cuts, w.ends, resumed.Load(), (n.Stats().Up+n.Stats().Down)>>20, upCalls[1:], downCalls[1:])
	w.mu.Unlock()
	c.Close()
	is.NoErr(srv.Shutdown(t.Context()))
	return took, stats
}

// idle says what is left on two ends that should have nothing to do; "" is
// nothing.
func idle(conns ...*typedrpc.Conn) string {
	var left []string
	for i, c := range conns {
		who := [...]string{"client", "server"}[i%2]
		if s := lab.Unsettled(c); s != "" {
			left = append(left, who+": "+s)
		}
		if s := lab.Unpaid(c); s != "" {
			left = append(left, who+": "+s)
		}
		if s := c.State(); s != typedrpc.StateConnected {
			left = append(left, fmt.Sprintf("%s: %v", who, s))
		}
	}
	return strings.Join(left, "; ")
}

var bothDialects = map[string]typedrpc.Dialect{"binary": typedrpc.Binary, "jsonrpc": typedrpc.Text}

func TestChaos_full(t *testing.T) {
	for name, d := range bothDialects {
		t.Run(name, func(t *testing.T) {
			p := chaosPlan{
				seed: 1, dialect: d, n: testkit.Size(100_000, 20_000), large: 1000, cuts: testkit.Size(1000, 200), slow: 160,
				weather: typedrpctest.Conditions{Latency: time.Millisecond, Jitter: time.Millisecond},
				client:  typedrpc.Limits{KeepAlive: 5 * time.Second},
			}
			if testkit.Race || testing.Short() {
				p.n, p.cuts, p.large = 2000, 20, 200
			}
			synctest.Test(t, p.run)
		})
	}
}

// chaosSeeds are the fixed ones, or what the environment says.
func chaosSeeds(t *testing.T) (seeds []uint64) {
	s := os.Getenv("CHAOS_SEEDS")
	if s == "" {
		s = fmt.Sprint("1-", testkit.Size(24, 8))
	}
	for part := range strings.SplitSeq(s, ",") {
		from, to, _ := strings.Cut(part, "-")
		if to == "" {
			to = from
		}
		a, err1 := strconv.ParseUint(from, 10, 64)
		b, err2 := strconv.ParseUint(to, 10, 64)
		if err1 != nil || err2 != nil || a > b {
			t.Fatalf("CHAOS_SEEDS=%q: want numbers and ranges, 1,5,10-20", s)
		}
		for ; a <= b; a++ {
			seeds = append(seeds, a)
		}
	}
	return seeds
}

// planOf is a small run whose conditions follow from its seed.
func planOf(seed uint64, d typedrpc.Dialect) chaosPlan {
	rng := rand.New(rand.NewPCG(seed, 4))
	pick := func(v ...int) int { return v[rng.IntN(len(v))] }
	ms := time.Millisecond
	limits := func() typedrpc.Limits {
		return typedrpc.Limits{
			MaxUnacked: pick(0, 0, 100_000, 8<<10), Window: pick(0, 0, 4<<10), MaxCalls: pick(0, 0, 20),
			MaxBuffered: pick(0, 0, 0, 400_000),
		}
	}
	client, server := limits(), limits()
	client.KeepAlive = time.Duration(pick(0, 3)) * time.Second // so that the server may believe in a link for longer
	n, cuts := 400, 25
	if testkit.Race {
		n, cuts = 130, 8
	}
	return chaosPlan{
		seed: seed, dialect: d, n: n, large: pick(0, 50, 100), cuts: cuts, slow: pick(16, 16, 0),
		weather: typedrpctest.Conditions{
			Latency: time.Duration(pick(0, 0, 1, 30)) * ms, Jitter: time.Duration(pick(0, 0, 20)) * ms,
			Bandwidth: pick(0, 0, 0, 200_000), Slice: pick(0, 0, 0, 100), Buffer: pick(0, 0, 2000),
		},
		client: client, server: server,
	}
}

func TestChaos_seeds(t *testing.T) {
	for name, d := range bothDialects {
		for _, seed := range chaosSeeds(t) {
			if testkit.Race && os.Getenv("CHAOS_SEEDS") == "" && (seed%2 == 0) != (d == typedrpc.Binary) {
				continue // half of them in each dialect: the detector is slow
			}
			t.Run(fmt.Sprintf("%s/%d", name, seed), func(t *testing.T) { synctest.Test(t, planOf(seed, d).run) })
		}
	}
}

// The same over sockets of the system, in real time. Its links end with FIN or
// RST, or in silence at the one end or the other.
func TestChaos_proxy(t *testing.T) {
	for name, d := range bothDialects {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			p := chaosPlan{seed: 5, dialect: d, n: 800, large: 160, cuts: 30, slow: 160}
			if d == typedrpc.Text {
				p.n /= 2
			}
			if testkit.Race || testing.Short() {
				p.n, p.cuts, p.large = 300, 12, 60
			}
			p.client.Grace, p.server.Grace = time.Hour, time.Hour
			p.client.KeepAlive, p.server.KeepAlive = 200*time.Millisecond, 300*time.Millisecond
			var done atomic.Int64
			up, down := newChaosSide(&p, "client", &done), newChaosSide(&p, "server", &done)
			srv := &typedrpc.Server{Mux: up.mux(), Limits: p.server, Logger: slog.New(slog.DiscardHandler)}
			hs := httptest.NewServer(srv)
			defer hs.Close()
			proxy, err := typedrpctest.NewProxy(hs.URL, &typedrpctest.ProxyOptions{Seed: p.seed})
			is.NoErr(err)
			defer proxy.Close()
			rng := rand.New(rand.NewPCG(p.seed, 6))
			links := 0
			transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				links++ // one at a time
				least, most, how := int64(100), int64(30_000), typedrpctest.Cut(rng.IntN(2))
				if links%8 == 0 {
					how = typedrpctest.Cut(2 + rng.IntN(2))
				}
				if links%4 == 0 { // enough for the largest frames both ways
					least, most = 400_000, 500_000
				}
				if proxy.Stats().Cuts >= p.cuts {
					most = -1
				}
				proxy.CutEach(typedrpctest.Both, least, most, how)
				return new(net.Dialer).DialContext(ctx, network, addr)
			}}
			defer transport.CloseIdleConnections()
			rec := typedrpctest.NewRecorder(&typedrpctest.RecorderOptions{Messages: 100, Bytes: 64 << 10})
			rec.LogOnFailure(t)
			var begun atomic.Int64
			var c *typedrpc.Conn
			for range 20 {
				c, err = typedrpc.Dial(t.Context(), proxy.URL(), rec.Tap(&typedrpc.DialOptions{
					Dialect: d, Mux: down.mux(), Limits: p.client, HTTPClient: &http.Client{Transport: transport},
					Logger:  slog.New(slog.DiscardHandler),
					Backoff: typedrpc.Backoff{Min: time.Millisecond, Max: 20 * time.Millisecond},
					OnState: func(s typedrpc.StateChange) {
						if s.State == typedrpc.StateConnected && !s.Resumed {
							begun.Add(1)
						}
					},
				}))
				if err == nil {
					break
				}
			}
			is.NoErr(err)
			defer c.Close()
			s, err := up.introduce(t.Context(), c)
			is.NoErr(err)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var g sync.WaitGroup
			g.Go(func() { up.send(ctx, c) })
			g.Go(func() { down.send(ctx, s) })
			g.Wait()
			cuts := proxy.Stats().Cuts
			proxy.CutEach(typedrpctest.Both, 0, -1, 0)
			for _, l := range proxy.Links() {
				l.CutAfter(0, -1, 0)
			}
			is.Equal(begun.Load(), int64(1)) // sessions
			for idle(c, s) != "" && ctx.Err() == nil {
				<-time.After(time.Millisecond)
			}
			is.Equal(idle(c, s), "")
			upWrong, upCalls := up.result()
			downWrong, downCalls := down.result()
			for _, wrong := range append(upWrong, downWrong...) {
				t.Error(wrong)
			}
			is.True(cuts > p.cuts/2)
			t.Logf("%d cuts, %d links; calls %v, %v", cuts, links, upCalls[1:], downCalls[1:])
			c.Close()
			is.NoErr(srv.Shutdown(t.Context()))
		})
	}
}

// A replay log of 4 KiB on a path of 100 ms there and back: all is slower, as the
// log allows, and nothing stands still. One message is as large as fifty logs.
func TestChaos_fullLog(t *testing.T) {
	const log, trip = 4 << 10, 100 * time.Millisecond
	limits := typedrpc.Limits{MaxUnacked: log}
	slow := typedrpctest.Conditions{Latency: trip / 2}
	for name, d := range bothDialects {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := chaosPlan{seed: 1, dialect: d, n: 480, large: 120, slow: 160, weather: slow, client: limits, server: limits}
				took, stats := p.do(t)
				// A round trip for each log, and two for each frame that is larger:
				// its own, and one in which the log becomes empty for it. Every
				// message goes each way: notifications, calls and their answers,
				// items and their echoes.
				bytes, frames := int64(0), int64(0)
				for i := range p.n {
					if size := int64(len(p.pad(i))); size > log {
						bytes += 5 * size
						frames += 5 * (size/(64<<10) + 1)
					}
				}
				most := time.Duration((max(stats.Up, stats.Down)-bytes)/log+2*frames) * trip * 2 // the log is not always quite full
				t.Logf("%v for %d and %d bytes, at most %v", took, stats.Up, stats.Down, most)
				if took > most {
					t.Errorf("it took %v, %v should be enough", took, most)
				}
			})
		})
		t.Run(name+"/cut", func(t *testing.T) {
			synctest.Test(t, chaosPlan{seed: 2, dialect: d, n: 300, large: 100, slow: 160, cuts: 40, weather: slow, client: limits, server: limits}.run)
		})
		t.Run(name+"/calls", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOutage(t, d, limits, slow)
				defer o.end()
				o.each(func(who string, caller, _ *typedrpc.Conn) {
					const n = 500
					before := o.net.Stats()
					began := time.Now()
					for i := range n { // nothing but the log holds them up, and nothing comes back but ACKs
						typedrpc.Go(t.Context(), caller, outageWait, i)
					}
					for range n {
						next(t, o.began)
					}
					after := o.net.Stats()
					most := time.Duration(max(after.Up-before.Up, after.Down-before.Down)/log+2) * trip * 3 / 2
					if took := time.Since(began); took > most {
						t.Errorf("the calls of the %s took %v, %v should be enough", who, took, most)
					}
				})
				close(o.release)
			})
		})
		for way, up := range map[string]bool{"up": true, "down": false} {
			t.Run(name+"/throughput/"+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { fullLogThroughput(t, d, up, log, trip) })
			})
		}
	}
}

// fullLogThroughput sends small notifications one way.
func fullLogThroughput(t *testing.T, d typedrpc.Dialect, up bool, log int, trip time.Duration) {
	is := is.New(t)
	const n, size = 2000, 200
	st := newStage(t, typedrpctest.Conditions{Latency: trip / 2})
	defer st.net.Close()
	var got int
	all := make(chan struct{})
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, chaosNote, func(_ context.Context, m chaosMessage) error {
		if m.N != got {
			t.Errorf("%d in place of %d", m.N, got)
		}
		if got++; got == n {
			close(all)
		}
		return nil
	})
	conns := make(chan *typedrpc.Conn, 1)
	limits := typedrpc.Limits{MaxUnacked: log}
	srv := &typedrpc.Server{Mux: mux, Limits: limits, OnConnect: func(c *typedrpc.Conn) { conns <- c }}
	st.host.Serve(srv)
	p := st.path()
	c := p.client(typedrpc.DialOptions{Dialect: d, Mux: mux, Limits: limits})
	from := c
	if s := <-conns; !up {
		from = s
	}
	began := time.Now()
	for i := range n {
		is.NoErr(typedrpc.Notify(t.Context(), from, chaosNote, chaosMessage{N: i, Pad: chaosText[:size]}))
	}
	<-all
	took := time.Since(began)
	stats := st.net.Stats()
	bytes := stats.Up
	if !up {
		bytes = stats.Down
	}
	ideal := time.Duration(float64(bytes) / float64(log) * float64(trip))
	t.Logf("%v for %d bytes, ideal %v", took, bytes, ideal)
	if took < ideal*3/4 || took > ideal*3/2 {
		t.Errorf("it took %v for %d bytes, the log allows %v", took, bytes, ideal)
	}
	is.NoErr(c.Close())
	is.NoErr(srv.Shutdown(t.Context()))
}
