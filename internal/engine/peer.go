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
	limits  wire.Limits
	streams uint64 // how many of limits.Calls may be streams
	Features
	cache string // the identity of its replay cache, "": it has none
	away  bool   // it said GOAWAY: it takes no more calls
}

// bounds are what a message to the peer may have at most. Every message is held
// against them, by whoever encodes it.
type bounds struct{ bytes, depth atomic.Int32 }

func (c *Conn) setPeerLocked(p peer) {
	p.streams = flow.StreamPlaces(p.limits.Calls)
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

// Unmeasured is the depth of a payload for the binary dialect, which does not ask.
const Unmeasured int16 = -1

// Measure keeps what is no JSON value out of the JSON-RPC dialect, where it would
// break its envelope: a Raw, or a message that writes its own JSON. It returns how
// deep the payload nests, for those that it is sent to.
func (c *Conn) Measure(p []byte) (depth int16, err error) {
	if c.dialect == session.Binary {
		return Unmeasured, nil
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := wire.Depth(p, maxDepth)
	if err != nil {
		return 0, fmt.Errorf("message is no JSON: %w", err)
	}
	return int16(n), nil
}

// CheckDepth refuses what nests deeper than the peer reads: it would close the link.
func (c *Conn) CheckDepth(depth int16) error {
	if most := c.bounds.depth.Load(); int32(depth) > most && c.dialect != session.Binary {
		return fmt.Errorf("message nests %d levels, which is too deep: the peer reads %d", depth, most)
	}
	return nil
}

// TooDeep reports whether a payload nests deeper than a peer of the dialect reads, whose
// limits no connection knows yet. most 0 is not said.
func TooDeep(p []byte, d session.Dialect, most uint64) bool {
	if most == 0 || d == session.Binary || len(p) == 0 {
		return false
	}
	_, err := wire.Depth(p, int(min(most, maxDepth)))
	return err != nil
}

// CheckPayload is both, for what goes to this session's peer and nobody else.
func (c *Conn) CheckPayload(p []byte) error {
	depth, err := c.Measure(p)
	if err != nil {
		return err
	}
	return c.CheckDepth(depth)
}

// cannotReadLocked says why the peer of this session cannot take a payload. All that
// may go to another peer than the one it was encoded for is held against it again.
func (c *Conn) cannotReadLocked(d *Decl, payload []byte, depth int16) *status.Error {
	if err := c.keptLocked(d); err != nil {
		return err
	}
	if limit := d.Limit(c.peer.most()); !Fits(payload, limit) {
		return status.Errorf(status.ResourceExhausted, "the message of %q has %d bytes, at most %d can be sent", d.Name, len(payload), limit)
	}
	if err := c.CheckDepth(depth); err != nil {
		return status.Errorf(status.InvalidArgument, "cannot send the message of %q: %w", d.Name, err)
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
	data := f.Payload
	if len(data) > MaxErrorData && c.dialect != session.Plain {
		data = nil // no peer of ours sends so much
	}
	text := f.Message
	if len(text) > status.MaxText {
		text = status.Clip(status.Code(f.Code), text)
	}
	e := status.FromPeer(f.Code, text, f.Fault, flow.Hint(f.RetryAfter), data, f.Flags&wire.NotRun != 0)
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
