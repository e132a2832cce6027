package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

var (
	leaveNote = typedrpc.NewNotification[int]("leave.note")
	leaveCall = typedrpc.NewMethod[int, int]("leave.call")
	leaveLine = typedrpc.NewMethod[int, int]("leave.serial", typedrpc.Serial)
)

// stayed notes what has been run, and how long each takes.
type stayed struct {
	takes time.Duration // of a notification, that looks at its context

	mu    sync.Mutex
	ran   []int
	ended int // contexts of notifications that had ended
}

func (l *stayed) note(ctx context.Context, n int) error {
	select {
	case <-time.After(l.takes):
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ran = append(l.ran, n)
	if ctx.Err() != nil {
		l.ended++
	}
	return nil
}

func (l *stayed) call(_ context.Context, n int) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ran = append(l.ran, n)
	return n, nil
}

func (l *stayed) took() (ran []int, ended int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.ran), l.ended
}

func (l *stayed) mux() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, leaveNote, l.note)
	typedrpc.Handle(mux, leaveCall, l.call)
	typedrpc.Handle(mux, leaveLine, l.call)
	return mux
}

func upTo(n int) (list []int) {
	for i := range n {
		list = append(list, i)
	}
	return list
}

// goodbyes are codes that peers close with; 1005 is none.
var goodbyes = []int{1000, 1001, 1005, 1012, 4000}

func leaveText(method string, n int, id string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","method":"leave.%s","params":[%d]%s}`, method, n, id)
}

// What had arrived when a plain peer closed is run, in its order, and with contexts that
// live.
func TestLeave_plainPeer(t *testing.T) {
	for _, code := range goodbyes {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			l := &stayed{takes: 50 * time.Millisecond}
			lab.Strangers(t, l.mux(), typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, _ *lab.Logs) {
				is := is.New(t)
				*l = stayed{takes: l.takes}
				for n := range 100 {
					s.Send(leaveText("note", n, ""))
				}
				s.T.Close(code, "bye")
				time.Sleep(10 * time.Second)
				ran, ended := l.took()
				is.Equal(ran, upTo(100))
				is.Equal(ended, 0)
				is.Equal(lab.Unpaid(c), "")
			})
		})
	}
}

// Over sockets, too: the messages and the close frame may come in one packet.
func TestLeave_socket(t *testing.T) {
	for _, code := range []websocket.StatusCode{1000, 1001, websocket.StatusNoStatusRcvd} {
		t.Run(fmt.Sprint("client ", code), func(t *testing.T) {
			is := is.New(t)
			l, gone := &stayed{takes: time.Millisecond}, make(chan struct{})
			p := dialRaw(t, serve(t, &typedrpc.Server{Mux: l.mux(), OnDisconnect: func(*typedrpc.Conn, error) { close(gone) }}))
			for n := range 100 {
				p.send(leaveText("note", n, ""))
			}
			p.c.Close(code, "")
			<-gone
			is.Equal(l.count(), upTo(100))
		})
		t.Run(fmt.Sprint("server ", code), func(t *testing.T) {
			is := is.New(t)
			l := &stayed{takes: time.Millisecond}
			hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c, err := websocket.Accept(w, r, nil)
				if err != nil {
					return
				}
				p := rawPeer{t, c}
				for n := range 100 {
					p.send(leaveText("note", n, ""))
				}
				c.Close(code, "")
			}))
			defer hs.Close()
			c, err := typedrpc.Dial(t.Context(), hs.URL, &typedrpc.DialOptions{Dialect: typedrpc.JSONRPC, Mux: l.mux(), Backoff: typedrpc.Backoff{Min: time.Hour, Max: time.Hour}})
			is.NoErr(err)
			for len(l.count()) < 100 {
				time.Sleep(time.Millisecond)
			}
			is.Equal(l.count(), upTo(100))
			c.Close()
		})
	}
}

