package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
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

// Sessions that are lost: with their links, with their servers, for lack of time
// and of room. Nobody may be left in the dark about it.

// stage is a network with a host. In a bubble.
type stage struct {
	t    *testing.T
	net  *typedrpctest.Network
	host *typedrpctest.Host
}

func newStage(t *testing.T, c typedrpctest.Conditions) *stage {
	t.Helper()
	n := typedrpctest.NewNetwork(&typedrpctest.NetworkOptions{Up: c, Down: c})
	return &stage{t, n, n.Host("stage")}
}

// path is the way of one client to the stage's host.
type path struct {
	stage *stage
	hc    *http.Client

	mu   sync.Mutex
	shut bool
	link *typedrpctest.Link
}

var errShut = errors.New("there is no way")

func (s *stage) path() *path {
	p := &path{stage: s}
	p.hc = &http.Client{Transport: &http.Transport{DialContext: p.dial}}
	return p
}

func (p *path) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	p.mu.Lock()
	shut := p.shut
	p.mu.Unlock()
	if shut {
		return nil, errShut
	}
	c, err := p.stage.net.DialContext(ctx, network, addr) // without the lock: it takes time
	if err == nil {
		all := p.stage.net.Links()
		p.mu.Lock()
		p.link = all[len(all)-1]
		p.mu.Unlock()
	}
	return c, err
}

// close lets nobody dial; open does.
func (p *path) close() { p.set(true) }

func (p *path) open() { p.set(false) }

func (p *path) set(shut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shut = shut
}

func (p *path) last() *typedrpctest.Link {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.link
}

// client dials over the path, with a recorder.
func (p *path) client(o typedrpc.DialOptions) *typedrpc.Conn {
	t := p.stage.t
	t.Helper()
	rec := typedrpctest.NewRecorder(&typedrpctest.RecorderOptions{Messages: 100, Bytes: 64 << 10})
	rec.LogOnFailure(t)
	o.HTTPClient = p.hc
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Backoff == (typedrpc.Backoff{}) {
		o.Backoff = typedrpc.Backoff{Min: 100 * time.Millisecond, Max: 100 * time.Millisecond}
	}
	c, err := typedrpc.Dial(t.Context(), p.stage.host.URL(), rec.Tap(&o))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var (
	lossOnce = typedrpc.NewMethod[chaosMessage, chaosMessage]("loss.once")
	lossAny  = typedrpc.NewMethod[chaosMessage, chaosMessage]("loss.any", typedrpc.Idempotent)
	lossNote = typedrpc.NewNotification[chaosMessage]("loss.note")
)

// ledger is one side's log of what ran, and the other's of how it ended.
type ledger struct {
	plan chaosPlan
	next atomic.Int64

	mu       sync.Mutex
	runs     map[int]int
	notes    []int
	outcomes map[int]typedrpc.Outcome // of calls; success is missing
	ended    map[int]bool
	sent     map[int]bool // notifications that Notify took
	failed   []string
}

func newLedger(p chaosPlan) *ledger {
	return &ledger{plan: p, runs: map[int]int{}, outcomes: map[int]typedrpc.Outcome{}, ended: map[int]bool{}, sent: map[int]bool{}}
}

func (l *ledger) fail(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.failed) < 10 {
		l.failed = append(l.failed, fmt.Sprintf(format, args...))
	}
}

func (l *ledger) mux() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	run := func(ctx context.Context, m chaosMessage) (chaosMessage, error) {
		l.mu.Lock()
		l.runs[m.N]++
		l.mu.Unlock()
		if m.Slow > 0 {
			timer := time.NewTimer(time.Duration(m.Slow) * time.Millisecond)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
				return m, ctx.Err()
			}
		}
		return m, nil
	}
	typedrpc.Handle(mux, lossOnce, run)
	typedrpc.Handle(mux, lossAny, run)
	typedrpc.Handle(mux, lossNote, func(_ context.Context, m chaosMessage) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.notes = append(l.notes, m.N)
		return nil
	})
	return mux
}

