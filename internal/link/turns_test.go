package link

import (
	"bytes"
	"io"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/testkit/turns"
)

// What is 16 MiB when it was inflated, and 16 kB before, had the processor to itself: the
// library returns less of it at once than it is asked for.
func TestWS_inflatesInTurns(t *testing.T) {
	is := is.New(t)
	client, server := sockets(t, DialOptions{Compress: true})
	const size = 16 << 20
	server.SetReadLimit(size)
	is.NoErr(client.Write(make([]byte, size), false, func() {}))
	var b string
	var err error
	had := turns.Had(func() { b, err = read(server) })
	is.NoErr(err)
	is.Equal(len(b), size)
	is.True(had >= size/readPart*3/4)
}

// Each ping is answered, so a thousand that come at once are a thousand writes.
func TestWS_answersPingsInTurns(t *testing.T) {
	is := is.New(t)
	client, server := sockets(t, DialOptions{})
	const pings = 900
	ping := []byte{0x89, 0x80, 0, 0, 0, 0}
	_, err := client.(*ws).below.conn.(io.Writer).Write(bytes.Repeat(ping, pings))
	is.NoErr(err)
	is.NoErr(client.Write([]byte("x"), false, func() {}))
	had := turns.Had(func() { _, err = read(server) })
	is.NoErr(err)
	is.True(had >= pings*3/4)
}
