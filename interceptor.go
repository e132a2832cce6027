package typedrpc

import (
	"context"
	"fmt"
)

// An Interceptor wraps calls and notifications, incoming (NewMux, Mux.Group) or
// outgoing (DialOptions, Server, CallOptions). It may change the context and
// the metadata, answer without calling next, call next more than once, and
// change the result. It calls next on the goroutine that called it, and
// before it returns. Around a stream, next
// returns when the stream has ended, and calling it again after items came or
// went fails with FailedPrecondition. The first interceptor of a list is the outermost. It sees
// a handler's error before it is translated for the wire.
//
// An outgoing interceptor runs on the caller's goroutine for Call and Notify.
// Go and CallAll must not wait for it, so with interceptors each of their calls has a
// goroutine that ends with it. Retries of a RetryPolicy happen inside next.
type Interceptor func(ctx context.Context, r *Request, next RawHandler) (Raw, error)

// checkInterceptors refuses a list with a nil in it.
func checkInterceptors(where string, interceptors []Interceptor) error {
	for i, f := range interceptors {
		if f == nil {
			return fmt.Errorf("typedrpc: %s: interceptor %d is nil", where, i)
		}
	}
	return nil
}

// chain folds interceptors around h once, so that a call only runs them.
func chain(interceptors []Interceptor, h RawHandler) RawHandler {
	for i := len(interceptors) - 1; i >= 0; i-- {
		around, next := interceptors[i], h
		h = func(ctx context.Context, r *Request) (Raw, error) { return around(ctx, r, next) }
	}
	return h
}
