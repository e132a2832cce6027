package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/replay"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/testkit"
)

// nobody is the API of connections that nobody calls on.
type nobody struct{ engine.Owner }

func (nobody) Face(e *status.Error) error { return e }

// world is a client and what it meets, and does.
type world struct {
	*Client
	began time.Time

	mu     sync.Mutex
	dialed []string         // addresses …
	times  []time.Duration  // … and when
	far    []link.Transport // of links that were made
	seen   []Change
	answer func(url string) error // of a dial; nil: there is a link
}

// newWorld makes a client of a plain server; change changes its options.
func newWorld(t *testing.T, change func(*Options)) *world {
	t.Helper()
	limits, err := flow.Limits{}.WithDefaults()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{began: time.Now(), answer: func(string) error { return nil }}
	o := Options{
		URL: "ws://a", Plain: true, Backoff: flow.Backoff{Min: time.Second, Max: time.Second, Factor: 1},
		Chosen:  func(string) {},
		Reply:   func(raw []byte) ([]byte, error) { return raw, nil },
		OnState: func(c Change) { w.mu.Lock(); defer w.mu.Unlock(); w.seen = append(w.seen, c) },
		Config: engine.Config{
			Limits: limits, Logger: slog.New(slog.DiscardHandler), Replays: replay.New(replay.Options{}),
			Detached: replay.NewDetached(limits.MaxCalls), Intern: func(name []byte) string { return string(name) },
		},
	}
	o.Connect = func(_ context.Context, url string, offers []string) (link.Transport, string, *http.Response, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.dialed, w.times = append(w.dialed, url), append(w.times, time.Since(w.began))
		if err := w.answer(url); err != nil {
			var u *UpgradeError
			if errors.As(err, &u) {
				return nil, "", &http.Response{StatusCode: u.Status}, io.EOF
			}
			return nil, "", nil, err
		}
		near, far := link.Pipe()
		w.far = append(w.far, far)
		return near, strings.Join(offers[:min(len(offers), 1)], ""), nil, nil
	}
	if change != nil {
		change(&o)
	}
	if w.Client, err = New(t.Context(), o, nobody{}); err != nil {
		t.Fatal(err)
	}
	return w
}

// fails is every dial's answer from now on.
func (w *world) fails(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = func(string) error { return err }
}

// states are what OnState was told since the last time, by letters.
func (w *world) states() (text string) {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.seen {
		text += fmt.Sprintf("%c%d ", "CLWX"[c.State], c.Attempt)
	}
	w.seen = nil
	return strings.TrimSpace(text)
}

// close ends the connection.
func (w *world) close() {
	w.conn.Close()
	<-w.conn.Done()
}

func TestClient_attemptsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w := newWorld(t, func(o *Options) { o.MaxAttempts = 3 })
		is.True(w.Run(t.Context()) == nil)
		is.Equal(w.states(), "C1 L0")
		is.Equal(w.State(), Connected)
		w.fails(io.ErrNoProgress)
		w.far[0].Kill()
		<-w.conn.Done()
		is.Equal(w.states(), "W1 C2 W2 C3 W3 C4 X0")
		is.Equal(w.State(), Closed)
		is.Equal(len(w.dialed), 4)
		is.True(errors.Is(w.conn.Err(), io.ErrNoProgress)) // the last one's
		is.True(w.ctx.Err() != nil)
	})
}

// Only a link that lived for long starts the backoff over.
func TestClient_livedLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w := newWorld(t, nil)
		is.True(w.Run(t.Context()) == nil)
		for i, lives := range []time.Duration{0, Lived - 1, Lived - 1, Lived, 0} {
			time.Sleep(w.times[i] + lives - time.Since(w.began))
			w.states()
			w.far[i].Kill()
			synctest.Wait()
			is.Equal(w.states(), []string{"W1", "W2", "W3", "W1", "W2"}[i])
			time.Sleep(time.Second)
			synctest.Wait()
		}
		w.close()
	})
}

func TestClient_rounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w := newWorld(t, func(o *Options) {
			o.URLs = []string{"ws://b", "ws://c"}
			o.Backoff, o.MaxAttempts = flow.Backoff{Min: time.Hour, Max: time.Hour, Factor: 1}, 1
		})
		is.True(w.Run(t.Context()) == nil)
		w.fails(io.EOF)
		w.far[0].Kill()
		<-w.conn.Done()
		is.Equal(len(w.dialed), 1+3) // all of them in one round
		is.Equal(w.times[1], w.times[3])
		is.Equal(w.states(), "C1 L0 W1 C2 C2 C2 X0")

		w = newWorld(t, func(o *Options) { o.URLs = []string{"ws://b", "ws://c"} })
		w.fails(answered(http.StatusForbidden))
		err := w.Run(t.Context())
		is.Equal(err.Code, status.PermissionDenied)
		is.Equal(len(w.dialed), 1) // the others would say the same

		w = newWorld(t, func(o *Options) { o.URLs = []string{"ws://b", "ws://c"} })
		ctx, cancel := context.WithCancel(t.Context())
		w.answer = func(string) error { cancel(); return io.EOF }
		err = w.Run(ctx)
		is.Equal(err.Code, status.Canceled)
		is.Equal(len(w.dialed), 1)
	})
}

