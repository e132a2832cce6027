package main

import (
	"fmt"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// Subscriptions, and what is published to them.
var subscriptions = []attack{
	{name: "subscriptions-keys", what: "50 connections with 1,000 subscriptions each to keys of 255 bytes", goroutines: 1000, run: manyKeys},
	{name: "subscriptions-churn", what: "subscriptions that begin and end, each to another key", run: keysComeAndGo},
	{name: "subscriptions-history", what: "a history for each of 2,000 keys", run: histories},
	{name: "subscriptions-past", what: "1,000 subscriptions to one key that has a history, without credit", run: pasts},
	{name: "subscriptions-slow", what: "1,000 subscriptions on each of ten connections that give no credit, and messages of 60 kB", run: slowSubscribers},
}

func manyKeys(a *arena) error {
	a.crowd(a.size(50, 10), func(c int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		s.obey()
		var fs []wire.Frame
		for i := range 1000 {
			fs = append(fs, s.call("news", wire.ServerStream, fmt.Sprintf(`"%08d%s"`, c*1000+i, text(247))))
		}
		return s.send(fs...)
	})
	return nil
}

func keysComeAndGo(a *arena) error {
	a.again(8, func(c int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		defer s.Close()
		s.obey()
		for !a.over() {
			var fs []wire.Frame
			for range 50 {
				f := s.call("news", wire.ServerStream, fmt.Sprintf(`"%d/%d"`, c, s.id))
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

func histories(a *arena) error {
	a.crowd(4, func(c int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		for i := range a.size(500, 60) {
			key := fmt.Sprint(c, "/", i)
			f := s.call("past", wire.ServerStream, `"`+key+`"`)
			if err := s.send(f); err != nil {
				return err
			}
			if err := s.demand("spread", spreadRequest{Topic: "past", Key: key, Count: 10, Bytes: 60_000}); err != nil {
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

func pasts(a *arena) error {
	s, err := a.open()
	if err != nil {
		return err
	}
	if err := s.send(s.call("past", wire.ServerStream, `"p"`)); err != nil {
		return err
	}
	if err := s.demand("spread", spreadRequest{Topic: "past", Key: "p", Count: 100, Bytes: 2000}); err != nil {
		return err
	}
	a.crowd(a.size(20, 4), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		return s.send(s.calls(a.size(1000, 300), "past", wire.ServerStream, `"p"`)...)
	})
	return nil
}

func slowSubscribers(a *arena) error {
	a.crowd(a.size(10, 3), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		return s.send(s.calls(a.size(1000, 200), "news", wire.ServerStream, `"0"`)...)
	})
	s, err := a.open()
	if err != nil {
		return err
	}
	return s.demand("spread", spreadRequest{Key: "0", Count: a.size(100, 20), Bytes: 60_000})
}
