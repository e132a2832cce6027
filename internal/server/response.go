package server

import (
	"fmt"
	"net/http"
	"time"

	"github.com/typedrpc/typedrpc/internal/link"
)

// response is what an answer goes through: middleware's code, perhaps. It is called on
// goroutines of ours, where nobody recovers, so its panics are errors here. (Echo's is one,
// at a Flush that what it writes to cannot.)
type response struct {
	http.ResponseWriter
	control *http.ResponseController
}

// flushes says why nothing that is written leaves before the answer has ended; nil: it does.
// An outer writer may have a Flush that panics because of the inner.
func (r *response) flushes() error {
	w := link.Innermost(r.ResponseWriter)
	switch w.(type) {
	case http.Flusher, interface{ FlushError() error }:
		return nil
	}
	return fmt.Errorf("%T is no http.Flusher: it keeps the whole answer back", w)
}

func (r *response) Write(b []byte) (n int, err error) {
	defer caught(&err)
	return r.ResponseWriter.Write(b)
}

func (r *response) WriteHeader(status int) {
	var err error
	defer caught(&err) // what is written next fails as well
	r.ResponseWriter.WriteHeader(status)
}

func (r *response) Flush() (err error) {
	defer caught(&err)
	return r.control.Flush()
}

func (r *response) SetReadDeadline(t time.Time) (err error) {
	defer caught(&err)
	return r.control.SetReadDeadline(t)
}

func (r *response) SetWriteDeadline(t time.Time) (err error) {
	defer caught(&err)
	return r.control.SetWriteDeadline(t)
}

// caught makes a panic the error of whoever defers it.
func caught(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("what the answer goes through panicked: %v", p)
	}
}
