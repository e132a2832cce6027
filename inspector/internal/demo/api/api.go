// Package api is what the demonstration of the inspector handles: something of each kind.
package api

import (
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
)

//go:generate go run -C ../../../../cmd/typedrpc . schema -C ../../inspector/internal/demo/api -title Shop -notnull -o ../api.json

// Size is how large a cup is.
type Size string

const (
	Small Size = "small" // a fifth of a litre
	Large Size = "large" // a third
)

// Login says who somebody is.
type Login struct {
	Name string `json:"name"`
}

// Item is a part of an order.
type Item struct {
	Article string `json:"article"`
	Size    Size   `json:"size"`
	Count   int    `json:"count"`
}

// Order is what somebody wants.
type Order struct {
	Table  int       `json:"table"`
	Items  []Item    `json:"items"`
	ToGo   bool      `json:"toGo,omitempty"`
	Note   string    `json:"note,omitempty"` // for the kitchen
	Before time.Time `json:"before,omitzero"`
	Guest  *Guest    `json:"guest,omitempty"` // who has ordered it, where that is known
}

// Guest is somebody with a card.
type Guest struct {
	Name   string  `json:"name"`
	Points float64 `json:"points,omitempty"`
}

// Receipt is for an order that was taken.
type Receipt struct {
	Number int     `json:"number"`
	Total  float64 `json:"total"`
	Order  Order   `json:"order"`
}

// Find asks for an order.
type Find struct {
	Number int `json:"number"`
}

// Missing says what there is instead.
type Missing struct {
	Last int `json:"last"`
}

// Tick is a moment.
type Tick struct {
	N  int       `json:"n"`
	At time.Time `json:"at"`
}

// Pace says how a clock ticks.
type Pace struct {
	Millis int `json:"millis"`          // between two ticks
	Count  int `json:"count,omitempty"` // how many; 0: until nobody listens
}

// Line is what somebody says.
type Line struct {
	From string `json:"from"`
	Text string `json:"text"`
}

var (
	SignIn = typedrpc.NewSignIn[Login, struct{}]()

	// Place takes an order. It is not taken twice.
	Place = typedrpc.NewMethod[Order, Receipt]("orders.place", typedrpc.Keyed)
	// Get finds an order by its number.
	Get = typedrpc.NewMethod[Find, Receipt]("orders.get", typedrpc.Idempotent, typedrpc.Timeout(5*time.Second))
	// Seen says that somebody has looked at the menu.
	Seen = typedrpc.NewNotification[struct{}]("menu.seen")
	// Ticks are a clock's.
	Ticks = typedrpc.NewServerStream[Pace, Tick]("clock.ticks")
	// Sum adds numbers.
	Sum = typedrpc.NewClientStream[struct{}, int, int]("numbers.sum")
	// Echo says everything again.
	Echo = typedrpc.NewBidiStream[struct{}, string, string]("words.echo")
	// Talk is what is said in a room, whose name is the key.
	Talk = topic.New[Line]("talk.room", topic.History(20, time.Hour), topic.WithPresence)

	// NotThere says that there is no such order.
	NotThere = typedrpc.NewFault[Missing]("orders.missing", typedrpc.NotFound)
)
