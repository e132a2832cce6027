// Package plain has the messages of the benchmarks. Packages easy and generated have the
// same ones, with code that easyjson and typedrpc json have written.
package plain

import "time"

// Request and Response are small: two integers and a text of 16 bytes there, an integer and
// a text of 32 bytes back.
type (
	Request struct {
		A   int64  `json:"a"`
		B   int64  `json:"b"`
		Tag string `json:"tag"`
	}
	Response struct {
		Sum  int64  `json:"sum"`
		Text string `json:"text"`
	}
)

// Order has twenty fields, among them lists.
type Order struct {
	ID        int64     `json:"id"`
	Number    string    `json:"number"`
	Customer  Customer  `json:"customer"`
	Lines     []Line    `json:"lines"`
	Tags      []string  `json:"tags"`
	Codes     []int     `json:"codes"`
	Total     float64   `json:"total"`
	Tax       float64   `json:"tax"`
	Currency  string    `json:"currency"`
	Paid      bool      `json:"paid"`
	Shipped   bool      `json:"shipped"`
	Created   time.Time `json:"created"`
	Weight    int32     `json:"weight"`
	Parcels   uint8     `json:"parcels"`
	Comment   string    `json:"comment,omitempty"`
	Coupon    *string   `json:"coupon,omitempty"`
	Warehouse string    `json:"warehouse"`
	Priority  int       `json:"priority"`
	Channel   string    `json:"channel"`
	Version   uint64    `json:"version"`
}

// Customer is who ordered.
type Customer struct {
	ID    int64  `json:"id"`
	Name  string `json:"name"`
	Email string `json:"email"`
}

// Line is what was ordered.
type Line struct {
	Article  string  `json:"article"`
	Quantity int     `json:"quantity"`
	Price    float64 `json:"price"`
	Options  []int   `json:"options"`
}

// Page is many orders: 64 KiB.
type Page struct {
	Orders []Order `json:"orders"`
	Next   string  `json:"next"`
}
