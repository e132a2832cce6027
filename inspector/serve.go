package inspector

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/inspector/api"
	"github.com/typedrpc/typedrpc/internal/seam"
)

// visitorKey is where contexts of the page's connections have their Visitor.
type visitorKey struct{}

func visitorFrom(ctx context.Context) Visitor {
	v, _ := ctx.Value(visitorKey{}).(Visitor)
	return v
}

// signIn lets a page in. The rights are part of the subject: when they change the session
// does not go on with the old ones.
func (h *Handler) signIn(ctx context.Context, r *http.Request, creds *api.Creds) (typedrpc.Identity, api.Welcome, error) {
	if creds == nil {
		creds = new(api.Creds)
	}
	v, err := h.authorize(ctx, r, creds.Secret)
	if err != nil {
		return typedrpc.Identity{}, api.Welcome{}, err
	}
	return typedrpc.Identity{
			Subject: fmt.Sprintf("%d %s", v.Rights, v.Name), Expires: v.Expires, Context: context.WithValue(ctx, visitorKey{}, v),
		}, api.Welcome{
			Name: v.Name, Call: v.Rights&Call != 0, End: v.Rights&End != 0, Topics: len(h.Hubs) > 0, Payloads: h.Payloads,
		}, nil
}

// needs refuses who has not a right.
func needs(ctx context.Context, right Rights, what string) error {
	if visitorFrom(ctx).Rights&right == 0 {
		return typedrpc.Errorf(typedrpc.PermissionDenied, "you may not %s", what)
	}
	return nil
}

func (h *Handler) mux() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, api.Watch, h.watch)
	typedrpc.Handle(mux, api.List, h.list)
	typedrpc.Handle(mux, api.Look, h.look)
	typedrpc.Handle(mux, api.Tap, h.tap)
	typedrpc.Handle(mux, api.Topics, h.topics)
	typedrpc.Handle(mux, api.Describe, h.describe)
	typedrpc.Handle(mux, api.Admit, h.admit)
	typedrpc.Handle(mux, api.End, h.end)
	return mux
}

func (h *Handler) describe(context.Context, struct{}) (api.Document, error) {
	doc, err := seam.Describe(h.Server)
	if err == nil && !json.Valid(doc) {
		err = fmt.Errorf("the document is no JSON")
	}
	if err != nil {
		return api.Document{}, typedrpc.Errorf(typedrpc.FailedPrecondition, "the server cannot describe itself: %w", err)
	}
	return api.Document{OpenRPC: string(doc)}, nil
}

func (h *Handler) admit(ctx context.Context, _ struct{}) (api.Ticket, error) {
	if err := needs(ctx, Call, "try methods"); err != nil {
		return api.Ticket{}, err
	}
	return api.Ticket{Value: h.tickets.give(typedrpc.ConnFrom(ctx))}, nil
}

// mostReason bounds what clients are told, as a close frame does.
const mostReason = 120

// end ends connections, and says so in the log.
func (h *Handler) end(ctx context.Context, e api.Ending) (api.Ended, error) {
	if err := needs(ctx, End, "end connections"); err != nil {
		return api.Ended{}, err
	}
	if len(e.Reason) > mostReason {
		return api.Ended{}, typedrpc.Errorf(typedrpc.InvalidArgument, "the reason has %d bytes, at most %d are told", len(e.Reason), mostReason)
	}
	o := &typedrpc.CloseOptions{StayAway: e.StayAway}
	switch {
	case e.Reason != "" && e.StayAway:
		o.Err = typedrpc.Errorf(typedrpc.PermissionDenied, "%s", e.Reason)
	case e.Reason != "":
		o.Err = typedrpc.Errorf(typedrpc.Unavailable, "%s", e.Reason)
	}
	who := visitorFrom(ctx).Name
	if e.ID == 0 {
		if e.Subject == "" {
			return api.Ended{}, typedrpc.Errorf(typedrpc.InvalidArgument, "say which connection, or whose")
		}
		n := h.Server.Revoke(e.Subject, o)
		h.logger().Info("inspector: ended a subject's connections", "by", who, "subject", e.Subject, "connections", n, "stayAway", e.StayAway)
		return api.Ended{Conns: n}, nil
	}
	c, err := h.find(e.ID)
	if err != nil {
		return api.Ended{}, err
	}
	h.logger().Info("inspector: ended a connection", "by", who, "connection", e.ID, "subject", c.Identity().Subject, "stayAway", e.StayAway)
	return api.Ended{Conns: 1}, c.CloseWith(o)
}

// find returns the connection of a number.
func (h *Handler) find(id int) (*typedrpc.Conn, error) {
	for c := range h.Server.Conns() {
		if int(seam.AboutConn(c).Number) == id {
			return c, nil
		}
	}
	return nil, typedrpc.Errorf(typedrpc.NotFound, "there is no connection %d any more", id)
}

// every is how often a page is told.
const every = time.Second

// repeat calls tell at once and then once a second, or less often where that takes long:
// nobody who looks takes more than a twentieth of a processor.
func repeat(ctx context.Context, tell func() error) error {
	for {
		began := time.Now()
		if err := tell(); err != nil {
			return err
		}
		timer := time.NewTimer(max(every, 20*time.Since(began)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}
