package peer

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
)

// tcpPeer is a bare TCP connection, whose messages have their length before them.
type tcpPeer struct{}

func (tcpPeer) Info() Info {
	return Info{Name: "bare TCP", How: "no RPC: a message there, a message back, in order", Floor: true, Against: Reference, Can: Echo}
}

type tcpWire struct {
	c        net.Conn
	r        *bufio.Reader
	buf, out []byte
}

func newTCPWire(c net.Conn) *tcpWire { return &tcpWire{c: c, r: bufio.NewReader(c)} }

func (w *tcpWire) write(p []byte) error {
	w.out = binary.BigEndian.AppendUint32(w.out[:0], uint32(len(p)))
	w.out = append(w.out, p...)
	_, err := w.c.Write(w.out)
	return err
}

func (w *tcpWire) read() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(w.r, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(head[:]))
	if n > readLimit {
		return nil, fmt.Errorf("a message of %d bytes", n)
	}
	if n > cap(w.buf) {
		w.buf = make([]byte, n)
	}
	_, err := io.ReadFull(w.r, w.buf[:n])
	return w.buf[:n], err
}

func (w *tcpWire) close() { w.c.Close() }

func (tcpPeer) Serve() (Server, error) {
	return serveTCP(func(c net.Conn) { serveBare(newTCPWire(c)) })
}

func (tcpPeer) Dial(ctx context.Context, addr string, callers int) (Client, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return newBareClient(newTCPWire(c), callers), nil
}
