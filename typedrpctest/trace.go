package typedrpctest

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// excerpt is how many bytes of a payload a trace shows at most.
const excerpt = 60

// decoder makes the messages of one direction readable.
type decoder struct {
	binary bool
	omit   bool // payloads
	reader wire.Reader
}

func newDecoder(subprotocol string, omit bool) *decoder {
	return &decoder{
		binary: strings.HasPrefix(subprotocol, "typedrpc.v1."),
		omit:   omit,
		// As deep as the connection's own limit may allow.
		reader: wire.Reader{Hello: subprotocol == "typedrpc.jsonrpc", MaxDepth: 10_000},
	}
}

// lines returns a line for each frame of msg.
func (d *decoder) lines(msg []byte, text bool) []string {
	if text == d.binary {
		return []string{fmt.Sprintf("MESSAGE of the wrong kind, %d B", len(msg))}
	}
	if !d.binary {
		frames, _, err := d.reader.Read(msg)
		if err != nil {
			return []string{malformed(msg, err)}
		}
		lines := make([]string, len(frames))
		for i := range frames {
			lines[i] = d.line(&frames[i])
		}
		return lines
	}
	var lines []string
	for len(msg) > 0 {
		var f wire.Frame
		n, err := wire.DecodeBinary(msg, &f, nil)
		if err != nil {
			return append(lines, malformed(msg, err))
		}
		lines = append(lines, d.line(&f))
		msg = msg[n:]
	}
	if lines == nil {
		return []string{"MESSAGE without a frame"}
	}
	return lines
}

// malformed shows nothing of the message, which may be a HELLO.
func malformed(msg []byte, err error) string {
	return fmt.Sprintf("MALFORMED, %d B: %s", len(msg), clip(err.Error(), 200))
}

// fields are a frame's, with a space in front of each.
type fields struct{ strings.Builder }

func (b *fields) addf(format string, args ...any) {
	b.WriteByte(' ')
	fmt.Fprintf(b, format, args...)
}

func (b *fields) number(name string, v uint64) {
	if v != 0 {
		b.addf("%s=%d", name, v)
	}
}

func (b *fields) millis(name string, v uint64) {
	if v != 0 {
		b.addf("%s=%v", name, time.Duration(min(v, 1<<40))*time.Millisecond)
	}
}

func (b *fields) has(what string, v bool) {
	if v {
		b.addf("%s", what)
	}
}

func (b *fields) list(name string, v []string) {
	if len(v) > 0 {
		b.addf("%s=%s", name, clip(strings.Join(v, ","), excerpt))
	}
}

func (d *decoder) line(f *wire.Frame) string {
	var b fields
	b.WriteString(f.Type.String())
	switch f.Type {
	case wire.Hello, wire.Welcome, wire.Auth, wire.AuthOK, wire.GoAway:
		handshake(&b, f, d.omit)
		return b.String()
	case wire.Ping, wire.Ack:
		b.addf("position=%d", f.Position)
		return b.String()
	}
	switch {
	case len(f.RawID) > 0:
		b.addf("id=%s", clip(string(f.RawID), excerpt))
	case f.ID != 0 || f.Type == wire.Credit || f.Type == wire.Chunk:
		b.addf("id=%d", f.ID)
	}
	if f.Type == wire.Call && f.Kind <= wire.BidiStream {
		b.has([...]string{"", "server-stream", "client-stream", "bidi-stream"}[f.Kind], f.Kind != wire.Unary)
	}
	if f.Method != "" {
		b.addf("%q", f.Method)
	}
	b.millis("timeleft", f.TimeLeft)
	b.number("items", f.Items)
	b.number("window", f.Window)
	b.number("dropped", f.Dropped)
	if f.Type == wire.Fail || f.Type == wire.Invalid {
		b.addf("code=%d", f.Code)
		b.has("number="+strconv.FormatInt(f.Number, 10), f.Number != 0 && f.Number != wire.CodeToJSON(f.Code))
		b.has("fault="+strconv.Quote(f.Fault), f.Fault != "")
		b.has(strconv.Quote(clip(f.Message, excerpt)), f.Message != "" && !d.omit)
		b.millis("retryafter", f.RetryAfter)
	}
	switch f.Type {
	case wire.Call, wire.Cancel, wire.End: // come from there always
	default:
		b.has("FROM_CALLER", f.Flags&wire.FromCaller != 0)
	}
	b.has("MORE", f.Flags&wire.More != 0)
	b.has("LANE", f.Flags&wire.Lane != 0)
	b.has("NO_ITEMS", f.Flags&wire.NoItems != 0)
	b.has("NOT_RUN", f.Flags&wire.NotRun != 0)
	b.has("HISTORY", f.Flags&wire.History != 0)
	b.has("PROMPT", f.Flags&wire.Prompt != 0)
	b.has("COUNTED", f.Flags&wire.CountedBit != 0)
	b.list("meta", slices.Sorted(maps.Keys(f.Meta))) // values may be secrets
	switch f.Type {
	case wire.Cancel, wire.End, wire.Credit, wire.Head, wire.Invalid:
		return b.String()
	}
	b.addf("%d B", len(f.Payload))
	// What a later version or a reserved name carries may be credentials.
	known := f.Type != wire.Invalid && f.Type <= wire.Head && !wire.Kept(f.Method, true)
	if known && !d.omit && len(f.Payload) > 0 {
		b.WriteString(": ")
		b.WriteString(show(f.Payload))
	}
	return b.String()
}

