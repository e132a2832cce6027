package typedrpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// Chaos: everything that two peers do with each other, at once and both ways,
// while their links are cut at random bytes, in every way that links end. Nothing
// of it may be lost, done twice, or come out of order, and at the end nothing may
// be left.
//
// A seed decides what is sent and where links are cut; the scheduler and the
// client's wait between attempts decide the rest. Seeds are a fixed list. Others
// are chosen by the environment, a range for instance:
//
//	CHAOS_SEEDS=100-199 go test -run TestChaos_seeds .
//
// The name of a test that fails has its seed, and its log the last messages that
// the client sent and received.

// chaosMessage is a number, and a text that follows from it.
type chaosMessage struct {
	N    int    `json:"n"`
	Pad  string `json:"pad,omitempty"`
	Slow int    `json:"slow,omitempty"` // milliseconds that the handler takes, unless it is told to end
}

var (
	chaosNote   = typedrpc.NewNotification[chaosMessage]("chaos.note")
	chaosCall   = typedrpc.NewMethod[chaosMessage, chaosMessage]("chaos.call")
	chaosSerial = typedrpc.NewMethod[chaosMessage, chaosMessage]("chaos.serial", typedrpc.Serial)
	chaosWho    = typedrpc.NewMethod[typedrpc.Empty, typedrpc.Empty]("chaos.who")
	chaosEcho   = typedrpc.NewBidiStream[typedrpc.Empty, chaosMessage, chaosMessage]("chaos.echo")
)

var chaosText = func() string {
	rng := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 300_000)
	for i := range b {
		b[i] = 'a' + byte(rng.IntN(26))
	}
	return string(b)
}()

// chaosPlan is what a run does.
type chaosPlan struct {
	seed    uint64
	dialect typedrpc.Dialect
	n       int // notifications, calls and items, each way
	large   int // one message of so many is large, for several fragments
	cuts    int
	slow    int // one call of so many takes its time, and may be cancelled
	weather typedrpctest.Conditions
	client  typedrpc.Limits
	server  typedrpc.Limits
}

func (p *chaosPlan) pad(n int) string {
	size := 0
	switch {
	case p.large > 0 && n%p.large == p.large/2:
		size = 60_000 + n*7919%120_000
	case n%61 == 7:
		size = 500 + n*7919%3000
	}
	return chaosText[n%1000:][:size]
}

// largest is what the largest frames of both ways need.
func (p *chaosPlan) largest() int64 {
	switch {
	case p.large == 0:
		return 0
	case p.dialect == typedrpc.Binary:
		return 150_000 // fragments
	}
	return 400_000
}

func (p *chaosPlan) message(n int) chaosMessage { return chaosMessage{N: n, Pad: p.pad(n)} }

// chaosSide is what one side sends to the other, and what that received of it.
type chaosSide struct {
	plan *chaosPlan
	name string
	done *atomic.Int64 // of both sides, of chaosPlan.total

	notes, serials int // the next
	peer           *typedrpc.Conn

	mu       sync.Mutex
	runs     []uint8 // of each call
	outcomes []uint8
	failed   []string
}

const (
	chaosAnswered = 1 + iota
	chaosMayHaveRun
	chaosNotSent
)

func newChaosSide(p *chaosPlan, name string, done *atomic.Int64) *chaosSide {
	return &chaosSide{plan: p, name: name, done: done, runs: make([]uint8, p.n), outcomes: make([]uint8, p.n)}
}

func (y *chaosSide) fail(format string, args ...any) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if len(y.failed) < 10 {
		y.failed = append(y.failed, y.name+": "+fmt.Sprintf(format, args...))
	}
}

func (y *chaosSide) check(what string, m chaosMessage, want int) {
	if m.N != want {
		y.fail("%s %d in place of %d", what, m.N, want)
	}
	if m.N < 0 || m.Pad != y.plan.pad(m.N) {
		y.fail("%s %d arrived with other %d bytes", what, m.N, len(m.Pad))
	}
}