// idempotent says which method a number calls.
func (l *ledger) idempotent(n int) bool { return n%4 == 1 }

// call makes the call with the next number over c. It reports false if the
// connection has ended, or enough was done.
func (l *ledger) call(ctx context.Context, c *typedrpc.Conn, rng *rand.Rand, most int) bool {
	n := int(l.next.Add(1))
	if n > most {
		return false
	}
	m := l.plan.message(n)
	if rng.IntN(4) == 0 {
		m.Slow = rng.IntN(50)
	}
	var o typedrpc.CallOptions
	timed := false
	switch rng.IntN(8) {
	case 0:
		o.FailFast = true
	case 1:
		timed = true
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(1+rng.IntN(100))*time.Millisecond)
		defer cancel()
	}
	method := lossOnce
	if l.idempotent(n) {
		method = lossAny
	}
	got, err := typedrpc.Call(ctx, c.With(o), method, m)
	switch out := outcomeOf(err); {
	case err == nil:
		if got != m {
			l.fail("call %d was answered with another answer", n)
		}
	case !errors.Is(err, typedrpc.Unavailable) && !(timed && errors.Is(err, typedrpc.DeadlineExceeded)):
		l.fail("call %d: %v", n, err)
	case out != typedrpc.NotSent && out != typedrpc.MayHaveRun:
		l.fail("call %d has the outcome %v: %v", n, out, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended[n] = true
	if err != nil {
		l.outcomes[n] = outcomeOf(err)
	}
	return c.State() != typedrpc.StateClosed
}

// result compares what ran with how it ended.
func (l *ledger) result(t *testing.T, who string) {
	t.Helper()
	counts := map[string]int{}
	for n := range l.ended {
		ran := l.runs[n]
		o, failed := l.outcomes[n]
		switch {
		case !failed && (ran == 0 || ran > 1 && !l.idempotent(n)),
			failed && o == typedrpc.NotSent && ran != 0,
			failed && o == typedrpc.MayHaveRun && ran > 1 && !l.idempotent(n):
			l.fail("call %d failed (%v) with outcome %v and ran %d times", n, failed, o, ran)
		}
		switch {
		case failed:
			counts[o.String()]++
		case ran > 1:
			counts["success, ran again"]++
		default:
			counts["success"]++
		}
	}
	for n := range l.runs {
		if !l.ended[n] {
			l.fail("call %d ran and was never made", n)
		}
	}
	last := -1
	for _, n := range l.notes {
		if n <= last {
			l.fail("notification %d after %d", n, last)
		}
		if !l.sent[n] {
			l.fail("notification %d failed, and arrived", n)
		}
		last = n
	}
	for _, f := range l.failed {
		t.Errorf("%s: %s", who, f)
	}
	t.Logf("%s: %v; %d notifications of %d", who, counts, len(l.notes), len(l.sent))
}

// How sessions are lost.
var losses = map[string]struct {
	client, server time.Duration // grace
	restart        bool
}{
	"with its link, by the server": {server: -1},
	"with its link, by the client": {client: -1},
	"with little grace":            {server: time.Millisecond, client: time.Hour},
	"with its server":              {server: time.Second, restart: true},
}

func TestLoss_everyCallIsToldWhatIsKnown(t *testing.T) {
	for how, loss := range losses {
		for name, d := range bothDialects {
			seeds := uint64(testkit.Size(4, 4))
			if testkit.Race {
				seeds = 1
			}
			for seed := range seeds {
				t.Run(fmt.Sprintf("%s/%s/%d", how, name, seed), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						is := is.New(t)
						rng := rand.New(rand.NewPCG(seed, 7))
						cond := typedrpctest.Conditions{Latency: time.Duration(rng.IntN(3)) * time.Millisecond}
						st := newStage(t, cond)
						defer st.net.Close()
						p := chaosPlan{large: 100, dialect: d}
						up, down := newLedger(p), newLedger(p)
						const n = 600
						ctx, cancel := context.WithTimeout(t.Context(), 10*time.Hour)
						defer cancel()
						var servers []*typedrpc.Server
						conns := make(chan *typedrpc.Conn, 1000)
						serve := func() {
							srv := &typedrpc.Server{
								Mux: up.mux(), Logger: slog.New(slog.DiscardHandler),
								Limits:    typedrpc.Limits{Grace: loss.server, KeepAlive: 3 * time.Second},
								OnConnect: func(c *typedrpc.Conn) { conns <- c },
							}
							servers = append(servers, srv)
							st.host.Serve(srv)
						}
						serve()
						w := &weather{
							net: &st.net.Faults, connect: st.net.DialContext, base: cond, cuts: 40, large: p.largest(),
							rng: rand.New(rand.NewPCG(seed, 8)),
						}
						if loss.restart {
							w.cuts = 0
						}
						hc := w.client()
						defer hc.CloseIdleConnections()
						rec := typedrpctest.NewRecorder(&typedrpctest.RecorderOptions{Messages: 100, Bytes: 64 << 10})
						rec.LogOnFailure(t)
						var c *typedrpc.Conn
						var err error
						sessions := atomic.Int64{}
						for range 20 {
							c, err = typedrpc.Dial(t.Context(), st.host.URL(), rec.Tap(&typedrpc.DialOptions{
								Dialect: d, Mux: down.mux(), HTTPClient: hc, Logger: slog.New(slog.DiscardHandler),
								Limits:  typedrpc.Limits{Grace: loss.client, KeepAlive: 3 * time.Second},
								Backoff: typedrpc.Backoff{Min: 5 * time.Millisecond, Max: 50 * time.Millisecond},
								OnState: func(s typedrpc.StateChange) {
									if s.State == typedrpc.StateConnected && !s.Resumed {
										sessions.Add(1)
									}
								},
							}))
							if err == nil {
								break
							}
						}
						is.NoErr(err)
						var g, serving sync.WaitGroup
						stop := make(chan struct{})
						serving.Go(func() { // each connection's calls to the client
							for {
								var s *typedrpc.Conn
								select {
								case s = <-conns:
								case <-stop:
									return
								}
								for who := range 8 {
									rng := rand.New(rand.NewPCG(seed, 100+uint64(who)))
									serving.Go(func() {
										for down.call(ctx, s, rng, n) {
										}
									})
								}
							}
						})
						for who := range 8 {
							rng := rand.New(rand.NewPCG(seed, uint64(who)))
							g.Go(func() {
								for up.call(ctx, c, rng, n) {
								}
							})
						}
						g.Go(func() {
							for i := range n {
								err := typedrpc.Notify(ctx, c, lossNote, p.message(i))
								up.mu.Lock()
								up.sent[i] = err == nil
								up.mu.Unlock()
							}
						})
						over := make(chan struct{})
						if loss.restart {
							serving.Go(func() {
								for range 20 {
									select {
									case <-time.After(time.Duration(rng.IntN(60_000)) * time.Microsecond):
									case <-over:
										return
									}
									st.host.Stop()
									serve()
								}
							})
						}
						g.Wait()
						close(over)
						w.clear()
						time.Sleep(time.Minute) // handlers end
						if left := lab.Unsettled(c); left != "" && down.next.Load() > n {
							t.Errorf("left: %s", left)
						}
						c.Close()
						close(stop)
						serving.Wait()
						for _, srv := range servers {
							is.NoErr(srv.Shutdown(t.Context()))
						}
						up.result(t, "client")
						down.result(t, "server")
						is.True(sessions.Load() > 1)
						is.Equal(len(up.ended), n) // none was left
						t.Log(sessions.Load(), "sessions")
					})
				})
			}
		}
	}
}
