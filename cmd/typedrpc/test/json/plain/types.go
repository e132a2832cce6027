// Package awkward declares a method for each type whose JSON is not obvious.
package awkward

//lint:file-ignore U1000,SA5008 what is unused or odd here is what the command is tried with

import (
	"encoding/json"
	"net/netip"
	"strings"
	"time"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/test/awkward/other"
)

// Scalars has one field of each basic kind.
type Scalars struct {
	Bool    bool    `json:"bool"`
	Int     int     `json:"int"`
	Int8    int8    `json:"int8"`
	Int16   int16   `json:"int16"`
	Int32   int32   `json:"int32"`
	Uint    uint    `json:"uint"`
	Uint8   uint8   `json:"uint8"`
	Uint16  uint16  `json:"uint16"`
	Uint32  uint32  `json:"uint32"`
	Float32 float32 `json:"float32"`
	Float64 float64 `json:"float64"`
	String  string  `json:"string"`
	Rune    rune    `json:"rune"`
}

// Untagged has no tags: its members have the names of its fields.
type Untagged struct {
	Name  string
	Count int
	inner int
}

// Names has members whose names are no identifiers.
type Names struct {
	Dash    int `json:"with-dash"`
	Space   int `json:"with space"`
	Dot     int `json:"a.b"`
	Digit   int `json:"1st"`
	Class   int `json:"class"`
	Default int `json:"default"`
	Umlaut  int `json:"größe"`
	Dollar  int `json:"$ref"`
	Minus   int `json:"-,"`
	Bad     int `json:"bad\"name"` // which encoding/json does not take
	Skipped int `json:"-"`
}

// Omitted has fields that may be missing.
type Omitted struct {
	Int     int               `json:"int,omitempty"`
	String  string            `json:"string,omitempty"`
	Slice   []string          `json:"slice,omitempty"`
	Map     map[string]int    `json:"map,omitempty"`
	Pointer *int              `json:"pointer,omitempty"`
	Bytes   []byte            `json:"bytes,omitempty"`
	Struct  Empty             `json:"struct,omitempty"` // without an effect
	Array   [2]int            `json:"array,omitempty"`  // without an effect
	None    [0]int            `json:"none,omitempty"`
	Any     any               `json:"any,omitempty"`
	Strings map[string]string `json:",omitempty"`
}

// OmittedZero has fields that are missing where they are zero.
type OmittedZero struct {
	Time    time.Time `json:"time,omitzero"`
	Struct  Scalars   `json:"struct,omitzero"`
	Array   [2]int    `json:"array,omitzero"`
	Slice   []int     `json:"slice,omitzero"`
	Pointer *Empty    `json:"pointer,omitzero"`
	Both    []int     `json:"both,omitempty,omitzero"`
	Zeroer  Zeroer    `json:"zeroer,omitzero"`
}

// Zeroer decides itself when it is zero.
type Zeroer []int

// IsZero reports whether z is zero: nil is not.
func (z Zeroer) IsZero() bool { return len(z) == 1 && z[0] == 0 }

// Quoted has fields with the option string.
type Quoted struct {
	Int     int      `json:"int,string"`
	Int64   int64    `json:"int64,string"`
	Uint64  uint64   `json:"uint64,string"`
	Float   float64  `json:"float,string"`
	Bool    bool     `json:"bool,string"`
	String  string   `json:"string,string"`
	Pointer *int64   `json:"pointer,string"`
	Named   BigID    `json:"named,string"`
	Missing int64    `json:"missing,string,omitempty"`
	Slice   []string `json:"slice,string"` // without an effect
}

// BigID is an integer with a name.
//
//typedrpc:safe
type BigID int64

// Pointers has pointers.
type Pointers struct {
	Int    *int      `json:"int"`
	Struct *Empty    `json:"struct"`
	Slice  *[]int    `json:"slice"`
	Twice  **string  `json:"twice"`
	List   []*int    `json:"list"`
	Self   *Pointers `json:"self"`
}

// Empty says nothing.
type Empty struct{}

// Collections has slices, arrays and maps.
type Collections struct {
	Strings []string                  `json:"strings"`
	Matrix  [][]float64               `json:"matrix"`
	Pair    [2]string                 `json:"pair"`
	Long    [20]int                   `json:"long"`
	Zero    [0]string                 `json:"zero"`
	Grid    [2][3]int                 `json:"grid"`
	ByName  map[string]int            `json:"byName"`
	ByInt   map[int]string            `json:"byInt"`
	ByInt64 map[int64]bool            `json:"byInt64"`
	ByColor map[Color]int             `json:"byColor"`
	Deep    map[string]map[string]int `json:"deep"`
	Lists   map[string][]*Scalars     `json:"lists"`
	ByAddr  map[netip.Addr]string     `json:"byAddr"`
	Structs []Untagged                `json:"structs"`
}

