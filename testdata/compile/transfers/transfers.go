// Package transfers mixes files with other streams: no line with a comment compiles.
package transfers

import (
	"context"
	"iter"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/transfer"
)

var (
	put = transfer.NewUpload[string, int]("put")
	get = transfer.NewDownload[string]("get")

	items iter.Seq2[typedrpc.Bytes, error]

	_ = transfer.NewUpload[string, int]("x", typedrpc.Idempotent) // want "missing method"

	_ = transfer.SendOptions{MaxBytes: 1}       // want "unknown field"
	_ = transfer.ReceiveOptions{PieceSize: 100} // want "unknown field"
)

func call(ctx context.Context, c typedrpc.Caller) {
	typedrpc.SendAll(ctx, c, put, "x", items) // want "does not match|cannot use"
	typedrpc.Receive(ctx, c, get, "x")        // want "does not match|cannot use"
	transfer.Send(ctx, c, get, "x", nil, nil) // want "does not match|cannot use"
	transfer.Receive(ctx, c, put, "x", nil)   // want "does not match|cannot use"
	transfer.Send(ctx, c, put, 1, nil, nil)   // want "default type int|cannot use|mismatched|does not match"
}
