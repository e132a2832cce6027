package hub

import (
	"fmt"
	"sync/atomic"
	"unicode/utf8"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// message is a published message. Its buffers are left to the garbage
// collector: each has a reference that is never released. So they are as large
// as they need to be, and a queue that holds them is as large as it says.
type message struct {
	encoding               // the hub's
	others   []*encoding   // in other codecs, made when needed; under room.mu
	kept     *atomic.Int64 // where it is counted while it is in a history; under room.mu
}

// size is what it takes in a history. Under room.mu.
func (m *message) size() int64 {
	n := m.cost() + recordCost
	for _, e := range m.others {
		n += e.cost()
	}
	return int64(n)
}

type encoding struct {
	codec  string
	body   *buf.Buf // nil: there is none
	depth  int16    // of the text, as JSON, and 1; 0: not looked at, -1: it is none, or too deep for all. Under room.mu
	number uint64   // of the message in its room: they rise
	holding
}

func (e *encoding) fill(data []byte) {
	e.body = &buf.Buf{B: data}
	e.body.Retain()
}

// newMessage makes one of the hub's encoding.
func newMessage(codec string, data []byte) *message {
	m := &message{}
	m.codec = codec
	m.fill(data)
	return m
}

// bodyFor is the message as s can be given it; nil: it cannot. Under room.mu.
func (m *message) bodyFor(s *subscriber) *encoding {
	e := m.encodedFor(s)
	if e.body == nil || e.body.Len() > int(s.peer.Limit) {
		return nil
	}
	if !s.peer.Text {
		return e
	}
	if e.depth == 0 { // once for all
		e.depth = -1
		if depth, err := wire.Depth(e.body.B, mostDepth); err == nil {
			e.depth = int16(depth) + 1
		}
	}
	if e.depth < 0 || e.depth > s.peer.Depth+1 {
		return nil
	}
	return e
}

func (m *message) encodedFor(s *subscriber) *encoding {
	if s.peer.Codec == m.codec {
		return &m.encoding
	}
	for _, e := range m.others {
		if e.codec == s.peer.Codec {
			return e
		}
	}
	e := &encoding{codec: s.peer.Codec, number: m.number}
	if data, err := recode(m, s); err != nil {
		s.fail(err)
	} else {
		e.fill(data)
	}
	m.others = append(m.others, e)
	if m.kept != nil {
		m.kept.Add(int64(e.cost()))
	}
	return e
}

// recode encodes a message in the codec of s. The codecs and the message's own
// methods are the user's, and this goroutine may be the broker's.
func recode(m *message, s *subscriber) (data []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return s.peer.Recode(s.x.Conn(), m.body.B)
}

const maxKey = 255

// mostDepth is how deep a message nests that anybody is given.
const mostDepth = 10_000

// CheckKey says why there is no such key.
func CheckKey(key string) *status.Error {
	switch {
	case len(key) > maxKey:
		return status.Errorf(status.InvalidArgument, "the key has %d bytes, at most %d are allowed", len(key), maxKey)
	case !utf8.ValidString(key):
		return status.Errorf(status.InvalidArgument, "the key is not UTF-8")
	}
	return nil
}
