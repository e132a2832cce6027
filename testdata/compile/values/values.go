// Package values assigns to what a program must not change: no line with a comment
// compiles.
package values

import "github.com/typedrpc/typedrpc"

func assign() {
	typedrpc.JSON = nil        // want "cannot assign|neither addressable"
	typedrpc.Idempotent = true // want "cannot assign|neither addressable"
	typedrpc.Serial = false    // want "cannot assign|neither addressable"
	typedrpc.Keyed = false     // want "cannot assign|neither addressable"
	typedrpc.Inline = false    // want "cannot assign|neither addressable"
	typedrpc.Safe = false      // want "cannot assign|neither addressable"
	typedrpc.Gap = "gap"       // want "cannot assign|neither addressable"
}

var (
	_ typedrpc.Caller = callers{} // want "missing method"
	_ typedrpc.Waiter = waiters{} // want "missing method"
)

type (
	callers struct{}
	waiters struct{}
)

func (callers) With(typedrpc.CallOptions) typedrpc.Caller { return nil }
