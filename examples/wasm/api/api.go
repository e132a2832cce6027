// Package api is what the server and the page have in common. Both are Go, so both use
// these very values.
package api

import "github.com/typedrpc/typedrpc"

// Machine is what somebody runs on.
type Machine struct {
	Go   string `json:"go"`
	OS   string `json:"os"`
	Arch string `json:"arch"`
}

var (
	// Factor returns the prime factors of a number.
	Factor = typedrpc.NewMethod[int, []int]("factor", typedrpc.Idempotent)

	// Ticks counts on, from the number after. A page whose session was lost begins behind
	// what it has.
	Ticks = typedrpc.NewServerStream[int, int]("ticks").Restartable(func(after int, last *int) int {
		if last != nil {
			return *last
		}
		return after
	})

	// Meet goes both ways: its handler asks the page what it runs on, and answers with
	// what the server does.
	Meet = typedrpc.NewMethod[string, Machine]("meet")

	// About is what the server asks.
	About = typedrpc.NewMethod[string, Machine]("page.about")
)
