package jsongen

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// special has a bit for what a byte means.
const (
	inText = 1 << iota // it ends plain text that is read
	inHTML             // it ends plain text that is written
)

var special = func() (t [256]byte) {
	for c := range t {
		switch {
		case c < ' ', c == '"', c == '\\', c >= utf8.RuneSelf:
			t[c] = inText | inHTML
		case c == '<', c == '>', c == '&':
			t[c] = inHTML
		}
	}
	return t
}()

const ones, highs = 0x0101010101010101, 0x8080808080808080

// plain is where plain text of a string ends that goes on at i: at a quote, a backslash, a
// control character or a byte of a longer rune.
func plain(d []byte, i int) int {
	// Eight bytes at a time: what is looked for leaves the high bit set. A borrow can set
	// it wrongly, but only above a byte that rightly has it.
	for i+8 <= len(d) {
		w := binary.LittleEndian.Uint64(d[i:])
		m := (w | (w - ' '*ones) | ((w ^ '"'*ones) - ones) | ((w ^ '\\'*ones) - ones)) & highs
		if m != 0 {
			return i + bits.TrailingZeros64(m)>>3
		}
		i += 8
	}
	for i < len(d) && special[d[i]]&inText == 0 {
		i++
	}
	return i
}

// plainHTML is plain for text that is written, where <, > and & are escaped, too.
func plainHTML(d []byte, i int) int {
	for i+8 <= len(d) {
		w := binary.LittleEndian.Uint64(d[i:])
		m := (w | (w - ' '*ones) | ((w ^ '"'*ones) - ones) | ((w ^ '\\'*ones) - ones) |
			((w ^ '<'*ones) - ones) | ((w ^ '>'*ones) - ones) | ((w ^ '&'*ones) - ones)) & highs
		if m != 0 {
			return i + bits.TrailingZeros64(m)>>3
		}
		i += 8
	}
	for i < len(d) && special[d[i]]&inHTML == 0 {
		i++
	}
	return i
}
