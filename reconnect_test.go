package typedrpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
)

// town is an address in memory behind which servers come and go, over lines
// that can be cut.
type town struct {
	mu     sync.Mutex
	srv    *Server                    // nil: nobody answers
	script func(n int, far *wirePeer) // or a server that follows a script; n counts dials from 1
	names  func() string              // the script's subprotocol; nil: binary
	refuse func(n int) error          // may refuse the upgrade
	fuse   func() int64               // how many messages a line carries before it breaks; nil: any number
	dials  []time.Time
	lines  []*cable
}

func (w *town) connect(ctx context.Context, _ string, offers []string) (link.Transport, string, *http.Response, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dials = append(w.dials, time.Now())
	if w.refuse != nil {
		if err := w.refuse(len(w.dials)); err != nil {
			var u *UpgradeError
			if errors.As(err, &u) {
				resp := &http.Response{StatusCode: u.Status, Header: u.Header, Body: io.NopCloser(strings.NewReader(u.Body))}
				return nil, "", resp, err
			}
			return nil, "", nil, err
		}
	}
	if w.script != nil {
		near, far := link.Pipe()
		p := &wirePeer{t: far, dialect: session.Binary}
		name := codecProtocol(JSON)
		if w.names != nil {
			name = w.names()
		}
		go w.script(len(w.dials), p)
		return near, name, nil, nil
	}
	if w.srv == nil {
		return nil, "", nil, errors.New("connection refused")
	}
	r, err := http.NewRequest(http.MethodGet, "http://town/", nil)
	if err != nil {
		return nil, "", nil, err
	}
	r.RemoteAddr = fmt.Sprint("town:", len(w.dials))
	a, refused := w.srv.admit(r, offers)
	if refused != nil {
		return nil, "", refused.response(), errors.New("refused")
	}
	fuse := int64(math.MaxInt64)
	if w.fuse != nil {
		fuse = w.fuse()
	}
	near, far, l := newCable(fuse)
	w.lines = append(w.lines, l)
	w.srv.start(far, a, r)
	return near, a.subprotocol, nil, nil
}

// serve puts srv behind the address; nil: nobody.
func (w *town) serve(srv *Server) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.srv = srv
}

// line is the newest line.
func (w *town) cable() *cable {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lines[len(w.lines)-1]
}

// dialled is how many attempts have been made.
func (w *town) dialled() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.dials)
}

func (w *town) dial(t *testing.T, o *DialOptions) *Conn {
	t.Helper()
	c, err := w.tryDial(t.Context(), o)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	return c
}

