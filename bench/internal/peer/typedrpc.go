package peer

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/bench/internal/fast"
	"github.com/typedrpc/typedrpc/bench/internal/msg"
	"github.com/typedrpc/typedrpc/bench/internal/pb"
	"github.com/typedrpc/typedrpc/codec/msgp"
	"github.com/typedrpc/typedrpc/codec/proto"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/transfer"
)

// typed is typedrpc, with messages of its own for each codec.
type typed[Req, Reply any] struct {
	info    Info
	codec   typedrpc.Codec // nil: JSON
	dialect typedrpc.Dialect
	add     typedrpc.Method[Req, Reply]
	answer  func(Req) Reply
	req     func(msg.Request) Req
	reply   func(Reply) msg.Reply
}

const usual = Contexts | Echo | Stream | Transfer

// Reference is the name of the peer that all others are compared with.
const Reference = "typedrpc"

func typedInfo(name, how string, can Can, modules ...string) Info {
	return Info{Name: name, How: how, Modules: append([]string{"github.com/typedrpc/typedrpc"}, modules...), Against: Reference, Can: can}
}

func plain[T any](v T) T { return v }

func handPeer() Peer {
	return typed[msg.Request, msg.Reply]{
		info:  typedInfo(Reference, "binary dialect, a codec written by hand", usual|Broadcast|Idle),
		codec: hand{}, add: typedrpc.NewMethod[msg.Request, msg.Reply]("add"),
		answer: msg.Answer, req: plain[msg.Request], reply: plain[msg.Reply],
	}
}

func msgpPeer() Peer {
	return typed[msg.Request, msg.Reply]{
		info:  typedInfo("typedrpc msgp", "binary dialect, codec/msgp", Contexts|Echo, "github.com/typedrpc/typedrpc/codec/msgp", "github.com/tinylib/msgp"),
		codec: msgp.Codec{}, add: typedrpc.NewMethod[msg.Request, msg.Reply]("add"),
		answer: msg.Answer, req: plain[msg.Request], reply: plain[msg.Reply],
	}
}

func protoPeer() Peer {
	return typed[*pb.Request, *pb.Reply]{
		info:  typedInfo("typedrpc protobuf", "binary dialect, codec/proto", Contexts|Echo, "github.com/typedrpc/typedrpc/codec/proto", "google.golang.org/protobuf"),
		codec: proto.Codec{}, add: typedrpc.NewMethod[*pb.Request, *pb.Reply]("add", typedrpc.Alloc[pb.Request](), typedrpc.Alloc[pb.Reply]()),
		answer: pbAnswer, req: pbRequest, reply: pbReply,
	}
}

func jsonPeer() Peer {
	return typed[msg.Request, msg.Reply]{
		info:   typedInfo("typedrpc JSON", "binary dialect, encoding/json on plain structs", Contexts|Echo),
		add:    typedrpc.NewMethod[msg.Request, msg.Reply]("add"),
		answer: msg.Answer, req: plain[msg.Request], reply: plain[msg.Reply],
	}
}

func fastPeer() Peer {
	return typed[fast.Request, fast.Reply]{
		info:   typedInfo("typedrpc generated JSON", "binary dialect, plain structs, JSON made by typedrpc json", Contexts|Echo),
		add:    fast.Add,
		answer: func(r fast.Request) fast.Reply { return fast.Reply(msg.Answer(msg.Request(r))) },
		req:    func(r msg.Request) fast.Request { return fast.Request(r) },
		reply:  func(r fast.Reply) msg.Reply { return msg.Reply(r) },
	}
}

func inlinePeer() Peer {
	return typed[msg.Request, msg.Reply]{
		info:  typedInfo("typedrpc Inline", "binary dialect, a codec written by hand, the method is Inline", Contexts),
		codec: hand{}, add: typedrpc.NewMethod[msg.Request, msg.Reply]("add", typedrpc.Inline),
		answer: msg.Answer, req: plain[msg.Request], reply: plain[msg.Reply],
	}
}

func jsonrpcPeer() Peer {
	return typed[msg.Request, msg.Reply]{
		info:    typedInfo("typedrpc JSON-RPC", "plain JSON-RPC 2.0, encoding/json on plain structs", Contexts|Echo),
		dialect: typedrpc.JSONRPC, add: typedrpc.NewMethod[msg.Request, msg.Reply]("add"),
		answer: msg.Answer, req: plain[msg.Request], reply: plain[msg.Reply],
	}
}

