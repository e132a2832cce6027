package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

const (
	binaryJSON = session.BinaryPrefix + "json"
	textHello  = session.HelloProtocol
	plain      = ""
)

// What a WebSocket frame is, RFC 6455 section 5.2.
const (
	opContinue = 0
	opText     = 1
	opBinary   = 2
	opClose    = 8
	opPing     = 9
)

// socket is a WebSocket of which every byte is ours to choose. Its frames are
// masked with zeros, so that attackers spend nothing on it.
type socket struct {
	net.Conn
	a     *arena
	r     *bufio.Reader
	op    byte // of messages
	id    uint64
	token string // of the session
	took  uint64 // counted frames that demand has read
}

// upgrade opens a WebSocket that speaks protocol.
func (a *arena) upgrade(protocol string, header http.Header) (*socket, error) {
	c, err := a.dial()
	if err != nil {
		return nil, err
	}
	s := &socket{Conn: c, a: a, r: bufio.NewReader(c), op: opText}
	var b strings.Builder
	fmt.Fprintf(&b, "GET / HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", a.addr)
	if protocol != plain {
		fmt.Fprintf(&b, "Sec-WebSocket-Protocol: %s\r\n", protocol)
	}
	if protocol == binaryJSON {
		s.op = opBinary
	}
	header.Write(&b)
	b.WriteString("\r\n")
	if _, err := io.WriteString(c, b.String()); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(s.r, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, refusal(resp.StatusCode)
	}
	return s, nil
}

// refusal is the HTTP status of a server that did not upgrade.
type refusal int

func (r refusal) Error() string { return fmt.Sprint("refused with ", int(r)) }

// greedy is what attackers say that they take: everything.
var greedy = wire.Limits{Message: 16<<20 - 64<<10, Calls: 1 << 20, Window: 1 << 30, Budget: 1 << 40}

var hisFeatures = []string{"streams", "fragments"} // no "resume": the session ends with its link

// open begins a session that ends with its link.
func (a *arena) open() (*socket, error) {
	return a.begin(wire.HelloBody{Attempt: 1, Limits: greedy, Features: hisFeatures})
}

// talk is again with a socket that is open, and is closed when fn returns.
func (a *arena) talk(n int, fn func(s *socket) error) {
	a.again(n, func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		defer s.Close()
		return fn(s)
	})
}

// member is open with a name.
func (a *arena) member(name string) (*socket, error) {
	creds := fmt.Appendf(nil, `{"Name":%q}`, name)
	return a.begin(wire.HelloBody{Attempt: 1, Limits: greedy, Features: hisFeatures, Credentials: creds})
}

func (a *arena) begin(h wire.HelloBody) (*socket, error) {
	s, err := a.upgrade(binaryJSON, nil)
	if err != nil {
		return nil, err
	}
	if err := s.hello(h); err != nil {
		return s, err
	}
	return s, s.send(wire.Frame{Type: wire.Ack})
}

// hello is the opening without what confirms the session.
func (s *socket) hello(h wire.HelloBody) error {
	if err := s.send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}); err != nil {
		return err
	}
	msg, err := s.message()
	if err != nil {
		return err
	}
	var f wire.Frame
	if _, err := wire.DecodeBinary(msg, &f, nil); err != nil {
		return err
	}
	if f.Type != wire.Welcome {
		return errors.New("no WELCOME")
	}
	w, err := wire.ParseWelcome(f.Payload)
	s.token = w.Token
	return err
}

// send writes frames, in messages of at most 60 KiB or one frame.
func (s *socket) send(fs ...wire.Frame) error {
	var msg []byte
	for i := range fs {
		var err error
		if msg, err = wire.AppendBinary(msg, &fs[i]); err != nil {
			return err
		}
		if len(msg) > 60<<10 || i == len(fs)-1 {
			if err := s.whole(msg); err != nil {
				return err
			}
			msg = msg[:0]
		}
	}
	return nil
}

// whole writes a message in one WebSocket frame.
func (s *socket) whole(msg []byte) error { return s.part(true, s.op, len(msg), msg) }

// part writes a WebSocket frame's header, and of what it announces as much as there
// is in b.
func (s *socket) part(last bool, op byte, announced int, b []byte) error {
	_, err := s.Write(append(webSocketHeader(nil, last, op, announced), b...))
	return err
}

func webSocketHeader(dst []byte, last bool, op byte, n int) []byte {
	if last {
		op |= 0x80
	}
	switch dst = append(dst, op); {
	case n < 126:
		dst = append(dst, 0x80|byte(n))
	case n <= math.MaxUint16:
		dst = binary.BigEndian.AppendUint16(append(dst, 0x80|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 0x80|127), uint64(n))
	}
	return append(dst, 0, 0, 0, 0)
}

// errClosed is the server's close frame.
type errClosed int

func (e errClosed) Error() string { return fmt.Sprint("closed with ", int(e)) }

