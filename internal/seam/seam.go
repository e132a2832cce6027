// Package seam is what packages topic and transfer use of package typedrpc that
// it does not export. The functions are set by that package, which this one cannot
// import: hence any for its types. They hold no state.
package seam

import "context"

// Open calls a server stream, with req, which points to the request. recv reads an
// item into what it points to, and returns io.EOF after the last; one goroutine at
// a time calls it. cancel leaves the stream; any goroutine may call it at any time.
// caller is a typedrpc.Caller, stream a typedrpc.ServerStream.
var Open func(ctx context.Context, caller, stream, req any) (recv func(item any) error, cancel func(), err error)
