package typedrpc

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"sync"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
)

// servePost answers JSON-RPC 2.0 over plain HTTP: the body is one message of a
// plain peer, and so is the answer. The request runs through a connection that
// lasts for this one message.
func (s *Server) servePost(w http.ResponseWriter, r *http.Request) {
	refused := s.guard(r)
	if refused == nil {
		refused = s.drains(false)
	}
	if refused != nil {
		refused.write(w)
		return
	}
	if ct, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); ct != "application/json" {
		// Also what keeps foreign pages out: a browser asks the server first
		// before it sends this type across origins.
		refuse(http.StatusUnsupportedMediaType, "POST JSON-RPC 2.0 with Content-Type: application/json").write(w)
		return
	}
	check := s.beginCheck()
	g, refused := s.authenticateRequest(r.Context(), r)
	defer g.release(context.Canceled)
	id := g.id
	if s.endCheck(check); refused == nil && check.revoked[id.Subject] {
		refused = refuse(http.StatusUnauthorized, "%s", errRevoked.Message)
	}
	if refused != nil {
		refused.write(w)
		return
	}
	limit := int64(s.config.limits.MaxMessage)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		var tooBig *http.MaxBytesError
		if errors.As(err, &tooBig) {
			refuse(http.StatusRequestEntityTooLarge, "the request has more than %d bytes", limit).write(w)
		}
		return // else the client is gone
	}

	base := r.Context()
	if id.Context != nil {
		var cancel context.CancelFunc
		base, cancel = context.WithCancel(id.Context)
		defer cancel()
		defer context.AfterFunc(r.Context(), cancel)()
	}
	c := newConn(base, s.config)
	c.posted, c.dialect, c.codec, c.identity = true, session.Plain, JSON, id
	t := &postTransport{conn: c, request: body, killed: make(chan struct{})}
	t.sess = c.newSession(features{})
	c.opened(t.sess, c.peer, features{})
	carrier := newCarrier(t, &s.config, session.Plain, nil, false)
	t.sess.Attach(carrier, 0, nil) // a session that is new has not ended
	gone := context.AfterFunc(base, func() { t.sess.End(&link.CloseError{Err: context.Cause(base)}) })
	cause := carrier.Run()
	t.sess.Detach(carrier, cause)
	gone()
	c.lost(t.sess, cause)
	c.finish(cause)

	if len(t.answer) == 0 {
		w.WriteHeader(http.StatusNoContent) // only notifications
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(t.answer)
}

// postTransport carries one message in and at most one out.
type postTransport struct {
	conn    *Conn
	sess    *session.Session
	request []byte // nil when it was read
	answer  []byte
	once    sync.Once
	killed  chan struct{}
}

func (t *postTransport) Read(func()) (*buf.Buf, bool, error) {
	if t.request != nil {
		b := buf.Copy(t.request)
		t.request = nil
		return b, true, nil
	}
	// The message was delivered. When all that it began has ended and the
	// answer is written, the connection has served its purpose.
	c := t.conn
	c.mu.Lock()
	c.drained = make(chan struct{})
	drained := c.drained
	c.checkIdleLocked()
	c.mu.Unlock()
	select {
	case <-drained:
		t.sess.CloseAfterFlush(&link.CloseError{Err: io.EOF})
		<-t.killed
	case <-t.killed:
	}
	return nil, false, io.EOF
}

func (t *postTransport) Write(msg []byte, _ bool, _ func()) error {
	t.answer = append(t.answer, msg...)
	return nil
}

func (t *postTransport) Close(int, string) { t.Kill() }

func (t *postTransport) Kill() { t.once.Do(func() { close(t.killed) }) }

func (t *postTransport) SetReadLimit(int64) {}

func (t *postTransport) Ping() {}
