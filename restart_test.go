package typedrpc

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
)

// numbers asks for those after After.
type numbers struct{ After, To int }

func (n numbers) behind(last *int) numbers {
	if last != nil {
		n.After = *last
	}
	return n
}

var (
	numbersOnce = NewServerStream[numbers, int]("restart.numbers")
	numbersOn   = numbersOnce.Restartable(numbers.behind)
	numbersFor  = NewServerStream[numbers, int]("restart.numbers.minute", Timeout(time.Minute)).Restartable(numbers.behind)
	newsOn      = topicNews.Restartable()
	chatOn      = topicChat.Restartable()
)

// counter handles streams of numbers, and can stop in them.
type counter struct {
	mu     sync.Mutex
	opened []numbers
	at     []time.Time
	ended  []error                          // what send returned, or nil
	stop   func(opening, n int) (stop bool) // before n is sent; nil: never
}

func (k *counter) mux() *Mux {
	mux := NewMux()
	for _, s := range []ServerStream[numbers, int]{numbersOnce, numbersFor} {
		HandleServerStream(mux, s, k.serve)
	}
	return mux
}

func (k *counter) serve(ctx context.Context, req numbers, send func(int) error) (err error) {
	k.mu.Lock()
	opening := len(k.opened)
	k.opened, k.at = append(k.opened, req), append(k.at, time.Now())
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.ended = append(k.ended, err)
	}()
	for n := req.After + 1; n <= req.To; n++ {
		if k.stop != nil && k.stop(opening, n) {
			<-ctx.Done()
			return send(n)
		}
		if err := send(n); err != nil {
			return err
		}
	}
	return NotFound
}

// requests are those of all openings so far.
func (k *counter) requests() []numbers {
	synctest.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.opened)
}

// heard collects a loop that goes on after each gap, in words.
type heard struct {
	mu   sync.Mutex
	got  []string
	err  error // of the last pair
	done chan struct{}
}

func hear[E any](seq iter.Seq2[E, error]) *heard {
	h := &heard{done: make(chan struct{})}
	go func() {
		defer close(h.done)
		for v, err := range seq {
			h.mu.Lock()
			switch h.err = err; {
			case errors.Is(err, Gap):
				h.got = append(h.got, "gap")
			case err != nil:
				h.got = append(h.got, CodeOf(err).String())
			default:
				h.got = append(h.got, fmt.Sprint(v))
			}
			h.mu.Unlock()
		}
	}()
	return h
}

// take returns what has come since the last time.
func (h *heard) take() []string {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	got := h.got
	h.got = nil
	return got
}

// over reports whether the loop has ended.
func (h *heard) over() bool {
	synctest.Wait()
	select {
	case <-h.done:
		return true
	default:
		return false
	}
}

// countingTown is a town whose server has a counter.
func countingTown(t *testing.T, d Dialect, k *counter, o DialOptions) (*town, *Conn) {
	t.Helper()
	l := newLab()
	l.Mux = k.mux()
	w := &town{srv: l.Server}
	o.Dialect = d
	if o.Backoff == (Backoff{}) {
		o.Backoff = steady
	}
	c := w.dial(t, &o)
	t.Cleanup(func() { c.Close() })
	return w, c
}

// healed cuts the line when all is quiet, and waits for the next session.
func (w *town) healed() {
	synctest.Wait()
	w.cable().cut()
	time.Sleep(time.Minute)
	synctest.Wait()
}

func TestRestart_goesOnBehindTheLastItem(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		k := &counter{stop: func(opening, n int) bool { return opening == 0 && n == 7 || opening == 1 && n == 9 }}
		w, c := countingTown(t, d, k, DialOptions{})
		var got []string
		for n, err := range Receive(t.Context(), c, numbersOn, numbers{To: 10}) {
			switch {
			case errors.Is(err, Gap):
				is.Equal(n, 0)
				is.Equal(CodeOf(err), Unavailable)
				is.Equal(OutcomeOf(err), MayHaveRun)
				got = append(got, "gap")
				continue
			case err != nil:
				is.Equal(OutcomeOf(err), Answered)
				got = append(got, CodeOf(err).String())
				continue
			}
			got = append(got, fmt.Sprint(n))
			if n == 4 || n == 8 {
				w.cable().cut() // while others have come and wait
			}
		}
		is.Equal(got, []string{"1", "2", "3", "4", "5", "6", "gap", "7", "8", "gap", "9", "10", "not found"})
		is.Equal(k.requests(), []numbers{{0, 10}, {6, 10}, {8, 10}})
		is.True(errors.Is(k.ended[0], Gap)) // the handlers' side
		is.True(errors.Is(k.ended[1], Gap))
		settled(t, c)
		is.NoErr(c.Close())
	})
}

