package session

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// engine is a layer above that sends the frames it is given, all that fit, and
// notes what arrives.
type engine struct {
	mu       sync.Mutex
	queue    []wire.Frame
	got      []wire.Frame
	hellos   []wire.HelloBody
	welcomes []wire.WelcomeBody
	refusals []wire.ErrorBody
	goaways  []wire.GoAwayBody
	broken   []error
	onTake   func()
	onHello  func(wire.HelloBody)
	onOpened func() error
}

func (e *engine) Take(b *Batch) {
	if e.onTake != nil {
		e.onTake()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.queue) > 0 && b.Fits(&e.queue[0], 0) {
		b.Add(&e.queue[0], nil)
		e.queue = e.queue[1:]
	}
}

func (e *engine) Receive(f *wire.Frame) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.got = append(e.got, copied(f))
	return nil
}

func (e *engine) ReceiveArray(fs []wire.Frame) error {
	for i := range fs {
		e.Receive(&fs[i])
	}
	return nil
}

func (e *engine) Malformed(err error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.broken = append(e.broken, err)
	return nil
}

func (e *engine) Hello(h wire.HelloBody) {
	e.mu.Lock()
	e.hellos = append(e.hellos, h)
	e.mu.Unlock()
	if e.onHello != nil {
		e.onHello(h)
	}
}

func (e *engine) Opened(w wire.WelcomeBody) error {
	if e.onOpened != nil {
		return e.onOpened()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.welcomes = append(e.welcomes, w)
	return nil
}

func (e *engine) Refused(b *wire.ErrorBody) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.refusals = append(e.refusals, *b)
}

func (e *engine) GoAway(b wire.GoAwayBody) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.goaways = append(e.goaways, b)
}

func (e *engine) received() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.got)
}

func copied(f *wire.Frame) wire.Frame {
	c := *f
	c.Payload, c.RawID = slices.Clone(f.Payload), slices.Clone(f.RawID)
	return c
}

// running is a session whose Run is under way; raw is the other end of its
// pipe, driven by hand.
type running struct {
	*Session
	engine *engine
	raw    *rawPeer
	end    chan error
}

func start(o Options) *running {
	near, far := link.Pipe()
	e := new(engine)
	if o.Message == 0 {
		o.Message = 1 << 20
	}
	r := &running{Session: New(near, e, o), engine: e, raw: &rawPeer{t: far, dialect: o.Dialect}, end: make(chan error, 1)}
	go func() { r.end <- r.Run() }()
	return r
}

func (r *running) send(fs ...wire.Frame) {
	r.engine.mu.Lock()
	r.engine.queue = append(r.engine.queue, fs...)
	r.engine.mu.Unlock()
	r.Wake()
}

// code ends the test's part and returns the close code that the peer saw.
func (r *running) code() int {
	for {
		_, err := r.raw.message()
		var ce *link.CloseError
		if errors.As(err, &ce) {
			<-r.end
			return ce.Code
		}
		if err != nil {
			<-r.end
			return 0
		}
	}
}

func (r *running) stop() {
	r.Fail(&link.CloseError{Err: errors.New("the test is over")})
	<-r.end
}

// rawPeer writes and reads frames without any session of its own.
type rawPeer struct {
	t       link.Transport
	dialect Dialect
	frames  []wire.Frame
}

// send writes all frames in one message.
func (p *rawPeer) send(fs ...wire.Frame) error {
	var msg []byte
	var err error
	for i := range fs {
		if p.dialect == Binary {
			if msg, err = wire.AppendBinary(msg, &fs[i]); err != nil {
				return err
			}
			continue
		}
		switch {
		case i > 0:
			msg = append(msg, ',')
		case len(fs) > 1:
			msg = append(msg, '[')
		}
		if msg, err = wire.AppendJSON(msg, &fs[i], p.dialect == JSON); err != nil {
			return err
		}
	}
	if p.dialect != Binary && len(fs) > 1 {
		msg = append(msg, ']')
	}
	return p.write(msg)
}

func (p *rawPeer) write(msg []byte) error {
	return p.t.Write(msg, p.dialect != Binary, func() {})
}

// message reads one message's frames.
func (p *rawPeer) message() ([]wire.Frame, error) {
	b, _, err := p.t.Read(func() {})
	if err != nil {
		return nil, err
	}
	if p.dialect != Binary {
		r := wire.Reader{Hello: p.dialect == JSON}
		frames, _, err := r.Read(b.B)
		return slices.Clone(frames), err
	}
	var fs []wire.Frame
	for msg := b.B; len(msg) > 0; {
		var f wire.Frame
		n, err := wire.DecodeBinary(msg, &f, nil)
		if err != nil {
			return fs, err
		}
		fs, msg = append(fs, f), msg[n:]
	}
	return fs, nil
}

// next reads the next frame.
func (p *rawPeer) next() (wire.Frame, error) {
	for len(p.frames) == 0 {
		fs, err := p.message()
		if err != nil {
			return wire.Frame{}, err
		}
		p.frames = fs
	}
	f := p.frames[0]
	p.frames = p.frames[1:]
	return f, nil
}

// expect reads the next frame and checks its type.
func (p *rawPeer) expect(typ wire.Type) (wire.Frame, error) {
	f, err := p.next()
	if err == nil && f.Type != typ {
		err = fmt.Errorf("%v arrived instead of %v", f.Type, typ)
	}
	return f, err
}

func helloFrame(h wire.HelloBody) wire.Frame {
	return wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}
}

func welcomeFrame(w wire.WelcomeBody) wire.Frame {
	return wire.Frame{Type: wire.Welcome, Payload: w.Append(nil)}
}

func note(n int) wire.Frame {
	return wire.Frame{Type: wire.Notify, Method: "n", Payload: []byte(fmt.Sprint(n))}
}

// opened returns a session whose handshake is over, as seen by a raw client or
// server.
func opened(t *testing.T, o Options) *running {
	t.Helper()
	r := start(o)
	if o.Client {
		r.Hello(wire.HelloBody{Attempt: 1})
		_, err1 := r.raw.expect(wire.Hello)
		err2 := r.raw.send(welcomeFrame(wire.WelcomeBody{Token: "t"}))
		_, err3 := r.raw.expect(wire.Ack)
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the writer is done with the handshake
		return r
	}
	r.engine.onHello = func(wire.HelloBody) { r.Accept(wire.WelcomeBody{Token: "t"}) }
	err1 := r.raw.send(helloFrame(wire.HelloBody{Attempt: 1}))
	_, err2 := r.raw.expect(wire.Welcome)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return r
}

// dialects runs a test in a bubble for each dialect with a handshake.
func dialects(t *testing.T, f func(t *testing.T, d Dialect)) {
	for name, d := range map[string]Dialect{"binary": Binary, "json": JSON} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, d) })
		})
	}
}
