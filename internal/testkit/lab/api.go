package lab

import (
	"context"
	"strings"

	"github.com/typedrpc/typedrpc"
)

// Shortage is what NoStock carries.
type Shortage struct {
	Left int
	Hint string
}

var NoStock = typedrpc.NewFault[Shortage]("shop.no-stock", typedrpc.FailedPrecondition)

// TenantKey is the key of a value in contexts.
type TenantKey struct{}

// The methods that tests over every transport call.
type (
	Pair  struct{ A, B int }
	Total struct{ Sum int }
)

var (
	Sum     = typedrpc.NewMethod[Pair, Total]("math.sum")
	Shout   = typedrpc.NewMethod[string, string]("text.shout")
	Stay    = typedrpc.NewMethod[struct{}, struct{}]("hang")
	Ask     = typedrpc.NewMethod[int, int]("ask")
	Tell    = typedrpc.NewNotification[int]("tell")
	Ordered = typedrpc.NewMethod[int, int]("ordered", typedrpc.Serial)
)

func HandleSum(_ context.Context, p Pair) (Total, error) { return Total{p.A + p.B}, nil }

func HandleShout(_ context.Context, s string) (string, error) { return strings.ToUpper(s), nil }

// Hanging is a handler of Stay that says when it has begun and why it ended.
type Hanging struct {
	Begun chan struct{}
	Ended chan error
}

func NewHanging() Hanging { return Hanging{make(chan struct{}, 100), make(chan error, 100)} }

func (h Hanging) Handle(ctx context.Context, _ struct{}) (struct{}, error) {
	h.Begun <- struct{}{}
	<-ctx.Done()
	h.Ended <- ctx.Err()
	return struct{}{}, ctx.Err()
}
