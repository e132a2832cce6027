package typedrpc

import (
	"context"
	"net/http"
	"strings"

	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/link"
)

func init() {
	hook.Dial = func(srv, o any) (client, server any, err error) {
		c, s, err := dialPipe(context.Background(), srv.(*Server), o.(*DialOptions))
		return c, s, err
	}
	hook.Tap = func(o, tap any) any {
		opts := *o.(*DialOptions)
		opts.tap = tap.(func(link.Transport, string, error) link.Transport)
		return &opts
	}
	hook.Connect = func(o, connect any) any {
		opts := *o.(*DialOptions)
		opts.connect = connect.(connector)
		return &opts
	}
	hook.Accept = func(srv any, far link.Transport, r *http.Request, offers []string) (string, *http.Response) {
		a, refused := srv.(*Server).admit(r, offers)
		if refused != nil {
			return "", refused.response()
		}
		srv.(*Server).start(far, a, r)
		return a.subprotocol, nil
	}
	hook.SessionLost = func(cause error) error { return sessionLost(cause) }
}

// connector gets a dialled connection a link: the transport, the subprotocol,
// and the response of a server that refused the upgrade.
type connector = func(ctx context.Context, url string, offers []string) (link.Transport, string, *http.Response, error)

// tapped is connect with o.tap around what it returns.
func (o *DialOptions) tapped(connect connector) connector {
	if o.tap == nil {
		return connect
	}
	return func(ctx context.Context, url string, offers []string) (link.Transport, string, *http.Response, error) {
		t, name, resp, err := connect(ctx, url, offers)
		return o.tap(t, name, err), name, resp, err
	}
}

// dialPipe connects a client to srv in memory. All but HTTP and WebSocket is
// real: origins, authentication, handshake, limits, redialling.
func dialPipe(ctx context.Context, srv *Server, o *DialOptions) (client, server *Conn, err error) {
	if o == nil {
		o = &DialOptions{}
	}
	opts := *o
	accepted := make(chan *serverLink, 1)
	opts.connect = func(ctx context.Context, _ string, offers []string) (link.Transport, string, *http.Response, error) {
		r, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodGet, "http://pipe/", nil)
		if err != nil {
			return nil, "", nil, err
		}
		if o.Header != nil {
			r.Header = o.Header.Clone()
		}
		r.RemoteAddr = "pipe"
		a, refused := srv.admit(r, offers)
		if refused != nil {
			return nil, "", refused.response(), &UpgradeError{Status: refused.status, Body: refused.text}
		}
		near, far := link.Pipe()
		l := srv.start(far, a, r)
		select {
		case accepted <- l:
		default: // a redial
		}
		return near, a.subprotocol, nil, nil
	}
	opts.URLs = nil
	if client, err = Dial(ctx, "ws://pipe/", &opts); err != nil {
		return nil, nil, err
	}
	l := <-accepted
	l.auths.Wait() // then it is known whose link it is
	return client, l.accepted.conn, nil
}

func (h *httpRefusal) response() *http.Response {
	return &http.Response{StatusCode: h.status, Header: h.header, Body: readCloser{strings.NewReader(h.text)}}
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }
