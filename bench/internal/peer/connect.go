package peer

import (
	"context"
	"io"
	"net/http"

	"connectrpc.com/connect"

	"github.com/typedrpc/typedrpc/bench/internal/msg"
	"github.com/typedrpc/typedrpc/bench/internal/pb"
	"github.com/typedrpc/typedrpc/bench/internal/pb/pbconnect"
)

// connectPeer is Connect's own protocol over net/http.
type connectPeer struct{ h2c bool }

func (p connectPeer) Info() Info {
	i := Info{Name: "Connect h2c", How: "Connect's protocol over HTTP/2 without TLS, net/http", Against: "typedrpc protobuf", Can: usual,
		Modules: []string{"connectrpc.com/connect", "google.golang.org/protobuf"}}
	if !p.h2c {
		i.Name, i.How = "Connect HTTP/1.1", "Connect's protocol over HTTP/1.1, net/http, a kept connection for each caller"
		i.Can = Contexts | Echo | Stream // each transfer has a connection of its own
	}
	return i
}

type connectService struct{}

func (connectService) Add(_ context.Context, r *connect.Request[pb.Request]) (*connect.Response[pb.Reply], error) {
	return connect.NewResponse(pbAnswer(r.Msg)), nil
}

func (connectService) Echo(_ context.Context, r *connect.Request[pb.Data]) (*connect.Response[pb.Data], error) {
	return connect.NewResponse(r.Msg), nil
}

func (connectService) Items(_ context.Context, r *connect.Request[pb.Count], s *connect.ServerStream[pb.Data]) error {
	return sendItems(r.Msg.GetN(), s.Send)
}

func (connectService) Download(_ context.Context, r *connect.Request[pb.Count], s *connect.ServerStream[pb.Data]) error {
	return sendPieces(r.Msg.GetN(), s.Send)
}

func (connectService) Upload(_ context.Context, s *connect.ClientStream[pb.Data]) (*connect.Response[pb.Count], error) {
	_, n, err := drain(received(s.Receive, s.Msg, s.Err))
	return connect.NewResponse(&pb.Count{N: int64(n)}), err
}

// received is what drain wants, of a stream of Connect's.
func received(next func() bool, current func() *pb.Data, err func() error) func() (*pb.Data, error) {
	return func() (*pb.Data, error) {
		if next() {
			return current(), nil
		}
		if err := err(); err != nil {
			return nil, err
		}
		return nil, io.EOF
	}
}

func (p connectPeer) protocols() *http.Protocols {
	var all http.Protocols
	all.SetHTTP1(!p.h2c)
	all.SetUnencryptedHTTP2(p.h2c)
	return &all
}

func (p connectPeer) Serve() (Server, error) {
	ln, err := listen()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle(pbconnect.NewBenchHandler(connectService{}))
	// By default a connection of net/http's has 250 streams: 1,024 callers would have five.
	hs := &http.Server{Handler: mux, Protocols: p.protocols(), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 2048}}
	go hs.Serve(ln)
	return running{ln.Addr().String(), func() { hs.Close() }}, nil
}

func (p connectPeer) Dial(ctx context.Context, addr string, callers int) (Client, error) {
	t := &http.Transport{Protocols: p.protocols(), MaxIdleConnsPerHost: callers + 2}
	c := connectClient{t, pbconnect.NewBenchClient(&http.Client{Transport: t}, "http://"+addr)}
	if _, err := c.Add(ctx, msg.Request{}); err != nil { // connects
		c.Close()
		return nil, err
	}
	return c, nil
}

type connectClient struct {
	transport *http.Transport
	client    pbconnect.BenchClient
}

func (c connectClient) Close() { c.transport.CloseIdleConnections() }

func (c connectClient) Add(ctx context.Context, r msg.Request) (msg.Reply, error) {
	reply, err := c.client.Add(ctx, connect.NewRequest(pbRequest(r)))
	if err != nil {
		return msg.Reply{}, err
	}
	return pbReply(reply.Msg), nil
}

func (c connectClient) Echo(ctx context.Context, p []byte) (int, error) {
	d, err := c.client.Echo(ctx, connect.NewRequest(&pb.Data{Data: p}))
	if err != nil {
		return 0, err
	}
	return len(d.Msg.GetData()), nil
}

func (c connectClient) Items(ctx context.Context, n int) (int, error) {
	s, err := c.client.Items(ctx, connect.NewRequest(&pb.Count{N: int64(n)}))
	if err != nil {
		return 0, err
	}
	defer s.Close()
	n, _, err = drain(received(s.Receive, s.Msg, s.Err))
	return n, err
}

func (c connectClient) Download(ctx context.Context, size int) error {
	s, err := c.client.Download(ctx, connect.NewRequest(&pb.Count{N: int64(size)}))
	if err != nil {
		return err
	}
	defer s.Close()
	_, n, err := drain(received(s.Receive, s.Msg, s.Err))
	return arrived(n, size, err)
}

func (c connectClient) Upload(ctx context.Context, size int) error {
	s := c.client.Upload(ctx)
	if err := sendPieces(int64(size), s.Send); err != nil {
		return err
	}
	n, err := s.CloseAndReceive()
	if err != nil {
		return err
	}
	return arrived(int(n.Msg.GetN()), size, nil)
}
