package link

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/testkit/live"
)

// upper is a layer above that sends lines and notes what arrives. Each Fill
// takes all that is queued, as a session does.
type upper struct {
	mu      sync.Mutex
	queue   []byte
	got     []string
	idles   int
	deliver func(msg []byte) error // may be nil
}

func (u *upper) push(s string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.queue = append(u.queue, s...)
}

func (u *upper) Fill(scratch *buf.Buf) *buf.Buf {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.queue) == 0 {
		return nil
	}
	scratch.B = append(scratch.B, u.queue...)
	u.queue = u.queue[:0]
	return scratch
}

func (u *upper) Deliver(b *buf.Buf, _ bool) error {
	msg := b.B
	u.mu.Lock()
	defer u.mu.Unlock()
	u.got = append(u.got, string(msg))
	if u.deliver != nil {
		return u.deliver(msg)
	}
	return nil
}

func (u *upper) Rest() {}

func (u *upper) Idle() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.idles++
}

func (u *upper) received() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]string(nil), u.got...)
}

func (u *upper) idled() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.idles
}

// running is a link whose Run is under way over one end of a pipe; the test
// holds the other.
type running struct {
	*Link
	up   *upper
	peer Transport
	end  chan error
}

func run(o Options) *running {
	near, far := Pipe()
	return runOver(near, far, o)
}

func runOver(near, far Transport, o Options) *running {
	u := new(upper)
	r := &running{Link: New(near, u, o), up: u, peer: far, end: make(chan error, 1)}
	go func() { r.end <- r.Run() }()
	return r
}

func (r *running) send(s string) {
	r.up.push(s)
	r.Wake()
}

func (r *running) hasWriter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.writer
}

// stop ends the link and waits for it.
func (r *running) stop() {
	r.Fail(&CloseError{Err: errors.New("the test is over")})
	<-r.end
}

func read(t Transport) (string, error) {
	b, _, err := t.Read(func() {})
	defer b.Release()
	return string(b.Bytes()), err
}

func TestLink_writesWhatIsQueuedInOneMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		r := run(Options{})
		synctest.Wait() // the writer has found nothing and waits
		for i := range 5 {
			r.up.push(fmt.Sprint(i))
		}
		r.Wake()
		got, err := read(r.peer)
		is.NoErr(err)
		is.Equal(got, "01234")
		r.stop()
	})
}

func TestLink_gathersWhileAWriteStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		r := run(Options{})
		big := string(bytes.Repeat([]byte("x"), pipeWindow))
		r.send(big)
		synctest.Wait()
		r.send("first") // does not fit into the pipe
		synctest.Wait()
		for range 10 {
			r.send(".")
		}
		for _, want := range []string{big, "first", ".........."} {
			got, err := read(r.peer)
			is.NoErr(err)
			is.True(got == want)
		}
		r.stop()
	})
}

func TestLink_writerRetiresWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		before := live.Goroutines()
		r := run(Options{})
		r.send("hello")
		synctest.Wait()
		is.True(r.hasWriter())
		time.Sleep(3 * linger)
		synctest.Wait()
		is.True(!r.hasWriter())
		is.True(live.Goroutines() <= before+1) // the reader
		r.send("again")                        // and a new one is started for the next message
		synctest.Wait()
		is.True(r.hasWriter())
		r.stop()
	})
}

// Wakes at the very instants at which the writer is asked to retire: none of
// them may be lost.
func TestLink_noWakeIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		r := run(Options{})
		rng := rand.New(rand.NewPCG(1, 2))
		for i := range 5000 {
			time.Sleep(time.Duration(rng.IntN(4)) * linger / 2)
			var wg sync.WaitGroup
			for range rng.IntN(3) + 1 {
				wg.Go(func() { r.send("x") })
			}
			wg.Wait()
			synctest.Wait()
			if len(r.up.queue) > 0 {
				t.Fatalf("round %d: a message was queued and nobody wrote it", i)
			}
			for len(r.peer.(*pipeEnd).in.queue) > 0 {
				_, err := read(r.peer)
				is.NoErr(err)
			}
		}
		r.stop()
	})
}

func TestLink_stalledWriteEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		r := run(Options{WriteTimeout: 10 * time.Second})
		r.send(string(make([]byte, pipeWindow)))
		time.Sleep(time.Minute) // an idle link with an unread message is not a stalled write
		is.NoErr(r.Err())
		began := time.Now()
		r.send("more than the pipe holds")
		err := <-r.end
		is.True(errors.Is(err, ErrStalled))
		took := time.Since(began)
		is.True(took >= 10*time.Second && took <= 10*time.Second+2*linger)
	})
}

