package proto_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/codec/proto"
	"github.com/typedrpc/typedrpc/codec/proto/internal/pb"
)

// Double is declared once, and shared by both sides.
var Double = typedrpc.NewMethod[*pb.Sum, *pb.Sum]("math.double", typedrpc.Alloc[pb.Sum]())

func Example() {
	codecs := []typedrpc.Codec{proto.Codec{}}
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Double, func(_ context.Context, s *pb.Sum) (*pb.Sum, error) {
		return &pb.Sum{Number: 2 * s.GetNumber()}, nil
	})
	hs := httptest.NewServer(&typedrpc.Server{Mux: mux, Codecs: codecs})
	defer hs.Close()

	ctx := context.Background()
	conn, err := typedrpc.Dial(ctx, hs.URL, &typedrpc.DialOptions{Codecs: codecs})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	sum, err := typedrpc.Call(ctx, conn, Double, &pb.Sum{Number: 21})
	fmt.Println(sum.GetNumber(), err)
	// Output: 42 <nil>
}
