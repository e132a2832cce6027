package topic

import (
	"context"
	"fmt"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/hub"
	"github.com/typedrpc/typedrpc/internal/jsoncodec"
	"github.com/typedrpc/typedrpc/internal/seam"
	"github.com/typedrpc/typedrpc/internal/session"
)

// Access is what a peer asks for.
type Access struct {
	Key    string
	Action Action
	// History says that the subscriber is given messages from before its subscription, too.
	History bool
}

// Action is what is asked for.
type Action uint8

const (
	ActionSubscribe Action = iota + 1 // Subscribe
	ActionWatch                       // Watch
)

// String returns "subscribe" or "watch".
func (a Action) String() string {
	switch a {
	case ActionSubscribe:
		return "subscribe"
	case ActionWatch:
		return "watch"
	}
	return fmt.Sprintf("Action(%d)", uint8(a))
}

// Everybody allows everything that is asked for, for Handle.
func Everybody(context.Context, Access) error { return nil }

// Introduce says of whoever is about to subscribe what others are to be told beside
// its subject, see Member.About: a name, say. The function that Handle was given calls
// it with its own context, and may return what it returns:
//
//	topic.Handle(mux, &hub, Room, func(ctx context.Context, a topic.Access) error {
//		return topic.Introduce(ctx, names[typedrpc.ConnFrom(ctx).Identity().Subject])
//	})
//
// It counts for all subscriptions of the subject to the key, from when this one begins;
// of several the latest does. "" leaves what was said. It fails with InvalidArgument for
// more than 255 bytes, and for what is not UTF-8. Elsewhere, and where a peer wants to
// Watch, it does nothing.
func Introduce(ctx context.Context, about string) error {
	if ctx == nil {
		return errNoContext
	}
	if err := hub.CheckAbout(about); err != nil {
		return seam.Lift(err)
	}
	if said, ok := ctx.Value(introduced{}).(*string); ok {
		*said = about
	}
	return nil
}

var errNoContext = &typedrpc.Error{Code: typedrpc.InvalidArgument, Message: "the context is nil", Outcome: typedrpc.NotSent}

// introduced is where the context of Handle's function has what that says.
type introduced struct{}

func (introduced) OfRequest() {} // see engine.RequestKey

// Handle lets mux's peers subscribe to t and, if it has WithPresence, watch who does.
// allow is asked for each, in the handler's context, and refuses it with an error, which
// reaches the peer as a handler's does; an allow that is nil refuses everybody, with
// PermissionDenied, and [Everybody] refuses nobody. A key is a string of
// at most 255 bytes of UTF-8, and may be empty. Several muxes may share a hub. A
// subscription that has nothing to send has no goroutine, unless interceptors of mux
// wait for its end. It panics like typedrpc.Handle, if the hub's fields are wrong, and
// if its codec cannot carry T.
func Handle[T any](mux *typedrpc.Mux, h *Hub, t Topic[T], allow func(ctx context.Context, a Access) error) {
	x, d, err := both(h, t)
	switch {
	case mux == nil:
		panic("typedrpc: topic.Handle: the Mux is nil")
	case err != nil:
		panic("typedrpc: topic.Handle: " + err.Error())
	}
	d.handle(mux, x, h.codec, allow)
}

func (d *declared) handle(mux *typedrpc.Mux, x *hub.Hub, codec typedrpc.Codec, allow func(context.Context, Access) error) {
	if err := d.items.Check(codec); err != nil {
		panic(err.Error())
	}
	if allow == nil {
		allow = func(context.Context, Access) error {
			return typedrpc.Errorf(typedrpc.PermissionDenied, "nobody may subscribe to %q: topic.Handle was given no function that allows it, such as topic.Everybody", d.name)
		}
	}
	coder := d.coder(codec)
	serve := func(s seam.Decl, a Access, begin func(_ context.Context, _ *engine.Stream, key string, p hub.Peer, about string) (engine.Resumer, error)) {
		seam.Serve(mux, s, a.Action == ActionSubscribe, func(ctx context.Context, stream *engine.Stream, key string) (engine.Resumer, error) {
			if err := hub.CheckKey(key); err != nil {
				return nil, err
			}
			a := a
			a.Key = key
			about := new(string)
			if err := allow(context.WithValue(ctx, introduced{}, about), a); err != nil {
				return nil, err
			}
			return begin(ctx, stream, key, d.peer(stream, coder), *about)
		})
	}
	serve(d.items, Access{Action: ActionSubscribe, History: d.hub.Remembers()}, func(ctx context.Context, s *engine.Stream, key string, p hub.Peer, about string) (engine.Resumer, error) {
		return x.Subscribe(ctx, s, &d.hub, key, p, about)
	})
	if d.hub.Presence {
		serve(d.presence, Access{Action: ActionWatch}, func(ctx context.Context, s *engine.Stream, key string, p hub.Peer, _ string) (engine.Resumer, error) {
			return x.Watch(ctx, s, &d.hub, key, p)
		})
		return
	}
	seam.Serve(mux, d.presence, false, func(context.Context, *engine.Stream, string) (engine.Resumer, error) {
		return nil, typedrpc.Errorf(typedrpc.Unimplemented, "who subscribes to %q is not told: it is declared without topic.WithPresence", d.name)
	})
}

// peer is what a hub knows of a subscriber's connection.
func (d *declared) peer(x *engine.Stream, coder *hub.Coder) hub.Peer {
	e := x.Conn()
	c, limits := seam.Conn(e).(*typedrpc.Conn), e.Peer()
	return hub.Peer{
		Subject: c.Identity().Subject, Codec: c.Codec().Name(), Text: e.Dialect() != session.Binary,
		Depth: int16(min(limits.Depth, jsoncodec.RawDepth)),
		Limit: int32(d.hub.Decl.Limit(int(min(limits.Message, flow.MaxMessageCeiling)))),
		Coder: coder,
	}
}

// coder encodes what a topic's subscribers get.
func (d *declared) coder(hubs typedrpc.Codec) *hub.Coder {
	codecOf := func(c *engine.Conn) typedrpc.Codec { return seam.Conn(c).(*typedrpc.Conn).Codec() }
	return &hub.Coder{
		Recode: func(c *engine.Conn, msg []byte) ([]byte, error) {
			v := d.pool.New()
			if err := d.items.Decode(hubs, msg, v); err != nil {
				return nil, err
			}
			return d.items.Encode(codecOf(c), nil, v)
		},
		Name: func(c *engine.Conn, dst []byte, name string) ([]byte, error) {
			return d.presence.Encode(codecOf(c), dst, &name)
		},
	}
}
