package e2e_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// TestServerOnState_links has a link cut, a client that comes back before the server has
// noticed, and a session that is given up: the function is told of the first two, between
// OnConnect and OnDisconnect.
func TestServerOnState_links(t *testing.T) {
	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text, typedrpc.JSONRPC} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			l := lab.New()
			var mu sync.Mutex
			var told []string
			tell := func(args ...any) {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, fmt.Sprint(args...))
			}
			l.Server.OnConnect = func(c *typedrpc.Conn) { tell("connect ", c.RemoteAddr()) }
			l.Server.OnDisconnect = func(*typedrpc.Conn, error) { tell("disconnect") }
			l.Server.OnState = func(c *typedrpc.Conn, s typedrpc.StateChange) {
				is.Equal(c.State(), s.State)
				is.True(s.URL == "" && s.Next.IsZero() && s.Attempt == 0)
				switch s.State {
				case typedrpc.StateWaiting:
					is.True(s.Err != nil)
					is.Equal(s.Since, time.Now())
				case typedrpc.StateConnected:
					is.True(s.Err == nil && s.Since.IsZero() && s.Resumed)
				}
				tell(s.State, " ", c.RemoteAddr())
			}
			w := &lab.Town{Srv: l.Server}
			c := w.Dial(t, &typedrpc.DialOptions{Dialect: d, Backoff: lab.Steady, Limits: typedrpc.Limits{Grace: time.Minute}})
			synctest.Wait()
			w.Cable().Cut()
			time.Sleep(5 * time.Second)
			if d != typedrpc.JSONRPC {
				w.Cable().Swallow() // the server sees nothing of it
				c.Reconnect()
			}
			synctest.Wait()
			w.Serve(nil)
			w.Cable().Cut()
			time.Sleep(5 * time.Minute)
			is.NoErr(c.Close())
			synctest.Wait()
			mu.Lock() // for the race detector
			defer mu.Unlock()
			want := []string{"connect town:1", "waiting town:1", "connected town:2", "connected town:3", "waiting town:3", "disconnect"}
			if d == typedrpc.JSONRPC {
				want = []string{"connect town:1", "disconnect", "connect town:2", "disconnect"}
			}
			is.Equal(told, want)
		})
	}
}

// TestServerOnState_endsTheConnection closes in the function, and is slow in it: the end waits
// for it, and Close does not.
func TestServerOnState_endsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		var told, ended atomic.Int32
		l.Server.OnState = func(c *typedrpc.Conn, s typedrpc.StateChange) {
			told.Add(1)
			is.NoErr(c.Close())
			time.Sleep(time.Second)
			is.Equal(ended.Load(), int32(0))
		}
		l.Server.OnDisconnect = func(_ *typedrpc.Conn, err error) {
			ended.Add(1)
			is.True(errors.Is(err, typedrpc.Unavailable))
		}
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, &typedrpc.DialOptions{Backoff: lab.Steady, Limits: typedrpc.Limits{Grace: time.Minute}, MaxAttempts: -1})
		w.Cable().Cut()
		<-c.Context().Done()
		time.Sleep(2 * time.Second)
		is.Equal(told.Load(), int32(1))
		is.Equal(ended.Load(), int32(1))
		is.NoErr(l.Server.Shutdown(t.Context()))
	})
}

// TestServerOnState_slow has a client that comes and goes while the function is busy: what is
// kept for it is bounded, and the latest.
func TestServerOnState_slow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		goOn := make(chan struct{})
		var told []string
		l.Server.OnState = func(c *typedrpc.Conn, s typedrpc.StateChange) {
			told = append(told, c.RemoteAddr()) // of when it is called
			<-goOn
		}
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, &typedrpc.DialOptions{Backoff: lab.Steady, Limits: typedrpc.Limits{Grace: time.Minute}})
		for range 30 {
			w.Cable().Cut()
			time.Sleep(2 * time.Second)
		}
		close(goOn)
		synctest.Wait()
		is.Equal(len(told), 1+16)
		is.Equal(told[0], "town:1")
		is.NoErr(c.Close())
	})
}
