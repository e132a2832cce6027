package typedrpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// everyDialect runs a test in a bubble for each dialect.
func everyDialect(t *testing.T, test func(t *testing.T, d Dialect)) {
	t.Helper()
	for _, d := range []Dialect{Binary, JSONRPC, PlainJSONRPC} {
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
func (l *levels) WithGroup(string) slog.Handler      { return l }

func (l *levels) count(at slog.Level) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen[at]
}

var sign = NewMethod[Empty, Empty]("sign")

// An Identity's context that derived from Authenticate's ended with the
// authentication, and with it the connection.
func TestIdentity_contextOfAuthenticateLivesOn(t *testing.T) {
	everyDialect(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		type key struct{}
		who := NewMethod[Empty, string]("who")
		l := newLab()
		var given context.Context
		l.Authenticate = Authenticate(sign, func(ctx context.Context, _ *http.Request, _ Empty) (Identity, Empty, error) {
			given = ctx
			return Identity{Subject: "me", Context: context.WithValue(ctx, key{}, "me")}, Empty{}, nil
		})
		Handle(l.Mux, who, func(ctx context.Context, _ Empty) (string, error) { return ctx.Value(key{}).(string), nil })
		c, s, err := dialPipe(t.Context(), l.Server, &DialOptions{Dialect: d})
		is.NoErr(err)
		defer c.Close()
		time.Sleep(time.Minute) // longer than a handshake may take
		name, err := Call(t.Context(), c, who, Empty{})
		is.NoErr(err)
		is.Equal(name, "me")
		is.NoErr(s.Err())
		is.NoErr(c.Close())
		<-s.Done()
		synctest.Wait()
		is.True(d == PlainJSONRPC || given.Err() != nil) // it ends with the connection
	})
}

// Metadata of notifications counted nowhere: a peer could queue 16 KiB for each
// empty one.
func TestNotify_metadataCountsInTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		stuck := NewNotification[int]("stuck")
		release := make(chan struct{})
		l := newLab()
		HandleNotification(l.Mux, stuck, func(context.Context, int) { <-release })
		c, _, err := dialPipe(t.Context(), l.Server, nil)
		is.NoErr(err)
		defer c.Close()
		heavy := c.With(CallOptions{Metadata: Metadata{"k": strings.Repeat("x", 15<<10)}})
		sent := 0
		for err == nil {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err = Notify(ctx, heavy, stuck, 1); err == nil {
				sent++
			}
			cancel()
		}
		is.True(errors.Is(err, DeadlineExceeded))
		is.Equal(sent, 64/15)
		close(release)
		for range 100 { // all of it is credited
			is.NoErr(Notify(t.Context(), heavy, stuck, 1))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		l.Limits = Limits{Window: 4096, MaxMessage: 1024}
		release := make(chan struct{})
		defer close(release)
		HandleNotification(l.Mux, NewNotification[int]("stuck"), func(context.Context, int) { <-release })
		p, err := join(l.Server, codecProtocol(JSON))
		is.NoErr(err)
		_, err = p.hello()
		is.NoErr(err)
		f := wire.Frame{Type: wire.Notify, Method: "stuck", Payload: []byte("1"), Meta: map[string]string{"k": strings.Repeat("x", 999)}}
		for range (2*4096 + 1024) / (1000 + 1 + messageOverhead) {
			is.NoErr(p.send(f))
		}
		synctest.Wait()
		l.mu.Lock()
		open := len(l.links)
		l.mu.Unlock()
		is.Equal(open, 1)
		is.NoErr(p.send(f))
		is.Equal(p.closeCode(), session.CloseFlood)
	})
}

// A GOAWAY that was queued during the handshake went before WELCOME, which the
// explosive is data of a fault that cannot be encoded.
type explosive struct{}

func (explosive) MarshalJSON() ([]byte, error) { panic("boom") }

var disaster = NewFault[explosive](NotFound, "disaster")

