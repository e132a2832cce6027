package e2e_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

const waitsText = "typedrpc: a call waits for a link"

// outage is a client whose server has just gone, and what it logs.
func outage(t *testing.T, o typedrpc.DialOptions) (*lab.Town, *lab.Lab, *typedrpc.Conn, func() []string) {
	t.Helper()
	var log lab.Logs
	o.Logger, o.Backoff = log.Logger(), lab.Steady
	w, l, c := lab.Reconnected(t, &o)
	t.Cleanup(func() { c.Close() })
	return w, l, c, func() (lines []string) {
		synctest.Wait()
		for line := range strings.Lines(log.Text()) {
			if strings.Contains(line, waitsText) {
				lines = append(lines, line)
			}
		}
		return lines
	}
}

// gone takes the server away.
func gone(w *lab.Town) {
	synctest.Wait()
	w.Serve(nil)
	w.Cable().Cut()
	synctest.Wait()
}

func TestOutage_tellsOnce(t *testing.T) {
	for name, grace := range map[string]time.Duration{"session lost": -1, "session kept": time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				w, l, c, told := outage(t, typedrpc.DialOptions{Limits: typedrpc.Limits{Grace: grace}})
				gone(w)
				time.Sleep(5 * time.Second)
				f := typedrpc.Go(t.Context(), c, lab.Echo, 7)
				time.Sleep(10*time.Second - time.Millisecond)
				is.Equal(len(told()), 0)
				time.Sleep(time.Millisecond)
				is.Equal(len(told()), 1)
				for _, what := range []string{"level=WARN", "method=" + lab.Echo.Name(), "calls=1", "without=15s", "awaits=\"the next attempt to connect, in ", "connection refused"} {
					if !strings.Contains(told()[0], what) {
						t.Errorf("no %q in %s", what, told()[0])
					}
				}
				time.Sleep(30 * time.Minute)
				is.Equal(len(told()), 1)
				w.Serve(l.Server)
				n, err := f.Await(t.Context())
				is.NoErr(err)
				is.Equal(n, 7)
				time.Sleep(time.Hour)
				is.Equal(len(told()), 1)
			})
		})
	}
}

// A server's calls wait for a client to come back, and it says so as well.
func TestOutage_ofAClient(t *testing.T) {
	for name, call := range awayUses {
		if name == "notification" { // which is queued, and waits for nothing
			continue
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				var log lab.Logs
				l, grace := lab.New(), typedrpc.Limits{Grace: time.Hour}
				l.Server.Logger, l.Server.Limits = log.Logger(), grace
				w := &lab.Town{Srv: l.Server}
				c := w.Dial(t, &typedrpc.DialOptions{Backoff: lab.Steady, Limits: grace})
				defer c.Close()
				synctest.Wait()
				var server *typedrpc.Conn
				for conn := range l.Server.Conns() {
					server = conn
				}
				gone(w)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go call(ctx, server)
				time.Sleep(10*time.Second - time.Millisecond)
				synctest.Wait()
				is.True(!strings.Contains(log.Text(), waitsText))
				time.Sleep(time.Millisecond)
				synctest.Wait()
				is.Equal(strings.Count(log.Text(), waitsText), 1)
				is.True(strings.Contains(log.Text(), `awaits="the client to come back"`))
				w.Serve(l.Server)
				time.Sleep(time.Hour)
				is.Equal(strings.Count(log.Text(), waitsText), 1)
			})
		})
	}
}

// What was in flight, and a stream, wait too, in each outage anew; calls that begin
// in between are told in their turn.
func TestOutage_inFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, l, c, told := outage(t, typedrpc.DialOptions{Limits: typedrpc.Limits{Grace: time.Hour}})
		typedrpc.Go(t.Context(), c, lab.Hang, struct{}{})
		for n := range 2 {
			gone(w)
			time.Sleep(4 * time.Second)
			f := typedrpc.Go(t.Context(), c, lab.Echo, 7)
			time.Sleep(6 * time.Second)
			is.Equal(len(told()), 2*n+1)
			is.True(strings.Contains(told()[2*n], "method="+lab.Hang.Name()))
			time.Sleep(4 * time.Second)
			is.Equal(len(told()), 2*n+2)
			is.True(strings.Contains(told()[2*n+1], "method="+lab.Echo.Name()))
			w.Serve(l.Server)
			time.Sleep(2 * time.Second)
			f.Await(t.Context())
		}
	})
}

