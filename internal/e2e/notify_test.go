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
}

func (l *levels) Enabled(context.Context, slog.Level) bool { return true }

func (l *levels) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen == nil {
		l.seen = map[slog.Level]int{}
	}
	l.seen[r.Level]++
	return nil
}

func (l *levels) WithAttrs([]slog.Attr) slog.Handler { return l }

func (l *levels) WithGroup(string) slog.Handler { return l }

func (l *levels) count(at slog.Level) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen[at]
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

// A peer could fill the log with warnings about notifications that it made
// undecodable.
func TestNotify_whatThePeerDidWrongIsLoggedAtDebug(t *testing.T) {
	everyDialect(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		var log levels
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, typedrpc.NewNotification[int]("number"), func(context.Context, int) error { t.Error("the handler ran"); return nil })
		typedrpc.Handle(mux, typedrpc.NewNotification[string]("short", typedrpc.MaxSize(10)), func(context.Context, string) error { t.Error("the handler ran"); return nil })
		typedrpc.Handle(mux, typedrpc.NewNotification[string]("panics"), func(context.Context, string) error { panic("boom") })
		c, _, err := typedrpctest.Dial(&typedrpc.Server{Mux: mux, Logger: slog.New(&log)}, &typedrpc.DialOptions{Dialect: d})
		is.NoErr(err)
		defer c.Close()
		for _, name := range []string{"number", "short", "nobody.listens"} {
			is.NoErr(typedrpc.Notify(t.Context(), c, typedrpc.NewNotification[string](name), "not a number, and too long"))
		}
		synctest.Wait()
		is.Equal(log.count(slog.LevelDebug), 3)
		is.Equal(len(log.seen), 1) // at no other level
		is.NoErr(typedrpc.Notify(t.Context(), c, typedrpc.NewNotification[string]("panics"), "x"))
		synctest.Wait()
		is.Equal(log.count(slog.LevelError), 1) // our own mistakes are loud
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
