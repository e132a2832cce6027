package dropped

import (
	"context"
	"time"

	"github.com/typedrpc/typedrpc"
)

type key struct{}

var (
	conn *typedrpc.Conn
	add  typedrpc.Method[int, int]
	chat typedrpc.BidiStream[int, int, int]
	_, e = typedrpc.Open(context.Background(), conn, chat, 1) // want `the Stream that typedrpc.Open returns is dropped and its context never ends`
)

func wrong(ctx context.Context) error {
	typedrpc.Open(ctx, conn, chat, 1)                   // want `the Stream that typedrpc.Open returns is dropped: nobody can end it`
	go typedrpc.Dial(ctx, "ws://localhost")             // want `the Conn that typedrpc.Dial returns is dropped: nobody can end it`
	_, _ = typedrpc.Open(context.TODO(), conn, chat, 1) // want `its context never ends`
	own := context.WithValue(context.Background(), key{}, 1)
	own = context.WithValue(own, key{}, 2)
	_, err := typedrpc.Open(own, conn, chat, 1) // want `its context never ends`
	return err
}

func fine(ctx context.Context, panics func(func())) error {
	stream, err := typedrpc.Open(context.Background(), conn, chat, 1)
	if err != nil {
		return err
	}
	defer stream.Cancel()
	_, err = typedrpc.Open(ctx, conn, chat, 1) // ends with its context
	timed, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err = typedrpc.Open(timed, conn, chat, 1)
	if err != nil {
		ctx = context.Background()
	}
	_, err = typedrpc.Open(ctx, conn, chat, 1)
	_, err = typedrpc.Dial(context.Background(), "ws://nowhere") // must fail
	typedrpc.Go(context.Background(), conn, add, 1)              // ends with its answer
	_ = typedrpc.Go(ctx, conn, add, 1)
	_, err = typedrpc.Call(ctx, conn, add, 1)
	panics(func() { typedrpc.Open(nil, conn, chat, 1) })
	return err
}
