package typedrpc_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http/httptest"
	"strconv"
	"time"

	"github.com/typedrpc/typedrpc"
)

// What the examples declare here belongs, in a program, into a package that
// the client and the server both import.

type Numbers struct{ A, B int }

var (
	Add   = typedrpc.NewMethod[Numbers, int]("math.add", typedrpc.Idempotent)
	Greet = typedrpc.NewMethod[string, string]("greet")
	Ask   = typedrpc.NewMethod[string, bool]("ask")
	Said  = typedrpc.NewNotification[string]("said")
)

// exampleServe starts srv on a free port of this machine.
func exampleServe(srv *typedrpc.Server) (url string, stop func()) {
	hs := httptest.NewServer(srv)
	return hs.URL, hs.Close
}

// exampleConnect serves mux and connects to it.
func exampleConnect(mux *typedrpc.Mux, o *typedrpc.DialOptions) (conn *typedrpc.Conn, stop func()) {
	url, stopServer := exampleServe(&typedrpc.Server{Mux: mux})
	conn, err := typedrpc.Dial(context.Background(), url, o)
	if err != nil {
		log.Fatal(err)
	}
	return conn, func() {
		conn.Close()
		stopServer()
	}
}

// exampleMath makes a Mux that can add and greet.
func exampleMath() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Add, func(ctx context.Context, n Numbers) (int, error) {
		return n.A + n.B, nil
	})
	typedrpc.Handle(mux, Greet, func(ctx context.Context, name string) (string, error) {
		return "Hello, " + name + "!", nil
	})
	return mux
}

func ExampleCall() {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Add, func(ctx context.Context, n Numbers) (int, error) {
		return n.A + n.B, nil
	})
	conn, stop := exampleConnect(mux, nil)
	defer stop()

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	sum, err := typedrpc.Call(ctx, conn, Add, Numbers{A: 20, B: 22})
	fmt.Println(sum, err)
	// Output: 42 <nil>
}

// A handler calls back to whoever called it.
func ExampleCall_bothWays() {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Greet, func(ctx context.Context, name string) (string, error) {
		formal, err := typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), Ask, "formally?")
		if err != nil {
			return "", err
		}
		if formal {
			return "Good day, " + name + ".", nil
		}
		return "Hi " + name + "!", nil
	})

	mine := typedrpc.NewMux() // the client's handlers
	typedrpc.Handle(mine, Ask, func(ctx context.Context, question string) (bool, error) {
		fmt.Println("asked:", question)
		return true, nil
	})
	conn, stop := exampleConnect(mux, &typedrpc.DialOptions{Mux: mine})
	defer stop()

	fmt.Println(typedrpc.Call(context.Background(), conn, Greet, "Ada"))
	// Output:
	// asked: formally?
	// Good day, Ada. <nil>
}

func ExampleGo() {
	conn, stop := exampleConnect(exampleMath(), nil)
	defer stop()
	ctx := context.Background()

	future := typedrpc.Go(ctx, conn, Add, Numbers{A: 20, B: 22})
	// ... other work, while the call is on its way ...
	fmt.Println(future.Await(ctx))
	// Output: 42 <nil>
}

func ExampleFuture_Done() {
	conn, stop := exampleConnect(exampleMath(), nil)
	defer stop()
	ctx := context.Background()

	future := typedrpc.Go(ctx, conn, Add, Numbers{A: 20, B: 22})
	select {
	case <-future.Done():
		fmt.Println(future.Await(ctx)) // does not wait any more
	case <-time.After(time.Minute):
		future.Cancel()
	}
	// Output: 42 <nil>
}

func ExampleAll() {
	conn, stop := exampleConnect(exampleMath(), nil)
	defer stop()
	ctx := context.Background()

	var futures []*typedrpc.Future[int]
	for i := range 5 {
		futures = append(futures, typedrpc.Go(ctx, conn, Add, Numbers{A: i, B: i}))
	}
	sums, err := typedrpc.All(ctx, futures...) // in the order of the futures
	fmt.Println(sums, err)
	// Output: [0 2 4 6 8] <nil>
}

// Any takes the first response, and an error only if all calls fail.
func ExampleAny() {
	good, stopGood := exampleConnect(exampleMath(), nil)
	defer stopGood()
	bad, stopBad := exampleConnect(typedrpc.NewMux(), nil) // cannot add
	defer stopBad()
	ctx := context.Background()

	sum, err := typedrpc.Any(ctx,
		typedrpc.Go(ctx, bad, Add, Numbers{A: 20, B: 22}),
		typedrpc.Go(ctx, good, Add, Numbers{A: 20, B: 22}),
	)
	fmt.Println(sum, err)
	// Output: 42 <nil>
}