// The loop hears of it at once, and not when the next session is there.
func TestRestart_gapIsToldAtOnce(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		k := &counter{stop: func(opening, n int) bool { return opening == 0 && n == 2 }}
		w, c := countingTown(t, d, k, DialOptions{})
		srv := w.srv
		h := hear(Receive(t.Context(), c, numbersOn, numbers{To: 2}))
		is.Equal(h.take(), []string{"1"})
		w.serve(nil)
		w.cable().cut()
		is.Equal(h.take(), []string{"gap"})
		time.Sleep(time.Hour)
		is.Equal(h.take(), nil)
		w.serve(srv)
		time.Sleep(time.Minute)
		is.Equal(h.take(), []string{"2", "not found"})
		is.True(h.over())
		is.NoErr(c.Close())
	})
}

func TestRestart_lossesWithoutItemsAreOneGap(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		k := &counter{stop: func(opening, n int) bool {
			return opening != 5 && n == 1 || opening == 5 && n == 2 || opening == 6 && n == 2
		}}
		w, c := countingTown(t, d, k, DialOptions{})
		h := hear(Receive(t.Context(), c, numbersOn, numbers{To: 2}))
		is.Equal(h.take(), nil)
		w.healed()
		is.Equal(h.take(), []string{"gap"}) // what came before the first item may be missing, too
		for range 3 {
			w.healed()
			is.Equal(h.take(), nil)
		}
		w.healed()
		is.Equal(h.take(), []string{"1"})
		w.healed()
		is.Equal(h.take(), []string{"gap"})
		w.healed()
		is.Equal(h.take(), []string{"2", "not found"})
		is.Equal(k.requests(), []numbers{{0, 2}, {0, 2}, {0, 2}, {0, 2}, {0, 2}, {0, 2}, {1, 2}, {1, 2}})
		is.NoErr(c.Close())
	})
}

func TestRestart_leftAtTheGap(t *testing.T) {
	for _, how := range []string{"break", "panic"} {
		t.Run(how, func(t *testing.T) {
			bothDialects(t, func(t *testing.T, d Dialect) {
				is := is.New(t)
				k := &counter{stop: func(_, n int) bool { return n == 3 }}
				w, c := countingTown(t, d, k, DialOptions{})
				func() {
					defer func() { is.Equal(recover() != nil, how == "panic") }()
					for n, err := range Receive(t.Context(), c, numbersOn, numbers{To: 3}) {
						switch {
						case err != nil && how == "panic":
							panic(err)
						case err != nil:
							return
						case n == 2:
							w.cable().cut()
						}
					}
				}()
				time.Sleep(time.Hour)
				is.Equal(len(k.requests()), 1) // nothing was opened again
				settled(t, c)
				is.NoErr(c.Close())
			})
		})
	}
}

// Each loop over a sequence begins with the request that Receive was given.
func TestRestart_loopsAreApart(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		k := &counter{stop: func(opening, n int) bool { return opening == 0 && n == 2 }}
		w, c := countingTown(t, d, k, DialOptions{})
		seq := Receive(t.Context(), c, numbersOn, numbers{To: 2})
		h := hear(seq)
		is.Equal(h.take(), []string{"1"})
		w.healed()
		is.Equal(h.take(), []string{"gap", "2", "not found"})
		is.Equal(hear(seq).take(), []string{"1", "2", "not found"})
		is.Equal(k.requests(), []numbers{{0, 2}, {1, 2}, {0, 2}})
		is.NoErr(c.Close())
	})
}

