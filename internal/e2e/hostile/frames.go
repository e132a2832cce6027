package main

import (
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Frames that cost their sender nothing.
var frames = []attack{
	{name: "frames-pings", what: "WebSocket pings, as fast as they go", run: func(a *arena) error { return a.pace(opPing, true, "") }},
	{name: "frames-pings-unread", what: "WebSocket pings of 125 bytes whose pongs are not read", run: pingsUnread},
	{name: "frames-empty", what: "empty WebSocket fragments of a message that never ends", run: func(a *arena) error { return a.pace(opContinue, false, "") }},
	{name: "frames-tiny", what: "WebSocket fragments of one byte", run: func(a *arena) error { return a.pace(opContinue, false, "x") }},
	{name: "frames-messages", what: "messages of one ACK each", run: func(a *arena) error { return a.spam(wire.Frame{Type: wire.Ack}) }},
	{name: "frames-rpc-pings", what: "PING frames, each of which is answered", run: func(a *arena) error { return a.spam(wire.Frame{Type: wire.Ping}) }},
	{name: "frames-unknown", what: "frames of types that nobody knows", run: func(a *arena) error { return a.spam(wire.Frame{Type: 30, Payload: []byte("x")}) }},
	{name: "frames-chunks", what: "a CALL in fragments of one byte", run: tinyChunks},
	{name: "frames-credits", what: "CREDIT of new windows for a stream, one after another", run: credits},
	{name: "frames-items", what: "empty items of a stream", run: tinyItems},
}

// pace sends many WebSocket frames with a system call, behind the beginning of a
// message if they continue one.
func (a *arena) pace(op byte, last bool, payload string) error {
	var many []byte
	for range 5000 {
		many = append(webSocketHeader(many, last, op, len(payload)), payload...)
	}
	a.talk(4, func(s *socket) error {
		s.drain()
		if op == opContinue {
			if err := s.part(false, s.op, 1, []byte{0xc8}); err != nil {
				return err
			}
		}
		for range 200 {
			if _, err := s.Write(many); err != nil {
				return err
			}
		}
		return nil
	})
	return nil
}

func pingsUnread(a *arena) error {
	var many []byte
	for range 1000 {
		many = append(webSocketHeader(many, true, opPing, 125), text(125)...)
	}
	a.crowd(a.size(100, 20), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		for range 50 {
			if _, err := s.Write(many); err != nil {
				return err
			}
		}
		return nil
	})
	return nil
}

// spam sends a frame a thousand times with each system call, a message for each.
func (a *arena) spam(f wire.Frame) error {
	one, err := wire.AppendBinary(nil, &f)
	if err != nil {
		return err
	}
	var many []byte
	for range 1000 {
		many = append(webSocketHeader(many, true, opBinary, len(one)), one...)
	}
	a.talk(4, func(s *socket) error {
		s.drain()
		for range 500 {
			if _, err := s.Write(many); err != nil {
				return err
			}
		}
		return nil
	})
	return nil
}

func tinyChunks(a *arena) error {
	a.talk(4, func(s *socket) error {
		s.drain()
		f := s.call("keep", wire.Unary, `"`)
		f.Flags = wire.More
		if err := s.send(f); err != nil {
			return err
		}
		many := make([]wire.Frame, 1000)
		for i := range many {
			many[i] = wire.Frame{Type: wire.Chunk, Flags: wire.More | wire.FromCaller, ID: f.ID, Payload: []byte("x")}
		}
		return s.repeat(1000, many...)
	})
	return nil
}

func credits(a *arena) error {
	a.talk(4, func(s *socket) error {
		s.drain()
		f := s.call("pour", wire.ServerStream, "10")
		if err := s.send(f); err != nil {
			return err
		}
		many := make([]wire.Frame, 100)
		for i := range many {
			many[i] = wire.Frame{Type: wire.Credit, Flags: wire.FromCaller, ID: f.ID, Items: 1, Window: uint64(1<<20 + i)}
		}
		return s.repeat(100, many...)
	})
	return nil
}

func tinyItems(a *arena) error {
	a.talk(4, func(s *socket) error {
		s.drain()
		f := s.call("talk", wire.BidiStream, `""`)
		if err := s.send(f); err != nil {
			return err
		}
		many := make([]wire.Frame, 500)
		for i := range many {
			many[i] = wire.Frame{Type: wire.Item, Flags: wire.FromCaller, ID: f.ID, Payload: []byte(`""`)}
		}
		return s.repeat(100, many...)
	})
	return nil
}
