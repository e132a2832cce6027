package engine

import (
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// peer is what the other end of this session, or of the last one, announced and
// said. It never says what we do about it. Under Conn.mu.
type peer struct {
	limits wire.Limits
	Features
	cache string // the identity of its replay cache, "": it has none
	away  bool   // it said GOAWAY: it takes no more calls
}

// bounds are what a message to the peer may have at most. Every message is held
// against them, by whoever encodes it.
type bounds struct{ bytes, depth atomic.Int32 }

func (c *Conn) setPeerLocked(p peer) {
	c.peer = p
	c.bounds.bytes.Store(int32(p.most()))
	c.bounds.depth.Store(int32(min(p.limits.Depth, maxDepth)))
}

// most is how many bytes a message to it may have.
func (p *peer) most() int { return int(min(p.limits.Message, flow.MaxMessageCeiling)) }

// Fits reports whether a request or notification keeps to a limit. A value that has to
// travel in a list counts without that, on both sides and in all dialects: a message that
// its sender lets pass arrives, by whatever way.
func Fits(payload []byte, limit int) bool {
	return len(payload) <= limit || len(payload) <= limit+listBytes && wire.Lone(payload)
}

// listBytes are the brackets of such a list.
const listBytes = 2

// Features are the optional parts of the protocol that both ends announced. Auth
// says that there are credentials.
type Features struct{ Streams, Fragments, Resume, Auth bool }

// Announced are the features that a handshake tells.
func (cfg *Config) Announced(auth bool) []string {
	list := []string{"streams", "fragments"}
	if cfg.Limits.Grace > 0 {
		list = append(list, "resume")
	}
	if auth {
		list = append(list, "auth")
	}
	return list
}

// SharedFeatures are those that a connection of dialect d has in common.
func SharedFeatures(d session.Dialect, ours, theirs []string) Features {
	both := func(name string) bool {
		return d != session.Plain && slices.Contains(ours, name) && slices.Contains(theirs, name)
	}
	return Features{
		Streams: both("streams"), Fragments: d == session.Binary && both("fragments"),
		Resume: both("resume"), Auth: both("auth"),
	}
}

// CheckPayload keeps what is no JSON value out of the JSON-RPC dialect, where it
// would break its envelope: a Raw, or a message that writes its own JSON. What
// nests deeper than the peer reads ends here too: it would close the link.
func (c *Conn) CheckPayload(p []byte) error {
	if c.dialect == session.Binary || len(p) == 0 {
		return nil
	}
	if err := wire.Valid(p, int(c.bounds.depth.Load())); err != nil {
		return fmt.Errorf("message is no JSON, or deeper than the peer reads: %w", err)
	}
	return nil
}

// Peer are the limits that the peer announced.
func (c *Conn) Peer() wire.Limits {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peer.limits
}

func protocolError(reason string) error {
	return &link.CloseError{Code: session.CloseProtocol, Reason: reason}
}

// PeerCache is the identity of the peer's replay cache, "": it has none.
func (c *Conn) PeerCache() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peer.cache
}

// Shares are the features that the peer of this session shares.
func (c *Conn) Shares() Features {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peer.Features
}

// fromPeer is the error that a FAIL says.
func (c *Conn) fromPeer(f *wire.Frame) *status.Error {
	e := status.FromPeer(f.Code, f.Message, f.Fault, flow.Hint(f.RetryAfter), f.Payload, f.Flags&wire.NotRun != 0)
	e.Number = f.Number
	e.Foreign = c.dialect == session.Plain && f.Number >= 0 && f.Number <= int64(status.Unauthenticated)
	return e
}

// maxDepth bounds the nesting of what is sent; the receiver has a bound of its
// own.
const maxDepth = 10_000

// ProtocolError ends the link of a peer that breaks the protocol.
func ProtocolError(reason string) error { return protocolError(reason) }

// RefuseAuth answers an AUTH where credentials are not refreshed.
func RefuseAuth(c *session.Carrier) {
	c.AuthOK(wire.AuthOKBody{Error: &wire.ErrorBody{Code: int64(status.Unimplemented), Message: "credentials are not refreshed on this connection"}})
}
