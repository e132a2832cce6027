package storm_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
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
	"github.com/typedrpc/typedrpc/internal/testkit/live"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// stormy calls on c with contexts that end in every way there is, and returns
// the first result that should not have been.
func stormy(ctx context.Context, c *typedrpc.Conn, calls int) error {
	const callers = 64
	errs := make(chan error, callers)
	for who := range callers {
		go func() {
			rng := rand.New(rand.NewPCG(1, uint64(who)))
			for i := range calls / callers {
				if err := stormyCall(ctx, c, rng, i); err != nil {
					errs <- fmt.Errorf("caller %d, call %d: %w", who, i, err)
					return
				}
			}
			errs <- nil
		}()
	}
	var failed error
	for range callers {
		failed = errors.Join(failed, <-errs)
	}
	return failed
}

func stormyCall(ctx context.Context, c *typedrpc.Conn, rng *rand.Rand, i int) error {
	patience := time.Duration(1+rng.IntN(2000)) * time.Microsecond
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	want := typedrpc.Canceled
	switch rng.IntN(6) {
	case 0: // ended before it began
		cancel()
	case 1:
		timer := time.AfterFunc(patience, cancel)
		defer timer.Stop()
	case 2:
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, patience)
		defer stop()
		want = typedrpc.DeadlineExceeded
	case 3: // at once, somewhere between queue, wire and answer
		go cancel()
	case 4:
		f := typedrpc.Go(ctx, c, lab.Echo, i)
		go f.Cancel()
		_, err := f.Await(context.WithoutCancel(ctx))
		if err != nil && !errors.Is(err, typedrpc.Canceled) {
			return err
		}
		return nil
	default:
		n, err := typedrpc.Call(ctx, c, lab.Echo, i)
		if err != nil || n != i {
			return fmt.Errorf("an undisturbed call returned %d, %w", n, err)
		}
		return nil
	}
	if rng.IntN(2) == 0 {
		_, err := typedrpc.Call(ctx, c, lab.Hang, struct{}{}) // ends with its context only
		if !errors.Is(err, want) {
			return fmt.Errorf("a call that hangs returned %w", err)
		}
		return nil
	}
	n, err := typedrpc.Call(ctx, c, lab.Echo, i)
	if err != nil && !errors.Is(err, want) || err == nil && n != i {
		return fmt.Errorf("echo of %d returned %d, %w", i, n, err)
	}
	return nil
}

// calm reports whether nothing of any call is left.
func calm(c *typedrpc.Conn) bool {
	s := hook.Conn(c)
	return s.Pending+s.Slots+s.Waiting+s.Queue+s.Inbound+s.InBytes+s.Queued == 0
}

func TestStorm_contextsOverPipe(t *testing.T) {
	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text, typedrpc.JSONRPC} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			l := lab.New()
			l.Limits.MaxCalls = 32 // so that many wait for a slot
			var links atomic.Int64
			l.OnConnect = func(*typedrpc.Conn) { links.Add(1) }
			own := l.Limits // a plain peer goes by these
			if d == typedrpc.JSONRPC {
				l.Limits.MaxCalls = 0 // where it gives a call up it makes the next one, while the handler still ends
			}
			c, s, err := typedrpctest.Dial(l.Server, &typedrpc.DialOptions{Dialect: d, Limits: own})
			is.NoErr(err)
			time.Sleep(3 * time.Second)
			synctest.Wait()
			before := live.Goroutines()
			calls := testkit.Size(50_000, 50_000)
			if d != typedrpc.Binary {
				calls /= 5
			}
			is.NoErr(stormy(t.Context(), c, calls))
			time.Sleep(10 * time.Second)
			synctest.Wait()
			is.True(calm(c))
			is.True(calm(s))
			is.Equal(links.Load(), int64(1)) // no link was closed
			is.Equal(c.State(), typedrpc.StateConnected)
			is.Equal(live.Goroutines(), before)
			is.NoErr(c.Close())
		})
	}
}

func TestStorm_contextsOverWebSocket(t *testing.T) {
	is := is.New(t)
	before := live.Goroutines()
	l := lab.New()
	var links atomic.Int64
	l.OnConnect = func(*typedrpc.Conn) { links.Add(1) }
	hs := httptest.NewServer(l.Server)
	c, err := typedrpc.Dial(t.Context(), hs.URL, &typedrpc.DialOptions{Logger: slog.New(slog.DiscardHandler)})
	is.NoErr(err)
	is.NoErr(stormy(t.Context(), c, testkit.Size(50_000, 50_000)))
	for !calm(c) { // the last tombstones are on their way
		_, err := typedrpc.Call(t.Context(), c, lab.Echo, 1)
		is.NoErr(err)
	}
	is.Equal(links.Load(), int64(1))
	is.NoErr(c.Close())
	is.NoErr(l.Shutdown(t.Context()))
	hs.Close()
	for live.Goroutines() > before { // a leak is a test that does not end
		<-time.After(time.Millisecond)
	}
}