// Nothing is said of calls that have a link, a deadline, or no patience.
func TestOutage_silent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, l, c, told := outage(t, typedrpc.DialOptions{})
		typedrpc.Go(t.Context(), c, lab.Hang, struct{}{})
		time.Sleep(time.Hour)
		is.Equal(len(told()), 0)
		gone(w) // the call fails: it may have run
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		typedrpc.Go(ctx, c, lab.Echo, 7)
		typedrpc.Go(t.Context(), c.With(typedrpc.CallOptions{FailFast: true}), lab.Echo, 7)
		f := typedrpc.Go(t.Context(), c, lab.Echo, 8)
		time.Sleep(9 * time.Second)
		f.Cancel()
		time.Sleep(time.Minute)
		is.Equal(len(told()), 0)
		typedrpc.Go(t.Context(), c, lab.Echo, 9)
		time.Sleep(5 * time.Second)
		w.Serve(l.Server)
		time.Sleep(time.Minute)
		is.Equal(len(told()), 0)
		gone(w)
		typedrpc.Go(t.Context(), c, lab.Echo, 9)
		c.Close()
		time.Sleep(time.Minute)
		is.Equal(len(told()), 0)
	})
}

// Many calls are one line.
func TestOutage_many(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, _, c, told := outage(t, typedrpc.DialOptions{})
		gone(w)
		for range 100 {
			typedrpc.Go(t.Context(), c, lab.Echo, 7)
		}
		time.Sleep(time.Minute)
		is.Equal(len(told()), 1)
		is.True(strings.Contains(told()[0], "calls=100"))
	})
}

// What a call says goes before what its connection says, the other way too.
func TestFailFast_andBack(t *testing.T) {
	none, fast, wait := typedrpc.CallOptions{}, typedrpc.CallOptions{FailFast: true}, typedrpc.CallOptions{WaitForLink: true}
	for _, tt := range []struct {
		conn       bool
		call, last typedrpc.CallOptions
		fails      bool
	}{
		{false, none, none, false}, {false, fast, none, true}, {false, fast, wait, false}, {false, wait, fast, true},
		{true, none, none, true}, {true, wait, none, false}, {true, wait, fast, true}, {true, fast, wait, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			w, l, c, _ := outage(t, typedrpc.DialOptions{FailFast: tt.conn})
			picked := typedrpc.Pick(func(context.Context, string) (*typedrpc.Conn, error) { return c, nil })
			gone(w)
			var calls []*typedrpc.Future[int]
			for _, caller := range []typedrpc.Caller{c, picked} {
				caller = caller.With(tt.call).With(tt.last)
				calls = append(calls, typedrpc.Go(t.Context(), caller, lab.Echo, 7))
				if tt.fails {
					is.True(errors.Is(typedrpc.Notify(t.Context(), caller, lab.Note, 1), typedrpc.Unavailable))
				} else {
					is.NoErr(typedrpc.Notify(t.Context(), caller, lab.Note, 1))
				}
			}
			w.Serve(l.Server)
			for _, f := range calls {
				_, err := f.Await(t.Context())
				is.Equal(err != nil, tt.fails)
				is.True(err == nil || typedrpc.OutcomeOf(err) == typedrpc.NotSent)
			}
		})
	}
}

func TestFailFast_andWaitForLink(t *testing.T) {
	is := is.New(t)
	c, _ := lab.Over{}.Connect(t, &typedrpc.Server{}, &typedrpc.DialOptions{})
	_, err := typedrpc.Call(t.Context(), c.With(typedrpc.CallOptions{FailFast: true, WaitForLink: true}), lab.Echo, 1)
	is.True(errors.Is(err, typedrpc.InvalidArgument))
	is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
}
