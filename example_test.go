package typedrpc_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
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

// Race takes the first call that ends, well or not, and cancels the others.
func ExampleRace() {
	quick, stopQuick := exampleConnect(exampleMath(), nil)
	defer stopQuick()
	stuck := typedrpc.NewMux()
	typedrpc.Handle(stuck, Add, func(ctx context.Context, n Numbers) (int, error) {
		<-ctx.Done() // ends when Race cancels the call
		return 0, ctx.Err()
	})
	slow, stopSlow := exampleConnect(stuck, nil)
	defer stopSlow()
	ctx := context.Background()

	sum, err := typedrpc.Race(ctx,
		typedrpc.Go(ctx, slow, Add, Numbers{A: 20, B: 22}),
		typedrpc.Go(ctx, quick, Add, Numbers{A: 20, B: 22}),
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
	typedrpc.HandleNotification(mux, Said, func(ctx context.Context, text string) {
		said <- text
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
	// invalid argument: invalid argument
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
	book := typedrpc.NewMethod[Booking, typedrpc.Empty]("book")
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, book, func(ctx context.Context, b Booking) (typedrpc.Empty, error) {
		fmt.Println("booked", b.Seats)
		return typedrpc.Empty{}, nil
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

func ExampleHandleNotification() {
	done := make(chan bool)
	mux := typedrpc.NewMux()
	typedrpc.HandleNotification(mux, Said, func(ctx context.Context, text string) {
		fmt.Println("first:", text)
	})
	typedrpc.HandleNotification(mux, Said, func(ctx context.Context, text string) {
		fmt.Println("second:", text)
		close(done)
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
		fmt.Println(r.Kind, r.Method, typedrpc.CodeOf(err) == 0)
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
	// call math.add true
	// 42 <nil>
}

// A group of handlers has interceptors of its own.
func ExampleMux_With() {
	members := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		if r.Metadata.Get("member") == "" {
			return nil, typedrpc.Errorf(typedrpc.PermissionDenied, "%s is for members", r.Method)
		}
		return next(ctx, r)
	}
	mux := typedrpc.NewMux()
	inner := mux.With(members)
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
		return "trace " + typedrpc.RequestFrom(ctx).Metadata.Get("trace"), nil
	})
	conn, stop := exampleConnect(mux, &typedrpc.DialOptions{Interceptors: []typedrpc.Interceptor{traced}})
	defer stop()

	fmt.Println(typedrpc.Call(context.Background(), conn, Greet, "Ada"))
	// Output: trace 4bf92f35 <nil>
}

func ExampleNewFault() {
	type Shortage struct{ Left int }
	noStock := typedrpc.NewFault[Shortage](typedrpc.FailedPrecondition, "not enough in stock")
	order := typedrpc.NewMethod[int, typedrpc.Empty]("order")

	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, order, func(ctx context.Context, n int) (typedrpc.Empty, error) {
		return typedrpc.Empty{}, noStock.New(Shortage{Left: 3})
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
	// failed precondition: not enough in stock
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
func ExampleErrorMapper() {
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
	case 0:
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
		Retry: &typedrpc.RetryPolicy{
			Attempts: 4,
			Backoff:  typedrpc.Backoff{Min: time.Millisecond},
		},
	})
	defer stop()

	// Add is Idempotent, so that it may run again.
	sum, err := typedrpc.Call(context.Background(), conn, Add, Numbers{A: 20, B: 22})
	fmt.Println(sum, err, "after", tries, "tries")
	// Output: 42 <nil> after 3 tries
}

func ExampleBackoff() {
	b := typedrpc.Backoff{Min: time.Second, Max: 10 * time.Second, Factor: 2}
	for failed := range 6 {
		// A random time of at most 1, 2, 4, 8, 10, 10 seconds.
		if d := b.Delay(failed + 1); d > 10*time.Second {
			fmt.Println("too long:", d)
		}
	}
	// Output:
}

func ExampleDial() {
	url, stop := exampleServe(&typedrpc.Server{Mux: exampleMath()})
	defer stop()

	states := make(chan typedrpc.State, 10)
	conn, err := typedrpc.Dial(context.Background(), url, &typedrpc.DialOptions{
		Backoff: typedrpc.Backoff{Max: 5 * time.Second},
		OnState: func(s typedrpc.StateChange) { states <- s.State },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(typedrpc.Call(context.Background(), conn, Add, Numbers{A: 20, B: 22}))
	conn.Close()
	fmt.Println(<-states, <-states, <-states)
	// Output:
	// 42 <nil>
	// connecting connected closed
}

// A Dial that the server refuses says why.
func ExampleUpgradeError() {
	hs := httptest.NewServer(http.NotFoundHandler())
	defer hs.Close()

	_, err := typedrpc.Dial(context.Background(), hs.URL, nil)
	var refused *typedrpc.UpgradeError
	if errors.As(err, &refused) {
		fmt.Println(refused.Status, strings.TrimSpace(refused.Body))
	}
	// Output: 404 404 page not found
}

func ExampleServer() {
	srv := &typedrpc.Server{Mux: exampleMath()}
	if err := srv.Check(); err != nil { // at start-up: limits, origins, codecs
		log.Fatal(err)
	}
	routes := http.NewServeMux()
	routes.Handle("/rpc", srv)
	hs := httptest.NewServer(routes)
	defer hs.Close()

	conn, err := typedrpc.Dial(context.Background(), hs.URL+"/rpc", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Println(typedrpc.Call(context.Background(), conn, Greet, "Ada"))
	// Output: Hello, Ada! <nil>
}

// The same handlers answer JSON-RPC 2.0 over HTTP POST.
func ExampleServer_post() {
	url, stop := exampleServe(&typedrpc.Server{Mux: exampleMath()})
	defer stop()

	resp, err := http.Post(url, "application/json",
		strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"math.add","params":{"A":20,"B":22}}`))
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Printf("%s\n", body)
	// Output: {"jsonrpc":"2.0","id":1,"result":42}
}

// Shutdown lets calls in flight finish.
func ExampleServer_Shutdown() {
	started, finish := make(chan bool), make(chan bool)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Greet, func(ctx context.Context, name string) (string, error) {
		close(started)
		<-finish
		return "Hello, " + name + "!", nil
	})
	srv := &typedrpc.Server{Mux: mux}
	hs := httptest.NewServer(srv)
	defer hs.Close() // like http.Server.Shutdown: after ours
	ctx := context.Background()
	conn, err := typedrpc.Dial(ctx, hs.URL, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	future := typedrpc.Go(ctx, conn, Greet, "Ada")
	<-started
	go close(finish)
	fmt.Println(srv.Shutdown(ctx))
	fmt.Println(future.Await(ctx))
	// Output:
	// <nil>
	// Hello, Ada! <nil>
}

func ExampleAuthenticate() {
	// What the client says, and what the server answers, is declared like
	// any method.
	signIn := typedrpc.NewMethod[string, string]("sign-in")

	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Greet, func(ctx context.Context, _ string) (string, error) {
		return "Hello, " + typedrpc.ConnFrom(ctx).Identity().Subject + "!", nil
	})
	url, stop := exampleServe(&typedrpc.Server{
		Mux: mux,
		Authenticate: typedrpc.Authenticate(signIn, func(ctx context.Context, r *http.Request, token string) (typedrpc.Identity, string, error) {
			if token != "secret" {
				return typedrpc.Identity{}, "", typedrpc.Errorf(typedrpc.Unauthenticated, "unknown token")
			}
			return typedrpc.Identity{Subject: "Ada"}, "welcome back", nil
		}),
	})
	defer stop()

	// The function is asked before every handshake, so it can refresh a token.
	conn, err := typedrpc.Dial(context.Background(), url, &typedrpc.DialOptions{
		Auth: typedrpc.Credentials(signIn, func(ctx context.Context) (string, error) { return "secret", nil }),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Println(typedrpc.AuthReply(conn, signIn))
	fmt.Println(typedrpc.Call(context.Background(), conn, Greet, ""))

	_, err = typedrpc.Dial(context.Background(), url, nil) // without credentials
	fmt.Println(err)
	// Output:
	// welcome back <nil>
	// Hello, Ada! <nil>
	// unauthenticated: unknown token
}

// Pick spreads calls over connections; it is asked again for a retry.
func ExamplePick() {
	one, stopOne := exampleConnect(exampleMath(), nil)
	defer stopOne()
	two, stopTwo := exampleConnect(exampleMath(), nil)
	defer stopTwo()

	next := 0
	pool := typedrpc.Pick(func(ctx context.Context, method string) (*typedrpc.Conn, error) {
		next++
		return []*typedrpc.Conn{one, two}[next%2], nil
	})
	fmt.Println(typedrpc.Call(context.Background(), pool, Add, Numbers{A: 20, B: 22}))
	// Output: 42 <nil>
}

// A proxy needs no types.
func ExampleForward() {
	backend, stopBackend := exampleConnect(exampleMath(), nil)
	defer stopBackend()

	mux := typedrpc.NewMux()
	mux.HandleFallback(func(ctx context.Context, r *typedrpc.Request) (typedrpc.Raw, error) {
		return typedrpc.Forward(ctx, backend, r)
	})
	conn, stop := exampleConnect(mux, nil)
	defer stop()

	fmt.Println(typedrpc.Call(context.Background(), conn, Greet, "Ada"))
	// Output: Hello, Ada! <nil>
}

func ExampleMux_HandleFallback() {
	mux := exampleMath()
	mux.HandleFallback(func(ctx context.Context, r *typedrpc.Request) (typedrpc.Raw, error) {
		fmt.Printf("somebody called %s with %s\n", r.Method, r.Payload)
		return nil, typedrpc.Unimplemented
	})
	conn, stop := exampleConnect(mux, nil)
	defer stop()

	_, err := typedrpc.Call(context.Background(), conn, Ask, "why?")
	fmt.Println(typedrpc.CodeOf(err))
	// Output:
	// somebody called ask with "why?"
	// unimplemented
}

func ExampleCallOptions() {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Greet, func(ctx context.Context, name string) (string, error) {
		r := typedrpc.RequestFrom(ctx)
		r.Reply.Set("served-by", "example")
		if r.Metadata.Get("language") == "de" {
			return "Hallo, " + name + "!", nil
		}
		return "Hello, " + name + "!", nil
	})
	conn, stop := exampleConnect(mux, nil)
	defer stop()

	var reply typedrpc.Metadata
	german := conn.With(typedrpc.CallOptions{
		Metadata: typedrpc.Metadata{"language": "de"},
		Reply:    &reply,
	})
	fmt.Println(typedrpc.Call(context.Background(), german, Greet, "Ada"))
	fmt.Println(reply.Get("served-by"))
	// Output:
	// Hallo, Ada! <nil>
	// example
}

// With Params, JSON-RPC peers may send a list instead of an object.
func ExampleParams() {
	type Difference struct {
		Minuend    int `json:"minuend"`
		Subtrahend int `json:"subtrahend"`
	}
	subtract := typedrpc.NewMethod[Difference, int]("subtract", typedrpc.Params("minuend", "subtrahend"))
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, subtract, func(ctx context.Context, d Difference) (int, error) {
		return d.Minuend - d.Subtrahend, nil
	})
	url, stop := exampleServe(&typedrpc.Server{Mux: mux})
	defer stop()

	resp, err := http.Post(url, "application/json",
		strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"subtract","params":[42,23]}`))
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Printf("%s\n", body)
	// Output: {"jsonrpc":"2.0","id":1,"result":19}
}

func ExampleTimeout() {
	slow := typedrpc.NewMethod[typedrpc.Empty, typedrpc.Empty]("slow", typedrpc.Timeout(10*time.Millisecond))
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, slow, func(ctx context.Context, _ typedrpc.Empty) (typedrpc.Empty, error) {
		<-ctx.Done() // the deadline travelled with the call
		return typedrpc.Empty{}, ctx.Err()
	})
	conn, stop := exampleConnect(mux, nil)
	defer stop()

	_, err := typedrpc.Call(context.Background(), conn, slow, typedrpc.Empty{})
	fmt.Println(errors.Is(err, context.DeadlineExceeded))
	// Output: true
}

// Calls of Serial methods run one after another, as they were sent.
func ExampleSerial() {
	write := typedrpc.NewMethod[string, int]("write", typedrpc.Serial)
	var text strings.Builder // needs no lock: one call at a time
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, write, func(ctx context.Context, s string) (int, error) {
		return text.WriteString(s)
	})
	conn, stop := exampleConnect(mux, nil)
	defer stop()
	ctx := context.Background()

	var futures []*typedrpc.Future[int]
	for _, s := range []string{"a", "b", "c", "d"} {
		futures = append(futures, typedrpc.Go(ctx, conn, write, s))
	}
	if _, err := typedrpc.All(ctx, futures...); err != nil {
		fmt.Println(err)
	}
	fmt.Println(text.String())
	// Output: abcd
}

// Messages that are used by pointer, as protobuf's are, are made with new.
func ExampleAlloc() {
	type Point struct{ X, Y int }
	mirror := typedrpc.NewMethod[*Point, *Point]("mirror", typedrpc.Alloc[Point]())
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, mirror, func(ctx context.Context, p *Point) (*Point, error) {
		return &Point{X: p.Y, Y: p.X}, nil
	})
	conn, stop := exampleConnect(mux, nil)
	defer stop()

	p, err := typedrpc.Call(context.Background(), conn, mirror, &Point{X: 1, Y: 2})
	fmt.Println(*p, err)
	// Output: {2 1} <nil>
}

// Money writes its own JSON, so that no reflection is on its path.
type Money struct{ Cents int64 }

func (m Money) AppendJSON(dst []byte) ([]byte, error) {
	return strconv.AppendInt(dst, m.Cents, 10), nil
}

func (m *Money) UnmarshalJSON(data []byte) (err error) {
	m.Cents, err = strconv.ParseInt(string(data), 10, 64)
	return err
}

func ExampleJSON() {
	double := typedrpc.NewMethod[Money, Money]("double")
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, double, func(ctx context.Context, m Money) (Money, error) {
		return Money{Cents: 2 * m.Cents}, nil
	})
	conn, stop := exampleConnect(mux, nil)
	defer stop()

	fmt.Println(typedrpc.Call(context.Background(), conn, double, Money{Cents: 2150}))
	// Output: {4300} <nil>
}

// Gob is a codec in a few lines.
type Gob struct{}

func (Gob) Name() string { return "gob" }

func (Gob) Append(dst []byte, v any) ([]byte, error) {
	w := bytes.NewBuffer(dst)
	err := gob.NewEncoder(w).Encode(v)
	return w.Bytes(), err
}

func (Gob) Decode(data []byte, v any) error {
	return gob.NewDecoder(bytes.NewReader(data)).Decode(v)
}

func (Gob) Check(v any) error { return gob.NewEncoder(io.Discard).Encode(v) }

func ExampleCodec() {
	url, stop := exampleServe(&typedrpc.Server{
		Mux:    exampleMath(),
		Codecs: []typedrpc.Codec{Gob{}, typedrpc.JSON},
	})
	defer stop()
	conn, err := typedrpc.Dial(context.Background(), url, &typedrpc.DialOptions{
		Codecs: []typedrpc.Codec{Gob{}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	fmt.Println(conn.Codec().Name())
	fmt.Println(typedrpc.Call(context.Background(), conn, Add, Numbers{A: 20, B: 22}))
	// Output:
	// gob
	// 42 <nil>
}
