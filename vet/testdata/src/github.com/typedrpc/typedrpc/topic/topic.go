// Package topic has what the analyzers ask of the real one.
package topic

import (
	"context"
	"iter"

	"github.com/typedrpc/typedrpc"
)

type (
	Topic[T any] struct{}
	Trait        interface{ topic() }
	Hub          struct{}
)

func New[T any](name string, traits ...Trait) Topic[T]                              { return Topic[T]{} }
func History(n int) Trait                                                           { return nil }
func Publish[T any](ctx context.Context, h *Hub, t Topic[T], key string, v T) error { return nil }
func Subscribe[T any](ctx context.Context, c typedrpc.Caller, t Topic[T], key string) iter.Seq2[T, error] {
	return nil
}
