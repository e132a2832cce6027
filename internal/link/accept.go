//go:build !js

package link

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"github.com/typedrpc/typedrpc/internal/logs"
)

// Accept upgrades r. The caller has checked the origin and chosen subprotocol,
// which may be empty. On an error the response was written.
func Accept(w http.ResponseWriter, r *http.Request, subprotocol string, compress bool) (Transport, error) {
	t := new(ws)
	o := &websocket.AcceptOptions{
		InsecureSkipVerify: true, // the server checks origins itself, exactly
		OnPingReceived:     t.pinged,
		OnPongReceived:     t.ponged,
	}
	if compress {
		// No context takeover: takeover keeps some 0.2 MB for each connection.
		o.CompressionMode = websocket.CompressionNoContextTakeover
	}
	if subprotocol != "" {
		o.Subprotocols = []string{subprotocol}
	}
	u := &upgrade{w: w, header: http.Header{}, below: &t.below}
	c, err := websocket.Accept(u, r, o)
	if u.err != nil {
		err = u.err // the library's says less
	}
	if err != nil {
		return nil, err
	}
	t.c = c
	return t, nil
}

// upgrade is the http.ResponseWriter that the library is given. It takes the
// connection over before anything was written, and writes the 101 itself:
// frameworks and compressing middleware keep a status back until there is a body,
// and this one has none.
type upgrade struct {
	w      http.ResponseWriter
	header http.Header // what the library answers
	below  *below
	err    error // why the connection could not be taken over, which was answered
}

func (u *upgrade) Header() http.Header { return u.header }

func (u *upgrade) WriteHeader(code int) {
	if code == http.StatusSwitchingProtocols || u.err != nil {
		return
	}
	maps.Copy(u.w.Header(), u.header)
	u.w.WriteHeader(code)
}

// Write is what refuses an upgrade. The library quotes the headers that it did not
// like there, and those may be large.
func (u *upgrade) Write(p []byte) (int, error) {
	if u.err != nil {
		return len(p), nil
	}
	if _, err := io.WriteString(u.w, logs.Clip(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := takeOver(u.w)
	if err != nil {
		u.err = err
		http.Error(u.w, err.Error(), http.StatusNotImplemented)
		return nil, nil, err
	}
	if err := u.greet(c); err != nil {
		c.Close()
		u.err = err
		return nil, nil, err
	}
	var early []byte
	if rw != nil {
		early, _ = rw.Reader.Peek(rw.Reader.Buffered())
	}
	u.below.conn = c
	c = &watchedConn{c, u.below, bytes.Clone(early)}
	return c, bufio.NewReadWriter(bufio.NewReaderSize(c, hijackBuffer), bufio.NewWriterSize(c, hijackBuffer)), nil
}

// hijackBuffer is the size of a server connection's buffers. net/http's own
// are 4 KiB each and stay for the life of the connection: 6 kB of the memory
// of an idle one. Messages larger than the buffer bypass it.
const hijackBuffer = 1 << 10

// greetPatience bounds the writing of a response's head, which fits into any
// socket's buffer.
const greetPatience = 10 * time.Second

// greet writes the head of the response, with what middleware has added to it.
func (u *upgrade) greet(c net.Conn) error {
	head := u.w.Header().Clone()
	for _, name := range []string{"Content-Type", "Content-Length", "Content-Encoding", "Transfer-Encoding", "Trailer"} {
		head.Del(name) // of a body, which there is none
	}
	if head == nil {
		head = http.Header{}
	}
	if _, ok := head["Date"]; !ok {
		head.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	}
	maps.Copy(head, u.header)
	b := bytes.NewBufferString("HTTP/1.1 101 Switching Protocols\r\n")
	head.Write(b)
	b.WriteString("\r\n")
	c.SetWriteDeadline(time.Now().Add(greetPatience))
	if _, err := c.Write(b.Bytes()); err != nil {
		return fmt.Errorf("typedrpc: the upgrade could not be answered: %w", err)
	}
	return c.SetWriteDeadline(time.Time{})
}

// takeOver gets the connection below w, and what was read of it.
func takeOver(w http.ResponseWriter) (c net.Conn, rw *bufio.ReadWriter, err error) {
	if h := hider(w); h != nil {
		return nil, nil, hiddenError(w, h)
	}
	// Some writers take for granted that the one below them can do it.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("typedrpc: the connection cannot be upgraded: Hijack of %T panicked: %v", w, p)
		}
	}()
	c, rw, err = http.NewResponseController(w).Hijack()
	switch {
	case errors.Is(err, http.ErrNotSupported):
		return nil, nil, hiddenError(w, w)
	case err != nil:
		return nil, nil, fmt.Errorf("typedrpc: the connection cannot be upgraded: Hijack of %T: %w", w, err)
	case c == nil:
		return nil, nil, fmt.Errorf("typedrpc: the connection cannot be upgraded: Hijack of %T returned none", w)
	}
	return c, rw, nil
}

// hider is the innermost writer that w shows, if nobody gets at the connection
// through that. To ask an outer one would not do: it may have a Hijack that fails
// because of the inner, and has promised by then that there will be no status.
func hider(w http.ResponseWriter) http.ResponseWriter {
	w = Innermost(w)
	if _, ok := w.(http.Hijacker); ok {
		return nil
	}
	return w
}

// knownWriters are http.ResponseWriters that hide the connection, by their types,
// and where they come from.
var knownWriters = map[string]string{
	"*http.timeoutWriter": "http.TimeoutHandler, which keeps the whole response back",
}

// hiddenError says who hides the connection of w.
func hiddenError(w, hider http.ResponseWriter) error {
	name := fmt.Sprintf("%T", hider)
	if known := knownWriters[name]; known != "" {
		name += ", of " + known
	}
	if w != hider {
		name += fmt.Sprintf(" (below %T)", w)
	}
	return fmt.Errorf("typedrpc: the connection cannot be upgraded: the http.ResponseWriter is %s, and is no http.Hijacker; leave that middleware out for this path", name)
}

// watchedConn is a hijacked connection that says what has come and when reading
// has failed. It first gives back what the client sent before the upgrade was
// answered.
type watchedConn struct {
	net.Conn
	below *below
	early []byte
}

func (c *watchedConn) Read(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		if c.early = c.early[n:]; len(c.early) == 0 {
			c.early = nil
		}
		return n, c.below.came(p[:n])
	}
	return c.below.read(c.Conn, p)
}
