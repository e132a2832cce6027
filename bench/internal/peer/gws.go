package peer

import (
	"context"
	"net/http"
	"sync"

	"github.com/lxzan/gws"
)

// gwsPeer is a bare WebSocket of lxzan/gws, whose handler is called for each message.
type gwsPeer struct{}

func (gwsPeer) Info() Info {
	return Info{Name: "bare lxzan/gws", How: "no RPC: a message there, a message back, in order", Modules: []string{"github.com/lxzan/gws"}, Floor: true, Against: Reference, Can: Echo}
}

type gwsEcho struct {
	gws.BuiltinEventHandler
	outs sync.Pool
}

func (e *gwsEcho) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	out, _ := e.outs.Get().(*[]byte)
	if out == nil {
		out = new([]byte)
	}
	defer e.outs.Put(out)
	var err error
	if *out, err = answerBare(m.Bytes(), *out); err != nil {
		c.WriteClose(1002, nil)
		return
	}
	c.WriteMessage(gws.OpcodeBinary, *out)
}

func (gwsPeer) Serve() (Server, error) {
	up := gws.NewUpgrader(&gwsEcho{}, &gws.ServerOption{ReadMaxPayloadSize: readLimit})
	var mu sync.Mutex
	all := map[*gws.Conn]bool{}
	return serveHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(w, r)
		if err != nil {
			return
		}
		mu.Lock()
		all[c] = true
		mu.Unlock()
		go func() { // as its README recommends
			c.ReadLoop()
			mu.Lock()
			defer mu.Unlock()
			delete(all, c)
		}()
	}), func() {
		mu.Lock()
		defer mu.Unlock()
		for c := range all {
			c.NetConn().Close()
		}
	})
}

// gwsWire hands what comes from the handler to whoever reads.
type gwsWire struct {
	gws.BuiltinEventHandler
	c    *gws.Conn
	came chan *gws.Message
	last *gws.Message
	done chan struct{}
}

func (w *gwsWire) OnMessage(_ *gws.Conn, m *gws.Message) { w.came <- m }
func (w *gwsWire) OnClose(*gws.Conn, error)              { close(w.done) }

func (w *gwsWire) write(p []byte) error { return w.c.WriteMessage(gws.OpcodeBinary, p) }

func (w *gwsWire) read() ([]byte, error) {
	if w.last != nil {
		w.last.Close()
		w.last = nil
	}
	select {
	case w.last = <-w.came:
		return w.last.Bytes(), nil
	case <-w.done:
		return nil, context.Canceled
	}
}

func (w *gwsWire) close() { w.c.NetConn().Close() }

func (gwsPeer) Dial(_ context.Context, addr string, callers int) (Client, error) {
	w := &gwsWire{came: make(chan *gws.Message, 64), done: make(chan struct{})}
	c, _, err := gws.NewClient(w, &gws.ClientOption{Addr: "ws://" + addr, ReadMaxPayloadSize: readLimit})
	if err != nil {
		return nil, err
	}
	w.c = c
	go c.ReadLoop()
	return newBareClient(w, callers), nil
}