// mux has the handlers of what y sends.
func (y *chaosSide) mux() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.HandleNotification(mux, chaosNote, func(_ context.Context, m chaosMessage) {
		y.check("notification", m, y.notes)
		y.notes++
	})
	typedrpc.Handle(mux, chaosWho, func(ctx context.Context, _ typedrpc.Empty) (typedrpc.Empty, error) {
		y.peer = typedrpc.ConnFrom(ctx)
		return typedrpc.Empty{}, nil
	})
	typedrpc.Handle(mux, chaosSerial, func(_ context.Context, m chaosMessage) (chaosMessage, error) {
		y.check("serial call", m, y.serials)
		y.serials++
		return m, nil
	})
	typedrpc.Handle(mux, chaosCall, func(ctx context.Context, m chaosMessage) (chaosMessage, error) {
		y.check("call", m, m.N)
		y.mu.Lock()
		y.runs[m.N]++
		y.mu.Unlock()
		r := typedrpc.RequestFrom(ctx)
		if n := r.Metadata.Get("n"); n != "" {
			if n != strconv.Itoa(m.N) {
				y.fail("call %d came with the metadata of %s", m.N, n)
			}
			r.Reply.Set("n", n)
		}
		if m.Slow > 0 {
			timer := time.NewTimer(time.Duration(m.Slow) * time.Millisecond)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
				return chaosMessage{}, ctx.Err()
			}
		}
		return m, nil
	})
	typedrpc.HandleBidiStream(mux, chaosEcho, func(_ context.Context, _ typedrpc.Empty, s *typedrpc.Stream[chaosMessage, chaosMessage]) error {
		for {
			m, err := s.Recv()
			if err == io.EOF {
				return nil
			}
			if err == nil {
				err = s.Send(m)
			}
			if err != nil {
				return err
			}
		}
	})
	return mux
}

// introduce finds the other end of c, which calls y's handlers. Attempts to
// connect that failed may have left others.
func (y *chaosSide) introduce(ctx context.Context, c *typedrpc.Conn) (*typedrpc.Conn, error) {
	_, err := typedrpc.Call(ctx, c, chaosWho, typedrpc.Empty{})
	return y.peer, err
}

// send does all that the plan says, and returns when it has ended.
func (y *chaosSide) send(ctx context.Context, c *typedrpc.Conn) {
	var g sync.WaitGroup
	n := y.plan.n
	g.Go(func() {
		for i := range n {
			if err := typedrpc.Notify(ctx, c, chaosNote, y.plan.message(i)); err != nil {
				y.fail("notification %d: %v", i, err)
				return
			}
			y.done.Add(1)
		}
	})
	g.Go(func() { y.sendSerials(ctx, c, n/8) })
	var next atomic.Int64
	for who := range 32 {
		g.Go(func() {
			rng := rand.New(rand.NewPCG(y.plan.seed, uint64(who)))
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if !y.call(ctx, c, rng, i) {
					return
				}
				y.done.Add(1)
			}
		})
	}
	g.Go(func() { y.echo(ctx, c, n, y.done) })
	g.Go(func() {
		var ignored atomic.Int64
		for i := range n / 100 {
			if i%3 == 0 { // left early
				if s, err := typedrpc.Open(ctx, c, chaosEcho, typedrpc.Empty{}); err == nil {
					s.Send(y.plan.message(i))
					s.Close()
				}
				continue
			}
			y.echo(ctx, c, i%5, &ignored)
		}
	})
	g.Wait()
}

