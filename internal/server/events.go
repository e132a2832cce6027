package server

import (
	"bytes"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// events writes what a subscription tells as Server-Sent Events. What is told while the
// client reads slowly waits in its stream, and is bounded there.
type events struct {
	x      *exchange
	spread time.Duration // over which clients come back
	every  time.Duration // of silence there is a comment

	mu      sync.Mutex
	begun   bool
	over    bool   // nothing more is written
	refused []byte // the answer that says why there is no stream
	code    int64  // … and its code
	beat    *time.Timer
	room    []byte
}

// endID is the id of a stream's last event.
const endID = "end"

// write takes a message of the engine's, and calls progress as parts of it leave.
func (e *events) write(msg []byte, progress func()) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	b, err := e.eventLocked(msg)
	if len(b) == 0 || err != nil {
		return err
	}
	return e.sendLocked(b, progress)
}

// eventLocked is what is written for a message, if it is not the answer.
func (e *events) eventLocked(msg []byte) ([]byte, error) {
	if len(msg) >= flow.BulkFrom {
		defer flow.Bulk()()
	}
	n, err := wire.ReadNotice(msg)
	switch {
	case err != nil:
		return nil, err
	case e.over || e.x.wasEnded() != nil: // end says why
		return nil, errGone
	case n.Answer && n.Error != nil:
		e.refused, e.code = bytes.Clone(msg), n.Code
		return nil, nil
	case n.Answer:
		return nil, e.beginLocked()
	}
	b := e.room[:0]
	switch {
	case n.Done:
		b = append(b, "event: done\nid: "+endID+"\ndata: {}\n\n"...)
	case n.Error != nil:
		b = e.failed(b, n.Code, n.Error)
	default:
		if n.Missed > 0 {
			b = append(strconv.AppendUint(append(b, "event: missed\ndata: "...), n.Missed, 10), "\n\n"...)
		}
		if n.At != "" {
			b = append(append(append(b, "id: "...), n.At...), '\n')
		}
		b = append(appendData(b, n.Result), '\n')
	}
	if cap(b) <= answerPart {
		e.room = b
	}
	return b, nil
}

// failed appends the last event of a stream that has failed. Who was told to come later is
// told when.
func (e *events) failed(b []byte, code int64, object []byte) []byte {
	if code == int64(status.Unavailable) && e.spread > 0 {
		b = append(b, "retry: "...)
		b = append(strconv.AppendInt(b, rand.N(e.spread).Milliseconds(), 10), '\n')
	}
	return append(appendData(append(b, "event: failed\n"...), object), '\n')
}

// appendData appends JSON as an event's data. White space in it may be an end of a line,
// which begins another line of data.
func appendData(b, data []byte) []byte {
	for first := true; first || len(data) > 0; first = false {
		line := data
		if i := bytes.IndexAny(data, "\r\n"); i >= 0 {
			line, data = data[:i], data[i+1:]
		} else {
			data = nil
		}
		b = append(append(append(b, "data: "...), line...), '\n')
	}
	return b
}

func (e *events) beginLocked() error {
	h := e.x.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // of nginx, and others that know it from there
	e.x.w.WriteHeader(http.StatusOK)
	e.begun = true
	e.beat = time.AfterFunc(e.every, e.live)
	return e.sendLocked(append(strconv.AppendInt([]byte("retry: "), e.spread.Milliseconds(), 10), "\n\n"...), func() {})
}

// live sends a comment after a silence: proxies take a silent line for a dead one, and a
// client that has gone is found out.
func (e *events) live() {
	e.mu.Lock()
	gone := !e.over && e.sendLocked([]byte(":\n\n"), func() {}) != nil
	e.mu.Unlock()
	if gone {
		e.x.end(refuse(http.StatusServiceUnavailable, "%s", errLeft.Message), errLeft)
	}
}

// sendLocked writes what the client has to take some of within Limits.WriteTimeout, whatever
// the http.Server's own is: that is for answers which end.
func (e *events) sendLocked(b []byte, progress func()) error {
	e.x.beginWrite(time.Time{})
	defer e.x.endWrite()
	for part := range slices.Chunk(b, answerPart) {
		e.x.until(e.x.w.SetWriteDeadline, time.Time{}, e.x.limits.WriteTimeout)
		if _, err := e.x.w.Write(part); err != nil {
			return err
		}
		progress()
	}
	if err := e.x.w.Flush(); err != nil {
		return err
	}
	e.beat.Reset(e.every)
	return nil
}

// end ends the answer when its connection has.
func (e *events) end() {
	e.x.mu.Lock()
	ended, cause := e.x.ended, e.x.cause
	e.x.writing = true
	e.x.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.over = true
	switch {
	case e.begun:
		e.beat.Stop()
		if ended == nil {
			return
		}
		body := ended.Error
		if body == nil {
			body = &wire.ErrorBody{Code: int64(cause.Code), Message: ended.Text}
		}
		e.x.w.SetWriteDeadline(time.Now().Add(lastWords))
		e.x.w.Write(e.failed(nil, body.Code, body.AppendPlain(nil)))
	case ended != nil:
		e.x.refuse(ended)
	case e.refused != nil:
		h := e.x.w.Header()
		h.Set("Content-Type", "application/json")
		if code := statusOf(e.code); code == http.StatusServiceUnavailable {
			h.Set("Retry-After", "1")
		}
		e.x.w.WriteHeader(statusOf(e.code))
		e.x.w.Write(e.refused)
	default:
		e.x.refuse(refuse(http.StatusServiceUnavailable, "the request was given up before it had been answered"))
	}
}

// endStream ends the stream of a GET or POST while the server shuts down.
func (x *exchange) endStream() {
	x.mu.Lock()
	conn := x.conn
	x.mu.Unlock()
	if conn != nil && x.streams { // in this order: it was fixed before
		conn.EndStreams()
	}
}