func (w *town) tryDial(ctx context.Context, o *DialOptions) (*Conn, error) {
	if o == nil {
		o = &DialOptions{}
	}
	opts := *o
	opts.connect = w.connect
	if opts.Limits.Grace == 0 {
		opts.Limits.Grace = -1 // most tests are of sessions that are lost
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return Dial(ctx, "ws://town/rpc", &opts)
}

// line carries messages between two pipes and can stop doing so.
type cable struct {
	a, b link.Transport
	deaf atomic.Bool
	fuse atomic.Int64
}

func newCable(fuse int64) (near, far link.Transport, l *cable) {
	l = new(cable)
	l.fuse.Store(fuse)
	near, l.a = link.Pipe()
	l.b, far = link.Pipe()
	go l.forward(l.a, l.b)
	go l.forward(l.b, l.a)
	return near, far, l
}

// cut breaks the line and returns when both ends have noticed.
func (l *cable) cut() {
	l.a.Kill()
	l.b.Kill()
	synctest.Wait()
}

// swallow breaks the line so that neither end can notice.
func (l *cable) swallow() { l.deaf.Store(true) }

func (l *cable) forward(from, to link.Transport) {
	for {
		m, text, err := from.Read(func() {})
		var ce *link.CloseError
		switch {
		case l.deaf.Load() && err != nil:
			return
		case l.deaf.Load():
		case errors.As(err, &ce):
			to.Close(ce.Code, ce.Reason)
			return
		case err != nil:
			to.Kill()
			return
		case l.fuse.Add(-1) < 0:
			m.Release()
			l.a.Kill()
			l.b.Kill()
			return
		default:
			if to.Write(m.B, text, func() {}) != nil {
				return // the other direction says how it ended
			}
		}
	}
}

var (
	labEcho      = NewMethod[int, int]("lab.echo")
	labHang      = NewMethod[Empty, Empty]("lab.hang")
	labHangTwice = NewMethod[Empty, Empty]("lab.hang.idempotent", Idempotent)
	labNote      = NewNotification[int]("lab.note")
)

// lab is a server whose handlers can be watched.
type lab struct {
	*Server
	hung    atomic.Int64 // hanging handlers that began
	running atomic.Int64 // and have not ended
	most    atomic.Int64 // at once
	release chan struct{}

	mu    sync.Mutex
	notes []int
}

func newLab() *lab {
	l := &lab{release: make(chan struct{})}
	mux := NewMux()
	l.Server = &Server{Mux: mux, Logger: slog.New(slog.DiscardHandler)}
	Handle(mux, labEcho, func(_ context.Context, n int) (int, error) { return n, nil })
	hang := func(ctx context.Context, _ Empty) (Empty, error) {
		l.hung.Add(1)
		n := l.running.Add(1)
		defer l.running.Add(-1)
		for most := l.most.Load(); n > most && !l.most.CompareAndSwap(most, n); most = l.most.Load() {
		}
		select {
		case <-ctx.Done():
			return Empty{}, ctx.Err()
		case <-l.release:
			return Empty{}, nil
		}
	}
	Handle(mux, labHang, hang)
	Handle(mux, labHangTwice, hang)
	HandleNotification(mux, labNote, func(_ context.Context, n int) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.notes = append(l.notes, n)
	})
	return l
}

func (l *lab) noted() []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.notes)
}

// watch collects the states of a connection.
type watch struct {
	mu     sync.Mutex
	states []StateChange
}

func (w *watch) on(s StateChange) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.states = append(w.states, s)
}

func (w *watch) seen() []StateChange {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.states)
}

func (w *watch) last() StateChange {
	all := w.seen()
	return all[len(all)-1]
}

// steady is a backoff whose delays are short and whose waits tests can skip.
var steady = Backoff{Min: time.Second, Max: time.Second, Factor: 1}

// reconnected dials a lab and returns everything.
func reconnected(t *testing.T, o *DialOptions) (*town, *lab, *Conn) {
	t.Helper()
	l := newLab()
	w := &town{srv: l.Server}
	return w, l, w.dial(t, o)
}

func outcomeOf(err error) Outcome {
	var e *Error
	if !errors.As(err, &e) {
		return 99
	}
	return e.Outcome
}

func TestReconnect_plainCallInFlightMayHaveRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, l, c := reconnected(t, nil)
		f := Go(t.Context(), c, labHang, Empty{})
		synctest.Wait()
		is.Equal(l.running.Load(), int64(1))
		w.cable().cut()
		_, err := f.Await(t.Context())
		is.True(errors.Is(err, Unavailable))
		is.Equal(outcomeOf(err), MayHaveRun)
		synctest.Wait()
		is.Equal(l.running.Load(), int64(0)) // the handler's context ended too
		n, err := Call(t.Context(), c, labEcho, 7)
		is.NoErr(err) // on the next link
		is.Equal(n, 7)
		is.Equal(l.hung.Load(), int64(1)) // and the lost call was not made again
		is.NoErr(c.Close())
	})
}

