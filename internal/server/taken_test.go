package server

import (
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/flow"
)

// slowSocket is an http.ResponseWriter whose kernel takes nothing more for a while.
type slowSocket struct {
	head   http.Header
	takes  time.Duration // until it takes what is written
	silent time.Duration // until so long nothing is sent, and nothing after that; 0: something always is
	began  time.Time
	speed  int // bytes a second that are sent; -1: it does not tell

	written int
	mu      sync.Mutex
	changed chan struct{}
	by      time.Time
}

func (w *slowSocket) Header() http.Header { return w.head }
func (w *slowSocket) WriteHeader(int)     {}
func (w *slowSocket) Flush()              {}

func (w *slowSocket) SetWriteDeadline(by time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.by = by
	close(w.changed)
	w.changed = make(chan struct{})
	return nil
}

func (w *slowSocket) Write(p []byte) (int, error) {
	for end := time.After(w.takes); ; {
		w.mu.Lock()
		changed, by := w.changed, w.by
		w.mu.Unlock()
		late := (<-chan time.Time)(nil)
		if !by.IsZero() {
			late = time.After(time.Until(by))
		}
		select {
		case <-end:
			w.written += len(p)
			return len(p), nil
		case <-late:
			return 0, os.ErrDeadlineExceeded
		case <-changed:
		}
	}
}

// held is what the kernel has.
func (w *slowSocket) held(net.Addr, string) (int, bool) {
	gone := time.Since(w.began)
	if w.silent > 0 {
		gone = min(gone, w.silent)
	}
	return 4<<20 - int(gone.Seconds()*float64(w.speed)), w.speed >= 0
}

// TestExchange_whatTheKernelSendsIsProgress has a part of an answer wait for longer than
// WriteTimeout for the kernel to take it, which goes on sending what it has.
func TestExchange_whatTheKernelSendsIsProgress(t *testing.T) {
	for name, tt := range map[string]struct {
		w    *slowSocket
		by   time.Duration // the http.Server's own WriteTimeout
		ends time.Duration // when it is given up; 0: it is not
	}{
		"fast":                    {&slowSocket{takes: 5 * time.Second, speed: 0}, 0, 0},
		"slow":                    {&slowSocket{takes: time.Minute, speed: 10 << 10}, 0, 0},
		"the kernel's own":        {&slowSocket{takes: time.Minute, speed: 100}, 0, 10 * time.Second},
		"nothing":                 {&slowSocket{takes: time.Minute, speed: 0}, 0, 10 * time.Second},
		"it does not tell":        {&slowSocket{takes: time.Minute, speed: -1}, 0, 10 * time.Second},
		"nothing any more":        {&slowSocket{takes: time.Minute, speed: 10 << 10, silent: 20 * time.Second}, 0, 30 * time.Second},
		"the server has a bound":  {&slowSocket{takes: time.Minute, speed: 10 << 10}, 30 * time.Second, 30 * time.Second},
		"which is met in an hour": {&slowSocket{takes: time.Minute, speed: 10 << 10}, time.Hour, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				w := tt.w
				w.head, w.changed, w.began = http.Header{}, make(chan struct{}), time.Now()
				x := &exchange{w: &response{w, http.NewResponseController(w)}, limits: &flow.Limits{WriteTimeout: 10 * time.Second}}
				x.took.held = w.held
				if tt.by > 0 {
					x.writeBy = w.began.Add(tt.by)
				}
				x.beginWrite(x.writeBy)
				x.until(x.w.SetWriteDeadline, x.writeBy, x.limits.WriteTimeout)
				_, err := w.Write(make([]byte, 10))
				x.endWrite()
				if tt.ends == 0 {
					is.NoErr(err)
					return
				}
				is.True(errors.Is(err, os.ErrDeadlineExceeded))
				is.Equal(time.Since(w.began), tt.ends)
			})
		})
	}
}

// TestExchange_slowReaders write answers and events in parts that take longer than WriteTimeout,
// to clients that take some all the time.
func TestExchange_slowReaders(t *testing.T) {
	for name, write := range map[string]func(x *exchange, b []byte) error{
		"answer": func(x *exchange, b []byte) error { x.write(b, true); return nil },
		"events": func(x *exchange, b []byte) error {
			e := &events{x: x, begun: true, beat: time.AfterFunc(time.Hour, func() {})}
			return e.sendLocked(b, func() {})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				w := &slowSocket{head: http.Header{}, changed: make(chan struct{}), began: time.Now(), takes: 15 * time.Second, speed: 10 << 10}
				x := &exchange{w: &response{w, http.NewResponseController(w)}, limits: &flow.Limits{WriteTimeout: 10 * time.Second}}
				x.took.held = w.held
				is.NoErr(write(x, make([]byte, 3*answerPart)))
				is.Equal(w.written, 3*answerPart)
				is.True(!x.took.writing)
				if name == "answer" {
					is.Equal(w.head.Get("Content-Length"), "98304")
				}
			})
		})
	}
}

// TestExchange_asksWhereItCan asks about connections that are a request's alone.
func TestExchange_asksWhereItCan(t *testing.T) {
	is := is.New(t)
	r, err := http.NewRequest(http.MethodGet, "/", nil)
	is.NoErr(err)
	var none taken
	none.asks(r) // of a server that says no address
	is.True(none.held == nil)
}

// TestExchange_endedIsEnded has a deadline that wakes the writer stay, whatever is taken.
func TestExchange_endedIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w := &slowSocket{head: http.Header{}, changed: make(chan struct{}), began: time.Now(), takes: time.Minute, speed: 100 << 10}
		x := &exchange{w: &response{w, http.NewResponseController(w)}, limits: &flow.Limits{WriteTimeout: 10 * time.Second}, events: new(events), writing: true}
		x.took.held = w.held
		x.beginWrite(time.Time{})
		time.AfterFunc(5*time.Second, func() { x.end(noRoom(), errFull) })
		_, err := w.Write(make([]byte, 10))
		x.endWrite()
		is.True(errors.Is(err, os.ErrDeadlineExceeded))
		is.Equal(time.Since(w.began), 5*time.Second)
	})
}
