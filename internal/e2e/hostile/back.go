package main

import (
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Handlers that call who called them, again and again.
var back = []attack{
	{name: "back-many", what: "calls whose handlers call the caller 1,000 times each, who reads and does not answer", run: backMany},
	{name: "back-unread", what: "the same, of callers that read nothing", run: backUnread},
	{name: "back-fails", what: "the same, of callers that answer each with an error of 8 kB", run: func(a *arena) error {
		return a.backAnswered(wire.Frame{Type: wire.Fail, Code: 100, Message: text(8000)})
	}},
	{name: "back-details", what: "the same, with errors that have 60 kB of data", run: func(a *arena) error {
		return a.backAnswered(wire.Frame{Type: wire.Fail, Code: 100, Message: "x", Payload: []byte(`{"detail":` + quoted(60_000) + `}`)})
	}},
	{name: "back-answers", what: "the same, with answers of 100 bytes", run: func(a *arena) error {
		return a.backAnswered(wire.Frame{Type: wire.Result, Payload: []byte(quoted(100))})
	}},
}

func backMany(a *arena) error {
	a.crowd(a.size(20, 4), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		s.obey()
		return s.send(s.calls(a.size(1000, 100), "back", wire.Unary, "1000")...)
	})
	return nil
}

func backUnread(a *arena) error {
	a.crowd(a.size(20, 4), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		return s.send(s.calls(a.size(1000, 100), "back", wire.Unary, "1000")...)
	})
	return nil
}

// backAnswered answers the calls of handlers, which keep what they are answered.
func (a *arena) backAnswered(answer wire.Frame) error {
	a.crowd(a.size(20, 4), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		s.answer(answer)
		return s.send(s.calls(a.size(1000, 100), "back", wire.Unary, "1000")...)
	})
	return nil
}
