package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/topic"
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
	numbersOnce = typedrpc.NewServerStream[numbers, int]("restart.numbers")
	numbersOn   = numbersOnce.Restartable(numbers.behind)
	numbersFor  = typedrpc.NewServerStream[numbers, int]("restart.numbers.minute", typedrpc.Timeout(time.Minute)).Restartable(numbers.behind)
	newsOn      = topic.New[string](lab.TopicNews.Name(), topic.WithPresence, topic.Restartable)
	chatOn      = topic.New[string](lab.TopicChat.Name(), topic.History(3, 0), topic.WithPresence, topic.Restartable)
)

// counter handles streams of numbers, and can stop in them.
type counter struct {
	mu     sync.Mutex
	opened []numbers
	at     []time.Time
	ended  []error                          // what send returned, or nil
	stop   func(opening, n int) (stop bool) // before n is sent; nil: never
}

func (k *counter) mux() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	for _, s := range []typedrpc.ServerStream[numbers, int]{numbersOnce, numbersFor} {
		typedrpc.Handle(mux, s, k.serve)
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
	return typedrpc.NotFound
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
			case errors.Is(err, typedrpc.Gap):
				h.got = append(h.got, "gap")
			case err != nil:
				h.got = append(h.got, typedrpc.CodeOf(err).Error())
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
func countingTown(t *testing.T, d typedrpc.Dialect, k *counter, o typedrpc.DialOptions) (*lab.Town, *typedrpc.Conn) {
	t.Helper()
	l := lab.New()
	l.Mux = k.mux()
	w := &lab.Town{Srv: l.Server}
	o.Dialect = d
	if o.Backoff == (typedrpc.Backoff{}) {
		o.Backoff = lab.Steady
	}
	c := w.Dial(t, &o)
	t.Cleanup(func() { c.Close() })
	return w, c
}

func TestRestart_goesOnBehindTheLastItem(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		k := &counter{stop: func(opening, n int) bool { return opening == 0 && n == 7 || opening == 1 && n == 9 }}
		w, c := countingTown(t, d, k, typedrpc.DialOptions{})
		var got []string
		for n, err := range typedrpc.Receive(t.Context(), c, numbersOn, numbers{To: 10}) {
			switch {
			case errors.Is(err, typedrpc.Gap):
				is.Equal(n, 0)
				is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable)
				is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
				got = append(got, "gap")
				continue
			case err != nil:
				is.Equal(typedrpc.OutcomeOf(err), typedrpc.Answered)
				got = append(got, typedrpc.CodeOf(err).Error())
				continue
			}
			got = append(got, fmt.Sprint(n))
			if n == 4 || n == 8 {
				synctest.Wait() // others have come and wait
				w.Cable().Cut()
			}
		}
		is.Equal(got, []string{"1", "2", "3", "4", "5", "6", "gap", "7", "8", "gap", "9", "10", "not found"})
		is.Equal(k.requests(), []numbers{{0, 10}, {6, 10}, {8, 10}})
		is.True(errors.Is(k.ended[0], typedrpc.Gap)) // the handlers' side
		is.True(errors.Is(k.ended[1], typedrpc.Gap))
		lab.Settled(t, c)
		is.NoErr(c.Close())
	})
}

// The loop hears of it at once, and not when the next session is there.
func TestRestart_gapIsToldAtOnce(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		k := &counter{stop: func(opening, n int) bool { return opening == 0 && n == 2 }}
		w, c := countingTown(t, d, k, typedrpc.DialOptions{})
		srv := w.Srv
		h := hear(typedrpc.Receive(t.Context(), c, numbersOn, numbers{To: 2}))
		is.Equal(h.take(), []string{"1"})
		w.Serve(nil)
		w.Cable().Cut()
		is.Equal(h.take(), []string{"gap"})
		time.Sleep(time.Hour)
		is.Equal(h.take(), nil)
		w.Serve(srv)
		time.Sleep(time.Minute)
		is.Equal(h.take(), []string{"2", "not found"})
		is.True(h.over())
		is.NoErr(c.Close())
	})
}

