// Package link drives one live connection: it reads whole messages and hands
// them up, and it writes what the layer above has ready, many frames to a
// message. It knows neither frames nor sessions nor user types.
package link

import (
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
)

// A Transport carries whole messages over one connection. Read is called by
// one goroutine, Write by one goroutine at a time; Close and Kill by any.
type Transport interface {
	// Read returns the next message, which the caller releases, calling
	// progress after every part of it that arrived. It takes a buffer only
	// when a message begins, so that an idle connection holds none. A close
	// by the peer is reported as a *CloseError.
	Read(progress func()) (b *buf.Buf, text bool, err error)
	// Write sends one message and retains nothing of it. It calls progress
	// as parts of a large one leave, so that slow is told from stalled.
	Write(msg []byte, text bool, progress func()) error
	// Close says goodbye with a close code and waits, bounded, for the
	// peer's answer. A Read under way returns.
	Close(code int, reason string)
	// Kill drops the connection at once. Read and Write return.
	Kill()
	// SetReadLimit bounds the size of one message, after decompression.
	SetReadLimit(n int64)
	// Ping sends a keepalive of the transport's own, for peers that have
	// none of ours. It does not wait for the answer, of which it tells answered;
	// nil: nobody. It reports false where there is no such thing.
	Ping(answered func()) bool
}

// Upper is the layer above a link.
type Upper interface {
	// Fill returns the next message: scratch, which is empty, or a buffer of
	// which the link is given a reference. nil means that there is nothing to
	// write until the next Wake. Called by the writer only.
	Fill(scratch *buf.Buf) *buf.Buf
	// Deliver takes a message that arrived, valid until it returns but for what
	// is claimed of it. Called by the reader only; it must not wait. An error ends
	// the link.
	Deliver(msg *buf.Buf, text bool) error
	// Idle is called when nothing was received for a keepalive interval.
	Idle()
	// Rest is called by the writer when it has had nothing to do for a while
	// and its goroutine ends: time to give up what is kept for being busy.
	Rest()
}

// Causes of a link's end that the link finds out itself.
var (
	ErrSilent  = errors.New("nothing received for two keepalive intervals")
	ErrStalled = errors.New("the peer does not read: a write made no progress in time")
	ErrSlow    = errors.New("a message that the peer began makes too little progress")
)

// largeBatch is a message, or what many come to, that keeps reader or writer busy
// for as long as others need to get ready.
const largeBatch = 16 << 10

const (
	// goodbye bounds a close handshake: long enough for a live peer's answer
	// over a slow path, short enough not to hold a shutdown. The transport
	// library's own bound is 5 s and more.
	goodbye = time.Second
	// linger is how long a writer without work stays before its goroutine
	// ends, and how often a write under way is looked at. A resident writer
	// costs about 5 kB on every idle connection; starting one for every
	// call costs a lone caller a third of its speed.
	linger = time.Second
)

// scratchBytes is what a writer has for small messages.
const scratchBytes = 2 << 10

// Options of a link. Zero durations switch the check off.
type Options struct {
	Text         bool          // messages that are written are text; see Speak
	WriteTimeout time.Duration // a write that makes no progress for so long ends the link
	MinRate      int           // bytes per second that a message being received makes at least; 0 or less: any will do
	Codes        Codes
}

// Link is one live connection with its reader and its writer.
type Link struct {
	t        Transport
	up       Upper
	text     atomic.Bool // messages that are written are text
	stall    time.Duration
	done     chan struct{} // closed by the first fail
	kick     chan struct{} // capacity 1: there is something to write
	began    time.Time
	lastRead atomic.Int64  // time of the last byte received, by the wall clock …
	lastMono atomic.Int64  // … and since began
	writing  atomic.Int64  // last progress of the write under way, since began; 0: none
	below    acknowledged  // nil: the transport does not tell
	onRead   func()        // touch, made once: a method value allocates
	onWrite  func()        // likewise
	batches  atomic.Uint64 // messages written, to tell an idle writer
	got      atomic.Int64  // bytes of messages received
	in       intake        // what is being received

	mu       sync.Mutex
	started  bool // Run was called, writers may be started
	writer   bool // a writer goroutine exists
	retire   bool // and should end if no wake is owed to it
	owed     bool // a Wake came since the writer last looked
	seen     uint64
	watch    *time.Timer // fires every linger; nil while there is no writer
	held     int         // what below has told look, less than leastTaken ago …
	drained  int         // … and what it has told beat
	interval time.Duration
	alive    *time.Timer // keepalive
	cause    error       // why the link ended; set once
	wg       sync.WaitGroup
}

// New makes a link over t. Nothing is read or written before Run.
func New(t Transport, up Upper, o Options) *Link {
	l := &Link{
		t: t, up: up, stall: o.WriteTimeout,
		done: make(chan struct{}), kick: make(chan struct{}, 1),
	}
	l.text.Store(o.Text)
	l.onRead = l.touch
	l.began = time.Now()
	l.onWrite = func() { l.writing.Store(l.mono() + 1) }
	l.in.rate, l.in.codes, l.in.link = int64(max(o.MinRate, 0)), o.Codes, l
	if w, ok := t.(watched); ok {
		w.watch(&l.in)
	}
	l.below, _ = t.(acknowledged)
	return l
}