func TestLink_slowReaderIsNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		r := run(Options{WriteTimeout: 10 * time.Second})
		for range 20 {
			r.send(string(make([]byte, pipeWindow)))
			synctest.Wait()
			time.Sleep(9 * time.Second)
			_, err := read(r.peer)
			is.NoErr(err)
		}
		is.NoErr(r.Err())
		r.stop()
	})
}

func TestLink_keepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		r := run(Options{})
		r.KeepAlive(20*time.Second, 4408)
		time.Sleep(20*time.Second - time.Nanosecond)
		is.Equal(r.up.idled(), 0)
		time.Sleep(2 * time.Nanosecond)
		synctest.Wait()
		is.Equal(r.up.idled(), 1) // one question, after one interval
		time.Sleep(20*time.Second - 3)
		is.NoErr(r.Err())
		time.Sleep(3 * time.Nanosecond)
		synctest.Wait()
		var ce *CloseError
		is.True(errors.As(r.Err(), &ce))
		is.Equal(ce.Code, 4408)
		is.True(errors.Is(ce, ErrSilent))
		is.Equal(r.up.idled(), 1)
		_, err := read(r.peer)
		is.True(errors.As(err, &ce) && ce.Remote)
		is.Equal(ce.Code, 4408) // the peer is told, should it live
		<-r.end
	})
}

// trickle is a transport whose writes never end and go on all the time.
type trickle struct {
	Transport
	done chan struct{}
}

func (s trickle) Write(_ []byte, _ bool, progress func()) error {
	for {
		select {
		case <-s.done:
			return errors.New("killed")
		case <-time.After(9 * time.Second):
			progress()
		}
	}
}

func TestLink_slowWriteIsNoStallAndNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		near, far := Pipe()
		tr := trickle{near, make(chan struct{})}
		r := runOver(tr, far, Options{WriteTimeout: 10 * time.Second})
		r.KeepAlive(20*time.Second, 4408)
		r.send("a large message")
		time.Sleep(10 * time.Minute)
		is.NoErr(r.Err())
		close(tr.done)
		r.stop()
	})
}

func TestLink_keepAliveStartsOverWithEveryMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		r := run(Options{})
		r.KeepAlive(20*time.Second, 4408)
		for range 10 {
			time.Sleep(39 * time.Second)
			is.NoErr(r.peer.Write([]byte("alive"), false, func() {}))
			synctest.Wait()
		}
		is.NoErr(r.Err())
		is.Equal(r.up.idled(), 10) // asked once in every silence
		r.stop()
	})
}

func TestLink_keepAliveNotAskedWhileTheresTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		r := run(Options{})
		r.KeepAlive(20*time.Second, 4408)
		for range 30 {
			time.Sleep(10 * time.Second)
			is.NoErr(r.peer.Write([]byte("x"), false, func() {}))
		}
		is.Equal(r.up.idled(), 0)
		r.stop()
	})
}

func TestLink_firstCauseWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		r := run(Options{})
		synctest.Wait()
		first := &CloseError{Code: 4400, Reason: "first"}
		r.Fail(first)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { r.Fail(&CloseError{Code: 1000, Reason: "later"}) })
		}
		wg.Wait()
		_, err := read(r.peer)
		var ce *CloseError
		is.True(errors.As(err, &ce))
		is.Equal(ce.Code, 4400)
		is.True(<-r.end == error(first))
		is.True(r.Err() == error(first))
		<-r.Done()
	})
}

func TestLink_failRacesLeaveOneCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		for range 200 {
			r := run(Options{})
			for i := range 4 {
				go r.Fail(&CloseError{Code: 4000 + i})
			}
			go r.send("x")
			go r.peer.Kill()
			err := <-r.end
			is.True(err != nil)
			is.Equal(err, r.Err())
		}
	})
}

func TestLink_peersCloseIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		r := run(Options{})
		is.NoErr(r.peer.Write([]byte("last words"), false, func() {}))
		r.peer.Close(4403, "go away")
		var ce *CloseError
		is.True(errors.As(<-r.end, &ce))
		is.Equal(ce.Code, 4403)
		is.Equal(ce.Reason, "go away")
		is.True(ce.Remote)
		is.Equal(r.up.received(), []string{"last words"}) // what came before the close is delivered
	})
}

func TestLink_lossHasNoCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		r := run(Options{})
		r.peer.Kill()
		var ce *CloseError
		is.True(errors.As(<-r.end, &ce))
		is.Equal(ce.Code, 0)
		is.True(ce.Err != nil)
	})
}

func TestLink_deliverErrorClosesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		r := run(Options{})
		r.up.deliver = func([]byte) error { return &CloseError{Code: 4400, Reason: "nonsense"} }
		is.NoErr(r.peer.Write([]byte("x"), false, func() {}))
		_, err := read(r.peer)
		var ce *CloseError
		is.True(errors.As(err, &ce))
		is.Equal(ce.Code, 4400)
		is.Equal(ce.Reason, "nonsense")
		<-r.end
	})
}

func TestLink_nothingIsDeliveredAfterFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		near, far := Pipe()
		r := runOver(&lateReader{Transport: near}, far, Options{})
		synctest.Wait()
		go r.Fail(&CloseError{Code: 1000}) // the transport yields a message at the same moment
		is.True(<-r.end != nil)
		is.Equal(r.up.received(), nil)
	})
}

// lateReader reads a message when it is closed.
type lateReader struct {
	Transport
	once sync.Once
}

func (l *lateReader) Read(progress func()) (*buf.Buf, bool, error) {
	b, text, err := l.Transport.Read(progress)
	l.once.Do(func() { b, err = buf.Copy([]byte("too late")), nil })
	return b, text, err
}

func TestLink_nothingMovesBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		near, far := Pipe()
		u := new(upper)
		l := New(near, u, Options{})
		u.push("early")
		l.Wake()
		synctest.Wait()
		is.Equal(len(far.(*pipeEnd).in.queue), 0)
		end := make(chan error, 1)
		go func() { end <- l.Run() }()
		got, err := read(far)
		is.NoErr(err)
		is.Equal(got, "early")
		far.Kill()
		<-end
	})
}

func TestLink_failBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		near, far := Pipe()
		l := New(near, new(upper), Options{})
		l.Fail(&CloseError{Code: 1012, Reason: "draining"})
		var ce *CloseError
		is.True(errors.As(l.Run(), &ce))
		is.Equal(ce.Code, 1012)
		_, err := read(far)
		is.True(errors.As(err, &ce) && ce.Code == 1012)
	})
}

// sticky is a transport whose close handshake hangs until it is killed.
type sticky struct {
	Transport
	killed chan struct{}
	once   sync.Once
}

func (s *sticky) Close(int, string) { <-s.killed }
func (s *sticky) Kill() {
	s.once.Do(func() { close(s.killed) })
	s.Transport.Kill()
}

func TestLink_goodbyeIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		before := live.Goroutines()
		near, far := Pipe()
		r := runOver(&sticky{Transport: near, killed: make(chan struct{})}, far, Options{WriteTimeout: time.Minute})
		r.send("x")
		synctest.Wait()
		began := time.Now()
		r.Fail(&CloseError{Code: 1000, Reason: "bye"})
		<-r.end
		is.Equal(time.Since(began), goodbye)
		synctest.Wait()
		is.True(live.Goroutines() <= before) // Run joined the writer and the goodbye
	})
}

func TestLink_failDuringAStalledWriteEndsTheWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		r := run(Options{})
		r.send(string(make([]byte, pipeWindow)))
		synctest.Wait()
		r.send("stuck")
		synctest.Wait()
		r.Fail(&CloseError{Code: 1000})
		<-r.end
		is.True(r.Err() != nil)
	})
}

// failing refuses to write, as a socket does whose reader has not noticed yet.
type failing struct{ Transport }

func (failing) Write([]byte, bool, func()) error { return errors.New("broken pipe") }

func TestLink_writeErrorEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		near, far := Pipe()
		r := runOver(failing{near}, far, Options{})
		r.send("x")
		err := <-r.end
		var ce *CloseError
		is.True(errors.As(err, &ce))
		is.Equal(ce.Code, 0)
		is.Equal(ce.Err.Error(), "broken pipe")
	})
}

func TestLink_readerKnowsBetterWhyAWriteFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		near, far := Pipe()
		r := runOver(failing{near}, far, Options{})
		r.send("x")
		synctest.Wait()
		far.Close(1012, "restart")
		var ce *CloseError
		is.True(errors.As(<-r.end, &ce))
		is.Equal(ce.Code, 1012)
	})
}

// A clock that was set back hid a dead peer for as long.
func TestLink_clockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		near, far := Pipe()
		defer far.Kill()
		r := runOver(near, far, Options{})
		synctest.Wait()
		r.lastRead.Add(int64(time.Hour)) // the last byte came in an hour
		began := time.Now()
		r.KeepAlive(time.Second, 4408)
		is.True(errors.Is(<-r.end, ErrSilent))
		is.True(time.Since(began) < 4*time.Second)
	})
}

func TestCloseError_texts(t *testing.T) {
	is := is.New(t)
	is.Equal((&CloseError{Err: ErrStalled}).Error(), "link lost: "+ErrStalled.Error())
	is.Equal((&CloseError{Code: 4403, Reason: "no", Remote: true}).Error(), "link closed by the peer with code 4403: no")
	is.Equal((&CloseError{Code: 4400, Reason: "no", Err: errors.New("why")}).Error(), "closing the link with code 4400: no: why")
}
