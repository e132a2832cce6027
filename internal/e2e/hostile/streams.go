package main

import (
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Streams, from the caller's side.
var streams = []attack{
	{name: "streams-idle", what: "50 connections with 1,000 streams each on which nothing is said", run: idleStreams},
	{name: "streams-deaf", what: "1,000 streams on each of ten connections, each with a window of items that no handler receives", run: deafStreams},
	{name: "streams-large", what: "streams with one item of 4 MB that no handler receives", run: largeItems},
	{name: "streams-over", what: "items far beyond the window", run: overItems},
}

func idleStreams(a *arena) error {
	a.crowd(a.size(50, 10), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		s.obey()
		return s.send(s.calls(1000, "talk", wire.BidiStream, `""`)...)
	})
	return nil
}

// deaf opens n streams with items that no handler receives.
func (s *socket) deaf(n, items, size int) error {
	item := []byte(quoted(size))
	for range n {
		f := s.call("deaf", wire.ClientStream, `""`)
		if err := s.send(f); err != nil {
			return err
		}
		if err := s.repeat(items, wire.Frame{Type: wire.Item, Flags: wire.FromCaller, ID: f.ID, Payload: item}); err != nil {
			return err
		}
	}
	return nil
}

func deafStreams(a *arena) error {
	a.crowd(a.size(10, 4), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		s.obey()
		return s.deaf(a.size(1000, 800), 8, 8000)
	})
	return nil
}

func largeItems(a *arena) error {
	a.crowd(a.size(60, 12), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		s.obey()
		return s.deaf(a.size(100, 8), 1, 4_000_000)
	})
	return nil
}

func overItems(a *arena) error {
	a.talk(8, func(s *socket) error {
		s.obey()
		return s.deaf(10, 1000, 8000)
	})
	return nil
}
