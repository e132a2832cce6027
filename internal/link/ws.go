//go:build !js

package link

import (
	"compress/flate"
	"context"
	"errors"
	"io"
	"runtime"
	"slices"
	"sync/atomic"

	"github.com/coder/websocket"

	"github.com/typedrpc/typedrpc/internal/buf"
)

// ws carries messages over a WebSocket. No user's context ever reaches the
// library: it closes the connection when the context of a read or a write
// ends in the middle of it (docs/design.md).
type ws struct {
	c     *websocket.Conn
	limit atomic.Int64
	below below
}

const (
	// firstBuffer is what a message begins in. It is small, because whoever
	// begins one that never ends holds it, and nobody counts it.
	firstBuffer = 4 << 10
	// readPart is the most that the library is asked for at once: it returns
	// no sooner than it has all of that.
	readPart = 64 << 10
)

func (t *ws) watch(in *intake) {
	t.below.in = in
	in.data = &t.below.data
}

func (t *ws) unsent() (int, bool) { return unsent(t.below.conn) }

func (t *ws) Read(progress func()) (b *buf.Buf, text bool, err error) {
	t.below.listen(progress)
	typ, r, err := t.c.Reader(context.Background())
	if err != nil {
		return nil, false, t.why(err)
	}
	in := t.below.in
	in.begin()
	defer in.end()
	b = buf.Sized(firstBuffer)
	for tail := 0; ; {
		if len(b.B) == cap(b.B) {
			if b, err = t.widen(b); err != nil {
				return nil, false, err
			}
		}
		part := b.B[len(b.B):min(cap(b.B), len(b.B)+readPart)]
		n, err := r.Read(part)
		b.B = b.B[:len(b.B)+n]
		if parts := len(b.B) / readPart; parts > (len(b.B)-n)/readPart {
			runtime.Gosched() // all of a large message may have come, or be made of little
		}
		// The library takes a connection that ends inside a message for the
		// end of the message, and may decompress what it has not unmasked.
		if err == io.EOF && t.below.broken.Load() {
			err = errLost
		}
		if err == io.EOF {
			t.below.spent(tail + n + frameHead)
			return b, typ == websocket.MessageText, nil
		}
		if err != nil {
			b.Release()
			return nil, false, t.why(err)
		}
		// The last part of a message may be as small as it likes.
		if tail = n; n >= smallPart || n == len(part) {
			t.below.spent(n + frameHead)
			tail = 0
		}
	}
}

// widen moves a message that is longer than its buffer into a larger one, which
// is paid for as it grows. It releases b when that cannot be.
func (t *ws) widen(b *buf.Buf) (*buf.Buf, error) {
	size := 2 * cap(b.B)
	if limit := t.limit.Load(); limit >= int64(cap(b.B)) {
		size = min(size, int(limit)+1) // with one more the library refuses it
	}
	size = max(size, cap(b.B)+512)
	if cap(b.B) > firstBuffer {
		if err := t.below.in.resize(size); err != nil {
			b.Release()
			return nil, err
		}
		b.B = append(make([]byte, 0, size), b.B...)
		return b, nil
	}
	next := buf.Get() // which may be large already
	size = max(size, cap(next.B))
	if err := t.below.in.resize(size); err != nil {
		b.Release()
		next.Release()
		return nil, err
	}
	if cap(next.B) < size {
		next.B = make([]byte, 0, size)
	}
	next.B = append(next.B, b.B...)
	b.Release()
	return next, nil
}

var errLost = errors.New("the connection ended inside a message")

// writePart is the most of a message that leaves without a sign of progress. A
// larger message is a WebSocket message of several frames (RFC 6455 section
// 5.4), which readers do not see.
const writePart = 128 << 10

func (t *ws) Write(msg []byte, text bool, progress func()) error {
	typ := websocket.MessageBinary
	if text {
		typ = websocket.MessageText
	}
	if len(msg) <= writePart {
		return t.c.Write(context.Background(), typ, msg)
	}
	w, err := t.c.Writer(context.Background(), typ)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(msg, writePart) {
		if _, err := w.Write(part); err != nil {
			return err
		}
		progress()
		runtime.Gosched() // as for messages that are large: the kernel may take many
	}
	return w.Close()
}

func (t *ws) Close(code int, reason string) {
	t.c.Close(websocket.StatusCode(code), clipReason(reason))
}

func (t *ws) Kill() {
	// The library's CloseNow waits for a Close under way, which takes its time
	// when nobody answers.
	t.below.conn.Close()
	t.c.CloseNow()
}

func (t *ws) SetReadLimit(n int64) {
	t.limit.Store(n)
	t.c.SetReadLimit(n)
}

// why is what reading failed of.
func (t *ws) why(err error) error {
	var ce websocket.CloseError
	var corrupt flate.CorruptInputError
	switch {
	case t.below.flooded.Load():
		flood := &CloseError{Reason: "too many control frames, or fragments of nothing", Err: errFlood}
		if in := t.below.in; in != nil {
			flood.Code = int(in.codes.Flood)
		}
		return flood
	case errors.As(err, &ce):
		return &CloseError{Code: int(ce.Code), Reason: validReason(ce.Reason), Remote: true}
	case errors.Is(err, websocket.ErrMessageTooBig):
		return &CloseError{Code: int(websocket.StatusMessageTooBig), Reason: "message too big", Err: err}
	case errors.As(err, &corrupt):
		// What a peer does that has not understood client_no_context_takeover.
		return &CloseError{Code: int(websocket.StatusInvalidFramePayloadData), Reason: "a compressed message is damaged, or refers to an earlier one, which was agreed not to be", Err: err}
	}
	return err
}
