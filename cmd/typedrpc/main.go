// Command typedrpc is typedrpc at the command line. It calls servers, looks at what they
// have, measures them and watches what travels; and it writes an API that Go packages
// declare for others, as TypeScript, as JavaScript and as a schema.
//
//	typedrpc list localhost:8080/rpc
//	typedrpc call localhost:8080/rpc shop.price '"apples"'
//	typedrpc ts ./api -o client.ts
//
// "typedrpc help" says more, and README.md the rest.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/cli"
)

func main() {
	// A reader of standard output that is gone is an error of the write, so that
	// connections are closed as they should be.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second one kills
	os.Exit(cli.Main(ctx, cli.Process()))
}
