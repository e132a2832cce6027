// Command typedrpc is typedrpc at the command line. It writes an API that Go packages
// declare for others: as TypeScript, as JavaScript, and as a schema; and for the packages
// themselves the JSON of their messages as code.
//
//	typedrpc ts ./api -o client.ts
//	typedrpc ts ./api -o client.js
//	typedrpc schema ./api -o api.json
//	typedrpc json ./api
//
// "typedrpc help" says more, and README.md the rest.
package main

import (
	"context"
	"os"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/cli"
)

func main() { os.Exit(cli.Main(context.Background(), cli.Process())) }