func TestStorm_closeAgainstReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		rng := rand.New(rand.NewPCG(1, 1))
		for range testkit.Size(10_000, 10_000) {
			c, _, err := typedrpctest.Dial(l.Server, nil)
			is.NoErr(err)
			fs := []*typedrpc.Future[int]{typedrpc.Go(t.Context(), c, lab.Echo, 1), typedrpc.Go(t.Context(), c, lab.Echo, 2)}
			for range rng.IntN(20) {
				runtime.Gosched()
			}
			is.NoErr(c.Close())
			for i, f := range fs {
				n, err := f.Await(t.Context())
				is.True(err == nil && n == i+1 || errors.Is(err, typedrpc.Unavailable))
			}
		}
	})
}

func TestStorm_cancelAgainstReply(t *testing.T) {
	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			l := lab.New()
			c, _, err := typedrpctest.Dial(l.Server, &typedrpc.DialOptions{Dialect: d})
			is.NoErr(err)
			rng := rand.New(rand.NewPCG(1, 2))
			answered := 0
			for i := range testkit.Size(10_000, 10_000) {
				ctx, cancel := context.WithCancel(t.Context())
				f := typedrpc.Go(ctx, c, lab.Echo, i)
				g := typedrpc.Go(t.Context(), c, lab.Echo, i)
				for range rng.IntN(30) {
					runtime.Gosched()
				}
				cancel()
				g.Cancel()
				for _, f := range []*typedrpc.Future[int]{f, g} {
					n, err := f.Await(t.Context())
					is.True(err == nil && n == i || errors.Is(err, typedrpc.Canceled))
					if err == nil {
						answered++
					}
				}
			}
			is.True(answered > 0)
			synctest.Wait()
			is.True(calm(c))
			is.NoErr(c.Close())
		})
	}
}

func TestStorm_bothSidesClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		for i := range testkit.Size(10_000, 10_000) {
			c, s, err := typedrpctest.Dial(l.Server, nil)
			is.NoErr(err)
			f := typedrpc.Go(t.Context(), c, lab.Hang, struct{}{})
			var wg sync.WaitGroup
			wg.Go(func() { c.Close() })
			wg.Go(func() { s.Close() })
			if i%2 == 0 {
				wg.Go(func() { typedrpc.Notify(t.Context(), c, lab.Note, 1) })
				wg.Go(func() { typedrpc.Call(t.Context(), s, lab.Echo, 1) })
			}
			wg.Wait()
			_, err = f.Await(t.Context())
			is.True(errors.Is(err, typedrpc.Unavailable)) // and never the cancelled handler's answer
			<-c.Context().Done()
			<-s.Context().Done()
		}
		is.Equal(l.Running.Load(), int64(0))
	})
}

func TestStorm_linksLostUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, l, c := lab.Reconnected(t, &typedrpc.DialOptions{Backoff: typedrpc.Backoff{Min: time.Millisecond, Max: 10 * time.Millisecond}})
		stop := make(chan struct{})
		var wg sync.WaitGroup
		var done, lost atomic.Int64
		for i := range 50 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					n, err := typedrpc.Call(t.Context(), c, lab.Echo, i)
					switch {
					case err == nil && n == i:
						done.Add(1)
					case lab.OutcomeOf(err) == typedrpc.MayHaveRun:
						lost.Add(1)
					default:
						t.Error(err)
						return
					}
					time.Sleep(time.Millisecond)
				}
			})
		}
		for range testkit.Size(500, 200) {
			time.Sleep(20 * time.Millisecond)
			w.Mu.Lock()
			last := w.Lines[len(w.Lines)-1]
			w.Mu.Unlock()
			last.A.Kill()
			last.B.Kill()
		}
		close(stop)
		wg.Wait()
		is.True(done.Load() > 0)
		time.Sleep(time.Minute)
		is.True(calm(c))
		is.Equal(l.Running.Load(), int64(0))
		is.NoErr(c.Close())
	})
}

// Rapid reset: CALL and CANCEL, as fast as the line carries them.
func TestStorm_callAndCancelNeverRunMoreThanTheLimit(t *testing.T) {
	for _, offer := range []string{testkit.BinaryProtocol, testkit.HelloProtocol} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			l := lab.New()
			l.Limits.MaxCalls = 50
			honest, _, err := typedrpctest.Dial(l.Server, nil)
			is.NoErr(err)
			stop := make(chan struct{})
			served := make(chan int, 1)
			go func() {
				n := 0
				for {
					select {
					case <-stop:
						served <- n
						return
					default:
					}
					if _, err := typedrpc.Call(t.Context(), honest, lab.Echo, n); err != nil {
						t.Errorf("the other client: %v", err)
						served <- n
						return
					}
					n++
					time.Sleep(time.Millisecond)
				}
			}()
			links, pairs := 0, 0
			for total := testkit.Size(200_000, 100_000); pairs < total; links++ {
				p, err := testkit.Join(l.Server, offer)
				is.NoErr(err)
				_, err = p.Hello()
				is.NoErr(err)
				pairs += flood(p, 45, total-pairs)
				synctest.Wait() // the link's handlers have ended
			}
			close(stop)
			is.True(<-served > 0)
			synctest.Wait()
			is.Equal(l.Running.Load(), int64(0))
			is.True(l.Most.Load() <= int64(l.Limits.MaxCalls))
			is.True(l.Most.Load() >= 30) // as many as begin before it is known what they answer
			t.Logf("%d pairs over %d links ran %d handlers, %d at once", pairs, links, l.Hung.Load(), l.Most.Load())
			is.NoErr(honest.Close())
		})
	}
}

