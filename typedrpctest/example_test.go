package typedrpctest_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

var hello = typedrpc.NewMethod[string, string]("hello", typedrpc.Idempotent)

func helloServer() *typedrpc.Server {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, hello, func(_ context.Context, name string) (string, error) {
		return "Hello, " + name + "!", nil
	})
	return &typedrpc.Server{Mux: mux}
}

// Handlers are tested over a connection in memory. Where this example makes a t of its
// own, a test has its own; inside of synctest.Test it is the bubble's.
func ExamplePair() {
	t := new(exampleT)
	defer t.end()

	client, _ := typedrpctest.Pair(t, helloServer(), nil)
	greeting, err := typedrpc.Call(context.Background(), client, hello, "Ada")
	if err != nil {
		t.Fatalf("hello: %v", err)
	}
	fmt.Println(greeting)
	// Output: Hello, Ada!
}

// exampleT is what Pair needs of a test.
type exampleT struct {
	testing.TB
	cleanups []func()
}

func (t *exampleT) Helper()                           {}
func (t *exampleT) Cleanup(f func())                  { t.cleanups = append(t.cleanups, f) }
func (t *exampleT) Fatalf(format string, args ...any) { log.Fatalf(format, args...) }
func (t *exampleT) end() {
	for _, f := range t.cleanups {
		f()
	}
}

// A real http.Server and a real Dial over a network in memory.
func ExampleNetwork() {
	n := typedrpctest.NewNetwork(nil)
	defer n.Close()
	n.Host("shop").Serve(helloServer())

	ctx := context.Background()
	conn, err := typedrpc.Dial(ctx, n.Host("shop").URL(), &typedrpc.DialOptions{HTTPClient: n.HTTPClient()})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	fmt.Println(typedrpc.Call(ctx, conn, hello, "Ada"))
	n.CutAll(typedrpctest.CutReset) // it dials again
	fmt.Println(typedrpc.Call(ctx, conn, hello, "Ben"))
	fmt.Println(n.Stats().Dialled, "connections,", n.Stats().Cuts, "cut")
	// Output:
	// Hello, Ada! <nil>
	// Hello, Ben! <nil>
	// 2 connections, 1 cut
}

// A slow path. Inside of a synctest bubble, as in a test, the time that it takes
// would be exact, and nobody would wait for it.
func ExampleConditions() {
	slow := typedrpctest.Conditions{Latency: 10 * time.Millisecond}
	n := typedrpctest.NewNetwork(&typedrpctest.NetworkOptions{Up: slow, Down: slow})
	defer n.Close()
	n.Host("shop").Serve(helloServer())
	ctx := context.Background()
	conn, err := typedrpc.Dial(ctx, n.Host("shop").URL(), &typedrpc.DialOptions{HTTPClient: n.HTTPClient()})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	began := time.Now()
	_, err = typedrpc.Call(ctx, conn, hello, "Ada")
	fmt.Println(time.Since(began) >= 20*time.Millisecond, err)
	// Output: true <nil>
}

// A host that is stopped, unplugged, and well again.
func ExampleHost() {
	n := typedrpctest.NewNetwork(nil)
	defer n.Close()
	h := n.Host("shop")
	h.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	get := func() error {
		c := &http.Client{Transport: n.HTTPClient().Transport, Timeout: 20 * time.Millisecond}
		resp, err := c.Get("http://shop/")
		if err == nil {
			resp.Body.Close()
		}
		return err
	}

	fmt.Println("running:", get())
	h.Stop()
	fmt.Println("stopped, refused:", errors.Is(get(), syscall.ECONNREFUSED))
	h.Start()
	h.Unplug()
	var timeout net.Error
	fmt.Println("unplugged, timeout:", errors.As(get(), &timeout) && timeout.Timeout())
	h.Start()
	fmt.Println("running:", get())
	// Output:
	// running: <nil>
	// stopped, refused: true
	// unplugged, timeout: true
	// running: <nil>
}

// A connection that is cut in the middle of a message.
func ExampleLink_CutAfter() {
	n := typedrpctest.NewNetwork(nil)
	defer n.Close()
	l, err := n.Host("a").Listen()
	if err != nil {
		log.Fatal(err)
	}
	client, err := n.DialContext(context.Background(), "tcp", "a:80")
	if err != nil {
		log.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		log.Fatal(err)
	}

	n.Links()[0].CutAfter(typedrpctest.Up, 5, typedrpctest.CutReset)
	client.Write([]byte("Hello, Ada!"))
	got := make([]byte, 20)
	size, err := server.Read(got)
	fmt.Printf("%q %v\n", got[:size], err)
	_, err = server.Read(got)
	fmt.Println(errors.Is(err, syscall.ECONNRESET))
	// Output:
	// "Hello" <nil>
	// true
}

// Every connection is cut at some byte, which the seed decides.
func ExampleFaults() {
	n := typedrpctest.NewNetwork(&typedrpctest.NetworkOptions{Seed: 1})
	defer n.Close()
	n.Host("shop").Serve(helloServer())
	storm := func(f *typedrpctest.Faults) {
		f.Set(typedrpctest.Both, typedrpctest.Conditions{Slice: 1})
		f.CutEach(typedrpctest.Down, 1_000, 3_000, typedrpctest.CutReset)
	}
	storm(&n.Faults) // a Proxy has them too

	ctx := context.Background()
	conn, err := typedrpc.Dial(ctx, n.Host("shop").URL(), &typedrpc.DialOptions{HTTPClient: n.HTTPClient()})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	for range 100 {
		if _, err := typedrpc.Call(ctx, conn, hello, "Ada"); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(n.Stats().Cuts > 0)
	// Output: true
}

// A proxy needs no test: a program can show with it what it does when its
// connection is lost.
func ExampleProxy() {
	server := httptest.NewServer(helloServer())
	defer server.Close()
	p, err := typedrpctest.NewProxy(server.URL, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()

	ctx := context.Background()
	conn, err := typedrpc.Dial(ctx, p.URL(), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	for _, name := range []string{"Ada", "Ben", "Cid"} {
		fmt.Println(typedrpc.Call(ctx, conn, hello, name))
		p.CutAll(typedrpctest.CutReset)
	}
	fmt.Println(p.Stats().Cuts, "cuts")
	// Output:
	// Hello, Ada! <nil>
	// Hello, Ben! <nil>
	// Hello, Cid! <nil>
	// 3 cuts
}

// In a test, call LogOnFailure instead of printing.
func ExampleRecorder() {
	rec := typedrpctest.NewRecorder(nil)
	conn, server, err := typedrpctest.Dial(helloServer(), rec.Tap(nil))
	if err != nil {
		log.Fatal(err)
	}
	typedrpc.Call(context.Background(), conn, hello, "Ada")
	fmt.Print(onlyCalls(rec.String()))
	conn.Close()
	server.Close()
	// Output:
	// #1 -> CALL id=1 "hello" 5 B: "Ada"
	// #1 <- RESULT id=1 13 B: "Hello, Ada!"
}

// onlyCalls leaves out the times, which differ, and what is not a call's.
func onlyCalls(trace string) (text string) {
	for _, m := range regexp.MustCompile(`(?m)(#\d+ ..)..?((?:CALL|RESULT).*\n)`).FindAllStringSubmatch(trace, -1) {
		text += m[1] + " " + m[2]
	}
	return text
}
