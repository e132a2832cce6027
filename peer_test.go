package typedrpc

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// wirePeer is a peer driven by hand: it writes and reads frames, and knows no
// rules.
type wirePeer struct {
	t       link.Transport
	dialect session.Dialect
	frames  []wire.Frame
	counted uint64 // frames received
	answers bool   // PING
}

var roomy = wire.Limits{Message: 1 << 20, Calls: 1 << 20, Window: 1 << 20}

// send writes all frames in one message.
func (p *wirePeer) send(fs ...wire.Frame) error {
	msg, err := p.encode(fs)
	if err != nil {
		return err
	}
	return p.write(msg)
}

func (p *wirePeer) encode(fs []wire.Frame) (msg []byte, err error) {
	if p.dialect != session.Binary && len(fs) > 1 {
		msg = append(msg, '[')
	}
	for i := range fs {
		switch {
		case p.dialect == session.Binary:
			msg, err = wire.AppendBinary(msg, &fs[i])
		case i > 0:
			msg = append(msg, ',')
			fallthrough
		default:
			msg, err = wire.AppendJSON(msg, &fs[i], p.dialect == session.JSON)
		}
		if err != nil {
			return msg, err
		}
	}
	if p.dialect != session.Binary && len(fs) > 1 {
		msg = append(msg, ']')
	}
	return msg, nil
}

func (p *wirePeer) write(msg []byte) error {
	return p.t.Write(msg, p.dialect != session.Binary, func() {})
}

// next reads the next frame.
func (p *wirePeer) next() (wire.Frame, error) {
	for len(p.frames) == 0 {
		b, _, err := p.t.Read(func() {}) // never given back: the frames point into it
		if err != nil {
			return wire.Frame{}, err
		}
		if p.dialect != session.Binary {
			r := wire.Reader{Hello: p.dialect == session.JSON}
			fs, _, err := r.Read(b.B)
			if err != nil {
				return wire.Frame{}, err
			}
			p.frames = slices.Clone(fs)
			continue
		}
		for msg := b.B; len(msg) > 0; {
			var f wire.Frame
			n, err := wire.DecodeBinary(msg, &f, nil)
			if err != nil {
				return f, err
			}
			p.frames, msg = append(p.frames, f), msg[n:]
		}
	}
	f := p.frames[0]
	p.frames = p.frames[1:]
	if f.Type.Counted() {
		p.counted++
	}
	return f, nil
}

// until reads up to the next frame of a type.
func (p *wirePeer) until(typ wire.Type) (wire.Frame, error) {
	for {
		f, err := p.next()
		if err != nil || f.Type == typ {
			return f, err
		}
	}
}

// hello opens a session as a client does and returns the server's limits.
func (p *wirePeer) hello() (wire.WelcomeBody, error) {
	h := wire.HelloBody{Attempt: 1, Limits: roomy}
	if err := p.send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}); err != nil {
		return wire.WelcomeBody{}, err
	}
	f, err := p.until(wire.Welcome)
	if err != nil {
		return wire.WelcomeBody{}, err
	}
	w, err := wire.ParseWelcome(f.Payload)
	if err != nil {
		return w, err
	}
	return w, p.send(wire.Frame{Type: wire.Ack})
}

// welcome opens a session as a server does.
func (p *wirePeer) welcome() error {
	if _, err := p.until(wire.Hello); err != nil {
		return err
	}
	p.answers = true
	w := wire.WelcomeBody{Token: "token", Limits: roomy}
	return p.send(wire.Frame{Type: wire.Welcome, Payload: w.Append(nil)})
}

// refuse answers a HELLO with an error.
func (p *wirePeer) refuse(code Code, closeCode int) error {
	if _, err := p.until(wire.Hello); err != nil {
		return err
	}
	b := wire.AuthOKBody{Error: &wire.ErrorBody{Code: int64(code), Message: "refused"}}
	if err := p.send(wire.Frame{Type: wire.AuthOK, Payload: b.Append(nil)}); err != nil {
		return err
	}
	p.t.Close(closeCode, "refused")
	return nil
}

// closeCode reads to the end, answering PING, and returns how the other side
// closed; 0: it did not say.
func (p *wirePeer) closeCode() int {
	for {
		f, err := p.next()
		if f.Type == wire.Ping && p.answers {
			p.send(wire.Frame{Type: wire.Ack, Position: p.counted})
		}
		var ce *link.CloseError
		switch {
		case errors.As(err, &ce):
			p.t.Kill()
			return ce.Code
		case err != nil:
			p.t.Kill()
			return 0
		}
	}
}

// join connects a peer driven by hand to srv.
func join(srv *Server, offer string) (*wirePeer, error) {
	near, far := link.Pipe()
	r := newUpgrade()
	var offers []string
	p := &wirePeer{t: near, dialect: session.Plain}
	if offer != "" {
		offers = []string{offer}
		p.dialect = session.JSON
		if offer != helloProtocol {
			p.dialect = session.Binary
		}
	}
	a, refused := srv.admit(r, offers)
	if refused != nil {
		return nil, fmt.Errorf("%d %s", refused.status, refused.text)
	}
	srv.start(far, a, r)
	return p, nil
}

func newUpgrade() *http.Request {
	r, err := http.NewRequest(http.MethodGet, "http://pipe/", nil)
	if err != nil {
		panic(err)
	}
	return r
}

// helloOf is the HELLO of a peer driven by hand that has all features.
func helloOf(attempt uint64) wire.HelloBody {
	return wire.HelloBody{Attempt: attempt, Limits: roomy, Features: everyFeature}
}