// The program that dials decides itself whether to try again.
func TestClient_firstDialFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w := newWorld(t, nil)
		w.fails(io.EOF)
		err := w.Run(t.Context())
		is.Equal(err.Code, status.Unavailable)
		is.Equal(err.Outcome, status.NotSent)
		is.Equal(len(w.dialed), 1)
		is.Equal(w.states(), "C1 X0")
		is.True(errors.Is(err, w.conn.Err())) // the very one, that is no operation's
	})
}

func TestClient_reconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w := newWorld(t, func(o *Options) { o.Backoff = flow.Backoff{Min: 1000 * time.Hour, Max: 1000 * time.Hour, Factor: 1} })
		is.True(w.Run(t.Context()) == nil)
		began := time.Now()
		w.Reconnect()
		is.Equal(w.states(), "C1 L0 C2 L0") // without waiting
		w.far[1].Kill()
		is.Equal(w.states(), "W2")
		w.answer = func(string) error { w.Reconnect(); return nil } // once more, while it is dialled
		w.Reconnect()                                               // the wait ends
		is.Equal(w.states(), "C3 L0")
		w.far[2].Kill()
		is.Equal(w.states(), "W3") // what was asked for has been had
		is.True(time.Since(began) < time.Second)
		w.close() // ends the wait, too
		is.Equal(w.states(), "X0")
		is.True(time.Since(began) < 10*time.Second)
		is.Equal(len(w.dialed), 3)
	})
}

func TestNew_mistakes(t *testing.T) {
	is := is.New(t)
	_, err := New(t.Context(), Options{URL: "ws://a", URLs: []string{"a"}}, nobody{})
	is.True(err != nil)
}

func TestClient_choose(t *testing.T) {
	offers := []string{"typedrpc.v1.json", "typedrpc.v1.other", "typedrpc.jsonrpc"}
	for _, tt := range []struct {
		name, again string
		plain       bool
		hello       bool
		code        status.Code // of the first one, or the second; 0: neither
	}{
		{"typedrpc.v1.other", "typedrpc.v1.other", false, true, 0},
		{"typedrpc.jsonrpc", "typedrpc.jsonrpc", false, true, 0},
		{"typedrpc.v1.json", "typedrpc.v1.other", false, true, status.Internal},
		{"typedrpc.v1.json", "", false, true, status.Internal},
		{"", "", false, false, status.Unimplemented},
		{"jsonrpc", "", false, false, status.Internal}, // not offered
		{"jsonrpc", "jsonrpc", true, false, 0}, {"", "", true, false, 0},
		{"", "jsonrpc", true, false, status.Internal},
	} {
		t.Run(tt.name+" "+tt.again, func(t *testing.T) {
			is := is.New(t)
			var told []string
			w := newWorld(t, func(o *Options) {
				o.Plain, o.Offers = tt.plain, offers
				o.Chosen = func(name string) { told = append(told, name) }
			})
			hello, err := w.choose(tt.name)
			if err == nil {
				is.Equal(hello, tt.hello)
				is.Equal(len(told), 1)
				if !tt.plain {
					is.Equal(told[0], tt.name)
					is.Equal(w.o.Offers, []string{tt.name}) // the only one from now on
				}
				hello, err = w.choose(tt.again)
				is.Equal(len(told), 1)
			}
			is.Equal(err == nil, tt.code == 0)
			if err != nil {
				var e *status.Error
				is.True(errors.As(err, &e))
				is.Equal(e.Code, tt.code)
				return
			}
			is.Equal(hello, tt.hello)
		})
	}
}

func TestClient_credentials(t *testing.T) {
	own := status.Errorf(status.PermissionDenied, "locked")
	for _, tt := range []struct {
		name string
		ask  func(context.Context) ([]byte, int, error)
		code status.Code
		text string
	}{
		{"error", func(context.Context) ([]byte, int, error) { return nil, 0, io.ErrNoProgress }, status.Unauthenticated, "no credentials: " + io.ErrNoProgress.Error()},
		{"own", func(context.Context) ([]byte, int, error) { return nil, 0, fmt.Errorf("wrapped: %w", own) }, status.PermissionDenied, "locked"},
		{"panic", func(context.Context) ([]byte, int, error) { panic("secret") }, status.Internal, "the credentials function panicked"},
		{"slow", func(ctx context.Context) ([]byte, int, error) { <-ctx.Done(); return nil, 0, ctx.Err() }, status.Unauthenticated, "no credentials: context deadline exceeded"},
	} {
		testkit.Bubble(t, tt.name, func(t *testing.T, is *is.I) {
			w := newWorld(t, func(o *Options) { o.Credentials = tt.ask })
			_, _, err := w.credentials(t.Context())
			var e *status.Error
			is.True(errors.As(err, &e))
			is.Equal(e.Code, tt.code)
			is.Equal(e.Message, tt.text)
		})
	}
	is := is.New(t)
	creds, size, err := newWorld(t, nil).credentials(t.Context())
	is.NoErr(err)
	is.Equal(creds, nil)
	is.Equal(size, 0)
}
