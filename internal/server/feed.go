package server

import (
	"errors"
	"io"
	"net/http"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// feedVerb is what begins the client stream whose items a POST sends. No method has such a
// name.
const feedVerb = "POST items"

// sequences are the types of bodies that are items, and whether each has a line.
var sequences = map[string]bool{"application/json-seq": false, "application/x-ndjson": true, "application/jsonl": true}

// feed is a body that is items, which are handed on as they come. What the stream has no
// room for is not read.
type feed struct {
	x    *exchange
	body io.Reader
	seq  wire.Sequence

	b    *buf.Buf
	at   int   // bytes of it that were handed on
	came int64 // bytes of the body
	all  bool  // it has ended

	// while something is half received
	half  bool
	item  int       // which one
	from  int64     // came, when the deadline was set …
	since time.Time // … and when that was
	timed bool      // there is one

	refused *HTTPRefusal // what the POST is answered, because its body has not come whole; nil: as it goes

	mu      sync.Mutex
	stopped bool // nothing more is read …
	early   bool // … though there may be more
}

const (
	feedBuffer  = 4 << 10
	feedKeeps   = 64 << 10 // a larger buffer is given back when what needed it has been handed on
	errFeedDone = feedError("the items have been read, or are not wanted")
)

type feedError string

func (e feedError) Error() string { return string(e) }

// serveFeed calls a client stream with a body that is its items.
func (s *Server) serveFeed(x *exchange, r *http.Request, id Identity, name, params string, lines bool) {
	what, known := s.o.Readable(name)
	switch {
	case !known:
		x.refuse(refuse(http.StatusNotFound, "there is no method %q", name))
		return
	case !what.Takes:
		x.refuse(refuse(http.StatusBadRequest, "%q is no client stream, and takes no items; POST a request with Content-Type: application/json, or connect with a WebSocket", name))
		return
	case !s.reservePlain():
		x.refuse(refuse(http.StatusServiceUnavailable, "too many plain connections; try again later"))
		return
	}
	defer s.unreservePlain()
	if params == "" {
		params = "null"
	}
	l := x.limits
	f := &feed{x: x, body: r.Body, seq: wire.Sequence{Lines: lines, Max: l.MaxMessage, MaxDepth: l.MaxDepth}}
	x.feed, x.streams = f, true
	// The http.Server's own deadlines are for requests which end.
	x.readBy, x.writeBy = time.Time{}, time.Time{}
	x.until(x.w.SetWriteDeadline, time.Time{}, 0)
	defer x.expires(id)()
	s.serveBody(x, r, id, x.request(`"method":"`+feedVerb+`","params":{"method":`, name, `,"params":`, params+"}"))
}

// run hands the items to the stream that the connection has begun. whole is false where the
// client has gone, or what it sends does not come: then the stream was broken off.
func (f *feed) run(c *engine.Conn, left, killed <-chan struct{}) (whole bool) {
	f.b = buf.Sized(feedBuffer)
	defer func() { f.b.Release(); f.b = nil }() // the answer may be long in coming
	if !f.x.grow(cap(f.b.B)) {
		c.EndFeed(status.Busy("an item"))
		return true
	}
	defer f.x.taken()
	f.until(0)
	for {
		item, err := f.next()
		switch {
		case err == nil:
			if !c.Feed(item, left, killed) {
				return true
			}
		case err == errFeedDone:
			return true
		case err == io.EOF:
			c.EndFeed(nil)
			return true
		case errors.Is(err, wire.ErrTooLong):
			c.EndFeed(status.Errorf(status.ResourceExhausted, "the items: %v", err))
			return true
		case errors.Is(err, wire.ErrMalformed), errors.Is(err, wire.ErrTruncated):
			c.EndFeed(status.Errorf(status.InvalidArgument, "the items: %v", err))
			return true
		case err == errNoRoom:
			c.EndFeed(status.Busy("an item"))
			return true
		case f.x.wasEnded() != nil:
			return false
		case errors.Is(err, os.ErrDeadlineExceeded):
			f.refused = tooSlow()
			c.EndFeed(errSlowItem)
			return false
		default:
			f.refused = cutOff() // if somebody is there
			c.EndFeed(errCutOff)
			return false
		}
	}
}

var (
	errSlowItem = status.Errorf(status.DeadlineExceeded, "an item came too slowly")
	errCutOff   = status.Errorf(status.Canceled, "the client left before it had sent all items")
)

// next returns the next item, which is good until the call after it. io.EOF: all have come.
func (f *feed) next() (item []byte, err error) {
	for {
		item, used, err := f.seq.Next(f.b.B[f.at:], f.all)
		f.at += used
		switch {
		case item != nil:
			f.item++
			return item, nil
		case err != nil:
			return nil, err
		case f.all:
			return nil, io.EOF
		}
		if err := f.more(); err != nil {
			return nil, err
		}
	}
}

// more reads more of the body.
func (f *feed) more() error {
	if err := f.room(); err != nil {
		return err
	}
	if f.isStopped() {
		return errFeedDone
	}
	least := int64(f.x.limits.Least(flow.RateWindow))
	was := f.half
	switch f.half = f.seq.Half(f.b.B); {
	case least <= 0:
	case f.half && (!was || f.item > 0 || f.came-f.from >= least):
		f.timed = f.until(flow.RateWindow)
		f.from, f.since, f.item = f.came, time.Now(), 0
	case was && !f.half: // between items the body may rest
		f.until(0)
	}
	b := f.b.B
	n, err := f.body.Read(b[len(b):cap(b)])
	f.b.B = b[:len(b)+n]
	if was := f.came; (was+int64(n))/bodyPart > was/bodyPart {
		runtime.Gosched() // much may have come at once
	}
	f.came += int64(n)
	switch {
	case f.isStopped():
		return errFeedDone
	case err == io.EOF:
		f.stop(false)
		f.all = true
		return nil
	case err == nil && least > 0 && f.half && !f.timed && f.came-f.from < least && time.Since(f.since) > flow.RateWindow:
		return os.ErrDeadlineExceeded
	}
	return err
}

// room makes room in the buffer, which begins with what has not been handed on then.
func (f *feed) room() error {
	rest := f.b.B[f.at:]
	size := cap(f.b.B)
	switch {
	case len(rest) == size:
		size = f.x.larger(size)
	case size > feedKeeps && len(rest) <= feedBuffer/2:
		size = feedBuffer
	}
	if size == cap(f.b.B) {
		f.b.B = f.b.B[:copy(f.b.B, rest)]
		f.at = 0
		return nil
	}
	next := f.x.sized(size)
	if next == nil {
		return errNoRoom
	}
	next.B = append(next.B, rest...)
	f.b.Release()
	f.b, f.at = next, 0
	return nil
}

// until moves the deadline for the body; 0: there is none. It reports false where there are
// no deadlines.
func (f *feed) until(d time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stopped || f.x.until(f.x.w.SetReadDeadline, time.Time{}, d)
}

// stop has nothing more read. With early the body has not ended, and who is reading it is
// woken; else net/http watches from now on whether the client leaves.
func (f *feed) stop(early bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.stopped:
		return
	case early:
		f.early = true
		f.x.w.SetReadDeadline(time.Now())
	default:
		f.x.until(f.x.w.SetReadDeadline, time.Time{}, 0)
	}
	f.stopped = true
}

// closes has the connection closed with the answer where something of the body is left. It
// is of no use: to net/http the deadline that has woken the reader is the client's leaving.
func (f *feed) closes(r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.early && r.ProtoMajor == 1 {
		f.x.w.Header().Set("Connection", "close")
	}
}

func (f *feed) isStopped() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stopped
}
