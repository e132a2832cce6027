package e2e_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// streets serves srv in a network in memory, whose connections have deadlines as
// sockets do. dial connects to it.
func streets(t *testing.T, srv *typedrpc.Server) (n *typedrpctest.Network, dial func() net.Conn) {
	t.Helper()
	srv.Logger = slog.New(slog.DiscardHandler)
	n = typedrpctest.NewNetwork(nil)
	n.Host("town").Serve(srv)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		srv.Shutdown(ctx)
		n.Close()
	})
	return n, func() net.Conn {
		c, err := n.DialContext(t.Context(), "tcp", "town:80")
		is.New(t).NoErr(err)
		t.Cleanup(func() { c.Close() })
		return c
	}
}

func postHead(n int) string {
	return fmt.Sprintf("POST / HTTP/1.1\r\nHost: town\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", n)
}

const shouting = `{"jsonrpc":"2.0","id":1,"method":"text.shout","params":["x"]}`

func shouts() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Shout, lab.HandleShout)
	typedrpc.Handle(mux, lab.FlowCall, func(_ context.Context, s string) (string, error) { return testkit.Letters(3 << 20), nil })
	return mux
}

// The body of a POST that does not come is given up, and one that comes slowly is
// not; the connection serves others after that.
func TestHalfDone_postBody(t *testing.T) {
	for _, test := range []struct {
		name    string
		minRate int
		each    int // bytes of the body every second
		status  int
	}{
		{"nothing comes", 0, 0, http.StatusRequestTimeout},
		{"too little comes", 0, 900, http.StatusRequestTimeout},
		{"enough comes", 0, 1300, http.StatusOK},
		{"little is asked for", 100, 130, http.StatusOK},
	} {
		testkit.Bubble(t, test.name, func(t *testing.T, is *is.I) {
			srv := &typedrpc.Server{Mux: shouts(), Limits: typedrpc.Limits{MinRate: test.minRate}}
			_, dial := streets(t, srv)
			c := dial()
			body := shouting + strings.Repeat(" ", 50_000-len(shouting))
			io.WriteString(c, postHead(len(body)))
			began := time.Now()
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				for rest := body; rest != "" && test.each > 0; {
					time.Sleep(time.Second)
					part := rest[:min(len(rest), test.each)]
					if _, err := io.WriteString(c, part); err != nil {
						return
					}
					rest = rest[len(part):]
				}
			}()
			br := bufio.NewReader(c)
			resp, err := http.ReadResponse(br, nil)
			is.NoErr(err)
			text, err := io.ReadAll(resp.Body)
			is.NoErr(err)
			is.Equal(resp.StatusCode, test.status)
			if test.status != http.StatusOK {
				is.True(time.Since(began) >= 10*time.Second)
				is.True(time.Since(began) < 21*time.Second)
				_, err := br.ReadByte()
				is.Equal(err, io.EOF) // what is left of the body is nobody's
			} else {
				is.True(strings.Contains(string(text), `"X"`))
				time.Sleep(time.Minute)
				io.WriteString(c, postHead(len(shouting))+shouting)
				resp, err := http.ReadResponse(br, nil)
				is.NoErr(err)
				is.Equal(resp.StatusCode, http.StatusOK)
			}
			c.Close()
			<-sent
			synctest.Wait()
			is.Equal(hook.Server(srv).Budget, int64(0))
		})
	}
	testkit.Bubble(t, "of a request that was refused", func(t *testing.T, is *is.I) {
		srv := &typedrpc.Server{}
		_, dial := streets(t, srv)
		c := dial()
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: town\r\nContent-Length: 1000\r\n\r\n")
		began := time.Now()
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		is.NoErr(err)
		is.Equal(resp.StatusCode, http.StatusUnsupportedMediaType)
		is.True(time.Since(began) <= 10*time.Second)
	})
}

