package peer

import (
	"context"
	"net/http"

	"github.com/coder/websocket"
	"github.com/creachadair/jrpc2"
	"github.com/creachadair/jrpc2/channel"
	"github.com/creachadair/jrpc2/handler"

	"github.com/typedrpc/typedrpc/bench/internal/msg"
)

// jrpc2Peer is creachadair/jrpc2 over a WebSocket.
type jrpc2Peer struct{}

func (jrpc2Peer) Info() Info {
	return Info{Name: "jrpc2", How: "JSON-RPC 2.0 over a WebSocket: coder/websocket behind its channel.Channel, as the module proxy does not have its own wschannel", Against: "typedrpc JSON-RPC", Can: Contexts | Echo,
		Modules: []string{"github.com/creachadair/jrpc2", "github.com/coder/websocket"}}
}

// jrpc2Channel is a channel.Channel over a WebSocket.
type jrpc2Channel struct{ ws *websocket.Conn }

func (c jrpc2Channel) Send(p []byte) error {
	return c.ws.Write(context.Background(), websocket.MessageText, p)
}

func (c jrpc2Channel) Recv() ([]byte, error) {
	_, p, err := c.ws.Read(context.Background())
	if err != nil {
		err = channel.ErrClosed
	}
	return p, err
}

func (c jrpc2Channel) Close() error { return c.ws.CloseNow() }

func (jrpc2Peer) Serve() (Server, error) {
	bg, stop := context.WithCancel(context.Background())
	methods := handler.Map{
		"add":  handler.New(func(_ context.Context, r msg.Request) (msg.Reply, error) { return msg.Answer(r), nil }),
		"echo": handler.New(func(_ context.Context, d jrpc2Data) (jrpc2Data, error) { return d, nil }),
	}
	return serveHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer context.AfterFunc(bg, func() { ws.CloseNow() })()
		ws.SetReadLimit(readLimit)
		jrpc2.NewServer(methods, nil).Start(jrpc2Channel{ws}).Wait()
	}), stop)
}

func (jrpc2Peer) Dial(ctx context.Context, addr string, _ int) (Client, error) {
	ws, _, err := websocket.Dial(ctx, "ws://"+addr, nil)
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(readLimit)
	return jrpc2Client{jrpc2.NewClient(jrpc2Channel{ws}, nil)}, nil
}

// jrpc2Data is an object: parameters of JSON-RPC are no string.
type jrpc2Data struct{ Data []byte }

type jrpc2Client struct{ c *jrpc2.Client }

func (c jrpc2Client) Close() { c.c.Close() }

func (c jrpc2Client) Add(ctx context.Context, r msg.Request) (reply msg.Reply, err error) {
	err = c.c.CallResult(ctx, "add", r, &reply)
	return reply, err
}

func (c jrpc2Client) Echo(ctx context.Context, p []byte) (int, error) {
	var got jrpc2Data
	err := c.c.CallResult(ctx, "echo", jrpc2Data{p}, &got)
	return len(got.Data), err
}
