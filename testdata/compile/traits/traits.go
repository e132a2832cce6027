// Package traits has what a declaration cannot be told: each line does not compile.
package traits

import "github.com/typedrpc/typedrpc"

var (
	_ = typedrpc.NewNotification[int]("n", typedrpc.Idempotent)                            // want "typedrpc.RequestTrait .missing method RequestTrait"
	_ = typedrpc.NewNotification[int]("n", typedrpc.Serial)                                // want "typedrpc.RequestTrait .missing method RequestTrait"
	_ = typedrpc.NewNotification[int]("n", typedrpc.Keyed)                                 // want "typedrpc.RequestTrait .missing method RequestTrait"
	_ = typedrpc.NewNotification[int]("n", typedrpc.Inline)                                // want "typedrpc.RequestTrait .missing method RequestTrait"
	_ = typedrpc.NewServerStream[int, int]("s", typedrpc.Inline)                           // want "missing method serverStream"
	_ = typedrpc.NewSignIn[int, int](typedrpc.Safe)                                        // want "does not implement typedrpc.Trait "
	_ = typedrpc.NewNotification[int]("n", typedrpc.Safe)                                  // want "missing method notification"
	_ = typedrpc.NewClientStream[int, int, int]("s", typedrpc.Safe)                        // want "missing method stream"
	_ = typedrpc.NewBidiStream[int, int, int]("s", typedrpc.Safe)                          // want "missing method stream"
	_ = typedrpc.NewNotification[int]("n", typedrpc.Timeout(1))                            // want "typedrpc.RequestTrait .missing method RequestTrait"
	_ = typedrpc.NewNotification[int]("n", typedrpc.Retry(typedrpc.RetryPolicy{}))         // want "typedrpc.RequestTrait .missing method RequestTrait"
	_ = typedrpc.NewServerStream[int, int]("s", typedrpc.Idempotent)                       // want "missing method serverStream"
	_ = typedrpc.NewClientStream[int, int, int]("s", typedrpc.Keyed)                       // want "does not implement typedrpc.CallTrait "
	_ = typedrpc.NewBidiStream[int, int, int]("s", typedrpc.Retry(typedrpc.RetryPolicy{})) // want "does not implement typedrpc.CallTrait "
)
