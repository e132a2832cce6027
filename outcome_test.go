package typedrpc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
)

// What becomes of calls when a session is lost, and of connections that have no
// link.

var (
	lossRun   = NewMethod[int, Empty]("loss.run") // ends with its context, or when it may
	lossAgain = NewMethod[int, Empty]("loss.again", Idempotent)
)

// witness is a server that knows what ran.
type witness struct {
	*lab
	mu    sync.Mutex
	runs  map[int]int
	let   chan struct{}
	live  atomic.Int64
	came  chan *Conn
	went  chan error
	whose map[*Conn]int // OnDisconnects
}

func newWitness() *witness {
	w := &witness{
		lab: newLab(), runs: map[int]int{}, let: make(chan struct{}),
		came: make(chan *Conn, 999), went: make(chan error, 999), whose: map[*Conn]int{},
	}
	run := func(ctx context.Context, n int) (Empty, error) {
		w.mu.Lock()
		w.runs[n]++
		w.mu.Unlock()
		w.live.Add(1)
		defer w.live.Add(-1)
		select {
		case <-w.let:
			return Empty{}, nil
		case <-ctx.Done():
			return Empty{}, ctx.Err()
		}
	}
	Handle(w.Mux, lossRun, run)
	Handle(w.Mux, lossAgain, run)
	w.OnConnect = func(c *Conn) { w.came <- c }
	w.OnDisconnect = func(c *Conn, err error) {
		w.mu.Lock()
		w.whose[c]++
		w.mu.Unlock()
		w.went <- err
	}
	return w
}

func (w *witness) ran(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.runs[n]
}

// Every way in which a session can be lost, with calls in every state.
func TestOutcome_everyCallEnds(t *testing.T) {
	for _, how := range []string{"grace of the server", "grace of the client", "evicted by number", "evicted by bytes", "server restarted", "closed by the server"} {
		t.Run(how, func(t *testing.T) {
			bothDialects(t, func(t *testing.T, d Dialect) {
				is := is.New(t)
				w := newWitness()
				w.Limits = Limits{MaxCalls: 20, Grace: 20 * time.Second}
				o := &DialOptions{Dialect: d, Backoff: Backoff{Min: time.Hour, Max: time.Hour}, Limits: Limits{Grace: time.Hour}, Mux: NewMux()}
				clients := make(chan context.Context, 1)
				Handle(o.Mux, labWatch, func(ctx context.Context, _ Empty) (Empty, error) {
					clients <- ctx
					<-ctx.Done()
					return Empty{}, ctx.Err()
				})
				switch how {
				case "grace of the client":
					o.Limits.Grace = 10 * time.Second
				case "evicted by number":
					w.MaxKept = 1
				case "evicted by bytes":
					w.MaxKeptBytes = 1
				}
				home := &town{srv: w.Server}
				c := home.dial(t, o)
				defer c.Close()
				server := <-w.came
				back := Go(t.Context(), server, labWatch, Empty{}) // the server's own call
				var counted, again, queued []*Future[Empty]
				for i := range 10 {
					counted = append(counted, Go(t.Context(), c, lossRun, i))
					again = append(again, Go(t.Context(), c, lossAgain, 100+i))
				}
				for i := range 10 { // there is no place for these
					queued = append(queued, Go(t.Context(), c, lossRun, 200+i))
				}
				handler := <-clients
				synctest.Wait()
				is.Equal(w.live.Load(), int64(20))
				if how != "closed by the server" {
					home.serve(nil)
					home.cable().cut()
					is.Equal(server.State() == Waiting, how != "evicted by bytes")
				}
				for i := range 10 { // nor are these sent
					queued = append(queued, Go(t.Context(), c, lossRun, 300+i))
				}
				next := newWitness()
				close(next.let)
				lost := time.Duration(0) // until the server's side has ended
				switch how {
				case "evicted by number":
					is.NoErr(func() error { // another one is kept, the oldest goes
						town2 := &town{srv: w.Server}
						c2 := town2.dial(t, &DialOptions{Dialect: d, Limits: Limits{Grace: time.Hour}, Backoff: Backoff{Min: time.Hour, Max: time.Hour}})
						t.Cleanup(func() { c2.Close() })
						time.Sleep(time.Second)
						town2.serve(nil)
						town2.cable().cut()
						return nil
					}())
				case "server restarted":
					ctx, cancel := context.WithCancel(t.Context())
					cancel()
					is.True(errors.Is(w.Shutdown(ctx), context.Canceled))
				case "closed by the server":
					home.serve(nil)
					is.NoErr(server.Close())
				case "grace of the server", "grace of the client":
					lost = 20 * time.Second
				}
				time.Sleep(lost + time.Second)
				synctest.Wait()
				is.Equal(server.State(), Closed)
				is.Equal(w.live.Load(), int64(0)) // contexts have ended there
				is.True(len(w.went) >= 1)
				is.True(<-w.went != nil)
				is.Equal(w.whose[server], 1)
				_, err := back.Await(t.Context())
				is.Equal(CodeOf(err), Unavailable)
				is.Equal(outcomeOf(err), MayHaveRun)
				home.serve(next.Server)
				c.Reconnect()
				for i, f := range counted {
					_, err := f.Await(t.Context())
					is.Equal(CodeOf(err), Unavailable)
					is.Equal(outcomeOf(err), MayHaveRun)
					is.Equal(w.ran(i), 1)
					is.Equal(next.ran(i), 0)
				}
				is.True(handler.Err() != nil) // and on the client
				for i, f := range again {
					_, err := f.Await(t.Context())
					is.NoErr(err)
					is.Equal(w.ran(100+i), 1)
					is.Equal(next.ran(100+i), 1) // sent again
				}
				for i, f := range queued {
					_, err := f.Await(t.Context())
					is.NoErr(err)
					n := 200 + i
					if i >= 10 {
						n = 290 + i
					}
					is.Equal(w.ran(n), 0)
					is.Equal(next.ran(n), 1)
				}
			})
		})
	}
}