// What next keeps of an item is its own.
func TestRestart_lastItemIsACopy(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		var kept []*int
		keeps := numbersOnce.Restartable(func(n numbers, last *int) numbers {
			kept = append(kept, last)
			return n.behind(last)
		})
		k := &counter{stop: func(opening, n int) bool { return n == opening+2 }}
		w, c := countingTown(t, d, k, DialOptions{})
		h := hear(Receive(t.Context(), c, keeps, numbers{To: 3}))
		w.healed()
		w.healed()
		is.Equal(h.take(), []string{"1", "gap", "2", "gap", "3", "not found"})
		is.Equal(len(kept), 2)
		is.Equal(*kept[0], 1)
		is.Equal(*kept[1], 2)
		is.NoErr(c.Close())
	})
}

func TestRestart_otherEndsAreEnds(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		mux := NewMux()
		HandleServerStream(mux, numbersOn, func(_ context.Context, n numbers, send func(int) error) error {
			if n.To == 0 {
				return nil
			}
			return Unavailable // as a handler may whose own upstream is gone
		})
		c, _ := joined(t, d, mux, Limits{})
		h := hear(Receive(t.Context(), c, numbersOn, numbers{}))
		is.Equal(h.take(), nil)
		is.True(h.over())
		h = hear(Receive(t.Context(), c, numbersOn, numbers{To: 1}))
		is.Equal(h.take(), []string{"unavailable"})
		is.True(h.over())
	})
}

func TestRestart_connectionEnds(t *testing.T) {
	for name, test := range map[string]struct {
		want Code
		end  func(*town, *Conn)
	}{
		"Close":    {Unavailable, func(_ *town, c *Conn) { c.Close() }},
		"Shutdown": {Unavailable, func(_ *town, c *Conn) { c.Shutdown(context.Background()) }},
		"refused": {PermissionDenied, func(w *town, c *Conn) {
			w.mu.Lock()
			w.refuse = func(int) error { return &UpgradeError{Status: http.StatusForbidden} }
			w.mu.Unlock()
			<-c.Done()
		}},
	} {
		for _, when := range []string{"waiting", "in the body"} {
			t.Run(name+" "+when, func(t *testing.T) {
				bothDialects(t, func(t *testing.T, d Dialect) {
					is := is.New(t)
					k := &counter{stop: func(_, n int) bool { return n == 2 }}
					w, c := countingTown(t, d, k, DialOptions{})
					w.serve(nil)
					gaps := 0
					var last error
					for n, err := range Receive(t.Context(), c, numbersOn, numbers{To: 2}) {
						last = err
						switch {
						case n == 1:
							w.cable().cut()
						case errors.Is(err, Gap):
							gaps++
							if when == "waiting" {
								time.AfterFunc(time.Minute, func() { test.end(w, c) })
							} else {
								test.end(w, c)
							}
						}
					}
					is.Equal(gaps, 1)
					is.Equal(CodeOf(last), test.want)
					is.Equal(OutcomeOf(last), MayHaveRun)
					is.True(!errors.Is(last, Gap))
					is.NoErr(c.Close())
					if name != "Shutdown" {
						is.True(errors.Is(c.Err(), test.want))
					}
					settled(t, c)
				})
			})
		}
	}
}

func TestRestart_contextEnds(t *testing.T) {
	for name, test := range map[string]struct {
		want   Code
		stream ServerStream[numbers, int]
		ctx    func(context.Context) (context.Context, context.CancelFunc)
	}{
		"canceled": {Canceled, numbersOn, func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Minute, cancel)
			return ctx, cancel
		}},
		"deadline": {DeadlineExceeded, numbersOn, func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Minute)
		}},
		"Timeout": {DeadlineExceeded, numbersFor, context.WithCancel}, // of the whole
	} {
		for _, when := range []string{"waiting for a session", "waiting to open", "open again"} {
			t.Run(name+" "+when, func(t *testing.T) {
				bothDialects(t, func(t *testing.T, d Dialect) {
					is := is.New(t)
					k := &counter{stop: func(_, n int) bool { return n == 2 }}
					o := DialOptions{}
					if when == "waiting to open" {
						// Only a gap with no item before it has such a wait.
						k.stop = func(_, n int) bool { return n == 1 }
						o.Backoff = Backoff{Min: 1e6 * time.Hour, Max: 1e6 * time.Hour}
					}
					w, c := countingTown(t, d, k, o)
					if when == "waiting for a session" {
						w.serve(nil)
					}
					ctx, cancel := test.ctx(t.Context())
					defer cancel()
					began := time.Now()
					h := hear(Receive(ctx, c, test.stream, numbers{To: 2}))
					time.Sleep(5 * time.Second)
					h.take()
					w.cable().cut()
					is.Equal(h.take(), []string{"gap"})
					<-h.done
					is.Equal(time.Since(began), time.Minute)
					is.Equal(h.take(), []string{test.want.String()})
					is.Equal(OutcomeOf(h.err), MayHaveRun)
					is.True(!errors.Is(h.err, Gap))
					settled(t, c)
					is.NoErr(c.Close())
				})
			})
		}
	}
}

