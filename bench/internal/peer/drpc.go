package peer

import (
	"context"
	"net"

	"storj.io/drpc/drpcconn"
	"storj.io/drpc/drpcmux"
	"storj.io/drpc/drpcpool"
	"storj.io/drpc/drpcserver"

	"github.com/typedrpc/typedrpc/bench/internal/msg"
	"github.com/typedrpc/typedrpc/bench/internal/pb"
)

// drpcPeer is storj.io/drpc over TCP. A connection of it carries one call at a time: several
// callers have a pool.
type drpcPeer struct{}

func (drpcPeer) Info() Info {
	return Info{Name: "drpc", How: "over TCP; a call at a time on a connection, so drpcpool for several callers", Against: "typedrpc protobuf", Can: Contexts | Echo | Stream,
		Modules: []string{"storj.io/drpc", "google.golang.org/protobuf"}}
}

type drpcService struct {
	pb.DRPCBenchUnimplementedServer
}

func (drpcService) Add(_ context.Context, r *pb.Request) (*pb.Reply, error) { return pbAnswer(r), nil }
func (drpcService) Echo(_ context.Context, d *pb.Data) (*pb.Data, error)    { return d, nil }

func (drpcService) Items(c *pb.Count, s pb.DRPCBench_ItemsStream) error {
	return sendItems(c.GetN(), s.Send)
}

func (drpcPeer) Serve() (Server, error) {
	ln, err := listen()
	if err != nil {
		return nil, err
	}
	mux := drpcmux.New()
	if err := pb.DRPCRegisterBench(mux, &drpcService{}); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		drpcserver.New(mux).Serve(ctx, ln)
	}()
	return running{ln.Addr().String(), func() { stop(); <-done }}, nil
}

func (drpcPeer) Dial(ctx context.Context, addr string, callers int) (Client, error) {
	dial := func(ctx context.Context, addr string) (*drpcconn.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		return drpcconn.New(c), nil
	}
	if callers == 1 {
		c, err := dial(ctx, addr)
		if err != nil {
			return nil, err
		}
		return drpcClient{pb.NewDRPCBenchClient(c), func() { c.Close() }}, nil
	}
	pool := drpcpool.New[string, *drpcconn.Conn](drpcpool.Options{Capacity: callers})
	return drpcClient{pb.NewDRPCBenchClient(pool.Get(ctx, addr, dial)), func() { pool.Close() }}, nil
}

type drpcClient struct {
	client pb.DRPCBenchClient
	close  func()
}

func (c drpcClient) Close() { c.close() }

func (c drpcClient) Add(ctx context.Context, r msg.Request) (msg.Reply, error) {
	reply, err := c.client.Add(ctx, pbRequest(r))
	return pbReply(reply), err
}

func (c drpcClient) Echo(ctx context.Context, p []byte) (int, error) {
	d, err := c.client.Echo(ctx, &pb.Data{Data: p})
	return len(d.GetData()), err
}

func (c drpcClient) Items(ctx context.Context, n int) (int, error) {
	s, err := c.client.Items(ctx, &pb.Count{N: int64(n)})
	if err != nil {
		return 0, err
	}
	n, _, err = drain(s.Recv)
	return n, err
}
