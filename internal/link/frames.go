package link

import "encoding/binary"

// frames tells what of a connection's bytes is messages': neither the heads of
// WebSocket frames nor control frames (RFC 6455 section 5.2).
type frames struct {
	head    [frameHead]byte
	have    uint8 // bytes of head
	control bool  // the frame whose payload comes
	rest    uint64
}

// scan takes what comes next, and returns how many bytes of it are messages'.
func (s *frames) scan(p []byte) (data int64) {
	for len(p) > 0 {
		if s.rest > 0 {
			n := min(uint64(len(p)), s.rest)
			if !s.control {
				data += int64(n)
			}
			s.rest -= n
			p = p[n:]
			continue
		}
		s.head[s.have] = p[0]
		s.have++
		p = p[1:]
		s.begin()
	}
	return data
}

// begin begins a payload, if its frame's head is whole.
func (s *frames) begin() {
	if s.have < 2 {
		return
	}
	n, need := uint64(s.head[1]&0x7f), uint8(2)
	switch n {
	case 126:
		need += 2
	case 127:
		need += 8
	}
	size := need
	if s.head[1]&0x80 != 0 {
		size += 4 // the mask
	}
	if s.have < size {
		return
	}
	switch need {
	case 4:
		n = uint64(binary.BigEndian.Uint16(s.head[2:]))
	case 10:
		n = binary.BigEndian.Uint64(s.head[2:])
	}
	s.control, s.rest, s.have = s.head[0]&0x8 != 0, n, 0
}
