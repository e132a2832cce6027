package main

import (
	"bytes"
	"compress/flate"
	"fmt"
	"net/http"
	"strings"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// Much of something, as fast as it goes.
var floods = []attack{
	{name: "flood-unknown", what: "calls of names that nobody handles", run: func(a *arena) error { a.steady("nobody.handles.this", "1"); return nil }},
	{name: "flood-echo", what: "small calls, with their answers taken", run: func(a *arena) error { a.steady("echo", `"x"`); return nil }},
	{name: "flood-calls", what: "calls of 100 kB that wait, far beyond the limits", run: floodCalls},
	{name: "flood-opened", what: "streams opened and cancelled", run: floodOpened},
	{name: "flood-cancels", what: "cancels of calls that never were", run: func(a *arena) error { return a.offend(wire.Frame{Type: wire.Cancel, ID: 1 << 40}) }},
	{name: "flood-items", what: "items for streams that never were", run: func(a *arena) error {
		return a.offend(wire.Frame{Type: wire.Item, Flags: wire.FromCaller, ID: 1 << 40, Payload: []byte(quoted(100))})
	}},
	{name: "flood-results", what: "results of calls that never were", run: func(a *arena) error {
		return a.offend(wire.Frame{Type: wire.Result, ID: 1 << 40, Payload: []byte(quoted(100))})
	}},
	{name: "flood-malformed", what: "frames that are malformed, each in another way, on new connections", run: malformed},
	{name: "flood-invalid", what: "plain peers' batches of 1,024 elements that must each be answered with an error, unread", run: invalid},
	{name: "flood-nesting", what: "JSON that nests 4 million times", run: nesting},
	{name: "flood-deflate", what: "compressed messages of 20 kB that are 20 MB", server: settings{compress: true}, run: bomb},
}

func floodCalls(a *arena) error {
	a.crowd(a.size(60, 16), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		s.obey()
		return s.send(s.calls(a.size(500, 200), "keep", wire.Unary, quoted(100_000))...)
	})
	return nil
}

func floodOpened(a *arena) error {
	a.talk(8, func(s *socket) error {
		s.obey()
		for range 100 {
			var fs []wire.Frame
			for range 100 {
				f := s.call("talk", wire.BidiStream, `""`)
				fs = append(fs, f, wire.Frame{Type: wire.Cancel, ID: f.ID})
			}
			if err := s.send(fs...); err != nil {
				return err
			}
		}
		return nil
	})
	return nil
}

// offend sends frames that mean nothing until it is thrown out.
func (a *arena) offend(f wire.Frame) error {
	many := make([]wire.Frame, 100)
	for i := range many {
		many[i] = f
	}
	a.talk(4, func(s *socket) error {
		go s.repeat(1000, many...)
		return s.until()
	})
	return nil
}

func malformed(a *arena) error {
	bad := []string{
		"", "\x00", "\xc8", "\xc8\xff\xff\xff", "\xc8\x00\x00\x00", "\x00\x00\x00\x00", "\x88\x01\x00\x00\x01", "\xc8\x05\x00\x00\x00\x00\x00\x01m",
		"\xc8\x05\x00\x00\x01\xff\x00\x01m", "\xc8\x06\x00\x00\x01\x00\x00\xff\xff\x03", "\xce\x03\x00\x00\x01\x00\x00", "\x05\x02\x00\x00\xff\xff",
		"\x06\x0a\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "\x01\x02\x00\x00{}", "\x02\x02\x00\x00{}", "\x07\x01\x00\x00x", "\xf0\x01\x00\x00\x00",
		"\x8f\x01\x00\x00\x00", "\x8f\x05\x00\x00\x01n\xff\xff\x7f", "\x8f\x03\x00\x00\x01\xff\x00", "\xcc\x02\x00\x00\x07\xff",
	}
	a.again(8, func(i int) error {
		for ; !a.over(); i++ {
			s, err := a.open()
			if err != nil {
				return err
			}
			if err := s.whole([]byte(bad[i%len(bad)])); err != nil {
				return err
			}
			s.message()
			s.Close()
		}
		return nil
	})
	return nil
}

func invalid(a *arena) error {
	msg := []byte("[" + strings.Repeat("1,", 1023) + "1]")
	a.again(8, func(int) error {
		s, err := a.upgrade(plain, nil)
		if err != nil {
			return err
		}
		for range 1000 {
			if err := s.whole(msg); err != nil {
				return err
			}
		}
		return nil
	})
	return nil
}

func nesting(a *arena) error {
	deep := strings.Repeat("[", 4<<20-200)
	a.again(4, func(i int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		defer s.Close()
		if i%2 == 0 {
			s.obey()
			return s.send(s.calls(5, "echo", wire.Unary, deep)...)
		}
		if s, err = a.upgrade(plain, nil); err != nil {
			return err
		}
		defer s.Close()
		return s.whole([]byte(`{"jsonrpc":"2.0","id":1,"method":"echo","params":` + deep))
	})
	return nil
}

func bomb(a *arena) error {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, 9)
	w.Write([]byte(`{"jsonrpc":"2.0","id":1,"method":"echo","params":["`))
	for range 5 {
		w.Write([]byte(text(4_000_000)))
	}
	w.Flush()
	msg := bytes.TrimSuffix(b.Bytes(), []byte{0, 0, 0xff, 0xff})
	h := http.Header{"Sec-Websocket-Extensions": {"permessage-deflate; client_no_context_takeover; server_no_context_takeover"}}
	a.again(a.size(100, 30), func(int) error {
		s, err := a.upgrade(plain, h)
		if err != nil {
			return err
		}
		defer s.Close()
		const compressed = 0x40 // RSV1
		if err := s.part(true, opText|compressed, len(msg), msg); err != nil {
			return err
		}
		return s.until()
	})
	if len(msg) > 40_000 {
		return fmt.Errorf("the bomb has %d bytes", len(msg))
	}
	return nil
}
