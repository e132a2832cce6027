package storm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/topic"
)

// Whatever is published, whoever comes, goes, is slow, is removed, or loses a link: each
// subscriber is given what was published, in order, once, and is told how much it missed;
// who looks on knows who is there; and nothing is left. A seed decides what is done, the
// scheduler the rest: one that has failed may have to run some times until it does again.
func TestTopic_model(t *testing.T) {
	for seed := range uint64(testkit.Crowd(400, 60, 15)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { newForum(t, seed).run(seed) }) })
		if t.Failed() {
			return
		}
	}
}

func (f *forum) run(seed uint64) {
	var all sync.WaitGroup
	for n := range 300 {
		f.step(&all)
		if n%25 == 24 {
			f.settle(time.Second)
			f.check()
		}
		f.mu.Lock()
		failed := len(f.wrong) > 0
		f.mu.Unlock()
		if failed {
			break
		}
	}
	f.finish(&all)
	for _, wrong := range f.wrong {
		f.t.Errorf("seed %d: %s", seed, wrong)
	}
}

func (f *forum) step(all *sync.WaitGroup) {
	site, k := f.sites[f.pick(len(f.sites))], f.place()
	tp := f.topics[k.topic].Topic
	switch n := f.pick(100); {
	case n < 50:
		for range 1 + f.pick(6) {
			f.publish(site, k, []int{50, 500, 3000, 6000}[f.pick(4)])
		}
	case n < 62:
		r := &forumReader{hi: -1, fresh: true}
		var ctx context.Context
		r.stay, ctx = f.begin(k, n < 52)
		leaves := f.pick(60) - 30
		f.mu.Lock()
		r.lo = len(f.at[k])
		f.readers = append(f.readers, r)
		f.mu.Unlock()
		all.Go(func() { f.read(r, ctx, leaves) })
	case n < 66 && f.topics[k.topic].presence:
		l := &forumLooker{there: map[string]string{}}
		var ctx context.Context
		l.stay, ctx = f.begin(k, false)
		f.mu.Lock()
		f.lookers = append(f.lookers, l)
		f.mu.Unlock()
		all.Go(func() { f.look(l, ctx) })
	case n < 73:
		f.leave()
	case n < 76:
		f.remove(site, k)
	case n < 80:
		who, about := forumSubjects[f.pick(len(forumSubjects))], fmt.Sprint("about ", f.pick(5))
		if err := topic.SetAbout(site.hub, tp, k.key, who, about); err == nil {
			f.mu.Lock()
			f.abouts[forumAbout{site, k, who, about}] = true
			f.mu.Unlock()
			if m, ok := f.members(site, k)[who]; ok && m != about {
				f.fail("%q is told about %q, not %q", m, who, about)
			}
		} else if !errors.Is(err, typedrpc.NotFound) {
			f.fail("SetAbout: %v", err)
		}
	case n < 83:
		site = f.guests[f.pick(len(f.guests))].site
		site.town.Mu.Lock()
		line := site.town.Lines[f.pick(len(site.town.Lines))]
		site.town.Mu.Unlock()
		line.Cut()
	case n < 84:
		i := f.pick(len(f.guests))
		f.settle(time.Second) // the session of one who goes without a link is kept
		f.lose(f.guests[i])
		f.guests[i].conn.Close()
		synctest.Wait() // a cut now would lose the word of it, and the session would be kept
		f.guests[i] = f.arrive()
	case n < 85:
		who := forumSubjects[f.pick(len(forumSubjects))]
		for _, g := range f.guests {
			if g.site == site && g.subject == who {
				f.lose(g)
			}
		}
		site.srv.Revoke(who, nil)
		synctest.Wait() // they know
	case n < 88 && site.line != nil:
		f.mu.Lock()
		site.lossy = true
		f.mu.Unlock()
		site.line.drop()
		time.Sleep(time.Duration(f.pick(3000)) * time.Millisecond)
		site.line.back()
	default:
		time.Sleep([]time.Duration{0, time.Millisecond, 50 * time.Millisecond, time.Second, 20 * time.Second}[f.pick(5)])
	}
}

// leave has somebody leave.
func (f *forum) leave() {
	f.mu.Lock()
	all := f.staysLocked()
	if len(all) == 0 {
		f.mu.Unlock()
		return
	}
	s := all[f.rng.IntN(len(all))]
	if s.err == nil {
		s.left = true
	}
	f.mu.Unlock()
	s.cancel()
}