func TestRestart_closeWhileWaitingToOpen(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		k := &counter{stop: func(int, int) bool { return true }}
		long := 1e6 * time.Hour
		w, c := countingTown(t, d, k, DialOptions{Backoff: Backoff{Min: long, Max: long}})
		h := hear(Receive(t.Context(), c, numbersOn, numbers{To: 1}))
		synctest.Wait()
		w.cable().cut()
		c.Reconnect()
		time.Sleep(time.Minute)
		is.Equal(c.State(), Connected)
		is.Equal(h.take(), []string{"gap"})
		is.Equal(len(k.requests()), 1)
		is.NoErr(c.Close())
		is.Equal(h.take(), []string{"unavailable"})
		is.True(h.over())
	})
}

// Of two reasons the caller's own comes first.
func TestRestart_connectionAndContextEnd(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		k := &counter{stop: func(_, n int) bool { return n == 2 }}
		w, c := countingTown(t, d, k, DialOptions{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var last error
		for n, err := range Receive(ctx, c, numbersOn, numbers{To: 2}) {
			switch last = err; {
			case n == 1:
				w.cable().cut()
			case errors.Is(err, Gap):
				cancel()
				c.Close()
			}
		}
		is.Equal(CodeOf(last), Canceled)
	})
}

// No restart: the gap is the last pair for a stream that is not restartable. A loop
// over one that is may go on at gaps, and is told that there is no more.
func TestRestart_notFor(t *testing.T) {
	for name, receive := range map[string]func(t *testing.T, c *Conn, srv *Server) (iter.Seq2[int, error], *Conn){
		"other declarations": func(t *testing.T, c *Conn, _ *Server) (iter.Seq2[int, error], *Conn) {
			return Receive(t.Context(), c, numbersOnce, numbers{To: 2}), c
		},
		"FailFast": func(t *testing.T, c *Conn, _ *Server) (iter.Seq2[int, error], *Conn) {
			return Receive(t.Context(), c.With(CallOptions{FailFast: true}), numbersOn, numbers{To: 2}), c
		},
		"a server's connection": func(t *testing.T, c *Conn, srv *Server) (iter.Seq2[int, error], *Conn) {
			var far *Conn
			for far = range srv.Conns() {
			}
			return Receive(t.Context(), far, numbersOn, numbers{To: 2}), far
		},
	} {
		t.Run(name, func(t *testing.T) {
			bothDialects(t, func(t *testing.T, d Dialect) {
				is := is.New(t)
				k := &counter{stop: func(_, n int) bool { return n == 2 }}
				w, c := countingTown(t, d, k, DialOptions{Mux: k.mux()})
				seq, _ := receive(t, c, w.srv)
				h := hear(seq)
				is.Equal(h.take(), []string{"1"})
				w.cable().cut()
				if name == "other declarations" {
					is.Equal(h.take(), []string{"gap"})
				} else {
					is.Equal(h.take(), []string{"gap", "unavailable"})
				}
				is.True(h.over())
				time.Sleep(time.Hour)
				is.Equal(len(k.requests()), 1)
				is.NoErr(c.Close())
			})
		})
	}
}

