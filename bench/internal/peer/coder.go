package peer

import (
	"context"
	"io"
	"net/http"
	"sync"

	"github.com/coder/websocket"

	"github.com/typedrpc/typedrpc/bench/internal/msg"
)

// coderPeer is a bare WebSocket of coder/websocket.
type coderPeer struct{}

func (coderPeer) Info() Info {
	return Info{Name: "bare coder/websocket", How: "no RPC: a message there, a message back, in order", Modules: []string{"github.com/coder/websocket"}, Floor: true, Against: Reference, Can: Echo | Stream | Broadcast | Idle}
}

// readLimit lets the largest message of all cases pass.
const readLimit = 1 << 20

// coderWire has kept buffers and no contexts: its fastest way.
type coderWire struct {
	ws  *websocket.Conn
	buf []byte
}

func (c *coderWire) write(p []byte) error {
	return c.ws.Write(context.Background(), websocket.MessageBinary, p)
}

func (c *coderWire) read() ([]byte, error) {
	_, r, err := c.ws.Reader(context.Background())
	if err != nil {
		return nil, err
	}
	n := 0
	for {
		if n == len(c.buf) {
			c.buf = append(c.buf, make([]byte, 512+len(c.buf))...)
		}
		m, err := r.Read(c.buf[n:])
		n += m
		if err == io.EOF {
			return c.buf[:n], nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func (c *coderWire) close() { c.ws.CloseNow() }

func (coderPeer) Serve() (Server, error) {
	s := &coderServer{subscribers: map[*websocket.Conn]bool{}}
	bg, stop := context.WithCancel(context.Background())
	hs, err := serveHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer context.AfterFunc(bg, func() { ws.CloseNow() })()
		defer ws.CloseNow()
		ws.SetReadLimit(readLimit)
		switch r.URL.Path {
		case "/items":
			coderItems(ws)
		case "/subscribe":
			s.subscribe(bg, ws)
		default:
			serveBare(&coderWire{ws: ws})
		}
	}), stop)
	s.Server = hs
	return s, err
}

// coderItems sends as many items as a message has asked for, each in a message.
func coderItems(ws *websocket.Conn) {
	w := &coderWire{ws: ws}
	for {
		p, err := w.read()
		if err != nil {
			return
		}
		var r msg.Request
		if r.Decode(p) != nil {
			return
		}
		for range r.A {
			if w.write(nothing[:msg.ItemSize]) != nil {
				return
			}
		}
	}
}

type coderServer struct {
	Server
	mu          sync.Mutex
	subscribers map[*websocket.Conn]bool
}

func (s *coderServer) subscribe(ctx context.Context, ws *websocket.Conn) {
	s.mu.Lock()
	s.subscribers[ws] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.subscribers, ws)
	}()
	ws.Read(ctx) // until it goes
}

// Publish is a loop over the connections.
func (s *coderServer) Publish(n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		for ws := range s.subscribers {
			if err := ws.Write(context.Background(), websocket.MessageBinary, nothing[:msg.ItemSize]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (coderPeer) Dial(ctx context.Context, addr string, callers int) (Client, error) {
	ws, err := coderDial(ctx, addr, "")
	if err != nil {
		return nil, err
	}
	return &coderClient{newBareClient(ws, callers), addr}, nil
}

func coderDial(ctx context.Context, addr, path string) (*coderWire, error) {
	ws, _, err := websocket.Dial(ctx, "ws://"+addr+path, nil)
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(readLimit)
	return &coderWire{ws: ws}, nil
}

type coderClient struct {
	*bareClient
	addr string
}

// Items is a connection of its own: there is nothing that could tell items from answers.
func (c *coderClient) Items(ctx context.Context, n int) (received int, err error) {
	ws, err := coderDial(ctx, c.addr, "/items")
	if err != nil {
		return 0, err
	}
	defer ws.close()
	r := msg.Request{A: int64(n)}
	if err := ws.write(r.Append(nil)); err != nil {
		return 0, err
	}
	for range n {
		if _, err := ws.read(); err != nil {
			return received, err
		}
		received++
	}
	return received, nil
}

func (c *coderClient) Subscribe(ctx context.Context, got func()) error {
	ws, err := coderDial(ctx, c.addr, "/subscribe")
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, ws.close)
	go func() {
		for {
			if _, err := ws.read(); err != nil {
				return
			}
			got()
		}
	}()
	return nil
}