// Wait is for futures of different types.
func ExampleWait() {
	conn, stop := exampleConnect(exampleMath(), nil)
	defer stop()
	ctx := context.Background()

	sum := typedrpc.Go(ctx, conn, Add, Numbers{A: 20, B: 22})
	text := typedrpc.Go(ctx, conn, Greet, "Ada")
	if err := typedrpc.Wait(ctx, sum, text); err != nil {
		fmt.Println(err)
		return
	}
	n, _ := sum.Await(ctx) // both are here
	s, _ := text.Await(ctx)
	fmt.Println(n, s)
	// Output: 42 Hello, Ada!
}

func ExampleNotify() {
	said := make(chan string)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Said, func(ctx context.Context, text string) error {
		said <- text
		return nil
	})
	conn, stop := exampleConnect(mux, nil)
	defer stop()

	for _, word := range []string{"one", "two", "three"} {
		if err := typedrpc.Notify(context.Background(), conn, Said, word); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(<-said, <-said, <-said) // in the order in which they were sent
	// Output: one two three
}

func ExampleHandle() {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Greet, func(ctx context.Context, name string) (string, error) {
		if name == "" {
			return "", typedrpc.InvalidArgument // a Code is an error
		}
		return "Hello, " + name + "!", nil
	})
	conn, stop := exampleConnect(mux, nil)
	defer stop()

	fmt.Println(typedrpc.Call(context.Background(), conn, Greet, "Ada"))
	_, err := typedrpc.Call(context.Background(), conn, Greet, "")
	fmt.Println(err)
	// Output:
	// Hello, Ada! <nil>
	// invalid argument
}

// Booking validates itself: no handler sees a bad one.
type Booking struct{ Seats int }

func (b Booking) Validate() error {
	if b.Seats < 1 {
		return errors.New("at least one seat must be booked")
	}
	return nil
}

func ExampleHandle_validate() {
	book := typedrpc.NewMethod[Booking, struct{}]("book")
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, book, func(ctx context.Context, b Booking) (struct{}, error) {
		fmt.Println("booked", b.Seats)
		return struct{}{}, nil
	})
	conn, stop := exampleConnect(mux, nil)
	defer stop()

	_, err := typedrpc.Call(context.Background(), conn, book, Booking{Seats: 0})
	fmt.Println(err)
	_, err = typedrpc.Call(context.Background(), conn, book, Booking{Seats: 2})
	fmt.Println(err)
	// Output:
	// invalid argument: at least one seat must be booked
	// booked 2
	// <nil>
}

func ExampleHandle_notification() {
	done := make(chan bool)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Said, func(ctx context.Context, text string) error {
		fmt.Println("first:", text)
		return nil
	})
	typedrpc.Handle(mux, Said, func(ctx context.Context, text string) error {
		fmt.Println("second:", text)
		close(done)
		return nil
	})
	conn, stop := exampleConnect(mux, nil)
	defer stop()

	if err := typedrpc.Notify(context.Background(), conn, Said, "hello"); err != nil {
		fmt.Println(err)
	}
	<-done
	// Output:
	// first: hello
	// second: hello
}

func ExampleNewMux() {
	logged := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		resp, err := next(ctx, r)
		fmt.Println(r.Kind, r.Method, typedrpc.CodeOf(err) == typedrpc.OK)
		return resp, err
	}
	mux := typedrpc.NewMux(logged) // wraps every handler of this Mux
	typedrpc.Handle(mux, Add, func(ctx context.Context, n Numbers) (int, error) {
		return n.A + n.B, nil
	})
	conn, stop := exampleConnect(mux, nil)
	defer stop()

	fmt.Println(typedrpc.Call(context.Background(), conn, Add, Numbers{A: 20, B: 22}))
	// Output:
	// method math.add true
	// 42 <nil>
}

// A group of handlers has interceptors of its own.
func ExampleMux_Group() {
	members := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		if r.Metadata["member"] == "" {
			return nil, typedrpc.Errorf(typedrpc.PermissionDenied, "%s is for members", r.Method)
		}
		return next(ctx, r)
	}
	mux := typedrpc.NewMux()
	inner := mux.Group(members)
	typedrpc.Handle(inner, Greet, func(ctx context.Context, name string) (string, error) {
		return "Hello, " + name + "!", nil
	})
	conn, stop := exampleConnect(mux, nil)
	defer stop()

	_, err := typedrpc.Call(context.Background(), conn, Greet, "Ada")
	fmt.Println(err)
	// Output: permission denied: greet is for members
}

