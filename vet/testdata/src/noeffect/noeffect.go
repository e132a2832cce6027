package noeffect

import (
	"context"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
)

var (
	conn   *typedrpc.Conn
	add    typedrpc.Method[int, int]
	prices = typedrpc.ServerStream[int, int]{}.Restartable(next)
	news   = topic.New[string]("news", topic.History(1))
)

func next(n int, last *int) int { return n }

func sum(ctx context.Context, n int) (int, error) { return n, nil }

func wrong(ctx context.Context, mux *typedrpc.Mux) {
	typedrpc.Timeout(1)                     // want `typedrpc.Timeout returns a trait`
	typedrpc.Own()                          // want `typedrpc.Own returns a trait`
	topic.History(1)                        // want `topic.History returns a trait`
	typedrpc.NewMethod[int, int]("add")     // want `the result of typedrpc.NewMethod is dropped`
	topic.New[string]("news")               // want `the result of topic.New is dropped`
	typedrpc.NewMux()                       // want `the result of typedrpc.NewMux is dropped`
	prices.Restartable(next)                // want `the result of ServerStream.Restartable is dropped`
	(conn.With(typedrpc.CallOptions{}))     // want `the result of Conn.With is dropped`
	mux.Group(nil)                          // want `the result of Mux.Group is dropped`
	defer conn.State()                      // want `the result of Conn.State is dropped`
	typedrpc.Receive(ctx, conn, prices, 1)  // want `typedrpc.Receive returns a sequence`
	go topic.Subscribe(ctx, conn, news, "") // want `topic.Subscribe returns a sequence`
	func() {
		typedrpc.Handle(mux, add, sum)
		mux.Group() // want `the result of Mux.Group is dropped`
	}()
}

func fine(ctx context.Context, mux *typedrpc.Mux, panics func(func())) {
	mux = mux.Group()
	_ = conn.With(typedrpc.CallOptions{})
	typedrpc.Handle(mux, add, sum)
	typedrpc.Call(ctx, conn, add, 1)
	typedrpc.Go(ctx, conn, add, 1)
	topic.Publish(ctx, nil, news, "", "")
	conn.Reconnect()
	conn.Close()
	panics(func() { typedrpc.NewMethod[int, int]("") })
	Timeout(1)
}

func tried() (err any) {
	defer func() { err = recover() }()
	typedrpc.NewMethod[int, int]("")
	return nil
}

// Timeout is another's.
func Timeout(int) typedrpc.CallTrait { return nil }
