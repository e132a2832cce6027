package typedrpctest

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// conn is one end of a link. Link.mu guards what is not fixed.
type conn struct {
	link          *Link
	in, out       *lane
	local, remote net.Addr

	closed         bool
	broken         bool  // writing fails
	fault          error // reading and writing fail
	readBy, sendBy time.Time
}

func (c *conn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		now := time.Now()
		switch {
		case c.closed:
			return 0, c.fail("read", net.ErrClosed)
		case !c.readBy.IsZero() && !now.Before(c.readBy):
			return 0, c.fail("read", os.ErrDeadlineExceeded)
		case c.fault != nil:
			return 0, c.fail("read", c.fault)
		case len(p) == 0:
			return 0, nil
		}
		until := c.readBy
		if !c.in.held() {
			if n := c.in.take(p, now); n > 0 {
				return n, nil
			}
			switch {
			case len(c.in.chunks) > 0:
				until = earlier(until, c.in.chunks[0].at)
			case c.in.ended(now):
				return 0, io.EOF
			case c.in.fin:
				until = earlier(until, c.in.finAt)
			}
		}
		c.in.wait(until)
	}
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (n int, err error) {
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	for c.out.writing { // Writes do not mix
		if err := c.writable(); err != nil {
			return 0, err
		}
		c.out.wait(c.sendBy)
	}
	c.out.writing = true
	defer func() {
		c.out.writing = false
		c.out.moved.Broadcast()
	}()
	for {
		if err := c.writable(); err != nil {
			return n, err
		}
		if len(p) == 0 {
			return n, nil
		}
		take := len(p)
		switch room := c.out.room(); {
		case c.peer().closed: // its RST is on the way
			c.out.lost = true
		case c.out.lost || c.out.c.BlackHole: // no need of room
		case room <= 0:
			c.out.wait(c.sendBy)
			continue
		default:
			take = min(take, room)
		}
		c.out.send(p[:take])
		n += take
		p = p[take:]
	}
}

func (c *conn) writable() error {
	now := time.Now()
	switch {
	case c.closed:
		return c.fail("write", net.ErrClosed)
	case !c.sendBy.IsZero() && !now.Before(c.sendBy):
		return c.fail("write", os.ErrDeadlineExceeded)
	case c.fault != nil:
		return c.fail("write", c.fault)
	case c.broken, c.out.fin, c.peer().closed && c.in.ended(now):
		return c.fail("write", syscall.EPIPE)
	}
	return nil
}

func (c *conn) peer() *conn {
	if c == c.link.dialer {
		return c.link.listener
	}
	return c.link.dialer
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.link.mu.Lock()
	if c.closed {
		c.link.mu.Unlock()
		return c.fail("close", net.ErrClosed)
	}
	if c.fault == nil {
		c.out.finish()
	}
	c.closed = true
	c.in.drop()
	last := c.peer().closed
	c.link.wakeLocked()
	c.link.mu.Unlock()
	if last {
		c.link.faults.forget(c.link)
	}
	return nil
}

// CloseWrite ends what this end sends, as that of *net.TCPConn does.
func (c *conn) CloseWrite() error {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if err := c.writable(); err != nil {
		return err
	}
	c.out.finish()
	c.broken = true
	c.link.wakeLocked()
	return nil
}

// abort ends the connection as an RST from this end does, which does not get
// further than anything else.
func (c *conn) abort() {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if c.closed || c.fault != nil {
		return
	}
	c.fault = syscall.ECONNRESET
	c.in.drop()
	switch {
	case c.out.lost || c.out.c.BlackHole || c.out.held():
		c.out.finish()
	case c.peer().fault == nil:
		c.out.drop()
		c.peer().fault = c.fault
	}
	c.link.wakeLocked()
}

// deaf reports whether nothing can come any more, and nothing will say so.
func (c *conn) deaf() bool {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	return c.in.lost
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error { return c.deadlines(t, &c.readBy, &c.sendBy) }

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error { return c.deadlines(t, &c.readBy) }

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error { return c.deadlines(t, &c.sendBy) }

func (c *conn) deadlines(t time.Time, which ...*time.Time) error {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if c.closed {
		return c.fail("set", net.ErrClosed)
	}
	for _, d := range which {
		*d = t
	}
	c.link.wakeLocked()
	return nil
}