// A server that shuts down ends its streams by itself. They go on at the next.
func TestRestart_peersShutdown(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		k := &counter{stop: func(opening, n int) bool { return n == 2*opening+3 }}
		w, c := countingTown(t, d, k, DialOptions{})
		h := hear(Receive(t.Context(), c, numbersOn, numbers{To: 100}))
		is.Equal(h.take(), []string{"1", "2"})
		for i := range 5 {
			old := w.srv
			l := newLab()
			l.Mux = k.mux()
			w.serve(l.Server)
			is.NoErr(old.Shutdown(t.Context()))
			time.Sleep(time.Minute)
			is.Equal(h.take(), []string{"gap", fmt.Sprint(2*i + 3), fmt.Sprint(2*i + 4)})
		}
		is.NoErr(c.Close())
		is.Equal(h.take(), []string{"unavailable"})
		is.Equal(len(k.requests()), 6)
		settled(t, c)
	})
}

// A panic of the program's function is the loop's.
func TestRestart_nextPanics(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		k := &counter{stop: func(_, n int) bool { return n == 2 }}
		w, c := countingTown(t, d, k, DialOptions{})
		panics := numbersOnce.Restartable(func(numbers, *int) numbers { panic("of next") })
		func() {
			defer func() { is.Equal(recover(), "of next") }()
			for _, err := range Receive(t.Context(), c, panics, numbers{To: 2}) {
				if err == nil {
					w.cable().cut()
				}
			}
		}()
		settled(t, c)
		is.NoErr(c.Close())
	})
}

func TestRestart_requestThatCannotBeSent(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		var stream = NewServerStream[string, int]("restart.large", MaxSize(100))
		mux := NewMux()
		HandleServerStream(mux, stream, func(ctx context.Context, _ string, send func(int) error) error {
			<-ctx.Done()
			return send(1)
		})
		l := newLab()
		l.Mux = mux
		w := &town{srv: l.Server}
		c := w.dial(t, &DialOptions{Dialect: d, Backoff: steady})
		defer c.Close()
		h := hear(Receive(t.Context(), c, stream.Restartable(func(string, *int) string { return letters(1000) }), ""))
		w.healed()
		is.Equal(h.take(), []string{"gap", "resource exhausted"})
		is.Equal(OutcomeOf(h.err), MayHaveRun) // the first has
		settled(t, c)
		is.NoErr(c.Close())
	})
}

// Each opening is picked for, with its own interceptors, metadata and reply.
func TestRestart_pickedAnew(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		k := &counter{stop: func(opening, n int) bool { return opening == 0 && n == 2 }}
		w, a := countingTown(t, d, k, DialOptions{})
		_, b := countingTown(t, d, k, DialOptions{})
		var picked []*Conn
		pool := Pick(func(context.Context, string) (*Conn, error) {
			picked = append(picked, []*Conn{a, b}[len(picked)])
			return picked[len(picked)-1], nil
		})
		h := hear(Receive(t.Context(), pool, numbersOn, numbers{To: 2}))
		is.Equal(h.take(), []string{"1"})
		w.serve(nil)
		w.cable().cut() // and a does not come back
		is.Equal(h.take(), []string{"gap", "2", "not found"})
		is.Equal(picked, []*Conn{a, b})
		is.NoErr(a.Close())
		is.NoErr(b.Close())
	})
}

// A server picks among its clients, none of which it can dial.
func TestRestart_pickedAmongAcceptedConnections(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		k := &counter{stop: func(opening, n int) bool { return opening == 0 && n == 2 }}
		w, c := countingTown(t, d, k, DialOptions{Mux: k.mux()})
		clients := Pick(func(context.Context, string) (*Conn, error) {
			for far := range w.srv.Conns() {
				return far, nil
			}
			return nil, errors.New("nobody is there")
		})
		h := hear(func(yield func(int, error) bool) {
			for n, err := range Receive(t.Context(), clients, numbersOn, numbers{To: 2}) {
				if !yield(n, err) {
					return
				}
				if errors.Is(err, Gap) {
					time.Sleep(time.Minute) // until somebody is
				}
			}
		})
		is.Equal(h.take(), []string{"1"})
		w.healed()
		time.Sleep(time.Minute)
		is.Equal(h.take(), []string{"gap", "2", "not found"})
		is.NoErr(c.Close())
	})
}

