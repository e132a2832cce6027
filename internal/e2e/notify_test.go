package e2e_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
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
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// everyDialect runs a test in a bubble for each dialect.
func everyDialect(t *testing.T, test func(t *testing.T, d typedrpc.Dialect)) {
	t.Helper()
	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text, typedrpc.JSONRPC} {
		t.Run([...]string{"binary", "jsonrpc", "plain"}[d], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, d) })
		})
	}
}

// levels is a log that counts its lines.
type levels struct {
	mu   sync.Mutex
	seen map[slog.Level]int
	all  []string // level and message
}

func (l *levels) Enabled(context.Context, slog.Level) bool { return true }

func (l *levels) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen == nil {
		l.seen = map[slog.Level]int{}
	}
	l.seen[r.Level]++
	l.all = append(l.all, r.Level.String()+" "+r.Message)
	return nil
}

func (l *levels) WithAttrs([]slog.Attr) slog.Handler { return l }

func (l *levels) WithGroup(string) slog.Handler { return l }

func (l *levels) count(at slog.Level) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen[at]
}

func (l *levels) messages() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all)
}

// Metadata of notifications counted nowhere: a peer could queue 16 KiB for each
// empty one.
func TestNotify_metadataCountsInTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		stuck := typedrpc.NewNotification[int]("stuck")
		release := make(chan struct{})
		l := lab.New()
		typedrpc.Handle(l.Mux, stuck, func(context.Context, int) error { <-release; return nil })
		c, _, err := typedrpctest.Dial(l.Server, nil)
		is.NoErr(err)
		defer c.Close()
		heavy := c.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"k": strings.Repeat("x", 15<<10)}})
		sent := 0
		for err == nil {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err = typedrpc.Notify(ctx, heavy, stuck, 1); err == nil {
				sent++
			}
			cancel()
		}
		is.True(errors.Is(err, typedrpc.DeadlineExceeded))
		is.Equal(sent, 64/15)
		close(release)
		for range 100 { // all of it is credited
			is.NoErr(typedrpc.Notify(t.Context(), heavy, stuck, 1))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		l.Limits = typedrpc.Limits{Window: 4096, MaxMessage: 1024}
		release := make(chan struct{})
		defer close(release)
		typedrpc.Handle(l.Mux, typedrpc.NewNotification[int]("stuck"), func(context.Context, int) error { <-release; return nil })
		p, err := testkit.Join(l.Server, testkit.BinaryProtocol)
		is.NoErr(err)
		_, err = p.Hello()
		is.NoErr(err)
		f := wire.Frame{Type: wire.Notify, Method: "stuck", Payload: []byte("1"), Meta: map[string]string{"k": strings.Repeat("x", 999)}}
		for range (2*4096 + 1024) / (1000 + 1 + testkit.MessageOverhead) {
			is.NoErr(p.Send(f))
		}
		synctest.Wait()
		is.Equal(hook.Server(l.Server).Links, 1)
		is.NoErr(p.Send(f))
		is.Equal(p.CloseCode(), session.CloseFlood)
	})
}

// With interceptors a Broadcast waited for each client in turn, and without
// them for the slow ones one after another.
func TestBroadcast_slowClientsDelayNobody(t *testing.T) {
	pass := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		return next(ctx, r)
	}
	tag := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		r.Metadata.Set("trace", strings.Repeat("x", 10<<10))
		return next(ctx, r)
	}
	for name, tt := range map[string]struct {
		interceptors   []typedrpc.Interceptor
		filler, length int // a length that does not fit behind the filler
	}{
		"bare":        {nil, 50 << 10, 15 << 10},
		"intercepted": {[]typedrpc.Interceptor{pass}, 50 << 10, 15 << 10},
		"tagged":      {[]typedrpc.Interceptor{tag}, 40 << 10, 5 << 10}, // only its metadata does not
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				news := typedrpc.NewNotification[string]("news")
				l := lab.New()
				l.OutgoingInterceptors = tt.interceptors
				began := time.Now()
				took := make([]atomic.Int64, 3)
				holds := []chan struct{}{make(chan struct{}), make(chan struct{}), make(chan struct{})}
				var conns []*typedrpc.Conn
				for i, hold := range holds {
					mux := typedrpc.NewMux()
					typedrpc.Handle(mux, news, func(_ context.Context, s string) error {
						<-hold
						if len(s) == tt.length {
							took[i].Store(int64(time.Since(began)))
						}
						return nil
					})
					c, s, err := typedrpctest.Dial(l.Server, &typedrpc.DialOptions{Mux: mux})
					is.NoErr(err)
					defer c.Close()
					conns = append(conns, s)
				}
				defer close(holds[0])
				close(holds[1])
				for _, i := range []int{0, 2} {
					is.NoErr(typedrpc.Notify(t.Context(), conns[i], news, strings.Repeat("x", tt.filler)))
				}
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				time.AfterFunc(time.Second, func() { close(holds[2]) })
				err := typedrpc.Broadcast(ctx, slices.Values(conns), news, strings.Repeat("y", tt.length))
				is.True(errors.Is(err, typedrpc.DeadlineExceeded))          // the first client
				is.Equal(time.Since(began), 10*time.Second)                 // and nobody else
				is.Equal(took[0].Load(), int64(0))                          // never
				is.Equal(took[1].Load(), int64(0))                          // at once
				is.Equal(took[2].Load(), int64(time.Second))                // as soon as it could
				is.True(!strings.Contains(err.Error(), "\n"))               // one error
				is.NoErr(typedrpc.Notify(t.Context(), conns[1], news, "z")) // the connection is well
			})
		})
	}
}