// flood leaves so many calls hanging, then sends so many pairs of CALL and
// CANCEL, or as many as the server takes before it closes, and returns their
// number when the link has ended.
func flood(p *testkit.Peer, held, pairs int) (sent int) {
	read := make(chan int, 1)
	reader := testkit.Peer{T: p.T, Dialect: p.Dialect}
	go func() { read <- reader.CloseCode() }()
	id := uint64(0)
	for range held {
		id++
		if p.Send(wire.Frame{Type: wire.Call, ID: id, Method: "lab.hang"}) != nil {
			break
		}
	}
	for sent < pairs {
		var fs []wire.Frame
		for range min(16, pairs-sent) {
			sent++
			id++
			fs = append(fs, wire.Frame{Type: wire.Call, ID: id, Method: "lab.hang"}, wire.Frame{Type: wire.Cancel, ID: id})
		}
		if p.Send(fs...) != nil {
			break
		}
	}
	p.T.Close(session.CloseDone, "that was all")
	<-read
	return sent
}

func TestStorm_floodIsClosed(t *testing.T) {
	for _, offer := range []string{testkit.BinaryProtocol, testkit.HelloProtocol} {
		for name, f := range map[string]wire.Frame{
			"answers to no call":  {Type: wire.Result, ID: 9, Payload: []byte("1")},
			"failures of no call": {Type: wire.Fail, ID: 9, Code: 1},
			"cancels of no call":  {Type: wire.Cancel, ID: 9},
			"items of no stream":  {Type: wire.Item, ID: 9, Payload: []byte("1")},
			"ends of no stream":   {Type: wire.End, ID: 9},
			"credit of no stream": {Type: wire.Credit, ID: 9, Items: 1},
		} {
			t.Run(offer+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					is := is.New(t)
					p, err := testkit.Join(lab.New().Server, offer)
					is.NoErr(err)
					_, err = p.Hello()
					is.NoErr(err)
					n := 0
					for ; n < 10*testkit.FloodBurst; n++ {
						if p.Send(f) != nil {
							break
						}
					}
					is.Equal(p.CloseCode(), session.CloseFlood)
				})
			})
		}
	}
}

func TestStorm_silentSocketsAreClosed(t *testing.T) {
	for _, offer := range []string{testkit.BinaryProtocol, testkit.HelloProtocol} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			l := lab.New()
			n := testkit.Size(5_000, 5_000)
			codes := make(chan int, n)
			began := time.Now()
			for range n {
				p, err := testkit.Join(l.Server, offer)
				is.NoErr(err)
				go func() { codes <- p.CloseCode() }()
			}
			for range n {
				is.Equal(<-codes, session.CloseTimeout)
			}
			is.Equal(time.Since(began), 10*time.Second)
			synctest.Wait()
			is.Equal(hook.Server(l.Server).Links, 0)
		})
	}
}

func TestStorm_silentSocketsAreClosedOverWebSocket(t *testing.T) {
	is := is.New(t)
	l := lab.New()
	l.Limits.HandshakeTimeout = 100 * time.Millisecond
	hs := httptest.NewServer(l.Server)
	defer hs.Close()
	n := testkit.Size(400, 400)
	codes := make(chan websocket.StatusCode, n)
	for range n {
		go func() {
			c, _, err := websocket.Dial(t.Context(), hs.URL, &websocket.DialOptions{Subprotocols: []string{testkit.HelloProtocol}})
			if err != nil {
				codes <- 0
				return
			}
			_, _, err = c.Read(t.Context())
			codes <- websocket.CloseStatus(err)
		}()
	}
	for range n {
		is.Equal(<-codes, websocket.StatusCode(session.CloseTimeout))
	}
	is.NoErr(l.Shutdown(t.Context()))
}

func TestStorm_plainSocketsAreHeldToTheCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		l.MaxPlainConns = 100
		n := testkit.Size(5_000, 5_000)
		peers := make(chan *testkit.Peer, n)
		errs := make(chan error, n)
		for range n {
			go func() {
				p, err := testkit.Join(l.Server, "")
				errs <- err
				if err == nil {
					peers <- p
				}
			}()
		}
		refused := 0
		for range n {
			if err := <-errs; err != nil {
				is.True(strings.HasPrefix(err.Error(), "503"))
				refused++
			}
		}
		is.Equal(refused, n-100)
		p, err := testkit.Join(l.Server, testkit.HelloProtocol) // others are not held up by them
		is.NoErr(err)
		_, err = p.Hello()
		is.NoErr(err)
		p.T.Kill()
		for range 100 {
			(<-peers).T.Kill()
		}
		synctest.Wait()
		one, err := testkit.Join(l.Server, "") // room again
		is.NoErr(err)
		one.T.Kill()
	})
}