// What says NotSent has run nowhere; FailFast and deadlines hold while there is
// no link.
func TestOutcome_notSentNeverRan(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		w := newWitness()
		home := &town{srv: w.Server}
		c := home.dial(t, &DialOptions{Dialect: d, Backoff: steady, Limits: Limits{Grace: time.Minute}})
		defer c.Close()
		fast := c.With(CallOptions{FailFast: true})
		flying := Go(t.Context(), fast, lossRun, 1) // in flight: it goes on
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		due := Go(ctx, c, lossRun, 2)
		synctest.Wait()
		home.serve(nil)
		home.cable().cut()
		_, err := Call(t.Context(), fast, lossRun, 3)
		is.Equal(CodeOf(err), Unavailable)
		is.Equal(outcomeOf(err), NotSent)
		is.Equal(outcomeOf(Notify(t.Context(), fast, labNote, 3)), NotSent)
		began := time.Now()
		_, err = Call(ctx, c, lossRun, 4)
		is.True(errors.Is(err, context.DeadlineExceeded))
		is.Equal(outcomeOf(err), NotSent)
		_, err = due.Await(t.Context())
		is.True(errors.Is(err, context.DeadlineExceeded))
		is.Equal(outcomeOf(err), MayHaveRun)
		is.Equal(time.Since(began), 5*time.Second)
		synctest.Wait()
		is.Equal(w.live.Load(), int64(1)) // the deadline went along
		home.serve(w.Server)
		time.Sleep(5 * time.Second)
		is.Equal(c.State(), Connected)
		close(w.let)
		_, err = flying.Await(t.Context())
		is.NoErr(err)
		is.Equal(w.runs, map[int]int{1: 1, 2: 1})
		is.Equal(len(w.came), 1) // one session all the time
	})
}

// A call that was to fail fast and had not left when the link was lost does.
func TestOutcome_failFastInTheQueue(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		w := newWitness()
		w.Limits.MaxCalls = 1
		home := &town{srv: w.Server}
		c := home.dial(t, &DialOptions{Dialect: d, Backoff: steady, Limits: Limits{Grace: time.Minute}})
		defer c.Close()
		first := Go(t.Context(), c, lossRun, 1)
		waits := Go(t.Context(), c.With(CallOptions{FailFast: true}), lossRun, 2) // for the only place
		synctest.Wait()
		home.serve(nil)
		home.cable().cut()
		select {
		case <-waits.Done():
			_, err := waits.Await(t.Context())
			is.Equal(outcomeOf(err), NotSent)
		default:
			t.Error("a FailFast call waits for a link")
		}
		home.serve(w.Server)
		close(w.let)
		_, err := first.Await(t.Context())
		is.NoErr(err)
		is.Equal(w.ran(2), 0)
	})
}