// sendSerials makes Serial calls, several at once.
func (y *chaosSide) sendSerials(ctx context.Context, c *typedrpc.Conn, n int) {
	var out []*typedrpc.Future[chaosMessage]
	await := func() bool {
		if _, err := out[0].Await(context.WithoutCancel(ctx)); err != nil {
			y.fail("serial call: %v", err)
			return false
		}
		out = out[1:]
		return true
	}
	for i := range n {
		if len(out) == 16 && !await() {
			return
		}
		out = append(out, typedrpc.Go(ctx, c, chaosSerial, y.plan.message(i)))
	}
	for len(out) > 0 && await() {
	}
}

// call makes one call, of the kind that its number says. It reports false when
// there is no point in going on.
func (y *chaosSide) call(ctx context.Context, c *typedrpc.Conn, rng *rand.Rand, i int) bool {
	m := y.plan.message(i)
	var may typedrpc.Code // how it may end, beside well
	var opts typedrpc.CallOptions
	switch kind := i % 16; {
	case kind == 3:
		opts.Metadata, opts.Reply = typedrpc.Metadata{"n": strconv.Itoa(i)}, new(typedrpc.Metadata)
	case kind == 5:
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 100*time.Hour)
		defer cancel()
	case kind == 7 && i%3 == 0: // cancelled at once, wherever it is
		may = typedrpc.Canceled
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		yields := rng.IntN(40)
		go func() {
			for range yields {
				runtime.Gosched()
			}
			cancel()
		}()
	case y.plan.slow > 0 && i%y.plan.slow == 7: // cancelled after a while
		may, m.Slow = typedrpc.Canceled, 1+rng.IntN(30)
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		timer := time.AfterFunc(time.Duration(1+rng.IntN(30_000))*time.Microsecond, cancel)
		defer timer.Stop()
	case y.plan.slow > 0 && i%y.plan.slow == 11: // has little time
		may, m.Slow = typedrpc.DeadlineExceeded, 1+rng.IntN(30)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(1+rng.IntN(30_000))*time.Microsecond)
		defer cancel()
	}
	got, err := typedrpc.Call(ctx, c.With(opts), chaosCall, m)
	outcome := uint8(chaosAnswered)
	switch {
	case err == nil && (got.N != i || got.Pad != m.Pad):
		y.fail("call %d was answered with %d and %d bytes", i, got.N, len(got.Pad))
	case err == nil && opts.Reply != nil && opts.Reply.Get("n") != strconv.Itoa(i):
		y.fail("call %d was answered with metadata %v", i, *opts.Reply)
	case err == nil:
	case may == 0 || !errors.Is(err, may):
		y.fail("call %d: %v", i, err)
		return false
	case outcomeOf(err) == typedrpc.NotSent:
		outcome = chaosNotSent
	default:
		outcome = chaosMayHaveRun
	}
	y.mu.Lock()
	y.outcomes[i] = outcome
	y.mu.Unlock()
	return true
}

func outcomeOf(err error) typedrpc.Outcome {
	var e *typedrpc.Error
	if !errors.As(err, &e) {
		return 99
	}
	return e.Outcome
}

// echo sends n items there and back.
func (y *chaosSide) echo(ctx context.Context, c *typedrpc.Conn, n int, done *atomic.Int64) {
	s, err := typedrpc.Open(ctx, c, chaosEcho, typedrpc.Empty{})
	if err != nil {
		y.fail("stream: %v", err)
		return
	}
	var g sync.WaitGroup
	g.Go(func() {
		for i := range n {
			if err := s.Send(y.plan.message(i)); err != nil {
				y.fail("item %d: %v", i, err)
				return
			}
		}
		s.CloseSend()
	})
	i := 0
	for m, err := range s.All() {
		if err != nil {
			y.fail("item %d: %v", i, err)
			s.Close()
			break
		}
		y.check("item", m, i)
		i++
		done.Add(1)
	}
	g.Wait()
	if i != n {
		y.fail("%d items of %d came back", i, n)
	}
}

