// Package handlers registers and calls with wrong types: no line with a comment
// compiles.
package handlers

import (
	"context"
	"slices"

	"github.com/typedrpc/typedrpc"
)

var (
	double = typedrpc.NewMethod[int, string]("double")
	tell   = typedrpc.NewNotification[string]("tell")
	count  = typedrpc.NewServerStream[int, int]("count")
	sum    = typedrpc.NewClientStream[struct{}, int, int]("sum")
)

func register(mux *typedrpc.Mux) {
	typedrpc.Handle(mux, double, func(context.Context, string) (string, error) { return "", nil }) // want "does not match"
	typedrpc.Handle(mux, double, func(context.Context, int) (int, error) { return 0, nil })        // want "does not match"
	typedrpc.Handle(mux, tell, func(context.Context, string) {})                                   // want "does not match"
	typedrpc.Handle(mux, count, func(context.Context, int) (int, error) { return 0, nil })         // want "does not match"
	typedrpc.Handle(mux, 7, func(context.Context, int) (int, error) { return 0, nil })             // want "int"
}

func call(ctx context.Context, c *typedrpc.Conn) {
	typedrpc.Call(ctx, c, double, "2")                                 // want "as int value"
	typedrpc.Call(ctx, c, tell, "2")                                   // want "Notification"
	typedrpc.Notify(ctx, c, double, 2)                                 // want "Method"
	typedrpc.Receive(ctx, c, double, 2)                                // want "Method"
	typedrpc.SendAll(ctx, c, sum, struct{}{}, slices.Values([]int{1})) // want "Seq"
	var n int = must(typedrpc.Call(ctx, c, double, 2))                 // want "string"
	_ = n
}

func must[T any](v T, _ error) T { return v }
