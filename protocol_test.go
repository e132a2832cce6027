package typedrpc

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// The examples and tables of PROTOCOL.md, held against internal/wire. Fenced
// blocks say by their first line what they are:
//
//	hex                frames of the binary dialect, with comments after #
//	json hello         the frame of the last hex block, to a peer with HELLO
//	json plain         the same, to a plain peer
//	json hello alone   a message of its own
//	json body NAME     the body of a frame of the handshake

func TestProtocol_examples(t *testing.T) {
	var last wire.Frame
	seen := map[string]int{}
	types := map[wire.Type]bool{}
	for _, b := range blocks(t, "PROTOCOL.md") {
		kind, name, _ := strings.Cut(strings.TrimPrefix(b.info, "json "), " ")
		text := strings.TrimSuffix(b.text, "\n")
		seen[kind]++
		t.Run(fmt.Sprintf("%s %d", strings.ReplaceAll(b.info, " ", "_"), seen[kind]), func(t *testing.T) {
			switch {
			case b.info == "hex":
				for _, f := range protocolBinary(t, text) {
					last, types[f.Type] = f, true
				}
			case b.info == "json hello alone":
				protocolMessage(t, text)
			case kind == "hello":
				protocolJSON(t, text, last, true)
			case kind == "plain":
				protocolJSON(t, text, last, false)
			case kind == "body":
				protocolBody(t, name, text)
			default:
				t.Errorf("a block that nobody checks: %q", b.info)
			}
		})
	}
	for typ := wire.Hello; typ <= wire.Chunk; typ++ {
		if !types[typ] && typ != wire.Auth {
			t.Errorf("no example of %v", typ)
		}
	}
}

// protocolBinary decodes the frames of a hex block and encodes them again.
func protocolBinary(t *testing.T, text string) (frames []wire.Frame) {
	is := is.New(t)
	var digits strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	data, err := hex.DecodeString(digits.String())
	is.NoErr(err)
	var again []byte
	for rest := data; len(rest) > 0; {
		var f wire.Frame
		n, err := wire.DecodeBinary(rest, &f, nil)
		is.NoErr(err)
		rest = rest[n:]
		again, err = wire.AppendBinary(again, &f)
		is.NoErr(err)
		frames = append(frames, f)
	}
	is.Equal(hex.EncodeToString(again), hex.EncodeToString(data)) // encoded as it was
	return frames
}

// protocolJSON holds one object against the frame that it shows.
func protocolJSON(t *testing.T, text string, want wire.Frame, hello bool) {
	is := is.New(t)
	got, err := wire.AppendJSON(nil, &want, hello)
	is.NoErr(err)
	is.Equal(string(got), text) // written

	r := wire.Reader{Hello: hello}
	frames, array, err := r.Read([]byte(text))
	is.NoErr(err)
	is.True(!array && len(frames) == 1)
	if hello {
		sameFrame(t, frames[0], want) // read
		return
	}
	is.Equal(frames[0].Type, want.Type)
	is.Equal(frames[0].ID, want.ID)
	is.Equal(string(frames[0].Payload), string(want.Payload))
}

func sameFrame(t *testing.T, a, b wire.Frame) {
	t.Helper()
	ok := a.Type == b.Type && a.Flags == b.Flags && a.Kind == b.Kind && a.ID == b.ID && a.Method == b.Method &&
		a.TimeLeft == b.TimeLeft && maps.Equal(a.Meta, b.Meta) && bytes.Equal(a.Payload, b.Payload) &&
		a.Code == b.Code && a.Message == b.Message && a.RetryAfter == b.RetryAfter && a.Position == b.Position &&
		a.Items == b.Items && a.Window == b.Window && a.Dropped == b.Dropped
	if !ok {
		t.Errorf("the two dialects differ:\n%+v\n%+v", a, b)
	}
}

// protocolMessage reads a message of several frames and writes it again.
func protocolMessage(t *testing.T, text string) {
	is := is.New(t)
	r := wire.Reader{Hello: true}
	frames, array, err := r.Read([]byte(text))
	is.NoErr(err)
	is.True(array)
	again := []byte{'['}
	for i := range frames {
		if i > 0 {
			again = append(again, ',')
		}
		again, err = wire.AppendJSON(again, &frames[i], true)
		is.NoErr(err)
	}
	is.Equal(string(append(again, ']')), text)
}

// protocolBody reads a body and writes it again.
func protocolBody(t *testing.T, name, text string) {
	is := is.New(t)
	var again []byte
	switch name {
	case "HELLO":
		b, err := wire.ParseHello([]byte(text))
		is.NoErr(err)
		again = b.Append(nil)
	case "WELCOME":
		b, err := wire.ParseWelcome([]byte(text))
		is.NoErr(err)
		again = b.Append(nil)
	case "AUTH_OK":
		b, err := wire.ParseAuthOK([]byte(text))
		is.NoErr(err)
		again = b.Append(nil)
	case "GOAWAY":
		b, err := wire.ParseGoAway([]byte(text))
		is.NoErr(err)
		again = b.Append(nil)
	default:
		t.Fatalf("no body %q", name)
	}
	is.Equal(string(again), text)
}

func TestProtocol_tables(t *testing.T) {
	data, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	says := func(want string) {
		t.Helper()
		if !strings.Contains(text, want) {
			t.Errorf("PROTOCOL.md does not say %q", want)
		}
	}
	for typ := wire.Hello; typ <= wire.Chunk; typ++ {
		row := fmt.Sprintf("\n| %d | %v | ", typ, typ)
		says(row)
		_, rest, _ := strings.Cut(text, row)
		line, _, _ := strings.Cut(rest, "\n")
		if strings.HasSuffix(line, "| yes |") != typ.Counted() {
			t.Errorf("PROTOCOL.md and Counted differ about %v", typ)
		}
	}
	for _, code := range []int{
		session.CloseDone, session.CloseGoingAway, session.CloseRestart, session.CloseOverload,
		session.CloseProtocol, session.CloseUnauthed, session.CloseForbidden, session.CloseTimeout,
		session.CloseSuperseded, session.CloseFlood,
	} {
		says(fmt.Sprintf("\n| %d | ", code))
	}
	says(fmt.Sprintf("| a method's name | %d bytes", wire.MaxMethod))
	says("metadata together | " + kibibytes(wire.MaxMeta))
	says("before WELCOME | " + kibibytes(wire.MaxBuffered))
	says("a plain peer's batch | " + thousands(wire.MaxBatch))
	says(fmt.Sprintf("a plain peer's id | %d bytes", wire.MaxRawID))
	says(fmt.Sprintf("nesting of JSON in the JSON-RPC dialect | %d |", wire.MaxDepth))
	says(fmt.Sprintf("%s at once, and %s a second", thousands(floodBurst), thousands(floodRate)))
	says("\n| `message` | bytes in the payload of one request, response, notification or item | 4 MiB; at most 16 MiB less 64 KiB |")
	if maxMessageCeiling != 16<<20-64<<10 {
		t.Error("the ceiling of Limits.MaxMessage is another one now")
	}
	for _, name := range append([]string{"typedrpc.v1.json", helloProtocol}, plainProtocols...) {
		says("`" + name + "`")
	}
	says(`"` + session.ReasonUnknown + `"`)
	says(`"` + session.ReasonEnded + `"`)
	says(`"` + session.ReasonDiffers + `"`)
}
