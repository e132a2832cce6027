package cli

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// A frame is one that was watched, or what became of its connection, for people and for
// programs. Times are milliseconds.
type frame struct {
	Time       string          `json:"time"`
	Conn       int64           `json:"conn"`
	From       string          `json:"from"` // "client" or "server"
	Type       string          `json:"type"` // PROTOCOL.md's, OPEN, CLOSE, CUT, REFUSED, MALFORMED
	ID         json.RawMessage `json:"id,omitempty"`
	Kind       string          `json:"kind,omitempty"`
	Method     string          `json:"method,omitempty"`
	Flags      []string        `json:"flags,omitempty"`
	TimeLeft   uint64          `json:"timeLeft,omitempty"`
	Meta       any             `json:"meta,omitempty"` // keys, or all of it
	Code       *int64          `json:"code,omitempty"`
	Number     int64           `json:"number,omitempty"`
	Message    string          `json:"message,omitempty"`
	Fault      string          `json:"fault,omitempty"`
	RetryAfter uint64          `json:"retryAfter,omitempty"`
	Position   *uint64         `json:"position,omitempty"`
	Items      uint64          `json:"items,omitempty"`
	Window     uint64          `json:"window,omitempty"`
	Dropped    uint64          `json:"dropped,omitempty"`
	Bytes      int             `json:"bytes,omitempty"` // of the payload
	Payload    json.RawMessage `json:"payload,omitempty"`
	Base64     string          `json:"base64,omitempty"` // a payload that is no JSON
	Cut        string          `json:"cut,omitempty"`    // the beginning of one that is longer than -cut
	Text       string          `json:"text,omitempty"`   // of what is no frame
}

// decoder makes frames of one direction's messages.
type decoder struct {
	binary bool
	meta   bool // show values
	reader wire.Reader
}

func newDecoder(subprotocol string, meta bool) *decoder {
	return &decoder{
		binary: strings.HasPrefix(subprotocol, "typedrpc.v1."),
		meta:   meta,
		reader: wire.Reader{Hello: subprotocol == "typedrpc.jsonrpc", MaxDepth: 10_000}, // as deep as anybody allows
	}
}

// frames are those of a message. Of what cannot be read, which may be a HELLO, nothing
// is shown.
func (d *decoder) frames(msg []byte) (all []frame) {
	malformed := func(msg []byte, err error) frame {
		return frame{Type: "MALFORMED", Bytes: len(msg), Text: err.Error()}
	}
	if !d.binary {
		read, _, err := d.reader.Read(msg)
		if err != nil {
			return []frame{malformed(msg, err)}
		}
		for i := range read {
			all = append(all, d.frame(&read[i]))
		}
		return all
	}
	for len(msg) > 0 {
		var f wire.Frame
		n, err := wire.DecodeBinary(msg, &f, nil)
		if err != nil {
			return append(all, malformed(msg, err))
		}
		all = append(all, d.frame(&f))
		msg = msg[n:]
	}
	return all
}

// frame is f for others to read.
func (d *decoder) frame(f *wire.Frame) frame {
	out := frame{
		Type: f.Type.String(), Method: f.Method, TimeLeft: f.TimeLeft, Number: f.Number, Message: f.Message, Fault: f.Fault,
		RetryAfter: f.RetryAfter, Items: f.Items, Window: f.Window, Dropped: f.Dropped, Bytes: len(f.Payload),
	}
	switch {
	case len(f.RawID) > 0:
		out.ID = slices.Clone(f.RawID)
	case f.ID != 0:
		out.ID = strconv.AppendUint(nil, f.ID, 10)
	}
	switch f.Type {
	case wire.Call:
		if f.Kind <= wire.BidiStream {
			out.Kind = [...]string{"", "server stream", "client stream", "bidirectional stream"}[f.Kind]
		}
	case wire.Ping, wire.Ack:
		out.Position = &f.Position
	case wire.Fail, wire.Invalid:
		out.Code = &f.Code
	}
	out.Flags = flagsOf(f)
	if len(f.Meta) > 0 {
		out.Meta = slices.Sorted(maps.Keys(f.Meta)) // values may be secrets
		if d.meta {
			out.Meta = maps.Clone(f.Meta)
		}
	}
	switch {
	case f.Type == wire.Hello || f.Type == wire.Welcome || f.Type == wire.Auth || f.Type == wire.AuthOK || f.Type == wire.GoAway:
		out.Payload = withoutSecrets(f.Payload)
	case f.Type > wire.Head || wire.Kept(f.Method, true) || len(f.Payload) == 0: // a later version's may be credentials
	case json.Valid(f.Payload):
		out.Payload = oneLine(f.Payload)
	default:
		out.Base64 = base64.StdEncoding.EncodeToString(f.Payload)
	}
	return out
}