func TestReconnect_idempotentCallIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, l, c := reconnected(t, nil)
		f := Go(t.Context(), c, labHangTwice, Empty{})
		for i := range int64(3) {
			synctest.Wait()
			is.Equal(l.hung.Load(), i+1)
			w.cable().cut()
			time.Sleep(time.Minute)
		}
		close(l.release)
		_, err := f.Await(t.Context())
		is.NoErr(err)
		is.Equal(l.hung.Load(), int64(4))
		is.NoErr(c.Close())
	})
}

// A call that kills its server must not do so for ever.
func TestReconnect_resendsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, l, c := reconnected(t, nil)
		f := Go(t.Context(), c, labHangTwice, Empty{})
		for range 2 * maxResends {
			synctest.Wait()
			w.cable().cut()
			time.Sleep(time.Minute)
		}
		_, err := f.Await(t.Context())
		is.True(errors.Is(err, Unavailable))
		is.Equal(outcomeOf(err), MayHaveRun)
		is.Equal(l.hung.Load(), int64(maxResends+1))
		is.NoErr(c.Close())
	})
}

// The first attempt may have run, whatever became of the second.
func TestReconnect_resentCallThatNeverLeftAgainMayHaveRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, _, c := reconnected(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		f := Go(ctx, c, labHangTwice, Empty{})
		g := Go(t.Context(), c, labHangTwice, Empty{})
		synctest.Wait()
		w.serve(nil)
		w.cable().cut()
		synctest.Wait()
		cancel()
		_, err := f.Await(t.Context())
		is.True(errors.Is(err, context.Canceled))
		is.Equal(outcomeOf(err), MayHaveRun)
		is.NoErr(c.Close())
		_, err = g.Await(t.Context())
		is.Equal(outcomeOf(err), MayHaveRun)
	})
}

func TestReconnect_callsWaitForTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, l, c := reconnected(t, nil)
		w.serve(nil)
		w.cable().cut()
		var fs []*Future[int]
		for i := range 100 {
			fs = append(fs, Go(t.Context(), c, labEcho, i))
		}
		time.Sleep(time.Hour)
		w.serve(l.Server)
		got, err := All(t.Context(), fs...)
		is.NoErr(err)
		for i, n := range got {
			is.Equal(n, i)
		}
		is.NoErr(c.Close())
	})
}

func TestReconnect_deadlineEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, _, c := reconnected(t, nil)
		w.serve(nil)
		w.cable().cut()
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := Call(ctx, c, labEcho, 1)
		is.True(errors.Is(err, context.DeadlineExceeded))
		is.Equal(outcomeOf(err), NotSent)
		is.Equal(time.Since(began), 3*time.Second)
		is.NoErr(c.Close())
	})
}

func TestReconnect_failFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, l, c := reconnected(t, &DialOptions{Backoff: steady})
		fast := c.With(CallOptions{FailFast: true})
		f := Go(t.Context(), fast, labHangTwice, Empty{})
		synctest.Wait()
		w.serve(nil)
		w.cable().cut()
		_, err := f.Await(t.Context())
		is.Equal(outcomeOf(err), MayHaveRun) // in flight, and not sent again although it is Idempotent
		_, err = Call(t.Context(), fast, labEcho, 1)
		is.True(errors.Is(err, Unavailable))
		is.Equal(outcomeOf(err), NotSent)
		is.True(errors.Is(Notify(t.Context(), fast, labNote, 1), Unavailable))
		w.serve(l.Server)
		time.Sleep(2 * time.Second)
		_, err = Call(t.Context(), fast, labEcho, 1)
		is.NoErr(err)
		is.NoErr(c.Close())
	})
}

