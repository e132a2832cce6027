package schema_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/schema"
)

// prints are those of a document with names and their fingerprints.
func prints(t *testing.T, sums map[string]string) *schema.Prints {
	t.Helper()
	var methods []string
	for name, sum := range sums {
		methods = append(methods, fmt.Sprintf(`{"name":%q,"x-typedrpc":{"fingerprint":%q}}`, name, sum))
	}
	s, err := schema.Parse([]byte(`{"methods":[` + strings.Join(methods, ",") + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Prints()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPrints(t *testing.T) {
	is := is.New(t)
	near := prints(t, map[string]string{"same": "01020304", "other": "01020304", "another": "ffffffff", "near": "01020304"})
	far := prints(t, map[string]string{"same": "01020304", "other": "01120304", "another": "00000000", "far": "01020304"})
	d := far.Differ(near.Offer())
	is.Equal(d.Names, []string{"another", "other"}) // and not what only one of them has
	is.Equal(d.Count, 2)
	is.Equal(near.Differ(d.Answer).Names, []string{"another", "other"}) // the client knows them as well
	is.Equal(near.Differ(near.Offer()), schema.Difference{})

	var none *schema.Prints
	is.Equal(none.Offer(), "")
	is.Equal(none.Differ(near.Offer()).Count, 0)
	is.Equal(near.Differ("").Count, 0)
	is.Equal(prints(t, nil).Offer(), "") // a document without fingerprints
}

// What a peer sends may be anything.
func TestPrints_hostile(t *testing.T) {
	is := is.New(t)
	many := map[string]string{}
	for i := range 5000 {
		many[fmt.Sprint("name", i)] = "01020304"
	}
	near := prints(t, many)
	is.True(len(near.Offer()) <= 22<<10) // below what a HELLO may have
	for name := range many {
		many[name] = "ffffffff"
	}
	d := prints(t, many).Differ(near.Offer())
	is.Equal(d.Count, schema.MaxPrints)
	is.Equal(len(d.Names), 16)
	is.True(len(d.Answer) <= 3<<10) // nor does a WELCOME grow

	few := prints(t, map[string]string{"a": "01020304"})
	offer := few.Offer()
	for _, bad := range []string{"!", offer[:5], offer + "A", strings.Repeat("A", 1<<16), strings.Repeat(offer, 100), "\x00"} {
		is.True(few.Differ(bad).Count <= 1)
	}
	others := prints(t, map[string]string{"a": "ffffffff"}).Offer()
	is.Equal(few.Differ(others).Count, 1)

	s, err := schema.Parse([]byte(`{"methods":[{"name":"a","x-typedrpc":{"fingerprint":"xyz"}}]}`))
	is.NoErr(err)
	_, err = s.Prints()
	is.Equal(err.Error(), `has a fingerprint of "a" that is none`)
}

func FuzzDiffer(f *testing.F) {
	f.Add("")
	f.Add("AAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, peer string) {
		p := prints(t, map[string]string{"a": "01020304", "b": "01020304"})
		if d := p.Differ(peer); d.Count > 2 || len(d.Names) != d.Count {
			t.Errorf("%+v", d)
		}
	})
}