func TestRestart_pickFails(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		k := &counter{stop: func(opening, n int) bool { return opening == 0 && n == 2 }}
		w, c := countingTown(t, d, k, DialOptions{})
		first := true
		once := Pick(func(context.Context, string) (*Conn, error) {
			if !first {
				return nil, sessionLost(nil) // whatever it is: there is no stream
			}
			first = false
			return c, nil
		})
		h := hear(Receive(t.Context(), once, numbersOn, numbers{To: 2}))
		is.Equal(h.take(), []string{"1"})
		w.cable().cut()
		is.Equal(h.take(), []string{"gap", "gap"})
		is.True(h.over())
		is.NoErr(c.Close())
	})
}

func TestRestart_interceptorsSeeEachOpening(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		k := &counter{stop: func(opening, n int) bool { return opening == 0 && n == 2 }}
		var seen []string
		w, c := countingTown(t, d, k, DialOptions{Interceptors: []Interceptor{
			func(ctx context.Context, r *Request, next RawHandler) (Raw, error) {
				seen = append(seen, "begin "+r.Metadata.Get("who"))
				r.Metadata.Set("who", "changed") // for this opening
				r.OnItem(func(item Raw, _ bool) error { seen = append(seen, string(item)); return nil })
				raw, err := next(ctx, r)
				seen = append(seen, fmt.Sprint("end ", CodeOf(err), errors.Is(err, Gap)))
				return raw, err
			},
		}})
		h := hear(Receive(t.Context(), c.With(CallOptions{Metadata: Metadata{"who": "me"}}), numbersOn, numbers{To: 2}))
		w.healed()
		is.Equal(h.take(), []string{"1", "gap", "2", "not found"})
		is.Equal(seen, []string{"begin me", "1", "end unavailable true", "begin me", "2", "end not found false"})
		is.NoErr(c.Close())
	})
}

// An interceptor's error is the stream's, also in place of a gap.
func TestRestart_interceptorHasTheLastWord(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		k := &counter{stop: func(_, n int) bool { return n == 2 }}
		w, c := countingTown(t, d, k, DialOptions{Interceptors: []Interceptor{
			func(ctx context.Context, r *Request, next RawHandler) (Raw, error) {
				_, err := next(ctx, r)
				return nil, Errorf(Aborted, "instead of %w", err)
			},
		}})
		h := hear(Receive(t.Context(), c, numbersOn, numbers{To: 2}))
		w.healed()
		is.True(h.over())
		is.Equal(CodeOf(h.err), Aborted)
		is.Equal(len(k.requests()), 1)
		is.NoErr(c.Close())
	})
}

// Where the next session does not keep a loop waiting, the backoff does.
func TestRestart_backoff(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		mux := NewMux()
		HandleServerStream(mux, numbersOnce, func(ctx context.Context, _ numbers, send func(int) error) error {
			ConnFrom(ctx).Close()
			return nil
		})
		l := newLab()
		l.Mux = mux
		w := &town{srv: l.Server}
		openings := 0
		var c *Conn
		fresh := Pick(func(context.Context, string) (*Conn, error) { // no session is waited for
			if openings++; openings == 1000 {
				return nil, Aborted
			}
			var mine atomic.Pointer[Conn]
			c = w.dial(t, &DialOptions{Dialect: d, Backoff: Backoff{Min: time.Minute, Max: time.Minute}, OnState: func(s StateChange) {
				if s.State == Waiting { // that it ends for good is no reason for haste
					mine.Load().Close()
				}
			}})
			mine.Store(c)
			return c, nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Hour)
		defer cancel()
		h := hear(Receive(ctx, fresh, numbersOn, numbers{}))
		<-h.done
		is.Equal(h.take(), []string{"gap", "deadline exceeded"})
		is.True(openings > 500 && openings < 700) // half a minute each, more or less
		is.NoErr(c.Close())
	})
}

