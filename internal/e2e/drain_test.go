package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Calls that a draining server refused went to the next one behind calls that
// were made after them.
func TestSerial_orderAcrossDrain(t *testing.T) {
	goaway := wire.GoAwayBody{Min: 1, Max: 10}
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		got := make(chan string, 10)
		_, c := lab.Scripted(t, &typedrpc.DialOptions{Backoff: lab.Steady}, func(n int, p *testkit.Peer) {
			p.Until(wire.Hello)
			p.Answers = true
			welcome := wire.WelcomeBody{Token: "token", Limits: wire.Limits{Calls: 3}}
			p.Send(wire.Frame{Type: wire.Welcome, Payload: welcome.Append(nil)})
			if n == 1 {
				for range 3 { // the others wait for a place
					p.Until(wire.Call)
				}
				p.Send(wire.Frame{Type: wire.GoAway, Payload: goaway.Append(nil)})
				for _, id := range []uint64{3, 1, 2} {
					p.Send(wire.Frame{Type: wire.Fail, Flags: wire.NotRun, ID: id, Code: int64(typedrpc.Unavailable)})
				}
				p.CloseCode()
				return
			}
			for range 6 {
				f, err := p.Until(wire.Call)
				if err != nil {
					return
				}
				got <- string(f.Payload)
				p.Send(wire.Frame{Type: wire.Result, ID: f.ID, Payload: f.Payload})
			}
			p.CloseCode()
		})
		defer c.Close()
		m := typedrpc.NewMethod[int, int]("one.by.one", typedrpc.Serial)
		var fs []*typedrpc.Future[int]
		for i := range 6 {
			fs = append(fs, typedrpc.Go(t.Context(), c, m, i))
		}
		_, err := typedrpc.All(t.Context(), fs...)
		is.NoErr(err)
		for i := range 6 {
			is.Equal(<-got, fmt.Sprint(i))
		}
	})
}

var (
	drainWork  = typedrpc.NewMethod[int, string]("drain.work") // takes so many milliseconds, and says who did it
	drainItems = typedrpc.NewServerStream[struct{}, int]("drain.items")
)

// worker is a server with a name whose calls take their time.
type worker struct {
	*typedrpc.Server
	name string
	mu   sync.Mutex
	runs map[int]int // of each request
	went atomic.Int64
}

