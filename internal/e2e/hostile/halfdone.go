package main

import (
	"github.com/typedrpc/typedrpc/internal/wire"
)

// almost is a message of nearly the largest size.
const almost = 4<<20 - 100

// Peers that begin what they do not finish.
var halfDone = []attack{
	{name: "half-calls", what: "connections with two CALLs of 3.9 MiB each in fragments, never finished", run: halfCalls},
	{name: "half-items", what: "connections with 20 streams and an ITEM of 3.9 MiB in each in fragments, never finished", run: halfItems},
	{name: "half-notify", what: "connections with a NOTIFY of 3.9 MiB in fragments, never finished", run: halfNotify},
	{name: "half-messages", what: "WebSocket messages of 4 MiB less 100 bytes, never finished", run: halfMessages},
	{name: "half-plain", what: "the same of plain JSON-RPC peers", run: halfPlain},
	{name: "half-fragments", what: "WebSocket messages of 4 MiB in frames of 16 kB, the last one never sent", run: halfFragments},
	{name: "half-announced", what: "2,000 WebSocket frames whose headers announce 4 MiB, with one byte of it", run: halfAnnounced},
	{name: "half-frames", what: "connections that end in the middle of a WebSocket frame, again and again", run: halfFrames},
	{name: "half-turns", what: "CALLs in fragments that are cancelled before their last, again and again", run: halfCancelled},
}

// begun sends all of a payload but its last piece, in fragments.
func (s *socket) begun(f wire.Frame, n int) error {
	piece := []byte(text(32 << 10))
	f.Flags |= wire.More
	f.Payload = append([]byte{'"'}, piece...)
	id := f.ID
	for n > 0 {
		if err := s.send(f); err != nil {
			return err
		}
		n -= len(piece)
		f = wire.Frame{Type: wire.Chunk, Flags: wire.More | wire.FromCaller, ID: id, Payload: piece}
		if id == 0 {
			f.Flags = wire.More
		}
	}
	return nil
}

func halfCalls(a *arena) error {
	a.crowd(a.size(300, 40), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		s.obey()
		for range 2 {
			if err := s.begun(s.call("keep", wire.Unary, ""), 3900<<10); err != nil {
				return err
			}
		}
		return nil
	})
	return nil
}

func halfItems(a *arena) error {
	a.crowd(a.size(30, 4), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		s.obey()
		for range 20 {
			f := s.call("deaf", wire.ClientStream, `""`)
			if err := s.send(f); err != nil {
				return err
			}
			if err := s.begun(wire.Frame{Type: wire.Item, Flags: wire.FromCaller, ID: f.ID}, 3900<<10); err != nil {
				return err
			}
		}
		return nil
	})
	return nil
}

func halfNotify(a *arena) error {
	a.crowd(a.size(300, 60), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		s.obey()
		return s.begun(wire.Frame{Type: wire.Notify, Method: "slow"}, 3900<<10)
	})
	return nil
}

func halfMessages(a *arena) error {
	a.crowd(a.size(400, 70), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		return s.part(true, s.op, almost, []byte(text(almost-100)))
	})
	return nil
}

func halfPlain(a *arena) error {
	a.crowd(a.size(400, 70), func(int) error {
		s, err := a.upgrade(plain, nil)
		if err != nil {
			return err
		}
		return s.part(true, s.op, almost, []byte(text(almost-100)))
	})
	return nil
}

func halfFragments(a *arena) error {
	a.crowd(a.size(400, 60), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		op := s.op
		for range 255 {
			if err := s.part(false, op, 16<<10, []byte(text(16<<10))); err != nil {
				return err
			}
			op = opContinue
		}
		return nil
	})
	return nil
}

func halfAnnounced(a *arena) error {
	a.crowd(a.size(2000, 300), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		return s.part(true, s.op, almost, []byte{'x'})
	})
	return nil
}

func halfFrames(a *arena) error {
	a.talk(16, func(s *socket) error {
		return s.part(true, s.op, almost, []byte(text(1<<20)))
	})
	return nil
}

func halfCancelled(a *arena) error {
	a.talk(16, func(s *socket) error {
		s.obey()
		for !a.over() {
			f := s.call("keep", wire.Unary, "")
			if err := s.begun(f, 1<<20); err != nil {
				return err
			}
			if err := s.send(wire.Frame{Type: wire.Cancel, ID: f.ID}); err != nil {
				return err
			}
		}
		return nil
	})
	return nil
}
