package storm_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/topic"
)

// forum is a model of topics: what is published, who subscribes and who looks on, at one hub
// or at several that share a broker; and beside them what each of them must be given.
type forum struct {
	t      *testing.T
	broker *forumBroker // nil: the only hub is alone
	sites  []*forumSite
	topics []forumTopic
	guests []*guest

	mu      sync.Mutex
	rng     *rand.Rand
	tight   bool // hubs forget
	hurry   bool // nobody is slow any more
	ids     int
	sizes   map[int]int         // by id, of a message
	at      map[forumKey][]int  // by key, the ids in the order of their publication
	pos     map[int]int         // by id, its index there
	when    map[int]time.Time   // by id, when it was published
	abouts  map[forumAbout]bool // what was said
	readers []*forumReader
	lookers []*forumLooker
	wrong   []string
}

type forumTopic struct {
	topic.Topic[string]
	traits                   []topic.Trait
	last                     int           // History
	recent                   time.Duration // History
	ends, presence, restarts bool
}

// forumKey is a key of a topic.
type forumKey struct {
	topic int
	key   string
}

// forumAbout is something that was said of somebody who was there.
type forumAbout struct {
	site *forumSite
	forumKey
	who, text string
}

// forumSite is a hub with a server.
type forumSite struct {
	hub   *topic.Hub
	srv   *typedrpc.Server
	town  *lab.Town
	line  *forumLine // nil: there is no broker
	lossy bool       // its line was lost once
}

// guest is a client.
type guest struct {
	site    *forumSite
	subject string
	conn    *typedrpc.Conn
	resumes bool
}

// stay is what readers and lookers have in common. Its fields are under forum.mu.
type stay struct {
	forumKey
	site    *forumSite
	guest   *guest // nil: it listens in the process
	cancel  context.CancelFunc
	began   time.Time // or began again
	lost    bool      // with its session, and it may not know yet
	gaps    bool      // that happened to it
	removed bool
	told    bool // that it was removed, unless its session was lost before
	over    bool
	left    bool // by itself
	err     error
}

type forumReader struct {
	stay
	lo, hi  int // what was published when it began, and when it had begun for sure; hi -1: not known
	fresh   bool
	again   bool // it began again after a gap
	live    bool // it was given something that is no history
	prev    int
	history int
}

type forumLooker struct {
	stay
	there map[string]string
}

var errForumGone = &typedrpc.Error{Code: typedrpc.PermissionDenied, Message: "not here"}

// picky is a codec that cannot carry everything.
type picky struct{ plainCodec }

func (picky) Name() string { return "picky" }

func (picky) Append(dst []byte, v any) ([]byte, error) {
	if s, ok := v.(*string); ok && strings.HasSuffix(*s, "bad") {
		return dst, errors.New("bad")
	}
	return plainCodec{}.Append(dst, v)
}

func (f *forum) fail(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failLocked(format, args...)
}

func (f *forum) failLocked(format string, args ...any) {
	if len(f.wrong) < 10 {
		f.wrong = append(f.wrong, fmt.Sprintf(format, args...))
	}
}

func (f *forum) pick(n int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rng.IntN(n)
}

func (f *forum) place() forumKey {
	return forumKey{f.pick(len(f.topics)), []string{"a", "", "b"}[f.pick(3)]}
}

func newForum(t *testing.T, seed uint64) *forum {
	f := &forum{t: t, rng: rand.New(rand.NewPCG(seed, 5)), sizes: map[int]int{}, at: map[forumKey][]int{}, pos: map[int]int{}, when: map[int]time.Time{}, abouts: map[forumAbout]bool{}, tight: seed%7 == 6}
	few := topic.MaxQueued(1 + f.rng.IntN(3000))
	for i, o := range []forumTopic{
		{traits: []topic.Trait{topic.LatestOnly}},
		{traits: []topic.Trait{topic.LatestOnly}, last: 3},
		{traits: []topic.Trait{topic.DropOldest, few}, presence: true},
		{traits: []topic.Trait{topic.DropNewest, few}, last: 2, presence: true, restarts: true},
		{traits: []topic.Trait{topic.DropOldest}, last: 1 + f.rng.IntN(20), restarts: true},
		{traits: []topic.Trait{topic.Disconnect, few}, last: 2, presence: true, ends: true},
		{traits: []topic.Trait{topic.WaitAtMost(time.Second), few}, ends: true},
		{traits: []topic.Trait{topic.DropOldest}, last: 30, recent: 10 * time.Second, presence: true},
	} {
		if o.last > 0 {
			o.traits = append(o.traits, topic.History(o.last, o.recent))
		}
		if o.presence {
			o.traits = append(o.traits, topic.WithPresence)
		}
		if o.restarts {
			o.traits = append(o.traits, topic.Restartable)
		}
		o.Topic = topic.New[string](fmt.Sprint("forum.", i), o.traits...)
		f.topics = append(f.topics, o)
	}
	sites := 1
	if seed%3 == 2 {
		f.broker, sites = &forumBroker{f: f}, 1+f.rng.IntN(3)
	}
	for range sites {
		f.sites = append(f.sites, f.open(seed))
	}
	for range 2 + f.rng.IntN(6) {
		f.guests = append(f.guests, f.arrive())
	}
	return f
}

