package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/topic"
)

// lines of a log, each of which has to be short. All of them are told apart from
// those that were left out.
func lines(is *is.I, l *lab.Logs, most int) (all []string) {
	is.Helper()
	for line := range strings.Lines(l.Text()) {
		is.True(len(line) < most) // a line is bounded
		all = append(all, line)
	}
	return all
}

// picky is a text that is never right, and says so.
type picky string

func (p picky) Validate() error { return errors.New(string(p)) }

// TestLogs_ofPeers has peers make a server log as much as they can. Each of these
// was a line of any size for each request.
func TestLogs_ofPeers(t *testing.T) {
	big := strings.Repeat("o", 900<<10)
	fail := typedrpc.NewMethod[string, string]("logs.fail")
	note := typedrpc.NewNotification[string]("logs.note")
	fall := typedrpc.NewMethod[string, string]("logs.throw")
	mux := func() *typedrpc.Mux {
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, fail, func(_ context.Context, s string) (string, error) { return "", errors.New("no such " + s) })
		typedrpc.Handle(mux, fall, func(_ context.Context, s string) (string, error) { panic(s) })
		typedrpc.Handle(mux, typedrpc.NewNotification[picky]("logs.note"), func(context.Context, picky) error { return nil })
		mux.HandleFallback(func(_ context.Context, r *typedrpc.Request) (typedrpc.Raw, error) { return nil, errors.New(r.Method) })
		return mux
	}
	const kilobyte, times = 1 << 10, 200
	for name, attack := range map[string]struct {
		message string
		run     func(t *testing.T, is *is.I, srv *typedrpc.Server, c *typedrpc.Conn, n int)
	}{
		"large origins": {"request refused", func(t *testing.T, is *is.I, srv *typedrpc.Server, _ *typedrpc.Conn, n int) {
			status, body := upgrade(srv, func(r *http.Request) { r.Header.Set("Origin", "http://"+big) })
			is.Equal(status, http.StatusForbidden)
			is.True(len(body) < kilobyte)
		}},
		"large hosts": {"request refused", func(t *testing.T, is *is.I, srv *typedrpc.Server, _ *typedrpc.Conn, n int) {
			local := context.WithValue(t.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80})
			status, body := upgrade(srv, func(r *http.Request) {
				*r = *r.WithContext(local)
				r.Host = big
				r.Header.Set("Origin", "http://evil.example") // others may come by any name
			})
			is.Equal(status, http.StatusForbidden)
			is.True(len(body) < kilobyte)
		}},
		"calls that fail": {"handler failed", func(t *testing.T, is *is.I, _ *typedrpc.Server, c *typedrpc.Conn, n int) {
			_, err := typedrpc.Call(t.Context(), c, fail, big[:kilobyte])
			is.True(err != nil)
		}},
		"calls that panic": {"handler panicked", func(t *testing.T, is *is.I, _ *typedrpc.Server, c *typedrpc.Conn, n int) {
			_, err := typedrpc.Call(t.Context(), c, fall, big[:kilobyte])
			is.True(err != nil)
		}},
		"notifications": {"notification refused", func(t *testing.T, is *is.I, _ *typedrpc.Server, c *typedrpc.Conn, n int) {
			is.NoErr(typedrpc.Notify(t.Context(), c, note, big[:kilobyte]))
		}},
		"names for a fallback": {"handler failed", func(t *testing.T, is *is.I, _ *typedrpc.Server, c *typedrpc.Conn, n int) {
			other := typedrpc.NewMethod[string, string](fmt.Sprint("logs.other", n, big[:200]))
			_, err := typedrpc.Call(t.Context(), c, other, "")
			is.True(err != nil)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				var log lab.Logs
				srv := &typedrpc.Server{Mux: mux(), Logger: log.Logger()}
				client, _ := lab.Over{}.Connect(t, srv, nil)
				for n := range times { // in two seconds
					attack.run(t, is, srv, client, n)
					time.Sleep(10 * time.Millisecond)
				}
				synctest.Wait()
				got := lines(is, &log, 20<<10)
				is.Equal(len(got), 2)
				is.True(strings.Contains(got[0], attack.message))
				is.True(strings.Contains(got[0], "bytes cut") || name == "names for a fallback")
				is.True(strings.Contains(got[1], "omitted=99"))
				time.Sleep(time.Hour)
				got = lines(is, &log, 20<<10)
				is.Equal(len(got), 3)
				is.True(strings.Contains(got[2], "omitted=99"))
				is.True(strings.Contains(got[2], attack.message))
			})
		})
	}
}

// TestLogs_ofServers is the other way: a server that calls its client.
func TestLogs_ofServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		fail := typedrpc.NewMethod[string, string]("logs.fail")
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, fail, func(_ context.Context, s string) (string, error) { return "", errors.New(s) })
		var log lab.Logs
		_, server := lab.Over{}.Connect(t, &typedrpc.Server{}, &typedrpc.DialOptions{Mux: mux, Logger: log.Logger()})
		for range 100 {
			_, err := typedrpc.Call(t.Context(), server, fail, strings.Repeat("x", 4000))
			is.True(err != nil)
		}
		is.Equal(len(lines(is, &log, 1000)), 1)
	})
}

// TestLogs_authentication has peers choose what the sign-in fails with.
func TestLogs_authentication(t *testing.T) {
	testkit.Bubble(t, "of strangers", func(t *testing.T, is *is.I) {
		var log lab.Logs
		srv := &typedrpc.Server{
			Logger: log.Logger(),
			SignIn: signIn.Verify(func(_ context.Context, r *http.Request, _ *login) (id typedrpc.Identity, g grant, err error) {
				return id, g, errors.New(r.Header.Get("X"))
			}),
		}
		for range 100 {
			status, body := upgrade(srv, func(r *http.Request) { r.Header.Set("X", strings.Repeat("x", 50<<10)) })
			is.Equal(status, http.StatusUnauthorized)
			is.True(len(body) < 100)
		}
		is.Equal(len(lines(is, &log, 1000)), 1)
	})
}

