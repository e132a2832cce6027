package hub

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/testkit"
)

// chorus is a crowd whose members something is said of, at this hub and another.
type chorus struct {
	*crowd
	other map[string]said // the other hub's members
	knows map[*onlooker]map[string]string
}

func newChorus() *chorus {
	return &chorus{newCrowd(), map[string]said{}, map[*onlooker]map[string]string{}}
}

// here reports whether any hub has a subject.
func (c *chorus) present(who string) bool {
	_, elsewhere := c.other[who]
	return c.here.of(who) > 0 || elsewhere
}

// happens changes something of a subject.
func (c *chorus) happens(rng *rand.Rand, who string, at int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := fmt.Sprint("says ", rng.IntN(4))
	if rng.IntN(4) == 0 {
		text = ""
	}
	switch n := rng.IntN(10); {
	case n < 3 && c.here.of(who) > 0:
		c.presentLocked(who, -1)
	case n < 3:
		if text != "" {
			c.sayLocked(who, text)
		}
		c.presentLocked(who, 1)
	case n < 6 && c.here.of(who) > 0:
		c.sayLocked(who, text)
	case c.nodes == nil:
	case n < 7:
		delete(c.other, who)
		c.hears(&notice{Node: "other", Leave: []string{who}})
	case n < 9:
		c.other[who] = said{text, at}
		c.hears(&notice{Node: "other", Join: []string{who}, About: map[string]said{who: c.other[who]}})
	default: // as it is said again every ten seconds
		m := notice{Node: "other", All: true, End: true, About: c.other}
		for who := range c.other {
			m.Join = append(m.Join, who)
		}
		c.hears(&m)
	}
}

func (c *chorus) hears(m *notice) {
	n := c.nodes[m.Node]
	if n == nil {
		n = &node{members: map[string]said{}}
		c.nodes[m.Node] = n
	}
	c.updateLocked(n, m)
}

// tell tells w one thing more, of what it may be told.
func (c *chorus) tell(t *testing.T, w *onlooker) bool {
	m, ok := c.next(w)
	if !ok {
		return false
	}
	knows := c.knows[w]
	_, has := knows[m.subject]
	switch {
	case m.left, m.changed:
		if !has {
			t.Fatalf("%+v of one that it was not told of", m)
		}
	case has:
		t.Fatalf("%+v of one that it was told of", m)
	}
	if delete(knows, m.subject); !m.left {
		knows[m.subject] = m.about
	}
	return true
}

// Whatever is said of whom, and however far behind each is: in the end everybody
// knows who is there, and what is said of each now; and nobody is told that somebody
// changed whom it was not told of.
func TestAbout_random(t *testing.T) {
	for seed := range uint64(testkit.Size(400, 60)) {
		is := is.New(t)
		rng := rand.New(rand.NewPCG(seed, 7))
		c := newChorus()
		names := 1 + rng.IntN(40)
		var all []*onlooker
		watch := func() {
			w := c.join(is)
			c.knows[w] = map[string]string{}
			all = append(all, w)
		}
		watch()
		if seed%2 == 0 {
			c.nodes = map[string]*node{} // it shares a broker
		}
		for at := range int64(2000) {
			switch n := rng.IntN(100); {
			case n < 55:
				c.happens(rng, fmt.Sprint(rng.IntN(names)), at)
			case n < 57 && len(all) < 8:
				watch()
			case n < 58 && len(all) > 1:
				i := rng.IntN(len(all))
				c.lookAway(all[i])
				all = slices.Delete(all, i, i+1)
			default:
				i := rng.IntN(len(all))
				c.tell(t, all[min(i, rng.IntN(len(all)))])
			}
			if most := 2 * max(logLeast, 2*c.peak); len(c.log) > most {
				t.Fatalf("seed %d: the log has %d changes", seed, len(c.log))
			}
		}
		for _, w := range all {
			is.True(!w.over)
			for c.tell(t, w) {
			}
			for i := range names {
				who := fmt.Sprint(i)
				about, has := c.knows[w][who]
				c.mu.Lock()
				want := c.saidLocked(who).Text
				c.mu.Unlock()
				if is.Equal(has, c.present(who)); has && about != want {
					t.Fatalf("seed %d: %s is known as %q, it is %q", seed, who, about, want)
				}
			}
			is.Equal(len(w.skip), 0) // nothing is skipped that does not come
		}
		c.mu.Lock()
		c.foldLocked()
		is.Equal(len(c.log), 0) // nobody is behind
		is.True(c.again == nil)
		c.mu.Unlock()
	}
}