// result says what is wrong, when all has ended.
func (y *chaosSide) result() (wrong []string, counts [4]int) {
	n := y.plan.n
	if y.notes != n {
		y.fail("%d notifications of %d", y.notes, n)
	}
	if y.serials != n/8 {
		y.fail("%d serial calls of %d", y.serials, n/8)
	}
	y.mu.Lock()
	runs, outcomes := y.runs, y.outcomes
	y.mu.Unlock()
	for i, ran := range runs {
		counts[outcomes[i]]++
		switch o := outcomes[i]; {
		case o == chaosAnswered && ran != 1, o == chaosMayHaveRun && ran > 1, o == chaosNotSent && ran != 0, o == 0:
			y.fail("call %d with outcome %d ran %d times", i, o, ran)
		}
	}
	return y.failed, counts
}

// How a link ends, beside typedrpctest's cuts.
const (
	holeUp = typedrpctest.CutListener + 1 + iota
	holeDown
	holeBoth
	lateDelivery // nothing arrives for a long time, and then all of it
	endings
)

// weather decides the fate of each link.
type weather struct {
	net     *typedrpctest.Faults
	connect func(ctx context.Context, network, addr string) (net.Conn, error)
	base    typedrpctest.Conditions
	cuts    int   // at most
	large   int64 // bytes that both ways' largest frames need; 0: there are none

	mu    sync.Mutex
	rng   *rand.Rand
	links int
	holes int
	late  *typedrpctest.Link
	ends  [endings]int
}

// client makes connections that will not last.
func (w *weather) client() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: w.dial}}
}

func (w *weather) cut() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.net.Stats().Cuts + w.holes
}

// clear ends the bad weather.
func (w *weather) clear() {
	w.mu.Lock()
	w.cuts = 0
	w.deliverLocked()
	w.mu.Unlock()
	for _, l := range w.net.Links() {
		l.CutAfter(0, -1, 0)
	}
}

// deliverLocked lets arrive what was late.
func (w *weather) deliverLocked() {
	if w.late != nil {
		w.late.Set(typedrpctest.Both, w.base)
		w.late = nil
	}
}

func (w *weather) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	if w.rng.IntN(4) == 0 {
		w.deliverLocked()
	}
	w.mu.Unlock()
	c, err := w.connect(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	done := w.cut()
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.net.Links()
	if len(all) == 0 {
		return c, nil
	}
	d := &doomed{Conn: c, weather: w, link: all[len(all)-1]}
	d.left.Store(math.MaxInt64)
	// What is late arrives while the new link is opened, or after that.
	d.patience.Store(w.rng.Int64N(4000))
	if done >= w.cuts {
		return d, nil
	}
	w.links++
	n := w.distanceLocked()
	d.how = typedrpctest.Cut(w.rng.IntN(int(endings)))
	w.ends[d.how]++
	if d.how <= typedrpctest.CutListener {
		d.link.CutAfter([...]typedrpctest.Direction{typedrpctest.Both, typedrpctest.Both, typedrpctest.Up, typedrpctest.Down}[w.rng.IntN(4)], n, d.how)
	} else {
		d.left.Store(n)
	}
	return d, nil
}

// distanceLocked is how many bytes the next link carries: few, so that it ends in
// its opening or while it replays, or more. Now and then it is enough for the largest frames both ways,
// because a session that does not get on is given up.
func (w *weather) distanceLocked() int64 {
	mean := int64(20_000)
	if w.large > 0 {
		mean = 200_000
	}
	switch {
	case w.links%8 == 0 && w.large > 0:
		return w.large + w.rng.Int64N(50_000)
	case w.rng.IntN(4) == 0:
		return w.rng.Int64N(3000)
	}
	return 500 + w.rng.Int64N(mean)
}

// doomed is the client's end of a link, which may fail in a way that nobody is
// told.
type doomed struct {
	net.Conn
	weather *weather
	link    *typedrpctest.Link
	how     typedrpctest.Cut
	left    atomic.Int64 // bytes until it fails
	struck  atomic.Bool

	patience  atomic.Int64 // bytes until what was late on an earlier link arrives
	delivered atomic.Bool
}

