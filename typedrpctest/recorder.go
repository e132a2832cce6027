package typedrpctest

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/link"
)

// RecorderOptions are NewRecorder's. nil, and the zero value of every field,
// are fine.
type RecorderOptions struct {
	// Messages is how many messages are kept at most. Default 1,000.
	Messages int
	// Bytes is how many bytes their text has at most. Default 1 MiB.
	Bytes int
	// OmitPayloads leaves out what the program's users may have written:
	// payloads, of which only the size is told, and errors' messages.
	OmitPayloads bool
}

// Recorder keeps the last messages of a dialled connection, on all its links,
// for failing tests:
//
//	rec := typedrpctest.NewRecorder(nil)
//	rec.LogOnFailure(t)
//	client, server := typedrpctest.Pair(t, srv, rec.Tap(nil))
//
// A message is decoded when it is recorded, and its text is kept, not its
// bytes. There is a line for each frame: the time since the first line, the
// number of the link, -> for what the client sent and <- for what it
// received, the frame's name and fields, and the size and the beginning of its
// payload. A + after the arrow says that the frame came in one message with the
// one above. Other lines say how links began and ended.
//
//	0.000000s #1 opened "typedrpc.v1.json"
//	0.000000s #1 ->  HELLO attempt=1 received=0 features=streams,fragments
//	0.000000s #1 <-  WELCOME new token received=0 keepalive=20s features=streams,fragments
//	0.000000s #1 ->  ACK position=0
//	0.000000s #1 ->+ CALL id=1 "double" 2 B: 21
//	0.000000s #1 <-  RESULT id=1 2 B: 42
//
// No credentials, replies to them, session tokens or values of metadata are
// recorded, whatever the options say. Payloads are.
//
// The zero Recorder is one with default options. All methods may be called from any
// goroutine.
type Recorder struct {
	o RecorderOptions

	mu      sync.Mutex
	start   time.Time
	entries []string // a message each, its lines
	size    int      // of all of them
	dropped int
	links   int
}

// NewRecorder returns a recorder that has nothing to record yet.
func NewRecorder(o *RecorderOptions) *Recorder {
	r := &Recorder{}
	if o != nil {
		r.o = *o
	}
	return r
}

// bounds are how many messages are kept, and how many bytes of text.
func (o *RecorderOptions) bounds() (messages, bytes int) {
	messages, bytes = o.Messages, o.Bytes
	if messages <= 0 {
		messages = 1000
	}
	if bytes <= 0 {
		bytes = 1 << 20
	}
	return messages, bytes
}

// Tap returns a copy of o, which may be nil, with which one connection is
// dialled: by typedrpc.Dial, Pair, Dial or Host.Pair. What connections with
// that copy, or of another Tap, do at the same time is recorded together.
func (r *Recorder) Tap(o *typedrpc.DialOptions) *typedrpc.DialOptions {
	if o == nil {
		o = &typedrpc.DialOptions{}
	}
	return hook.Tap(o, r.made().tap).(*typedrpc.DialOptions)
}

// String returns what was recorded, a line for each frame.
func (r *Recorder) String() string {
	r.made().mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	if r.dropped > 0 {
		fmt.Fprintf(&b, "… %d earlier messages\n", r.dropped)
	}
	for _, e := range r.entries {
		b.WriteString(e)
	}
	return b.String()
}

// WriteTo writes what String returns. It implements io.WriterTo.
func (r *Recorder) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, r.String())
	return int64(n), err
}

// LogOnFailure logs what was recorded when the test has ended, if it failed.
// Call it before what is recorded registers its cleanups, such as Pair, and the
// end of the connection is recorded too.
func (r *Recorder) LogOnFailure(t testing.TB) {
	r.made()
	t.Cleanup(func() {
		if t.Failed() {
			t.Helper()
			t.Logf("what was sent and received:\n%s", r)
		}
	})
}

// tap is told what came of an attempt to connect.
func (r *Recorder) tap(t link.Transport, subprotocol string, err error) link.Transport {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.links++
	if err != nil {
		r.addLocked(r.links, "", "not connected: "+clean(err))
		return t
	}
	r.addLocked(r.links, "", fmt.Sprintf("opened %q", subprotocol))
	return &tapped{
		Transport: t, recorder: r, link: r.links,
		in: newDecoder(subprotocol, r.o.OmitPayloads), out: newDecoder(subprotocol, r.o.OmitPayloads),
	}
}

// clean is an error's text without URLs, which may hold secrets.
func clean(err error) string {
	for {
		var u *url.Error
		if !errors.As(err, &u) {
			return clip(err.Error(), 200)
		}
		err = u.Err
	}
}

func (r *Recorder) add(link int, arrow string, lines ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addLocked(link, arrow, lines...)
}

func (r *Recorder) addLocked(link int, arrow string, lines ...string) {
	now := time.Now()
	if r.start.IsZero() {
		r.start = now
	}
	head := fmt.Sprintf("%10.6fs #%d ", now.Sub(r.start).Seconds(), link)
	messages, bytes := r.o.bounds()
	var b strings.Builder
	for i, line := range lines {
		if b.Len() >= bytes/2 {
			fmt.Fprintf(&b, "%s%s … %d more frames\n", head, arrow, len(lines)-i)
			break
		}
		b.WriteString(head)
		if arrow != "" {
			b.WriteString(arrow)
			b.WriteString(map[bool]string{false: "  ", true: "+ "}[i > 0])
		}
		b.WriteString(line)
		b.WriteByte('\n')
	}
	r.entries = append(r.entries, b.String())
	r.size += b.Len()
	drop := 0
	for len(r.entries)-drop > messages || r.size > bytes && len(r.entries)-drop > 1 {
		r.size -= len(r.entries[drop])
		r.entries[drop] = ""
		drop++
	}
	r.dropped += drop
	r.entries = r.entries[drop:]
}

// tapped is a transport that a recorder listens to.
type tapped struct {
	link.Transport
	recorder *Recorder
	link     int
	in, out  *decoder // each of one goroutine at a time, as Read and Write are
	over     sync.Once
}

func (t *tapped) Read(progress func()) (*buf.Buf, bool, error) {
	b, text, err := t.Transport.Read(progress)
	if err != nil {
		t.over.Do(func() { t.recorder.add(t.link, "", "ended: "+clean(err)) })
	} else {
		t.recorder.add(t.link, "<-", t.in.lines(b.B, text)...)
	}
	return b, text, err
}

func (t *tapped) Write(msg []byte, text bool, progress func()) error {
	t.recorder.add(t.link, "->", t.out.lines(msg, text)...) // before its answer
	err := t.Transport.Write(msg, text, progress)
	if err != nil {
		t.recorder.add(t.link, "", "not sent: "+clean(err))
	}
	return err
}

func (t *tapped) Close(code int, reason string) {
	t.over.Do(func() { t.recorder.add(t.link, "", fmt.Sprintf("closed: %d %q", code, clip(reason, 200))) })
	t.Transport.Close(code, reason)
}

func (t *tapped) Kill() {
	t.over.Do(func() { t.recorder.add(t.link, "", "dropped") })
	t.Transport.Kill()
}