func TestRestart_lossesWithoutItemsAreOneGap(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		k := &counter{stop: func(opening, n int) bool {
			return opening != 5 && n == 1 || opening == 5 && n == 2 || opening == 6 && n == 2
		}}
		w, c := countingTown(t, d, k, typedrpc.DialOptions{})
		h := hear(typedrpc.Receive(t.Context(), c, numbersOn, numbers{To: 2}))
		is.Equal(h.take(), nil)
		w.Healed()
		is.Equal(h.take(), []string{"gap"}) // what came before the first item may be missing, too
		for range 3 {
			w.Healed()
			is.Equal(h.take(), nil)
		}
		w.Healed()
		is.Equal(h.take(), []string{"1"})
		w.Healed()
		is.Equal(h.take(), []string{"gap"})
		w.Healed()
		is.Equal(h.take(), []string{"2", "not found"})
		is.Equal(k.requests(), []numbers{{0, 2}, {0, 2}, {0, 2}, {0, 2}, {0, 2}, {0, 2}, {1, 2}, {1, 2}})
		is.NoErr(c.Close())
	})
}

func TestRestart_leftAtTheGap(t *testing.T) {
	for _, how := range []string{"break", "panic"} {
		t.Run(how, func(t *testing.T) {
			lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
				is := is.New(t)
				k := &counter{stop: func(_, n int) bool { return n == 3 }}
				w, c := countingTown(t, d, k, typedrpc.DialOptions{})
				func() {
					defer func() { is.Equal(recover() != nil, how == "panic") }()
					for n, err := range typedrpc.Receive(t.Context(), c, numbersOn, numbers{To: 3}) {
						switch {
						case err != nil && how == "panic":
							panic(err)
						case err != nil:
							return
						case n == 2:
							w.Cable().Cut()
						}
					}
				}()
				time.Sleep(time.Hour)
				is.Equal(len(k.requests()), 1) // nothing was opened again
				lab.Settled(t, c)
				is.NoErr(c.Close())
			})
		})
	}
}

// Each loop over a sequence begins with the request that Receive was given.
func TestRestart_loopsAreApart(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		k := &counter{stop: func(opening, n int) bool { return opening == 0 && n == 2 }}
		w, c := countingTown(t, d, k, typedrpc.DialOptions{})
		seq := typedrpc.Receive(t.Context(), c, numbersOn, numbers{To: 2})
		h := hear(seq)
		is.Equal(h.take(), []string{"1"})
		w.Healed()
		is.Equal(h.take(), []string{"gap", "2", "not found"})
		is.Equal(hear(seq).take(), []string{"1", "2", "not found"})
		is.Equal(k.requests(), []numbers{{0, 2}, {1, 2}, {0, 2}})
		is.NoErr(c.Close())
	})
}

// What next keeps of an item is its own.
func TestRestart_lastItemIsACopy(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		var kept []*int
		keeps := numbersOnce.Restartable(func(n numbers, last *int) numbers {
			kept = append(kept, last)
			return n.behind(last)
		})
		k := &counter{stop: func(opening, n int) bool { return n == opening+2 }}
		w, c := countingTown(t, d, k, typedrpc.DialOptions{})
		h := hear(typedrpc.Receive(t.Context(), c, keeps, numbers{To: 3}))
		w.Healed()
		w.Healed()
		is.Equal(h.take(), []string{"1", "gap", "2", "gap", "3", "not found"})
		is.Equal(len(kept), 2)
		is.Equal(*kept[0], 1)
		is.Equal(*kept[1], 2)
		is.NoErr(c.Close())
	})
}

func TestRestart_otherEndsAreEnds(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, numbersOn, func(_ context.Context, n numbers, send func(int) error) error {
			if n.To == 0 {
				return nil
			}
			return typedrpc.Unavailable // as a handler may whose own upstream is gone
		})
		c, _ := lab.Joined(t, d, mux, typedrpc.Limits{})
		h := hear(typedrpc.Receive(t.Context(), c, numbersOn, numbers{}))
		is.Equal(h.take(), nil)
		is.True(h.over())
		h = hear(typedrpc.Receive(t.Context(), c, numbersOn, numbers{To: 1}))
		is.Equal(h.take(), []string{"unavailable"})
		is.True(h.over())
	})
}