// TestLogs_misconfigured is a server that fails every request.
func TestLogs_misconfigured(t *testing.T) {
	testkit.Bubble(t, "once", func(t *testing.T, is *is.I) {
		var log lab.Logs
		srv := &typedrpc.Server{Logger: log.Logger(), MaxKept: -1}
		for range 100 {
			status, _ := upgrade(srv, func(*http.Request) {})
			is.Equal(status, http.StatusInternalServerError)
		}
		is.Equal(len(lines(is, &log, 1000)), 1)
	})
}

// TestLogs_upgradeFailed has the WebSocket library quote a header, to the peer and to
// the log.
func TestLogs_upgradeFailed(t *testing.T) {
	is := is.New(t)
	var log lab.Logs
	url := serve(t, &typedrpc.Server{Logger: log.Logger()})
	for _, header := range []string{"Sec-WebSocket-Key", "Sec-WebSocket-Version"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		is.NoErr(err)
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "websocket")
		r.Header.Set("Sec-WebSocket-Version", "13")
		r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
		r.Header.Set(header, strings.Repeat("\\", 50<<10))
		resp, err := http.DefaultClient.Do(r)
		is.NoErr(err)
		body, err := io.ReadAll(resp.Body)
		is.NoErr(err)
		resp.Body.Close()
		is.True(resp.StatusCode >= 400)
		is.True(len(body) < 400)
		is.True(strings.Contains(string(body), "bytes cut"))
	}
	is.Equal(len(lines(is, &log, 2000)), 1)
}

// TestLogs_upgradeWithoutItsHeaders sends what a proxy might have left of an upgrade:
// nothing of it is quoted, and there is a line a second.
func TestLogs_upgradeWithoutItsHeaders(t *testing.T) {
	testkit.Bubble(t, "once", func(t *testing.T, is *is.I) {
		var log lab.Logs
		srv := &typedrpc.Server{Logger: log.Logger()}
		for _, header := range []string{"Connection", "Upgrade"} {
			for range 50 {
				status, body := upgrade(srv, func(r *http.Request) { r.Header.Set(header, strings.Repeat("\\", 500<<10)) })
				is.Equal(status, http.StatusUpgradeRequired)
				is.True(len(body) < 1000)
				is.True(!strings.Contains(body, "\\\\"))
			}
		}
		is.Equal(len(lines(is, &log, 1000)), 1)
		is.True(log.Has("upgrade without its headers"))
	})
}

// TestLogs_hub has a hub's own lines, which go to the default logger, bounded too.
func TestLogs_hub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var logged lab.Logs
		old := log.Writer()
		log.SetOutput(&logged)
		defer log.SetOutput(old)
		hub := &topic.Hub{Broker: panicBroker{(&nastyBroker{}).client()}}
		srv := lab.TopicServer(func(m *typedrpc.Mux) { topic.Handle(m, hub, lab.TopicNews, topic.Everybody) })
		c := lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{})
		for i := range 15 {
			s := lab.SubscribeTo(t.Context(), c, lab.TopicNews, fmt.Sprint(i), nil)
			time.Sleep(60 * time.Millisecond)
			s.Leave()
		}
		synctest.Wait()
		is.NoErr(hub.Close())
		is.Equal(strings.Count(logged.Text(), "broker panicked"), 1)
		time.Sleep(time.Minute)
		synctest.Wait()
		is.Equal(strings.Count(logged.Text(), "broker panicked"), 2)
		is.True(strings.Contains(logged.Text(), "omitted="))
	})
}

// TestLogs_presence has the broker's side of presence fail, which no client is told.
func TestLogs_presence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var logged lab.Logs
		old := log.Writer()
		log.SetOutput(&logged)
		defer log.SetOutput(old)
		far := &deafBroker{}
		hub := &topic.Hub{Broker: far}
		srv := lab.TopicServer(func(m *typedrpc.Mux) {
			topic.Handle(m, hub, lab.TopicNews, topic.Everybody)
		})
		c := lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{})
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for range topic.Watch(ctx, c, lab.TopicNews, "a") {
			}
		}()
		synctest.Wait()
		is.Equal(strings.Count(logged.Text(), "WARN typedrpc: the hub's broker did not take a notice of presence topic="+lab.TopicNews.Name()), 1)
		far.say("presence "+lab.TopicNews.Name()+" a", []byte(`{"join":["eve"]}`))
		is.Equal(strings.Count(logged.Text(), "WARN typedrpc: a notice of presence cannot be read topic="+lab.TopicNews.Name()), 1)
		cancel()
		synctest.Wait()
		is.NoErr(hub.Close())
	})
}

// deafBroker takes no messages, and says what it is told to.
type deafBroker struct {
	mu      sync.Mutex
	deliver map[string]func([]byte)
}

func (b *deafBroker) say(channel string, msg []byte) {
	b.mu.Lock()
	deliver := b.deliver[channel]
	b.mu.Unlock()
	deliver(msg)
}

func (b *deafBroker) Publish(context.Context, string, []byte) error { return errors.New("deaf") }

func (b *deafBroker) Subscribe(_ context.Context, channel string, deliver func([]byte)) (func(), error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.deliver == nil {
		b.deliver = map[string]func([]byte){}
	}
	b.deliver[channel] = deliver
	return func() {}, nil
}

func (b *deafBroker) Close() error { return nil }