// open makes a hub and its server.
func (f *forum) open(seed uint64) *forumSite {
	s := &forumSite{hub: &topic.Hub{}}
	if f.tight {
		s.hub.MaxKeyHistory, s.hub.MaxIdleKeys, s.hub.MaxHistory = 2000, 2, 20_000
	}
	if f.broker != nil {
		s.line = &forumLine{b: f.broker, site: s}
		s.hub.Broker = s.line
	}
	if seed%5 == 4 {
		s.hub.Codec = plainCodec{}
	}
	s.srv = lab.TopicServer(func(m *typedrpc.Mux) {
		if seed%4 == 3 { // who sees items makes their handlers wait
			m = m.Group(func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
				r.OnItem(func(typedrpc.Raw, bool) error { return nil })
				return next(ctx, r)
			})
		}
		for i, tp := range f.topics {
			topic.Handle(m, s.hub, tp.Topic, func(ctx context.Context, a topic.Access) error {
				if f.pick(3) > 0 {
					return nil
				}
				f.mu.Lock()
				defer f.mu.Unlock()
				text := fmt.Sprint("intro ", f.rng.IntN(5))
				f.abouts[forumAbout{s, forumKey{i, a.Key}, typedrpc.ConnFrom(ctx).Identity().Subject, text}] = true
				return topic.Introduce(ctx, text)
			})
		}
	}, typedrpc.JSON, plainCodec{}, picky{})
	s.srv.Limits = typedrpc.Limits{Grace: time.Hour, MinRate: -1}
	s.town = &lab.Town{Srv: s.srv}
	return s
}

var forumSubjects = []string{"ann", "bob", "cy", ""}

// arrive makes a client.
func (f *forum) arrive() *guest {
	g := &guest{site: f.sites[f.pick(len(f.sites))], subject: forumSubjects[f.pick(len(forumSubjects))]}
	buffered := 4000 + f.pick([]int{3000, 60_000, 1_000_000}[f.pick(3)])
	o := typedrpc.DialOptions{Backoff: lab.Steady, Limits: typedrpc.Limits{
		Window: 80 + f.pick([]int{500, 5000, 100_000}[f.pick(3)]), MaxBuffered: buffered, MaxMessage: 600 + f.pick(4000), MinRate: -1,
	}}
	o.Dialect = []typedrpc.Dialect{typedrpc.Binary, typedrpc.Binary, typedrpc.Text}[f.pick(3)]
	if o.Dialect == typedrpc.Binary {
		o.Codecs = [][]typedrpc.Codec{nil, {plainCodec{}}, {picky{}}}[f.pick(3)]
	}
	if g.resumes = f.pick(3) > 0; g.resumes {
		o.Limits.Grace = time.Hour
	}
	o.SignIn = lab.TopicLogin.Present(func(context.Context) (string, error) { return g.subject, nil })
	o.OnState = func(s typedrpc.StateChange) {
		if s.State != typedrpc.StateConnected && !g.resumes {
			f.lose(g)
		}
	}
	g.conn = g.site.town.Dial(f.t, &o)
	return g
}

// lose notes that a guest's session is over.
func (f *forum) lose(g *guest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.staysLocked() {
		if s.guest == g {
			s.lost, s.gaps = true, true
		}
	}
}

func (f *forum) staysLocked() []*stay {
	var all []*stay
	for _, r := range f.readers {
		all = append(all, &r.stay)
	}
	for _, l := range f.lookers {
		all = append(all, &l.stay)
	}
	return all
}

// publishedLocked notes a message, which is in its place from now on.
func (f *forum) publishedLocked(k forumKey, id int) {
	f.pos[id], f.when[id] = len(f.at[k]), time.Now()
	f.at[k] = append(f.at[k], id)
}

// publish publishes something. Where there is a broker it may fail.
func (f *forum) publish(s *forumSite, k forumKey, most int) {
	f.mu.Lock()
	f.ids++
	id := f.ids
	value := fmt.Sprintf("%08d%s", id, testkit.Letters(f.rng.IntN(most)))
	if most > 1 && f.rng.IntN(10) == 0 {
		value += "bad"
	}
	f.sizes[id] = len(value)
	if f.broker == nil {
		f.publishedLocked(k, id)
	}
	f.mu.Unlock()
	err := topic.Publish(f.t.Context(), s.hub, f.topics[k.topic].Topic, k.key, value)
	if err != nil && f.broker == nil {
		f.fail("publishing failed: %v", err)
	}
}

// begin makes a stay that readers or lookers share.
func (f *forum) begin(k forumKey, listens bool) (stay, context.Context) {
	s := stay{forumKey: k, began: time.Now()}
	if listens {
		s.site = f.sites[f.pick(len(f.sites))]
	} else {
		s.guest = f.guests[f.pick(len(f.guests))]
		s.site = s.guest.site
	}
	ctx, cancel := context.WithCancel(f.t.Context())
	s.cancel = cancel
	return s, ctx
}

