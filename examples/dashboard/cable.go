package main

import (
	"errors"
	"math/rand/v2"
	"net"
	"sync"

	"github.com/typedrpc/typedrpc/examples/dashboard/api"
)

// cables is a listener whose connections can be cut.
type cables struct{ net.Listener }

func (l cables) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &cable{Conn: c}, nil
}

// cable is a connection that can be cut in the middle of what is written to it.
type cable struct {
	net.Conn

	mu   sync.Mutex
	torn func(api.Torn) // what is told of the cut that the next write is to be; nil: it is to be none
}

// cut has the next write tear: some of its bytes leave, and then the connection is closed.
func (c *cable) cut(torn func(api.Torn)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.torn = torn
}

var errCut = errors.New("the cable was cut, on purpose")

func (c *cable) Write(p []byte) (int, error) {
	c.mu.Lock()
	torn := c.torn
	c.torn = nil
	c.mu.Unlock()
	if torn == nil || len(p) == 0 {
		return c.Conn.Write(p)
	}
	n := len(p) / 2
	if n > 0 {
		n = 1 + rand.IntN(len(p)-1) // somewhere inside
	}
	n, err := c.Conn.Write(p[:n])
	torn(api.Torn{Written: n, Of: len(p)})
	return n, errors.Join(errCut, err, c.Conn.Close())
}
