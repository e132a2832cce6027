package server

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/replay"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// echo is the API of a connection whose handlers answer with what they were sent;
// "hang" does so when its context has ended, or its server's gate is open.
type echo struct {
	engine.Owner
	gate chan struct{}
}

type request struct {
	engine.Inbound
	name string
}

func (r *request) Name() string                              { return r.name }
func (*request) Decl() *engine.Decl                          { return nil }
func (*request) Watched() bool                               { return false }
func (*request) Forget()                                     {}
func (*request) Reply() map[string]string                    { return nil }
func (r *request) Waits() bool                               { return false }
func (*request) Inspect([]byte, bool) (*status.Error, error) { return nil, nil }
func (echo) Face(e *status.Error) error                      { return e }
func (echo) Replied(*engine.Inbound, error)                  {}

func (echo) Failure(_ *engine.Inbound, err error) (f wire.Frame) {
	e, _, _ := refusalOf(err)
	return wire.Frame{Type: wire.Fail, Code: int64(e.Code), Message: e.Message}
}

func (echo) Find(name string, _ engine.Kind, _ map[string]string) (*engine.Inbound, *status.Error) {
	r := &request{name: name}
	r.Record = r
	return &r.Inbound, nil
}

func (o echo) Run(in *engine.Inbound) (*buf.Buf, map[string]string, error) {
	if in.Record.Name() == "hang" {
		select {
		case <-o.gate:
		case <-in.Done():
			return nil, nil, in.Err()
		}
	}
	return buf.Copy(in.Payload()), nil, nil
}

// echoServer makes a server of echoes; change changes its options.
func echoServer(t *testing.T, change func(*Options)) (s *Server, gate chan struct{}) {
	t.Helper()
	limits, err := flow.Limits{}.WithDefaults()
	if err != nil {
		t.Fatal(err)
	}
	gate = make(chan struct{})
	same := func(err error) error { return err }
	o := Options{
		Config: engine.Config{
			Limits: limits, Logger: slog.New(slog.DiscardHandler), Ledger: flow.NewLedger(1 << 20),
			Replays: replay.New(replay.Options{}), Detached: replay.NewDetached(limits.MaxCalls),
			Intern: func(name []byte) string { return string(name) },
		},
		Codecs: []string{"json", "other"}, MaxPlain: 2, MaxKept: 10, MaxKeptBytes: 1 << 20, ReconnectSpread: 3 * time.Second,
		Refusal: func(e *status.Error, _ int) wire.ErrorBody {
			return wire.ErrorBody{Code: int64(e.Code), Message: e.Message}
		},
		NewConn:      func(engine.Keeper, int) engine.Owner { return echo{gate: gate} },
		Made:         func(engine.Owner, *engine.Conn) {},
		OnConnect:    func(*engine.Conn) func() { return nil },
		OnDisconnect: func(*engine.Conn, error) {},
		Down:         same, Up: same,
	}
	if change != nil {
		change(&o)
	}
	if s, err = New(o); err != nil {
		t.Fatal(err)
	}
	return s, gate
}

// knock asks s for a connection in memory; offer "" is a plain peer.
func knock(s *Server, offer string) (*testkit.Peer, *Link, *HTTPRefusal) {
	return knockFrom(s, offer, "192.0.2.1:1234")
}

func knockFrom(s *Server, offer, remote string) (*testkit.Peer, *Link, *HTTPRefusal) {
	p := &testkit.Peer{Dialect: session.Plain, Answers: true}
	var offers []string
	if offer != "" {
		offers = []string{offer}
		p.Dialect = session.Binary
	}
	r := httptest.NewRequest(http.MethodGet, "http://pipe/", nil)
	r.RemoteAddr = remote
	a, refused := s.Admit(r, offers)
	if refused != nil {
		return nil, nil, refused
	}
	near, far := link.Pipe()
	p.T = near
	return p, s.Start(far, a, r), nil
}

// join opens a session with h, by hand.
func join(t *testing.T, s *Server, h wire.HelloBody) (*testkit.Peer, wire.WelcomeBody) {
	t.Helper()
	return joinFrom(t, s, h, "192.0.2.1:1234")
}

func joinFrom(t *testing.T, s *Server, h wire.HelloBody, remote string) (*testkit.Peer, wire.WelcomeBody) {
	t.Helper()
	p, _, refused := knockFrom(s, testkit.BinaryProtocol, remote)
	if refused != nil {
		t.Fatal(refused.Text)
	}
	if err := p.Send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}); err != nil {
		t.Fatal(err)
	}
	f, err := p.Until(wire.Welcome)
	if err != nil {
		t.Fatal(err)
	}
	w, err := wire.ParseWelcome(f.Payload)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Send(wire.Frame{Type: wire.Ack, Position: p.Counted}); err != nil {
		t.Fatal(err)
	}
	return p, w
}
