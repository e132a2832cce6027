package chaos_test

import (
	"context"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/typedrpc/typedrpc/typedrpctest"
)

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
