// Package reported has what cannot be written, or is no faster.
package reported

//lint:file-ignore U1000,SA5008 what is unused or odd here is what the command is tried with

import (
	"fmt"
	"net/netip"

	"github.com/typedrpc/typedrpc"
)

// Message has fields of all sorts.
type Message struct {
	Any     any                   `json:"any"`    // want: field Message.Any is any
	Stringy fmt.Stringer          `json:"string"` // want: field Message.Stringy is a fmt.Stringer, an interface
	Chan    []chan int            // want: field Message.Chan is a chan int
	Keys    map[float64]string    // want: field Message.Keys is a map[float64]string
	Fine    map[netip.Addr]string `json:"fine"`
	Left    func()                `json:"-"`
	Inner   struct {
		Complex *complex128 // want: field Complex is a complex128
	}
}

// Embeds would have the methods of what it embeds.
type Embeds[T any] struct { // want: Embeds embeds a message
	Message
	More T
}

// Pair is generic.
type Pair[T any] struct{ A, B T }

// Pointed is used by pointer.
type Pointed struct{ A int }

// The declarations.
var (
	Good    = typedrpc.NewMethod[Message, int]("good")
	List    = typedrpc.NewMethod[[]Pointed, int]("list")     // want: method List's request is []Pointed, which has no methods
	Generic = typedrpc.NewMethod[Pair[int], int]("generic")  // want: type Name Pair[int]
	Foreign = typedrpc.NewMethod[netip.Addr, int]("foreign") // want: is netip.Addr, of another package
	Pointer = typedrpc.NewMethod[*Pointed, int]("pointer")   // want: typedrpc.Alloc[Pointed]()
	Alloc   = typedrpc.NewMethod[*Pointed, int]("alloc", typedrpc.Alloc[Pointed]())
	Fault   = typedrpc.NewFault[*Pointed]("fault", typedrpc.Aborted, typedrpc.Alloc[Pointed]())
	SignIn  = typedrpc.NewSignIn[*Pointed, struct{}](typedrpc.Alloc[Pointed]())
)
