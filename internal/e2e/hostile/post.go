package main

import (
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// JSON-RPC over POST.
var posts = []attack{
	{name: "post-batch", what: "one POST of 66 kB: a batch of 1,024 calls with replies of 4 MB each", run: postBatch},
	{name: "post-batches", what: "POSTs of batches of 1,024 calls that last until the caller is gone", run: postKept},
	{name: "post-half", what: "POSTs of 4 MiB less 100 bytes, never finished", run: postHalf},
	{name: "post-chunked", what: "the same, with chunked encoding", run: postChunked},
	{name: "post-drip", what: "1,000 POSTs of which a byte comes every 100 ms", run: postDrip},
	{name: "post-unread", what: "POSTs with replies of 4 MB that are not read", run: postUnread},
	{name: "post-again", what: "POSTs of batches of small calls, one after another, on many connections", run: postAgain},
	{name: "post-malformed", what: "POSTs of 4 MiB that cannot be read", run: postMalformed},
	{name: "post-notes", what: "POSTs of 1,024 notifications whose handler never returns", run: postNotes},
}

// post writes a request whose body has n bytes, and of the body what there is.
func (a *arena) post(n int, body string) (net.Conn, error) {
	c, err := a.dial()
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", a.addr, n, body)
	return c, err
}

func postBatch(a *arena) error {
	body := string(batch(a.size(1024, 100), "big", 4_000_000))
	c, err := a.post(len(body), body)
	if err != nil {
		return err
	}
	c.SetReadDeadline(time.Now().Add(time.Duration(a.size(45_000, 3000)) * time.Millisecond))
	n, _ := io.Copy(io.Discard, c)
	a.note("megabytes of answer", int(n/1e6))
	return nil
}

func postKept(a *arena) error {
	body := string(batch(1024, "keep", text(3000)))
	a.crowd(a.size(500, 60), func(int) error {
		_, err := a.post(len(body), body)
		return err
	})
	return nil
}

func postHalf(a *arena) error {
	a.crowd(a.size(400, 70), func(int) error {
		_, err := a.post(almost, text(almost-100))
		return err
	})
	return nil
}

func postChunked(a *arena) error {
	a.crowd(a.size(400, 70), func(int) error {
		c, err := a.dial()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s", a.addr, almost, text(almost-100))
		return err
	})
	return nil
}

func postDrip(a *arena) error {
	n := a.size(1000, 200)
	all := make(chan io.Writer, n)
	a.crowd(n, func(int) error {
		c, err := a.post(almost, "")
		if err == nil {
			all <- c
		}
		return err
	})
	close(all)
	a.crawl(all)
	return nil
}

func postUnread(a *arena) error {
	a.crowd(a.size(400, 80), func(int) error {
		body := `{"jsonrpc":"2.0","id":1,"method":"big","params":[4000000]}`
		_, err := a.post(len(body), body)
		return err
	})
	return nil
}

func postAgain(a *arena) error {
	return a.postOften(16, string(batch(100, "echo", "hello")))
}

func postMalformed(a *arena) error {
	return a.postOften(8, strings.Repeat("[", 4<<20-1))
}

// postOften posts a body again and again, and looks at no answer but its beginning.
func (a *arena) postOften(n int, body string) error {
	a.again(n, func(int) error {
		c, err := a.post(len(body), body)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Read(make([]byte, 100))
		return err
	})
	return nil
}

func postNotes(a *arena) error {
	one := `{"jsonrpc":"2.0","method":"slow","params":["` + text(3000) + `"]}`
	body := "[" + strings.Repeat(one+",", 1023) + one + "]"
	a.crowd(a.size(500, 60), func(int) error {
		_, err := a.post(len(body), body)
		return err
	})
	return nil
}
