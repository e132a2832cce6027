package server

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/testkit"
)

func listed(subject string) *Accepted {
	a := &Accepted{conn: new(engine.Conn)}
	a.identity.Store(&Identity{Subject: subject})
	a.open.Store(true)
	return a
}

// The lists have what a walk over all finds, whatever comes and goes.
func TestSubjects(t *testing.T) {
	is := is.New(t)
	s := subjects{}
	all := map[*Accepted]bool{}
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		if len(all) == 0 || r.IntN(5) < 3 {
			a := listed(fmt.Sprint(r.IntN(7)))
			s.add(a)
			all[a] = true
		} else {
			for a := range all { // any
				s.remove(a)
				delete(all, a)
				break
			}
		}
		name := fmt.Sprint(r.IntN(7))
		want := map[*Accepted]bool{}
		for a := range all {
			if a.Identity().Subject == name {
				want[a] = true
			}
		}
		got := s.of(name)
		is.Equal(len(got), len(want))
		for _, a := range got {
			is.True(want[a])
		}
	}
	for a := range all {
		s.remove(a)
	}
	is.Equal(len(s), 0) // nothing is left of a subject without connections
}

// What was never listed takes nobody else off.
func TestServer_ConnsOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		s, _ := echoServer(t, func(o *Options) {
			o.Authenticate = func(_ context.Context, _ *http.Request, raw []byte, _ int) (Identity, []byte, error) {
				return Identity{Subject: string(raw)}, nil, nil
			}
		})
		var peers []*testkit.Peer
		for i, who := range []string{"", "ann", "bob", "ann", ""} {
			h := testkit.HelloOf(uint64(i + 1))
			h.Credentials = []byte(who)
			if who != "" {
				h.Credentials = []byte(`"` + who + `"`)
			}
			p, _ := join(t, s, h)
			peers = append(peers, p)
		}
		count := func() (n []int) {
			for _, who := range []string{"", `"ann"`, `"bob"`, `"eve"`} {
				n = append(n, len(s.ConnsOf(who)))
			}
			return n
		}
		is.Equal(count(), []int{2, 2, 1, 0})
		for _, c := range s.ConnsOf(`"ann"`) {
			is.True(slices.Contains(s.Conns(), c))
		}
		peers[1].T.Close(session.CloseDone, "")
		synctest.Wait()
		is.Equal(count(), []int{2, 1, 1, 0})
		is.Equal(s.Revoke(`"ann"`, nil), 1)
		synctest.Wait()
		is.Equal(count(), []int{2, 0, 1, 0})
		is.NoErr(s.Shutdown(t.Context()))
		is.Equal(len(s.subjects), 0)
	})
}

func BenchmarkServer_ConnsOf(b *testing.B) {
	for _, all := range []int{100, 100_000} {
		b.Run(fmt.Sprint(all), func(b *testing.B) {
			s := &Server{accepted: map[*Accepted]struct{}{}, subjects: subjects{}}
			for i := range all {
				a := listed(fmt.Sprint("user", i/2))
				s.accepted[a] = struct{}{}
				s.subjects.add(a)
			}
			b.ReportAllocs()
			for b.Loop() {
				if len(s.ConnsOf("user25")) != 2 {
					b.Fatal("not two")
				}
			}
		})
	}
}
