package peer

import (
	"context"
	"net"
	"net/rpc"

	"github.com/typedrpc/typedrpc/bench/internal/msg"
)

// netRPCPeer is the standard library's net/rpc.
type netRPCPeer struct{}

func (netRPCPeer) Info() Info {
	return Info{Name: "net/rpc", How: "gob over TCP", Against: Reference, Can: Echo}
}

type netRPCService struct{}

func (netRPCService) Add(r *msg.Request, out *msg.Reply) error {
	*out = msg.Answer(*r)
	return nil
}

func (netRPCService) Echo(in *[]byte, out *[]byte) error {
	*out = *in
	return nil
}

func (netRPCPeer) Serve() (Server, error) {
	srv := rpc.NewServer()
	if err := srv.RegisterName("Bench", netRPCService{}); err != nil {
		return nil, err
	}
	return serveTCP(func(c net.Conn) { srv.ServeConn(c) })
}

func (netRPCPeer) Dial(_ context.Context, addr string, _ int) (Client, error) {
	c, err := rpc.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return netRPCClient{c}, nil
}

type netRPCClient struct{ c *rpc.Client }

func (c netRPCClient) Close() { c.c.Close() }

func (c netRPCClient) Add(_ context.Context, r msg.Request) (reply msg.Reply, err error) {
	err = c.c.Call("Bench.Add", &r, &reply)
	return reply, err
}

func (c netRPCClient) Echo(_ context.Context, p []byte) (int, error) {
	var got []byte
	err := c.c.Call("Bench.Echo", &p, &got)
	return len(got), err
}
