package session

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// engine is a layer above that sends the frames it is given, all that fit, and
// notes what arrives. It is a carrier's opener as well.
type engine struct {
	mu       sync.Mutex
	queue    []wire.Frame
	got      []wire.Frame
	hellos   []wire.HelloBody
	welcomes []wire.WelcomeBody
	refusals []wire.ErrorBody
	goaways  []wire.GoAwayBody
	auths    []wire.AuthBody
	answers  []wire.AuthOKBody
	broken   []error
	onTake   func()
	onGot    func()
	onHello  func(*Carrier, wire.HelloBody)
	onOpened func(*Carrier, wire.WelcomeBody) error
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

func (e *engine) Receive(f *wire.Frame, _ *buf.Buf) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.got = append(e.got, copied(f))
	if e.onGot != nil {
		e.onGot()
	}
	return nil
}

func (e *engine) ReceiveArray(fs []wire.Frame, msg *buf.Buf) error {
	for i := range fs {
		e.Receive(&fs[i], msg)
	}
	return nil
}

func (e *engine) Odd([]wire.Oddity) {}

func (e *engine) Ours(uint64) bool { return false }

func (e *engine) Malformed(err error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.broken = append(e.broken, err)
	return nil
}

func (e *engine) Hello(c *Carrier, h wire.HelloBody) {
	e.mu.Lock()
	e.hellos = append(e.hellos, h)
	e.mu.Unlock()
	if e.onHello != nil {
		e.onHello(c, h)
	}
}

// Opened notes the WELCOME before onOpened attaches the carrier: a test that has
// read the ACK which follows looks at what was noted.
func (e *engine) Opened(c *Carrier, w wire.WelcomeBody) error {
	e.mu.Lock()
	e.welcomes = append(e.welcomes, w)
	e.mu.Unlock()
	if e.onOpened != nil {
		return e.onOpened(c, w)
	}
	return nil
}

// Auth refuses.
func (e *engine) Auth(c *Carrier, b wire.AuthBody) {
	e.mu.Lock()
	e.auths = append(e.auths, b)
	e.mu.Unlock()
	c.AuthOK(wire.AuthOKBody{Error: &wire.ErrorBody{Code: 12, Message: "no"}})
}

func (e *engine) AuthOK(b wire.AuthOKBody) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answers = append(e.answers, b)
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

// running is a session with a carrier that runs; raw is the other end of its
// pipe, driven by hand.
type running struct {
	*Session
	o       Options
	carrier *Carrier
	engine  *engine
	raw     *rawPeer
	end     chan error // why the link ended
}

// start makes a session that ends with its link, and a link for it in its
// opening.
func start(o Options) *running { return startLogging(o, 0) }

// startLogging makes a session that keeps log bytes. set changes it before it runs.
func startLogging(o Options, log int, set ...func(*running)) *running {
	if o.Message == 0 {
		o.Message = 1 << 20
	}
	e := new(engine)
	r := &running{Session: New(e, o.Dialect, o.Client, log, nil), o: o, engine: e}
	if o.Client {
		e.onOpened = func(c *Carrier, w wire.WelcomeBody) error { return r.Attach(c, w.Received, nil) }
	}
	for _, f := range set {
		f(r)
	}
	near, far := link.Pipe()
	r.dial(near, far)
	return r
}

// dial gives r a new link, in its opening.
func (r *running) dial(near, far link.Transport) {
	r.carrier = NewCarrier(near, r.engine, r.o)
	r.raw = &rawPeer{t: far, dialect: r.o.Dialect}
	if r.o.Dialect == Plain {
		if err := r.Attach(r.carrier, 0, nil); err != nil {
			panic(err)
		}
	}
	r.run()
}

// run serves the link.
func (r *running) run() {
	c, end := r.carrier, make(chan error, 1)
	r.end = end
	go func() {
		err := c.Run()
		r.Detach(c, err)
		end <- err
		close(end)
	}()
}

// accept makes c what carries the session, from position on.
func (r *running) accept(c *Carrier, position uint64, w wire.WelcomeBody) error {
	return r.Attach(c, position, func(received uint64) wire.WelcomeBody {
		w.Received = received
		return w
	})
}

func (r *running) send(fs ...wire.Frame) {
	r.engine.mu.Lock()
	r.engine.queue = append(r.engine.queue, fs...)
	r.engine.mu.Unlock()
	r.Wake()
}

// code ends the link's part and returns the close code that the peer saw.
func (r *running) code() int {
	code := r.raw.code()
	<-r.end
	return code
}

// cut ends the link without a goodbye.
func (r *running) cut() {
	r.carrier.Fail(&link.CloseError{Err: errCut})
	<-r.end
}

var errCut = errors.New("cut by the test")

func (r *running) stop() {
	r.End(&link.CloseError{Err: errors.New("the test is over")})
	r.carrier.Fail(&link.CloseError{Err: errors.New("the test is over")})
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

// code reads until the link ends and returns its close code, 0 for none.
func (p *rawPeer) code() int {
	for {
		_, err := p.message()
		var ce *link.CloseError
		if errors.As(err, &ce) {
			return ce.Code
		}
		if err != nil {
			return 0
		}
	}
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
	return openedLogging(t, o, 0)
}

func openedLogging(t *testing.T, o Options, log int) *running {
	t.Helper()
	r := startLogging(o, log)
	r.greet(t, 0)
	return r
}

// greet does the raw peer's part of an opening; received is its position.
func (r *running) greet(t *testing.T, received uint64) {
	t.Helper()
	if r.o.Client {
		_, _, own := r.Positions()
		r.carrier.Hello(wire.HelloBody{Attempt: 1, Received: own})
		_, err1 := r.raw.expect(wire.Hello)
		err2 := r.raw.send(welcomeFrame(wire.WelcomeBody{Token: "t", Received: received}))
		f, err3 := r.raw.next()
		for err3 == nil && f.Type == wire.Ping { // of Sync, in the same message
			f, err3 = r.raw.next()
		}
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		if f.Type != wire.Ack || f.Position != own {
			t.Fatalf("%v %d came instead of ACK %d", f.Type, f.Position, own)
		}
	} else {
		r.engine.onHello = func(c *Carrier, h wire.HelloBody) {
			if err := r.accept(c, h.Received, wire.WelcomeBody{Token: "t"}); err != nil {
				c.Fail(err)
			}
		}
		err1 := r.raw.send(helloFrame(wire.HelloBody{Attempt: 1, Received: received}))
		_, err2 := r.raw.expect(wire.Welcome)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Wait() // the writer is done with the handshake
}

// again gives r a new link and opens it.
func (r *running) again(t *testing.T, received uint64) {
	t.Helper()
	near, far := link.Pipe()
	r.dial(near, far)
	r.greet(t, received)
}

// dialects runs a test in a bubble for each dialect with a handshake.
func dialects(t *testing.T, f func(t *testing.T, d Dialect)) {
	for name, d := range map[string]Dialect{"binary": Binary, "json": JSON} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, d) })
		})
	}
}
