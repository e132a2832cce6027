package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/topic"
)

// spiteful is an error whose methods panic.
type spiteful struct{ where string }

func (s spiteful) Error() string {
	if s.where == "Error" {
		panic("Error of an error")
	}
	return "spiteful"
}

func (s spiteful) Unwrap() error {
	if s.where == "Unwrap" {
		panic("Unwrap of an error")
	}
	return nil
}

func (s spiteful) Is(error) bool {
	if s.where == "Is" {
		panic("Is of an error")
	}
	return false
}

func (s spiteful) As(any) bool {
	if s.where == "As" {
		panic("As of an error")
	}
	return false
}

// village is a server and its client, with room for what a row changes.
type village struct {
	*lab.Lab
	t    *testing.T
	town *lab.Town
	opts *typedrpc.DialOptions
	logs *lab.Logs
}

// dial connects, and the connection answers.
func (v *village) dial() *typedrpc.Conn {
	v.t.Helper()
	c := v.town.Dial(v.t, v.opts)
	v.works(c)
	return c
}

func (v *village) works(c *typedrpc.Conn) {
	v.t.Helper()
	if n, err := typedrpc.Call(v.t.Context(), c, lab.Echo, 5); n != 5 || err != nil {
		v.t.Errorf("the connection does not answer: %v", err)
	}
}

// everyEnd is a panic, and the end of the goroutine as t.FailNow does it.
var everyEnd = map[string]func(){
	"panic":  func() { panic("oops") },
	"Goexit": runtime.Goexit,
}