// Close and Shutdown of either side while there is no link do not wait for one.
func TestOutcome_endsWhileAway(t *testing.T) {
	for _, how := range []string{"client closes", "client shuts down", "server closes", "server shuts down", "both close"} {
		t.Run(how, func(t *testing.T) {
			bothDialects(t, func(t *testing.T, d Dialect) {
				is := is.New(t)
				w := newWitness()
				home := &town{srv: w.Server}
				c := home.dial(t, &DialOptions{Dialect: d, Backoff: Backoff{Min: time.Hour, Max: time.Hour}, Limits: Limits{Grace: time.Minute}})
				home.serve(nil)
				server := <-w.came
				f := Go(t.Context(), c, lossRun, 1)
				synctest.Wait()
				home.cable().cut()
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				began := time.Now()
				switch how {
				case "client closes":
					is.NoErr(c.Close())
					is.Equal(time.Since(began), time.Duration(0))
				case "client shuts down":
					is.True(errors.Is(c.Shutdown(ctx), context.DeadlineExceeded))
					is.Equal(time.Since(began), 3*time.Second)
				case "server closes":
					is.NoErr(server.Close())
					is.Equal(time.Since(began), time.Duration(0))
				case "server shuts down":
					is.True(errors.Is(server.Shutdown(ctx), context.DeadlineExceeded))
				case "both close":
					go c.Close()
					is.NoErr(server.Close())
				}
				time.Sleep(2 * time.Minute)
				_, err := Call(t.Context(), server, labEcho, 1)
				is.Equal(CodeOf(err), Unavailable)
				is.Equal(server.State(), Closed)
				is.Equal(w.live.Load(), int64(0))
				is.True(<-w.went != nil)
				is.Equal(len(w.went), 0)
				is.NoErr(c.Close())
				_, err = f.Await(t.Context())
				is.Equal(outcomeOf(err), MayHaveRun)
				synctest.Wait()
				w.Server.mu.Lock()
				is.Equal(len(w.links)+len(w.accepted), 0)
				w.Server.mu.Unlock()
				n, bytes := w.registry.Away()
				is.Equal(int64(n)+bytes, int64(0))
			})
		})
	}
}

// The hooks may end connections, also their own.
func TestOutcome_closeInTheHooks(t *testing.T) {
	for _, when := range []State{Connected, Waiting, Connecting} {
		t.Run(fmt.Sprint("OnState ", when), func(t *testing.T) {
			bothDialects(t, func(t *testing.T, d Dialect) {
				is := is.New(t)
				w := newWitness()
				home := &town{srv: w.Server}
				ready, closed := make(chan *Conn, 1), make(chan struct{})
				var lost atomic.Bool
				c := home.dial(t, &DialOptions{Dialect: d, Backoff: steady, Limits: Limits{Grace: time.Minute}, OnState: func(s StateChange) {
					if s.State == when && lost.CompareAndSwap(true, false) {
						c := <-ready
						c.Close()
						close(closed)
					}
				}})
				ready <- c
				synctest.Wait() // it has been told of the first link
				lost.Store(true)
				f := Go(t.Context(), c, lossRun, 1)
				synctest.Wait()
				home.cable().cut()
				<-closed
				is.Equal(c.State(), Closed)
				_, err := f.Await(t.Context())
				is.Equal(outcomeOf(err), MayHaveRun)
				time.Sleep(time.Minute)
				is.Equal(len(conns(w.Server)), 0)
			})
		})
	}
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		w := newWitness()
		went := make(chan error, 1)
		w.OnDisconnect = func(c *Conn, err error) {
			c.Close() // has ended: it returns
			is.Equal(c.State(), Closed)
			went <- err
		}
		home := &town{srv: w.Server}
		c := home.dial(t, &DialOptions{Dialect: d, Backoff: steady, Limits: Limits{Grace: time.Minute}})
		home.serve(nil)
		home.cable().cut()
		time.Sleep(time.Hour)
		is.True(<-went != nil)
		is.NoErr(c.Close())
	})
}

// A connection without a link is listed, and gets what is broadcast when it is
// back.
func TestOutcome_broadcastReachesThoseThatAreAway(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		w := newWitness()
		var got [3]atomic.Int64
		var towns []*town
		for i := range 3 {
			mux := NewMux()
			HandleNotification(mux, laneNumber, func(_ context.Context, n int) { got[i].Add(int64(n)) })
			towns = append(towns, &town{srv: w.Server})
			c := towns[i].dial(t, &DialOptions{Dialect: d, Mux: mux, Backoff: steady, Limits: Limits{Grace: time.Minute}})
			defer c.Close()
		}
		time.Sleep(time.Second)
		towns[1].serve(nil)
		towns[1].cable().cut()
		states := map[State]int{}
		for c := range w.Conns() {
			states[c.State()]++
		}
		is.Equal(states, map[State]int{Connected: 2, Waiting: 1})
		for range 5 {
			is.NoErr(Broadcast(t.Context(), w.Conns(), laneNumber, 7))
		}
		time.Sleep(time.Second)
		is.Equal(got[0].Load()+got[2].Load(), int64(70))
		is.Equal(got[1].Load(), int64(0))
		towns[1].serve(w.Server)
		time.Sleep(5 * time.Second)
		is.Equal(got[1].Load(), int64(35))
	})
}
