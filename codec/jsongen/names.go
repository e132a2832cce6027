package jsongen

import (
	"strconv"
	"unicode"
	"unicode/utf8"
)

// Names are the names of an object's members.
type Names struct {
	folded  map[string]string // of a name without upper and lower case, the first such name
	longest int
}

// NamesOf makes Names, in the order in which they are written.
func NamesOf(names ...string) *Names {
	n := &Names{folded: map[string]string{}}
	for _, name := range names {
		key := string(fold(nil, []byte(name)))
		if _, there := n.folded[key]; !there {
			n.folded[key] = name
		}
		n.longest = max(n.longest, len(key))
	}
	return n
}

// Fold makes name the one that it is in another case. It is false if there is none.
func (n *Names) Fold(name *[]byte) bool {
	if len(*name) > 4*n.longest { // no rune gets shorter than that by folding
		return false
	}
	var room [64]byte
	found, ok := n.folded[string(fold(room[:0], *name))]
	if !ok || found == string(*name) {
		return false
	}
	*name = []byte(found)
	return true
}

// fold appends name with all letters in one case, as encoding/json compares them.
func fold(dst, name []byte) []byte {
	for i := 0; i < len(name); {
		c := name[i]
		if c < utf8.RuneSelf {
			if 'a' <= c && c <= 'z' {
				c -= 'a' - 'A'
			}
			dst = append(dst, c)
			i++
			continue
		}
		r, size := utf8.DecodeRune(name[i:])
		for {
			next := unicode.SimpleFold(r)
			if next <= r { // the smallest of those that differ in case alone
				r = next
				break
			}
			r = next
		}
		dst = utf8.AppendRune(dst, r)
		i += size
	}
	return dst
}

// Unknown refuses a member of no field.
func (s *Scanner) Unknown(name []byte) {
	s.fail("unknown member " + strconv.Quote(string(name[:min(len(name), 64)])))
}

// Seen are the members that were there, by their places.
type Seen []uint64

// Once refuses a member that was there before.
func (s *Scanner) Once(seen Seen, member int) {
	word, bit := &seen[member/64], uint64(1)<<(member%64)
	if *word&bit != 0 {
		s.fail("a member is there twice")
	}
	*word |= bit
}

// Merge puts a map's new members into it, if there are not two of one name: there were n.
func Merge[M ~map[K]V, K comparable, V any](s *Scanner, into *M, m M, n int) {
	if len(m) != n {
		s.fail("a member is there twice")
	}
	if *into == nil {
		*into = m
		return
	}
	for k, v := range m {
		(*into)[k] = v
	}
}

// ByText appends a key of a map that MarshalText has written.
func ByText[K any](keys []Key[K], key K, text []byte, err error, w *Writing) []Key[K] {
	w.Check(err)
	return append(keys, Key[K]{string(text), key})
}

// IntKey reads a map's key that is a signed integer.
func IntKey[K Signed](s *Scanner, name []byte, k *K) {
	n, err := strconv.ParseInt(string(name), 10, 64)
	if err != nil || int64(K(n)) != n {
		s.fail("a member's name is no number that fits")
	}
	*k = K(n)
}

// UintKey reads a map's key that is an unsigned integer.
func UintKey[K Unsigned](s *Scanner, name []byte, k *K) {
	n, err := strconv.ParseUint(string(name), 10, 64)
	if err != nil || uint64(K(n)) != n {
		s.fail("a member's name is no number that fits")
	}
	*k = K(n)
}