func newWorker(name string) *worker {
	k := &worker{name: name, runs: map[int]int{}, Server: lab.New().Server}
	k.OnDisconnect = func(*typedrpc.Conn, error) { k.went.Add(1) }
	typedrpc.Handle(k.Mux, drainWork, func(ctx context.Context, n int) (string, error) {
		k.mu.Lock()
		k.runs[n]++
		k.mu.Unlock()
		// One that is over at once is run by whoever looks, and with the race detector two who
		// do so in one bubble end the process: they share what Go's runtime keeps of it.
		select {
		case <-time.After(max(time.Duration(n%5001)*time.Millisecond, 1)):
			return k.name, nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	})
	typedrpc.Handle(k.Mux, drainItems, func(ctx context.Context, _ struct{}, send func(int) error) error {
		for i := 0; ; i++ {
			if err := send(i); err != nil {
				return err
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	return k
}

// 500 connections with ten calls in flight each move from one server to another,
// and nobody notices.
func TestDrain_aServerIsReplaced(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		conns := testkit.Crowd(500, 200, 150)
		old, next := newWorker("old"), newWorker("next")
		a := lab.NewAtlas(&lab.Town{Srv: old.Server}, new(lab.Town))
		var all []*typedrpc.Conn
		var calls []*typedrpc.Future[string]
		ends := make(chan error, conns)
		for i := range conns {
			c := a.Dial(t, &typedrpc.DialOptions{Dialect: d})
			all = append(all, c)
			for j := range 10 {
				calls = append(calls, typedrpc.Go(t.Context(), c, drainWork, 5001*(10*i+j)+rand.N(5001)))
			}
			go func() {
				for _, err := range typedrpc.Receive(t.Context(), c, drainItems, struct{}{}) {
					if err != nil {
						ends <- err
						return
					}
				}
				ends <- io.EOF
			}()
		}
		synctest.Wait()
		a.Towns["ws://b/"].Serve(next.Server)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		began := time.Now()
		down := make(chan error, 1)
		go func() { down <- old.Shutdown(ctx) }()
		synctest.Wait()
		var later []*typedrpc.Future[string]
		for i, c := range all { // calls that are made during the drain
			time.Sleep(time.Second / time.Duration(conns))
			later = append(later, typedrpc.Go(t.Context(), c, drainWork, 5001*(10*conns+i)))
		}
		is.NoErr(<-down)
		took := time.Since(began)
		t.Logf("%d connections, %d calls in flight: drained in %v", conns, len(calls), took)
		is.True(took <= 6*time.Second) // the longest call, and the goodbyes
		is.NoErr(ctx.Err())
		failed := 0
		for _, f := range calls {
			if who, err := f.Await(t.Context()); err != nil || who != "old" {
				failed++
				t.Log(who, err)
			}
		}
		is.Equal(failed, 0)
		for _, f := range later {
			who, err := f.Await(t.Context())
			is.NoErr(err)
			is.Equal(who, "next")
		}
		is.True(time.Since(began) <= 10*time.Second) // and their clients came within the window
		for range conns {
			is.Equal(typedrpc.CodeOf(<-ends), typedrpc.Unavailable)
		}
		for n, times := range old.runs {
			is.Equal(times+next.runs[n], 1)
		}
		is.Equal(len(old.runs), 10*conns)
		is.Equal(len(next.runs), conns)
		time.Sleep(5 * time.Second)
		is.Equal(old.went.Load(), int64(conns))
		s := hook.Server(old.Server)
		is.Equal(s.Links+s.Accepted+s.Checks, 0)
		n := 0
		for range next.Conns() {
			n++
		}
		is.Equal(n, conns)
		for _, c := range all {
			is.Equal(c.State(), typedrpc.StateConnected)
		}
	})
}

// A link that breaks during the drain comes back to the draining server, for the
// answers that are there.
func TestDrain_linkBreaks(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		old, next := newWorker("old"), newWorker("next")
		home := &lab.Town{Srv: old.Server}
		a := lab.NewAtlas(home, new(lab.Town))
		var states lab.Watch
		c := a.Dial(t, &typedrpc.DialOptions{Dialect: d, OnState: states.On})
		slow, fast := typedrpc.Go(t.Context(), c, drainWork, 5000), typedrpc.Go(t.Context(), c, drainWork, 500)
		synctest.Wait()
		a.Towns["ws://b/"].Serve(next.Server)
		a.Dialled()
		down := make(chan error, 1)
		go func() { down <- old.Shutdown(t.Context()) }()
		synctest.Wait()
		for range 3 {
			time.Sleep(200 * time.Millisecond)
			home.Cable().Cut()
			time.Sleep(800 * time.Millisecond)
			is.Equal(states.Last().State, typedrpc.StateConnected)
			is.True(states.Last().Resumed)
		}
		is.Equal(strings.Trim(a.Dialled(), "a"), "") // where the session is
		// Nobody else gets in meanwhile.
		_, err := a.TryDial(t.Context(), "ws://a/", &typedrpc.DialOptions{Dialect: d})
		var ce interface{ Unwrap() []error }
		is.True(errors.As(err, &ce) || typedrpc.CodeOf(err) == typedrpc.Unavailable)
		is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable)
		p := lab.Rejoin(t, d, old.Server, testkit.HelloOf(1))
		is.Equal(p.CloseCode(), session.CloseRestart)
		_, err = testkit.Join(old.Server, "")
		is.True(err != nil && strings.HasPrefix(err.Error(), "503 "))
		w, post := httptest.NewRecorder(), httptest.NewRequest("POST", "http://town/", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"lab.echo","params":[1]}`))
		post.Header.Set("Content-Type", "application/json")
		old.ServeHTTP(w, post)
		is.Equal(w.Code, 503)

		home.Cable().Cut() // once more, for a call that ends while there is no link
		later := typedrpc.Go(t.Context(), c, drainWork, 5001+1)
		for _, f := range []*typedrpc.Future[string]{slow, fast} {
			who, err := f.Await(t.Context())
			is.NoErr(err)
			is.Equal(who, "old")
		}
		who, err := later.Await(t.Context())
		is.NoErr(err)
		is.Equal(who, "next")
		is.NoErr(<-down)
		is.Equal(old.runs, map[int]int{5000: 1, 500: 1})
		is.Equal(old.went.Load(), int64(1))
		_, err = testkit.Join(old.Server, testkit.BinaryProtocol)
		is.True(err != nil && strings.HasPrefix(err.Error(), "503 ")) // now at the door
	})
}

// Kept sessions that have nothing to give do not hold a shutdown up.
func TestDrain_keptSessions(t *testing.T) {
	for name, tt := range map[string]struct {
		work    bool          // a call is running
		replied bool          // its answer waits
		back    bool          // the client comes back after a second
		ctx     time.Duration // of Shutdown
		grace   time.Duration
		took    time.Duration // by Shutdown, at least; and a second more at most
		err     error
	}{
		"nothing to give":            {ctx: time.Minute, grace: 30 * time.Second},
		"an answer, taken":           {replied: true, back: true, ctx: time.Minute, grace: 30 * time.Second, took: time.Second},
		"an answer, never taken":     {replied: true, ctx: time.Minute, grace: 10 * time.Second, took: 8 * time.Second},
		"an answer, and no time":     {replied: true, ctx: 3 * time.Second, grace: 30 * time.Second, took: 3 * time.Second, err: context.DeadlineExceeded},
		"a call that is running":     {work: true, back: true, ctx: time.Minute, grace: 30 * time.Second, took: 2 * time.Second},
		"a call, and nobody comes":   {work: true, ctx: time.Minute, grace: 10 * time.Second, took: 8 * time.Second},
		"a call that takes too long": {work: true, ctx: time.Second, grace: 10 * time.Second, took: time.Second, err: context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
				is := is.New(t)
				old := newWorker("old")
				old.Limits.Grace = tt.grace
				home := &lab.Town{Srv: old.Server}
				a := lab.NewAtlas(home)
				c := a.Dial(t, &typedrpc.DialOptions{Dialect: d, Backoff: lab.Steady, Limits: typedrpc.Limits{Grace: time.Hour}})
				time.Sleep(5 * time.Second)
				ms := 0
				if tt.replied {
					ms = 1000
				} else if tt.work {
					ms = 4000
				}
				var f *typedrpc.Future[string]
				if ms > 0 {
					f = typedrpc.Go(t.Context(), c, drainWork, ms)
				}
				synctest.Wait()
				home.Mu.Lock()
				home.Srv = nil
				home.Mu.Unlock()
				home.Cable().Cut()
				time.Sleep(2 * time.Second)
				began := time.Now()
				if tt.back {
					time.AfterFunc(time.Second, func() {
						home.Serve(old.Server)
						c.Reconnect()
					})
				}
				ctx, cancel := context.WithTimeout(t.Context(), tt.ctx)
				defer cancel()
				err := old.Shutdown(ctx)
				is.Equal(err, tt.err)
				took := time.Since(began)
				t.Log(took)
				is.True(took >= tt.took && took <= tt.took+1200*time.Millisecond)
				synctest.Wait()
				s := hook.Server(old.Server)
				is.Equal(s.Links+s.Accepted, 0)
				is.Equal(old.went.Load(), int64(1))
				home.Serve(nil)
				if f != nil && tt.back {
					who, err := f.Await(t.Context())
					is.NoErr(err)
					is.Equal(who, "old")
				} else if f != nil {
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					_, err := f.Await(ctx)
					is.True(err != nil)
				}
			})
		})
	}
}

// A client whose resume is being authenticated when Shutdown comes loses nothing.
func TestDrain_inTheMiddleOfAResume(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		r := newRevocable()
		w := &lab.Town{Srv: r.Server}
		c := w.Dial(t, patient(d, "ann"))
		defer c.Close()
		f := typedrpc.Go(t.Context(), c, lab.Hang, struct{}{})
		synctest.Wait()
		r.On(func(context.Context, int, *typedrpc.Identity) error { time.Sleep(3 * time.Second); return nil })
		w.Cable().Cut()
		time.Sleep(2 * time.Second)
		is.Equal(len(r.Seen()), 2)
		down := make(chan error, 1)
		go func() { down <- r.Shutdown(t.Context()) }()
		synctest.Wait()
		r.On(nil)
		time.Sleep(10 * time.Second)
		is.Equal(c.State(), typedrpc.StateConnected)
		close(r.Release)
		_, err := f.Await(t.Context())
		is.NoErr(err)
		is.NoErr(<-down)
	})
}

// Many links break while the server drains, and some clients never return.
func TestDrain_brokenLinksEverywhere(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		n := testkit.Crowd(200, 200, 100)
		old, next := newWorker("old"), newWorker("next")
		home := &lab.Town{Srv: old.Server, Fuse: func() int64 { return 3 + rand.Int64N(20) }}
		a := lab.NewAtlas(home, new(lab.Town))
		var fs []*typedrpc.Future[string]
		for i := range n {
			o := &typedrpc.DialOptions{Dialect: d}
			var c *typedrpc.Conn
			for c == nil { // the line may break in the handshake
				c, _ = a.TryDial(t.Context(), "ws://a/", &typedrpc.DialOptions{Dialect: d, URLs: []string{"ws://b/"}})
			}
			_ = o
			t.Cleanup(func() { c.Close() })
			for j := range 10 {
				fs = append(fs, typedrpc.Go(t.Context(), c, drainWork, 5001*(10*i+j)+rand.N(5001)))
			}
		}
		time.Sleep(time.Second)
		a.Towns["ws://b/"].Serve(next.Server)
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
		defer cancel()
		began := time.Now()
		is.NoErr(old.Shutdown(ctx))
		t.Logf("%d connections on lines that break: drained in %v", n, time.Since(began))
		lost := 0
		for _, f := range fs {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if _, err := f.Await(ctx); err != nil {
				lost++
				t.Log(err)
			}
			cancel()
		}
		is.Equal(lost, 0)
		for n, times := range old.runs {
			is.Equal(times+next.runs[n], 1) // each ran once, somewhere
		}
		s := hook.Server(old.Server)
		is.Equal(s.Links+s.Accepted, 0)
	})
}
