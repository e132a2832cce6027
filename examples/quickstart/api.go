package main

import "github.com/typedrpc/typedrpc"

// What client and server share: every procedure is a value that knows its name
// and its types. In a program of your own this file is a package that both
// sides import.

// Order is what a customer wants to buy.
type Order struct {
	Item  string `json:"item"`
	Count int    `json:"count"`
}

// Shortage is the data of the error OutOfStock.
type Shortage struct {
	Left int `json:"left"`
}

var (
	// Price takes the name of an item and answers its price in cents.
	Price = typedrpc.NewMethod[string, int]("shop.price")
	// Buy answers the total in cents.
	Buy = typedrpc.NewMethod[Order, int]("shop.buy")
	// Count counts everything in the shop, which takes long.
	Count = typedrpc.NewMethod[struct{}, int]("shop.count")
	// Viewed tells the shop what a customer looks at. It has no answer.
	Viewed = typedrpc.NewNotification[string]("shop.viewed")

	// Confirm is a question to the customer: the server calls it, the client
	// handles it.
	Confirm = typedrpc.NewMethod[string, bool]("customer.confirm")

	// OutOfStock is an error that carries typed data.
	OutOfStock = typedrpc.NewFault[Shortage]("shop.out-of-stock", typedrpc.FailedPrecondition)
)
