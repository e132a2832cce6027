package testkit

import (
	"errors"
	"sync/atomic"
	"testing/synctest"

	"github.com/typedrpc/typedrpc/internal/link"
)

// Cable carries messages between two pipes and can stop doing so.
type Cable struct {
	A, B link.Transport
	deaf atomic.Bool
	fuse atomic.Int64
}

// NewCable has near and far ends, and breaks after fuse messages.
func NewCable(fuse int64) (near, far link.Transport, l *Cable) {
	l = new(Cable)
	l.fuse.Store(fuse)
	near, l.A = link.Pipe()
	l.B, far = link.Pipe()
	go l.forward(l.A, l.B)
	go l.forward(l.B, l.A)
	return near, far, l
}

// Cut breaks the line and returns when both ends have noticed.
func (l *Cable) Cut() {
	l.A.Kill()
	l.B.Kill()
	synctest.Wait()
}

// Swallow breaks the line so that neither end can notice.
func (l *Cable) Swallow() { l.deaf.Store(true) }

func (l *Cable) forward(from, to link.Transport) {
	for {
		m, text, err := from.Read(func() {})
		var ce *link.CloseError
		switch {
		case l.deaf.Load() && err != nil:
			return
		case l.deaf.Load():
		case errors.As(err, &ce):
			to.Close(ce.Code, ce.Reason)
			return
		case err != nil:
			to.Kill()
			return
		case l.fuse.Add(-1) < 0:
			m.Release()
			l.A.Kill()
			l.B.Kill()
			return
		default:
			if to.Write(m.B, text, func() {}) != nil {
				return // the other direction says how it ended
			}
		}
	}
}