// So are calls, whose contexts have ended: nobody waits for their answers. Serial ones
// keep their places among the notifications.
func TestLeave_calls(t *testing.T) {
	l := &stayed{takes: 50 * time.Millisecond}
	lab.Strangers(t, l.mux(), typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, _ *lab.Logs) {
		is := is.New(t)
		*l = stayed{takes: l.takes}
		for n := 0; n < 20; n += 2 {
			s.Send(leaveText("note", n, ""))
			s.Send(leaveText("serial", n+1, `,"id":1`))
		}
		s.T.Close(1000, "")
		time.Sleep(10 * time.Second)
		ran, ended := l.took()
		is.Equal(ran, upTo(20))
		is.Equal(ended, 0)
		is.Equal(lab.Unpaid(c), "")
	})
	lab.Strangers(t, l.mux(), typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, _ *lab.Logs) {
		is := is.New(t)
		*l = stayed{}
		for n := range 100 {
			s.Send(leaveText("call", n, `,"id":1`))
		}
		s.T.Close(1000, "")
		synctest.Wait()
		ran, _ := l.took()
		is.Equal(len(ran), 100)
		is.Equal(lab.Unpaid(c), "")
	})
}

// Our own Notify and Close, both ways and in all dialects.
func TestLeave_ownPeer(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		for _, fromServer := range []bool{false, true} {
			t.Run(fmt.Sprint("server=", fromServer), func(t *testing.T) {
				is := is.New(t)
				l := &stayed{takes: time.Millisecond}
				gone := make(chan int, 2)
				srv := &typedrpc.Server{Mux: l.mux(), OnDisconnect: func(*typedrpc.Conn, error) {
					ran, _ := l.took()
					gone <- len(ran)
				}}
				client, server := o.Connect(t, srv, &typedrpc.DialOptions{Mux: l.mux(), Backoff: lab.Steady})
				from := client
				if fromServer {
					from = server
				}
				for n := range 100 {
					is.NoErr(typedrpc.Notify(t.Context(), from, leaveNote, n))
				}
				from.Close()
				before := <-gone
				if !fromServer {
					is.Equal(before, 100) // OnDisconnect comes behind them
				}
				for len(l.count()) < 100 {
					time.Sleep(time.Millisecond)
				}
				ran, ended := l.took()
				is.Equal(ran, upTo(100))
				is.Equal(ended, 0)
			})
		}
	})
}

func (l *stayed) count() []int {
	ran, _ := l.took()
	return ran
}

// What a foreign server sends in its next link comes behind what it had sent in the one
// that it closed.
func TestLeave_redialled(t *testing.T) {
	testkit.Bubble(t, "", func(t *testing.T, is *is.I) {
		l := &stayed{takes: time.Second}
		s, c, again := lab.ForeignServer(t, &typedrpc.DialOptions{Mux: l.mux(), Backoff: lab.Steady})
		for i := range 2 {
			for n := range 5 {
				s.Send(leaveText("note", 5*i+n, ""))
			}
			s.T.Close(1000, "")
			s = again()
		}
		for n := range 5 {
			s.Send(leaveText("note", 10+n, ""))
		}
		time.Sleep(20 * time.Second)
		is.Equal(l.count(), upTo(15))
		is.Equal(lab.Unpaid(c), "")
		c.Close()
	})
}

// A client that is told not to come back runs what it was told, and ends then.
func TestLeave_lastAttempt(t *testing.T) {
	testkit.Bubble(t, "", func(t *testing.T, is *is.I) {
		l := &stayed{takes: time.Second}
		s, c, _ := lab.ForeignServer(t, &typedrpc.DialOptions{Mux: l.mux()})
		for n := range 5 {
			s.Send(leaveText("note", n, ""))
		}
		s.T.Close(4403, "not you")
		synctest.Wait()
		is.Equal(c.Err(), nil)
		<-c.Context().Done()
		is.Equal(l.count(), upTo(5))
	})
}

// There is a time for it.
func TestLeave_time(t *testing.T) {
	l := &stayed{takes: time.Second}
	lab.Strangers(t, l.mux(), typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, log *lab.Logs) {
		is := is.New(t)
		*l = stayed{takes: 3500 * time.Millisecond}
		for n := range 12 {
			s.Send(leaveText("note", n, ""))
		}
		s.T.Close(1000, "")
		time.Sleep(time.Minute)
		ran, ended := l.took()
		is.Equal(ran, upTo(9)) // in 30 seconds
		is.Equal(ended, 1)
		is.True(log.Has("handlers take too long"))
		is.True(log.Has("dropped=3"))
		is.Equal(lab.Unpaid(c), "")
	})
	lab.Strangers(t, l.mux(), typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, log *lab.Logs) {
		is := is.New(t)
		*l = stayed{takes: 20 * time.Second}
		for n := range 5 {
			s.Send(leaveText("note", n, ""))
		}
		s.T.Close(1000, "")
		time.Sleep(5 * time.Second) // one of them has four
		ran, ended := l.took()
		is.Equal(ran, upTo(1))
		is.Equal(ended, 1)
		is.True(log.Has("dropped=4"))
		is.Equal(lab.Unpaid(c), "")
	})
}

