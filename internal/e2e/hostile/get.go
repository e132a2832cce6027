package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// What is read with a GET: PROTOCOL.md section 9.
var gets = []attack{
	{name: "get-unread", what: "1,000 GETs of a fast stream, who read nothing", run: getUnread},
	{name: "get-idle", what: "1,100 GETs of a topic in which nothing happens", run: getIdle},
	{name: "get-stopped", what: "1,000 GETs of a topic, who read nothing, and messages of 60 kB", run: getStopped},
	{name: "get-answers", what: "400 GETs of answers of 4 MB, unread", run: getAnswers},
	{name: "get-last-id", what: "GETs that go on behind places of 60 kB and of a megabyte", run: getLastID},
	{name: "get-params", what: "GETs with params of 60 kB, 900 kB and 4 MB", run: getParams},
	{name: "get-churn", what: "GETs of streams, cut as soon as they are open", run: getChurn},
	{name: "get-history", what: "500 GETs of a topic with a history of a megabyte, who read nothing", run: getHistory},
}

// get asks with a GET, whose header lines are more.
func (a *arena) get(method, params, more string) (net.Conn, error) {
	c, err := a.dial()
	if err != nil {
		return nil, err
	}
	q := url.Values{"method": {method}, "params": {params}}
	_, err = fmt.Fprintf(c, "GET /?%s HTTP/1.1\r\nHost: %s\r\n%s\r\n", q.Encode(), a.addr, more)
	return c, err
}

// opened is get, and waits for the answer's header.
func (a *arena) opened(method, params, more string) (net.Conn, error) {
	c, err := a.get(method, params, more)
	if err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(c, 16), nil)
	if err != nil {
		return c, err
	}
	a.note(fmt.Sprint("answered with ", resp.StatusCode), 1)
	return c, nil
}

func getUnread(a *arena) error {
	a.crowd(a.size(1000, 200), func(int) error {
		_, err := a.get("pour", "[60000]", "")
		return err
	})
	return nil
}

func getIdle(a *arena) error {
	a.crowd(a.size(1100, 200), func(i int) error {
		_, err := a.opened("news", fmt.Sprintf(`["%08d%s"]`, i, text(247)), "")
		return err
	})
	return nil
}

func getStopped(a *arena) error {
	s, err := a.open()
	if err != nil {
		return err
	}
	a.crowd(a.size(1000, 100), func(i int) error {
		_, err := a.opened("policy."+policies[i%len(policies)], `["0"]`, "")
		return err
	})
	for _, p := range policies {
		if err := s.demand("spread", spreadRequest{Topic: "policy." + p, Key: "0", Count: a.size(50, 10), Bytes: 60_000}); err != nil {
			return err
		}
	}
	return nil
}

func getAnswers(a *arena) error {
	a.crowd(a.size(400, 80), func(int) error {
		_, err := a.get("big", "[4000000]", "")
		return err
	})
	return nil
}

func getLastID(a *arena) error {
	a.again(16, func(i int) error {
		n := 60_000
		if i%2 == 1 {
			n = 1_000_000
		}
		c, err := a.opened("past", `["0"]`, "Last-Event-ID: "+text(n)+"\r\n")
		if c != nil {
			c.Close()
		}
		return err
	})
	return nil
}

func getParams(a *arena) error {
	a.again(16, func(i int) error {
		c, err := a.opened("past", `["`+text([]int{60_000, 900_000, 4_000_000}[i%3])+`"]`, "")
		if c != nil {
			c.Close()
		}
		return err
	})
	return nil
}

func getChurn(a *arena) error {
	a.again(16, func(i int) error {
		c, err := a.opened([]string{"news", "pour"}[i%2], []string{`["0"]`, "[1000]"}[i%2], "")
		if err != nil {
			return err
		}
		return c.Close()
	})
	return nil
}

func getHistory(a *arena) error {
	s, err := a.open()
	if err != nil {
		return err
	}
	if err := s.send(s.call("past", wire.ServerStream, `"p"`)); err != nil {
		return err
	}
	if err := s.demand("spread", spreadRequest{Topic: "past", Key: "p", Count: 100, Bytes: 10_000}); err != nil {
		return err
	}
	a.crowd(a.size(500, 100), func(int) error {
		_, err := a.get("past", `["p"]`, "Last-Event-ID: "+strings.Repeat("0", 20)+"\r\n")
		return err
	})
	return nil
}