// A notification that is lost at its receiver, which nobody else is told, is a
// warning there: whoever that is, and in the default log too.
func TestNotify_whatIsLostIsAWarning(t *testing.T) {
	mux := func(t *testing.T) *typedrpc.Mux {
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, typedrpc.NewNotification[int]("number"), func(context.Context, int) error { t.Error("the handler ran"); return nil })
		typedrpc.Handle(mux, typedrpc.NewNotification[string]("short", typedrpc.MaxSize(10)), func(context.Context, string) error { t.Error("the handler ran"); return nil })
		typedrpc.Handle(mux, typedrpc.NewNotification[picky]("picky"), func(context.Context, picky) error { t.Error("the handler ran"); return nil })
		typedrpc.Handle(mux, typedrpc.NewNotification[string]("panics"), func(context.Context, string) error { panic("boom") })
		typedrpc.Handle(mux, typedrpc.NewServerStream[string, int]("stream"), func(context.Context, string, func(int) error) error { return nil })
		return mux
	}
	const refused, dropped = "typedrpc: notification refused", "typedrpc: notification dropped: nobody handles it"
	check := func(t *testing.T, log *levels, send func(name string)) {
		is := is.New(t)
		for _, tt := range []struct{ name, message string }{
			{"number", refused}, {"short", refused}, {"picky", refused}, {"nobody.listens", dropped}, {"stream", dropped},
		} {
			before := len(log.messages())
			send(tt.name)
			synctest.Wait()
			is.Equal(log.messages()[before:], []string{"WARN " + tt.message})
			time.Sleep(time.Minute) // nobody is left out
		}
		before := len(log.messages())
		send("$/setTrace") // of language servers
		synctest.Wait()
		is.Equal(len(log.messages()), before)
		send("panics")
		synctest.Wait()
		is.Equal(log.count(slog.LevelError), 1) // our own mistakes are loud
	}
	notify := func(t *testing.T, c *typedrpc.Conn) func(name string) {
		return func(name string) {
			is := is.New(t)
			is.NoErr(typedrpc.Notify(t.Context(), c, typedrpc.NewNotification[string](name), "not a number, and too long"))
		}
	}
	everyDialect(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		var atServer, atClient levels
		c, s, err := typedrpctest.Dial(&typedrpc.Server{Mux: mux(t), Logger: slog.New(&atServer)},
			&typedrpc.DialOptions{Dialect: d, Mux: mux(t), Logger: slog.New(&atClient)})
		is.NoErr(err)
		defer c.Close()
		check(t, &atServer, notify(t, c))
		check(t, &atClient, notify(t, s))
	})
	testkit.Bubble(t, "over POST", func(t *testing.T, is *is.I) {
		var log levels
		srv := &typedrpc.Server{Mux: mux(t), Logger: slog.New(&log)}
		check(t, &log, func(name string) {
			r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{"jsonrpc":"2.0","method":"`+name+`","params":["not a number, and too long"]}`))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			srv.ServeHTTP(w, r)
			is.Equal(w.Code, http.StatusNoContent)
		})
	})
	testkit.Bubble(t, "in the default log, once a second", func(t *testing.T, is *is.I) {
		var log lab.Logs
		old := slog.Default()
		slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil))) // as strict as it is by default
		defer slog.SetDefault(old)
		c, _, err := typedrpctest.Dial(&typedrpc.Server{}, nil)
		is.NoErr(err)
		defer c.Close()
		for range 300 { // in three seconds
			notify(t, c)("nobody.listens")
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		is.Equal(len(lines(is, &log, 300)), 3)
	})
	testkit.Bubble(t, "left to others by all", func(t *testing.T, is *is.I) {
		var log levels
		mux := typedrpc.NewMux()
		mux.HandleFallback(func(_ context.Context, r *typedrpc.Request) (typedrpc.Raw, error) {
			if r.Method == "mine" {
				return nil, nil
			}
			return nil, typedrpc.Unimplemented
		})
		note := typedrpc.NewNotification[string]("two")
		var second error
		typedrpc.Handle(mux, note, func(context.Context, string) error { return typedrpc.Unimplemented })
		typedrpc.Handle(mux, note, func(context.Context, string) error { return second })
		c, _, err := typedrpctest.Dial(&typedrpc.Server{Mux: mux, Logger: slog.New(&log)}, nil)
		is.NoErr(err)
		defer c.Close()
		notify(t, c)("$/setTrace")
		notify(t, c)("mine")
		notify(t, c)("two")
		synctest.Wait()
		is.Equal(len(log.messages()), 0)
		notify(t, c)("other")
		synctest.Wait()
		is.Equal(log.messages(), []string{"WARN " + dropped})
		time.Sleep(time.Minute)
		second = typedrpc.Unimplemented
		notify(t, c)("two")
		synctest.Wait()
		is.Equal(log.messages(), []string{"WARN " + dropped, "WARN " + dropped})
	})
}

// The first requests wrote the configuration while Check, or one another, was
// reading it, and the text for visitors named no codec. For -race.
func TestServer_firstRequestsTogether(t *testing.T) {
	is := is.New(t)
	srv := lab.New().Server
	var wg sync.WaitGroup
	texts := make([]string, 4)
	for i := range texts {
		wg.Go(func() {
			w := httptest.NewRecorder()
			srv.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
			texts[i] = w.Body.String()
		})
		wg.Go(func() {
			if err := srv.Check(); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			c, _, err := typedrpctest.Dial(srv, nil)
			if err != nil {
				t.Error(err)
				return
			}
			c.Close()
		})
	}
	wg.Wait()
	for _, text := range texts {
		is.True(strings.Contains(text, testkit.BinaryProtocol))
		is.True(strings.Contains(text, testkit.HelloProtocol))
	}
}
