// Command quickstart is a tour of typedrpc in one program: it starts a server,
// connects to it, and shows what can travel between the two.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/typedrpc/typedrpc"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "address to listen on; port 0 is any free one")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *addr, os.Stdout)
	interrupted := ctx.Err() != nil
	stop()
	if err != nil && !interrupted {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, addr string, w io.Writer) error {
	out := log.New(w, "", 0) // both sides print: a Logger keeps lines whole
	viewed, stopped := make(chan struct{}, 1), make(chan struct{}, 1)
	handlers := shelves(out, viewed, stopped)

	server, err := open(addr, handlers)
	if err != nil {
		return err
	}
	defer func() { server.close() }()
	url := "ws://" + server.addr + "/rpc"
	out.Printf("The server listens on %s", url)

	// A client has handlers too, for the calls that the server makes.
	mine := typedrpc.NewMux()
	typedrpc.Handle(mine, Confirm, func(_ context.Context, question string) (bool, error) {
		out.Printf("   client: the server asks: %s", question)
		return true, nil
	})
	states := make(chan typedrpc.State, 64)
	conn, err := typedrpc.Dial(ctx, url, &typedrpc.DialOptions{
		Mux: mine,
		OnState: func(change typedrpc.StateChange) {
			out.Printf("   connection: %v", change.State)
			states <- change.State
		},
	})
	if err != nil {
		return err
	}
	defer func() {
		conn.Close()
		await(context.Background(), states, typedrpc.StateClosed)
	}()
	if err := await(ctx, states, typedrpc.StateConnected); err != nil {
		return err
	}

	out.Print("\n1. A call is a function call with a context; the compiler knows its types.")
	cents, err := typedrpc.Call(ctx, conn, Price, "apples")
	if err != nil {
		return err
	}
	out.Printf("   client: apples cost %d cents", cents)

	out.Print("\n2. Go returns a future at once: three calls travel together.")
	prices, err := typedrpc.All(ctx,
		typedrpc.Go(ctx, conn, Price, "apples"),
		typedrpc.Go(ctx, conn, Price, "pears"),
		typedrpc.Go(ctx, conn, Price, "plums"))
	if err != nil {
		return err
	}
	out.Printf("   client: apples, pears and plums cost %v cents", prices)

	out.Print("\n3. The server calls back while it handles a call.")
	total, err := typedrpc.Call(ctx, conn, Buy, Order{Item: "pears", Count: 2})
	if err != nil {
		return err
	}
	out.Printf("   client: bought, for %d cents", total)

	out.Print("\n4. A notification has no answer: nobody waits for one.")
	if err := typedrpc.Notify(ctx, conn, Viewed, "plums"); err != nil {
		return err
	}
	if err := await(ctx, viewed, struct{}{}); err != nil {
		return err
	}

	out.Print("\n5. A deadline travels with the call: the handler's context ends too.")
	short, cancel := context.WithTimeout(ctx, 250*time.Millisecond)
	defer cancel()
	_, gaveUp := typedrpc.Call(short, conn, Count, struct{}{})
	if err := await(ctx, stopped, struct{}{}); err != nil {
		return err
	}
	// Both sides knew the deadline, and either may have been first to tell the caller: the
	// code is the same, only the outcome of the call (may have run, or answered) is not.
	out.Printf("   client: %v; is it context.DeadlineExceeded? %t",
		typedrpc.CodeOf(gaveUp), errors.Is(gaveUp, context.DeadlineExceeded))

	out.Print("\n6. Errors keep their code and their typed data.")
	_, err = typedrpc.Call(ctx, conn, Buy, Order{Item: "plums", Count: 100})
	if shortage, ok := OutOfStock.From(err); ok {
		out.Printf("   client: %v; %d are left", err, shortage.Left)
	}
	_, err = typedrpc.Call(ctx, conn, Price, "bananas")
	if errors.Is(err, typedrpc.NotFound) {
		out.Printf("   client: %v", err)
	}

	out.Print("\n7. The server restarts, and the same connection goes on.")
	if err := server.close(); err != nil {
		return err
	}
	if err := await(ctx, states, typedrpc.StateWaiting); err != nil {
		return err
	}
	meanwhile := typedrpc.Go(ctx, conn, Price, "plums")
	out.Print("   client: the server is away; a call made now waits for it")
	restarted, err := open(server.addr, handlers)
	if err != nil {
		return err
	}
	server = restarted
	if err := await(ctx, states, typedrpc.StateConnected); err != nil {
		return err
	}
	if cents, err = meanwhile.Await(ctx); err != nil {
		return err
	}
	out.Printf("   client: plums cost %d cents", cents)
	return nil
}

// await receives until want comes.
func await[T comparable](ctx context.Context, from <-chan T, want T) error {
	for {
		select {
		case got := <-from:
			if got == want {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
