// What a program over the real library must not have, and may: for TestGoVet.
package main

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/transfer"
)

var (
	count = typedrpc.NewServerStream[int, int]("count", typedrpc.Timeout(time.Hour))
	total = typedrpc.NewClientStream[int, int, int]("total")
	chat  = typedrpc.NewBidiStream[int, int, int]("chat")

	failed = typedrpc.NewMethod[int, []error]("failed")                                          // want
	point  = typedrpc.NewMethod[*struct{}, int]("point", typedrpc.Alloc[*struct{}]())            // want
	any_   = topic.New[map[string]any]("any", typedrpc.Tag(1), typedrpc.Alloc[map[string]any]()) // want
	right  = transfer.NewUpload[*struct{ At time.Time }, typedrpc.Raw]("up", typedrpc.Alloc[struct{ At time.Time }]())
	data   = typedrpc.NewFault[fmt.Stringer]("data", typedrpc.NotFound) // want
)

func main() {
	ctx := context.Background()
	mux := typedrpc.NewMux()
	mux.Group()                                                // want
	typedrpc.Timeout(time.Hour)                                // want
	count.Restartable(func(n int, last *int) int { return n }) // want
	typedrpc.Handle(mux, total, func(ctx context.Context, n int, items iter.Seq2[int, error]) (int, error) {
		for item := range items { // want
			n += item
		}
		return n, nil
	})
	conn, err := typedrpc.Dial(ctx, "ws://localhost", &typedrpc.DialOptions{Mux: mux})
	if err != nil {
		return
	}
	conn.With(typedrpc.CallOptions{})                      // want
	for n := range typedrpc.Receive(ctx, conn, count, 1) { // want
		fmt.Println(n)
	}
	_, err = typedrpc.Open(ctx, conn, chat, 1)                                    // want
	topic.MaxQueued(1 << 20)                                                      // want
	topic.New[string]("news")                                                     // want
	transfer.NewUpload[int, int]("up")                                            // want
	for text := range topic.Subscribe(ctx, conn, topic.New[string]("news"), "") { // want
		fmt.Println(text)
	}
	stream, err := typedrpc.Open(ctx, conn, chat, 1)
	if err != nil {
		return
	}
	for n, err := range stream.All() {
		fmt.Println(n, err)
	}
	conn.Close()
}