// A call that had not left when the link was lost must not wait for the next
// link if it was asked to fail fast.
func TestReconnect_failFastDoesNotWaitInTheQueueEither(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		l.Limits.MaxCalls = 1
		w := &town{srv: l.Server}
		c := w.dial(t, nil)
		first := Go(t.Context(), c, labHang, Empty{})
		waits := Go(t.Context(), c.With(CallOptions{FailFast: true}), labEcho, 1) // for the only slot
		synctest.Wait()
		w.serve(nil)
		w.cable().cut()
		synctest.Wait()
		select {
		case <-waits.Done():
		default:
			t.Fatal("a FailFast call waits for a link")
		}
		_, err := waits.Await(t.Context())
		is.Equal(outcomeOf(err), NotSent)
		_, err = first.Await(t.Context())
		is.Equal(outcomeOf(err), MayHaveRun)
		is.NoErr(c.Close())
	})
}

func TestReconnect_failFastBehindAStalledWriteDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		peers := make(chan *wirePeer, 9)
		w, c := scripted(t, nil, func(_ int, p *wirePeer) {
			p.welcome() // and reads nothing more
			peers <- p
		})
		p := <-peers
		large := NewMethod[string, Empty]("large")
		for range 2 { // more than the pipe holds
			Go(t.Context(), c, large, strings.Repeat("x", 300<<10))
			synctest.Wait()
		}
		patient := Go(t.Context(), c, labEcho, 1)
		fast := Go(t.Context(), c.With(CallOptions{FailFast: true}), labEcho, 1)
		w.mu.Lock()
		w.script = nil // nobody answers any more
		w.mu.Unlock()
		p.t.Kill()
		synctest.Wait()
		is.Equal(c.State(), Waiting)
		select {
		case <-fast.Done():
		default:
			t.Error("a FailFast call waits for a link")
		}
		_, err := fast.Await(t.Context())
		is.Equal(outcomeOf(err), NotSent)
		select {
		case <-patient.Done():
			t.Error("a call that had not left does not wait for a link")
		default:
		}
		is.NoErr(c.Close())
	})
}

func TestReconnect_notificationsQueuedMeanwhileArrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, l, c := reconnected(t, nil)
		for round := range 20 {
			w.serve(nil)
			w.cable().cut()
			synctest.Wait()
			for i := range 50 {
				is.NoErr(Notify(t.Context(), c, labNote, round*50+i))
			}
			w.serve(l.Server)
			time.Sleep(time.Minute)
			is.Equal(c.State(), Connected)
		}
		got := l.noted()
		is.Equal(len(got), 1000)
		is.True(slices.IsSorted(got))
		is.NoErr(c.Close())
	})
}

func TestReconnect_notificationsWaitForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		l.Limits.Window = 650 // ten of them
		w := &town{srv: l.Server}
		c := w.dial(t, nil)
		w.serve(nil)
		w.cable().cut()
		synctest.Wait()
		sent := 0
		for ; sent < 100; sent++ {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err := Notify(ctx, c, labNote, sent)
			cancel()
			if err != nil {
				is.True(errors.Is(err, context.DeadlineExceeded))
				is.Equal(outcomeOf(err), NotSent)
				break
			}
		}
		is.Equal(sent, 10)
		rest := make(chan error, 1)
		go func() { rest <- Notify(t.Context(), c, labNote, sent) }()
		w.serve(l.Server)
		is.NoErr(<-rest)
		is.NoErr(c.Close())
		is.Equal(l.noted(), []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10})
	})
}

func TestReconnect_handlersContextsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		conns := make(chan *Conn, 9)
		l.OnConnect = func(c *Conn) { conns <- c }
		w := &town{srv: l.Server}
		ended := make(chan error, 1)
		mux := NewMux()
		Handle(mux, labHang, func(ctx context.Context, _ Empty) (Empty, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return Empty{}, ctx.Err()
		})
		c := w.dial(t, &DialOptions{Mux: mux})
		f := Go(t.Context(), <-conns, labHang, Empty{}) // the server calls the client
		synctest.Wait()
		w.cable().cut()
		is.Equal(<-ended, context.Canceled)
		_, err := f.Await(t.Context())
		is.Equal(outcomeOf(err), MayHaveRun)
		_, err = Call(t.Context(), <-conns, labEcho, 1) // the next link is another connection on the server
		is.True(errors.Is(err, Unimplemented))
		is.NoErr(c.Close())
	})
}