// A stream that is idle for long is not one that breaks off at once.
func TestRestart_idleStreamsStartTheBackoffOver(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		k := &counter{stop: func(int, int) bool { return true }}
		w, c := countingTown(t, d, k, DialOptions{Backoff: Backoff{Min: time.Second, Max: 100 * time.Hour, Factor: 4}})
		h := hear(Receive(t.Context(), c, numbersOn, numbers{To: 1}))
		for i := range 12 {
			time.Sleep(time.Minute)
			is.Equal(len(k.requests()), i+1)
			w.cable().cut()
			time.Sleep(10 * time.Second)
			is.Equal(len(k.requests()), i+2)
		}
		is.Equal(h.take(), []string{"gap"})
		is.NoErr(c.Close())
		is.True(h.over())
	})
}

// Every number comes once, whatever the lines do.
func TestRestart_randomCuts(t *testing.T) {
	cuts := 1000
	if testing.Short() {
		cuts = 100
	}
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		k := &counter{stop: func(int, int) bool {
			if n := rand.IntN(8); n < 4 {
				time.Sleep(time.Duration(n) * time.Millisecond)
			}
			return false
		}}
		w, c := countingTown(t, d, k, DialOptions{Backoff: Backoff{Min: 10 * time.Millisecond, Max: 10 * time.Millisecond}})
		var enough atomic.Bool
		go func() {
			for w.dialled() <= cuts {
				time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
				w.cable().cut()
			}
			enough.Store(true)
		}()
		last, gaps, pairs := 0, 0, 0
		for n, err := range Receive(t.Context(), c, numbersOn, numbers{To: 1 << 30}) {
			if errors.Is(err, Gap) {
				gaps++
				if pairs++; pairs > 1 {
					t.Fatal("two gaps with no item between them")
				}
				continue
			}
			is.NoErr(err)
			if n != last+1 {
				t.Fatalf("%d came after %d", n, last)
			}
			last, pairs = n, 0
			if enough.Load() {
				break
			}
		}
		losses := w.dialled() - 1
		is.True(losses >= cuts)
		is.True(gaps >= 1 && gaps <= losses)
		settled(t, c)
		is.NoErr(c.Close())
		t.Logf("%d numbers, %d losses, %d gaps, %d openings", last, losses, gaps, len(k.requests()))
	})
}

// told is an event without its type.
func told(e Event[string]) string {
	s := e.Value
	if e.Missed != 0 {
		s += fmt.Sprint(" ", e.Missed)
	}
	if e.History {
		s += " again"
	}
	return s
}

func hearEvents(ctx context.Context, c Caller, tp Topic[string], key string) *heard {
	return hear(func(yield func(string, error) bool) {
		for e, err := range Subscribe(ctx, c, tp, key) {
			if !yield(told(e), err) {
				return
			}
		}
	})
}

// topical is a town with the topics, and one client.
func topical(t *testing.T, d Dialect, hub *Hub) (*town, *Conn) {
	t.Helper()
	srv := topicServer(func(mux *Mux) {
		HandleTopic(mux, hub, topicNews, nil)
		HandleTopic(mux, hub, chatOn, nil) // either declaration will do
	})
	w := &town{srv: srv}
	return w, w.dialAs(t, d, "me")
}

func (w *town) dialAs(t *testing.T, d Dialect, who string) *Conn {
	t.Helper()
	c := w.dial(t, &DialOptions{
		Dialect: d, Backoff: steady, Auth: Credentials(topicLogin, func(context.Context) (string, error) { return who, nil }),
	})
	t.Cleanup(func() { c.Close() })
	return c
}

func TestRestart_subscription(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		hub := NewHub(nil)
		w, c := topical(t, d, hub)
		once, on := hearEvents(t.Context(), c, topicNews, "a"), hearEvents(t.Context(), c, newsOn, "a")
		synctest.Wait()
		is.NoErr(Publish(t.Context(), hub, newsOn, "a", "one"))
		is.Equal(once.take(), []string{"one"})
		is.Equal(on.take(), []string{"one"})
		w.cable().cut()
		is.NoErr(Publish(t.Context(), hub, topicNews, "a", "two"))
		is.Equal(once.take(), []string{"gap"})
		is.True(once.over())
		is.Equal(on.take(), []string{"gap"})
		time.Sleep(time.Minute)
		is.NoErr(Publish(t.Context(), hub, topicNews, "b", "of another key"))
		is.Equal(on.take(), nil)
		is.NoErr(Publish(t.Context(), hub, topicNews, "a", "three"))
		is.NoErr(Publish(t.Context(), hub, topicNews, "a", "four"))
		is.Equal(on.take(), []string{"three -1", "four"})
		is.NoErr(c.Close())
		is.Equal(on.take(), []string{"unavailable"})
		synctest.Wait()
		is.NoErr(hub.isEmpty())
		is.NoErr(hub.Close())
	})
}

