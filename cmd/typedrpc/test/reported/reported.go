// Package reported has what the command cannot write, or not as it is.
package reported

//lint:file-ignore U1000,SA5008 what is unused or odd here is what the command is tried with

import (
	"encoding/json"
	"time"

	"github.com/typedrpc/typedrpc"
)

// Bad is a message with trouble in it.
type Bad struct {
	Large   int64            `json:"large"` // want: JavaScript rounds numbers beyond 2^53
	Fine    int64            `json:"fine"`  //typedrpc:safe
	Quoted  uint64           `json:"quoted,string"`
	Func    func()           `json:"func"`  // want: JSON cannot carry
	Chan    chan int         `json:"chan"`  // want: JSON cannot carry
	Cmplx   complex128       `json:"cmplx"` // want: JSON cannot carry
	Keys    map[bool]string  `json:"keys"`  // want: a map by bool
	None    func()           `json:"-"`
	Self    Self             `json:"self"`
	Sweet   typedrpc.Raw     `json:"sweet"`
	Ptr     *json.RawMessage `json:"ptr"`
	*hidden                  // want: embeds a pointer to hidden
}

type hidden struct{ A int }

// Self writes itself.
type Self struct{} // want: has MarshalJSON

// MarshalJSON writes s.
func (Self) MarshalJSON() ([]byte, error) { return []byte("1"), nil }

var name = "computed"

func timeout() time.Duration { return time.Second }

func make[T any](name string) typedrpc.Method[T, T] {
	return typedrpc.NewMethod[T, T](name) // want: is not the value of a variable
}

// Declarations, good and bad.
var (
	Good     = typedrpc.NewMethod[Bad, int]("good")
	Computed = typedrpc.NewMethod[int, int](name)                                // want: the name of method Computed is no constant
	Made     = make[int]("made")                                                 // want: how Made is made cannot be seen
	Late     = typedrpc.NewMethod[int, int]("late", typedrpc.Timeout(timeout())) // want: Timeout of method Late is no constant
	Twice    = typedrpc.NewMethod[int, int]("good")                              // want: "good" is declared here and at
	List     = []typedrpc.Method[int, int]{
		typedrpc.NewMethod[int, int]("listed"), // want: is not the value of a variable
	}
	Who = typedrpc.NewMethod[int, int]("who") //typedrpc:handler nobody // want: followed by client or server
	//typedrpc:ignore
	Ignored = typedrpc.NewMethod[func(), int](name)
)

//typedrpc:colour red // want: is no comment that this command knows
type Odd struct{ B hidden }

var odd = typedrpc.NewNotification[Odd]("odd")
