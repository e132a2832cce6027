package main

import (
	"fmt"
	"io"
	"time"
)

// Peers that go on, but hardly.
var slowPeers = []attack{
	{name: "slow-upgrades", what: "2,000 upgrade requests of which a byte comes every 100 ms", run: slowUpgrades},
	{name: "slow-openings", what: "2,000 upgraded connections that say no HELLO", run: slowOpenings},
	{name: "slow-hello", what: "1,000 HELLOs of which a byte comes every 100 ms", run: slowHello},
	{name: "slow-messages", what: "messages of 4 MiB of which 1 MiB comes at once and then a byte every 100 ms", run: slowMessages},
	{name: "slow-plain", what: "1,100 plain peers that say nothing", run: slowPlain},
}

// crawl drips into all of what attackers opened at once.
func (a *arena) crawl(all <-chan io.Writer) {
	var ws []io.Writer
	for w := range all {
		ws = append(ws, w)
	}
	for range a.size(50, 4) {
		for _, w := range ws {
			w.Write([]byte{'x'})
		}
		time.Sleep(100 * time.Millisecond)
	}
	a.note("went slowly", len(ws))
}

func slowUpgrades(a *arena) error {
	n := a.size(2000, 300)
	all := make(chan io.Writer, n)
	a.crowd(n, func(int) error {
		c, err := a.dial()
		if err != nil {
			return err
		}
		all <- c
		_, err = io.WriteString(c, "GET / HTTP/1.1\r\nX: ")
		return err
	})
	close(all)
	a.crawl(all)
	return nil
}

func slowOpenings(a *arena) error {
	a.crowd(a.size(2000, 300), func(int) error {
		_, err := a.upgrade(binaryJSON, nil)
		return err
	})
	return nil
}

func slowHello(a *arena) error {
	n := a.size(1000, 200)
	all := make(chan io.Writer, n)
	a.crowd(n, func(int) error {
		s, err := a.upgrade(binaryJSON, nil)
		if err != nil {
			return err
		}
		all <- s
		return s.part(true, s.op, 60<<10, []byte(text(30<<10)))
	})
	close(all)
	a.crawl(all)
	return nil
}

func slowMessages(a *arena) error {
	n := a.size(1000, 200)
	all := make(chan io.Writer, n)
	a.crowd(n, func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		all <- s
		return s.part(true, s.op, almost, []byte(text(1<<20)))
	})
	close(all)
	a.crawl(all)
	return nil
}

func slowPlain(a *arena) error {
	a.crowd(a.size(1100, 200), func(int) error {
		_, err := a.upgrade(plain, nil)
		if r, ok := err.(refusal); ok {
			a.note(fmt.Sprint("refused with ", int(r)), 1)
		}
		return err
	})
	return nil
}
