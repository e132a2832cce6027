package peer

import (
	"context"
	"sync"

	"github.com/typedrpc/typedrpc/bench/internal/msg"
)

// The floors have no RPC: a message goes there, and one comes back. As many callers as there
// are take their turns at writing, and the answers come in the order of the requests.

// wire is one end of a connection that carries messages. Neither method is called by two
// goroutines at once. What read returns is good until the next read.
type wire interface {
	write(p []byte) error
	read() ([]byte, error)
	close()
}

// The first byte of a message says what is wanted.
const (
	wantAdd = iota
	wantEcho
)

// answerBare answers one message, into out's memory.
func answerBare(p, out []byte) ([]byte, error) {
	if len(p) > 0 && p[0] == wantEcho {
		return append(out[:0], p...), nil
	}
	var r msg.Request
	if err := r.Decode(p[min(1, len(p)):]); err != nil {
		return nil, err
	}
	reply := msg.Answer(r)
	return reply.Append(append(out[:0], wantAdd)), nil
}

// serveBare answers all that comes.
func serveBare(w wire) {
	var out []byte
	for {
		p, err := w.read()
		if err == nil {
			out, err = answerBare(p, out)
		}
		if err != nil || w.write(out) != nil {
			return
		}
	}
}

// bareClient calls over a wire.
type bareClient struct {
	w       wire
	alone   bool // one caller: it reads its own answer
	mu      sync.Mutex
	out     []byte
	waiting chan chan answered
	done    chan struct{}
}

type answered struct {
	reply msg.Reply
	n     int
	err   error
}

func newBareClient(w wire, callers int) *bareClient {
	c := &bareClient{w: w, alone: callers == 1, waiting: make(chan chan answered, 2048), done: make(chan struct{})}
	if !c.alone {
		go func() {
			defer close(c.done)
			for {
				a := c.receive()
				if a.err != nil {
					return
				}
				(<-c.waiting) <- a
			}
		}()
	}
	return c
}

func (c *bareClient) Close() { c.w.close() }

func (c *bareClient) receive() answered {
	p, err := c.w.read()
	if err != nil {
		return answered{err: err}
	}
	a := answered{n: len(p) - 1}
	if p[0] == wantAdd {
		a.err = a.reply.Decode(p[1:])
	}
	return a
}

// channels are where callers wait.
var channels = sync.Pool{New: func() any { return make(chan answered, 1) }}

func (c *bareClient) call(encode func([]byte) []byte) answered {
	if c.alone {
		c.out = encode(c.out[:0])
		if err := c.w.write(c.out); err != nil {
			return answered{err: err}
		}
		return c.receive()
	}
	wait := channels.Get().(chan answered)
	c.mu.Lock()
	c.out = encode(c.out[:0])
	c.waiting <- wait
	err := c.w.write(c.out)
	c.mu.Unlock()
	if err != nil {
		return answered{err: err}
	}
	select {
	case a := <-wait:
		channels.Put(wait)
		return a
	case <-c.done:
		return answered{err: context.Canceled}
	}
}

func (c *bareClient) Add(_ context.Context, r msg.Request) (msg.Reply, error) {
	a := c.call(func(p []byte) []byte { return r.Append(append(p, wantAdd)) })
	return a.reply, a.err
}

func (c *bareClient) Echo(_ context.Context, p []byte) (int, error) {
	a := c.call(func(out []byte) []byte { return append(append(out, wantEcho), p...) })
	return a.n, a.err
}