// Bodies are in the server's budget while they come, by what has come.
func TestHalfDone_postBodiesCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		srv := &typedrpc.Server{Mux: shouts(), MaxMemory: 4 << 20}
		_, dial := streets(t, srv)
		used := func() int64 { synctest.Wait(); return hook.Server(srv).Budget }
		c := dial()
		io.WriteString(c, postHead(4<<20-100))
		io.WriteString(c, "[")
		is.True(used() <= 16<<10) // what was announced is nothing
		io.WriteString(c, strings.Repeat(" ", 1<<20))
		is.True(used() >= 1<<20)
		is.True(used() <= 3<<20)

		// Those that come when there is no room are told so.
		var refused *http.Response
		for range 20 {
			c := dial()
			go io.WriteString(c, postHead(1<<20)+strings.Repeat(" ", 1<<20-100))
			synctest.Wait()
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil {
				refused = resp
				break
			}
		}
		is.True(refused != nil)
		is.Equal(refused.StatusCode, http.StatusServiceUnavailable)
		is.Equal(refused.Header.Get("Retry-After"), "1")
		is.True(used() <= 4<<20)
		time.Sleep(time.Minute)
		is.Equal(used(), int64(0))
		c = dial() // there is room again
		io.WriteString(c, postHead(len(shouting))+shouting)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		is.NoErr(err)
		is.Equal(resp.StatusCode, http.StatusOK)
	})
}

// The deadlines of a body are not its handler's.
func TestHalfDone_postHandlerTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Shout, func(ctx context.Context, s string) (string, error) {
			select {
			case <-time.After(time.Minute):
				return strings.ToUpper(s), nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		})
		n, _ := streets(t, &typedrpc.Server{})
		l, err := n.Host("city").Listen()
		is.NoErr(err)
		hs := &http.Server{Handler: &typedrpc.Server{Mux: mux}, ReadTimeout: 5 * time.Second}
		go hs.Serve(l)
		defer hs.Close()
		c, err := n.DialContext(t.Context(), "tcp", "city:80")
		is.NoErr(err)
		defer c.Close()
		io.WriteString(c, postHead(len(shouting))+shouting)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		is.NoErr(err)
		text, err := io.ReadAll(resp.Body)
		is.NoErr(err)
		is.True(strings.Contains(string(text), `"X"`))
	})
}

// A client that does not read its answer is not waited for.
func TestHalfDone_postAnswer(t *testing.T) {
	for _, reads := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			srv := &typedrpc.Server{Mux: shouts()}
			_, dial := streets(t, srv)
			c := dial()
			body := `{"jsonrpc":"2.0","id":1,"method":"` + lab.FlowCall.Name() + `","params":["x"]}`
			io.WriteString(c, postHead(len(body))+body)
			synctest.Wait()
			is.True(hook.Server(srv).Budget > 3<<20) // the answer waits
			got := 0
			for range 200 {
				if !reads {
					time.Sleep(20 * time.Second)
					break
				}
				p := make([]byte, 20_000) // slowly, and to the end
				n, err := io.ReadFull(c, p)
				if got += n; err != nil || got > 3<<20-len(p) {
					break
				}
				time.Sleep(time.Second)
			}
			if reads {
				is.True(got > 3<<20-20_000)
				c.Close()
			}
			synctest.Wait()
			is.Equal(hook.Server(srv).Budget, int64(0))
		})
	}
}

// WebSocket messages are in the server's budget while they come, by what has come,
// and those that do not get on end their links.
func TestHalfDone_messagesCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		srv := &typedrpc.Server{Mux: shouts(), MaxMemory: 8 << 20}
		n, dial := streets(t, srv)
		used := func() int64 { synctest.Wait(); return hook.Server(srv).Budget }
		var codes []int
		ended := make(chan int, 100)
		begin := func(size int) {
			c, _, err := websocket.Dial(t.Context(), "ws://town/", &websocket.DialOptions{HTTPClient: n.HTTPClient()})
			is.NoErr(err)
			t.Cleanup(func() { c.CloseNow() })
			w, err := c.Writer(context.Background(), websocket.MessageText)
			is.NoErr(err)
			go w.Write(make([]byte, size))
			go func() {
				_, _, err := c.Read(context.Background())
				ended <- int(websocket.CloseStatus(err))
			}()
			synctest.Wait()
		}
		begin(100)
		is.True(used() < 20<<10) // the first buffer is nobody's
		begin(1 << 20)
		is.True(used() >= 1<<20)
		is.True(used() <= 3<<20)
		for range 20 {
			begin(1 << 20)
			is.True(used() <= 8<<20)
		}
		time.Sleep(22 * time.Second)
		is.Equal(used(), int64(0))
		for range 22 {
			codes = append(codes, <-ended)
		}
		is.True(slices.Contains(codes, session.CloseTimeout)) // they did not get on
		is.True(slices.Contains(codes, session.CloseBudget))  // there was no room
		c := dial()
		io.WriteString(c, postHead(len(shouting))+shouting)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		is.NoErr(err)
		is.Equal(resp.StatusCode, http.StatusOK)
	})
}
