package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/testkit"
)

// Town is an address in memory behind which servers come and go, over lines
// that can be cut.
type Town struct {
	Mu     sync.Mutex
	Srv    *typedrpc.Server               // nil: nobody answers
	Script func(n int, far *testkit.Peer) // or a server that follows a script; n counts dials from 1
	Names  func() string                  // the script's subprotocol; nil: binary
	Refuse func(n int) error              // may refuse the upgrade
	Fuse   func() int64                   // how many messages a line carries before it breaks; nil: any number
	Dials  []time.Time
	Lines  []*testkit.Cable
}

func (w *Town) connect(ctx context.Context, _ string, offers []string) (link.Transport, string, *http.Response, error) {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	w.Dials = append(w.Dials, time.Now())
	if w.Refuse != nil {
		if err := w.Refuse(len(w.Dials)); err != nil {
			var u *typedrpc.UpgradeError
			if errors.As(err, &u) {
				resp := &http.Response{StatusCode: u.Status, Header: u.Header, Body: io.NopCloser(strings.NewReader(u.Body))}
				return nil, "", resp, err
			}
			return nil, "", nil, err
		}
	}
	if w.Script != nil {
		near, far := link.Pipe()
		p := &testkit.Peer{T: far, Dialect: session.Binary}
		name := testkit.BinaryProtocol
		if w.Names != nil {
			name = w.Names()
		}
		go w.Script(len(w.Dials), p)
		return near, name, nil, nil
	}
	if w.Srv == nil {
		return nil, "", nil, errors.New("connection refused")
	}
	r, err := http.NewRequest(http.MethodGet, "http://town/", nil)
	if err != nil {
		return nil, "", nil, err
	}
	r.RemoteAddr = fmt.Sprint("town:", len(w.Dials))
	fuse := int64(math.MaxInt64)
	if w.Fuse != nil {
		fuse = w.Fuse()
	}
	near, far, l := testkit.NewCable(fuse)
	srv := w.Srv
	w.Mu.Unlock() // a sign-in may wait
	name, refused := hook.Accept(srv, far, r, offers)
	w.Mu.Lock()
	if refused != nil {
		near.Kill()
		far.Kill()
		return nil, "", refused, errors.New("refused")
	}
	w.Lines = append(w.Lines, l)
	return near, name, nil, nil
}

// Serve puts srv behind the address; nil: nobody.
func (w *Town) Serve(srv *typedrpc.Server) {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	w.Srv = srv
}

// Cable is the newest line.
func (w *Town) Cable() *testkit.Cable {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	return w.Lines[len(w.Lines)-1]
}

// Dialled is how many attempts have been made.
func (w *Town) Dialled() int {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	return len(w.Dials)
}

func (w *Town) Dial(t *testing.T, o *typedrpc.DialOptions) *typedrpc.Conn {
	t.Helper()
	c, err := w.TryDial(t.Context(), o)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	return c
}

func (w *Town) TryDial(ctx context.Context, o *typedrpc.DialOptions) (*typedrpc.Conn, error) {
	if o == nil {
		o = &typedrpc.DialOptions{}
	}
	opts := *o
	if opts.Limits.Grace == 0 {
		opts.Limits.Grace = -1 // most tests are of sessions that are lost
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return typedrpc.Dial(ctx, "ws://town/rpc", hook.Connect(&opts, w.connect).(*typedrpc.DialOptions))
}

// Steady is a backoff whose delays are short and whose waits tests can skip.
var Steady = typedrpc.Backoff{Min: time.Second, Max: time.Second, Factor: 1}

// Reconnected dials a lab and returns everything.
func Reconnected(t *testing.T, o *typedrpc.DialOptions) (*Town, *Lab, *typedrpc.Conn) {
	t.Helper()
	l := New()
	w := &Town{Srv: l.Server}
	return w, l, w.Dial(t, o)
}

func OutcomeOf(err error) typedrpc.Outcome {
	var e *typedrpc.Error
	if !errors.As(err, &e) {
		return 99
	}
	return e.Outcome
}

// Healed cuts the line when all is quiet, and waits for the next session.
func (w *Town) Healed() {
	synctest.Wait()
	w.Cable().Cut()
	time.Sleep(time.Minute)
	synctest.Wait()
}

// Waits returns the pauses between the attempts that a town has seen.
func (w *Town) Waits() []time.Duration {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	var ds []time.Duration
	for i := 1; i < len(w.Dials); i++ {
		ds = append(ds, w.Dials[i].Sub(w.Dials[i-1]))
	}
	return ds
}

// Scripted dials a server that follows a script.
func Scripted(t *testing.T, o *typedrpc.DialOptions, script func(n int, p *testkit.Peer)) (*Town, *typedrpc.Conn) {
	t.Helper()
	w := &Town{Script: script}
	return w, w.Dial(t, o)
}
