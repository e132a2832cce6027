package jsoncodec

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"
)

type (
	shape interface{ Area() float64 }
	side  struct {
		Length float64
		Of     shape `json:"of,omitempty"`
	}
	deep struct {
		Name  string
		Sides map[string][]*side
	}
	loop struct {
		Next *loop
		More []loop
		At   map[string]*loop
	}
	badLoop struct {
		Next *badLoop
		At   map[int]shape `json:"at,omitzero"`
	}
	Inner      struct{ Of shape }
	embeds     struct{ Inner }
	embedsP    struct{ *Inner }
	concealed  struct{ A int }
	unset      struct{ *concealed }
	embeddedOK struct {
		concealed
		*Fine
	}
	Fine  struct{ B []string }
	own   struct{ S shape }
	owns  struct{ O *own }
	texts struct{ M map[netip.Addr]int }
	phase complex128
	suit  string
	union struct{ S shape }
	onlyP struct{}
	pipe  chan int
	boxes struct {
		S *suit
		B shape `json:"🙂"`
	}
)

// A phase is read from a text, as a suit is, of which "" and "0" are none.
func (phase) MarshalText() ([]byte, error)   { return []byte("1"), nil }
func (*phase) UnmarshalText([]byte) error    { return nil }
func (s suit) MarshalText() ([]byte, error)  { return []byte(s), nil }
func (s *suit) UnmarshalText(b []byte) error { return fmt.Errorf("%s is no suit", b) }

// A union says itself what it cannot decode.
func (u *union) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, &u.S) }

// An onlyP is written as a text where it is no key, a pipe nowhere.
func (*onlyP) MarshalText() ([]byte, error) { return nil, nil }
func (*onlyP) UnmarshalText([]byte) error   { return nil }
func (*pipe) UnmarshalJSON([]byte) error    { return nil }

func (o *own) UnmarshalJSON([]byte) error  { panic("not this") }
func (o own) MarshalJSON() ([]byte, error) { return []byte("1"), nil }

// What cannot be decoded is found wherever it is, and named.
func TestProbe_finds(t *testing.T) {
	for want, v := range map[string]any{
		"it is jsoncodec.shape (an interface)":                       new(shape),
		"it is error (an interface)":                                 new(error),
		"an element is fmt.Stringer (an interface)":                  new([]fmt.Stringer),
		"field Of is jsoncodec.shape (an interface)":                 new(side),
		"field Sides.Of is jsoncodec.shape":                          new(deep),
		"field At is jsoncodec.shape":                                new(badLoop),
		"an element is jsoncodec.shape":                              new(map[string]*[2]**shape),
		"field Of is jsoncodec.shape (an interface), which cannot":   new(embeds),
		"field Of is jsoncodec.shape (an interface), which cannot b": new(embedsP),
		"field C is chan int (chan)":                                 new([]struct{ C chan int }),
		"field F is func()":                                          &struct{ F **func() }{},
		"field Z is complex128":                                      new(map[string]struct{ Z complex128 }),
		"cannot set embedded pointer":                                new(unset),
		"field M is map[jsoncodec.concealed]int, whose keys":         &struct{ M *map[concealed]int }{},
		"field B is jsoncodec.shape":                                 new(boxes),
		"field K is jsoncodec.shape":                                 &struct{ K *map[suit][]*shape }{},
		"field K is chan int (chan)":                                 &struct{ K map[suit]chan int }{},
		"field T.F is func() (func)": &struct {
			T *map[time.Time]struct{ F func() }
		}{},
		"field K is map[jsoncodec.onlyP]int, whose keys cannot be encoded": &struct{ K *map[onlyP]int }{},
		"field P is jsoncodec.pipe, which cannot be encoded":               &struct{ P []*pipe }{},
		"field X.Y.Z is jsoncodec.shape": &struct {
			X *struct {
				Y []struct {
					Z shape `json:"z,omitempty"`
				} `json:"the y"`
			} `json:"x,omitempty"`
		}{},
	} {
		t.Run(want, func(t *testing.T) {
			is := is.New(t)
			err := Probe(v)
			is.True(err != nil)
			is.True(strings.Contains(err.Error(), want)) // the place and its type
		})
	}
}

// What can be decoded, or decodes itself, is no fault.
func TestProbe_passes(t *testing.T) {
	for _, v := range []any{
		new(any), new(string), new(*string), new(bool), new(int8), new(float32), new([]byte), new(map[string]any), new(loop),
		new(time.Time), new(netip.Addr), new(json.RawMessage), new(json.Number), new(owns), new(texts), new(embeddedOK), new(struct{}),
		new([]phase), new(map[phase]*phase), new(map[suit]any), new(map[suit][]*loop), new(union), new([]*union), &struct{ U union }{},
		&struct {
			T    time.Time
			P    *time.Duration
			skip shape
			No   shape `json:"-"`
			S    int   `json:",string"`
		}{},
	} {
		t.Run(fmt.Sprintf("%T", v), func(t *testing.T) {
			is := is.New(t)
			is.NoErr(Probe(v))
		})
	}
}

// What is not UTF-8 would arrive as something else.
func TestAppendText(t *testing.T) {
	bad, ok := "a\xffb", "�\\ufffd \u2028"
	named := struct{ S string }{bad}
	for name, v := range map[string]any{
		"string": &bad, "field": &struct{ S string }{bad}, "behind a pointer": &struct{ S **struct{ S string } }{ptr(&named)},
		"key": &map[string]int{bad: 1}, "two keys": &map[string]int{"\xff": 1, "\xfe": 2}, "item": &[]string{ok, bad},
		"any": ptr[any](map[string]any{"x": []any{bad}}), "with a time": &struct {
			At time.Time
			S  string
		}{S: bad}, "behind a backslash": &[]string{`\\` + bad},
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			_, err := AppendText(nil, v)
			is.True(err == errText)
		})
	}
	for name, v := range map[string]any{
		"string": &ok, "field": &struct{ S string }{ok}, "item": &[]string{ok, `\ufffd`, `\\ufffd`}, "key": &map[string]int{ok: 1},
		"bytes": &[]byte{0xff}, "raw": &struct{ R json.RawMessage }{json.RawMessage(`"\ufffd"`)},
	} {
		t.Run("fits/"+name, func(t *testing.T) {
			is := is.New(t)
			_, err := AppendText(nil, v)
			is.NoErr(err)
		})
	}
}

func ptr[T any](v T) *T { return &v }
