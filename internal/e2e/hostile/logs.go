package main

import (
	"net/http"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// What peers can have written into the log.
var logs = []attack{
	{name: "logs-origins", what: "232 upgrades with an Origin of 900 kB", run: logOrigins},
	{name: "logs-errors", what: "calls whose handler returns an error with a kilobyte of the peer's", run: logErrors},
	{name: "logs-panics", what: "calls whose handler panics with a kilobyte of the peer's", run: logPanics},
	{name: "logs-credentials", what: "credentials whose check fails with 32 kB of the peer's", server: settings{auth: true}, run: logCredentials},
	{name: "logs-payloads", what: "notifications and calls whose payloads cannot be decoded", run: logPayloads},
	{name: "logs-protocols", what: "upgrades that offer an unknown subprotocol of 100 kB", run: logProtocols},
}

func logOrigins(a *arena) error {
	h := http.Header{"Origin": {"http://" + text(900_000)}}
	a.crowd(a.size(232, 40), func(int) error {
		_, err := a.upgrade(binaryJSON, h)
		return err
	})
	return nil
}

// steady calls a method without an end, and takes the answers.
func (a *arena) steady(method, payload string) {
	a.talk(8, func(s *socket) error {
		s.obey()
		for range 100 {
			if a.over() {
				break
			}
			if err := s.send(s.calls(100, method, wire.Unary, payload)...); err != nil {
				return err
			}
		}
		return nil
	})
}

func logErrors(a *arena) error {
	a.steady("fail", quoted(1000))
	return nil
}

func logPanics(a *arena) error {
	a.steady("panic", quoted(1000))
	return nil
}

func logCredentials(a *arena) error {
	a.crowd(a.size(1000, 150), func(int) error {
		s, err := a.begin(wire.HelloBody{Attempt: 1, Limits: greedy, Features: hisFeatures, Credentials: []byte(`{"Fail":` + quoted(32_000) + `}`)})
		if s != nil {
			s.Close()
		}
		return err
	})
	return nil
}

func logPayloads(a *arena) error {
	bad := `{"a":` + quoted(1000) + `}`
	f := wire.Frame{Type: wire.Notify, Method: "fast", Payload: []byte(bad)}
	a.talk(8, func(s *socket) error {
		s.obey()
		if err := s.send(s.calls(500, "echo", wire.Unary, bad)...); err != nil {
			return err
		}
		return s.repeat(50, f)
	})
	return nil
}

func logProtocols(a *arena) error {
	a.crowd(a.size(500, 80), func(int) error {
		_, err := a.upgrade("x"+text(100_000), nil)
		return err
	})
	return nil
}
