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

func ExampleNewSignIn() {
	// What the client says, and what the server answers.
	signIn := typedrpc.NewSignIn[string, string]()

	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Greet, func(ctx context.Context, _ string) (string, error) {
		return "Hello, " + typedrpc.ConnFrom(ctx).Identity().Subject + "!", nil
	})
	url, stop := exampleServe(&typedrpc.Server{
		Mux: mux,
		SignIn: signIn.Verify(func(ctx context.Context, r *http.Request, token *string) (typedrpc.Identity, string, error) {
			if token == nil || *token != "secret" {
				return typedrpc.Identity{}, "", typedrpc.Errorf(typedrpc.Unauthenticated, "unknown token")
			}
			return typedrpc.Identity{Subject: "Ada"}, "welcome back", nil
		}),
	})
	defer stop()

	// The function is asked before every handshake, so it can refresh a token.
	conn, err := typedrpc.Dial(context.Background(), url, &typedrpc.DialOptions{
		SignIn: signIn.Present(func(ctx context.Context) (string, error) { return "secret", nil }),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Println(signIn.Reply(conn))
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
		r.ReplyMetadata.Set("served-by", "example")
		if r.Metadata["language"] == "de" {
			return "Hallo, " + name + "!", nil
		}
		return "Hello, " + name + "!", nil
	})
	conn, stop := exampleConnect(mux, nil)
	defer stop()

	var reply typedrpc.Metadata
	german := conn.With(typedrpc.CallOptions{
		Metadata:      typedrpc.Metadata{"language": "de"},
		ReplyMetadata: &reply,
	})
	fmt.Println(typedrpc.Call(context.Background(), german, Greet, "Ada"))
	fmt.Println(reply["served-by"])
	// Output:
	// Hallo, Ada! <nil>
	// example
}

// A subscription in plain JSON-RPC: its events leave behind the reply that says its
// number.
func ExampleRequest() {
	subscribe := typedrpc.NewMethod[string, int]("subscribe")
	event := typedrpc.NewNotification[string]("event")
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, subscribe, func(ctx context.Context, what string) (int, error) {
		r := typedrpc.RequestFrom(ctx)
		r.AfterReply = func(ctx context.Context, err error) {
			if err == nil {
				typedrpc.Notify(ctx, r.Conn, event, "the first of "+what)
			}
		}
		return 7, nil
	})
	events, client := make(chan string), typedrpc.NewMux()
	typedrpc.Handle(client, event, func(_ context.Context, text string) error { events <- text; return nil })
	conn, stop := exampleConnect(mux, &typedrpc.DialOptions{Mux: client})
	defer stop()

	fmt.Println(typedrpc.Call(context.Background(), conn, subscribe, "logs"))
	fmt.Println(<-events)
	// Output:
	// 7 <nil>
	// the first of logs
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
	slow := typedrpc.NewMethod[struct{}, struct{}]("slow", typedrpc.Timeout(10*time.Millisecond))
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, slow, func(ctx context.Context, _ struct{}) (struct{}, error) {
		<-ctx.Done() // the deadline travelled with the call
		return struct{}{}, ctx.Err()
	})
	conn, stop := exampleConnect(mux, nil)
	defer stop()

	_, err := typedrpc.Call(context.Background(), conn, slow, struct{}{})
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