// Run reads until the link ends and returns why. When it returns the
// transport is closed and every goroutine of the link has ended.
//
// It does so too when its goroutine ends, because a handler that it ran has ended that;
// then it does not return, and what is to follow it is its callers' to defer.
func (l *Link) Run() (cause error) {
	l.touch()
	l.mu.Lock()
	l.started = true
	l.mu.Unlock()
	l.Wake()

	err := error(errExited)
	defer func() {
		l.Fail(err)
		l.in.stop()
		l.mu.Lock()
		if l.alive != nil {
			l.alive.Stop()
		}
		l.mu.Unlock()
		l.wg.Wait()
		cause = l.cause
	}()
	for {
		if e := l.readOne(); e != nil {
			err = e
			return nil // the deferred function has it
		}
	}
}

var errExited = &CloseError{Err: errors.New("the goroutine that reads was ended")}

func (l *Link) readOne() error {
	b, text, err := l.t.Read(l.onRead)
	defer l.in.settle()
	defer b.Release()
	if err != nil {
		var ce *CloseError
		if errors.As(err, &ce) {
			return err
		}
		return &CloseError{Err: unexpected(err)}
	}
	size := int64(b.Len()) // less when something was claimed
	got := l.got.Add(size)
	select {
	case <-l.done:
		return l.Err() // given up: nothing more is taken from this link
	default:
	}
	if err := l.up.Deliver(b, text); err != nil {
		return err
	}
	if got/largeBatch != (got-size)/largeBatch {
		// Those that it woke have waited for this goroutine; behind a stream of
		// messages, and those of many links, they would go on to, until it is preempted.
		runtime.Gosched()
	}
	return nil
}

// unexpected is an error of the transport as others see it: that the peer hung
// up is no io.EOF to whoever looks into the cause, because with that a stream
// says that its items have come to an end.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return hungUp{err}
	}
	return err
}

type hungUp struct{ err error }

func (h hungUp) Error() string { return h.err.Error() }

func (h hungUp) Is(target error) bool {
	return target == io.ErrUnexpectedEOF || target != io.EOF && errors.Is(h.err, target)
}

func (h hungUp) As(target any) bool { return errors.As(h.err, target) }

// Fail ends the link. The first cause wins. A *CloseError of our own with a
// code is said to the peer, bounded; anything else drops the connection. Fail
// does not wait.
func (l *Link) Fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause != nil {
		return
	}
	l.cause = err
	close(l.done)
	if l.watch != nil {
		l.watch.Stop()
	}
	l.wg.Add(1)
	go l.bye(err)
}

// bye closes the transport, with a goodbye if there is one to say. It runs on
// its own goroutine because it may wait, for the peer or for the last bytes of
// TLS, and its caller is the reader, a timer or a user.
func (l *Link) bye(err error) {
	defer l.wg.Done()
	var ce *CloseError
	if errors.As(err, &ce) && !ce.Remote && ce.Code != 0 {
		timer := time.AfterFunc(goodbye, l.t.Kill)
		l.t.Close(ce.Code, ce.Reason)
		timer.Stop()
	}
	l.t.Kill()
}

// Kill ends the link without a goodbye, also one that is being said.
func (l *Link) Kill(err error) {
	l.Fail(err)
	l.t.Kill()
}

// Speak makes the messages that are written from now on text, or binary ones.
func (l *Link) Speak(text bool) {
	if l.text.Load() != text {
		l.text.Store(text)
	}
}

// Err returns why the link ended, nil while it lives.
func (l *Link) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cause
}

// Done is closed when the link begins to end.
func (l *Link) Done() <-chan struct{} { return l.done }

// Wake tells the link that Fill has something. It never waits. The layer
// above calls it when its queue stops being empty, not for every frame.
func (l *Link) Wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.started || l.cause != nil {
		return
	}
	if l.writer {
		l.owed = true
		select {
		case l.kick <- struct{}{}:
		default:
		}
		return
	}
	l.writer, l.retire, l.owed = true, false, false
	l.seen = l.batches.Load()
	l.watch = time.AfterFunc(linger, l.look)
	l.wg.Add(1)
	go l.write()
}

// write sends batches until there is nothing to send for a while.
func (l *Link) write() {
	defer l.wg.Done()
	scratch := buf.Sized(scratchBytes)
	defer scratch.Release()
	large := false
	for {
		// Goroutines that are ready to run may have frames for this batch:
		// one yield is worth a factor of four under load (docs/design.md).
		// While a large one was written they had the time.
		if !large {
			runtime.Gosched()
		}
		scratch.B = scratch.B[:0]
		msg := l.up.Fill(scratch)
		large = msg.Len() >= largeBatch
		if msg != nil {
			l.onWrite()
			err := l.t.Write(msg.B, l.text.Load(), l.onWrite)
			l.writing.Store(0)
			l.batches.Add(1)
			if msg != scratch {
				msg.Release()
			}
			if err != nil {
				l.writeFailed(err)
				return
			}
			select {
			case <-l.done:
				return
			default:
			}
			continue
		}
		select {
		case <-l.kick:
		case <-l.done:
			return
		}
		if l.retires() {
			l.up.Rest()
			return
		}
	}
}

func (l *Link) writeFailed(err error) {
	// When the peer closed, the reader knows better why: let it say so.
	select {
	case <-l.done:
	case <-time.After(goodbye):
		l.Fail(&CloseError{Err: err})
	}
}

// retires ends the writer if it was asked to and no wake is owed to it: one
// kick may stand for both.
func (l *Link) retires() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	end := l.retire && !l.owed
	l.retire, l.owed = false, false
	if end {
		l.writer = false
		l.watch.Stop()
		l.watch = nil // an idle link keeps none
	}
	return end
}