// read subscribes, and returns when the subscription is over.
func (f *forum) read(r *forumReader, ctx context.Context, leaves int) {
	tp := f.topics[r.topic]
	slow := f.pick(3)
	seq := topic.Listen(ctx, r.site.hub, tp.Topic, r.key)
	if r.guest != nil {
		seq = topic.Subscribe(ctx, r.guest.conn, tp.Topic, r.key)
	}
	var last error
	for e, err := range seq {
		if last = err; err != nil {
			if tp.restarts && errors.Is(err, typedrpc.Gap) {
				f.mu.Lock()
				r.lost, r.removed, r.began, r.fresh, r.again, r.live, r.history = false, false, time.Now(), true, true, false, 0
				r.hi = -1
				f.mu.Unlock()
			}
			continue
		}
		f.mu.Lock()
		f.gotLocked(r, e)
		hurry := f.hurry
		f.mu.Unlock()
		if slow > 0 && !hurry && f.pick(4/slow) == 0 {
			time.Sleep(time.Duration(f.pick(3000*slow)) * time.Millisecond)
		}
		if leaves--; leaves == 0 {
			f.mu.Lock()
			r.left = true
			f.mu.Unlock()
			break
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r.over, r.err = true, last
}

// gotLocked checks what a reader is given.
func (f *forum) gotLocked(r *forumReader, e topic.Event[string]) {
	id, _ := strconv.Atoi(e.Value[:8])
	pos, ok := f.pos[id]
	wrong := func(what string) {
		f.failLocked("%s: got %d (message %d of %d, Missed %d, History %v) in %+v of %+v", what, id, pos, len(f.at[r.forumKey]), e.Missed, e.History, *r, f.topics[r.topic].traits)
	}
	if !ok || f.at[r.forumKey][pos] != id || len(e.Value) != f.sizes[id] {
		wrong("not what was published there")
		return
	}
	start := pos - e.Missed
	switch {
	case r.fresh && r.again:
		if e.Missed != -1 {
			wrong("nothing said of the gap")
		}
	case e.Missed < 0:
		if !r.site.lossy || !r.fresh && pos <= r.prev {
			wrong("nothing was lost")
		}
	case !r.fresh && start != r.prev+1:
		wrong("something is missing, or there twice")
	case r.fresh && f.broker == nil && start < max(0, r.lo-f.topics[r.topic].last):
		wrong("from before the subscription")
	case r.fresh && f.broker == nil && r.hi >= 0 && !(f.tight && f.topics[r.topic].last > 0) && f.topics[r.topic].recent == 0 && start > max(0, r.hi-f.topics[r.topic].last):
		wrong("not from the beginning")
	}
	if e.History {
		r.history++
	}
	switch {
	case e.History && f.broker == nil && f.topics[r.topic].recent > 0 && r.began.Sub(f.when[id]) >= f.topics[r.topic].recent:
		wrong("too old")
	case e.History && (r.live || r.history > f.topics[r.topic].last):
		wrong("too much history")
	case f.broker != nil || r.again:
	case e.History && r.hi >= 0 && pos >= r.hi, !e.History && pos < r.lo:
		wrong("history or not")
	}
	r.live = r.live || !e.History
	r.fresh, r.prev = false, pos
}

// endedLocked checks why a stay is over.
func (f *forum) endedLocked(s *stay, what string) {
	e := func(code typedrpc.Code) bool { return errors.Is(s.err, code) }
	gap := errors.Is(s.err, typedrpc.Gap) || e(typedrpc.Unavailable) || e(typedrpc.Unauthenticated)
	switch tp := f.topics[s.topic]; {
	case s.left:
	case s.told && e(typedrpc.PermissionDenied):
	case e(typedrpc.ResourceExhausted) && (tp.ends || tp.last > 0):
	case gap && (s.gaps || f.broker != nil):
	default:
		f.failLocked("ended with %v: %s", s.err, what)
	}
}

// look watches who is there, until that is over.
func (f *forum) look(l *forumLooker, ctx context.Context) {
	tp := f.topics[l.topic]
	slow := f.pick(3)
	var last error
	for m, err := range topic.Watch(ctx, l.guest.conn, tp.Topic, l.key) {
		if last = err; err != nil {
			if tp.restarts && errors.Is(err, typedrpc.Gap) {
				f.mu.Lock()
				l.lost, l.removed, l.began, l.there = false, false, time.Now(), map[string]string{}
				f.mu.Unlock()
			}
			continue
		}
		f.mu.Lock()
		_, there := l.there[m.Subject]
		if there != (m.Left || m.Changed) {
			f.failLocked("told %+v, who was there: %v: %+v", m, there, *l)
		}
		if l.there[m.Subject] = m.About; m.Left {
			delete(l.there, m.Subject)
		}
		hurry := f.hurry
		f.mu.Unlock()
		if slow > 0 && !hurry && f.pick(4/slow) == 0 {
			time.Sleep(time.Duration(f.pick(3000*slow)) * time.Millisecond)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	l.over, l.err = true, last
}
