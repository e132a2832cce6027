package server

import (
	"errors"
	"io"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/status"
)

// exchange is the body of a POST and the answer to it while they are on their
// way: what pays for them, and deadlines that move on as they get on. Where the
// http.ResponseWriter has none, as behind some middleware, a body that comes
// slowly is given up with its next part only.
type exchange struct {
	w       *response
	limits  *flow.Limits
	account flow.Account
	body    int // bytes of the account for the body's buffer …
	answer  int // … and for the answer's

	streams bool  // what is called is a stream; fixed before there is conn
	feed    *feed // the body of one that takes items; nil: it has none; fixed, too

	// the http.Server's own deadlines, zero: none
	readBy, writeBy time.Time

	mu      sync.Mutex
	conn    *engine.Conn  // that has the handlers; nil: none have begun
	ended   *HTTPRefusal  // what it is answered with instead; nil: it goes on
	cause   *status.Error // why
	writing bool
	over    bool
	took    taken
	events  *events // what a GET's items are written by; nil: it has none

	subject *string // whose it is; nil: not authenticated yet; under Server.mu
}

const (
	// bodyBuffer is what a body begins in.
	bodyBuffer = 1 << 10
	// bodyPart is after how much of a body others have their turns.
	bodyPart = 64 << 10
	// answerPart is the most of an answer that is written without a sign of
	// progress.
	answerPart = 32 << 10
)

func (s *Server) newExchange(w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{w: &response{w, http.NewResponseController(w)}, limits: &s.o.Config.Limits}
	x.took.asks(r)
	if hs, ok := r.Context().Value(http.ServerContextKey).(*http.Server); ok {
		now := time.Now()
		if hs.ReadTimeout > 0 {
			x.readBy = now.Add(hs.ReadTimeout)
		}
		if hs.WriteTimeout > 0 {
			x.writeBy = now.Add(hs.WriteTimeout)
		}
	}
	x.account.Open(s.o.Config.Ledger, func() {
		s.o.Config.Logger.Warn("typedrpc: POST ended: of all it holds the most of Server.MaxMemory, which is nearly full", "bytes", x.account.Used())
		x.end(noRoom(), errFull)
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.posts[x] = struct{}{}
	return x
}

// end ends what is under way, and has it answered with h. The contexts of its
// handlers have ended when it returns.
func (x *exchange) end(h *HTTPRefusal, cause *status.Error) {
	x.mu.Lock()
	if x.over || x.ended != nil {
		conn := x.conn
		x.mu.Unlock()
		if conn != nil { // who ends it may not have come to that
			conn.Expel(&link.CloseError{Err: cause}, nil)
		}
		return
	}
	x.ended, x.cause = h, cause
	// The deadline that wakes its reader has net/http end the context of whatever comes
	// over this connection next. What reads events has no reader, and its head has left.
	h.Header.Set("Connection", "close")
	now := time.Now()
	if x.events == nil {
		x.w.SetReadDeadline(now)
	}
	if x.writing {
		x.w.SetWriteDeadline(now)
	}
	conn := x.conn
	x.mu.Unlock()
	if conn != nil {
		conn.Expel(&link.CloseError{Err: cause}, nil)
	}
}

var errFull = status.Errorf(status.ResourceExhausted, "the server is nearly full, and this request holds the most of it")

// begin notes the connection that has the handlers, and expels it if the exchange
// was ended before.
func (x *exchange) begin(c *engine.Conn) {
	x.mu.Lock()
	x.conn = c
	ended, cause := x.ended != nil, x.cause
	x.mu.Unlock()
	if ended {
		c.Expel(&link.CloseError{Err: cause}, nil)
	}
}

// endExchange gives everything back. Nothing is touched after it.
func (s *Server) endExchange(x *exchange) {
	x.mu.Lock()
	x.over = true
	x.taken()
	x.answers(0)
	x.account.Close()
	x.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.posts, x)
	s.checkEndedLocked()
}

// until moves a deadline, to by at the latest. d 0 leaves by. It reports false
// where there are none.
func (x *exchange) until(set func(time.Time) error, by time.Time, d time.Duration) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.untilLocked(set, by, d)
}

func (x *exchange) untilLocked(set func(time.Time) error, by time.Time, d time.Duration) bool {
	if x.ended != nil {
		return true
	}
	if d > 0 {
		if t := time.Now().Add(d); by.IsZero() || t.Before(by) {
			by = t
		}
	}
	return set(by) == nil
}

// refuse answers a request of which the body may still come: net/http waits for
// what is left of it, and that not for ever.
func (x *exchange) refuse(h *HTTPRefusal) {
	if x.limits.MinRate > 0 {
		x.until(x.w.SetReadDeadline, x.readBy, flow.RateWindow)
	}
	h.Write(x.w)
}