func (d *doomed) Read(p []byte) (int, error) {
	n, err := d.Conn.Read(p)
	d.passed(n)
	return n, err
}

func (d *doomed) Write(p []byte) (int, error) {
	// Some of it may leave.
	if left := d.left.Load(); left < int64(len(p)) && left > 0 {
		n, err := d.Conn.Write(p[:left])
		d.passed(n)
		if err != nil {
			return n, err
		}
		m, err := d.Conn.Write(p[n:])
		return n + m, err
	}
	n, err := d.Conn.Write(p)
	d.passed(n)
	return n, err
}

func (d *doomed) passed(n int) {
	if d.patience.Add(-int64(n)) <= 0 && d.delivered.CompareAndSwap(false, true) {
		d.weather.mu.Lock()
		if d.weather.late != d.link {
			d.weather.deliverLocked()
		}
		d.weather.mu.Unlock()
	}
	if d.left.Add(-int64(n)) > 0 || !d.struck.CompareAndSwap(false, true) {
		return
	}
	w := d.weather
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cuts == 0 {
		return
	}
	w.holes++
	c := w.base
	switch d.how {
	case lateDelivery:
		c.Stall = true
		w.deliverLocked()
		w.late = d.link
		d.link.Set(typedrpctest.Both, c)
	default:
		c.BlackHole = true
		d.link.Set([...]typedrpctest.Direction{typedrpctest.Up, typedrpctest.Down, typedrpctest.Both}[d.how-holeUp], c)
	}
}

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
				if s.State == typedrpc.Connected && s.Resumed {
					resumed.Add(1)
				} else if s.State == typedrpc.Connected {
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
	sent, received := typedrpc.Positions(c)
	sent2, received2 := typedrpc.Positions(s)
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
		if s := typedrpc.Unsettled(c); s != "" {
			left = append(left, who+": "+s)
		}
		if s := typedrpc.Unpaid(c); s != "" {
			left = append(left, who+": "+s)
		}
		if s := c.State(); s != typedrpc.Connected {
			left = append(left, fmt.Sprintf("%s: %v", who, s))
		}
	}
	return strings.Join(left, "; ")
}

// raced reports that the race detector watches, which makes everything slow.
var raced = func() bool {
	info, ok := debug.ReadBuildInfo()
	if ok {
		for _, s := range info.Settings {
			if s.Key == "-race" {
				return s.Value == "true"
			}
		}
	}
	return false
}()

var bothDialects = map[string]typedrpc.Dialect{"binary": typedrpc.Binary, "jsonrpc": typedrpc.JSONRPC}

func TestChaos_full(t *testing.T) {
	for name, d := range bothDialects {
		t.Run(name, func(t *testing.T) {
			p := chaosPlan{
				seed: 1, dialect: d, n: 100_000, large: 1000, cuts: 1000, slow: 160,
				weather: typedrpctest.Conditions{Latency: time.Millisecond, Jitter: time.Millisecond},
				client:  typedrpc.Limits{KeepAlive: 5 * time.Second},
			}
			if raced {
				p.n, p.cuts, p.large = p.n/50, p.cuts/50, p.large/5
			}
			if testing.Short() {
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
		s = "1-24"
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
	if raced {
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
			if raced && os.Getenv("CHAOS_SEEDS") == "" && (seed%2 == 0) != (d == typedrpc.Binary) {
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
			if d == typedrpc.JSONRPC {
				p.n /= 2
			}
			if raced || testing.Short() {
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
						if s.State == typedrpc.Connected && !s.Resumed {
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
	typedrpc.HandleNotification(mux, chaosNote, func(_ context.Context, m chaosMessage) {
		if m.N != got {
			t.Errorf("%d in place of %d", m.N, got)
		}
		if got++; got == n {
			close(all)
		}
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
