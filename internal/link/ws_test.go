package link

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/matryer/is"
)

// sockets returns the two ends of a WebSocket over loopback.
func sockets(t *testing.T, o DialOptions) (client, server Transport) {
	t.Helper()
	accepted := make(chan Transport, 1)
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		chosen := ""
		if offers := Offers(r.Header); len(offers) > 0 {
			chosen = offers[0]
		}
		tr, err := Accept(w, r, chosen, o.Compress)
		if err != nil {
			return
		}
		accepted <- tr
	}))
	t.Cleanup(hs.Close)
	client, name, _, err := Dial(context.Background(), hs.URL, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Subprotocols) > 0 && name != o.Subprotocols[0] {
		t.Fatalf("subprotocol %q", name)
	}
	server = <-accepted
	t.Cleanup(func() { client.Kill(); server.Kill() })
	return client, server
}

func TestWS_messagesBothWays(t *testing.T) {
	for _, compress := range []bool{false, true} {
		is := is.New(t)
		client, server := sockets(t, DialOptions{Subprotocols: []string{"one", "two"}, Compress: compress})
		for _, size := range []int{0, 1, 600, 70_000, 1 << 20} {
			want := bytes.Repeat([]byte("abcdefg "), size/8+1)[:size]
			for _, dir := range [][2]Transport{{client, server}, {server, client}} {
				dir[1].SetReadLimit(2 << 20)
				sent := make(chan error, 1)
				go func() { sent <- dir[0].Write(want, size%2 == 0, func() {}) }()
				m, text, err := dir[1].Read(func() {})
				is.NoErr(err)
				is.NoErr(<-sent)
				is.Equal(text, size%2 == 0)
				is.True(bytes.Equal(m.B, want))
			}
		}
	}
}

func TestWS_progressWithinAMessage(t *testing.T) {
	is := is.New(t)
	client, server := sockets(t, DialOptions{})
	server.SetReadLimit(2 << 20)
	go client.Write(make([]byte, 1<<20), false, func() {})
	parts := 0
	_, _, err := server.Read(func() { parts++ })
	is.NoErr(err)
	is.True(parts > 3) // any byte counts, also inside a message
}

func TestWS_pongIsProgress(t *testing.T) {
	for _, fromClient := range []bool{true, false} {
		asks, answers := sockets(t, DialOptions{})
		if !fromClient {
			asks, answers = answers, asks
		}
		go read(answers) // somebody who reads answers pings
		alive := make(chan struct{}, 8)
		go func() {
			asks.Read(func() { alive <- struct{}{} })
		}()
		answered := make(chan struct{})
		asks.Ping(func() { close(answered) })
		<-alive // no message came, and the peer is known to live
		<-answered
	}
}

func TestWS_closeCodeAndReason(t *testing.T) {
	is := is.New(t)
	client, server := sockets(t, DialOptions{})
	go server.Close(4403, "you may not")
	_, err := read(client)
	var ce *CloseError
	is.True(errors.As(err, &ce))
	is.Equal(*ce, CloseError{Code: 4403, Reason: "you may not", Remote: true})
}

func TestWS_longReasonIsCutAtARune(t *testing.T) {
	for _, reason := range []string{
		strings.Repeat("x", 500), strings.Repeat("é", 100), "x" + strings.Repeat("é", 100),
		strings.Repeat("日", 60), "a" + strings.Repeat("日", 60), "ab" + strings.Repeat("日", 60), strings.Repeat("🙂", 40),
		strings.Repeat("x", 123),
	} {
		is := is.New(t)
		client, server := sockets(t, DialOptions{})
		go server.Close(4400, reason)
		_, err := read(client)
		var ce *CloseError
		is.True(errors.As(err, &ce))
		is.Equal(ce.Code, 4400)
		is.True(utf8.ValidString(ce.Reason))
		is.True(strings.HasPrefix(reason, ce.Reason))
		is.True(len(ce.Reason) > 123-utf8.UTFMax && len(ce.Reason) <= 123)
	}
}

func TestWS_readLimit(t *testing.T) {
	is := is.New(t)
	client, server := sockets(t, DialOptions{})
	server.SetReadLimit(10)
	is.NoErr(client.Write(make([]byte, 11), false, func() {}))
	_, err := read(server)
	var ce *CloseError
	is.True(errors.As(err, &ce))
	is.Equal(ce.Code, 1009)
}

func TestWS_readLimitHoldsAfterDecompression(t *testing.T) {
	is := is.New(t)
	client, server := sockets(t, DialOptions{Compress: true})
	server.SetReadLimit(10_000)
	go client.Write(make([]byte, 1<<20), false, func() {}) // a few kB on the wire
	_, err := read(server)
	var ce *CloseError
	is.True(errors.As(err, &ce))
	is.Equal(ce.Code, 1009)
}

func TestWS_killEndsARead(t *testing.T) {
	is := is.New(t)
	client, server := sockets(t, DialOptions{})
	errs := make(chan error, 2)
	go func() { _, err := read(client); errs <- err }()
	go func() { _, err := read(server); errs <- err }()
	client.Kill()
	is.True(<-errs != nil)
	is.True(<-errs != nil)
}

