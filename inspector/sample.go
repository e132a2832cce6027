package inspector

import (
	"cmp"
	"context"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/inspector/api"
	"github.com/typedrpc/typedrpc/internal/seam"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/stats"
)

// cached is something that all who look share for the better part of a second.
type cached[T any] struct {
	mu    sync.Mutex
	made  time.Time
	took  time.Duration
	value T
	users int // who look, for longer than a moment
}

// hold keeps what is found out for the others until the last of those who look has let go.
func (c *cached[T]) hold() (release func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.users--; c.users == 0 {
			var none T
			c.value, c.made = none, time.Time{}
		}
	}
}

// get makes it anew where it is too old: what takes long is made less often.
func (c *cached[T]) get(make func() T) T {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if age := max(every*9/10, 20*c.took); c.made.IsZero() || now.Sub(c.made) >= age {
		c.value = make()
		c.made, c.took = now, time.Since(now)
	}
	return c.value
}

func (h *Handler) watch(ctx context.Context, _ struct{}, send func(api.Overview) error) error {
	return repeat(ctx, func() error { return send(h.sums.get(h.overview)) })
}

// overview asks the server, and with it each of its connections.
func (h *Handler) overview() api.Overview {
	s := h.Server.Stats()
	o := api.Overview{
		At: int(time.Now().UnixMilli()), Conns: s.Conns, Accepted: int(s.Accepted), Links: s.Links, Opening: s.Opening,
		Plain: s.Plain, MaxPlain: s.MaxPlain, Posts: s.Posts, Detached: s.Detached,
		Kept: s.Kept, MaxKept: s.MaxKept, KeptBytes: int(s.KeptBytes), MaxKeptBytes: int(s.MaxKeptBytes), MaxMemory: int(s.MaxMemory),
		EvictedGrace: int(s.Evicted.Grace), EvictedKept: int(s.Evicted.Kept), EvictedMemory: int(s.Evicted.Memory),
		Load: loadOf(&s.Load),
	}
	of := []metrics.Sample{{Name: "/sched/goroutines:goroutines"}, {Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(of)
	o.Goroutines, o.Heap = int(of[0].Value.Uint64()), int(of[1].Value.Uint64())
	return o
}

func loadOf(l *stats.Load) api.Load {
	return api.Load{
		Calls: l.In.Calls, Streams: l.In.Streams, Out: l.Out.Calls, Waiting: l.Waiting, Unacked: int(l.Unacked),
		Buffered: int(l.Buffered), Unread: int(l.Unread), Memory: int(l.Memory), Resumes: int(l.Resumes),
		Sent:     api.Traffic{Messages: int(l.Sent.Messages), Bytes: int(l.Sent.Bytes)},
		Received: api.Traffic{Messages: int(l.Received.Messages), Bytes: int(l.Received.Bytes)},
	}
}

// row is of a connection what decides about its place.
type row struct {
	conn                            *typedrpc.Conn
	id                              uint32
	away                            bool
	memory, calls, traffic, unacked int64
}

// rows asks all connections.
func (h *Handler) rows() []row {
	var all []row
	for c := range h.Server.Conns() {
		about, s := seam.AboutConn(c), c.Stats()
		all = append(all, row{
			conn: c, id: about.Number, away: !about.Without.IsZero(), memory: s.Memory, calls: int64(s.In.Calls + s.Out.Calls),
			traffic: s.Sent.Bytes + s.Received.Bytes, unacked: s.Unacked,
		})
	}
	return all
}

const (
	mostRows    = 100 // that a page is sent at once
	defaultRows = 50
)

func (h *Handler) list(ctx context.Context, q api.Query, send func(api.Page) error) error {
	if q.Skip < 0 || q.Most < 0 {
		return typedrpc.Errorf(typedrpc.InvalidArgument, "skip and most must not be negative")
	}
	by, err := orderOf(q.Order)
	if err != nil {
		return err
	}
	defer h.conns.hold()() // connections that have ended are not kept for nobody
	return repeat(ctx, func() error { return send(h.page(q, by)) })
}

// orderOf is what rows are ordered by. Those that are alike come in the order of their age.
func orderOf(o api.Order) (func(a, b row) int, error) {
	newest := func(a, b row) int { return cmp.Compare(b.id, a.id) }
	most := func(of func(row) int64) func(a, b row) int {
		return func(a, b row) int { return cmp.Or(cmp.Compare(of(b), of(a)), newest(a, b)) }
	}
	switch o {
	case api.Newest, "":
		return newest, nil
	case api.Oldest:
		return func(a, b row) int { return cmp.Compare(a.id, b.id) }, nil
	case api.Memory:
		return most(func(r row) int64 { return r.memory }), nil
	case api.Calls:
		return most(func(r row) int64 { return r.calls }), nil
	case api.Busiest:
		return most(func(r row) int64 { return r.traffic }), nil
	case api.Unacked:
		return most(func(r row) int64 { return r.unacked }), nil
	}
	return nil, typedrpc.Errorf(typedrpc.InvalidArgument, "there is no order %q", o)
}

// page is what a query asks for at this moment.
func (h *Handler) page(q api.Query, by func(a, b row) int) api.Page {
	all := h.conns.get(h.rows) // shared: not to be changed
	var found []row
	for _, r := range all {
		if q.Waiting && !r.away {
			continue
		}
		if q.Text != "" && !strings.Contains(r.conn.Identity().Subject, q.Text) && !strings.Contains(r.conn.RemoteAddr(), q.Text) {
			continue
		}
		found = append(found, r)
	}
	slices.SortFunc(found, by)
	most := min(cmp.Or(q.Most, defaultRows), mostRows)
	p := api.Page{At: int(time.Now().UnixMilli()), All: len(all), Found: len(found), Rows: []api.Conn{}}
	found = found[min(q.Skip, len(found)):]
	for _, r := range found[:min(most, len(found))] {
		p.Rows = append(p.Rows, connOf(r.conn))
	}
	return p
}

var dialects = map[session.Dialect]string{session.Binary: "binary", session.JSON: "text", session.Plain: "plain JSON-RPC"}

// connOf is a connection at this moment.
func connOf(c *typedrpc.Conn) api.Conn {
	about, id, s := seam.AboutConn(c), c.Identity(), c.Stats()
	return api.Conn{
		ID: int(about.Number), Subject: id.Subject, Address: c.RemoteAddr(), Dialect: dialects[about.Dialect], Codec: c.Codec().Name(),
		Since: millis(about.Began), Expires: millis(id.Expires), Away: millis(about.Without), Lost: about.Lost,
		RoundTrip: int(s.RoundTrip.Microseconds()), Load: loadOf(&s.Load),
	}
}

func millis(t time.Time) int {
	if t.IsZero() {
		return 0
	}
	return int(t.UnixMilli())
}

func (h *Handler) look(ctx context.Context, id api.ID, send func(api.One) error) error {
	c, err := h.find(id.ID)
	if err != nil {
		return err
	}
	gone, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.Context(), cancel)()
	err = repeat(gone, func() error { return send(api.One{At: int(time.Now().UnixMilli()), Conn: connOf(c)}) })
	if ctx.Err() != nil || c.Context().Err() == nil {
		return err
	}
	ended := "it has ended"
	if why := c.Err(); why != nil {
		ended = why.Error()
	}
	return send(api.One{At: int(time.Now().UnixMilli()), Ended: ended, Conn: connOf(c)})
}

// mostKeys is how many of a hub's keys a page is sent.
const mostKeys = 100

func (h *Handler) topics(ctx context.Context, f api.Filter, send func(api.Keys) error) error {
	if len(h.Hubs) == 0 {
		return typedrpc.Errorf(typedrpc.FailedPrecondition, "the inspector was given no hubs")
	}
	return repeat(ctx, func() error {
		keys, err := h.keys(f)
		if err != nil {
			return err
		}
		return send(keys)
	})
}

func (h *Handler) keys(f api.Filter) (api.Keys, error) {
	keys := api.Keys{At: int(time.Now().UnixMilli()), Rows: []api.Key{}}
	for i, hub := range h.Hubs {
		l, err := seam.List(hub, f.Text, mostKeys)
		if err != nil {
			return api.Keys{}, err
		}
		keys.All += l.Keys
		keys.Found += l.Found
		keys.Subscribers += l.Subscribers
		keys.History += int(l.History)
		for _, r := range l.Rows {
			keys.Rows = append(keys.Rows, api.Key{
				Hub: i, Topic: r.Topic, Key: r.Key, Subscribers: r.Subscribers, Listeners: r.Listeners, Onlookers: r.Onlookers, Members: r.Members,
				History: r.History, Bytes: r.Bytes, Messages: int(r.Messages), Dropped: int(r.Dropped), Slow: int(r.Ended),
			})
		}
	}
	slices.SortStableFunc(keys.Rows, func(a, b api.Key) int { return cmp.Compare(b.Subscribers, a.Subscribers) })
	keys.Rows = keys.Rows[:min(len(keys.Rows), mostKeys)]
	return keys, nil
}
