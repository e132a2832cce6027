package session

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/wire"
)

func TestOpening_serverAnswersHello(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := start(Options{Dialect: d})
		r.engine.onHello = func(c *Carrier, _ wire.HelloBody) {
			r.accept(c, 0, wire.WelcomeBody{Token: "tok", Keepalive: 7})
		}
		is.NoErr(r.raw.send(helloFrame(wire.HelloBody{Attempt: 3, Token: "old", Received: 9, Credentials: []byte(`"c"`)})))
		f, err := r.raw.expect(wire.Welcome)
		is.NoErr(err)
		w, err := wire.ParseWelcome(f.Payload)
		is.NoErr(err)
		is.Equal(w.Token, "tok")
		is.Equal(w.Keepalive, uint64(7))
		h := r.engine.hellos[0]
		is.Equal(h.Attempt, uint64(3))
		is.Equal(h.Token, "old")
		is.Equal(h.Received, uint64(9))
		r.stop()
	})
}

func TestOpening_clientAcknowledgesAtOnce(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := start(Options{Dialect: d, Client: true})
		r.carrier.Hello(wire.HelloBody{Attempt: 1})
		r.send(note(1)) // ready long before WELCOME
		_, err := r.raw.expect(wire.Hello)
		is.NoErr(err)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		is.Equal(len(r.raw.frames), 0)
		began := time.Now()
		is.NoErr(r.raw.send(welcomeFrame(wire.WelcomeBody{Token: "t"})))
		_, err = r.raw.expect(wire.Ack) // it confirms the token
		is.NoErr(err)
		_, err = r.raw.expect(wire.Notify)
		is.NoErr(err)
		is.Equal(time.Since(began), time.Duration(0))
		is.Equal(len(r.engine.welcomes), 1)
		r.stop()
	})
}

// The writer may still be awake from HELLO when WELCOME arrives: it must not
// take frames for a session that the engine does not know yet.
func TestOpening_nothingIsTakenBeforeTheEngineIsReady(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := start(Options{Dialect: d, Client: true})
		ready := false
		early := 0
		r.engine.onTake = func() {
			if !ready {
				early++
			}
		}
		r.engine.onOpened = func(c *Carrier, w wire.WelcomeBody) error {
			c.link.Wake()
			time.Sleep(time.Second)
			ready = true
			return r.Attach(c, w.Received, nil)
		}
		r.carrier.Hello(wire.HelloBody{Attempt: 1})
		r.send(note(1))
		_, err := r.raw.expect(wire.Hello)
		is.NoErr(err)
		is.NoErr(r.raw.send(welcomeFrame(wire.WelcomeBody{Token: "t"})))
		_, err = r.raw.expect(wire.Ack)
		is.NoErr(err)
		_, err = r.raw.expect(wire.Notify)
		is.NoErr(err)
		is.Equal(early, 0)
		r.stop()
	})
}

func TestOpening_whatIsNoHandshakeClosesIt(t *testing.T) {
	hello, welcome := helloFrame(wire.HelloBody{Attempt: 1}), welcomeFrame(wire.WelcomeBody{Token: "t"})
	cases := []struct {
		name   string
		client bool
		send   [][]wire.Frame // messages
	}{
		{"a call before HELLO", false, [][]wire.Frame{{{Type: wire.Call, ID: 1, Method: "m"}}}},
		{"PING before HELLO", false, [][]wire.Frame{{{Type: wire.Ping}}}},
		{"HELLO with more in its message", false, [][]wire.Frame{{hello, note(1)}}},
		{"more after HELLO and before WELCOME", false, [][]wire.Frame{{hello}, {note(1)}}},
		{"PING after HELLO and before WELCOME", false, [][]wire.Frame{{hello}, {{Type: wire.Ping}}}},
		{"two HELLOs", false, [][]wire.Frame{{hello}, {hello}}},
		{"WELCOME to a server", false, [][]wire.Frame{{welcome}}},
		{"a notification before WELCOME", true, [][]wire.Frame{{note(1)}}},
		{"HELLO to a client", true, [][]wire.Frame{{hello}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dialects(t, func(t *testing.T, d Dialect) {
				is := is.New(t)
				r := start(Options{Dialect: d, Client: c.client})
				for _, fs := range c.send {
					if err := r.raw.send(fs...); err != nil {
						is.Equal(d, JSON) // its writer refuses HELLO in an array
						is.NoErr(r.raw.write([]byte(`[{"jsonrpc":"2.0","id":"rpc.hello","method":"rpc.hello","params":{"attempt":1}},{"jsonrpc":"2.0","method":"n"}]`)))
					}
				}
				is.Equal(r.code(), CloseProtocol)
				is.Equal(r.engine.received(), 0) // nothing is handled before authentication
			})
		})
	}
}