var (
	echo     = typedrpc.NewMethod[[]byte, []byte]("echo")
	items    = typedrpc.NewServerStream[int, item]("items")
	download = transfer.NewDownload[int]("download")
	upload   = transfer.NewUpload[struct{}, int]("upload")
	room     = topic.New[item]("room", topic.WaitAtMost(time.Minute))
)

// item is an item of a stream, and what is broadcast.
type item [msg.ItemSize]byte

func (p typed[Req, Reply]) Info() Info { return p.info }

func (p typed[Req, Reply]) codecs() []typedrpc.Codec {
	if p.codec == nil {
		return nil
	}
	return []typedrpc.Codec{p.codec}
}

func (p typed[Req, Reply]) Serve() (Server, error) {
	mux, hub := typedrpc.NewMux(), &topic.Hub{}
	typedrpc.Handle(mux, p.add, func(_ context.Context, r Req) (Reply, error) { return p.answer(r), nil })
	typedrpc.Handle(mux, echo, func(_ context.Context, b []byte) ([]byte, error) { return b, nil })
	if p.info.Can&Stream != 0 {
		typedrpc.Handle(mux, items, func(_ context.Context, n int, send func(item) error) error {
			for range n {
				if err := send(item{}); err != nil {
					return err
				}
			}
			return nil
		})
		typedrpc.Handle(mux, download, func(_ context.Context, n int, w *transfer.Writer) error {
			return w.Send(zeros(n), nil)
		})
		typedrpc.Handle(mux, upload, func(_ context.Context, _ struct{}, r *transfer.Reader) (int, error) {
			n, err := io.Copy(io.Discard, r)
			return int(n), err
		})
		topic.Handle(mux, hub, room, topic.Everybody)
	}
	// All idle connections come from one address.
	srv := &typedrpc.Server{Mux: mux, Codecs: p.codecs(), BeginRate: -1}
	if err := srv.Check(); err != nil {
		return nil, err
	}
	s, err := serveHTTP(srv, func() {
		now, stop := context.WithCancel(context.Background())
		stop()
		srv.Shutdown(now)
	})
	return typedServer{s, hub}, err
}

type typedServer struct {
	Server
	hub *topic.Hub
}

func (s typedServer) Publish(n int) error {
	for range n {
		if err := topic.Publish(context.Background(), s.hub, room, "all", item{}); err != nil {
			return err
		}
	}
	return nil
}

func (p typed[Req, Reply]) Dial(ctx context.Context, addr string, _ int) (Client, error) {
	conn, err := typedrpc.Dial(ctx, "ws://"+addr, &typedrpc.DialOptions{Codecs: p.codecs(), Dialect: p.dialect})
	if err != nil {
		return nil, err
	}
	return typedClient[Req, Reply]{p, conn}, nil
}

type typedClient[Req, Reply any] struct {
	typed[Req, Reply]
	conn *typedrpc.Conn
}

func (c typedClient[Req, Reply]) Close() { c.conn.Close() }

func (c typedClient[Req, Reply]) Add(ctx context.Context, r msg.Request) (msg.Reply, error) {
	reply, err := typedrpc.Call(ctx, c.conn, c.add, c.req(r))
	if err != nil {
		return msg.Reply{}, err
	}
	return c.reply(reply), nil
}

func (c typedClient[Req, Reply]) Echo(ctx context.Context, p []byte) (int, error) {
	got, err := typedrpc.Call(ctx, c.conn, echo, p)
	return len(got), err
}

func (c typedClient[Req, Reply]) Items(ctx context.Context, n int) (received int, err error) {
	for _, err := range typedrpc.Receive(ctx, c.conn, items, n) {
		if err != nil {
			return received, err
		}
		received++
	}
	return received, nil
}

func (c typedClient[Req, Reply]) Upload(ctx context.Context, size int) error {
	n, err := transfer.Send(ctx, c.conn, upload, struct{}{}, zeros(size), nil)
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes of %d arrived", n, size)
	}
	return err
}

func (c typedClient[Req, Reply]) Download(ctx context.Context, size int) error {
	r, err := transfer.Receive(ctx, c.conn, download, size, nil)
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := io.Copy(io.Discard, r)
	if err == nil && int(n) != size {
		err = fmt.Errorf("%d bytes of %d arrived", n, size)
	}
	return err
}

func (c typedClient[Req, Reply]) Subscribe(ctx context.Context, got func()) error {
	return typedSubscribe(ctx, c.conn, got)
}

// nothing is what is transferred.
var nothing [64 << 20]byte

func zeros(n int) *bytes.Reader { return bytes.NewReader(nothing[:n]) }