// One who is told everything at once is told each thing once.
func TestAbout_once(t *testing.T) {
	is := is.New(t)
	c := newChorus()
	w := c.join(is)
	c.knows[w] = map[string]string{}
	told := func() (all []member) {
		for {
			m, ok := c.next(w)
			if !ok {
				return all
			}
			all = append(all, m)
		}
	}
	is.Equal(len(told()), 0)
	do := func(f func()) []member {
		c.mu.Lock()
		f()
		c.mu.Unlock()
		return told()
	}
	come := func(about string) func() {
		return func() {
			if about != "" {
				c.sayLocked("ann", about)
			}
			c.presentLocked("ann", 1)
		}
	}
	leave := func() { c.presentLocked("ann", -1) }
	is.Equal(do(come("Ann")), []member{{subject: "ann", about: "Ann"}})
	is.Equal(len(do(come("Ann"))), 0)
	is.Equal(len(do(come(""))), 0) // which says nothing
	is.Equal(do(come("Ann, away")), []member{{subject: "ann", about: "Ann, away", changed: true}})
	for range 3 {
		is.Equal(len(do(leave)), 0) // what was said last stays
	}
	is.Equal(do(func() { c.sayLocked("ann", "") }), []member{{subject: "ann", changed: true}})
	is.Equal(do(leave), []member{{subject: "ann", left: true}})
	is.Equal(len(c.said), 0)
	is.Equal(do(come("")), []member{{subject: "ann"}}) // and is forgotten with the last
}

// However many statuses nobody reads, one for each member waits.
func TestAbout_bounded(t *testing.T) {
	is := is.New(t)
	c := newChorus()
	slow := c.join(is)
	c.knows[slow] = map[string]string{}
	c.mu.Lock()
	for i := range 50 {
		c.presentLocked(fmt.Sprint(i), 1)
	}
	c.mu.Unlock()
	for c.tell(t, slow) {
	}
	for i := range 100_000 {
		c.mu.Lock()
		c.sayLocked(fmt.Sprint(i%50), fmt.Sprint("status ", i))
		c.mu.Unlock()
		if len(c.log) > 4*50 {
			t.Fatalf("the log has %d changes", len(c.log))
		}
	}
	n := 0
	for c.tell(t, slow) {
		n++
	}
	is.Equal(n, 50)
	is.True(!slow.over)
	is.Equal(c.knows[slow]["49"], "status 99999")
}

func TestAbout_text(t *testing.T) {
	is := is.New(t)
	for text, m := range map[string]member{
		"+ann":               {subject: "ann"},
		"+":                  {},
		"-ann":               {subject: "ann", left: true},
		"*3:annAnn Lee":      {subject: "ann", about: "Ann Lee"},
		"*0:nobody":          {about: "nobody"},
		"*4:a:b:c":           {subject: "a:b:", about: "c"},
		"=3:ann":             {subject: "ann", changed: true},
		"=5:\u00e4nne\u00c4": {subject: "\u00e4nne", about: "\u00c4", changed: true},
	} {
		is.Equal(m.text(), text)
		got, ok := ReadTold(text)
		is.True(ok)
		is.Equal(got, Told{Subject: m.subject, About: m.about, Left: m.left, Changed: m.changed})
	}
	for _, text := range []string{"", "ann", "*", "*3ann", "*:ann", "*4:ann", "*-1:ann", "*99999999999999999999:ann", "=x:ann"} {
		_, ok := ReadTold(text)
		is.True(!ok) // text
	}
	is.True(CheckAbout(strings.Repeat("x", 255)) == nil)
	is.Equal(codeOf(CheckAbout(strings.Repeat("x", 256))), status.InvalidArgument)
	is.Equal(codeOf(CheckAbout("\xff")), status.InvalidArgument)
	is.Equal((&notice{About: map[string]said{"a": {strings.Repeat("x", 256), 1}}}).about("a"), said{}) // nor from others
}
