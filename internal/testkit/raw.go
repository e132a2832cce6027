package testkit

import (
	"errors"
	"sync"
	"testing/synctest"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// RawPeer is a peer driven by hand whose frames are collected as they come.
type RawPeer struct {
	*Peer
	mu   sync.Mutex
	seen []wire.Frame
	end  error
}

// Collect reads until the link ends.
func (p *RawPeer) Collect() {
	for {
		f, err := p.Next()
		p.mu.Lock()
		if err != nil {
			p.end = err
			p.mu.Unlock()
			return
		}
		p.seen = append(p.seen, f)
		p.mu.Unlock()
		if f.Type == wire.Ping {
			p.Send(wire.Frame{Type: wire.Ack, Position: p.Counted})
		}
	}
}

// Got waits until nothing moves and returns what has come of some types since
// the last time; PING and ACK are never among them.
func (p *RawPeer) Got(types ...wire.Type) (fs []wire.Frame) {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.seen {
		for _, typ := range types {
			if f.Type == typ {
				fs = append(fs, f)
			}
		}
	}
	p.seen = nil
	return fs
}

// Alive reports whether the link is.
func (p *RawPeer) Alive() bool {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.end == nil
}

// Closed is the code that the link was closed with; 0: none.
func (p *RawPeer) Closed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	var ce *link.CloseError
	if errors.As(p.end, &ce) {
		return ce.Code
	}
	return 0
}

// HandFeatures are what peers driven by hand announce.
var HandFeatures = []string{"streams", "fragments"}
