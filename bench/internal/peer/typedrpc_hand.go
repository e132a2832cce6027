package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/bench/internal/msg"
	"github.com/typedrpc/typedrpc/topic"
)

// hand is the codec written by hand, for the few messages that there are.
type hand struct{}

func (hand) Name() string { return "hand" }

func (h hand) Check(v any) error {
	_, err := h.Append(nil, v)
	return err
}

func (hand) Append(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case *msg.Request:
		return v.Append(dst), nil
	case *msg.Reply:
		return v.Append(dst), nil
	case *[]byte:
		return append(dst, *v...), nil
	case *item:
		return append(dst, v[:]...), nil
	case *int:
		return binary.AppendVarint(dst, int64(*v)), nil
	case *string:
		return append(dst, *v...), nil
	case *struct{}:
		return dst, nil
	}
	return dst, fmt.Errorf("no message of the benchmarks: %T", v)
}

func (hand) Decode(data []byte, v any) error {
	switch v := v.(type) {
	case *msg.Request:
		return v.Decode(data)
	case *msg.Reply:
		return v.Decode(data)
	case *[]byte:
		*v = append((*v)[:0], data...)
	case *item:
		if copy(v[:], data) != len(v) {
			return errors.New("the item is short")
		}
	case *int:
		n, size := binary.Varint(data)
		if size <= 0 {
			return errors.New("no number")
		}
		*v = int(n)
	case *string:
		*v = string(data)
	case *struct{}:
	default:
		return fmt.Errorf("no message of the benchmarks: %T", v)
	}
	return nil
}

func typedSubscribe(ctx context.Context, c *typedrpc.Conn, got func()) error {
	go func() {
		for _, err := range topic.Subscribe(ctx, c, room, "all") {
			if err != nil {
				return // what is missing is counted
			}
			got()
		}
	}()
	return nil
}
