package main

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"
)

// Client streams whose items are POSTed: PROTOCOL.md section 9.
var feeds = []attack{
	{name: "feed-drip", what: "1,000 bodies of items of which a byte comes every 100 ms", run: feedDrip},
	{name: "feed-endless", what: "bodies with one item of 4 MiB less 100 bytes that does not end", run: func(a *arena) error { return a.feedHalf("application/x-ndjson", `"`) }},
	{name: "feed-sequence", what: "the same, as a JSON text sequence", run: func(a *arena) error { return a.feedHalf("application/json-seq", "\x1e\"") }},
	{name: "feed-over", what: "bodies with an item over the largest message", run: feedOver},
	{name: "feed-tiny", what: "bodies of 100,000 items of one byte", run: feedTiny},
	{name: "feed-blank", what: "bodies of empty lines, without an end", run: feedBlank},
	{name: "feed-deaf", what: "900 bodies with items of 8 kB whose handlers receive none, for three seconds", run: feedDeaf},
	{name: "feed-large", what: "100 bodies with items of 4 MB whose handlers receive none, for three seconds", run: feedLarge},
	{name: "feed-rest", what: "1,100 bodies that rest behind an item", run: feedRest},
	{name: "feed-churn", what: "bodies that are cut in the middle of an item", run: feedChurn},
	{name: "feed-malformed", what: "bodies of items that are none, each in another way", run: feedMalformed},
}

// feed begins a POST of items to a client stream, whose body is chunked.
func (a *arena) feed(method, params, contentType string) (net.Conn, error) {
	c, err := a.dial()
	if err != nil {
		return nil, err
	}
	q := url.Values{"method": {method}, "params": {params}}
	_, err = fmt.Fprintf(c, "POST /?%s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n", q.Encode(), a.addr, contentType)
	return c, err
}

// fed is feed of what is written in chunks, and leaves the body open.
func (a *arena) fed(method, contentType string, chunks ...string) (net.Conn, error) {
	c, err := a.feed(method, `""`, contentType)
	for _, b := range chunks {
		if err == nil {
			_, err = io.WriteString(c, chunk(b))
		}
	}
	return c, err
}

// chunk is one of a body, in HTTP's chunked encoding.
func chunk(b string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(b), b) }

// lines are n items of a client stream, each in a line.
func lines(n int, item string) string { return strings.Repeat(item+"\n", n) }

const ndjson = "application/x-ndjson"

// dripped is what is written to it in chunks.
type dripped struct{ c net.Conn }

func (d dripped) Write(b []byte) (int, error) {
	_, err := io.WriteString(d.c, chunk(string(b)))
	return len(b), err
}

func feedDrip(a *arena) error {
	n := a.size(1000, 200)
	all := make(chan io.Writer, n)
	a.crowd(n, func(int) error {
		c, err := a.fed("sink", ndjson, `"`)
		if err == nil {
			all <- dripped{c}
		}
		return err
	})
	close(all)
	a.crawl(all)
	return nil
}

func (a *arena) feedHalf(contentType, begin string) error {
	a.crowd(a.size(400, 70), func(int) error {
		_, err := a.fed("sink", contentType, begin+text(almost-100))
		return err
	})
	return nil
}

func feedOver(a *arena) error {
	a.feedOften(8, "sink", `"`+text(4_000_000)+text(400_000)+"\"\n")
	return nil
}

// feedOften posts bodies again and again, and looks at the answer's beginning.
func (a *arena) feedOften(n int, method, body string) {
	a.again(n, func(int) error {
		c, err := a.fed(method, ndjson, body)
		if c == nil {
			return err
		}
		defer c.Close()
		if err == nil {
			_, err = io.WriteString(c, "0\r\n\r\n")
		}
		if err == nil {
			_, err = c.Read(make([]byte, 100))
		}
		return err
	})
}

func feedTiny(a *arena) error {
	a.feedOften(8, "sink", lines(100_000, `""`))
	return nil
}

func feedBlank(a *arena) error {
	blank := chunk(strings.Repeat("\n", 100_000))
	a.again(8, func(int) error {
		c, err := a.fed("sink", ndjson)
		if err != nil {
			return err
		}
		defer c.Close()
		for range 1000 {
			if _, err := io.WriteString(c, blank); err != nil {
				return err
			}
		}
		return nil
	})
	return nil
}

func feedDeaf(a *arena) error {
	a.crowd(a.size(900, 200), func(int) error {
		c, err := a.fed("late", ndjson)
		if err != nil {
			return err
		}
		c.SetWriteDeadline(time.Now().Add(time.Second)) // what is not read on fills the kernel's buffers
		for range 100 {
			if _, err := io.WriteString(c, chunk(lines(10, quoted(8000)))); err != nil {
				break
			}
		}
		return nil
	})
	return nil
}

func feedLarge(a *arena) error {
	a.crowd(a.size(100, 30), func(int) error {
		c, err := a.fed("late", ndjson)
		if err != nil {
			return err
		}
		c.SetWriteDeadline(time.Now().Add(time.Second))
		for range 5 {
			if _, err := io.WriteString(c, chunk(lines(1, quoted(4_000_000)))); err != nil {
				break
			}
		}
		return nil
	})
	return nil
}

func feedRest(a *arena) error {
	a.crowd(a.size(1100, 200), func(int) error {
		_, err := a.fed("sink", ndjson, lines(1, quoted(100)))
		return err
	})
	return nil
}

func feedChurn(a *arena) error {
	a.again(16, func(int) error {
		c, err := a.fed("sink", ndjson, lines(3, quoted(1000))+`"half`)
		if err != nil {
			return err
		}
		return c.Close()
	})
	return nil
}

func feedMalformed(a *arena) error {
	bad := []string{"{\n", "]\n", "\x00\n", "\"\xff\"\n", "1 2\n", strings.Repeat("[", 100_000) + "\n", "\x1e1\n", "tru\n", `"` + "\r\n"}
	a.again(8, func(i int) error {
		for ; !a.over(); i++ {
			c, err := a.fed("sink", ndjson, bad[i%len(bad)])
			if err != nil {
				return err
			}
			c.Read(make([]byte, 100))
			c.Close()
		}
		return nil
	})
	return nil
}
