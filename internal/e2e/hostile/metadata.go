package main

import (
	"bytes"
	"encoding/json"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// Metadata costs more as a map than on the wire.
var metadata = []attack{
	{name: "metadata-calls", what: "ten connections with 985 calls each that have 15 kB of metadata in 1,600 pairs and wait", run: metaCalls},
	{name: "metadata-plain", what: "plain peers with calls that have 15 kB of metadata in 1,600 pairs and wait", run: metaPlain},
	{name: "metadata-notes", what: "notifications with 15 kB of metadata in 1,600 pairs behind a handler that never returns", run: metaNotes},
	{name: "metadata-streams", what: "streams with 15 kB of metadata in 1,600 pairs", run: metaStreams},
	{name: "metadata-too-much", what: "calls with metadata over its limit, again and again", run: metaTooMuch},
}

func metaCalls(a *arena) error {
	a.crowd(a.size(10, 4), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		s.obey()
		fs := s.calls(a.size(985, 500), "keep", wire.Unary, `""`)
		for i := range fs {
			fs[i].Meta = manyPairs
		}
		return s.send(fs...)
	})
	return nil
}

func metaPlain(a *arena) error {
	meta, _ := json.Marshal(manyPairs)
	one := bytes.Join([][]byte{[]byte(`{"jsonrpc":"2.0","id":1,"method":"keep","params":[""],"meta":`), meta, []byte(`}`)}, nil)
	a.crowd(a.size(20, 4), func(int) error {
		s, err := a.upgrade(plain, nil)
		if err != nil {
			return err
		}
		s.drain()
		for range a.size(985, 300) {
			if err := s.whole(one); err != nil {
				return err
			}
		}
		return nil
	})
	return nil
}

func metaNotes(a *arena) error {
	a.crowd(a.size(300, 60), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		s.obey()
		return s.repeat(250, wire.Frame{Type: wire.Notify, Method: "slow", Payload: []byte(`""`), Meta: manyPairs})
	})
	return nil
}

func metaStreams(a *arena) error {
	a.crowd(a.size(10, 4), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		s.obey()
		fs := s.calls(a.size(985, 400), "talk", wire.BidiStream, `""`)
		for i := range fs {
			fs[i].Meta = manyPairs
		}
		return s.send(fs...)
	})
	return nil
}

func metaTooMuch(a *arena) error {
	// What the encoder refuses is made by hand: a count of 100,000 pairs, "a" and
	// "" each.
	body := append([]byte{1, 0, 0, 4, 'k', 'e', 'e', 'p', 0xa0, 0x8d, 0x06}, bytes.Repeat([]byte{1, 'a', 0}, 100_000)...)
	frame := append([]byte{0xc8, byte(len(body)), byte(len(body) >> 8), byte(len(body) >> 16)}, body...)
	a.talk(8, func(s *socket) error {
		if err := s.whole(frame); err != nil {
			return err
		}
		return s.until()
	})
	return nil
}
