// Package wire holds typedrpc's frame model and its two encodings: a binary
// one and JSON-RPC 2.0. It is pure: bytes in, frames out, no I/O, no
// goroutines and no clock. PROTOCOL.md at the root of the repository is the
// authority on what the bytes mean.
package wire

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// Type says what a frame is. The values are those of the binary dialect.
type Type uint8

const (
	// Invalid marks an element from a plain JSON-RPC peer that is no valid
	// request or response but must be answered: RawID (empty: null), Code and
	// Message say how. It never travels.
	Invalid Type = iota
	Hello
	Welcome
	Auth
	AuthOK
	Ping
	Ack
	GoAway
	Call
	Result
	Fail
	Cancel
	Item
	End
	Credit
	Notify
	Chunk
	Head
	numTypes
)

// MaxType is the largest type that five bits of a binary header can name.
const MaxType Type = 1<<5 - 1

// Counted reports whether frames of a type this version knows are counted by
// the session layer (PROTOCOL.md section 1).
func (t Type) Counted() bool { return t >= Call && t < numTypes }

var typeNames = [numTypes]string{
	"INVALID", "HELLO", "WELCOME", "AUTH", "AUTH_OK", "PING", "ACK", "GOAWAY", "CALL",
	"RESULT", "FAIL", "CANCEL", "ITEM", "END", "CREDIT", "NOTIFY", "CHUNK", "HEAD",
}

// String returns the name that PROTOCOL.md uses, or "UNKNOWN".
func (t Type) String() string {
	if t < numTypes {
		return typeNames[t]
	}
	return "UNKNOWN"
}

// Flags qualify a frame.
type Flags uint16

const (
	More       Flags = 1 << iota // the payload goes on in CHUNK frames
	FromCaller                   // the sender is the caller of the call that ID names
	Lane                         // CALL: made from an ordered handler; a wait that could deadlock fails instead
	NoItems                      // CALL: the caller sends no items
	NotRun                       // FAIL: no handler saw the call; sending it again is safe
	History                      // ITEM: from before the subscription
	Prompt                       // ITEM: its sender paces itself by CREDIT, which is due as soon as it is consumed
	CountedBit                   // set by decoders on frames of unknown type that count
)

// Kind is the shape of a call.
type Kind uint8

const (
	Unary Kind = iota
	ServerStream
	ClientStream
	BidiStream
)

// Frame is one frame of either dialect. Which fields mean something depends on
// Type; the others are zero.
//
// A decoded frame's byte slices point into the message it was read from and
// are valid only as long as that is; its strings are copies.
type Frame struct {
	Type  Type
	Flags Flags
	Kind  Kind // CALL

	// ID names a call: its caller's own numbers, from 1. 0 in CREDIT and
	// CHUNK means the notification flow.
	ID uint64
	// RawID is the id of a plain JSON-RPC peer's request exactly as it was
	// written, to be echoed byte for byte. When it is not empty it goes
	// before ID. Plain peers only.
	RawID []byte

	Method   string            // CALL, NOTIFY; ITEM, RESULT and FAIL of a plain peer's subscription: what they are sent by
	TimeLeft uint64            // CALL: milliseconds until the caller's deadline; 0: none
	Meta     map[string]string // CALL, NOTIFY, RESULT, FAIL, HEAD

	// Payload is the message in the connection's codec (CALL, RESULT, ITEM,
	// NOTIFY, CHUNK), the typed data of a FAIL (empty: none), or the body of
	// HELLO, WELCOME, AUTH, AUTH_OK and GOAWAY (see handshake.go).
	Payload []byte

	Code       int64  // FAIL: typedrpc's own code, translated for JSON-RPC by its encoding; CANCEL of a plain peer: the number that it expects then, 0: none
	Message    string // FAIL
	Fault      string // FAIL: the name of the declared error that Payload belongs to; "": none
	Number     int64  // FAIL: the code that a plain peer said, or is to be told instead of Code; 0: none
	RetryAfter uint64 // FAIL: milliseconds, 0: no hint

	Position uint64 // PING, ACK: counted frames received so far
	Items    uint64 // CREDIT: items returned, never 0
	Window   uint64 // CREDIT: new window in bytes, 0: unchanged
	Dropped  uint64 // ITEM: items dropped before this one
}

// MetaAge is the metadata that tells how old a keyed call is, in milliseconds
// (PROTOCOL.md section 2.7). It is the only one that a session changes: what is
// sent again is older.
const MetaAge = "idempotency-age"

// metaFault and metaNumber are the metadata of a binary FAIL that has a fault, or a
// plain peer's code: those who know none read on behind them. Frame.Meta never has
// them.
const (
	metaFault  = "rpc.fault"
	metaNumber = "rpc.number"
)

// MaxFailMeta is what those two take of a FAIL's metadata at most.
const MaxFailMeta = len(metaFault) + MaxMethod + len(metaNumber) + maxDigits

// Limits of the wire that hold for everybody (PROTOCOL.md section 4).
const (
	MaxMethod   = 255       // bytes in a method name, and in a fault's
	MaxMeta     = 16 << 10  // bytes in all keys and values of a frame's metadata
	MaxBatch    = 1024      // elements in a JSON-RPC array
	MaxDepth    = 64        // default nesting of JSON
	MaxBody     = 1<<24 - 1 // bytes in the body of a binary frame
	MaxBuffered = 64 << 10  // bytes before WELCOME
	MaxRawID    = 256       // bytes in a plain peer's id
)

var (
	// ErrMalformed is wrapped by every error of a decoder; the text says what
	// was wrong and where. The peer broke the protocol.
	ErrMalformed = errors.New("malformed frame")

	// ErrTooLarge is wrapped by encoders' errors when the body, the method
	// name or the metadata is over its limit. Nothing was written.
	ErrTooLarge = errors.New("frame too large")

	// ErrNotEncodable is wrapped by encoders' errors when the frame cannot be
	// said in the dialect at all, for example CHUNK in JSON, id 0 in a CALL or
	// metadata that is not UTF-8. Nothing was written.
	ErrNotEncodable = errors.New("frame not encodable")
)

// checkMethod holds both encoders to what both decoders demand, so that a bad
// name is a local error and never the peer's reason to close.
func checkMethod(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: no method name", ErrNotEncodable)
	case len(name) > MaxMethod:
		return fmt.Errorf("%w: method name of %d bytes", ErrTooLarge, len(name))
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: method name is not UTF-8", ErrNotEncodable)
	}
	return nil
}

// checkMeta does for metadata what checkMethod does for names. own is what the
// dialect adds to it, in bytes.
func checkMeta(meta map[string]string, own int) error {
	size := own
	for k, v := range meta {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return fmt.Errorf("%w: metadata is not UTF-8", ErrNotEncodable)
		}
		size += len(k) + len(v)
	}
	if size > MaxMeta {
		return fmt.Errorf("%w: %d bytes of metadata", ErrTooLarge, size)
	}
	return nil
}

// checkFault does for a fault what checkMethod does for names.
func checkFault(f *Frame) error {
	if f.Fault == "" {
		return nil
	}
	if err := checkMethod(f.Fault); err != nil {
		return fmt.Errorf("fault: %w", err)
	}
	return nil
}

// hasMeta reports whether frames of type t carry metadata.
func (t Type) hasMeta() bool {
	return t == Call || t == Result || t == Fail || t == Notify || t == Head
}
