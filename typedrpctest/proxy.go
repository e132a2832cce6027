package typedrpctest

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// ProxyOptions are NewProxy's. nil, and the zero value of every field, are
// fine.
type ProxyOptions struct {
	// Seed is what everything random depends on: Jitter, and where CutEach
	// cuts.
	Seed uint64
	// Up and Down are the conditions that the proxy begins with.
	Up, Down Conditions
	// Listen is the address to listen on. Default "127.0.0.1:0": a free port
	// of this machine.
	Listen string
}

// Proxy forwards TCP connections to a server, and fails on demand. It needs no
// test. What the system holds in the buffers of its sockets comes on top of
// Conditions.Buffer.
//
// All methods may be called from any goroutine.
type Proxy struct {
	Faults

	target   string
	listener net.Listener
	ctx      context.Context // of dials, ends with Close
	cancel   context.CancelFunc
	conns    map[net.Conn]struct{} // under Faults.mu
	running  sync.WaitGroup
}

// NewProxy listens, and forwards what connects to target: "host:port", or a
// URL of which all but that is ignored. The error is that of net.Listen; a
// target that cannot be reached ends the connections to the proxy. Close ends
// it.
func NewProxy(target string, o *ProxyOptions) (*Proxy, error) {
	if o == nil {
		o = &ProxyOptions{}
	}
	if _, rest, ok := strings.Cut(target, "://"); ok {
		target, _, _ = strings.Cut(rest, "/")
	}
	addr := o.Listen
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	p := &Proxy{target: target, listener: l, conns: map[net.Conn]struct{}{}}
	p.begun, p.seed, p.now = true, o.Seed, [2]Conditions{o.Up, o.Down}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.running.Go(p.accept)
	return p, nil
}

// Addr returns the address that the proxy listens on: "127.0.0.1:41234".
func (p *Proxy) Addr() string { return p.made().listener.Addr().String() }

// URL returns the URL of the root of what is behind the proxy:
// "ws://127.0.0.1:41234/".
func (p *Proxy) URL() string { return "ws://" + p.Addr() + "/" }

// Close stops listening and resets every connection. When it returns the
// proxy's goroutines have ended. The error is nil.
func (p *Proxy) Close() error {
	p.made().listener.Close()
	p.cancel()
	p.Faults.end()
	p.mu.Lock()
	for c := range p.conns {
		abort(c)
	}
	p.mu.Unlock()
	p.running.Wait()
	return nil
}

// accept forwards connections until the listener is closed.
func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // of one connection, or too many are open
			select {
			case <-time.After(10 * time.Millisecond):
			case <-p.ctx.Done():
			}
			continue
		}
		p.running.Go(func() { p.forward(c) })
	}
}

// forward carries one connection until both of its ends have ended.
func (p *Proxy) forward(near net.Conn) {
	if !p.keep(near) {
		return
	}
	defer p.drop(near)
	var d net.Dialer
	far, err := d.DialContext(p.ctx, "tcp", p.target)
	if err != nil {
		abort(near)
		return
	}
	if !p.keep(far) {
		return
	}
	defer p.drop(far)
	p.mu.Lock()
	l := p.linkLocked(nil, near.RemoteAddr(), near.LocalAddr())
	closed := p.closed
	p.mu.Unlock()
	if closed {
		l.reset()
	}
	// The dialler's end of the link is at the listener's end of the socket:
	// it stands in for who dialled the proxy.
	var g sync.WaitGroup
	for _, s := range [][2]net.Conn{{near, l.dialer}, {far, l.listener}} {
		socket, end := s[0], s[1].(*conn)
		g.Go(func() { carry(end, socket) })
		g.Go(func() { carry(socket, end) })
	}
	g.Wait()
	l.dialer.Close()
	l.listener.Close()
}

// carry copies what src sends to dst, and then its end: a FIN as a FIN, an
// error as a reset.
func carry(dst, src net.Conn) {
	_, err := io.Copy(writerOnly{dst}, readerOnly{src})
	if err == nil {
		err = dst.(interface{ CloseWrite() error }).CloseWrite()
	}
	end, ours := dst.(*conn)
	if err != nil || ours && end.deaf() { // deaf: the other direction would wait for ever
		abort(src)
		abort(dst)
	}
}

// writerOnly and readerOnly keep io.Copy from shortcuts, which would change
// the pieces that arrive.
type writerOnly struct{ io.Writer }

type readerOnly struct{ io.Reader }

// abort ends one end of a connection with a reset.
func abort(c net.Conn) {
	switch c := c.(type) {
	case *net.TCPConn:
		c.SetLinger(0)
		c.Close()
	case *conn:
		c.abort()
	}
}

// keep remembers a socket for Close. It reports false, and closes it, when the
// proxy was closed already.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		c.Close()
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *Proxy) drop(c net.Conn) {
	c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}