// message reads the next message of the server's.
func (s *socket) message() ([]byte, error) {
	var msg []byte
	for {
		var h [2]byte
		if _, err := io.ReadFull(s.r, h[:]); err != nil {
			return nil, err
		}
		n := uint64(h[1])
		var ext [8]byte
		switch n {
		case 126:
			_, err := io.ReadFull(s.r, ext[6:])
			if n = binary.BigEndian.Uint64(ext[:]); err != nil {
				return nil, err
			}
		case 127:
			_, err := io.ReadFull(s.r, ext[:])
			if n = binary.BigEndian.Uint64(ext[:]); err != nil {
				return nil, err
			}
		}
		at := len(msg)
		msg = append(msg, make([]byte, n)...)
		if _, err := io.ReadFull(s.r, msg[at:]); err != nil {
			return nil, err
		}
		switch op := h[0] & 0xf; {
		case op == opClose:
			code := 0
			if n >= 2 {
				code = int(binary.BigEndian.Uint16(msg[at:]))
			}
			s.a.note(fmt.Sprint("closed with ", code), 1)
			return nil, errClosed(code)
		case op > opClose:
			msg = msg[:at]
		case h[0]&0x80 != 0:
			return msg, nil
		}
	}
}

// drain reads what comes and throws it away, on a goroutine of its own, until the
// socket ends. gone is closed then.
func (s *socket) drain() (gone <-chan struct{}) {
	done := make(chan struct{})
	s.SetReadDeadline(time.Time{}) // also when the attack is over, for as long as we stay
	go func() {
		defer close(done)
		io.Copy(io.Discard, s.r)
	}()
	return done
}

// obey reads what comes and acknowledges it, on a goroutine of its own, until the
// socket ends.
func (s *socket) obey() { s.answer(wire.Frame{}) }

// answer is obey, and answers each call, where answer has a type.
func (s *socket) answer(answer wire.Frame) {
	s.SetReadDeadline(time.Time{})
	go func() {
		var counted, told uint64
		for {
			msg, err := s.message()
			if err != nil {
				return
			}
			var answers []wire.Frame
			for len(msg) > 0 {
				var f wire.Frame
				n, err := wire.DecodeBinary(msg, &f, nil)
				if err != nil {
					return
				}
				if msg = msg[n:]; f.Type.Counted() {
					counted++
				}
				if f.Type == wire.Call && answer.Type != 0 {
					answer.ID = f.ID
					answers = append(answers, answer)
				}
				if f.Type == wire.Ping || counted > told+32 {
					told = counted
					s.send(wire.Frame{Type: wire.Ack, Position: counted})
				}
			}
			s.send(answers...)
		}
	}()
}

// until reads messages until the server closes, and returns how.
func (s *socket) until() error {
	for {
		if _, err := s.message(); err != nil {
			return err
		}
	}
}

// call is a CALL with the next id.
func (s *socket) call(method string, kind wire.Kind, payload string) wire.Frame {
	s.id++
	f := wire.Frame{Type: wire.Call, ID: s.id, Kind: kind, Method: method, Payload: []byte(payload)}
	if kind == wire.ServerStream {
		f.Flags = wire.NoItems
	}
	return f
}

// calls are n equal CALLs.
func (s *socket) calls(n int, method string, kind wire.Kind, payload string) []wire.Frame {
	fs := make([]wire.Frame, n)
	for i := range fs {
		fs[i] = s.call(method, kind, payload)
	}
	return fs
}

// repeat sends the same frames, encoded once, n times.
func (s *socket) repeat(n int, fs ...wire.Frame) error {
	var msg []byte
	for i := range fs {
		var err error
		if msg, err = wire.AppendBinary(msg, &fs[i]); err != nil {
			return err
		}
	}
	for range n {
		if err := s.whole(msg); err != nil {
			return err
		}
	}
	return nil
}

// demand asks for something to be done, waits for it, and acknowledges it.
func (s *socket) demand(method string, request any) error {
	b, _ := json.Marshal(request)
	if err := s.send(s.call(method, wire.Unary, string(b))); err != nil {
		return err
	}
	for {
		msg, err := s.message()
		if err != nil {
			return err
		}
		for len(msg) > 0 {
			var f wire.Frame
			n, err := wire.DecodeBinary(msg, &f, nil)
			if err != nil {
				return err
			}
			if msg = msg[n:]; f.Type.Counted() {
				s.took++
			}
			if f.ID == s.id && (f.Type == wire.Result || f.Type == wire.Fail) {
				return s.send(wire.Frame{Type: wire.Ack, Position: s.took})
			}
		}
	}
}

// quoted is a JSON string of n bytes.
func quoted(n int) string { return `"` + text(n-2) + `"` }

// manyPairs is metadata of about 15 kB in 1,600 pairs.
var manyPairs = func() map[string]string {
	m := map[string]string{}
	for i := range 1600 {
		m[fmt.Sprintf("k%05d", i)] = "abc"
	}
	return m
}()
