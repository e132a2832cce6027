package link

import "time"

func (l *Link) touch() {
	t := time.Now()
	l.lastRead.Store(t.UnixNano())
	l.lastMono.Store(int64(t.Sub(l.began)))
}

func (l *Link) mono() int64 { return int64(time.Since(l.began)) }

// Silence is how long nothing was received, by the clock that went further. The
// wall clock goes on while a laptop sleeps: whoever wakes finds a peer dead that
// was silent all night, at once. The other one cannot be set back.
func (l *Link) Silence() time.Duration {
	t := time.Now()
	return time.Duration(max(t.UnixNano()-l.lastRead.Load(), int64(t.Sub(l.began))-l.lastMono.Load()))
}

// Received is how many bytes of messages have come. What has come of a message
// under way counts where the transport tells of it.
func (l *Link) Received() int64 {
	if l.in.data == nil {
		return l.got.Load()
	}
	return l.in.data.Load()
}

// Partway reports whether a part of a message has come, as far as the transport
// tells.
func (l *Link) Partway() bool { return l.in.seq.Load()%2 == 1 }

// SetReadLimit bounds the messages received from now on.
func (l *Link) SetReadLimit(n int64) { l.t.SetReadLimit(n) }

// Charge has a pay for messages while they are being received. It is called
// before Run.
func (l *Link) Charge(a Account) { l.in.account = a }

// Ping sends the transport's own keepalive, see Transport.
func (l *Link) Ping(answered func()) bool { return l.t.Ping(answered) }

// Stalled is how long the write under way has made no progress; 0: there is none. It is
// found out once a second.
func (l *Link) Stalled() time.Duration {
	at := l.writing.Load()
	if at == 0 {
		return 0
	}
	return time.Duration(l.mono() - at)
}

// acknowledged is a transport that may know what the peer's kernel has not taken of what was
// written; false: it does not.
type acknowledged interface{ unsent() (n int, ok bool) }

// leastTaken is what a peer's kernel has to take to have got on: less may be the kernel's own
// bookkeeping.
const leastTaken = 8 << 10

// left reports whether the peer's kernel has taken something since it was last asked, of which
// mark is kept: one that has megabytes takes no more before a third of that has left,
// and a peer answers nothing before it has read what is in front of the question.
func (l *Link) left(mark *int) bool {
	if l.below == nil {
		return false
	}
	n, ok := l.below.unsent()
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !ok:
	case n > *mark:
		*mark = n
	case *mark-n >= leastTaken:
		*mark = n
		return true
	}
	return false
}

// look runs every linger while a writer exists: it finds writes that stall
// and writers that have nothing to do.
func (l *Link) look() {
	if start := l.writing.Load(); start != 0 && l.stall > 0 && l.left(&l.held) {
		l.writing.CompareAndSwap(start, l.mono()+1)
	}
	if start := l.writing.Load(); start != 0 && l.stall > 0 && l.mono()-start >= int64(l.stall) {
		l.Fail(&CloseError{Err: ErrStalled})
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause != nil || !l.writer {
		return
	}
	if n := l.batches.Load(); n == l.seen && l.writing.Load() == 0 {
		l.retire = true
		select {
		case l.kick <- struct{}{}:
		default:
		}
	} else {
		l.seen = n
	}
	l.watch.Reset(linger)
}

// KeepAlive begins to watch the peer: Idle is called after one interval
// without a byte received, and the link ends with close code code after two.
func (l *Link) KeepAlive(interval time.Duration, code int) {
	if interval <= 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause != nil || l.alive != nil {
		return
	}
	l.interval = interval
	l.alive = time.AfterFunc(interval, func() { l.beat(code) })
}

func (l *Link) beat(code int) {
	silent := l.Silence()
	if l.left(&l.drained) || l.writing.Load() != 0 {
		// A large write makes progress, or else look ends the link; the
		// question whether the peer lives waits behind it.
		silent = min(silent, l.interval)
	}
	if silent >= 2*l.interval {
		l.Fail(&CloseError{Code: code, Reason: "no answer in time", Err: ErrSilent})
		return
	}
	next := l.interval - silent
	if silent >= l.interval {
		l.up.Idle()
		next = 2*l.interval - silent
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause == nil {
		l.alive.Reset(next)
	}
}
