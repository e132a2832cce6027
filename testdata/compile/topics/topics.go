// Package topics tells topics what they cannot be told: no line with a comment
// compiles.
package topics

import (
	"context"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
)

var (
	_ = topic.New[int]("t", typedrpc.MaxSize(100), topic.LatestOnly, topic.WithPresence)

	_ = topic.New[int]("t", typedrpc.Idempotent)            // want "missing method RequestTrait"
	_ = topic.New[int]("t", typedrpc.Inline)                // want "missing method RequestTrait"
	_ = topic.New[int]("t", typedrpc.Serial)                // want "missing method RequestTrait"
	_ = topic.New[int]("t", typedrpc.Timeout(1))            // want "missing method RequestTrait"
	_ = topic.New[int]("t", topic.WaitAtMost)               // want "missing method RequestTrait"
	_ = typedrpc.NewMethod[int, int]("m", topic.LatestOnly) // want "missing method method"
)

func use(ctx context.Context, c typedrpc.Caller, mux *typedrpc.Mux, hub *topic.Hub, t topic.Topic[int]) {
	topic.DropOldest = topic.DropNewest                                           // want "cannot assign|neither addressable"
	topic.WithPresence = topic.Restartable                                        // want "cannot assign|neither addressable"
	topic.Publish(ctx, hub, t, "x", "text")                                       // want "does not match|cannot use|mismatched|default type"
	topic.Handle(mux, hub, t, func(context.Context, string) error { return nil }) // want "cannot use"
	topic.Handle(mux, topic.Hub{}, t, topic.Everybody)                            // want "cannot use"
}
