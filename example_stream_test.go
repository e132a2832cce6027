package typedrpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
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
	status := typedrpc.NewMethod[struct{}, Status]("worker.status")

	connected := make(chan *typedrpc.Conn)
	srv := &typedrpc.Server{OnConnect: func(c *typedrpc.Conn) { connected <- c }}
	hs := httptest.NewServer(srv)
	defer hs.Close()

	ctx := context.Background()
	for i, name := range []string{"ant", "bee", "cat"} {
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, status, func(context.Context, struct{}) (Status, error) {
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
		replies = append(replies, typedrpc.Go(ctx, c, status, struct{}{}))
	}
	all, err := typedrpc.All(ctx, replies...)
	slices.SortFunc(all, func(a, b Status) int { return a.Busy - b.Busy })
	fmt.Println(all, err)
	// Output: [{ant 0} {bee 10} {cat 20}] <nil>
}

var (
	Countdown = typedrpc.NewServerStream[int, int]("countdown")
	Average   = typedrpc.NewClientStream[struct{}, float64, float64]("average")
	Echo      = typedrpc.NewBidiStream[struct{}, string, string]("echo")
)

func exampleStreams() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Countdown, func(ctx context.Context, from int, send func(int) error) error {
		for n := from; n > 0; n-- {
			if err := send(n); err != nil {
				return err
			}
		}
		return typedrpc.OutOfRange // comes after all items
	})
	typedrpc.Handle(mux, Average, func(ctx context.Context, _ struct{}, items iter.Seq2[float64, error]) (float64, error) {
		sum, n := 0.0, 0.0
		for v, err := range items {
			if err != nil {
				return 0, err
			}
			sum, n = sum+v, n+1
		}
		return sum / n, nil
	})
	typedrpc.Handle(mux, Echo, func(ctx context.Context, _ struct{}, s *typedrpc.Stream[string, string]) error {
		for text, err := range s.All() {
			if err != nil {
				return err
			}
			if err := s.Send(text + "!"); err != nil {
				return err
			}
		}
		return nil
	})
	return mux
}

// The error is the last pair. Leaving the loop earlier ends the handler's
// context.
func ExampleReceive() {
	conn, stop := exampleConnect(exampleStreams(), nil)
	defer stop()

	for n, err := range typedrpc.Receive(context.Background(), conn, Countdown, 3) {
		if err != nil {
			fmt.Println(errors.Is(err, typedrpc.OutOfRange))
			break
		}
		fmt.Println(n)
	}
	// Output:
	// 3
	// 2
	// 1
	// true
}

func ExampleSendAll() {
	conn, stop := exampleConnect(exampleStreams(), nil)
	defer stop()

	values := typedrpc.Items(slices.Values([]float64{1, 2, 6}))
	fmt.Println(typedrpc.SendAll(context.Background(), conn, Average, struct{}{}, values))
	// Output: 3 <nil>
}

func ExampleOpen() {
	conn, stop := exampleConnect(exampleStreams(), nil)
	defer stop()

	s, err := typedrpc.Open(context.Background(), conn, Echo, struct{}{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Cancel()
	s.Send("one")
	s.Send("two")
	s.CloseSend()
	for {
		text, err := s.Recv()
		if err == io.EOF {
			return
		}
		fmt.Println(text, err)
	}
	// Output:
	// one! <nil>
	// two! <nil>
}

type (
	PricesRequest struct{ After int }
	Price         struct{ Seq, Cents int }
)

var Prices = typedrpc.NewServerStream[PricesRequest, Price]("prices").
	Restartable(func(req PricesRequest, last *Price) PricesRequest {
		if last != nil {
			req.After = last.Seq
		}
		return req
	})

// When the session is lost the loop hears of a gap, and goes on behind the last
// item that it has seen. Here sessions end with their links, so that it is lost at
// once.
func ExampleServerStream_Restartable() {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Prices, func(ctx context.Context, req PricesRequest, send func(Price) error) error {
		for seq := req.After + 1; seq <= 4; seq++ {
			if err := send(Price{Seq: seq, Cents: 100 + seq}); err != nil {
				return err
			}
			if req.After == 0 && seq == 2 { // the next price is long in coming
				<-ctx.Done()
				return ctx.Err()
			}
		}
		return nil
	})
	conn, stop := exampleConnect(mux, &typedrpc.DialOptions{Limits: typedrpc.Limits{Grace: -1}})
	defer stop()

	for price, err := range typedrpc.Receive(context.Background(), conn, Prices, PricesRequest{}) {
		if errors.Is(err, typedrpc.Gap) {
			fmt.Println("gap")
			continue
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(price.Seq, price.Cents)
		if price.Seq == 2 {
			conn.Reconnect() // as if the network had failed
		}
	}
	// Output:
	// 1 101
	// 2 102
	// gap
	// 3 103
	// 4 104
}

// An interceptor wraps a stream from its request to its end, sees each item,
// and can stop it.
func ExampleRequest_OnItem() {
	limit := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		left := 2
		r.OnItem(func(item typedrpc.Raw, sent bool) error {
			if left--; left < 0 {
				return typedrpc.Errorf(typedrpc.ResourceExhausted, "two items are enough")
			}
			return nil
		})
		return next(ctx, r)
	}
	conn, stop := exampleConnect(exampleStreams(), &typedrpc.DialOptions{OutgoingInterceptors: []typedrpc.Interceptor{limit}})
	defer stop()

	for n, err := range typedrpc.Receive(context.Background(), conn, Countdown, 5) {
		fmt.Println(n, err)
	}
	// Output:
	// 5 <nil>
	// 4 <nil>
	// 0 resource exhausted: two items are enough (may have run)
}
