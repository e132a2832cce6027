// Package shop declares what the shop of the tests has.
package shop

import (
	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/transfer"
)

// Order is what a customer wants to buy.
type Order struct {
	Item  string `json:"item"`
	Count int    `json:"count"` // at most three
	Gift  *Gift  `json:"gift,omitempty"`
}

// Gift is what is put on a present.
type Gift struct {
	Color Color    `json:"color"`
	Lines []string `json:"lines"`
}

// Color is one of a ribbon.
type Color string

const (
	Red   Color = "red"
	Green Color = "green"
)

// Photo is what is asked for of one.
type Photo struct {
	Name   string `json:"name"`
	Offset int64  `json:"offset,omitempty"` // how many bytes the caller has
}

// Shortage says how many are left.
type Shortage struct {
	Left int `json:"left"`
}

var (
	// Price answers the price of an item. It is in cents.
	Price = typedrpc.NewMethod[string, int]("shop.price", typedrpc.Idempotent, typedrpc.Safe)
	// Buy answers the total in cents.
	Buy = typedrpc.NewMethod[Order, int]("shop.buy")
	// Slow answers when its caller has gone.
	Slow = typedrpc.NewMethod[struct{}, struct{}]("shop.slow")
	// WhoAmI answers what the server knows of its caller.
	WhoAmI = typedrpc.NewMethod[struct{}, map[string]string]("shop.whoami")
	// Viewed tells the shop what a customer looks at.
	Viewed = typedrpc.NewNotification[string]("shop.viewed")
	// Ticks counts.
	Ticks = typedrpc.NewServerStream[int, int]("shop.ticks")
	// Sum adds numbers to one.
	Sum = typedrpc.NewClientStream[int, int, int]("shop.sum")
	// Talk answers in capitals.
	Talk = typedrpc.NewBidiStream[string, string, string]("shop.talk")
	// News are what everybody hears.
	News = topic.New[string]("shop.news", topic.History(10, 0), topic.WithPresence)
	// Put keeps a photo, and answers how many bytes it has.
	Put = transfer.NewUpload[Photo, int64]("shop.put")
	// Get is a photo.
	Get = transfer.NewDownload[Photo]("shop.get")
	// Confirm asks a customer.
	//
	//typedrpc:handler client
	Confirm = typedrpc.NewMethod[string, bool]("customer.confirm")
	// OutOfStock is why an order fails.
	OutOfStock = typedrpc.NewFault[Shortage]("shop.out-of-stock", typedrpc.FailedPrecondition)
)
