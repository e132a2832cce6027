package bench

import (
	stdjson "encoding/json"
	"fmt"
	"testing"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	goccy "github.com/goccy/go-json"
	"github.com/mailru/easyjson"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/bench/easy"
	"github.com/typedrpc/typedrpc/cmd/typedrpc/bench/generated"
	"github.com/typedrpc/typedrpc/cmd/typedrpc/bench/plain"
)

// typed is a message with the methods of typedrpc json.
type typed interface {
	AppendJSON([]byte) ([]byte, error)
	UnmarshalJSON([]byte) error
}

// A size is a message, in the forms that the libraries want.
type size struct {
	name  string
	plain any
	easy  func() any // easyjson.Marshaler and easyjson.Unmarshaler
	typed func() typed
	again func() any
}

func order(i int) plain.Order {
	coupon := "SPRING"
	o := plain.Order{
		ID: int64(1000 + i), Number: fmt.Sprintf("2026-%06d", i), Customer: plain.Customer{ID: 17, Name: "Ada Lovelace", Email: "ada@example.com"},
		Tags: []string{"gift", "express"}, Codes: []int{1, 20, 300, 4000}, Total: 123.45, Tax: 19.7, Currency: "EUR", Paid: true,
		Created: time.Date(2026, 12, 1, 8, 30, 15, 0, time.UTC), Weight: 1200, Parcels: 2, Comment: "please ring \"twice\"", Coupon: &coupon,
		Warehouse: "north", Priority: 3, Channel: "web", Version: 12,
	}
	for n := range 4 {
		o.Lines = append(o.Lines, plain.Line{Article: fmt.Sprintf("article %d", n), Quantity: n + 1, Price: 9.99 * float64(n+1), Options: []int{n, 7}})
	}
	return o
}

func sizes() []size {
	page := plain.Page{Next: "cursor"}
	for i := range 97 {
		page.Orders = append(page.Orders, order(i))
	}
	medium := order(1)
	return []size{
		{"request", &plain.Request{A: 123456, B: -42, Tag: "0123456789abcdef"}, func() any { return new(easy.Request) }, func() typed { return new(generated.Request) }, func() any { return new(plain.Request) }},
		{"response", &plain.Response{Sum: 123414, Text: "0123456789abcdef0123456789abcdef"}, func() any { return new(easy.Response) }, func() typed { return new(generated.Response) }, func() any { return new(plain.Response) }},
		{"medium", &medium, func() any { return new(easy.Order) }, func() typed { return new(generated.Order) }, func() any { return new(plain.Order) }},
		{"64KiB", &page, func() any { return new(easy.Page) }, func() typed { return new(generated.Page) }, func() any { return new(plain.Page) }},
	}
}

func BenchmarkEncode(b *testing.B) {
	for _, s := range sizes() {
		data, err := stdjson.Marshal(s.plain)
		if err != nil {
			b.Fatal(err)
		}
		t, e := s.typed(), s.easy()
		if err := t.UnmarshalJSON(data); err != nil {
			b.Fatal(err)
		}
		if err := easyjson.Unmarshal(data, e.(easyjson.Unmarshaler)); err != nil {
			b.Fatal(err)
		}
		var buffer []byte
		for _, by := range []struct {
			name string
			do   func() ([]byte, error)
		}{
			{"typedrpc", func() ([]byte, error) { var err error; buffer, err = t.AppendJSON(buffer[:0]); return buffer, err }},
			{"typedrpc-new", func() ([]byte, error) { return t.AppendJSON(nil) }},
			{"easyjson", func() ([]byte, error) { return easyjson.Marshal(e.(easyjson.Marshaler)) }},
			{"encoding-json", func() ([]byte, error) { return stdjson.Marshal(s.plain) }},
			{"json-v2", func() ([]byte, error) { return jsonv2.Marshal(s.plain) }},
			{"goccy", func() ([]byte, error) { return goccy.Marshal(s.plain) }},
		} {
			b.Run("size="+s.name+"/by="+by.name, func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(data)))
				for b.Loop() {
					if _, err := by.do(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, s := range sizes() {
		data, err := stdjson.Marshal(s.plain)
		if err != nil {
			b.Fatal(err)
		}
		for _, by := range []struct {
			name string
			do   func() error
		}{
			{"typedrpc", func() error { return s.typed().UnmarshalJSON(data) }},
			{"easyjson", func() error { return easyjson.Unmarshal(data, s.easy().(easyjson.Unmarshaler)) }},
			{"encoding-json", func() error { return stdjson.Unmarshal(data, s.again()) }},
			{"json-v2", func() error { return jsonv2.Unmarshal(data, s.again()) }},
			{"goccy", func() error { return goccy.Unmarshal(data, s.again()) }},
		} {
			b.Run("size="+s.name+"/by="+by.name, func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(data)))
				for b.Loop() {
					if err := by.do(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// TestSame has all libraries of the benchmarks say the same.
func TestSame(t *testing.T) {
	for _, s := range sizes() {
		want, err := stdjson.Marshal(s.plain)
		if err != nil {
			t.Fatal(err)
		}
		m, e, again := s.typed(), s.easy(), s.again()
		for name, do := range map[string]func() ([]byte, error){
			"typedrpc": func() ([]byte, error) {
				if err := m.UnmarshalJSON(want); err != nil {
					return nil, err
				}
				return m.AppendJSON(nil)
			},
			"easyjson": func() ([]byte, error) {
				if err := easyjson.Unmarshal(want, e.(easyjson.Unmarshaler)); err != nil {
					return nil, err
				}
				return easyjson.Marshal(e.(easyjson.Marshaler))
			},
			"goccy": func() ([]byte, error) {
				if err := goccy.Unmarshal(want, again); err != nil {
					return nil, err
				}
				return goccy.Marshal(again)
			},
		} {
			if got, err := do(); err != nil || string(got) != string(want) {
				t.Errorf("%s, %s: %s, %v", s.name, name, got, err)
			}
		}
	}
	if data, _ := stdjson.Marshal(sizes()[3].plain); len(data) < 63<<10 || len(data) > 66<<10 {
		t.Errorf("the large message has %d bytes", len(data))
	}
}
