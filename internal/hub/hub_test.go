package hub

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/status"
)

func topic(name string, last int) *Topic {
	return &Topic{Decl: &engine.Decl{Name: name}, Last: last, Presence: true}
}

func codeOf(err error) status.Code {
	var e *status.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

func TestHub_history(t *testing.T) {
	is := is.New(t)
	h := New(Options{Codec: "json", MaxKeyHistory: 300, MaxIdleKeys: 2})
	chat := topic("chat", 3)
	for i := range 5 {
		is.NoErr(h.Publish(t.Context(), chat, "a", fmt.Append(nil, i)))
	}
	r := h.find("chat", "a")
	is.Equal(r.history.Len(), 3) // the last three
	is.Equal(string(r.history.Front().msg.body.B), "2")
	is.NoErr(h.Publish(t.Context(), chat, "a", make([]byte, 1000)))
	is.Equal(r.history.Len(), 1) // one fits always

	is.NoErr(h.Publish(t.Context(), chat, "b", nil))
	is.NoErr(h.Publish(t.Context(), chat, "c", nil))
	is.Equal(h.Snapshot(), Snapshot{Rooms: 2, Idle: 2})
	is.True(h.find("chat", "a") == nil) // pushed out

	is.NoErr(h.Publish(t.Context(), topic("plain", 0), "d", nil))
	is.Equal(h.Snapshot().Rooms, 2) // nothing to remember

	is.NoErr(h.Close())
	is.NoErr(h.Close())
	is.Equal(h.Snapshot(), Snapshot{})
	is.Equal(codeOf(h.Publish(t.Context(), chat, "a", nil)), status.Unavailable)
	is.Equal(codeOf(h.Publish(t.Context(), topic("plain", 0), "a", nil)), status.Unavailable)
}

// All histories together are bounded: those that nobody uses go first.
func TestHub_allHistories(t *testing.T) {
	is := is.New(t)
	const each = 1000 + bodyCost + recordCost
	h := New(Options{Codec: "json", MaxHistory: 4 * each})
	defer h.Close()
	chat := topic("chat", 10)
	publish := func(key string) { is.NoErr(h.Publish(t.Context(), chat, key, make([]byte, 1000))) }
	publish("a")
	publish("b")
	publish("a")
	publish("c")
	is.Equal(h.history.Load(), int64(4*each))
	publish("c")
	is.True(h.find("chat", "b") == nil) // not used for longest
	is.Equal(h.find("chat", "a").history.Len(), 2)
	r, err := h.enter(chat, "c")
	is.NoErr(err)
	publish("c")
	is.True(h.find("chat", "a") == nil)
	publish("c")
	publish("c")
	is.Equal(r.history.Len(), 4) // its own: in use
	m := r.history.Front().msg
	m.bodyFor(&subscriber{x: new(engine.Stream), peer: &Peer{Codec: "other", Limit: 1 << 20, Coder: &Coder{Recode: func(_ *engine.Conn, msg []byte) ([]byte, error) { return msg, nil }}}})
	is.Equal(h.history.Load(), int64(5*each-recordCost))
	publish("c")
	is.Equal(h.history.Load(), int64(4*each))
	publish("d") // one fits always
	is.Equal(h.history.Load(), int64(5*each))
	h.exit(r)
	publish("d")
	is.True(h.find("chat", "c") == nil)
	is.Equal(h.history.Load(), int64(2*each))
	is.NoErr(h.Close())
	is.Equal(h.history.Load(), int64(0))
}

func TestHub_refusals(t *testing.T) {
	is := is.New(t)
	h := New(Options{})
	defer h.Close()
	small := &Topic{Decl: &engine.Decl{Name: "small", MaxSize: 10}}
	is.NoErr(h.Publish(t.Context(), small, strings.Repeat("k", 255), make([]byte, 10)))
	is.Equal(codeOf(h.Publish(t.Context(), small, "k", make([]byte, 11))), status.ResourceExhausted)
	is.Equal(codeOf(h.Publish(t.Context(), small, strings.Repeat("k", 256), nil)), status.InvalidArgument)
	is.Equal(codeOf(h.Publish(t.Context(), small, "\xff", nil)), status.InvalidArgument)
}

type badBroker struct {
	*memoryBroker
	err error
}

func (b badBroker) Publish(context.Context, string, []byte) error { return b.err }

func TestHub_brokerErrors(t *testing.T) {
	is := is.New(t)
	down := errors.New("down")
	own := status.Errorf(status.PermissionDenied, "not you")
	publish := func(ctx context.Context, err error) error {
		h := New(Options{Broker: badBroker{newMemoryBroker(), err}})
		defer h.Close()
		return h.Publish(ctx, topic("chat", 0), "", nil)
	}
	err := publish(t.Context(), down)
	is.Equal(codeOf(err), status.Unavailable)
	is.True(errors.Is(err, down))
	is.True(publish(t.Context(), fmt.Errorf("wrapped: %w", own)) == error(own)) // as it is
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	is.Equal(codeOf(publish(ctx, ctx.Err())), status.Canceled)
}

func TestMessage_recode(t *testing.T) {
	is := is.New(t)
	m := newMessage("json", []byte(`[[1]]`))
	peer := func(codec string, recode func([]byte) ([]byte, error)) *subscriber {
		return &subscriber{x: new(engine.Stream), backlog: &nothing, room: &room{declared: &declared{topic: new(Topic)}}, peer: &Peer{Codec: codec, Limit: 5, Coder: &Coder{Recode: func(_ *engine.Conn, msg []byte) ([]byte, error) { return recode(msg) }}}}
	}
	same := peer("json", nil)
	is.True(m.bodyFor(same) == &m.encoding)
	same.peer.Text, same.peer.Depth = true, 1
	is.True(m.bodyFor(same) == nil) // deeper than it reads
	same.peer.Depth = 2
	is.True(m.bodyFor(same) == &m.encoding)
	same.peer.Limit = 4
	is.True(m.bodyFor(same) == nil) // larger than it takes

	bad := peer("bad", func([]byte) ([]byte, error) { panic("no") })
	is.True(m.bodyFor(bad) == nil)
	is.Equal(bad.fault.Error(), "panic: no")
	is.True(m.bodyFor(peer("bad", nil)) == nil) // tried once

	n := 0
	other := peer("other", func(msg []byte) ([]byte, error) { n++; return append(msg[:0:0], "x"...), nil })
	is.Equal(string(m.bodyFor(other).body.B), "x")
	is.Equal(string(m.bodyFor(other).body.B), "x")
	is.Equal(n, 1) // once for each codec
}

// kept is a broker that outlives its hubs.
type kept struct{ *memoryBroker }

func (kept) Close() error { return nil }

// late is one that publishes nothing before its gate is open.
type late struct {
	kept
	gate chan struct{}
}

func (b late) Publish(ctx context.Context, channel string, msg []byte) error {
	<-b.gate
	return b.kept.Publish(ctx, channel, msg)
}

func TestRoom_presence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		b, chat := kept{newMemoryBroker()}, topic("chat", 0)
		gate := make(chan struct{})
		here, there := New(Options{Broker: late{b, gate}}), New(Options{Broker: late{b, gate}})
		in := func(h *Hub) *room {
			r, err := h.enter(chat, "k")
			is.NoErr(err)
			is.NoErr(r.openPresence(t.Context()))
			return r
		}
		r, far := in(here), in(there)
		here.Present("chat", "k", 1, "ann")
		there.Present("chat", "k", 1, "bob")
		w := &onlooker{x: new(engine.Stream)}
		is.NoErr(r.look(w))
		told := func() (all []member) {
			synctest.Wait()
			for m, ok := r.next(w); ok; m, ok = r.next(w) {
				all = append(all, m)
			}
			return all
		}
		is.Equal(told(), []member{{subject: "ann", history: true}})
		close(gate)
		is.Equal(told(), []member{{subject: "bob"}})
		there.Present("chat", "k", 1, "ann") // she is here already
		there.Present("chat", "k", -1, "bob")
		is.Equal(told(), []member{{subject: "bob", left: true}})
		there.Present("chat", "k", 1, "eve")
		is.Equal(told(), []member{{subject: "eve"}})

		there.exit(far)
		is.NoErr(there.Close()) // and does not say so
		time.Sleep(presencePatience + presenceInterval)
		is.Equal(told(), []member{{subject: "eve", left: true}})

		is.Equal(here.Snapshot().Watched, 1)
		r.lookAway(w)
		is.Equal(here.Snapshot().Watched, 0)
		here.exit(r)
		is.NoErr(here.Close())
	})
}
