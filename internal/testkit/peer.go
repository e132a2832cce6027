package testkit

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// EveryFeature is what this implementation announces.
var EveryFeature = []string{"streams", "fragments", "resume", "auth"}

// Peer is a peer driven by hand: it writes and reads frames, and knows no
// rules.
type Peer struct {
	T       link.Transport
	Dialect session.Dialect
	Frames  []wire.Frame
	Counted uint64 // frames received
	Answers bool   // PING
}

var Roomy = wire.Limits{Message: 1 << 20, Calls: 1 << 20, Window: 1 << 20}

// Send writes all frames in one message.
func (p *Peer) Send(fs ...wire.Frame) error {
	msg, err := p.Encode(fs)
	if err != nil {
		return err
	}
	return p.Write(msg)
}

func (p *Peer) Encode(fs []wire.Frame) (msg []byte, err error) {
	if p.Dialect != session.Binary && len(fs) > 1 {
		msg = append(msg, '[')
	}
	for i := range fs {
		switch {
		case p.Dialect == session.Binary:
			msg, err = wire.AppendBinary(msg, &fs[i])
		case i > 0:
			msg = append(msg, ',')
			fallthrough
		default:
			msg, err = wire.AppendJSON(msg, &fs[i], p.Dialect == session.JSON)
		}
		if err != nil {
			return msg, err
		}
	}
	if p.Dialect != session.Binary && len(fs) > 1 {
		msg = append(msg, ']')
	}
	return msg, nil
}

func (p *Peer) Write(msg []byte) error {
	return p.T.Write(msg, p.Dialect != session.Binary, func() {})
}

// Next reads the next frame.
func (p *Peer) Next() (wire.Frame, error) {
	for len(p.Frames) == 0 {
		b, _, err := p.T.Read(func() {}) // never given back: the frames point into it
		if err != nil {
			return wire.Frame{}, err
		}
		if p.Dialect != session.Binary {
			r := wire.Reader{Hello: p.Dialect == session.JSON}
			fs, _, err := r.Read(b.B)
			if err != nil {
				return wire.Frame{}, err
			}
			p.Frames = slices.Clone(fs)
			continue
		}
		for msg := b.B; len(msg) > 0; {
			var f wire.Frame
			n, err := wire.DecodeBinary(msg, &f, nil)
			if err != nil {
				return f, err
			}
			p.Frames, msg = append(p.Frames, f), msg[n:]
		}
	}
	f := p.Frames[0]
	p.Frames = p.Frames[1:]
	if f.Type.Counted() {
		p.Counted++
	}
	return f, nil
}

// Until reads up to the next frame of a type.
func (p *Peer) Until(typ wire.Type) (wire.Frame, error) {
	for {
		f, err := p.Next()
		if err != nil || f.Type == typ {
			return f, err
		}
	}
}

// Hello opens a session as a client does and returns the server's limits.
func (p *Peer) Hello() (wire.WelcomeBody, error) {
	h := wire.HelloBody{Attempt: 1, Limits: Roomy}
	if err := p.Send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}); err != nil {
		return wire.WelcomeBody{}, err
	}
	f, err := p.Until(wire.Welcome)
	if err != nil {
		return wire.WelcomeBody{}, err
	}
	w, err := wire.ParseWelcome(f.Payload)
	if err != nil {
		return w, err
	}
	return w, p.Send(wire.Frame{Type: wire.Ack})
}

// Welcome opens a session as a server does.
func (p *Peer) Welcome() error {
	if _, err := p.Until(wire.Hello); err != nil {
		return err
	}
	p.Answers = true
	w := wire.WelcomeBody{Token: "token", Limits: Roomy}
	return p.Send(wire.Frame{Type: wire.Welcome, Payload: w.Append(nil)})
}

// Refuse answers a HELLO with an error.
func (p *Peer) Refuse(code int64, closeCode int) error {
	if _, err := p.Until(wire.Hello); err != nil {
		return err
	}
	b := wire.AuthOKBody{Error: &wire.ErrorBody{Code: code, Message: "refused"}}
	if err := p.Send(wire.Frame{Type: wire.AuthOK, Payload: b.Append(nil)}); err != nil {
		return err
	}
	p.T.Close(closeCode, "refused")
	return nil
}

// CloseCode reads to the end, answering PING, and returns how the other side
// closed; 0: it did not say.
func (p *Peer) CloseCode() int {
	for {
		f, err := p.Next()
		if f.Type == wire.Ping && p.Answers {
			p.Send(wire.Frame{Type: wire.Ack, Position: p.Counted})
		}
		var ce *link.CloseError
		switch {
		case errors.As(err, &ce):
			p.T.Kill()
			return ce.Code
		case err != nil:
			p.T.Kill()
			return 0
		}
	}
}

// Join connects a peer driven by hand to srv, a *typedrpc.Server.
func Join(srv any, offer string) (*Peer, error) { return JoinFrom(srv, offer, "") }

// JoinFrom is Join from an address.
func JoinFrom(srv any, offer, remote string) (*Peer, error) {
	near, far := link.Pipe()
	r := NewUpgrade()
	r.RemoteAddr = remote
	var offers []string
	p := &Peer{T: near, Dialect: session.Plain}
	if offer != "" {
		offers = []string{offer}
		p.Dialect = session.JSON
		if offer != HelloProtocol {
			p.Dialect = session.Binary
		}
	}
	if _, refused := hook.Accept(srv, far, r, offers); refused != nil {
		text, _ := io.ReadAll(refused.Body)
		return nil, fmt.Errorf("%d %s", refused.StatusCode, text)
	}
	return p, nil
}

func NewUpgrade() *http.Request {
	r, err := http.NewRequest(http.MethodGet, "http://pipe/", nil)
	if err != nil {
		panic(err)
	}
	return r
}

// HelloOf is the HELLO of a peer driven by hand that has all features.
func HelloOf(attempt uint64) wire.HelloBody {
	return wire.HelloBody{Attempt: attempt, Limits: Roomy, Features: EveryFeature}
}
