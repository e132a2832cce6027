package server

import (
	"net"
	"net/http"
	"time"

	"github.com/typedrpc/typedrpc/internal/link"
)

// taken is what is known of the bytes of an answer that the kernel has: on a fast line that is
// megabytes, and it takes no more before a third of them has left. While one is written it is
// asked once a second, and what has left is progress. Under exchange.mu, but for what is fixed.
type taken struct {
	held   func(local net.Addr, remote string) (n int, ok bool) // fixed; nil: not asked
	local  net.Addr
	remote string

	timer   *time.Timer // nil: nothing has been written
	writing bool
	by      time.Time // until when all has to be written; zero: for ever
	mark    int       // that it had
}

const (
	// takenEvery is how often the kernel is asked.
	takenEvery = time.Second
	// leastTaken is what it has to have sent: less may be its own bookkeeping.
	leastTaken = 8 << 10
)

// asks has the kernel asked about r's connection, unless it is not r's alone.
func (t *taken) asks(r *http.Request) {
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && r.ProtoMajor == 1 {
		t.held, t.local, t.remote = link.Unsent, local, r.RemoteAddr
	}
}

// beginWrite has the deadline of what is written move on, to by at the latest, as the client
// takes it. endWrite has to be called.
func (x *exchange) beginWrite(by time.Time) {
	t := &x.took
	if t.held == nil || x.limits.WriteTimeout <= 0 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	t.writing, t.by = true, by
	if t.timer == nil {
		t.timer = time.AfterFunc(takenEvery, x.looks)
		return
	}
	t.timer.Reset(takenEvery)
}

func (x *exchange) endWrite() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if t := &x.took; t.writing {
		t.writing = false
		t.timer.Stop()
	}
}

// looks asks what the kernel has, while something is written.
func (x *exchange) looks() {
	t := &x.took
	n, ok := t.held(t.local, t.remote)
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case !ok || !t.writing || x.over:
		return
	case n > t.mark:
		t.mark = n
	case t.mark-n >= leastTaken:
		t.mark = n
		x.untilLocked(x.w.SetWriteDeadline, t.by, x.limits.WriteTimeout)
	}
	t.timer.Reset(takenEvery)
}
