package main

import (
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// Keyed calls, whose answers are remembered.
var keyed = []attack{
	{name: "keyed-cut", what: "keyed calls with requests of 100 kB whose connections are cut while they run", run: keyedCut},
	{name: "keyed-revoked", what: "keyed calls with requests of 100 kB whose subject is revoked while they run", server: settings{auth: true}, run: keyedStay, after: revoke},
	{name: "keyed-closed", what: "keyed calls with requests of 100 kB whose connections are closed while they run", run: keyedClosed},
	{name: "keyed-answers", what: "keyed calls with answers of 100 kB, each with a key of its own", run: keyedAnswers},
	{name: "keyed-repeats", what: "1,000 repeats of one keyed call that runs, with requests of 100 kB", run: keyedRepeats},
}

var keys atomic.Int64

// keyedCalls are n calls with a request of size bytes, with a key each or one for
// all.
func (s *socket) keyedCalls(n, size int, one bool) []wire.Frame {
	body, _ := json.Marshal(keyedRequest{Wait: true, Pad: text(size)})
	fs := s.calls(n, "keyed", wire.Unary, string(body))
	for i := range fs {
		key := keys.Add(1)
		if one {
			key = 1 << 40
		}
		fs[i].Meta = map[string]string{"idempotency-key": fmt.Sprintf("%032x", key), "idempotency-age": "0"}
	}
	return fs
}

func keyedCut(a *arena) error { return a.keyedThen((*socket).Close) }

func keyedClosed(a *arena) error {
	return a.keyedThen(func(s *socket) error {
		defer s.Close()
		if err := s.part(true, opClose, 2, []byte{1000 >> 8, 1000 & 0xff}); err != nil {
			return err
		}
		return s.until()
	})
}

// keyedThen ends connections on which keyed calls run.
func (a *arena) keyedThen(end func(*socket) error) error {
	a.again(a.size(8, 4), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		if err := s.send(s.keyedCalls(20, 100_000, false)...); err != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
		return end(s)
	})
	return nil
}

func keyedAnswers(a *arena) error {
	a.talk(4, func(s *socket) error {
		fs := s.keyedCalls(50, 0, false)
		for i := range fs {
			fs[i].Payload = []byte(`{"Bytes":100000}`)
		}
		if err := s.send(fs...); err != nil {
			return err
		}
		return s.demand("echo", "the last")
	})
	return nil
}

func keyedStay(a *arena) error {
	a.crowd(a.size(50, 10), func(int) error {
		s, err := a.member("revoked")
		if err != nil {
			return err
		}
		s.obey()
		return s.send(s.keyedCalls(20, 100_000, false)...)
	})
	return nil
}

// revoke ends the connections of one subject.
func revoke(srv *process) error {
	n, err := srv.ask("revoke revoked")
	if err == nil && n == "0" {
		return fmt.Errorf("there was nobody to revoke")
	}
	return err
}

func keyedRepeats(a *arena) error {
	a.crowd(a.size(20, 6), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		s.obey()
		return s.send(s.keyedCalls(a.size(1000, 200), 100_000, true)...)
	})
	return nil
}