// A handler that does not return is in nobody's way for longer.
func TestLeave_stuck(t *testing.T) {
	testkit.Bubble(t, "", func(t *testing.T, is *is.I) {
		hold := make(chan struct{})
		var l stayed
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, leaveNote, func(ctx context.Context, n int) error {
			if n == 0 {
				<-hold
			}
			return l.note(ctx, n)
		})
		s, c, again := lab.ForeignServer(t, &typedrpc.DialOptions{Mux: mux, Backoff: lab.Steady})
		s.Send(leaveText("note", 0, ""))
		s.Send(leaveText("note", 1, ""))
		s.T.Close(1000, "")
		s = again()
		s.Send(leaveText("note", 2, ""))
		s.Send(leaveText("note", 3, ""))
		time.Sleep(time.Minute)
		is.Equal(l.count(), []int{2, 3})
		s.Send(leaveText("note", 4, ""))
		synctest.Wait()
		close(hold)
		synctest.Wait()
		is.Equal(l.count(), []int{2, 3, 4, 0})
		is.Equal(lab.Unpaid(c), "")
		c.Close()
	})
}

// Once this side has ended the connection nothing of it begins, nor when its identity
// has ended.
func TestLeave_endedHere(t *testing.T) {
	ways := map[string]func(srv *typedrpc.Server, c *typedrpc.Conn, ends context.CancelFunc){
		"identity": func(_ *typedrpc.Server, _ *typedrpc.Conn, ends context.CancelFunc) { ends() },
	}
	for how, end := range ends {
		ways[how] = func(srv *typedrpc.Server, c *typedrpc.Conn, _ context.CancelFunc) { end(srv, c) }
	}
	for how, end := range ways {
		testkit.Bubble(t, how, func(t *testing.T, is *is.I) {
			l := &stayed{takes: time.Second}
			ctx, ends := context.WithCancel(t.Context())
			defer ends()
			srv := &typedrpc.Server{Mux: l.mux(), SignIn: lab.Sign.Verify(func(context.Context, *http.Request, *string) (typedrpc.Identity, int, error) {
				return typedrpc.Identity{Context: ctx}, 0, nil
			})}
			s, c := lab.Page(t, srv)
			for n := range 100 {
				s.Send(leaveText("note", n, ""))
			}
			s.T.Close(1000, "")
			time.Sleep(2500 * time.Millisecond)
			end(srv, c, ends)
			ran := len(l.count())
			is.True(ran == 2 || ran == 3)
			time.Sleep(time.Minute)
			is.True(len(l.count()) <= 3)
			<-c.Context().Done()
			is.NoErr(srv.Shutdown(t.Context()))
		})
	}
}

// Who only goes, and says nothing, takes along what has not begun.
func TestLeave_brokenLink(t *testing.T) {
	l := &stayed{takes: time.Second}
	lab.Strangers(t, l.mux(), typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, _ *typedrpc.Conn, _ *lab.Logs) {
		is := is.New(t)
		*l = stayed{takes: l.takes}
		for n := range 5 {
			s.Send(leaveText("note", n, ""))
		}
		synctest.Wait()
		s.T.Kill()
		time.Sleep(time.Minute)
		ran, ended := l.took()
		is.Equal(ran, []int{0})
		is.Equal(ended, 1)
	})
}

// A server that drains waits for it, and one that does not wait is not held up.
func TestLeave_shutdown(t *testing.T) {
	testkit.Bubble(t, "", func(t *testing.T, is *is.I) {
		l := &stayed{takes: time.Second}
		srv := &typedrpc.Server{Mux: l.mux()}
		s, _ := lab.Page(t, srv)
		for n := range 5 {
			s.Send(leaveText("note", n, ""))
		}
		s.T.Close(1000, "")
		synctest.Wait()
		is.Equal(slices.Collect(srv.Conns()), nil)
		is.NoErr(srv.Shutdown(t.Context()))
		is.Equal(l.count(), upTo(5))
	})
}
