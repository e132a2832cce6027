package link

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync/atomic"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/typedrpc/typedrpc/internal/buf"
)

// ws carries messages over a WebSocket. No user's context ever reaches the
// library: it closes the connection when the context of a read or a write
// ends in the middle of it (docs/design.md).
type ws struct {
	c *websocket.Conn
	// pong is called when the peer answered a WebSocket ping, which says as
	// much about it as a message does. Set while a Read is under way.
	pong  atomic.Pointer[func()]
	below below
}

// below is the connection that a WebSocket lives on.
type below struct {
	broken atomic.Bool // reading from it has failed
	conn   io.Closer   // nil in a browser
}

func (t *ws) Read(progress func()) (b *buf.Buf, text bool, err error) {
	if t.pong.Load() == nil {
		f := progress // a copy, so that only this first one allocates
		t.pong.Store(&f)
	}
	typ, r, err := t.c.Reader(context.Background())
	if err != nil {
		return nil, false, closeError(err)
	}
	b = buf.Get()
	for {
		progress()
		if len(b.B) == cap(b.B) {
			b.B = slices.Grow(b.B, max(512, cap(b.B)))
		}
		n, err := r.Read(b.B[len(b.B):cap(b.B)])
		b.B = b.B[:len(b.B)+n]
		// The library takes a connection that ends inside a message for the
		// end of the message, and may decompress what it has not unmasked.
		if err == io.EOF && t.below.broken.Load() {
			err = errLost
		}
		if err == io.EOF {
			return b, typ == websocket.MessageText, nil
		}
		if err != nil {
			b.Release()
			return nil, false, closeError(err)
		}
	}
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
	}
	return w.Close()
}

func (t *ws) Close(code int, reason string) {
	// RFC 6455 section 5.5: a control frame holds 125 bytes, two of them the
	// code; section 7.1.6: the reason is UTF-8, so cut at a rune.
	const most = 123
	if len(reason) > most {
		cut := most
		for cut > 0 && !utf8.RuneStart(reason[cut]) {
			cut--
		}
		reason = reason[:cut]
	}
	t.c.Close(websocket.StatusCode(code), reason)
}

func (t *ws) Kill() {
	// The library's CloseNow waits for a Close under way, which takes its time
	// when nobody answers.
	if t.below.conn != nil {
		t.below.conn.Close()
	}
	t.c.CloseNow()
}

func (t *ws) SetReadLimit(n int64) { t.c.SetReadLimit(n) }

func (t *ws) ponged() {
	if f := t.pong.Load(); f != nil {
		(*f)()
	}
}

func closeError(err error) error {
	var ce websocket.CloseError
	switch {
	case errors.As(err, &ce):
		return &CloseError{Code: int(ce.Code), Reason: ce.Reason, Remote: true}
	case errors.Is(err, websocket.ErrMessageTooBig):
		return &CloseError{Code: int(websocket.StatusMessageTooBig), Reason: "message too big", Err: err}
	}
	return err
}