// settle waits until all is quiet but readers that are slow.
func (f *forum) settle(d time.Duration) {
	for range 100 {
		time.Sleep(d)
		synctest.Wait()
		if !slices.ContainsFunc(f.guests, func(g *guest) bool { return g.conn.State() != typedrpc.StateConnected }) {
			break
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.readers {
		if r.hi < 0 && f.certainLocked(&r.stay) {
			r.hi = len(f.at[r.forumKey])
		}
	}
}

// certainLocked reports whether a stay has begun for sure, and goes on.
func (f *forum) certainLocked(s *stay) bool {
	return !s.over && !s.lost && !s.removed && !s.left && time.Since(s.began) > 500*time.Millisecond
}

func (f *forum) members(s *forumSite, k forumKey) map[string]string {
	all, err := topic.Members(s.hub, f.topics[k.topic].Topic, k.key)
	if err != nil {
		f.fail("Members: %v", err)
	}
	there := map[string]string{}
	for _, m := range all {
		there[m.Subject] = m.About
	}
	return there
}

// check compares who is there with who should be.
func (f *forum) check() {
	for _, site := range f.sites {
		for i, tp := range f.topics {
			for _, key := range []string{"a", "", "b"} {
				k := forumKey{i, key}
				there := f.members(site, k)
				f.mu.Lock()
				may := map[string]bool{}
				for _, r := range f.readers {
					if r.guest == nil || r.site != site || r.forumKey != k {
						continue
					}
					if !r.over && !r.removed {
						may[r.guest.subject] = true
					}
					if _, ok := there[r.guest.subject]; !ok && f.certainLocked(&r.stay) && !tp.ends && f.broker == nil {
						if tp.last == 0 || !r.fresh { // else its history may not fit
							f.failLocked("no member of %+v: %+v", k, *r)
						}
					}
				}
				for who, about := range there {
					if !may[who] {
						f.failLocked("%q is a member of %+v and should not be", who, k)
					}
					if about != "" && !f.abouts[forumAbout{site, k, who, about}] {
						f.failLocked("of %q in %+v nobody said %q", who, k, about)
					}
				}
				maps.DeleteFunc(f.abouts, func(a forumAbout, _ bool) bool {
					_, ok := there[a.who]
					return !ok && !may[a.who] && a.site == site && a.forumKey == k
				})
				f.mu.Unlock()
			}
		}
	}
}

// remove ends what a subject has.
func (f *forum) remove(site *forumSite, k forumKey) {
	f.settle(time.Second)
	who, tp := forumSubjects[f.pick(len(forumSubjects))], f.topics[k.topic]
	most, least := 0, 0
	f.mu.Lock()
	for _, s := range f.staysLocked() {
		if s.guest == nil || s.site != site || s.forumKey != k || s.guest.subject != who || s.over || s.removed {
			continue
		}
		if most++; f.certainLocked(s) && !tp.ends && tp.last == 0 && f.broker == nil {
			least++
		}
		if s.told = true; !s.lost {
			s.removed = true
		}
	}
	f.mu.Unlock()
	n, err := topic.Remove(site.hub, tp.Topic, k.key, who, errForumGone)
	if err != nil || n < least || n > most {
		f.fail("Remove: %d of %d to %d: %v", n, least, most, err)
	}
}

// finish has everything come to its end, and looks at what is left.
func (f *forum) finish(all *sync.WaitGroup) {
	f.mu.Lock()
	f.hurry = true
	f.mu.Unlock()
	if f.broker != nil {
		f.broker.mu.Lock()
		f.broker.calm = true
		f.broker.mu.Unlock()
	}
	time.Sleep(3 * time.Minute)
	f.settle(time.Minute)
	f.check()
	for _, site := range f.sites {
		for i := range f.topics {
			for _, key := range []string{"a", "", "b"} {
				f.publish(site, forumKey{i, key}, 1)
			}
		}
	}
	f.settle(time.Minute)
	f.arrived()
	closed := f.pick(3) == 0
	if closed {
		f.mu.Lock()
		for _, s := range f.staysLocked() {
			s.gaps = true
		}
		f.mu.Unlock()
		for _, site := range f.sites {
			f.closes(site)
		}
	} else {
		f.mu.Lock()
		stays := f.staysLocked()
		for _, s := range stays {
			s.left = s.left || !s.over
		}
		f.mu.Unlock()
		for _, s := range stays {
			s.cancel()
		}
	}
	all.Wait()
	f.settle(time.Minute)
	for _, r := range f.readers {
		f.endedLocked(&r.stay, fmt.Sprintf("%+v", *r))
	}
	for _, l := range f.lookers {
		f.endedLocked(&l.stay, fmt.Sprintf("%+v", *l))
	}
	for _, site := range f.sites {
		lab.Settled(f.t, slices.Collect(site.srv.Conns())...)
	}
	for _, g := range f.guests {
		lab.Settled(f.t, g.conn)
		g.conn.Close()
	}
	synctest.Wait()
	for _, site := range f.sites {
		if err := lab.Vacated(site.hub); err != nil {
			f.fail("left: %v", err)
		}
		if s := hook.Server(site.srv); s.Budget != 0 {
			f.fail("left: %+v", s)
		}
		if !closed {
			f.closes(site)
		}
	}
}

func (f *forum) closes(s *forumSite) {
	if err := s.hub.Close(); err != nil {
		f.fail("closing the hub: %v", err)
	}
}

// arrived checks that who is still there has the newest message, and knows who is there.
func (f *forum) arrived() {
	for _, r := range f.readers {
		if f.mu.Lock(); !r.over && !r.removed && (r.fresh || r.prev != len(f.at[r.forumKey])-1) {
			f.failLocked("of %d messages the last were not given to %+v of %+v", len(f.at[r.forumKey]), *r, f.topics[r.topic].traits)
		}
		if !r.over && r.removed {
			f.failLocked("removed, and was not told: %+v", *r)
		}
		f.mu.Unlock()
	}
	for _, l := range f.lookers {
		if l.over {
			continue
		}
		if l.removed {
			f.fail("removed, and was not told: %+v", *l)
		}
		abouts := map[string][]string{}
		for _, site := range f.sites {
			if site == l.site || site.line != nil {
				for who, about := range f.members(site, l.forumKey) {
					abouts[who] = append(abouts[who], about)
				}
			}
		}
		ok := len(abouts) == len(l.there)
		for who, about := range l.there {
			ok = ok && slices.Contains(abouts[who], about)
		}
		if !ok {
			f.fail("there is %v, and it was told %v: %+v", abouts, slices.Sorted(maps.Keys(l.there)), *l)
		}
	}
}

// forumBroker carries messages in one order for all, at its own pace, and loses its lines.
type forumBroker struct {
	f *forum

	mu   sync.Mutex
	calm bool // nothing fails any more
	subs []*forumSub
}

// forumLine is one hub's line to it.
type forumLine struct {
	b    *forumBroker
	site *forumSite
	down bool // under b.mu
	wg   sync.WaitGroup
}

type forumSub struct {
	line    *forumLine
	channel string
	deliver func([]byte)
	queue   chan []byte
	stop    chan struct{}
}

func (l *forumLine) Publish(ctx context.Context, channel string, msg []byte) error {
	f := l.b.f
	time.Sleep(time.Duration(f.pick(20)) * time.Millisecond)
	fate := f.pick(30)
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	if fate == 0 && !l.b.calm || l.down {
		return errors.New("no line")
	}
	if name, ok := strings.CutPrefix(channel, "topic forum."); ok {
		f.mu.Lock()
		n, key, _ := strings.Cut(name, " ")
		k, _ := strconv.Atoi(n)
		id, _ := strconv.Atoi(string(bytes.TrimPrefix(msg, []byte(`"`))[:8]))
		f.publishedLocked(forumKey{k, key}, id)
		f.mu.Unlock()
	}
	for _, s := range l.b.subs {
		if s.channel == channel && !s.line.down {
			s.queue <- append([]byte{}, msg...)
		}
	}
	if fate == 1 && !l.b.calm {
		return errors.New("no answer")
	}
	return nil
}

func (l *forumLine) Subscribe(ctx context.Context, channel string, deliver func([]byte)) (func(), error) {
	f := l.b.f
	time.Sleep(time.Duration(f.pick(50)) * time.Millisecond)
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	if ctx.Err() != nil || l.down {
		return nil, errors.New("no line")
	}
	s := &forumSub{line: l, channel: channel, deliver: deliver, queue: make(chan []byte, 100_000), stop: make(chan struct{})}
	l.b.subs = append(l.b.subs, s)
	l.wg.Go(func() {
		for {
			select {
			case msg := <-s.queue:
				time.Sleep(time.Duration(f.pick(20)) * time.Millisecond)
				s.deliver(msg)
				clear(msg) // it was valid only so long
			case <-s.stop:
				return
			}
		}
	})
	return sync.OnceFunc(func() {
		l.b.mu.Lock()
		defer l.b.mu.Unlock()
		if i := slices.Index(l.b.subs, s); i >= 0 {
			l.b.subs = slices.Delete(l.b.subs, i, i+1)
			close(s.stop)
		}
	}), nil
}

func (l *forumLine) Close() error {
	l.b.mu.Lock()
	var mine []*forumSub
	for _, s := range l.b.subs {
		if s.line == l {
			mine = append(mine, s)
		}
	}
	l.down = true
	l.b.subs = slices.DeleteFunc(l.b.subs, func(s *forumSub) bool { return s.line == l })
	l.b.mu.Unlock()
	for _, s := range mine {
		close(s.stop)
	}
	l.wg.Wait()
	return nil
}

// drop loses what is on its way; with back it goes on.
func (l *forumLine) drop() {
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	l.down = true
	for _, s := range l.b.subs {
		for s.line == l && len(s.queue) > 0 {
			<-s.queue
		}
	}
}

func (l *forumLine) back() {
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	if !l.down {
		return
	}
	l.down = false
	for _, s := range l.b.subs {
		if s.line == l {
			s.queue <- nil
		}
	}
}
