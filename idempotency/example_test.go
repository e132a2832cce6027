package idempotency_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/idempotency"
)

// Pay must not run twice, and its caller must be able to try again.
var Pay = typedrpc.NewMethod[int, string]("account.pay", typedrpc.Keyed)

// A call of a Keyed method is repeated by the connection itself. A program that
// repeats one on its own, here because it lost the answer, makes the key.
func ExampleKey() {
	balance := 100
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Pay, func(ctx context.Context, amount int) (string, error) {
		balance -= amount
		return fmt.Sprintf("%d are left", balance), nil
	})
	hs := httptest.NewServer(&typedrpc.Server{Mux: mux})
	defer hs.Close()
	ctx := context.Background()
	conn, err := typedrpc.Dial(ctx, hs.URL, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	key := idempotency.NewKey()
	if err := conn.Bind(key); err != nil { // before it is written down
		log.Fatal(err)
	}
	written := key.String() // in a file, say: it outlives this program

	keyed := conn.With(typedrpc.CallOptions{Key: key})
	fmt.Println(typedrpc.Call(ctx, keyed, Pay, 30))

	key, err = idempotency.ParseKey(written)
	if err != nil {
		log.Fatal(err)
	}
	keyed = conn.With(typedrpc.CallOptions{Key: key})
	fmt.Println(typedrpc.Call(ctx, keyed, Pay, 30)) // the same answer
	fmt.Println(typedrpc.Call(ctx, conn, Pay, 30))  // another call
	// Output:
	// 70 are left <nil>
	// 70 are left <nil>
	// 40 are left <nil>
}

// Servers that follow each other in one process share what they remember.
func ExampleCache() {
	replays := &idempotency.Cache{}
	blue := &typedrpc.Server{Replays: replays}
	green := &typedrpc.Server{Replays: replays}
	fmt.Println(blue.Check(), green.Check())
	// Output: <nil> <nil>
}