// handshake shows what a body says but for credentials, replies and tokens.
func handshake(b *fields, f *wire.Frame, omit bool) {
	var err error
	switch f.Type {
	case wire.Hello:
		var h wire.HelloBody
		h, err = wire.ParseHello(f.Payload)
		if err != nil {
			break
		}
		b.addf("attempt=%d", h.Attempt)
		b.has("token", h.Token != "")
		b.addf("received=%d", h.Received)
		b.has("credentials", h.Credentials != nil)
		b.list("features", h.Features)
	case wire.Welcome:
		var w wire.WelcomeBody
		w, err = wire.ParseWelcome(f.Payload)
		if err != nil {
			break
		}
		b.addf("resumed=%v", w.Resumed)
		b.has("reason="+strconv.Quote(clip(w.Reason, excerpt)), w.Reason != "")
		b.has("token", w.Token != "")
		b.addf("received=%d", w.Received)
		b.has("reply", w.Reply != nil)
		b.millis("keepalive", w.Keepalive)
		b.list("features", w.Features)
	case wire.Auth:
		var a wire.AuthBody
		a, err = wire.ParseAuth(f.Payload)
		b.has("credentials", a.Credentials != nil)
	case wire.AuthOK:
		var a wire.AuthOKBody
		a, err = wire.ParseAuthOK(f.Payload)
		b.has("reply", a.Reply != nil)
		b.millis("expires", a.Expires)
		if e := a.Error; e != nil {
			b.addf("code=%d", e.Code)
			b.has("fault="+strconv.Quote(e.Fault), e.Fault != "")
			b.has(strconv.Quote(clip(e.Message, excerpt)), e.Message != "" && !omit)
			b.millis("retryafter", e.RetryAfter)
		}
	case wire.GoAway:
		var g wire.GoAwayBody
		g, err = wire.ParseGoAway(f.Payload)
		b.has("reason="+strconv.Quote(clip(g.Reason, excerpt)), g.Reason != "")
		b.millis("min", g.Min)
		b.millis("max", g.Max)
	}
	if err != nil {
		b.addf("malformed, %d B", len(f.Payload))
	}
}

// clip is the beginning of s.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + "…"
}

// show is the beginning of a payload on one line: text if it is that, and
// bytes in hexadecimal if not.
func show(p []byte) string {
	head := p[:min(len(p), excerpt+utf8.UTFMax)]
	text := clip(string(head), excerpt)
	printable := func(r rune) bool { return r != utf8.RuneError && unicode.IsPrint(r) }
	if bytes.IndexFunc([]byte(text), func(r rune) bool { return !printable(r) }) < 0 {
		return text
	}
	const most = excerpt / 2
	if len(p) > most {
		return hex.EncodeToString(p[:most]) + "…"
	}
	return hex.EncodeToString(p)
}