func TestReconnect_answerOfAnOldSessionIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		conns := make(chan *Conn, 9)
		l.OnConnect = func(c *Conn) { conns <- c }
		w := &town{srv: l.Server}
		mux := NewMux()
		let := make(chan int)
		Handle(mux, labEcho, func(_ context.Context, n int) (int, error) { return <-let + n, nil })
		c := w.dial(t, &DialOptions{Mux: mux})
		old := Go(t.Context(), <-conns, labEcho, 100) // id 1 of the first session
		synctest.Wait()
		w.cable().cut()
		next := Go(t.Context(), <-conns, labEcho, 200) // id 1 of the second
		synctest.Wait()
		_, err := old.Await(t.Context())
		is.Equal(outcomeOf(err), MayHaveRun)
		let <- 0 // one of the two handlers answers, then the other
		let <- 0
		n, err := next.Await(t.Context())
		is.NoErr(err)
		is.Equal(n, 200)
		is.NoErr(c.Close())
	})
}

func TestReconnect_states(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var seen watch
		w, l, c := reconnected(t, &DialOptions{OnState: seen.on, Backoff: steady})
		time.Sleep(time.Minute)
		w.serve(nil)
		w.cable().cut()
		synctest.Wait()
		is.Equal(c.State(), Waiting)
		waiting := seen.seen()[2]
		is.Equal(waiting.State, Waiting)
		is.True(errors.Is(waiting.Err, Unavailable)) // why
		is.Equal(waiting.Attempt, 1)
		is.True(!waiting.Next.Before(time.Now()) && waiting.Next.Before(time.Now().Add(time.Second)))
		time.Sleep(time.Until(waiting.Next))
		synctest.Wait()
		is.Equal(w.dialled(), 2) // the attempt is made at the time that was told
		w.serve(l.Server)
		time.Sleep(5 * time.Second)
		is.NoErr(c.Close())
		synctest.Wait()
		var states []State
		for _, s := range seen.seen() {
			states = append(states, s.State)
		}
		is.Equal(states, []State{Connecting, Connected, Waiting, Connecting, Waiting, Connecting, Connected, Closed})
		last := seen.seen()[len(states)-1]
		is.Equal(last.Err, c.Err())
		is.Equal(c.State(), Closed)
		is.True(strings.Contains(seen.seen()[4].Err.Error(), "connection refused"))
	})
}

func TestReconnect_onStateMayUseAndCloseTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		w := &town{srv: l.Server}
		ready := make(chan *Conn, 1)
		result := make(chan error, 1)
		c := w.dial(t, &DialOptions{OnState: func(s StateChange) {
			if s.State == Connected {
				c := <-ready
				_, err := Call(t.Context(), c, labEcho, 1)
				result <- err
				c.Close()
			}
		}})
		ready <- c
		is.NoErr(<-result)
		<-c.Done()
		is.True(errors.Is(c.Err(), Unavailable))
	})
}

func TestConn_reconnectNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, l, c := reconnected(t, &DialOptions{Backoff: Backoff{Min: time.Hour, Max: time.Hour}})
		c.Reconnect() // gives up a link that is well
		time.Sleep(time.Nanosecond)
		is.Equal(w.dialled(), 2)
		is.Equal(c.State(), Connected)
		w.serve(nil)
		w.cable().cut()
		synctest.Wait()
		is.Equal(c.State(), Waiting)
		w.serve(l.Server)
		c.Reconnect() // ends the wait
		synctest.Wait()
		is.Equal(c.State(), Connected)
		is.NoErr(c.Close())
		c.Reconnect() // does nothing
		is.Equal(c.State(), Closed)
	})
}