// The rows of the table "The program's code" in docs/design.md: whatever of it runs on a
// goroutine of the library's ends what it was asked for, and nothing else.
func TestNet_programsCode(t *testing.T) {
	rows := map[string]func(v *village, end func()){
		"OnConnect": func(v *village, end func()) {
			v.OnConnect = func(*typedrpc.Conn) { end() }
			c := v.dial()
			synctest.Wait()
			v.works(c)
			c.Close()
		},
		"OnDisconnect": func(v *village, end func()) {
			v.OnDisconnect = func(*typedrpc.Conn, error) { end() }
			v.dial().Close()
		},
		"OnDisconnect of a session without a link": func(v *village, end func()) {
			v.OnDisconnect = func(*typedrpc.Conn, error) { end() }
			v.opts.Limits.Grace = time.Second
			c := v.dial()
			v.town.Serve(nil)
			v.town.Cable().Cut()
			time.Sleep(time.Minute)
			c.Close()
		},
		"OnState": func(v *village, end func()) {
			told := 0
			v.opts.OnState = func(typedrpc.StateChange) { told++; end() }
			c := v.dial()
			v.town.Healed()
			v.works(c)
			c.Close()
			synctest.Wait()
			if told < 5 { // it is told of all that follows
				v.t.Errorf("OnState was called %d times", told)
			}
		},
		"Server.OnState": func(v *village, end func()) {
			told := 0
			v.OnState = func(*typedrpc.Conn, typedrpc.StateChange) { told++; end() }
			v.opts.Limits.Grace = time.Minute
			c := v.dial()
			for range 2 {
				v.town.Cable().Cut()
				time.Sleep(10 * time.Second)
				v.works(c)
			}
			c.Close()
			synctest.Wait()
			if told != 4 {
				v.t.Errorf("OnState was called %d times", told)
			}
		},
		"SignIn.Verify": func(v *village, end func()) {
			bad := true
			v.SignIn = lab.Sign.Verify(func(context.Context, *http.Request, *string) (typedrpc.Identity, int, error) {
				if bad {
					end()
				}
				return typedrpc.Identity{Subject: "ann"}, 1, nil
			})
			v.opts.SignIn = lab.Ann
			began := time.Now()
			_, err := v.town.TryDial(v.t.Context(), v.opts)
			if typedrpc.CodeOf(err) != typedrpc.Unauthenticated || time.Since(began) > 0 {
				v.t.Errorf("refused with %v after %v", err, time.Since(began))
			}
			bad = false
			c := v.dial()
			bad = true
			began = time.Now()
			if err := c.Reauthenticate(v.t.Context()); typedrpc.CodeOf(err) != typedrpc.Unauthenticated || time.Since(began) > 0 {
				v.t.Errorf("refreshed with %v after %v", err, time.Since(began))
			}
			bad = false
			if err := c.Reauthenticate(v.t.Context()); err != nil {
				v.t.Errorf("refreshed with %v", err)
			}
			c.Close()
		},
		"SignIn.Present": func(v *village, end func()) {
			bad := false
			v.SignIn = lab.Sign.Verify(func(context.Context, *http.Request, *string) (typedrpc.Identity, int, error) {
				return typedrpc.Identity{Subject: "ann"}, 1, nil
			})
			v.opts.SignIn = lab.Sign.Present(func(context.Context) (string, error) {
				if bad {
					bad = false
					end()
				}
				return "ann", nil
			})
			v.opts.Limits.Grace = -1
			c := v.dial()
			bad = true
			v.town.Healed()
			v.works(c)
			c.Close()
			bad = true
			if _, err := v.town.TryDial(v.t.Context(), v.opts); typedrpc.CodeOf(err) != typedrpc.Internal {
				v.t.Errorf("dialled with %v", err)
			}
		},
		"MapError":         func(v *village, end func()) { mapsErrors(v, end, lab.Echo) },
		"MapError, Serial": func(v *village, end func()) { mapsErrors(v, end, lab.LaneSerial) },
		"MapError, on what reads": func(v *village, end func()) {
			mapsErrors(v, end, typedrpc.NewMethod[int, int]("net.inline", typedrpc.Inline))
		},
		"OnRetry": func(v *village, end func()) {
			retries(v, func(c *typedrpc.Conn) typedrpc.Caller { return c }, func(context.Context, string, int, error) { end() })
		},
		"Pick, before another attempt": func(v *village, end func()) {
			retries(v, func(c *typedrpc.Conn) typedrpc.Caller {
				asked := 0
				return typedrpc.Pick(func(context.Context, string) (*typedrpc.Conn, error) {
					if asked++; asked > 1 {
						end()
					}
					return c, nil
				})
			}, nil)
		},
		"the data of a refusal": func(v *village, end func()) {
			refused := false
			v.SignIn = lab.Sign.Verify(func(context.Context, *http.Request, *string) (typedrpc.Identity, int, error) {
				if refused {
					return typedrpc.Identity{}, 0, fuse.Errorf(burning{end}, "not you")
				}
				return typedrpc.Identity{}, 1, nil
			})
			v.opts.SignIn = lab.Ann
			c := v.dial()
			refused = true
			for range 3 {
				began := time.Now()
				_, dialled := v.town.TryDial(v.t.Context(), v.opts)
				for _, err := range []error{c.Reauthenticate(v.t.Context()), dialled} {
					if typedrpc.CodeOf(err) != typedrpc.PermissionDenied || time.Since(began) > 0 {
						v.t.Errorf("refused with %v after %v", err, time.Since(began))
					}
				}
			}
			refused = false
			if err := c.Reauthenticate(v.t.Context()); err != nil {
				v.t.Errorf("refreshed with %v", err)
			}
			c.Close()
		},
		"an interceptor that waits for Broadcast": func(v *village, end func()) {
			broadcastBehind(v, func(c *typedrpc.Conn) typedrpc.Caller {
				return c.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
					end()
					return next(ctx, r)
				}}})
			})
		},
		"Pick that waits for Broadcast": func(v *village, end func()) {
			broadcastBehind(v, func(c *typedrpc.Conn) typedrpc.Caller {
				asked := 0
				return typedrpc.Pick(func(context.Context, string) (*typedrpc.Conn, error) {
					if asked++; asked > 1 {
						end()
					}
					return c, nil
				})
			})
		},
	}
	for row, do := range rows {
		for how, end := range everyEnd {
			t.Run(row+"/"+how, func(t *testing.T) {
				lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) { inVillage(t, d, func(v *village) { do(v, end) }) })
			})
		}
	}
}

func inVillage(t *testing.T, d typedrpc.Dialect, do func(v *village)) {
	l, logs := lab.New(), new(lab.Logs)
	v := &village{Lab: l, t: t, town: &lab.Town{Srv: l.Server}, logs: logs}
	l.Logger = logs.Logger()
	v.opts = &typedrpc.DialOptions{Dialect: d, Backoff: lab.Steady, Logger: logs.Logger()}
	do(v)
	if err := l.Shutdown(t.Context()); err != nil { // it does not wait for what ended
		t.Error(err)
	}
}

// burning is a fault's data whose encoding does what it is told to.
type burning struct{ end func() }

func (b burning) MarshalJSON() ([]byte, error) {
	if b.end != nil {
		b.end()
	}
	return []byte("1"), nil
}

func (*burning) UnmarshalJSON([]byte) error { return nil }

var fuse = typedrpc.NewFault[burning]("net.fuse", typedrpc.PermissionDenied)

