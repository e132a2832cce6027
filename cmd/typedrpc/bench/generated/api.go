package generated

import "github.com/typedrpc/typedrpc"

//go:generate go run -C ../.. . json -C bench/generated

// The methods are never called: their messages are what counts.
var (
	Small = typedrpc.NewMethod[Request, Response]("bench.small")
	Large = typedrpc.NewMethod[Order, Page]("bench.large")
)
