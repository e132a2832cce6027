package hub

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/logs"
)

// notices are what is to be published about the room now.
func (r *room) notices() []notice {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []notice
	if r.gone { // it says who left it last, and another room of the key the rest
		r.ask, r.answer = false, false
	}
	id := r.hub.node
	if r.ask {
		out = append(out, notice{Node: id, Ask: true})
	}
	if r.answer {
		m := notice{Node: id, All: true}
		size := 0
		for s := range r.here.all() {
			n := r.noticeSizeLocked(s)
			if size += n; size > noticeBytes {
				out = append(out, m)
				m, size = notice{Node: id}, n
			}
			r.noticeLocked(&m, s)
		}
		m.End = true
		out = append(out, m)
	} else if len(r.changed) > 0 {
		m := notice{Node: id}
		size := 0
		for s := range r.changed {
			n := r.noticeSizeLocked(s)
			if size += n; size > noticeBytes {
				out = append(out, m)
				m, size = notice{Node: id}, n
			}
			if r.here.of(s) > 0 {
				r.noticeLocked(&m, s)
			} else {
				m.Leave = append(m.Leave, s)
			}
		}
		out = append(out, m)
	}
	r.ask, r.answer, r.changed, r.queued = false, false, nil, false
	return out
}

// noticeLocked adds a member to a notice, with what is said of it.
func (r *room) noticeLocked(m *notice, subject string) {
	m.Join = append(m.Join, subject)
	if s, ok := r.said[subject]; ok {
		if m.About == nil {
			m.About = map[string]said{}
		}
		m.About[subject] = s
	}
}

// noticeSizeLocked is about what that takes.
func (r *room) noticeSizeLocked(subject string) int {
	n := len(subject) + 4
	if s, ok := r.said[subject]; ok {
		n += len(subject) + len(s.Text) + 40
	}
	return n
}

// announcer is the part of a hub that publishes notices, on a goroutine of its
// own while there are any: publishing may wait, and neither the delivery of
// messages nor subscribers may wait for it.
type announcer struct {
	node   string // this hub
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	amu      sync.Mutex // innermost, like Conn.mu
	ended    bool
	rooms    []*room // to be announced, in order
	running  bool
	watched  map[*room]struct{}
	beatNext *time.Timer
}

func (a *announcer) init() {
	a.node = rand.Text()
	a.ctx, a.cancel = context.WithCancel(context.Background())
	a.watched = map[*room]struct{}{}
}

// stop ends announcing; wg is done when it has ended.
func (a *announcer) stop() {
	a.cancel()
	a.amu.Lock()
	a.ended, a.rooms = true, nil
	if a.beatNext != nil {
		a.beatNext.Stop()
	}
	a.amu.Unlock()
}

// announceLocked has the announcer look after the room.
func (r *room) announceLocked() {
	if r.queued {
		return
	}
	a := &r.hub.announcer
	a.amu.Lock()
	defer a.amu.Unlock()
	if a.ended {
		return
	}
	r.queued = true
	a.rooms = append(a.rooms, r)
	if !a.running {
		a.running = true
		a.wg.Go(func() { r.hub.announce() })
	}
}

// announce publishes until there is nothing more to tell. What the broker does
// not take is told again when somebody asks.
func (h *Hub) announce() {
	a := &h.announcer
	for {
		a.amu.Lock()
		if len(a.rooms) == 0 {
			a.running, a.rooms = false, nil
			a.amu.Unlock()
			return
		}
		r := a.rooms[0]
		a.rooms = a.rooms[1:]
		a.amu.Unlock()
		for _, m := range r.notices() {
			if msg, err := json.Marshal(m); err != nil || h.tell(r, msg) != nil {
				break
			}
		}
	}
}

// tellPatience bounds how long the broker may take for a notice: rooms that
// come and go meanwhile wait to be announced, and are held.
const tellPatience = 10 * time.Second

// tell publishes a notice. A broker that panics, or ends its goroutine, loses it.
func (h *Hub) tell(r *room, msg []byte) error {
	ctx, cancel := context.WithTimeout(h.announcer.ctx, tellPatience)
	defer cancel()
	err := h.apart(func() error { return h.broker.Publish(ctx, r.questions.channel, msg) })
	if err != nil && err != errBrokerPanicked && h.announcer.ctx.Err() == nil { // else the hub is closing
		h.log.Warn("typedrpc: the hub's broker did not take a notice of presence", "topic", logs.Known(r.topic.Decl.Name), "error", err)
	}
	return err
}

// watchLocked and unwatchLocked keep the beat for rooms that are watched.
func (r *room) watchLocked() {
	a := &r.hub.announcer
	a.amu.Lock()
	defer a.amu.Unlock()
	a.watched[r] = struct{}{}
	if len(a.watched) == 1 && !a.ended {
		if a.beatNext != nil {
			a.beatNext.Stop()
		}
		a.beatNext = time.AfterFunc(presenceInterval, r.hub.beat)
	}
}

func (r *room) unwatchLocked() {
	a := &r.hub.announcer
	a.amu.Lock()
	defer a.amu.Unlock()
	delete(a.watched, r)
	if len(a.watched) == 0 && a.beatNext != nil {
		a.beatNext.Stop()
	}
}

// beat runs on a timer.
func (h *Hub) beat() {
	a := &h.announcer
	a.amu.Lock()
	rooms := slices.Collect(maps.Keys(a.watched))
	a.amu.Unlock()
	now := time.Now()
	for _, r := range rooms {
		r.mu.Lock()
		r.beatLocked(now)
		r.mu.Unlock()
	}
	a.amu.Lock()
	defer a.amu.Unlock()
	if len(a.watched) > 0 && !a.ended {
		a.beatNext.Reset(presenceInterval)
	}
}
