package awkward

//lint:file-ignore U1000,SA5008 what is unused or odd here is what the command is tried with

import (
	"encoding/json"
	"fmt"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/test/awkward/other"
)

// Embedding has members of what it embeds.
type Embedding struct {
	other.Base
	Name string `json:"name"`
}

// EmbeddingPointer has members that are missing where the pointer is nil.
type EmbeddingPointer struct {
	*other.Base
	Name string `json:"name"`
}

// EmbeddingNamed has a member for what it embeds, because of the tag.
type EmbeddingNamed struct {
	other.Base `json:"base"`
	Name       string `json:"name"`
}

type unexported struct {
	Seen  int `json:"seen"`
	inner int
}

// EmbeddingUnexported embeds a struct that has no exported name.
type EmbeddingUnexported struct {
	unexported
	Name string `json:"name"`
}

// EmbeddingScalar embeds what is not a struct: a member of its name.
type EmbeddingScalar struct {
	Title
	Tags
	Color `json:"hue"`
}

// Left and Right have one member in common, and embedding both leaves that out.
type (
	Left struct {
		Common int
		L      int `json:"l"`
	}
	Right struct {
		Common int
		R      int `json:"r"`
	}
	// Ambiguous loses what it has twice.
	Ambiguous struct {
		Left
		Right
	}
	// Shadowing has a member of its own above those.
	Shadowing struct {
		Left
		Right
		Common string
	}
	// TagWins has a tag, and an embedded one none.
	TagWins struct {
		Plain
		Marked
	}
	// Plain has a field by the name.
	Plain struct{ Value int }
	// Marked has it by a tag.
	Marked struct {
		Other string `json:"Value"`
	}
	// Deepest is embedded through several levels.
	Deepest struct {
		Middle
		Top string `json:"top"`
	}
	// Middle is between.
	Middle struct {
		*other.Base
		Mid string `json:"mid"`
	}
	// EmbeddingInterface embeds an interface: a member of its name.
	EmbeddingInterface struct {
		Anything
	}
)

// Anything is an interface that JSON can be read into.
type Anything interface{}

// Tree contains itself through a slice.
type Tree struct {
	Value    int    `json:"value"`
	Children []Tree `json:"children"`
}

// List contains itself through a pointer.
type List struct {
	Head int   `json:"head"`
	Tail *List `json:"tail,omitempty"`
}

// Even and Odd contain each other.
type (
	Even struct {
		Next *Odd `json:"next"`
	}
	Odd struct {
		Next map[string]Even `json:"next"`
	}
)

// Forest is a map of itself, Nest a slice of itself, and Ping and Pong maps of each other.
type (
	Forest map[string]Forest
	Nest   []Nest
	Ping   map[string]Pong
	Pong   map[string]Ping
	Knot   map[string][]Knot
)

// Pair is generic in two types.
type Pair[A, B any] struct {
	First  A `json:"first"`
	Second B `json:"second"`
}

// Node is generic and contains itself.
type Node[T any] struct {
	Value T          `json:"value"`
	Next  []*Node[T] `json:"next"`
}

// Box has a generic slice, which is base64 if it is one of bytes.
type Box[T any] struct {
	Items []T `json:"items"`
}

// Optional is a generic name of a pointer.
type Optional[T any] *T

// Wrapper embeds a generic struct.
type Wrapper struct {
	other.Page[Title]
	Total int `json:"total"`
}

// Generics has instances.
type Generics struct {
	Pair    Pair[string, int]            `json:"pair"`
	Nested  Pair[Pair[int, bool], []int] `json:"nested"`
	Node    Node[Color]                  `json:"node"`
	Bytes   Box[byte]                    `json:"bytes"`
	Strings Box[*string]                 `json:"strings"`
	Page    other.Page[map[string]Kind]  `json:"page"`
	Maybe   Optional[string]             `json:"maybe"`
}

// Anonymous has structs without names.
type Anonymous struct {
	// Inner has a comment.
	Inner struct {
		A int `json:"a"`
		// B has one, too.
		B struct {
			C []string `json:"c"`
		} `json:"b"`
	} `json:"inner"`
	List []struct {
		X int `json:"x,omitempty"`
	} `json:"list"`
	Nothing struct{} `json:"nothing"`
}

// Alias is another name of a type, and AliasOf of a generic one.
type (
	Alias          = Untagged
	AliasOf[T any] = map[string]T
)

// Aliases has aliases.
type Aliases struct {
	One  Alias          `json:"one"`
	Many AliasOf[Alias] `json:"many"`
	Any  interface{}    `json:"any"`
}

// Money writes itself, and a comment says as what.
//
//typedrpc:type `${number} ${"EUR" | "USD"}`
type Money struct{ cents int64 }

// Cents is m in cents.
func Cents(n int64) Money { return Money{n} }

// MarshalJSON writes m.
func (m Money) MarshalJSON() ([]byte, error) {
	return json.Marshal(fmt.Sprintf("%d.%02d EUR", m.cents/100, m.cents%100))
}

// UnmarshalJSON reads m.
func (m *Money) UnmarshalJSON(b []byte) error {
	var whole, rest int64
	if _, err := fmt.Sscanf(string(b), `"%d.%d EUR"`, &whole, &rest); err != nil {
		return err
	}
	m.cents = 100*whole + rest
	return nil
}

// Point writes itself as a list, which a flag says.
type Point struct{ X, Y int }

// MarshalJSON writes p.
func (p Point) MarshalJSON() ([]byte, error) { return json.Marshal([2]int{p.X, p.Y}) }

// UnmarshalJSON reads p.
func (p *Point) UnmarshalJSON(b []byte) error {
	var xy [2]int
	err := json.Unmarshal(b, &xy)
	p.X, p.Y = xy[0], xy[1]
	return err
}

// Handle writes itself as text.
type Handle struct{ name string }

// HandleOf makes a handle.
func HandleOf(name string) Handle { return Handle{name} }

// MarshalText writes h.
func (h Handle) MarshalText() ([]byte, error) { return []byte("@" + h.name), nil }

// UnmarshalText reads h.
func (h *Handle) UnmarshalText(b []byte) error {
	h.name = string(b[1:])
	return nil
}

// Custom has types that write themselves.
type Custom struct {
	Money   Money             `json:"money"`
	Prices  []Money           `json:"prices"`
	Point   Point             `json:"point"`
	Corners map[string]Point  `json:"corners"`
	Handle  Handle            `json:"handle"`
	Handles map[Handle]Handle `json:"handles"`
	Maybe   *Handle           `json:"maybe"`
	// Field is said to be something else by a comment.
	Field json.RawMessage `json:"field"` //typedrpc:type { kind: "a" | "b" }
	Never []string        `json:"never"` //typedrpc:notnull
}

// Record, Promise and Object have names that TypeScript uses, too.
type (
	Record  struct{ A map[string]Promise }
	Promise struct{ B *Object }
	Object  string
)

/*
Documented has a comment with everything in it: a list,

  - one
  - two, which is so long that it has to be wrapped onto another line of the comment that is written for it

code:

	for range 3 { /* nothing * / }

and what would end a comment: *&#47; or begin a tag: @deprecated, {@link Foo}.

# A heading

Deprecated: use something else.
*/
type Documented struct {
	// Old ends with */ nothing.
	//
	// Deprecated: it is old.
	Old int `json:"old"`
}