// Reconnect while a link is being made has what it wanted with that link, and
// must not take the wait out of a loss much later.
func TestConn_reconnectWhileConnectingIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		w := &town{srv: l.Server}
		first := true
		var c *Conn
		auth := Credentials(labHang, func(context.Context) (Empty, error) {
			if !first {
				c.Reconnect()
			}
			return Empty{}, nil
		})
		c = w.dial(t, &DialOptions{Auth: auth, Backoff: Backoff{Min: time.Hour, Max: time.Hour}})
		first = false
		w.cable().cut()
		time.Sleep(time.Hour)
		synctest.Wait()
		is.Equal(c.State(), Connected)
		w.cable().cut()
		synctest.Wait()
		is.Equal(c.State(), Waiting)
		is.NoErr(c.Close())
	})
}

func TestReconnect_closeEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, _, c := reconnected(t, &DialOptions{Backoff: Backoff{Min: time.Hour, Max: time.Hour}})
		w.serve(nil)
		w.cable().cut()
		synctest.Wait()
		f := Go(t.Context(), c, labEcho, 1)
		began := time.Now()
		is.NoErr(c.Close())
		is.Equal(time.Since(began), time.Duration(0))
		_, err := f.Await(t.Context())
		is.True(errors.Is(err, Unavailable))
		is.Equal(outcomeOf(err), NotSent)
	})
}

func TestReconnect_closeDuringTheHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, _, c := reconnected(t, &DialOptions{Backoff: steady})
		silent := make(chan *wirePeer, 9)
		w.mu.Lock()
		w.script = func(_ int, p *wirePeer) { silent <- p }
		w.mu.Unlock()
		w.cable().cut()
		p := <-silent
		synctest.Wait()
		is.Equal(c.State(), Connecting)
		is.NoErr(c.Close())
		is.Equal(p.closeCode(), session.CloseDone)
	})
}

func TestDial_contextBoundsTheHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w := &town{script: func(_ int, p *wirePeer) { p.closeCode() }} // reads, and never answers
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		_, err := w.tryDial(ctx, nil)
		is.True(errors.Is(err, context.DeadlineExceeded))
		is.Equal(outcomeOf(err), NotSent)
		is.Equal(time.Since(began), 3*time.Second)
	})
}

func TestDial_handshakeTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		for range 20 { // two timers run out together: whichever is first says the same
			w := &town{script: func(_ int, p *wirePeer) { p.closeCode() }}
			began := time.Now()
			_, err := w.tryDial(t.Context(), nil)
			is.Equal(CodeOf(err), DeadlineExceeded)
			is.Equal(outcomeOf(err), NotSent)
			is.Equal(time.Since(began), 10*time.Second)
		}
	})
}

func TestDial_contextDoesNotBoundTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		w := &town{srv: l.Server}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		c, err := w.tryDial(ctx, nil)
		is.NoErr(err)
		cancel()
		time.Sleep(time.Hour)
		_, err = Call(t.Context(), c, labEcho, 1)
		is.NoErr(err)
		is.Equal(w.dialled(), 1)
		is.NoErr(c.Close())
	})
}

func TestDial_firstFailureIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w := new(town)
		_, err := w.tryDial(t.Context(), nil)
		is.True(errors.Is(err, Unavailable))
		is.Equal(w.dialled(), 1) // once: whether to try again is the caller's to say
	})
}

func TestReconnect_handshakesThatHangAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, l, c := reconnected(t, &DialOptions{Backoff: steady})
		w.mu.Lock()
		w.script = func(_ int, p *wirePeer) { p.closeCode() }
		w.mu.Unlock()
		w.cable().cut()
		time.Sleep(time.Minute)
		is.True(w.dialled() >= 5)
		w.mu.Lock()
		w.script, w.srv = nil, l.Server
		w.mu.Unlock()
		time.Sleep(time.Minute)
		is.Equal(c.State(), Connected)
		is.NoErr(c.Close())
	})
}
