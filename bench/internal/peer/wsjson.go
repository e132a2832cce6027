package peer

import (
	"context"
	"net/http"
	"sync"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"github.com/typedrpc/typedrpc/bench/internal/msg"
)

// wsjsonPeer is what one writes by hand: wsjson, and a map of ids.
type wsjsonPeer struct{}

func (wsjsonPeer) Info() Info {
	return Info{Name: "wsjson and a map", How: "written by hand: coder/websocket's wsjson, and a map of ids", Modules: []string{"github.com/coder/websocket"}, Floor: true, Against: "typedrpc JSON", Can: Contexts | Echo}
}

type wsjsonMessage struct {
	ID      uint64       `json:"id"`
	Request *msg.Request `json:"request,omitempty"`
	Reply   *msg.Reply   `json:"reply,omitempty"`
	Data    []byte       `json:"data,omitempty"`
}

func (wsjsonPeer) Serve() (Server, error) {
	bg, stop := context.WithCancel(context.Background())
	return serveHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer ws.CloseNow()
		ws.SetReadLimit(readLimit)
		for {
			var m wsjsonMessage
			if wsjson.Read(bg, ws, &m) != nil {
				return
			}
			go func() {
				if m.Request != nil {
					reply := msg.Answer(*m.Request)
					m.Request, m.Reply = nil, &reply
				}
				wsjson.Write(bg, ws, m)
			}()
		}
	}), stop)
}

type wsjsonClient struct {
	ws      *websocket.Conn
	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan wsjsonMessage
	done    chan struct{}
}

func (wsjsonPeer) Dial(ctx context.Context, addr string, _ int) (Client, error) {
	ws, _, err := websocket.Dial(ctx, "ws://"+addr, nil)
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(readLimit)
	c := &wsjsonClient{ws: ws, waiting: map[uint64]chan wsjsonMessage{}, done: make(chan struct{})}
	go c.receive()
	return c, nil
}

func (c *wsjsonClient) receive() {
	defer close(c.done)
	for {
		var m wsjsonMessage
		if wsjson.Read(context.Background(), c.ws, &m) != nil {
			return
		}
		c.mu.Lock()
		wait := c.waiting[m.ID]
		delete(c.waiting, m.ID)
		c.mu.Unlock()
		if wait != nil {
			wait <- m
		}
	}
}

func (c *wsjsonClient) Close() { c.ws.CloseNow() }

func (c *wsjsonClient) call(ctx context.Context, m wsjsonMessage) (wsjsonMessage, error) {
	wait := make(chan wsjsonMessage, 1)
	c.mu.Lock()
	c.next++
	m.ID = c.next
	c.waiting[m.ID] = wait
	c.mu.Unlock()
	// A context that ends in a write would end the connection.
	if err := wsjson.Write(context.Background(), c.ws, m); err != nil {
		return m, err
	}
	select {
	case m := <-wait:
		return m, nil
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.waiting, m.ID)
		c.mu.Unlock()
		return m, ctx.Err()
	case <-c.done:
		return m, context.Canceled
	}
}

func (c *wsjsonClient) Add(ctx context.Context, r msg.Request) (msg.Reply, error) {
	m, err := c.call(ctx, wsjsonMessage{Request: &r})
	if err != nil || m.Reply == nil {
		return msg.Reply{}, err
	}
	return *m.Reply, nil
}

func (c *wsjsonClient) Echo(ctx context.Context, p []byte) (int, error) {
	m, err := c.call(ctx, wsjsonMessage{Data: p})
	return len(m.Data), err
}
