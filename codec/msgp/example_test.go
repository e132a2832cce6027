package msgp_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/codec/msgp"
	"github.com/typedrpc/typedrpc/codec/msgp/internal/sum"
)

// Double is declared once, and shared by both sides.
var Double = typedrpc.NewMethod[sum.Sum, int64]("math.double")

func Example() {
	codecs := []typedrpc.Codec{msgp.Codec{}}
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Double, func(_ context.Context, s sum.Sum) (int64, error) { return 2 * s.Number, nil })
	hs := httptest.NewServer(&typedrpc.Server{Mux: mux, Codecs: codecs})
	defer hs.Close()

	ctx := context.Background()
	conn, err := typedrpc.Dial(ctx, hs.URL, &typedrpc.DialOptions{Codecs: codecs})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Println(typedrpc.Call(ctx, conn, Double, sum.Sum{Number: 21}))
	// Output: 42 <nil>
}
