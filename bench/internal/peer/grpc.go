package peer

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/typedrpc/typedrpc/bench/internal/msg"
	"github.com/typedrpc/typedrpc/bench/internal/pb"
)

// grpcPeer is grpc-go with its defaults, without TLS.
type grpcPeer struct{}

func (grpcPeer) Info() Info {
	return Info{Name: "gRPC", How: "grpc-go over HTTP/2, without TLS", Modules: []string{"google.golang.org/grpc", "google.golang.org/protobuf"}, Against: "typedrpc protobuf", Can: usual | Idle}
}

type grpcService struct {
	pb.UnimplementedBenchServer
}

func (grpcService) Add(_ context.Context, r *pb.Request) (*pb.Reply, error) { return pbAnswer(r), nil }
func (grpcService) Echo(_ context.Context, d *pb.Data) (*pb.Data, error)    { return d, nil }

func (grpcService) Items(c *pb.Count, s grpc.ServerStreamingServer[pb.Data]) error {
	return sendItems(c.GetN(), s.Send)
}

func (grpcService) Download(c *pb.Count, s grpc.ServerStreamingServer[pb.Data]) error {
	return sendPieces(c.GetN(), s.Send)
}

func (grpcService) Upload(s grpc.ClientStreamingServer[pb.Data, pb.Count]) error {
	_, n, err := drain(s.Recv)
	if err != nil {
		return err
	}
	return s.SendAndClose(&pb.Count{N: int64(n)})
}

func (grpcPeer) Serve() (Server, error) {
	ln, err := listen()
	if err != nil {
		return nil, err
	}
	srv := grpc.NewServer()
	pb.RegisterBenchServer(srv, grpcService{})
	go srv.Serve(ln)
	return running{ln.Addr().String(), srv.Stop}, nil
}

func (grpcPeer) Dial(ctx context.Context, addr string, _ int) (Client, error) {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	c := grpcClient{conn, pb.NewBenchClient(conn)}
	if _, err := c.Add(ctx, msg.Request{}); err != nil { // connects
		conn.Close()
		return nil, err
	}
	return c, nil
}

type grpcClient struct {
	conn   *grpc.ClientConn
	client pb.BenchClient
}

func (c grpcClient) Close() { c.conn.Close() }

func (c grpcClient) Add(ctx context.Context, r msg.Request) (msg.Reply, error) {
	reply, err := c.client.Add(ctx, pbRequest(r))
	return pbReply(reply), err
}

func (c grpcClient) Echo(ctx context.Context, p []byte) (int, error) {
	d, err := c.client.Echo(ctx, &pb.Data{Data: p})
	return len(d.GetData()), err
}

func (c grpcClient) Items(ctx context.Context, n int) (int, error) {
	s, err := c.client.Items(ctx, &pb.Count{N: int64(n)})
	if err != nil {
		return 0, err
	}
	n, _, err = drain(s.Recv)
	return n, err
}

func (c grpcClient) Download(ctx context.Context, size int) error {
	s, err := c.client.Download(ctx, &pb.Count{N: int64(size)})
	if err != nil {
		return err
	}
	_, n, err := drain(s.Recv)
	return arrived(n, size, err)
}

func (c grpcClient) Upload(ctx context.Context, size int) error {
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