func TestOpening_malformedHandshakes(t *testing.T) {
	bad := []byte(`{"attempt":"one"}`)
	for _, client := range []bool{false, true} {
		dialects(t, func(t *testing.T, d Dialect) {
			is := is.New(t)
			r := start(Options{Dialect: d, Client: client})
			f := wire.Frame{Type: wire.Hello, Payload: bad}
			if client {
				f = wire.Frame{Type: wire.Welcome, Payload: []byte(`{"token":1}`)}
			}
			is.NoErr(r.raw.send(f))
			is.Equal(r.code(), CloseProtocol)
		})
	}
}

func TestOpening_secondHandshakeClosesIt(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := opened(t, Options{Dialect: d})
		is.NoErr(r.raw.send(helloFrame(wire.HelloBody{Attempt: 2})))
		is.Equal(r.code(), CloseProtocol)
	})
}

func TestOpening_timesOut(t *testing.T) {
	for _, client := range []bool{false, true} {
		dialects(t, func(t *testing.T, d Dialect) {
			is := is.New(t)
			began := time.Now()
			r := start(Options{Dialect: d, Client: client, Handshake: 10 * time.Second})
			is.Equal(r.code(), CloseTimeout)
			is.Equal(time.Since(began), 10*time.Second)
			is.True(errors.Is(r.carrier.link.Err(), ErrHandshakeTimeout))
			is.NoErr(r.Err()) // the session never had that link
		})
	}
}

func TestOpening_timesOutWhileAuthenticating(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := start(Options{Dialect: d, Handshake: 10 * time.Second})
		is.NoErr(r.raw.send(helloFrame(wire.HelloBody{Attempt: 1}))) // and nobody accepts
		is.Equal(r.code(), CloseTimeout)
		// Too late: it is like a link that was lost in the moment it opened.
		is.NoErr(r.accept(r.carrier, 0, wire.WelcomeBody{Token: "t"}))
		lost, over := r.Detach(r.carrier, r.carrier.link.Err())
		is.True(lost && over)
		_, err := r.raw.next()
		is.True(err != nil) // no WELCOME
	})
}

func TestOpening_noTimeoutOnceOpen(t *testing.T) {
	for _, client := range []bool{false, true} {
		dialects(t, func(t *testing.T, d Dialect) {
			is := is.New(t)
			r := opened(t, Options{Dialect: d, Client: client, Handshake: 10 * time.Second})
			time.Sleep(time.Hour)
			is.NoErr(r.Err())
			r.stop()
		})
	}
}

func TestOpening_plainNeedsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		r := start(Options{Dialect: Plain, Handshake: time.Second})
		is.NoErr(r.raw.write([]byte(`{"jsonrpc":"2.0","method":"n","params":[1]}`)))
		time.Sleep(time.Hour)
		is.NoErr(r.Err())
		is.Equal(r.engine.received(), 1)
		is.NoErr(r.raw.write([]byte(`{"jsonrpc":`)))
		is.NoErr(r.raw.write([]byte(`[{"jsonrpc":"2.0","method":"a"},{"jsonrpc":"2.0","method":"b"}]`)))
		synctest.Wait()
		is.Equal(len(r.engine.broken), 1)
		is.Equal(r.engine.received(), 3)
		r.stop()
	})
}

func TestOpening_refusal(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := start(Options{Dialect: d})
		r.engine.onHello = func(c *Carrier, _ wire.HelloBody) {
			c.Refuse(wire.ErrorBody{Code: 16, Message: "who are you?"}, CloseUnauthed, "no")
		}
		is.NoErr(r.raw.send(helloFrame(wire.HelloBody{Attempt: 1})))
		f, err := r.raw.expect(wire.AuthOK)
		is.NoErr(err)
		b, err := wire.ParseAuthOK(f.Payload)
		is.NoErr(err)
		is.Equal(b.Error.Message, "who are you?")
		is.Equal(r.code(), CloseUnauthed) // after the text, not instead of it
	})
}

func TestOpening_clientLearnsOfARefusal(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := start(Options{Dialect: d, Client: true})
		body := wire.AuthOKBody{Error: &wire.ErrorBody{Code: 16, Message: "who are you?"}}
		is.NoErr(r.raw.send(wire.Frame{Type: wire.AuthOK, Payload: body.Append(nil)}))
		r.raw.t.Close(CloseUnauthed, "no")
		var ce *link.CloseError
		is.True(errors.As(<-r.end, &ce))
		is.Equal(ce.Code, CloseUnauthed)
		is.Equal(len(r.engine.refusals), 1)
		is.Equal(r.engine.refusals[0].Message, "who are you?")
		is.Equal(len(r.engine.welcomes), 0)
	})
}

func TestOpening_textAndBinaryDoNotMix(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := opened(t, Options{Dialect: d})
		is.NoErr(r.raw.t.Write([]byte("x"), d == Binary, func() {}))
		is.Equal(r.code(), CloseProtocol)
	})
}

func TestOpening_smallBufferBeforeWelcome(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		r := start(Options{Dialect: d})
		is.NoErr(r.raw.write(make([]byte, wire.MaxBuffered+1)))
		is.Equal(r.code(), 1009)
	})
}