func TestDial_refusedUpgradeShowsTheResponse(t *testing.T) {
	is := is.New(t)
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "not today", http.StatusTeapot)
	}))
	defer hs.Close()
	_, _, resp, err := Dial(t.Context(), hs.URL, DialOptions{})
	is.True(err != nil)
	is.Equal(resp.StatusCode, http.StatusTeapot)
	body, err := io.ReadAll(resp.Body)
	is.NoErr(err)
	is.Equal(string(body), "not today\n")
}

func TestAccept_needsAHijacker(t *testing.T) {
	is := is.New(t)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="}}
	_, err := Accept(httptest.NewRecorder(), r, "", false)
	is.True(err != nil)
	is.True(strings.Contains(err.Error(), "*httptest.ResponseRecorder, and is no http.Hijacker"))
}

func TestOffers(t *testing.T) {
	is := is.New(t)
	h := http.Header{}
	is.Equal(Offers(h), nil)
	h.Add("Sec-WebSocket-Protocol", " a, b ,,c")
	h.Add("Sec-WebSocket-Protocol", "d")
	is.Equal(Offers(h), []string{"a", "b", "c", "d"})
}

func TestLink_closeOverAWebSocket(t *testing.T) {
	is := is.New(t)
	client, server := sockets(t, DialOptions{})
	a, b := runOver(client, nil, Options{}), runOver(server, nil, Options{})
	a.send("hello")
	a.Fail(&CloseError{Code: 1000, Reason: "done"})
	<-a.end
	var ce *CloseError
	is.True(errors.As(<-b.end, &ce))
	is.Equal(ce.Code, 1000)
	is.Equal(ce.Reason, "done")
	is.True(ce.Remote)
}

// A peer that is gone cannot answer a goodbye, which must not take longer for it.
func TestLink_goodbyeToNobodyIsBounded(t *testing.T) {
	is := is.New(t)
	const bound = goodbye + 3*time.Second // the library's own patience is five seconds
	took := bound
	for try := 0; try < 3 && took >= bound; try++ { // a busy machine may delay one
		client, _ := sockets(t, DialOptions{}) // whose other end nobody reads
		l := runOver(client, nil, Options{})
		began := time.Now()
		l.Fail(&CloseError{Code: 4408, Reason: "no answer in time"})
		<-l.end
		took = time.Since(began)
	}
	is.True(took < bound)
}

func TestWS_largeWritesReportProgress(t *testing.T) {
	is := is.New(t)
	client, server := sockets(t, DialOptions{})
	server.SetReadLimit(2 << 20)
	go read(server)
	parts := 0
	is.NoErr(client.Write(make([]byte, 1<<20), false, func() { parts++ }))
	is.Equal(parts, (1<<20)/writePart)
}

// A connection that ends inside a message ends with an error, wherever that is,
// and not with a message that is cut off.
func TestWS_connectionLostInsideAMessage(t *testing.T) {
	text := strings.Repeat("some text ", 300)
	for _, compress := range []bool{false, true} {
		for _, fromClient := range []bool{false, true} {
			var sent []byte // a message as it travels
			for after := -1; after < len(sent); after += 1 + len(sent)/50 {
				is := is.New(t)
				var last *tapConn // of the end that sends
				o := DialOptions{Compress: compress}
				tr := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
					c, err := new(net.Dialer).DialContext(ctx, network, addr)
					last = &tapConn{Conn: c, after: -1}
					return last, err
				}}
				o.HTTPClient = &http.Client{Transport: tr}
				accepted := make(chan Transport, 1)
				var far *tapConn
				hs := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if tr, err := Accept(w, r, "", compress); err == nil {
						accepted <- tr
					}
				}))
				hs.Listener = &tapListener{hs.Listener, &far}
				hs.Start()
				from, _, _, err := Dial(t.Context(), hs.URL, o)
				is.NoErr(err)
				to := <-accepted
				tap := last
				if !fromClient {
					from, to, tap = to, from, far
				}
				tap.mu.Lock()
				tap.sent, tap.after = nil, after
				tap.mu.Unlock()
				from.Write([]byte(text), true, func() {})
				m, _, err := to.Read(func() {})
				if after < 0 {
					is.NoErr(err)
					is.Equal(string(m.B), text)
					tap.mu.Lock()
					sent = tap.sent
					tap.mu.Unlock()
				} else {
					is.True(err != nil) // cut off after so many bytes
				}
				from.Kill()
				to.Kill()
				hs.Close()
			}
			if len(sent) < 20 {
				t.Errorf("%d bytes", len(sent))
			}
		}
	}
}

// tapConn keeps what is written, and closes itself after that many bytes.
type tapConn struct {
	net.Conn
	mu    sync.Mutex
	sent  []byte
	after int // -1: never
}

func (c *tapConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = append(c.sent, p...)
	if c.after >= 0 && len(c.sent) > c.after {
		c.Conn.Write(p[:max(0, len(p)-(len(c.sent)-c.after))])
		c.Conn.Close()
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

type tapListener struct {
	net.Listener
	last **tapConn
}

func (l *tapListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	*l.last = &tapConn{Conn: c, after: -1}
	return *l.last, nil
}
