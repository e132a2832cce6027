package link

import (
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
)

// kernel is an end of a pipe that says what a kernel would hold of what was written.
type kernel struct {
	*pipeEnd
	holds atomic.Int64 // -1: it does not tell
}

func (k *kernel) unsent() (int, bool) { return int(k.holds.Load()), k.holds.Load() >= 0 }

// TestLink_whatTheKernelSendsIsProgress has a write wait for longer than WriteTimeout,
// because the kernel has more than it takes at once, and goes on sending.
func TestLink_whatTheKernelSendsIsProgress(t *testing.T) {
	for name, tt := range map[string]struct {
		taken int64 // by the peer's kernel every second
		ends  bool
	}{
		"slow":              {2 << 10, false},
		"the kernel's own":  {256, true},
		"nothing":           {0, true},
		"it does not tell":  {-1, true},
		"it holds more now": {-100 << 10, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				near, far := Pipe()
				k := &kernel{pipeEnd: near.(*pipeEnd)}
				r := runOver(k, far, Options{WriteTimeout: 10 * time.Second})
				k.holds.Store(1 << 20)
				if tt.taken == -1 {
					k.holds.Store(-1)
				}
				r.send(string(make([]byte, pipeWindow)))
				synctest.Wait()
				began := time.Now()
				r.send("more than the pipe holds")
				for range 60 {
					time.Sleep(time.Second)
					if tt.taken != -1 {
						k.holds.Add(-tt.taken)
					}
				}
				if !tt.ends {
					is.NoErr(r.Err())
					k.holds.Store(1000) // and now it stands still
					time.Sleep(12 * time.Second)
				}
				is.True(errors.Is(<-r.end, ErrStalled))
				is.True(time.Since(began) < 73*time.Second)
			})
		})
	}
}

// TestLink_answersBehindWhatIsRead has a peer be silent for as long as it has not read what is in
// front of the question whether it is there.
func TestLink_answersBehindWhatIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		near, far := Pipe()
		k := &kernel{pipeEnd: near.(*pipeEnd)}
		r := runOver(k, far, Options{WriteTimeout: 10 * time.Second})
		k.holds.Store(4 << 20)
		r.KeepAlive(20*time.Second, 4408)
		for range 80 {
			time.Sleep(time.Second)
			k.holds.Add(-50 << 10)
		}
		is.NoErr(r.Err())
		began := time.Now()
		is.True(errors.Is(<-r.end, ErrSilent)) // it has read all, and says nothing
		is.True(time.Since(began) <= 40*time.Second)
	})
}

// TestWS_unsent is asked of a socket: nothing, then what the peer does not read, then less.
func TestWS_unsent(t *testing.T) {
	is := is.New(t)
	client, server := sockets(t, DialOptions{})
	if _, ok := server.(acknowledged).unsent(); !ok {
		t.Skip("not told here")
	}
	part := make([]byte, 64<<10)
	client.SetReadLimit(1 << 20)
	written, stop := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(written)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if server.Write(part, false, func() {}) != nil {
				return
			}
		}
	}()
	holds := func() int {
		n, ok := server.(acknowledged).unsent()
		is.True(ok)
		return n
	}
	most := 0
	for most < 1<<20 { // more than a kernel has on its way here
		most = max(most, holds())
		runtime.Gosched()
	}
	close(stop)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for {
			if _, err := read(client); err != nil {
				return
			}
		}
	}()
	<-written
	for holds() > most/2 {
		runtime.Gosched()
	}
	client.Kill()
	<-drained
}