func TestRestart_connectionEnds(t *testing.T) {
	for name, test := range map[string]struct {
		want typedrpc.Code
		end  func(*lab.Town, *typedrpc.Conn)
	}{
		"Close":    {typedrpc.Unavailable, func(_ *lab.Town, c *typedrpc.Conn) { c.Close() }},
		"Shutdown": {typedrpc.Unavailable, func(_ *lab.Town, c *typedrpc.Conn) { c.Shutdown(context.Background()) }},
		"refused": {typedrpc.PermissionDenied, func(w *lab.Town, c *typedrpc.Conn) {
			w.Mu.Lock()
			w.Refuse = func(int) error { return &typedrpc.UpgradeError{Status: http.StatusForbidden} }
			w.Mu.Unlock()
			<-c.Context().Done()
		}},
	} {
		for _, when := range []string{"waiting", "in the body"} {
			t.Run(name+" "+when, func(t *testing.T) {
				lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
					is := is.New(t)
					k := &counter{stop: func(_, n int) bool { return n == 2 }}
					w, c := countingTown(t, d, k, typedrpc.DialOptions{})
					w.Serve(nil)
					gaps := 0
					var last error
					for n, err := range typedrpc.Receive(t.Context(), c, numbersOn, numbers{To: 2}) {
						last = err
						switch {
						case n == 1:
							w.Cable().Cut()
						case errors.Is(err, typedrpc.Gap):
							gaps++
							if when == "waiting" {
								time.AfterFunc(time.Minute, func() { test.end(w, c) })
							} else {
								test.end(w, c)
							}
						}
					}
					is.Equal(gaps, 1)
					is.Equal(typedrpc.CodeOf(last), test.want)
					is.Equal(typedrpc.OutcomeOf(last), typedrpc.MayHaveRun)
					is.True(!errors.Is(last, typedrpc.Gap))
					is.NoErr(c.Close())
					if name != "Shutdown" {
						is.True(errors.Is(c.Err(), test.want))
					}
					lab.Settled(t, c)
				})
			})
		}
	}
}

func TestRestart_contextEnds(t *testing.T) {
	for name, test := range map[string]struct {
		want   typedrpc.Code
		stream typedrpc.ServerStream[numbers, int]
		ctx    func(context.Context) (context.Context, context.CancelFunc)
	}{
		"canceled": {typedrpc.Canceled, numbersOn, func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Minute, cancel)
			return ctx, cancel
		}},
		"deadline": {typedrpc.DeadlineExceeded, numbersOn, func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Minute)
		}},
		"Timeout": {typedrpc.DeadlineExceeded, numbersFor, context.WithCancel}, // of the whole
	} {
		for _, when := range []string{"waiting for a session", "waiting to open", "open again"} {
			t.Run(name+" "+when, func(t *testing.T) {
				lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
					is := is.New(t)
					k := &counter{stop: func(_, n int) bool { return n == 2 }}
					o := typedrpc.DialOptions{}
					if when == "waiting to open" {
						// Only a gap with no item before it has such a wait.
						k.stop = func(_, n int) bool { return n == 1 }
						o.Backoff = typedrpc.Backoff{Min: 1e6 * time.Hour, Max: 1e6 * time.Hour}
					}
					w, c := countingTown(t, d, k, o)
					if when == "waiting for a session" {
						w.Serve(nil)
					}
					ctx, cancel := test.ctx(t.Context())
					defer cancel()
					began := time.Now()
					h := hear(typedrpc.Receive(ctx, c, test.stream, numbers{To: 2}))
					time.Sleep(5 * time.Second)
					h.take()
					w.Cable().Cut()
					is.Equal(h.take(), []string{"gap"})
					<-h.done
					is.Equal(time.Since(began), time.Minute)
					is.Equal(h.take(), []string{test.want.Error()})
					is.Equal(typedrpc.OutcomeOf(h.err), typedrpc.MayHaveRun)
					is.True(!errors.Is(h.err, typedrpc.Gap))
					lab.Settled(t, c)
					is.NoErr(c.Close())
				})
			})
		}
	}
}

func TestRestart_closeWhileWaitingToOpen(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		k := &counter{stop: func(int, int) bool { return true }}
		long := 1e6 * time.Hour
		w, c := countingTown(t, d, k, typedrpc.DialOptions{Backoff: typedrpc.Backoff{Min: long, Max: long}})
		h := hear(typedrpc.Receive(t.Context(), c, numbersOn, numbers{To: 1}))
		synctest.Wait()
		w.Cable().Cut()
		c.Reconnect()
		time.Sleep(time.Minute)
		is.Equal(c.State(), typedrpc.StateConnected)
		is.Equal(h.take(), []string{"gap"})
		is.Equal(len(k.requests()), 1)
		is.NoErr(c.Close())
		is.Equal(h.take(), []string{"unavailable"})
		is.True(h.over())
	})
}

// Of two reasons the caller's own comes first.
func TestRestart_connectionAndContextEnd(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		k := &counter{stop: func(_, n int) bool { return n == 2 }}
		w, c := countingTown(t, d, k, typedrpc.DialOptions{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var last error
		for n, err := range typedrpc.Receive(ctx, c, numbersOn, numbers{To: 2}) {
			switch last = err; {
			case n == 1:
				w.Cable().Cut()
			case errors.Is(err, typedrpc.Gap):
				cancel()
				c.Close()
			}
		}
		is.Equal(typedrpc.CodeOf(last), typedrpc.Canceled)
	})
}