// The user's code that translates an error crashed the process when it panicked.
func TestHandle_errorThatPanics(t *testing.T) {
	everyDialect(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		for _, err := range []error{disaster.New(explosive{}), errors.New("to be mapped")} {
			var log levels
			f := &flaky{fails: 2, err: err}
			mux := NewMux()
			Handle(mux, retryWrite, f.handle)
			c, _, err := dialPipe(t.Context(), &Server{
				Mux: mux, Logger: slog.New(&log),
				MapError: func(context.Context, error) *Error { panic("no idea") },
			}, &DialOptions{Dialect: d})
			is.NoErr(err)
			defer c.Close()
			for range 2 {
				_, err = Call(t.Context(), c, retryWrite, Empty{})
				is.True(errors.Is(err, Internal))
				is.True(!strings.Contains(err.Error(), "boom") && !strings.Contains(err.Error(), "no idea"))
			}
			n, err := Call(t.Context(), c, retryWrite, Empty{})
			is.NoErr(err)
			is.Equal(n, 3)
			is.Equal(log.count(slog.LevelError), 2)
		}
	})
}

// So did the data of an error that refuses a peer.
func TestAuthenticate_errorThatPanics(t *testing.T) {
	everyDialect(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		l := newLab()
		l.Authenticate = Authenticate(sign, func(context.Context, *http.Request, Empty) (Identity, Empty, error) {
			return Identity{}, Empty{}, disaster.New(explosive{})
		})
		_, _, err := dialPipe(t.Context(), l.Server, &DialOptions{Dialect: d})
		is.True(err != nil)
		is.True(strings.Contains(err.Error(), "disaster"))
		is.True(d == PlainJSONRPC || errors.Is(err, NotFound)) // over HTTP the code is the status
	})
}

// A handler that ended its goroutine, as t.FailNow does, left its caller
// waiting, kept its place, and on the lane stopped all that came behind it.
func TestHandle_goexit(t *testing.T) {
	leave := NewMethod[Empty, Empty]("leave")
	leaveLane := NewMethod[Empty, Empty]("leave.lane", Serial)
	leaveNote := NewNotification[Empty]("leave.note")
	alive := NewMethod[int, int]("alive", Serial)
	pass := func(ctx context.Context, r *Request, next RawHandler) (Raw, error) { return next(ctx, r) }
	for name, mux := range map[string]func() *Mux{"bare": func() *Mux { return NewMux() }, "intercepted": func() *Mux { return NewMux(pass) }} {
		t.Run(name, func(t *testing.T) {
			everyDialect(t, func(t *testing.T, d Dialect) {
				is := is.New(t)
				l := newLab()
				l.Mux, l.Limits = mux(), Limits{MaxCalls: 1, Window: 100}
				exit := func(context.Context, Empty) (Empty, error) {
					runtime.Goexit()
					return Empty{}, nil
				}
				Handle(l.Mux, leave, exit)
				Handle(l.Mux, leaveLane, exit)
				HandleNotification(l.Mux, leaveNote, func(context.Context, Empty) { runtime.Goexit() })
				Handle(l.Mux, alive, func(_ context.Context, n int) (int, error) { return n, nil })
				c, _, err := dialPipe(t.Context(), l.Server, &DialOptions{Dialect: d})
				is.NoErr(err)
				defer c.Close()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				for i := range 5 {
					_, err = Call(ctx, c, leave, Empty{})
					is.True(errors.Is(err, Internal))
					_, err = Call(ctx, c, leaveLane, Empty{})
					is.True(errors.Is(err, Internal))
					is.NoErr(Notify(ctx, c, leaveNote, Empty{}))
					is.NoErr(Notify(ctx, c, leaveNote, Empty{})) // the window was given back
					n, err := Call(ctx, c, alive, i)
					is.NoErr(err)
					is.Equal(n, i)
				}
			})
		})
	}
}

// A peer that made calls and read no answer had as many run as it liked, each
// holding its reply.
func TestLimits_unreadRepliesStopNewCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		big := NewMethod[Empty, string]("big")
		l := newLab()
		l.Limits.MaxBuffered = 128 << 10
		var ran atomic.Int64
		Handle(l.Mux, big, func(context.Context, Empty) (string, error) {
			ran.Add(1)
			return strings.Repeat("x", 64<<10), nil
		})
		p, err := join(l.Server, codecProtocol(JSON))
		is.NoErr(err)
		defer p.t.Kill()
		_, err = p.hello()
		is.NoErr(err)
		const calls = 200
		for id := range uint64(calls) {
			is.NoErr(p.send(wire.Frame{Type: wire.Call, ID: id + 1, Method: "big"}))
			synctest.Wait()
		}
		is.True(ran.Load() < 20) // what the pipe and the writer hold, and twice 128 KiB
		for range calls {        // they begin as their predecessors' replies are read
			_, err = p.until(wire.Result)
			is.NoErr(err)
		}
		is.Equal(ran.Load(), int64(calls))
	})
}

