package typedrpctest

import (
	"context"
	"net/http"
	"testing"

	"github.com/typedrpc/typedrpc"
)

var (
	tested   = typedrpc.NewMethod[struct{}, struct{}]("typedrpctest.context")
	identify = typedrpc.NewSignIn[struct{}, struct{}]()
)

// Context returns the context of a handler whose call came with metadata from a
// client with an identity, so that a handler can be tested as a function:
//
//	price, err := shop.Price(typedrpctest.Context(t, typedrpc.Identity{Subject: "ann"}, nil), "plums")
//
// RequestFrom and ConnFrom find a request and a connection in it, which are real;
// the client at the other end has no handlers. It ends with the test, and with id.Context.
func Context(t testing.TB, id typedrpc.Identity, metadata typedrpc.Metadata) context.Context {
	t.Helper()
	var mux typedrpc.Mux
	begun, over := make(chan context.Context, 1), make(chan struct{})
	typedrpc.Handle(&mux, tested, func(ctx context.Context, e struct{}) (struct{}, error) {
		begun <- ctx
		<-over
		return e, nil
	})
	srv := &typedrpc.Server{Mux: &mux, SignIn: identify.Verify(
		func(context.Context, *http.Request, *struct{}) (typedrpc.Identity, struct{}, error) {
			return id, struct{}{}, nil
		},
	)}
	client, _, err := Dial(srv, nil)
	if err != nil {
		t.Fatalf("typedrpctest.Context: %v", err)
	}
	call := typedrpc.Go(context.Background(), client.With(typedrpc.CallOptions{Metadata: metadata}), tested, struct{}{})
	t.Cleanup(func() {
		close(over)
		<-call.Done()
		client.Close()
	})
	select {
	case ctx := <-begun:
		return ctx
	case <-call.Done():
		_, err := call.Await(context.Background())
		t.Fatalf("typedrpctest.Context: %v", err)
		return nil
	}
}