// mapsErrors calls m, whose handler fails, more often than there are places. Nobody waits.
func mapsErrors(v *village, end func(), m typedrpc.Method[int, int]) {
	fails := m
	if m == lab.Echo {
		fails = typedrpc.NewMethod[int, int]("net.fails")
	}
	v.Limits.MaxCalls = 8
	v.MapError = func(context.Context, error) *typedrpc.Error { end(); return nil }
	typedrpc.Handle(v.Mux, fails, func(context.Context, int) (int, error) { return 0, errors.New("to be mapped") })
	c := v.dial()
	for range 20 {
		began := time.Now()
		_, err := typedrpc.Call(v.t.Context(), c, fails, 1)
		switch code := typedrpc.CodeOf(err); {
		case code == typedrpc.Internal && time.Since(began) == 0:
		case code == typedrpc.Unavailable && fails.Name() == "net.inline": // the session ended with what reads
		default:
			v.t.Errorf("failed with %v after %v", err, time.Since(began))
		}
		time.Sleep(time.Second) // where it ends, there is another session
		v.works(c)
	}
	c.Close()
}

// retries makes a call that fails, and then one of the program's functions.
func retries(v *village, caller func(c *typedrpc.Conn) typedrpc.Caller, told func(context.Context, string, int, error)) {
	typedrpc.Handle(v.Mux, retryRead, func(context.Context, struct{}) (int, error) { return 0, typedrpc.Unavailable })
	c := v.dial()
	at := func() typedrpc.Caller {
		return caller(c).With(typedrpc.CallOptions{Retry: &typedrpc.RetryPolicy{OnRetry: told}})
	}
	began := time.Now()
	_, called := typedrpc.Call(v.t.Context(), at(), retryRead, struct{}{})
	_, awaited := typedrpc.Go(v.t.Context(), at(), retryRead, struct{}{}).Await(v.t.Context())
	for _, err := range []error{called, awaited} {
		if typedrpc.CodeOf(err) != typedrpc.Internal || time.Since(began) > time.Second {
			v.t.Errorf("failed with %v after %v", err, time.Since(began))
		}
	}
	v.works(c)
	c.Close()
}

// broadcastBehind broadcasts to a connection that is behind, so that the wait for it is
// on a goroutine of the library's.
func broadcastBehind(v *village, caller func(c *typedrpc.Conn) typedrpc.Caller) {
	hold := make(chan struct{})
	note := typedrpc.NewNotification[string]("net.note")
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, note, func(context.Context, string) error { <-hold; return nil })
	v.opts.Mux = mux
	conns := make(chan *typedrpc.Conn, 2)
	v.OnConnect = func(c *typedrpc.Conn) { conns <- c }
	c := v.dial()
	server := <-conns
	ctx, cancel := context.WithTimeout(v.t.Context(), time.Second)
	defer cancel()
	for typedrpc.Notify(ctx, server, note, strings.Repeat("x", 10_000)) == nil {
	}
	result := make(chan error, 1)
	one := func(yield func(typedrpc.Caller) bool) { yield(caller(server)) }
	go func() { result <- typedrpc.Broadcast(context.Background(), one, note, strings.Repeat("x", 10_000)) }()
	synctest.Wait()
	close(hold)
	if err := <-result; !errors.Is(err, typedrpc.Internal) {
		v.t.Errorf("Broadcast returned %v", err)
	}
	v.works(c)
	c.Close()
}

// The methods of errors are the program's code as well, wherever somebody looks into one.
func TestNet_methodsOfErrors(t *testing.T) {
	for _, where := range []string{"Error", "Unwrap", "Is", "As"} {
		for _, wrapped := range []bool{false, true} {
			err := error(spiteful{where})
			if wrapped {
				err = fmt.Errorf("wrapped: %w", err)
			}
			t.Run(fmt.Sprintf("%s/wrapped=%v", where, wrapped), func(t *testing.T) {
				lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) { inVillage(t, d, func(v *village) { spite(v, err) }) })
			})
		}
	}
}

func spite(v *village, spiteful error) {
	bad := true
	fails := typedrpc.NewMethod[int, int]("net.fails")
	note := typedrpc.NewNotification[int]("net.note")
	items := typedrpc.NewServerStream[int, int]("net.items")
	typedrpc.Handle(v.Mux, fails, func(context.Context, int) (int, error) { return 0, spiteful })
	typedrpc.Handle(v.Mux, note, func(context.Context, int) error { return spiteful })
	typedrpc.Handle(v.Mux, items, func(context.Context, int, func(int) error) error { return spiteful })
	v.SignIn = lab.Sign.Verify(func(context.Context, *http.Request, *string) (typedrpc.Identity, int, error) {
		if bad {
			return typedrpc.Identity{}, 0, spiteful
		}
		return typedrpc.Identity{}, 1, nil
	})
	refused := true
	v.opts.SignIn = lab.Sign.Present(func(context.Context) (string, error) {
		if refused {
			return "", spiteful
		}
		return "ann", nil
	})
	failed := func(what string, err error) {
		v.t.Helper()
		if err == nil {
			v.t.Errorf("%s did not fail", what)
		}
	}
	_, err := v.town.TryDial(v.t.Context(), v.opts)
	failed("Present", err)
	refused = false
	_, err = v.town.TryDial(v.t.Context(), v.opts)
	failed("Verify", err)
	bad = false
	c := v.dial()
	defer c.Close()
	_, err = typedrpc.Call(v.t.Context(), c, fails, 1)
	failed("a call", err)
	if err := typedrpc.Notify(v.t.Context(), c, note, 1); err != nil {
		v.t.Error(err)
	}
	for _, err = range typedrpc.Receive(v.t.Context(), c, items, 1) {
	}
	failed("a stream", err)
	bad = true
	failed("a refresh", c.Reauthenticate(v.t.Context()))
	refused = true
	failed("a refresh", c.Reauthenticate(v.t.Context()))
	passes := typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{func(context.Context, *typedrpc.Request, typedrpc.RawHandler) (typedrpc.Raw, error) {
		return nil, spiteful
	}}}
	_, err = typedrpc.Go(v.t.Context(), c.With(passes), lab.Echo, 1).Await(v.t.Context())
	failed("a future", err)
	bad, refused = false, false
	v.works(c)
}

