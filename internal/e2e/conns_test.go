package e2e_test

import (
	"maps"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// ConnsOf are those of its subjects and nobody else's, each once, and of no subjects nobody's: a list
// of recipients may turn out empty.
func TestConnsOf_subjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		srv, w := house(lab.New().Mux)
		subjects := func(of ...string) map[string]int {
			had, n := map[*typedrpc.Conn]bool{}, map[string]int{}
			for c := range srv.ConnsOf(of...) {
				is.True(!had[c]) // no connection comes twice
				had[c] = true
				n[c.Identity().Subject]++
			}
			return n
		}
		is.Equal(len(subjects()), 0)
		is.Equal(len(subjects("ann", "")), 0)
		var all []*typedrpc.Conn
		for _, name := range []string{"ann", "bob", "ann", "", "eve", "", ""} {
			c := w.Dial(t, visitor(typedrpc.Binary, name))
			defer c.Close()
			all = append(all, c)
		}
		synctest.Wait()
		is.Equal(len(slices.Collect(srv.Conns())), 7)
		for _, tt := range []struct {
			of   []string
			want map[string]int
		}{
			{nil, nil},
			{[]string{}, nil},
			{[]string{"ann"}, map[string]int{"ann": 2}},
			{[]string{""}, map[string]int{"": 3}},
			{[]string{"nobody"}, nil},
			{[]string{"bob", "ann"}, map[string]int{"ann": 2, "bob": 1}},
			{[]string{"ann", "nobody", "ann", "", "ann", ""}, map[string]int{"": 3, "ann": 2}},
		} {
			is.True(maps.Equal(subjects(tt.of...), tt.want))
		}
		for range srv.ConnsOf("ann", "bob") {
			break // nothing comes behind it
		}

		// They are those that there are when the loop begins, and each loop asks anew.
		list := []string{"ann", "bob"}
		loop := srv.ConnsOf(list...)
		list[0] = "eve" // the list is the program's again
		all[0].Close()
		synctest.Wait()
		for range 2 {
			got := slices.Sorted(func(yield func(string) bool) {
				for c := range loop {
					if !yield(c.Identity().Subject) {
						return
					}
				}
			})
			is.Equal(got, []string{"ann", "bob"})
		}
		is.Equal(srv.Revoke("bob", &typedrpc.CloseOptions{StayAway: true}), 1)
		synctest.Wait()
		is.True(maps.Equal(subjects("bob", "ann"), map[string]int{"ann": 1}))
	})
}
