package main

import (
	"strings"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// Openings, and what is in them.
var handshakes = []attack{
	{name: "handshake-hello", what: "HELLOs of 64 KiB that are read in full: 64 features, and members that nobody knows", run: largeHello},
	{name: "handshake-malformed", what: "HELLOs that are malformed, each in another way", run: badHellos},
	{name: "handshake-early", what: "1,000 calls behind a HELLO that is not answered yet", server: settings{auth: true}, run: early},
	{name: "handshake-auth", what: "openings whose authentication takes all the time that it has", server: settings{auth: true}, run: slowAuth},
	{name: "handshake-refresh", what: "credentials refreshed without an end on a live link", server: settings{auth: true}, run: refresh},
	{name: "handshake-drop", what: "connections that are upgraded and dropped at once", run: upgradeAndDrop},
	{name: "handshake-connect", what: "TCP connections that say nothing and leave", run: connectAndDrop},
}

func largeHello(a *arena) error {
	h := wire.HelloBody{Attempt: 1, Limits: greedy, Cache: text(60)}
	for i := range 64 {
		h.Features = append(h.Features, text(400)+string(rune('a'+i)))
	}
	b := h.Append(nil)
	b = append(b[:len(b)-1], `,"other":"`+text(60<<10-len(b))+`"}`...)
	a.crowd(a.size(2000, 200), func(int) error {
		s, err := a.upgrade(binaryJSON, nil)
		if err != nil {
			return err
		}
		if err := s.send(wire.Frame{Type: wire.Hello, Payload: b}); err != nil {
			return err
		}
		_, err = s.message()
		return err
	})
	return nil
}

func badHellos(a *arena) error {
	bodies := []string{
		"", "{", "[]", "null", `{"attempt":"1"}`, `{"attempt":-1}`, `{"attempt":1,"attempt":2}`, `{"limits":[]}`, `{"features":{}}`,
		`{"attempt":1e999}`, `{"token":7}`, `{"features":[` + strings.Repeat(`"f",`, 10_000) + `"f"]}`, `{"credentials":` + strings.Repeat("[", 10_000) + `}`,
		"{\"client\":\"\xff\"}", `{"attempt":1}x`, `{"limits":{"message":99999999999999999999}}`, `{"attempt":1,"received":18446744073709551615,"token":"x"}`,
	}
	a.again(8, func(i int) error {
		for ; !a.over(); i++ {
			s, err := a.upgrade(binaryJSON, nil)
			if err != nil {
				return err
			}
			s.send(wire.Frame{Type: wire.Hello, Payload: []byte(bodies[i%len(bodies)])})
			s.message()
			s.Close()
		}
		return nil
	})
	return nil
}

// hello sends a HELLO with credentials, and does not wait.
func (a *arena) hello(creds string) (*socket, error) {
	s, err := a.upgrade(binaryJSON, nil)
	if err != nil {
		return nil, err
	}
	h := wire.HelloBody{Attempt: 1, Limits: greedy, Features: append([]string{"auth"}, hisFeatures...), Credentials: []byte(creds)}
	return s, s.send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)})
}

func early(a *arena) error {
	a.crowd(a.size(200, 50), func(int) error {
		s, err := a.hello(`{"Slow":true}`)
		if err != nil {
			return err
		}
		return s.send(s.calls(1000, "keep", wire.Unary, quoted(1000))...)
	})
	return nil
}

func slowAuth(a *arena) error {
	a.crowd(a.size(2000, 300), func(int) error {
		_, err := a.hello(`{"Slow":true,"Name":` + quoted(30_000) + `}`)
		return err
	})
	return nil
}

func refresh(a *arena) error {
	body := wire.AuthBody{Credentials: []byte(`{"Name":"refresher","Fail":` + quoted(30_000) + `}`)}
	f := wire.Frame{Type: wire.Auth, Payload: body.Append(nil)}
	a.again(8, func(int) error {
		s, err := a.hello(`{"Name":"refresher"}`)
		if err != nil {
			return err
		}
		defer s.Close()
		if _, err := s.message(); err != nil {
			return err
		}
		go s.repeat(1000, f)
		return s.until()
	})
	return nil
}

func upgradeAndDrop(a *arena) error {
	a.again(16, func(int) error {
		s, err := a.upgrade(binaryJSON, nil)
		if err != nil {
			return err
		}
		a.note("dropped", 1)
		return s.Close()
	})
	return nil
}

func connectAndDrop(a *arena) error {
	a.again(16, func(int) error {
		c, err := a.dial()
		if err != nil {
			return err
		}
		a.note("dropped", 1)
		return c.Close()
	})
	return nil
}
