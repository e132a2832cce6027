package peer

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/gorilla/websocket"
	"github.com/sourcegraph/jsonrpc2"
	stream "github.com/sourcegraph/jsonrpc2/websocket"

	"github.com/typedrpc/typedrpc/bench/internal/msg"
)

// sourcegraphPeer is sourcegraph/jsonrpc2 over a WebSocket, by its own package for that.
type sourcegraphPeer struct{}

func (sourcegraphPeer) Info() Info {
	return Info{Name: "sourcegraph/jsonrpc2", How: "JSON-RPC 2.0 over a WebSocket, AsyncHandler", Against: "typedrpc JSON-RPC", Can: Contexts | Echo,
		Modules: []string{"github.com/sourcegraph/jsonrpc2", "github.com/gorilla/websocket"}}
}

func sourcegraphHandle(_ context.Context, _ *jsonrpc2.Conn, r *jsonrpc2.Request) (any, error) {
	if r.Params == nil {
		return nil, &jsonrpc2.Error{Code: jsonrpc2.CodeInvalidParams}
	}
	switch r.Method {
	case "add":
		var m msg.Request
		if err := json.Unmarshal(*r.Params, &m); err != nil {
			return nil, err
		}
		return msg.Answer(m), nil
	case "echo":
		var p []byte
		err := json.Unmarshal(*r.Params, &p)
		return p, err
	}
	return nil, &jsonrpc2.Error{Code: jsonrpc2.CodeMethodNotFound}
}

func (sourcegraphPeer) Serve() (Server, error) {
	bg, stop := context.WithCancel(context.Background())
	h := jsonrpc2.AsyncHandler(jsonrpc2.HandlerWithError(sourcegraphHandle))
	up := websocket.Upgrader{}
	return serveHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		c := jsonrpc2.NewConn(bg, stream.NewObjectStream(ws), h)
		context.AfterFunc(bg, func() { c.Close() })
	}), stop)
}

func (sourcegraphPeer) Dial(ctx context.Context, addr string, _ int) (Client, error) {
	ws, _, err := websocket.DefaultDialer.DialContext(ctx, "ws://"+addr, nil)
	if err != nil {
		return nil, err
	}
	none := jsonrpc2.HandlerWithError(func(context.Context, *jsonrpc2.Conn, *jsonrpc2.Request) (any, error) {
		return nil, &jsonrpc2.Error{Code: jsonrpc2.CodeMethodNotFound}
	})
	return sourcegraphClient{jsonrpc2.NewConn(context.Background(), stream.NewObjectStream(ws), none)}, nil
}

type sourcegraphClient struct{ c *jsonrpc2.Conn }

func (c sourcegraphClient) Close() { c.c.Close() }

func (c sourcegraphClient) Add(ctx context.Context, r msg.Request) (reply msg.Reply, err error) {
	err = c.c.Call(ctx, "add", r, &reply)
	return reply, err
}

func (c sourcegraphClient) Echo(ctx context.Context, p []byte) (int, error) {
	var got []byte
	err := c.c.Call(ctx, "echo", p, &got)
	return len(got), err
}