// The answers that a batch had already did not count while one of its calls was
// still running.
func TestLimits_unfinishedBatchesStopNewCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		big := NewMethod[Empty, string]("big")
		l := newLab()
		l.Limits.MaxBuffered = 128 << 10
		all := make(chan struct{}) // have begun, before the first reply makes it crowded
		Handle(l.Mux, big, func(context.Context, Empty) (string, error) {
			<-all
			return strings.Repeat("x", 60_000), nil
		})
		p, err := join(l.Server, "")
		is.NoErr(err)
		defer p.t.Kill()
		const batch = `[{"jsonrpc":"2.0","id":3,"method":"lab.hang"},{"jsonrpc":"2.0","id":1,"method":"big"},{"jsonrpc":"2.0","id":2,"method":"big"}]`
		const single = `{"jsonrpc":"2.0","id":4,"method":"lab.echo","params":[7]}`
		for range 2 {
			is.NoErr(p.write([]byte(batch)))
			synctest.Wait()
		}
		close(all)
		synctest.Wait()
		is.NoErr(p.write([]byte("[" + single + "]")))
		f, err := p.next()
		is.NoErr(err)
		is.Equal(f.Type, wire.Fail) // a batch cannot wait for itself
		is.Equal(Code(f.Code), ResourceExhausted)
		is.NoErr(p.write([]byte(single)))
		synctest.Wait()
		close(l.release)
		began := false
		for range 2*3 + 1 { // in any order
			f, err = p.next()
			is.NoErr(err)
			is.Equal(f.Type, wire.Result)
			began = began || string(f.Payload) == "7"
		}
		is.True(began) // when there was room
	})
}

// With interceptors a Broadcast waited for each client in turn, and without
// them for the slow ones one after another.
func TestBroadcast_slowClientsDelayNobody(t *testing.T) {
	pass := func(ctx context.Context, r *Request, next RawHandler) (Raw, error) { return next(ctx, r) }
	tag := func(ctx context.Context, r *Request, next RawHandler) (Raw, error) {
		r.Metadata.Set("trace", strings.Repeat("x", 10<<10))
		return next(ctx, r)
	}
	for name, tt := range map[string]struct {
		interceptors   []Interceptor
		filler, length int // a length that does not fit behind the filler
	}{
		"bare":        {nil, 50 << 10, 15 << 10},
		"intercepted": {[]Interceptor{pass}, 50 << 10, 15 << 10},
		"tagged":      {[]Interceptor{tag}, 40 << 10, 5 << 10}, // only its metadata does not
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				news := NewNotification[string]("news")
				l := newLab()
				l.Interceptors = tt.interceptors
				began := time.Now()
				took := make([]atomic.Int64, 3)
				holds := []chan struct{}{make(chan struct{}), make(chan struct{}), make(chan struct{})}
				var conns []*Conn
				for i, hold := range holds {
					mux := NewMux()
					HandleNotification(mux, news, func(_ context.Context, s string) {
						<-hold
						if len(s) == tt.length {
							took[i].Store(int64(time.Since(began)))
						}
					})
					c, s, err := dialPipe(t.Context(), l.Server, &DialOptions{Mux: mux})
					is.NoErr(err)
					defer c.Close()
					conns = append(conns, s)
				}
				defer close(holds[0])
				close(holds[1])
				for _, i := range []int{0, 2} {
					is.NoErr(Notify(t.Context(), conns[i], news, strings.Repeat("x", tt.filler)))
				}
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				time.AfterFunc(time.Second, func() { close(holds[2]) })
				err := Broadcast(ctx, slices.Values(conns), news, strings.Repeat("y", tt.length))
				is.True(errors.Is(err, DeadlineExceeded))          // the first client
				is.Equal(time.Since(began), 10*time.Second)        // and nobody else
				is.Equal(took[0].Load(), int64(0))                 // never
				is.Equal(took[1].Load(), int64(0))                 // at once
				is.Equal(took[2].Load(), int64(time.Second))       // as soon as it could
				is.True(!strings.Contains(err.Error(), "\n"))      // one error
				is.NoErr(Notify(t.Context(), conns[1], news, "z")) // the connection is well
			})
		})
	}
}

