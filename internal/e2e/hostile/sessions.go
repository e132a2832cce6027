package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Sessions, which outlive their links.
var sessions = []attack{
	{name: "sessions-dropped", what: "10,563 sessions begun and dropped while an honest client is in a tunnel", server: settings{grace: 10 * time.Second, kept: 300}, run: dropped, beside: tunnel},
	{name: "sessions-confirmed", what: "the same, each confirmed before it is dropped", server: settings{grace: 10 * time.Second, kept: 300}, run: confirmed, beside: tunnel},
	{name: "sessions-heavy", what: "sessions dropped with 4 MB of replies that nobody acknowledged", run: heavySessions},
	{name: "sessions-streams", what: "sessions dropped with 1,000 streams each", run: streamSessions},
	{name: "sessions-guessed", what: "HELLOs with guessed tokens", run: guessed},
	{name: "sessions-resumed", what: "one session resumed again and again, as fast as it goes", run: resumedAgain},
	{name: "sessions-superseded", what: "sessions begun anew under one client's name, again and again", run: superseded},
}

var resumes = append([]string{"resume"}, hisFeatures...)

// resumable begins a session that outlives its link, and confirms it.
func (a *arena) resumable() (*socket, error) {
	return a.begin(wire.HelloBody{Attempt: 1, Limits: greedy, Features: resumes})
}

func dropped(a *arena) error { return a.dropMany(false) }

func confirmed(a *arena) error { return a.dropMany(true) }

func (a *arena) dropMany(confirm bool) error {
	a.crowd(a.size(10_563, 1000), func(int) error {
		s, err := a.upgrade(binaryJSON, nil)
		if err != nil {
			return err
		}
		defer s.Close()
		if err := s.hello(wire.HelloBody{Attempt: 1, Limits: greedy, Features: resumes}); err != nil || !confirm {
			return err
		}
		return s.send(wire.Frame{Type: wire.Ack})
	})
	return nil
}

// tunnel is an honest client that is without a link for some seconds, with a call
// in flight that must be answered.
func tunnel(ctx context.Context, addr string, full bool) error {
	t := &tunnelled{}
	web := &http.Client{Transport: &http.Transport{DialContext: t.dial}}
	defer web.CloseIdleConnections()
	conn, err := typedrpc.Dial(ctx, "ws://"+addr, &typedrpc.DialOptions{HTTPClient: web, Backoff: typedrpc.Backoff{Max: 200 * time.Millisecond}})
	if err != nil {
		return err
	}
	defer conn.Close()
	answer := typedrpc.Go(ctx, conn, methodSleep, 1000)
	time.Sleep(50 * time.Millisecond)
	t.enter()
	away := 2 * time.Second
	if full {
		away = 7 * time.Second // all of the attackers need longer here
	}
	time.Sleep(away)
	t.leave()
	if _, err = answer.Await(ctx); err != nil {
		return fmt.Errorf("the call from the tunnel: %w", err)
	}
	return nil
}

// tunnelled is a net.Dialer for which there are times without a network.
type tunnelled struct {
	mu     sync.Mutex
	inside bool
	conns  []net.Conn
}

func (t *tunnelled) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.inside {
		return nil, errors.New("in a tunnel")
	}
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err == nil {
		t.conns = append(t.conns, c)
	}
	return c, err
}

func (t *tunnelled) enter() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inside = true
	for _, c := range t.conns {
		c.Close()
	}
}

func (t *tunnelled) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inside = false
}

func heavySessions(a *arena) error {
	a.crowd(a.size(500, 80), func(int) error {
		s, err := a.resumable()
		if err != nil {
			return err
		}
		if err := s.demand("echo", "before"); err != nil {
			return err
		}
		if err := s.send(s.calls(66, "big", wire.Unary, "60000")...); err != nil {
			return err
		}
		for range 30 { // what comes is in the session's log
			if _, err := s.message(); err != nil {
				break
			}
		}
		return s.Close()
	})
	return nil
}

func streamSessions(a *arena) error {
	a.crowd(a.size(100, 20), func(int) error {
		s, err := a.resumable()
		if err != nil {
			return err
		}
		if err := s.send(s.calls(1000, "talk", wire.BidiStream, `""`)...); err != nil {
			return err
		}
		return s.Close()
	})
	return nil
}

func guessed(a *arena) error {
	a.crowd(a.size(5000, 500), func(i int) error {
		s, err := a.begin(wire.HelloBody{Attempt: 2, Limits: greedy, Features: resumes, Token: fmt.Sprintf("%032x", i)})
		if err != nil {
			return err
		}
		return s.Close()
	})
	return nil
}

func resumedAgain(a *arena) error {
	a.again(4, func(int) error {
		s, err := a.resumable()
		if err != nil {
			return err
		}
		token := s.token
		for attempt := uint64(2); !a.over(); attempt++ {
			s.Close()
			s, err = a.begin(wire.HelloBody{Attempt: attempt, Limits: greedy, Features: resumes, Token: token})
			if err != nil {
				return err
			}
			token = s.token
			a.note("resumed", 1)
		}
		return nil
	})
	return nil
}

func superseded(a *arena) error {
	a.again(8, func(i int) error {
		for attempt := uint64(1); !a.over(); attempt++ {
			s, err := a.begin(wire.HelloBody{Attempt: attempt, Client: fmt.Sprint("client", i), Limits: greedy, Features: resumes})
			if err != nil {
				return err
			}
			s.Close()
		}
		return nil
	})
	return nil
}