// A logger, and whatever writes itself for it.
func TestNet_loggers(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		inVillage(t, d, func(v *village) {
			v.Logger = slog.New(badLog{})
			v.opts.Logger = slog.New(badLog{})
			panics := typedrpc.NewMethod[int, int]("net.panics")
			typedrpc.Handle(v.Mux, panics, func(context.Context, int) (int, error) { panic(spiteful{"Error"}) })
			c := v.dial()
			defer c.Close()
			_, err := typedrpc.Call(t.Context(), c, panics, 1)
			if typedrpc.CodeOf(err) != typedrpc.Internal {
				t.Error(err)
			}
			v.works(c)
		})
	})
}

type badLog struct{}

func (badLog) Enabled(context.Context, slog.Level) bool  { return true }
func (badLog) Handle(context.Context, slog.Record) error { panic("a log") }
func (badLog) WithAttrs([]slog.Attr) slog.Handler        { panic("a log") }
func (badLog) WithGroup(string) slog.Handler             { panic("a log") }

// transport is the program's part of a dial.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestNet_httpClient(t *testing.T) {
	for how, end := range everyEnd {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				logs := new(lab.Logs)
				client := &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) { end(); return nil, nil })}
				_, err := typedrpc.Dial(t.Context(), "ws://nowhere/", &typedrpc.DialOptions{HTTPClient: client, Logger: logs.Logger()})
				is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable)
				is.True(strings.Contains(err.Error(), "the HTTP client "))
			})
		})
	}
}

// A broker's functions, on whatever goroutine a hub calls them.
func TestNet_broker(t *testing.T) {
	for how, end := range everyEnd {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inVillage(t, typedrpc.Binary, func(v *village) {
					broker := &badBroker{end: end}
					hub := &topic.Hub{Broker: broker}
					news := topic.New[int]("net.news", topic.WithPresence)
					topic.Handle(v.Mux, hub, news, topic.Everybody)
					c := v.dial()
					defer c.Close()
					for n := range 5 { // each has its notices of presence, and its room's end
						ctx, cancel := context.WithTimeout(t.Context(), time.Second)
						for range topic.Subscribe(ctx, c, news, "a") {
						}
						cancel()
						synctest.Wait()
						if told, left := broker.told.Load(), broker.left.Load(); told <= int64(n) || left <= int64(n) {
							t.Errorf("the broker was told %d times, and left %d times, after %d subscriptions", told, left, n+1)
						}
					}
					v.works(c)
					if err := hub.Close(); err != nil {
						t.Error(err)
					}
				})
			})
		})
	}
}

type badBroker struct {
	end        func()
	told, left atomic.Int64
}

func (b *badBroker) Publish(context.Context, string, []byte) error {
	b.told.Add(1)
	b.end()
	return nil
}

func (b *badBroker) Subscribe(context.Context, string, func([]byte)) (func(), error) {
	return func() {
		b.left.Add(1)
		b.end()
	}, nil
}

func (*badBroker) Close() error { return nil }

// allow, and a panic in what a topic's message is made of.
func TestNet_allow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inVillage(t, typedrpc.Binary, func(v *village) {
			hub := &topic.Hub{}
			defer hub.Close()
			news := topic.New[int]("net.news")
			topic.Handle(v.Mux, hub, news, func(context.Context, topic.Access) error { panic("allow") })
			c := v.dial()
			defer c.Close()
			var err error
			for _, err = range topic.Subscribe(t.Context(), c, news, "a") {
			}
			if typedrpc.CodeOf(err) != typedrpc.Internal {
				t.Error(err)
			}
			v.works(c)
		})
	})
}