// read reads the body, or says why not.
func (x *exchange) read(r *http.Request) (*buf.Buf, *HTTPRefusal) {
	b, err := x.readAll(http.MaxBytesReader(x.w.ResponseWriter, r.Body, int64(x.limits.MaxMessage)))
	if err == nil {
		// As net/http does where the body had an end to reach: it watches now
		// whether the client leaves, for as long as the handler takes.
		x.until(x.w.SetReadDeadline, time.Time{}, 0)
		return b, nil
	}
	b.Release()
	var tooBig *http.MaxBytesError
	switch {
	case errors.As(err, &tooBig):
		return nil, refuse(http.StatusRequestEntityTooLarge, "the request has more than %d bytes", tooBig.Limit)
	case err == errNoRoom:
		return nil, noRoom()
	case x.wasEnded() != nil:
		return nil, x.wasEnded()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, tooSlow()
	}
	return nil, cutOff() // if somebody is there
}

func tooSlow() *HTTPRefusal {
	h := refuse(http.StatusRequestTimeout, "the request came too slowly")
	h.Header.Set("Connection", "close")
	return h
}

func cutOff() *HTTPRefusal {
	h := refuse(http.StatusBadRequest, "the request ended before all of it had come")
	h.Header.Set("Connection", "close")
	return h
}

var errNoRoom = errors.New("no room for the body")

func noRoom() *HTTPRefusal {
	h := refuse(http.StatusServiceUnavailable, "the server is nearly full, try again later")
	h.Header.Set("Retry-After", "1")
	h.Header.Set("Connection", "close")
	return h
}

func (x *exchange) wasEnded() *HTTPRefusal {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.ended
}

// readAll reads the body into a buffer that is paid for as it grows. It always
// returns a buffer.
func (x *exchange) readAll(body io.Reader) (*buf.Buf, error) {
	b := buf.Sized(bodyBuffer)
	if !x.grow(cap(b.B)) {
		return b, errNoRoom
	}
	least := int(x.limits.Least(flow.RateWindow))
	timed, from, since := false, 0, time.Now()
	for {
		if least > 0 && (!timed && from == 0 || len(b.B)-from >= least) {
			timed = x.until(x.w.SetReadDeadline, x.readBy, flow.RateWindow)
			from, since = len(b.B), time.Now()
		}
		if len(b.B) == cap(b.B) {
			next := x.sized(x.larger(cap(b.B)))
			if next == nil {
				return b, errNoRoom
			}
			next.B = append(next.B, b.B...)
			b.Release()
			b = next
		}
		n, err := body.Read(b.B[len(b.B):cap(b.B)])
		b.B = b.B[:len(b.B)+n]
		if parts := len(b.B) / bodyPart; parts > (len(b.B)-n)/bodyPart {
			runtime.Gosched() // all of it may have come: others have their turns
		}
		switch {
		case err == io.EOF:
			return b, nil
		case err != nil:
			return b, err
		case least > 0 && !timed && len(b.B)-from < least && time.Since(since) > flow.RateWindow:
			return b, os.ErrDeadlineExceeded
		}
	}
}

// larger is the size of the buffer that comes after one of n bytes that is full. Garbage of many
// that grow at once is what this bounds: beyond half a mebibyte it is not doubled.
func (x *exchange) larger(n int) int {
	size := 2 * n
	if size > 512<<10 {
		size = n / 2 * 3
	}
	return buf.Room(min(size, x.limits.MaxMessage+besideBody))
}

// besideBody is for what is around the largest message.
const besideBody = 512

// sized returns a buffer that is paid for, instead of the one that there is; nil: there is no room.
// It is paid for first: those of all who are refused would be more than there may be.
func (x *exchange) sized(size int) *buf.Buf {
	if !x.grow(size) {
		return nil
	}
	return buf.Sized(size)
}

// grow pays for a body's buffer of n bytes instead of the one that there is.
func (x *exchange) grow(n int) bool {
	if !x.account.Take(n - x.body) {
		return false
	}
	x.body = n
	return true
}

// taken is called when the body was handed on, and its buffer is gone.
func (x *exchange) taken() {
	x.account.Give(x.body)
	x.body = 0
}

// answers pays for an answer of n bytes.
func (x *exchange) answers(n int) {
	x.account.Force(n - x.answer)
	x.answer = n
}

// write writes the answer, unless the client does not read it. asked says that there has
// to be one.
func (x *exchange) write(answer []byte, asked bool) {
	x.mu.Lock()
	ended := x.ended
	x.writing = true
	x.mu.Unlock()
	switch {
	case ended != nil:
		x.refuse(ended)
		return
	case len(answer) == 0 && asked:
		x.refuse(refuse(http.StatusServiceUnavailable, "the request was given up before it had been answered"))
		return
	case len(answer) == 0:
		x.w.WriteHeader(http.StatusNoContent) // only notifications
		return
	}
	x.w.Header().Set("Content-Type", "application/json")
	x.beginWrite(x.writeBy)
	defer x.endWrite()
	if len(answer) > answerPart { // so that net/http has little to write when nobody asks the kernel any more
		x.w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	}
	for part := range slices.Chunk(answer, answerPart) {
		// It holds for what net/http writes when the handler has returned, too,
		// and is gone when it waits for the next request.
		x.until(x.w.SetWriteDeadline, x.writeBy, x.limits.WriteTimeout)
		if _, err := x.w.Write(part); err != nil {
			return
		}
		runtime.Gosched() // it may all fit into the kernel's buffers: others have their turns
	}
}
