package main

import (
	"fmt"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// Who is subscribed, and who looks on.
var presence = []attack{
	{name: "presence-onlookers", what: "a topic with 3,000 members; four connections open 1,000 presence streams each and give no credit", run: onlookers},
	{name: "presence-churn", what: "members come and go by the thousand before 1,000 presence streams without credit", run: churn},
	{name: "presence-names", what: "members whose names have a kilobyte each, on connections of their own, looking at each other", server: settings{auth: true}, run: longNames},
}

// anchor is a connection whose subscription keeps room 0, with members in it.
func (a *arena) anchor(members int) (*socket, error) {
	s, err := a.open()
	if err != nil {
		return nil, err
	}
	if err := s.send(s.call("news", wire.ServerStream, `"0"`)); err != nil {
		return nil, err
	}
	if err := s.demand("echo", "the room is there"); err != nil {
		return nil, err
	}
	return s, s.demand("crowd", crowdRequest{Count: members, By: 1})
}

func onlookers(a *arena) error {
	if _, err := a.anchor(a.size(3000, 1500)); err != nil {
		return err
	}
	a.crowd(4, func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		s.drain()
		return s.send(s.calls(a.size(1000, 300), "news.presence", wire.ServerStream, `"0"`)...)
	})
	return nil
}

func churn(a *arena) error {
	n := a.size(2000, 500)
	s, err := a.anchor(0)
	if err != nil {
		return err
	}
	a.crowd(a.size(10, 4), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		s.drain()
		return s.send(s.calls(100, "news.presence", wire.ServerStream, `"0"`)...)
	})
	for i := range a.size(20, 6) {
		if err := s.demand("crowd", crowdRequest{From: i * n, Count: n, By: 1}); err != nil {
			return err
		}
		if err := s.demand("crowd", crowdRequest{From: i * n, Count: n, By: -1}); err != nil {
			return err
		}
	}
	return nil
}

func longNames(a *arena) error {
	a.crowd(a.size(500, 100), func(i int) error {
		s, err := a.member(fmt.Sprint(i, text(1000)))
		if err != nil {
			return err
		}
		if err := s.send(s.call("news", wire.ServerStream, `"0"`)); err != nil {
			return err
		}
		return s.send(s.calls(a.size(20, 10), "news.presence", wire.ServerStream, `"0"`)...)
	})
	return nil
}
