package e2e_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// leftMux has handlers that look at their contexts, and one that does not.
func leftMux(l *stayed, hold chan struct{}) *typedrpc.Mux {
	mux := l.mux()
	typedrpc.Handle(mux, lab.Stay, func(ctx context.Context, _ struct{}) (struct{}, error) {
		<-ctx.Done()
		return struct{}{}, ctx.Err()
	})
	typedrpc.Handle(mux, lab.Ask, func(_ context.Context, n int) (int, error) { <-hold; return n, nil })
	return mux
}

var (
	stayCall = fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q}`, lab.Stay.Name())
	askCall  = fmt.Sprintf(`{"jsonrpc":"2.0","id":2,"method":%q,"params":[7]}`, lab.Ask.Name())
)

// A call by POST has an answer or an error, also when the client has closed its sending
// half, or is gone, as far as net/http can tell. What it notified is run.
func TestPOST_clientLeft(t *testing.T) {
	const canceled, answer = `{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"canceled"}}`, `{"jsonrpc":"2.0","id":2,"result":7}`
	for name, test := range map[string]struct {
		body, answer string
		status, runs int
	}{
		"a call":          {stayCall, canceled, 200, 0},
		"deaf":            {askCall, answer, 200, 0},
		"a batch":         {"[" + stayCall + "," + leaveText("note", 0, "") + "," + askCall + "," + leaveText("serial", 1, `,"id":3`) + "]", "[" + canceled + "," + answer + `,{"jsonrpc":"2.0","id":3,"result":1}]`, 200, 2},
		"notifications":   {"[" + leaveText("note", 0, "") + "," + leaveText("note", 1, "") + "]", "", 204, 2},
		"what is no call": {`{"id":3}`, `-32600`, 200, 0},
	} {
		for _, early := range []bool{false, true} {
			testkit.Bubble(t, fmt.Sprint(name, "/early=", early), func(t *testing.T, is *is.I) {
				l, hold := &stayed{takes: time.Second}, make(chan struct{})
				srv := &typedrpc.Server{Mux: leftMux(l, hold)}
				ctx, leave := context.WithCancel(t.Context())
				w := httptest.NewRecorder()
				if early {
					leave()
				}
				done := make(chan struct{})
				go func() { defer close(done); srv.ServeHTTP(w, postOf(ctx, test.body)) }()
				synctest.Wait()
				leave()
				time.Sleep(5 * time.Second)
				close(hold)
				<-done
				is.Equal(w.Code, test.status)
				is.True(strings.Contains(w.Body.String(), test.answer))
				ran, ended := l.took()
				is.Equal(len(ran), test.runs)
				is.Equal(ended, 0)
				is.NoErr(srv.Shutdown(t.Context()))
			})
		}
	}
}

func postOf(ctx context.Context, body string) *http.Request {
	r := httptest.NewRequest("POST", "http://town/", strings.NewReader(body)).WithContext(ctx)
	r.Header.Set("Content-Type", "application/json")
	return r
}

// That has an end: a handler may never return.
func TestPOST_clientLeftForGood(t *testing.T) {
	for _, body := range []string{askCall, "[" + askCall + "," + stayCall + "]"} {
		testkit.Bubble(t, "", func(t *testing.T, is *is.I) {
			hold := make(chan struct{})
			srv := &typedrpc.Server{Mux: leftMux(new(stayed), hold)}
			ctx, leave := context.WithCancel(t.Context())
			leave()
			w := httptest.NewRecorder()
			began := time.Now()
			srv.ServeHTTP(w, postOf(ctx, body))
			is.Equal(time.Since(began), 30*time.Second)
			is.Equal(w.Code, http.StatusServiceUnavailable)
			close(hold)
			is.NoErr(srv.Shutdown(t.Context()))
		})
	}
}

// What was notified is run while it gets on: a handler that takes too long ends it.
func TestPOST_clientLeftStuckNotifications(t *testing.T) {
	note := func(n int) string { return strings.TrimSpace(leaveText("note", n, "")) }
	for _, test := range []struct {
		takes, until time.Duration
		status       int
	}{
		{3 * time.Second, 6 * time.Second, http.StatusNoContent},
		{20 * time.Second, 4 * time.Second, http.StatusServiceUnavailable},
	} {
		testkit.Bubble(t, test.takes.String(), func(t *testing.T, is *is.I) {
			srv := &typedrpc.Server{Mux: leftMux(&stayed{takes: test.takes}, nil)}
			ctx, leave := context.WithCancel(t.Context())
			leave()
			w := httptest.NewRecorder()
			began := time.Now()
			srv.ServeHTTP(w, postOf(ctx, "["+note(1)+","+note(2)+"]"))
			is.Equal(time.Since(began), test.until)
			is.Equal(w.Code, test.status)
			time.Sleep(time.Minute)
			is.NoErr(srv.Shutdown(t.Context()))
		})
	}
}

// An identity that ends meanwhile is one that was revoked; one that ends with the
// request is not.
func TestPOST_identityEnded(t *testing.T) {
	for _, own := range []bool{true, false} {
		for _, body := range []string{stayCall, askCall, "[" + stayCall + "," + askCall + "]"} {
			testkit.Bubble(t, fmt.Sprint("own=", own), func(t *testing.T, is *is.I) {
				hold := make(chan struct{})
				ctx, end := context.WithCancel(t.Context())
				srv := &typedrpc.Server{Mux: leftMux(new(stayed), hold), SignIn: lab.Sign.Verify(func(_ context.Context, r *http.Request, _ *string) (typedrpc.Identity, int, error) {
					if own {
						return typedrpc.Identity{Context: ctx}, 0, nil
					}
					return typedrpc.Identity{Context: r.Context()}, 0, nil
				})}
				request := t.Context()
				if !own {
					request = ctx
				}
				w := httptest.NewRecorder()
				done := make(chan struct{})
				go func() { defer close(done); srv.ServeHTTP(w, postOf(request, body)) }()
				synctest.Wait()
				end()
				synctest.Wait()
				if own {
					<-done // whatever the handlers do
					is.Equal(w.Code, http.StatusUnauthorized)
				}
				close(hold)
				<-done
				if !own {
					is.Equal(w.Code, http.StatusOK)
					is.True(w.Body.Len() > 0)
				}
				is.NoErr(srv.Shutdown(t.Context()))
			})
		}
	}
}

// Over sockets: netcat and scripts close their sending half behind a request.
func TestPOST_halfClosed(t *testing.T) {
	hold := make(chan struct{})
	close(hold)
	url := serve(t, &typedrpc.Server{Mux: leftMux(new(stayed), hold)})
	for _, test := range []struct {
		body   string
		more   int
		status int
		answer string
	}{
		{stayCall, 0, 200, `"id":1,"error":{"code":1,`},
		{askCall, 0, 200, `"id":2,"result":7`},
		{askCall, 5, 400, "ended before all of it had come"},
	} {
		is := is.New(t)
		c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		is.NoErr(err)
		defer c.Close()
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", strings.TrimPrefix(url, "http://"), len(test.body)+test.more, test.body)
		is.NoErr(c.(*net.TCPConn).CloseWrite())
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		is.NoErr(err)
		text, err := io.ReadAll(resp.Body)
		is.NoErr(err)
		is.Equal(resp.StatusCode, test.status)
		is.True(strings.Contains(string(text), test.answer))
	}
}
