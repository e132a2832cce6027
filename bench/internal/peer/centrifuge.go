package peer

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/centrifugal/centrifuge"
	client "github.com/centrifugal/centrifuge-go"
	"google.golang.org/protobuf/proto"

	"github.com/typedrpc/typedrpc/bench/internal/msg"
	"github.com/typedrpc/typedrpc/bench/internal/pb"
)

// centrifugePeer is centrifuge's RPC, with payloads in protobuf or JSON.
type centrifugePeer struct{ json bool }

func (p centrifugePeer) Info() Info {
	i := Info{Name: "centrifuge", How: "protobuf protocol, protobuf payloads, centrifuge-go", Against: "typedrpc protobuf", Can: Contexts | Echo | Broadcast | Idle,
		Modules: []string{"github.com/centrifugal/centrifuge", "github.com/centrifugal/centrifuge-go"}}
	if p.json {
		i.Name, i.How, i.Against = "centrifuge JSON", "JSON protocol, JSON payloads, centrifuge-go", "typedrpc JSON"
		i.Can = Contexts | Echo
	}
	return i
}

// answer decodes a request, and encodes its reply.
func (p centrifugePeer) answer(data []byte) ([]byte, error) {
	if p.json {
		var r msg.Request
		if err := json.Unmarshal(data, &r); err != nil {
			return nil, err
		}
		return json.Marshal(msg.Answer(r))
	}
	var r pb.Request
	if err := proto.Unmarshal(data, &r); err != nil {
		return nil, err
	}
	return proto.Marshal(pbAnswer(&r))
}

// echo hands protobuf's bytes through; in JSON they are a string in base64.
func (p centrifugePeer) echo(data []byte) ([]byte, error) {
	if !p.json {
		return data, nil
	}
	var b []byte
	if err := json.Unmarshal(data, &b); err != nil {
		return nil, err
	}
	return json.Marshal(b)
}

func (p centrifugePeer) Serve() (Server, error) {
	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		return nil, err
	}
	node.OnConnect(func(c *centrifuge.Client) {
		c.OnRPC(func(e centrifuge.RPCEvent, cb centrifuge.RPCCallback) {
			handle := p.answer
			if e.Method == "echo" {
				handle = p.echo
			}
			data, err := handle(e.Data)
			cb(centrifuge.RPCReply{Data: data}, err)
		})
		c.OnSubscribe(func(_ centrifuge.SubscribeEvent, cb centrifuge.SubscribeCallback) {
			cb(centrifuge.SubscribeReply{}, nil)
		})
	})
	if err := node.Run(); err != nil {
		return nil, err
	}
	// The default does not take 64 KiB and a header.
	ws := centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{MessageSizeLimit: 1 << 20})
	s, err := serveHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws.ServeHTTP(w, r.WithContext(centrifuge.SetCredentials(r.Context(), &centrifuge.Credentials{})))
	}), func() { node.Shutdown(context.Background()) })
	return centrifugeServer{s, node}, err
}

type centrifugeServer struct {
	Server
	node *centrifuge.Node
}

func (s centrifugeServer) Publish(n int) error {
	for range n {
		if _, err := s.node.Publish("all", nothing[:msg.ItemSize]); err != nil {
			return err
		}
	}
	return nil
}

// patient has longer times than the defaults: ten thousand clients are begun at once.
var patient = client.Config{HandshakeTimeout: 30 * time.Second, ReadTimeout: 30 * time.Second}

func (p centrifugePeer) Dial(ctx context.Context, addr string, _ int) (Client, error) {
	dial := client.NewProtobufClient
	if p.json {
		dial = client.NewJsonClient
	}
	c := centrifugeClient{p, dial("ws://"+addr, patient)}
	connected := make(chan error, 1)
	tell := func(err error) {
		select {
		case connected <- err:
		default:
		}
	}
	c.c.OnConnected(func(client.ConnectedEvent) { tell(nil) })
	c.c.OnError(func(e client.ErrorEvent) { tell(e.Error) })
	err := c.c.Connect()
	if err == nil {
		select {
		case err = <-connected:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

type centrifugeClient struct {
	p centrifugePeer
	c *client.Client
}

func (c centrifugeClient) Close() { c.c.Close() }

func (c centrifugeClient) Add(ctx context.Context, r msg.Request) (reply msg.Reply, err error) {
	var data []byte
	if c.p.json {
		data, err = json.Marshal(r)
	} else {
		data, err = proto.Marshal(pbRequest(r))
	}
	if err != nil {
		return reply, err
	}
	result, err := c.c.RPC(ctx, "add", data)
	if err != nil {
		return reply, err
	}
	if c.p.json {
		err = json.Unmarshal(result.Data, &reply)
		return reply, err
	}
	var m pb.Reply
	err = proto.Unmarshal(result.Data, &m)
	return pbReply(&m), err
}

func (c centrifugeClient) Echo(ctx context.Context, p []byte) (int, error) {
	if !c.p.json {
		result, err := c.c.RPC(ctx, "echo", p)
		return len(result.Data), err
	}
	data, err := json.Marshal(p)
	if err != nil {
		return 0, err
	}
	result, err := c.c.RPC(ctx, "echo", data)
	if err != nil {
		return 0, err
	}
	var got []byte
	err = json.Unmarshal(result.Data, &got)
	return len(got), err
}

func (c centrifugeClient) Subscribe(ctx context.Context, got func()) error {
	sub, err := c.c.NewSubscription("all")
	if err != nil {
		return err
	}
	subscribed := make(chan error, 1)
	sub.OnSubscribed(func(client.SubscribedEvent) { subscribed <- nil })
	sub.OnError(func(e client.SubscriptionErrorEvent) {
		select {
		case subscribed <- e.Error:
		default:
		}
	})
	sub.OnPublication(func(client.PublicationEvent) { got() })
	if err := sub.Subscribe(); err != nil {
		return err
	}
	select {
	case err := <-subscribed:
		return err
	case <-ctx.Done():
		return fmt.Errorf("subscribing: %w", ctx.Err())
	}
}
