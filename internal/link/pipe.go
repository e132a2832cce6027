package link

import (
	"io"
	"sync"

	"github.com/typedrpc/typedrpc/internal/buf"
)

// pipeWindow bounds what one direction of a pipe holds, like a socket's
// buffers do: a peer that does not read stalls the writer. One message may
// always be on its way.
const pipeWindow = 256 << 10

// Pipe returns the two ends of a connection in memory. It works inside a
// testing/synctest bubble: every wait is durably blocking.
func Pipe() (a, b Transport) {
	ab, ba := newLane(), newLane()
	return &pipeEnd{in: ba, out: ab}, &pipeEnd{in: ab, out: ba}
}

// lane is one direction of a pipe.
type lane struct {
	mu    sync.Mutex
	moved sync.Cond
	queue []pipeMessage
	size  int
	limit int64
	err   error // what Read returns when the queue is empty
	dead  bool  // nothing more is delivered
}

type pipeMessage struct {
	b    *buf.Buf // nil: ping or pong
	text bool
	ping bool

	answered func() // of a ping, and its pong; nil: nobody is told
}

func newLane() *lane {
	l := &lane{limit: -1}
	l.moved.L = &l.mu
	return l
}

func (l *lane) put(msg []byte, text bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.err == nil && l.size > 0 && l.size+len(msg) > pipeWindow {
		l.moved.Wait()
	}
	if l.err != nil {
		return io.ErrClosedPipe
	}
	l.queue = append(l.queue, pipeMessage{b: buf.Copy(msg), text: text})
	l.size += len(msg)
	l.moved.Broadcast()
	return nil
}

func (l *lane) get() (m pipeMessage, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue) == 0 && l.err == nil {
		l.moved.Wait()
	}
	if l.dead || len(l.queue) == 0 {
		return m, l.err
	}
	m = l.queue[0]
	l.queue[0] = pipeMessage{} // the array lives on
	l.queue = l.queue[1:]
	l.size -= m.b.Len()
	l.moved.Broadcast()
	if l.limit >= 0 && int64(m.b.Len()) > l.limit {
		m.b.Release()
		return m, &CloseError{Code: 1009, Reason: "message too big"}
	}
	return m, nil
}

// control adds a ping or pong, which nothing holds up.
func (l *lane) control(m pipeMessage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.queue = append(l.queue, m)
		l.moved.Broadcast()
	}
}

// end lets the reader drain what was sent and then see err; a hard end drops
// what is on its way. The first end wins.
func (l *lane) end(err error, hard bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
	l.dead = l.dead || hard
	l.moved.Broadcast()
}

type pipeEnd struct{ in, out *lane }

func (p *pipeEnd) Read(progress func()) (*buf.Buf, bool, error) {
	for {
		m, err := p.in.get()
		if err != nil {
			return nil, false, err
		}
		if m.ping { // answered by whoever reads, as a WebSocket's is
			p.out.control(pipeMessage{answered: m.answered})
			continue
		}
		progress()
		if m.b == nil { // a pong
			if m.answered != nil {
				m.answered()
			}
			continue
		}
		return m.b, m.text, nil
	}
}

func (p *pipeEnd) Write(msg []byte, text bool, _ func()) error { return p.out.put(msg, text) }

func (p *pipeEnd) Close(code int, reason string) {
	p.out.end(&CloseError{Code: code, Reason: clipReason(reason), Remote: true}, false)
	p.in.end(io.EOF, true)
}

func (p *pipeEnd) Kill() {
	p.out.end(io.ErrUnexpectedEOF, false)
	p.in.end(io.ErrClosedPipe, true)
}

func (p *pipeEnd) SetReadLimit(n int64) {
	p.in.mu.Lock()
	defer p.in.mu.Unlock()
	p.in.limit = n
}

func (p *pipeEnd) Ping(answered func()) bool {
	p.out.control(pipeMessage{ping: true, answered: answered})
	return true
}
