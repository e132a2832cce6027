// Package other has types that package awkward uses.
package other

// Kind has the name of a type of package awkward.
type Kind struct {
	Deep  int  `json:"deep"`
	Other bool `json:"other"`
}

// Level is an enumeration of another package.
type Level string

// The levels.
const (
	LevelLow  Level = "low"
	LevelHigh Level = "high"
	hidden    Level = "hidden" // which no other package can name
)

// Hidden is a level that has no exported name.
func Hidden() Level { return hidden }

// Base is embedded elsewhere.
type Base struct {
	ID      string `json:"id"`
	Version int32  `json:"version,omitempty"`
}

// Page is generic.
type Page[T any] struct {
	Items []T     `json:"items"`
	Next  *string `json:"next,omitempty"`
}

// Promotes embeds a struct that has no exported name.
type Promotes struct {
	promoted
	Own int `json:"own"`
}

type promoted struct {
	Seen string `json:"seen"`
	deep
}

type deep struct{ Deep []int }

// Secret has a field whose type has no exported name.
type Secret struct {
	Part promoted `json:"part"`
}

// Odd embeds a pointer that has no exported name.
type Odd struct {
	*promoted
	N int
}
