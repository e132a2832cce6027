package awkward

//lint:file-ignore U1000,SA5008 what is unused or odd here is what the command is tried with

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/test/awkward/other"
)

// Folded has names that differ in case alone, and letters whose case is of another length.
type Folded struct {
	Name  int `json:"Name"`
	Lower int `json:"name"`
	Upper int `json:"NAME"`
	Kelvi int `json:"kelvin"`
	Long  int `json:"maſſe"`
	HTML  int `json:"a<b>&c"`
	Omega int `json:"Ωmega,omitempty"`
}

// Keys has maps by all that keys can be.
type Keys struct {
	Int8   map[int8]string
	Uint8  map[uint8]string
	Uint64 map[uint64]bool
	Ptr    map[uintptr]bool
	Kind   map[Kind]Kind
	Title  map[Title]int
	Handle map[Handle]int
	Both   map[BothKey]int
	Text   map[TextKey]string
	Name   map[NamedKey]string
	Octets map[Octet]Octet
}

// BothKey reads itself as text and as JSON.
type BothKey int

// MarshalText writes k.
func (k BothKey) MarshalText() ([]byte, error) { return []byte("b" + strconv.Itoa(int(k))), nil }

// UnmarshalText reads k.
func (k *BothKey) UnmarshalText(b []byte) error { return errors.New("this is not asked") }

// UnmarshalJSON reads k.
func (k *BothKey) UnmarshalJSON(b []byte) error {
	if len(b) < 4 || b[0] != '"' || b[1] != 'b' {
		return errors.New("no key")
	}
	n, err := strconv.Atoi(string(b[2 : len(b)-1]))
	*k = BothKey(n)
	return err
}

// TextKey is a struct that is text.
type TextKey struct{ A, B uint8 }

// MarshalText writes k.
func (k TextKey) MarshalText() ([]byte, error) {
	return []byte(strconv.Itoa(int(k.A)) + "<" + strconv.Itoa(int(k.B))), nil
}

// UnmarshalText reads k.
func (k *TextKey) UnmarshalText(b []byte) error {
	_, err := fmt.Sscanf(string(b), "%d<%d", &k.A, &k.B)
	return err
}

// NamedKey is a string that writes itself as text, which no map asks for.
type NamedKey string

// MarshalText writes k.
func (k NamedKey) MarshalText() ([]byte, error) { return []byte("text:" + k), nil }

// ByPointer writes itself where it has an address.
type ByPointer struct{ N int }

// MarshalJSON writes p.
func (p *ByPointer) MarshalJSON() ([]byte, error) {
	return []byte(" [ " + strconv.Itoa(p.N) + ` , "<" ] `), nil
}

// TextByPointer does so as text.
type TextByPointer struct{ N int8 }

// MarshalText writes p.
func (p *TextByPointer) MarshalText() ([]byte, error) {
	return []byte("<\xff" + strconv.Itoa(int(p.N))), nil
}

// Addresses has what has an address, and what has none.
type Addresses struct {
	Here    ByPointer
	There   *ByPointer
	List    []ByPointer
	Map     map[string]ByPointer
	Arrays  map[string][2]ByPointer
	Structs map[string]struct{ P ByPointer }
	Slices  map[string][]ByPointer
	Points  map[string]*ByPointer
	Text    TextByPointer
	Texts   map[string]TextByPointer
	Nested  map[string]map[string]struct{ T TextByPointer }
}

// QuotedMore has the option string where one does not expect it.
type QuotedMore struct {
	Number  json.Number  `json:",string"`
	NumberP *json.Number `json:",string"`
	StringP *string      `json:",string"`
	Bool    *Truth       `json:",string"`
	Float32 float32      `json:",string,omitempty"`
	Uint8   Octet        `json:",string"`
	Both    BothKey      `json:",string"`
	Text    TextByte     `json:",string"`
	TextP   *TextByte    `json:",string"`
	Twice   **int        `json:",string"`
	Named   NamedInt     `json:",string"`
	Title   Title        `json:",string,omitzero"`
	Struct  Untagged     `json:",string"`
	Any     any          `json:",string"`
}

// NamedInt is a name of a pointer.
type NamedInt *int

type hidden struct{ Inside int }

// Hidden embeds a pointer that encoding/json cannot set.
type Hidden struct {
	*hidden
	Out int
}

// HiddenValue embeds a struct without an exported name, which embeds one with a name.
type HiddenValue struct {
	hiddenToo
	Title
}

type hiddenToo struct {
	*Plain
	Marked
}

// Foreign has structs of others, whose fields are promoted there.
type Foreign struct {
	Promotes other.Promotes
	Pointer  *other.Promotes
	List     []other.Secret
	Odd      other.Odd
}

// NamedTime is a pointer with a name, which hides methods.
type NamedTime *time.Time

// NamedPoint is another.
type NamedPoint *Point

// Methods has methods that count at some places alone.
type Methods struct {
	Unnamed struct{ time.Time }
	Pointer *struct{ time.Time }
	List    []struct{ Handle }
	Named   NamedPoint
	Time    NamedTime
	Twice   **Point
	Texts   TextList
	TextMap *TextMap
	Bytes   []BothByte
}

// TextList is text, and a list.
type TextList []string

// UnmarshalText reads t.
func (t *TextList) UnmarshalText(b []byte) error {
	*t = TextList{string(b)}
	return nil
}

// TextMap is text, and a map.
type TextMap map[string]int

// MarshalText writes t.
func (t TextMap) MarshalText() ([]byte, error) { return []byte(strconv.Itoa(len(t))), nil }

// UnmarshalText reads t.
func (t TextMap) UnmarshalText(b []byte) error { return nil }

// BothByte is a byte that reads itself.
type BothByte uint8

// UnmarshalJSON reads b.
func (b *BothByte) UnmarshalJSON(data []byte) error {
	*b = BothByte(len(data))
	return nil
}

// Wide is a message that embeds messages which write themselves.
type Wide struct {
	Untagged
	Stamp `json:"stamp"`
	*Scalars
	ByPointer
}

// Zeros has zeros of all sorts.
type Zeros struct {
	Float float64                `json:",omitempty"`
	Zero  float32                `json:",omitzero"`
	Pair  struct{ A, B float64 } `json:",omitzero"`
	Large [200]float64           `json:",omitzero"`
	Lists struct {
		L []int
		F float64
	} `json:",omitzero"`
	Any    any        `json:",omitzero"`
	Nobody struct{}   `json:",omitzero"`
	None   [0]int     `json:",omitzero"`
	Month  time.Month `json:",omitzero"`
	Time   *time.Time `json:",omitzero"`
	Point  *Zeroer    `json:",omitzero"`
	Bool   bool       `json:",omitempty,omitzero"`
}

// Raws has JSON at several places.
type Raws struct {
	Raw     *json.RawMessage
	List    []json.RawMessage
	Map     map[string]json.RawMessage
	Number  []json.Number
	Numbers map[json.Number]*json.Number
	Any     []any
}

// Chain is as long as one likes.
type Chain struct {
	N    uint8   `json:"n,omitempty"`
	Next *Chain  `json:"next,omitempty"`
	More []Chain `json:"more,omitempty"`
	By   map[string]Chain
}

// Grid is an array of arrays.
type Grid [2][3]Untagged

// Bits is a list of truths, and Small a small number.
type (
	Bits  []Truth
	Small int8
	Real  float32
)