// The first requests wrote the configuration while Check, or one another, was
// reading it, and the text for visitors named no codec. For -race.
func TestServer_firstRequestsTogether(t *testing.T) {
	is := is.New(t)
	srv := newLab().Server
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
			c, _, err := dialPipe(t.Context(), srv, nil)
			if err != nil {
				t.Error(err)
				return
			}
			c.Close()
		})
	}
	wg.Wait()
	for _, text := range texts {
		is.True(strings.Contains(text, codecProtocol(JSON)))
		is.True(strings.Contains(text, helloProtocol))
	}
}

// An error with code 0 crossed as it was, and CodeOf read it as no error.
func TestError_codeZeroIsUnknown(t *testing.T) {
	everyDialect(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		for _, failure := range []error{&Error{}, &Error{Message: "failed"}, fmt.Errorf("wrapped: %w", &Error{}), Code(0), errors.New("to be mapped")} {
			f := &flaky{fails: 1, err: failure}
			mux := NewMux()
			Handle(mux, retryWrite, f.handle)
			c, _, err := dialPipe(t.Context(), &Server{Mux: mux, MapError: func(context.Context, error) *Error { return &Error{} }}, &DialOptions{Dialect: d})
			is.NoErr(err)
			defer c.Close()
			_, err = Call(t.Context(), c, retryWrite, Empty{})
			is.True(err != nil)
			is.Equal(CodeOf(err), Unknown)
			is.Equal(outcomeOf(err), Answered)
			f0, _ := toWire(t.Context(), failure, JSON, func(context.Context, error) *Error { return &Error{} })
			is.Equal(Code(f0.Code), Unknown) // for peers that are not us
		}
	})
	synctest.Test(t, func(t *testing.T) { // also from a peer that is not us
		is := is.New(t)
		_, c := scripted(t, nil, func(_ int, p *wirePeer) {
			p.welcome()
			f, _ := p.until(wire.Call)
			p.send(wire.Frame{Type: wire.Fail, ID: f.ID, Message: "failed"})
			p.closeCode()
		})
		defer c.Close()
		_, err := Call(t.Context(), c, labEcho, 1)
		is.Equal(CodeOf(err), Unknown)
	})
}

// A peer could fill the log with warnings about notifications that it made
// undecodable.
func TestNotify_whatThePeerDidWrongIsLoggedAtDebug(t *testing.T) {
	everyDialect(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		var log levels
		mux := NewMux()
		HandleNotification(mux, NewNotification[int]("number"), func(context.Context, int) { t.Error("the handler ran") })
		HandleNotification(mux, NewNotification[string]("short", MaxSize(10)), func(context.Context, string) { t.Error("the handler ran") })
		HandleNotification(mux, NewNotification[string]("panics"), func(context.Context, string) { panic("boom") })
		c, _, err := dialPipe(t.Context(), &Server{Mux: mux, Logger: slog.New(&log)}, &DialOptions{Dialect: d})
		is.NoErr(err)
		defer c.Close()
		for _, name := range []string{"number", "short", "nobody.listens"} {
			is.NoErr(Notify(t.Context(), c, NewNotification[string](name), "not a number, and too long"))
		}
		synctest.Wait()
		is.Equal(log.count(slog.LevelDebug), 3)
		is.Equal(len(log.seen), 1) // at no other level
		is.NoErr(Notify(t.Context(), c, NewNotification[string]("panics"), "x"))
		synctest.Wait()
		is.Equal(log.count(slog.LevelError), 1) // our own mistakes are loud
	})
}

// A Mux that NewMux did not make crashed what it served.
func TestMux_zeroAnswersUnimplemented(t *testing.T) {
	everyDialect(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		for _, mux := range []*Mux{nil, {}, new(Mux).With()} {
			srv := &Server{Mux: mux}
			is.NoErr(srv.Check())
			c, s, err := dialPipe(t.Context(), srv, &DialOptions{Dialect: d, Mux: mux})
			is.NoErr(err)
			defer c.Close()
			for _, end := range []*Conn{c, s} {
				is.NoErr(Notify(t.Context(), end, labNote, 1))
				_, err = Call(t.Context(), end, labEcho, 1)
				is.True(errors.Is(err, Unimplemented))
			}
		}
	})
}