// flagsOf are f's flags, as PROTOCOL.md has them, without those that its type says.
func flagsOf(f *wire.Frame) (all []string) {
	for _, flag := range []struct {
		bit  wire.Flags
		name string
	}{{wire.More, "MORE"}, {wire.FromCaller, "FROM_CALLER"}, {wire.Lane, "LANE"}, {wire.NoItems, "NO_ITEMS"}, {wire.NotRun, "NOT_RUN"}, {wire.History, "HISTORY"}, {wire.Prompt, "PROMPT"}} {
		if f.Flags&flag.bit == 0 || flag.bit == wire.FromCaller && (f.Type == wire.Call || f.Type == wire.Cancel || f.Type == wire.End) {
			continue
		}
		all = append(all, flag.name)
	}
	return all
}

// withoutSecrets is the body of a frame of the handshake without the members by which
// somebody else could be its sender.
func withoutSecrets(body []byte) json.RawMessage {
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil {
		return nil
	}
	for _, name := range []string{"token", "credentials", "reply", "client"} {
		if members[name] != nil {
			members[name] = json.RawMessage(`"(hidden)"`)
		}
	}
	text, err := json.Marshal(members)
	if err != nil {
		return nil
	}
	return text
}

// cut shortens a payload that is longer than most; 0 is no bound. A frame of the handshake
// is shown whole, but for what is out of all proportion.
func (f *frame) cut(most int) {
	switch f.Type {
	case "HELLO", "WELCOME", "AUTH_OK":
		most *= 10
	}
	text := string(f.Payload) + f.Base64
	if most <= 0 || len(text) <= most {
		return
	}
	f.Payload, f.Base64 = nil, ""
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	f.Cut = text[:most]
}

// line is f for people.
func (f *frame) line() string {
	var b strings.Builder
	arrow := ">"
	if f.From == "server" {
		arrow = "<"
	}
	fmt.Fprintf(&b, "%s #%d %s %s", f.Time, f.Conn, arrow, f.Type)
	add := func(is bool, format string, args ...any) {
		if is {
			fmt.Fprintf(&b, " "+format, args...)
		}
	}
	ms := func(n uint64) time.Duration { return time.Duration(min(n, 1<<40)) * time.Millisecond }
	add(f.ID != nil, "%s", f.ID)
	add(f.Method != "", "%s", f.Method)
	add(f.Kind != "", "(%s)", f.Kind)
	add(f.Code != nil, "code=%d", deref(f.Code))
	add(f.Number != 0, "number=%d", f.Number)
	add(f.Fault != "", "fault=%s", f.Fault)
	add(f.Message != "", "%q", f.Message)
	add(f.RetryAfter != 0, "retryAfter=%v", ms(f.RetryAfter))
	add(f.Position != nil, "position=%d", deref(f.Position))
	add(f.Items != 0, "items=%d", f.Items)
	add(f.Window != 0, "window=%d", f.Window)
	add(f.Dropped != 0, "dropped=%d", f.Dropped)
	add(f.TimeLeft != 0, "timeLeft=%v", ms(f.TimeLeft))
	add(f.Meta != nil, "meta=%v", f.Meta)
	add(len(f.Flags) > 0, "%s", strings.Join(f.Flags, " "))
	add(f.Text != "", "%s", f.Text)
	add(f.Payload != nil, "%s", f.Payload)
	add(f.Base64 != "", "base64:%s", f.Base64)
	add(f.Cut != "", "%s…", f.Cut)
	add(f.Cut != "" || f.Payload == nil && f.Bytes > 0, "(%d bytes)", f.Bytes)
	return b.String()
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