func ExampleInterceptor() {
	// Outgoing: every call of the connection carries a trace.
	traced := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		r.Metadata.Set("trace", "4bf92f35")
		return next(ctx, r)
	}
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Greet, func(ctx context.Context, name string) (string, error) {
		return "trace " + typedrpc.RequestFrom(ctx).Metadata["trace"], nil
	})
	conn, stop := exampleConnect(mux, &typedrpc.DialOptions{OutgoingInterceptors: []typedrpc.Interceptor{traced}})
	defer stop()

	fmt.Println(typedrpc.Call(context.Background(), conn, Greet, "Ada"))
	// Output: trace 4bf92f35 <nil>
}

func ExampleNewFault() {
	type Shortage struct{ Left int }
	noStock := typedrpc.NewFault[Shortage]("shop.no-stock", typedrpc.FailedPrecondition)
	order := typedrpc.NewMethod[int, struct{}]("order")

	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, order, func(ctx context.Context, n int) (struct{}, error) {
		return struct{}{}, noStock.Errorf(Shortage{Left: 3}, "not enough in stock for %d", n)
	})
	conn, stop := exampleConnect(mux, nil)
	defer stop()

	_, err := typedrpc.Call(context.Background(), conn, order, 5)
	if s, ok := noStock.From(err); ok {
		fmt.Println("only", s.Left, "left")
	}
	fmt.Println(err)
	// Output:
	// only 3 left
	// failed precondition: not enough in stock for 5
}

func ExampleErrorf() {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Greet, func(ctx context.Context, name string) (string, error) {
		return "", typedrpc.Errorf(typedrpc.NotFound, "nobody is called %q", name)
	})
	conn, stop := exampleConnect(mux, nil)
	defer stop()

	_, err := typedrpc.Call(context.Background(), conn, Greet, "Bob")
	fmt.Println(err)
	fmt.Println(errors.Is(err, typedrpc.NotFound))
	// Output:
	// not found: nobody is called "Bob"
	// true
}

// An error that was not meant for strangers stays on the server, in its log.
func ExampleServer_mapError() {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Greet, func(ctx context.Context, name string) (string, error) {
		_, err := strconv.Atoi(name)
		return "", err
	})
	url, stop := exampleServe(&typedrpc.Server{
		Mux: mux,
		MapError: func(ctx context.Context, err error) *typedrpc.Error {
			if errors.Is(err, strconv.ErrSyntax) {
				return typedrpc.Errorf(typedrpc.InvalidArgument, "a number is needed")
			}
			return nil // Internal, with a fixed text
		},
	})
	defer stop()
	conn, err := typedrpc.Dial(context.Background(), url, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	_, err = typedrpc.Call(context.Background(), conn, Greet, "Ada")
	fmt.Println(err)
	// Output: invalid argument: a number is needed
}

func ExampleCodeOf() {
	conn, stop := exampleConnect(typedrpc.NewMux(), nil)
	defer stop()

	_, err := typedrpc.Call(context.Background(), conn, Greet, "Ada")
	switch typedrpc.CodeOf(err) {
	case typedrpc.OK:
		fmt.Println("no error")
	case typedrpc.Unimplemented:
		fmt.Println("the server has no such method")
	default:
		fmt.Println("something else:", err)
	}
	// Output: the server has no such method
}

func ExampleOutcomeOf() {
	started := make(chan bool)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Greet, func(ctx context.Context, name string) (string, error) {
		close(started)
		<-ctx.Done() // ends with the caller's context
		return "", ctx.Err()
	})
	conn, stop := exampleConnect(mux, nil)
	defer stop()

	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-started; cancel() }()
	_, err := typedrpc.Call(ctx, conn, Greet, "Ada")
	fmt.Println(typedrpc.OutcomeOf(err), "-", err)

	_, err = typedrpc.Call(ctx, conn, Greet, "Ada") // ctx has ended already
	fmt.Println(typedrpc.OutcomeOf(err), "-", err)
	// Output:
	// may have run - canceled (may have run)
	// not sent - canceled
}

func ExampleRetryPolicy() {
	tries := 0
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Add, func(ctx context.Context, n Numbers) (int, error) {
		if tries++; tries < 3 {
			return 0, typedrpc.Errorf(typedrpc.Unavailable, "still starting")
		}
		return n.A + n.B, nil
	})
	conn, stop := exampleConnect(mux, &typedrpc.DialOptions{
		OutgoingRetry: &typedrpc.RetryPolicy{
			MaxAttempts: 4,
			Backoff:     typedrpc.Backoff{Min: time.Millisecond},
		},
	})
	defer stop()

	// Add is Idempotent, so that it may run again.
	sum, err := typedrpc.Call(context.Background(), conn, Add, Numbers{A: 20, B: 22})
	fmt.Println(sum, err, "after", tries, "tries")
	// Output: 42 <nil> after 3 tries
}
