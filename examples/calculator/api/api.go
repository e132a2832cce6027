// Package api is what the calculator's page and its server have in common: a package of
// its own, so that what is generated from it does not wait for the server to compile.
package api

import (
	"time"

	"github.com/typedrpc/typedrpc"
)

// The page's side of it is generated: change something here, run go generate, and tsc shows
// every line of web/page.js that broke.
//
//go:generate go run -C ../../../cmd/typedrpc . ts -C ../../examples/calculator/api -strict -import ./typedrpc.js -o ../web/api.js
//go:generate go run -C ../../../cmd/typedrpc . schema -C ../../examples/calculator/api -strict -title Calculator -o api.json

// Factors are two numbers to be multiplied.
type Factors struct {
	A float64 `json:"a"`
	B float64 `json:"b"`
}

var (
	// Multiply asks before it multiplies a large number. It is not Idempotent: called
	// again, it would ask again.
	Multiply = typedrpc.NewMethod[Factors, float64]("math.multiply")

	// SquareRoot of a number that is not negative. When its session is lost it is called
	// again, by itself.
	SquareRoot = typedrpc.NewMethod[float64, float64]("math.squareRoot", typedrpc.Idempotent)

	// PageConfirm goes the other way: the server asks, the page answers. Its user may be
	// away, so the question is withdrawn after a minute.
	//
	//typedrpc:handler client
	PageConfirm = typedrpc.NewMethod[string, bool]("page.confirm", typedrpc.Timeout(time.Minute))
)
