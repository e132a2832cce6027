package typedrpc_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"slices"

	"github.com/typedrpc/typedrpc"
)

// A server calls every connected client and gathers the replies: one future
// for each, then All.
func Example_askEveryClient() {
	type Status struct {
		Name string
		Busy int
	}
	status := typedrpc.NewMethod[typedrpc.Empty, Status]("worker.status")

	connected := make(chan *typedrpc.Conn)
	srv := &typedrpc.Server{OnConnect: func(c *typedrpc.Conn) { connected <- c }}
	hs := httptest.NewServer(srv)
	defer hs.Close()

	ctx := context.Background()
	for i, name := range []string{"ant", "bee", "cat"} {
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, status, func(context.Context, typedrpc.Empty) (Status, error) {
			return Status{name, 10 * i}, nil
		})
		c, err := typedrpc.Dial(ctx, hs.URL, &typedrpc.DialOptions{Mux: mux})
		if err != nil {
			fmt.Println(err)
			return
		}
		defer c.Close()
		<-connected
	}

	var replies []*typedrpc.Future[Status]
	for c := range srv.Conns() {
		replies = append(replies, typedrpc.Go(ctx, c, status, typedrpc.Empty{}))
	}
	all, err := typedrpc.All(ctx, replies...)
	slices.SortFunc(all, func(a, b Status) int { return a.Busy - b.Busy })
	fmt.Println(all, err)
	// Output: [{ant 0} {bee 10} {cat 20}] <nil>
}
