package testkit

import "github.com/typedrpc/typedrpc/internal/wire"

// Script reads a byte string, which never ends.
type Script struct{ Data []byte }

func (s *Script) More() bool { return len(s.Data) > 0 }

func (s *Script) Byte() byte {
	if len(s.Data) == 0 {
		return 0
	}
	b := s.Data[0]
	s.Data = s.Data[1:]
	return b
}

func (s *Script) Bytes(n int) []byte {
	n = min(n, len(s.Data))
	b := s.Data[:n]
	s.Data = s.Data[n:]
	return b
}

// number is small, or one of those that hurt.
func (s *Script) number() uint64 {
	b := s.Byte()
	if b < 240 {
		return uint64(b % 16)
	}
	return []uint64{1 << 31, 1 << 32, 1<<53 + 1, 1<<63 - 1, 1 << 63, 1<<64 - 1, 1 << 40, 255}[b%8]
}

// FuzzNames are the methods that frames of scripts name.
var FuzzNames = []string{"lab.echo", "lab.hang", "lab.note", "nested.ping", "lane.serial", "nobody", "rpc.reserved"}

// Frame is one of a kind, filled by the script.
func (s *Script) Frame(op byte) wire.Frame {
	payload := func() []byte {
		return [][]byte{nil, []byte("1"), []byte("{}"), []byte(`"text"`), []byte("[3]"), []byte("null"), []byte("nonsense")}[s.Byte()%7]
	}
	name := func() string { return FuzzNames[int(s.Byte())%len(FuzzNames)] }
	switch op {
	case 1:
		return wire.Frame{
			Type: wire.Call, ID: s.number(), Method: name(), Payload: payload(), TimeLeft: s.number(),
			Flags: wire.Flags(s.Byte()) & (wire.Lane | wire.NoItems), Kind: wire.Kind(s.Byte() % 4),
		}
	case 2:
		if s.Byte()%2 == 0 {
			return wire.Frame{Type: wire.Result, ID: s.number(), Payload: payload()}
		}
		return wire.Frame{
			Type: wire.Fail, ID: s.number(), Code: int64(s.number()), Message: "fuzzed", RetryAfter: s.number(),
			Flags: wire.Flags(s.Byte()) & wire.NotRun, Payload: payload(),
		}
	case 3:
		return wire.Frame{Type: wire.Cancel, ID: s.number()}
	case 4:
		return wire.Frame{Type: wire.Notify, Method: name(), Payload: payload()}
	case 5:
		return wire.Frame{Type: wire.Credit, ID: s.number(), Items: s.number(), Window: s.number()}
	case 6:
		return wire.Frame{Type: []wire.Type{wire.Ping, wire.Ack}[s.Byte()%2], Position: s.number()}
	case 7:
		b := wire.GoAwayBody{Reason: "fuzzed", Min: s.number(), Max: s.number()}
		return wire.Frame{Type: wire.GoAway, Payload: b.Append(nil)}
	case 10:
		return wire.Frame{Type: []wire.Type{wire.Item, wire.End, wire.Chunk, wire.Hello, wire.Welcome}[s.Byte()%5], ID: s.number(), Payload: payload()}
	}
	return wire.Frame{Type: wire.Auth, Payload: []byte("{}")}
}