func TestRestart_subscriptionWithHistory(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		hub := NewHub(nil)
		w, c := topical(t, d, hub)
		for _, s := range []string{"one", "two"} {
			is.NoErr(Publish(t.Context(), hub, topicChat, "a", s))
		}
		h := hearEvents(t.Context(), c, chatOn, "a")
		is.Equal(h.take(), []string{"one again", "two again"})
		w.healed()
		is.Equal(h.take(), []string{"gap", "one -1 again", "two again"})
		w.cable().cut()
		for _, s := range []string{"three", "four", "five", "six"} {
			is.NoErr(Publish(t.Context(), hub, topicChat, "a", s))
		}
		time.Sleep(time.Minute)
		is.Equal(h.take(), []string{"gap", "four -1 again", "five again", "six again"})
		is.NoErr(Publish(t.Context(), hub, topicChat, "a", "seven"))
		is.Equal(h.take(), []string{"seven"})
		is.NoErr(c.Close())
		is.True(h.over())
		is.NoErr(hub.Close())
	})
}

// A hub that closes, and a policy that disconnects, have ended it.
func TestRestart_subscriptionsThatEnd(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		hub := NewHub(nil)
		_, c := topical(t, d, hub)
		h := hearEvents(t.Context(), c, newsOn, "a")
		synctest.Wait()
		is.NoErr(hub.Close())
		is.Equal(h.take(), []string{"unavailable"})
		is.True(h.over())
		is.NoErr(c.Close())
	})
}

func TestRestart_subscriptionLeftAtTheGap(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		hub := NewHub(nil)
		w, c := topical(t, d, hub)
		sub := subscribeTo(t.Context(), c, newsOn, "a", nil) // returns on every error
		synctest.Wait()
		w.healed()
		<-sub.done
		is.True(errors.Is(sub.err, Gap))
		settled(t, c)
		is.NoErr(hub.isEmpty())
		is.NoErr(c.Close())
		is.NoErr(hub.Close())
	})
}

func TestRestart_presence(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		hub := NewHub(nil)
		w, c := topical(t, d, hub)
		mine := w.cable()
		ann, bob := w.dialAs(t, d, "ann"), w.dialAs(t, d, "bob")
		subscribeTo(t.Context(), ann, topicNews, "a", nil)
		subscribeTo(t.Context(), bob, topicNews, "a", nil)
		synctest.Wait()
		h := hear(Presence(t.Context(), c, newsOn, "a"))
		got := h.take()
		slices.Sort(got)
		is.Equal(got, []string{"{ann false true}", "{bob false true}"})
		mine.cut()
		is.NoErr(ann.Close())
		time.Sleep(time.Minute)
		is.Equal(h.take(), []string{"gap", "{bob false true}"})
		is.NoErr(bob.Close())
		is.Equal(h.take(), []string{"{bob true false}"})
		is.NoErr(c.Close())
		is.True(h.over())
		is.NoErr(hub.Close())
	})
}

func TestRestart_declarations(t *testing.T) {
	is := is.New(t)
	is.Equal(numbersOn.Name(), numbersOnce.Name())
	is.Equal(newsOn.Name(), topicNews.Name())
	is.True(numbersOn != numbersOnce) // they are comparable, as they were
	is.True(newsOn != topicNews)
	is.True(newsOn == topicNews.Restartable())
	func() {
		defer func() { is.True(recover() != nil) }()
		numbersOnce.Restartable(nil)
	}()
	func() {
		defer func() { is.True(recover() != nil) }() // one name, so one handler
		mux := NewMux()
		none := func(context.Context, numbers, func(int) error) error { return nil }
		HandleServerStream(mux, numbersOnce, none)
		HandleServerStream(mux, numbersOn, none)
	}()
}
