// Package transfer has what the analyzers ask of the real one.
package transfer

import (
	"context"
	"iter"

	"github.com/typedrpc/typedrpc"
)

type Upload struct{}

func (Upload) Handler(f func(ctx context.Context, parts iter.Seq2[[]byte, error]) error) typedrpc.Handler {
	return typedrpc.Handler{}
}
func Parts(ctx context.Context, c typedrpc.Caller) iter.Seq2[[]byte, error] { return nil }
