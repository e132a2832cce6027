package schema

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
)

// Prints are the fingerprints of a document's names, by which two peers find out that
// they were built from different ones. They travel as pairs of eight bytes: five of the
// name's SHA-256, and three of its fingerprint. nil are those of nobody, which cost
// nothing. They are not changed, and may be shared.
type Prints struct {
	offer string
	of    map[nameSum]printed
}

type nameSum [5]byte

type printed struct {
	name string
	sum  [3]byte
}

const (
	pair = 8
	// MaxPrints is how many pairs travel in an offer: those of the smallest sums,
	// so that of larger documents two peers send those of the same names.
	MaxPrints = 2048
	// maxAnswer is how many travel in an answer.
	maxAnswer = 256
	// maxListed is how many names Differ returns.
	maxListed = 16
)

// Prints are s's. An error is a sentence about s, which is its subject.
func (s *Schema) Prints() (*Prints, error) {
	if s == nil {
		return nil, nil
	}
	p := &Prints{of: map[nameSum]printed{}}
	var sums []nameSum
	for _, m := range s.methods {
		if m.facts.Fingerprint == "" {
			continue // "typedrpc schema" has not written it
		}
		sum, err := hex.DecodeString(m.facts.Fingerprint)
		if err != nil || len(sum) < 3 {
			return nil, fmt.Errorf("has a fingerprint of %q that is none", m.name)
		}
		name := sha256.Sum256([]byte(m.name))
		key := nameSum(name[:])
		if _, twice := p.of[key]; !twice {
			sums = append(sums, key)
		}
		p.of[key] = printed{m.name, [3]byte(sum)}
	}
	if len(sums) == 0 {
		return nil, nil
	}
	slices.SortFunc(sums, func(a, b nameSum) int { return slices.Compare(a[:], b[:]) })
	p.offer = p.pairs(sums[:min(len(sums), MaxPrints)])
	return p, nil
}

// pairs are those of some of p's names.
func (p *Prints) pairs(sums []nameSum) string {
	var all []byte
	for _, sum := range sums {
		print := p.of[sum].sum
		all = append(append(all, sum[:]...), print[:]...)
	}
	return base64.RawStdEncoding.EncodeToString(all)
}

// Offer is what a client sends in HELLO, "": nothing.
func (p *Prints) Offer() string {
	if p == nil {
		return ""
	}
	return p.offer
}

// Difference is where two peers' fingerprints differ.
type Difference struct {
	Names  []string // the first of them, in order
	Count  int      // how many there are
	Answer string   // what the other side is told of them
}

// Differ compares a peer's pairs with p's. Names that only one of them has are no
// difference; what is no list of pairs has none, and of a list that is longer than an
// offer the rest is passed over.
func (p *Prints) Differ(peer string) (d Difference) {
	if p == nil || peer == "" {
		return d
	}
	theirs, err := base64.RawStdEncoding.DecodeString(peer[:min(len(peer), base64.RawStdEncoding.EncodedLen(MaxPrints*pair))])
	if err != nil || len(theirs)%pair != 0 {
		return d
	}
	seen := map[nameSum]bool{}
	var sums []nameSum
	for ; len(theirs) > 0; theirs = theirs[pair:] {
		key := nameSum(theirs)
		own, known := p.of[key]
		if known && own.sum != [3]byte(theirs[len(key):pair]) && !seen[key] {
			seen[key] = true
			sums = append(sums, key)
		}
	}
	slices.SortFunc(sums, func(a, b nameSum) int { return cmp.Compare(p.of[a].name, p.of[b].name) })
	d.Count = len(sums)
	for _, sum := range sums[:min(len(sums), maxListed)] {
		d.Names = append(d.Names, p.of[sum].name)
	}
	d.Answer = p.pairs(sums[:min(len(sums), maxAnswer)])
	return d
}
