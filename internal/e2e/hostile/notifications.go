package main

import (
	"strings"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// Notifications, which have no answer.
var notifications = []attack{
	{name: "notes-names", what: "connections with as many notifications of names of 255 bytes as are tolerated behind a handler that never returns", run: noteNames},
	{name: "notes-plain", what: "plain peers with tiny notifications behind a handler that never returns", run: notesPlain},
	{name: "notes-over", what: "notifications far beyond the window", run: notesOver},
	{name: "notes-large", what: "notifications of 4 MB behind a handler that never returns", run: notesLarge},
	{name: "notes-serial", what: "calls of a serial method of which the first never returns", run: notesSerial},
	{name: "notes-fast", what: "notifications whose handlers return, without an end", run: notesFast},
}

func noteNames(a *arena) error {
	a.crowd(a.size(60, 8), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		s.obey()
		if err := s.send(wire.Frame{Type: wire.Notify, Method: "slow", Payload: []byte(`""`)}); err != nil {
			return err
		}
		f := wire.Frame{Type: wire.Notify, Method: strings.Repeat("n", 255), Payload: []byte("1")}
		return s.repeat(a.size(6000, 3000), f, f, f, f, f, f, f, f, f, f) // times ten
	})
	return nil
}

func notesPlain(a *arena) error {
	one := `{"jsonrpc":"2.0","method":"slow","params":[""]}`
	msg := []byte("[" + strings.Repeat(one+",", 1023) + one + "]")
	a.crowd(a.size(50, 8), func(int) error {
		s, err := a.upgrade(plain, nil)
		if err != nil {
			return err
		}
		s.drain()
		for range a.size(200, 60) {
			if err := s.whole(msg); err != nil {
				return err
			}
		}
		return nil
	})
	return nil
}

func notesOver(a *arena) error {
	f := wire.Frame{Type: wire.Notify, Method: "slow", Payload: []byte(quoted(1000))}
	a.talk(16, func(s *socket) error {
		go s.repeat(10_000, f, f, f, f)
		return s.until()
	})
	return nil
}

func notesLarge(a *arena) error {
	a.crowd(a.size(300, 60), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		s.obey()
		return s.repeat(2, wire.Frame{Type: wire.Notify, Method: "slow", Payload: []byte(quoted(4_000_000))})
	})
	return nil
}

func notesSerial(a *arena) error {
	a.crowd(a.size(60, 12), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		s.obey()
		return s.send(s.calls(1000, "serial", wire.Unary, quoted(8000))...)
	})
	return nil
}

func notesFast(a *arena) error {
	f := wire.Frame{Type: wire.Notify, Method: "fast", Payload: []byte(`"x"`)}
	a.talk(4, func(s *socket) error {
		s.obey()
		return s.repeat(1000, f, f, f, f, f, f, f, f)
	})
	return nil
}
