package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// Peers that make the server answer and do not take the answers.
var unread = []attack{
	{name: "unread-60k", what: "connections that each make 1,000 calls with replies of 60 kB, read TCP and never acknowledge", run: unacknowledged},
	{name: "unread-one-message", what: "one connection asks for 300 replies of 4 MB in one message of 7.7 kB and reads nothing", run: oneMessage},
	{name: "unread-sockets", what: "connections that each make 1,000 calls with replies of 60 kB and read nothing", run: readsNothing},
	{name: "unread-plain", what: "plain JSON-RPC peers that each make 1,000 calls with replies of 60 kB and read nothing", run: plainUnread},
	{name: "unread-batch", what: "plain JSON-RPC peers that send batches of 1,024 calls with replies of 1 MB and read nothing", run: plainBatch},
	{name: "unread-jsonrpc", what: "as unread-60k, in the JSON-RPC dialect with HELLO", run: helloUnread},
	{name: "unread-errors", what: "connections that never acknowledge errors of 8 kB each", run: unreadErrors},
	{name: "unread-streams", what: "connections that open 1,000 server streams with a window of a gigabyte and read nothing", run: unreadStreams},
	{name: "unread-drip", what: "connections that acknowledge one reply of 60 kB every 50 ms", run: dripAcks},
	{name: "unread-back", what: "calls whose handlers call the caller 200 times each, who neither reads nor answers", run: unreadBack},
}

func unacknowledged(a *arena) error {
	a.crowd(a.size(60, 12), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		s.drain()
		return s.send(s.calls(a.size(1000, 500), "big", wire.Unary, "60000")...)
	})
	return nil
}

func oneMessage(a *arena) error {
	s, err := a.open()
	if err != nil {
		return err
	}
	return s.send(s.calls(a.size(300, 80), "big", wire.Unary, "4000000")...)
}

func readsNothing(a *arena) error {
	a.crowd(a.size(60, 12), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		return s.send(s.calls(a.size(1000, 500), "big", wire.Unary, "60000")...)
	})
	return nil
}

func plainUnread(a *arena) error {
	a.crowd(a.size(60, 12), func(int) error {
		s, err := a.upgrade(plain, nil)
		if err != nil {
			return err
		}
		for i := range a.size(1000, 500) {
			if err := s.whole(fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%d,"method":"big","params":[60000]}`, i)); err != nil {
				return err
			}
		}
		return nil
	})
	return nil
}

// batch is a plain peer's, of n equal calls.
func batch(n int, method string, params any) []byte {
	p, _ := json.Marshal(params)
	b := []byte{'['}
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `{"jsonrpc":"2.0","id":%d,"method":%q,"params":[%s]}`, i+1, method, p)
	}
	return append(b, ']')
}

func plainBatch(a *arena) error {
	a.crowd(a.size(4, 2), func(int) error {
		s, err := a.upgrade(plain, nil)
		if err != nil {
			return err
		}
		return s.whole(batch(a.size(1024, 300), "big", 1_000_000))
	})
	return nil
}

func helloUnread(a *arena) error {
	a.crowd(a.size(60, 12), func(int) error {
		s, err := a.upgrade(textHello, nil)
		if err != nil {
			return err
		}
		if err := s.whole([]byte(`{"jsonrpc":"2.0","id":"rpc.hello","method":"rpc.hello","params":{"attempt":1,"limits":{"message":16000000,"calls":100000}}}`)); err != nil {
			return err
		}
		if _, err := s.message(); err != nil {
			return err
		}
		s.drain()
		return s.whole(batch(a.size(1000, 500), "big", 60_000))
	})
	return nil
}

func unreadErrors(a *arena) error {
	a.crowd(a.size(60, 20), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		s.drain()
		for range a.size(10, 2) {
			if err := s.send(s.calls(1000, "refuse", wire.Unary, quoted(8000))...); err != nil {
				return err
			}
		}
		return nil
	})
	return nil
}

func unreadStreams(a *arena) error {
	a.crowd(a.size(20, 4), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		return s.send(s.calls(a.size(1000, 400), "pour", wire.ServerStream, "60000")...)
	})
	return nil
}

func dripAcks(a *arena) error {
	a.crowd(a.size(60, 12), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		gone := s.drain()
		if err := s.send(s.calls(a.size(1000, 500), "big", wire.Unary, "60000")...); err != nil {
			return err
		}
		for i := range a.size(60, 6) {
			select {
			case <-gone:
				return errClosed(0)
			case <-time.After(50 * time.Millisecond):
				s.send(wire.Frame{Type: wire.Ack, Position: uint64(i)})
			}
		}
		return nil
	})
	return nil
}

func unreadBack(a *arena) error {
	a.crowd(a.size(20, 4), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		return s.send(s.calls(1000, "back", wire.Unary, "200")...)
	})
	return nil
}
