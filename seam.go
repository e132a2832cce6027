package typedrpc

import (
	"context"

	"github.com/typedrpc/typedrpc/internal/seam"
)

// What packages topic and transfer use of this one, see package seam.
func init() {
	seam.Open = func(ctx context.Context, caller, stream, req any) (func(any) error, func(), error) {
		c, s, err := called(caller, stream)
		if err != nil {
			return nil, nil, err
		}
		x, err := open(ctx, c, s, req)
		if err != nil {
			return nil, nil, err
		}
		return func(item any) error { _, err := x.recv(item, nil); return err }, (&Stream[Empty, Empty]{x: x}).Cancel, nil
	}
}

func (s ServerStream[Req, Item]) untyped() *spec { return s.spec }

// called is whom a stream is called at, and which.
func called(caller, stream any) (Caller, *spec, error) {
	c, _ := caller.(Caller)
	s := stream.(interface{ untyped() *spec }).untyped()
	switch {
	case c == nil:
		return nil, nil, refuse(InvalidArgument, "the Caller is nil")
	case s == nil:
		return nil, nil, refuse(InvalidArgument, "the declaration was not made by a function, such as NewDownload")
	}
	return c, s, nil
}
