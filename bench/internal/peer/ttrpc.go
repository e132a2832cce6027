package peer

import (
	"context"
	"net"

	"github.com/containerd/ttrpc"

	"github.com/typedrpc/typedrpc/bench/internal/msg"
	"github.com/typedrpc/typedrpc/bench/internal/pb"
)

// ttrpcPeer is containerd/ttrpc, over TCP as the others.
type ttrpcPeer struct{}

func (ttrpcPeer) Info() Info {
	return Info{Name: "ttrpc", How: "over TCP", Against: "typedrpc protobuf", Can: usual,
		Modules: []string{"github.com/containerd/ttrpc", "google.golang.org/protobuf"}}
}

type ttrpcService struct{}

func (ttrpcService) Add(_ context.Context, r *pb.Request) (*pb.Reply, error) { return pbAnswer(r), nil }
func (ttrpcService) Echo(_ context.Context, d *pb.Data) (*pb.Data, error)    { return d, nil }

func (ttrpcService) Items(_ context.Context, c *pb.Count, s pb.TTRPCBench_ItemsServer) error {
	return sendItems(c.GetN(), s.Send)
}

func (ttrpcService) Download(_ context.Context, c *pb.Count, s pb.TTRPCBench_DownloadServer) error {
	return sendPieces(c.GetN(), s.Send)
}

func (ttrpcService) Upload(_ context.Context, s pb.TTRPCBench_UploadServer) (*pb.Count, error) {
	_, n, err := drain(s.Recv)
	return &pb.Count{N: int64(n)}, err
}

func (ttrpcPeer) Serve() (Server, error) {
	ln, err := listen()
	if err != nil {
		return nil, err
	}
	srv, err := ttrpc.NewServer()
	if err != nil {
		return nil, err
	}
	pb.RegisterTTRPCBenchService(srv, ttrpcService{})
	go srv.Serve(context.Background(), ln)
	return running{ln.Addr().String(), func() { srv.Close() }}, nil
}

func (ttrpcPeer) Dial(ctx context.Context, addr string, _ int) (Client, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	conn := ttrpc.NewClient(c)
	return ttrpcClient{conn, pb.NewTTRPCBenchClient(conn)}, nil
}

type ttrpcClient struct {
	conn   *ttrpc.Client
	client pb.TTRPCBenchClient
}

func (c ttrpcClient) Close() { c.conn.Close() }

func (c ttrpcClient) Add(ctx context.Context, r msg.Request) (msg.Reply, error) {
	reply, err := c.client.Add(ctx, pbRequest(r))
	return pbReply(reply), err
}

func (c ttrpcClient) Echo(ctx context.Context, p []byte) (int, error) {
	d, err := c.client.Echo(ctx, &pb.Data{Data: p})
	return len(d.GetData()), err
}

func (c ttrpcClient) Items(ctx context.Context, n int) (int, error) {
	s, err := c.client.Items(ctx, &pb.Count{N: int64(n)})
	if err != nil {
		return 0, err
	}
	n, _, err = drain(s.Recv)
	return n, err
}

func (c ttrpcClient) Download(ctx context.Context, size int) error {
	s, err := c.client.Download(ctx, &pb.Count{N: int64(size)})
	if err != nil {
		return err
	}
	_, n, err := drain(s.Recv)
	return arrived(n, size, err)
}

func (c ttrpcClient) Upload(ctx context.Context, size int) error {
	s, err := c.client.Upload(ctx)
	if err != nil {
		return err
	}
	if err := sendPieces(int64(size), s.Send); err != nil {
		return err
	}
	n, err := s.CloseAndRecv()
	return arrived(int(n.GetN()), size, err)
}