// Binary has bytes, of which slices are base64 and arrays are lists.
type Binary struct {
	Bytes  []byte            `json:"bytes"`
	Named  Digest            `json:"named"`
	Fixed  [4]byte           `json:"fixed"`
	List   [][]byte          `json:"list"`
	Map    map[string][]byte `json:"map"`
	Octets []Octet           `json:"octets"`
	Texts  []TextByte        `json:"texts"`
}

// Digest is bytes with a name.
type Digest []byte

// Octet is a byte with a name: a slice of it is base64, too.
type Octet byte

// TextByte is a byte that writes itself as text, so that a slice of it is a list.
type TextByte byte

// MarshalText writes t.
func (t TextByte) MarshalText() ([]byte, error) { return []byte(strings.Repeat("x", int(t))), nil }

// UnmarshalText reads t.
func (t *TextByte) UnmarshalText(b []byte) error {
	*t = TextByte(len(b))
	return nil
}

// Times has times and durations.
type Times struct {
	At       time.Time      `json:"at"`
	Maybe    *time.Time     `json:"maybe"`
	Missing  *time.Time     `json:"missing,omitempty"`
	Took     time.Duration  `json:"took"`
	Durable  *time.Duration `json:"durable"`
	Month    time.Month     `json:"month"`
	All      []time.Time    `json:"all"`
	Stamp    Stamp          `json:"stamp"`
	Embedded StampedEvent   `json:"embedded"`
}

// Stamp is a time with a name, whose JSON is the time's.
type Stamp struct{ time.Time }

// StampedEvent has more than a time, but the time writes its JSON.
type StampedEvent struct {
	time.Time
	Ignored string
}

// Rawness has JSON that Go does not look at.
type Rawness struct {
	Raw    json.RawMessage            `json:"raw"`
	Number json.Number                `json:"number"`
	Any    any                        `json:"any"`
	Map    map[string]any             `json:"map"`
	Raws   map[string]json.RawMessage `json:"raws"`
}

// Color is an enumeration.
type Color string

// The colours that there are.
const (
	ColorRed   Color = "red" // like roses
	ColorGreen Color = "green"
	ColorBlue  Color = "blue, \"deep\""
)

// Kind is an enumeration of numbers.
type Kind int

// The kinds.
const (
	KindNone Kind = iota
	KindSmall
	KindLarge
	kindSecret Kind = 99
	KindAlias       = KindSmall
)

// Flags may be combined, so that it is any number.
type Flags uint8

// The flags.
const (
	FlagRead Flags = 1 << iota
	FlagWrite
)

// Ratio is an enumeration of fractions.
type Ratio float64

// The ratios.
const (
	RatioHalf Ratio = 0.5
	RatioTiny Ratio = 1e-9
)

// Switch is an enumeration of truths.
type Switch bool

// The only position of a switch.
const SwitchOn Switch = true

// Enums has enumerations.
type Enums struct {
	Color  Color           `json:"color"`
	Kind   Kind            `json:"kind"`
	Flags  Flags           `json:"flags"`
	Ratio  Ratio           `json:"ratio"`
	Switch Switch          `json:"switch"`
	Level  other.Level     `json:"level"`
	Maybe  *Color          `json:"maybe"`
	List   []Kind          `json:"list"`
	Quoted Kind            `json:"quoted,string"`
	Set    map[Color]Color `json:"set"`
	Other  other.Kind      `json:"other"`
}

// Celsius and others are names of scalars.
type (
	Celsius float64
	Title   string
	Truth   bool
	Tags    []string
	Index   map[string]int
	Maybe   *Title
	Table   [3]Celsius
)

// NamedFields has fields whose types are names of what is not a struct.
type NamedFields struct {
	Celsius Celsius `json:"celsius"`
	Title   Title   `json:"title"`
	Truth   Truth   `json:"truth"`
	Tags    Tags    `json:"tags"`
	NoTags  Tags    `json:"noTags,omitempty"`
	Index   Index   `json:"index"`
	Maybe   Maybe   `json:"maybe"`
	Table   Table   `json:"table"`
}
