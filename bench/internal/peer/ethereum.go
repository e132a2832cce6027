package peer

import (
	"context"

	"github.com/ethereum/go-ethereum/rpc"

	"github.com/typedrpc/typedrpc/bench/internal/msg"
)

// ethereumPeer is go-ethereum's JSON-RPC over a WebSocket.
type ethereumPeer struct{}

func (ethereumPeer) Info() Info {
	return Info{Name: "go-ethereum/rpc", How: "JSON-RPC 2.0 over a WebSocket", Modules: []string{"github.com/ethereum/go-ethereum"}, Against: "typedrpc JSON-RPC", Can: Contexts | Echo}
}

type ethereumService struct{}

func (ethereumService) Add(r msg.Request) msg.Reply { return msg.Answer(r) }
func (ethereumService) Echo(p []byte) []byte        { return p }

func (ethereumPeer) Serve() (Server, error) {
	srv := rpc.NewServer()
	if err := srv.RegisterName("bench", ethereumService{}); err != nil {
		return nil, err
	}
	return serveHTTP(srv.WebsocketHandler([]string{"*"}), srv.Stop)
}

func (ethereumPeer) Dial(ctx context.Context, addr string, _ int) (Client, error) {
	c, err := rpc.DialWebsocket(ctx, "ws://"+addr, "")
	if err != nil {
		return nil, err
	}
	return ethereumClient{c}, nil
}

type ethereumClient struct{ c *rpc.Client }

func (c ethereumClient) Close() { c.c.Close() }

func (c ethereumClient) Add(ctx context.Context, r msg.Request) (reply msg.Reply, err error) {
	err = c.c.CallContext(ctx, &reply, "bench_add", r)
	return reply, err
}

func (c ethereumClient) Echo(ctx context.Context, p []byte) (int, error) {
	var got []byte
	err := c.c.CallContext(ctx, &got, "bench_echo", p)
	return len(got), err
}
