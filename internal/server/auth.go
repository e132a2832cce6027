package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/typedrpc/typedrpc/internal/logs"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
)

// ending is cancel for causes of the layers below the API.
func (s *Server) ending(cancel context.CancelCauseFunc) context.CancelCauseFunc {
	return func(cause error) { cancel(s.o.Up(cause)) }
}

// bounded returns a context that ends when the handshake's time is over, unless
// stop was called before: an Identity's context may derive from it, so it does
// not end with the authentication.
func (s *Server) bounded(parent context.Context) (ctx context.Context, cancel context.CancelCauseFunc, stop func() bool) {
	ctx, cancel = context.WithCancelCause(parent)
	timer := time.AfterFunc(s.o.Config.Limits.HandshakeTimeout, func() { cancel(context.DeadlineExceeded) })
	return ctx, cancel, timer.Stop
}

// authenticateRequest authenticates a plain peer or a POST by the request
// alone. base is what lives as long as the peer does.
func (s *Server) authenticateRequest(base context.Context, r *http.Request) (g grant, _ *HTTPRefusal) {
	if s.o.Authenticate == nil {
		return g, nil
	}
	ctx, cancel, stop := s.bounded(base)
	defer stop()
	defer context.AfterFunc(r.Context(), func() { cancel(context.Canceled) })()
	id, _, err := s.authenticate(ctx, r, nil, JSONCodec, nil, cancel)
	if err == nil {
		return grant{id: id, end: s.ending(cancel)}, nil
	}
	cancel(s.o.Up(err))
	e, code, foreign := refusalOf(err)
	s.logRefusal(r, err, foreign)
	answer := http.StatusUnauthorized
	switch code {
	case session.CloseForbidden:
		answer = http.StatusForbidden
	case session.CloseOverload:
		answer = http.StatusServiceUnavailable
	}
	return g, refuse(answer, "%s", e.Message)
}

// authenticate runs the user's function, whose panic refuses one peer, and so does the
// end of its goroutine, which is one of its own. When left is closed it is canceled.
func (s *Server) authenticate(ctx context.Context, r *http.Request, creds []byte, codec int, left <-chan struct{}, cancel context.CancelCauseFunc) (id Identity, reply []byte, err error) {
	err = errExited
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		defer func() {
			if p := recover(); p != nil {
				s.o.Config.Logger.Error("typedrpc: sign-in function panicked", "panic", logs.Panic{Value: p}, "stack", logs.Stack{})
				err = fmt.Errorf("the sign-in function panicked: %v", p)
			}
		}()
		id, reply, err = s.o.Authenticate(ctx, r.WithContext(ctx), creds, codec)
	}()
	select {
	case <-left:
		cancel(context.Canceled)
		<-returned
	case <-returned:
	}
	return id, reply, err
}

var errExited = errors.New("the sign-in function ended its goroutine")

func (s *Server) logRefusal(r *http.Request, err error, foreign bool) {
	logger := s.o.Config.Logger
	if foreign {
		logger.WarnContext(r.Context(), "typedrpc: peer not authenticated", "remote", r.RemoteAddr, "error", s.o.Up(err))
		return
	}
	// The peer's mistake, which must not hide the program's: a cause of its own.
	logger.WarnContext(r.Context(), "typedrpc: peer refused by the sign-in function", "remote", r.RemoteAddr, "error", s.o.Up(err))
}

// authenticateLink runs the user's Authenticate with what HELLO or AUTH brought
// over c, for as long as that lives.
func (s *Server) authenticateLink(c *session.Carrier, r *http.Request, codec int, raw []byte) (g grant, err error) {
	if s.o.Authenticate == nil {
		return g, nil
	}
	ctx, cancel, stop := s.bounded(context.WithoutCancel(r.Context()))
	defer stop()
	g.id, g.reply, err = s.authenticate(ctx, r, raw, codec, c.Done(), cancel)
	if err != nil {
		cancel(s.o.Up(err))
		return grant{}, err
	}
	g.end = s.ending(cancel)
	return g, nil
}

// refusalOf turns an authentication's error into what the peer is told and the
// close code that tells it whether to come back.
func refusalOf(err error) (e *status.Error, closeCode int, foreign bool) {
	switch {
	case errors.As(err, &e):
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		e = &status.Error{Code: status.DeadlineExceeded, Message: "authentication took too long"}
	default:
		e, foreign = &status.Error{Code: status.Unauthenticated, Message: "not authenticated"}, true
	}
	switch e.Code {
	case status.Unavailable, status.ResourceExhausted, status.DeadlineExceeded:
		return e, session.CloseOverload, foreign
	case status.PermissionDenied:
		return e, session.CloseForbidden, foreign
	}
	return e, session.CloseUnauthed, foreign
}

// identified is a grant in use.
type identified struct {
	grant
	unwatch func() bool // of its context; nil: it has none
}

func (i *identified) release(cause error) {
	if i.unwatch != nil {
		i.unwatch()
	}
	i.grant.release(cause)
}

// grant is what an authentication gave.
type grant struct {
	id    Identity
	reply []byte
	end   context.CancelCauseFunc // of what id.Context may derive from; nil: nothing
}

func (g *grant) release(cause error) {
	if g.end != nil {
		g.end(cause)
	}
}
