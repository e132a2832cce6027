// Package api is what the dashboard's page and its server have in common. The page's part
// of it, web/api.js and the types beside it, is made from this file.
package api

import (
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/transfer"
)

//go:generate go run -C ../../../cmd/typedrpc . json -C ../../examples/dashboard/api -strict
//go:generate go run -C ../../../cmd/typedrpc . ts -C ../../examples/dashboard/api -strict -import ./typedrpc.js -o ../web/api.js

// How often there is something new. Ticks and trades are numbered by the clock, so that
// the numbers go on when a server is started again, and what it missed is a gap.
const (
	TickEvery  = 50 * time.Millisecond
	TradeEvery = 2 * TickEvery
)

// Goods are what is traded.
const Goods = 6

// Market is a place where goods are traded. Its name is also the topic's key.
type Market string

const (
	Fruit Market = "fruit" // is open
	Nuts  Market = "nuts"  // is open, and nobody trades there
	Fish  Market = "fish"  // is closed
)

// Visitor is a page, with a name that it has made up.
type Visitor struct {
	Name string `json:"name"`
}

// Welcome is what a page is told first.
type Welcome struct {
	Goods       [Goods]string `json:"goods"`
	TickMillis  int           `json:"tickMillis"`
	TradeMillis int           `json:"tradeMillis"`
}

// From says where a stream of ticks begins: behind the tick After, or with the last
// Seconds of them.
type From struct {
	Market  Market `json:"market"`
	After   int    `json:"after,omitempty"`
	Seconds int    `json:"seconds,omitempty"`
}

// Tick has the prices of a moment.
type Tick struct {
	N      int        `json:"n"`      // the one before has N-1
	At     int        `json:"at"`     // Unix time in milliseconds
	Prices [Goods]int `json:"prices"` // in cents
}

// Trade is a sale.
type Trade struct {
	N      int `json:"n"`     // the one before has N-1
	At     int `json:"at"`    // Unix time in milliseconds
	Good   int `json:"good"`  // which of Goods
	Price  int `json:"price"` // in cents
	Amount int `json:"amount"`
}

// Hours say when a market that is closed is open.
type Hours struct {
	Opens string `json:"opens"`
}

// Book is what the server knows of a page.
type Book struct {
	Tick   int     `json:"tick"`  // the latest that was sent to the page
	Trade  int     `json:"trade"` // the latest that was published in any market
	Pulses Checked `json:"pulses"`
	Calls  Checked `json:"calls"`
	Cuts   int     `json:"cuts"` // of the page's links, on purpose
	Torn   Torn    `json:"torn"` // what the latest of them tore
}

// Checked is what the server has made of numbers that a page sent.
type Checked struct {
	Received   int `json:"received"`
	Gaps       int `json:"gaps"`       // numbers that were left out
	Duplicates int `json:"duplicates"` // numbers that came again
}

// Torn is a write to a socket that a cut has left unfinished.
type Torn struct {
	Written int `json:"written"` // bytes that left
	Of      int `json:"of"`
}

// Cutting says how a page's link is to be cut.
type Cutting struct {
	// Away is for how long the page is not let in again, in milliseconds.
	Away int `json:"away,omitempty"`
}

// Receipt is what has arrived of one.
type Receipt struct {
	Bytes  int    `json:"bytes"`
	SHA256 string `json:"sha256"`
}

var (
	SignIn = typedrpc.NewSignIn[Visitor, Welcome]()

	// Ticks are the prices of a market, twenty times a second. The server remembers a
	// minute of them, so that even a page that has lost its session goes on behind its
	// latest one.
	Ticks = typedrpc.NewServerStream[From, Tick]("market.ticks").
		Restartable(func(from From, last *Tick) From {
			if last != nil {
				from.After = last.N
			}
			return from
		})

	// Trades are the sales in a market.
	Trades = topic.New[Trade]("market.trades", topic.History(100, time.Minute), topic.DropOldest, topic.Restartable)

	// Closed is why a market shows nothing.
	Closed = typedrpc.NewFault[Hours]("market.closed", typedrpc.FailedPrecondition)

	// Pulse sends a number, one more than the one before. The server checks that.
	Pulse = typedrpc.NewNotification[int]("book.pulse")

	// Count does the same, and returns what the server knows of the page. It is not
	// idempotent: a call that ran twice would show.
	Count = typedrpc.NewMethod[int, Book]("book.count", typedrpc.Serial)

	// Cut has the server cut the page's link, in the middle of whatever it writes to it
	// next: most likely this answer.
	Cut = typedrpc.NewMethod[Cutting, Cutting]("link.cut")

	// Put takes a file with a name, and keeps nothing but its checksum.
	Put = transfer.NewUpload[string, Receipt]("files.put")
)
