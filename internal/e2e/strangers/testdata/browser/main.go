//go:build js

// Command browser is a client in a browser, or in Node, which has the same
// WebSocket. It prints what it sees.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/typedrpc/typedrpc"
)

var (
	shout = typedrpc.NewMethod[string, string]("shout")
	tell  = typedrpc.NewServerStream[int, int]("tell")
	leave = typedrpc.NewMethod[int, int]("leave")
)

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Println("failed:", err)
	}
}

func run(url, nowhere string) error {
	ctx := context.Background()
	changes := make(chan typedrpc.StateChange, 100)
	o := &typedrpc.DialOptions{
		Logger:  slog.New(slog.DiscardHandler),
		Header:  http.Header{"Sec-WebSocket-Protocol": {"token.abc"}},
		Backoff: typedrpc.Backoff{Max: 100 * time.Millisecond},
		OnState: func(s typedrpc.StateChange) { changes <- s },
	}
	c, err := typedrpc.Dial(ctx, url, o)
	if err != nil {
		return err
	}
	for _, size := range []int{1, 200_000} {
		got, err := typedrpc.Call(ctx, c, shout, strings.Repeat("x", size))
		if err != nil {
			return err
		}
		fmt.Println("answered", len(got))
	}

	// A link that is given up in the middle of a stream, and its session.
	n := 0
	for i, err := range typedrpc.Receive(ctx, c, tell, 1000) {
		if err != nil || i != n {
			return fmt.Errorf("item %d is %d: %w", n, i, err)
		}
		if n++; n == 400 {
			c.Reconnect()
		}
	}
	fmt.Println("received", n)
	fmt.Println("resumed", connected(changes, 2).Resumed)

	// How the server closes.
	if _, err := typedrpc.Call(ctx, c, leave, 0); err != nil {
		fmt.Println("left:", typedrpc.CodeOf(err))
	}
	for s := range changes {
		var ce *typedrpc.CloseError
		if errors.As(s.Err, &ce) {
			fmt.Println("closed", ce.Code, ce.Reason)
			break
		}
	}
	connected(changes, 1)
	if err := c.Close(); err != nil {
		return err
	}

	// What cannot be dialled. No error repeats the URL.
	for _, bad := range []string{nowhere, "ws://127.0.0.1:1/?token=s3cret", "ws://a b/?token=s3cret"} {
		short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		_, err := typedrpc.Dial(short, bad, o)
		cancel()
		fmt.Println("refused", err != nil, strings.Contains(fmt.Sprint(err), "s3cret"))
	}
	return nil
}

// connected waits until there has been a link n times.
func connected(changes chan typedrpc.StateChange, n int) typedrpc.StateChange {
	for s := range changes {
		if s.State == typedrpc.StateConnected {
			if n--; n == 0 {
				return s
			}
		}
	}
	panic("nobody closes it")
}
