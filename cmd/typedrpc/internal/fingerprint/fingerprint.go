// Package fingerprint sums up what a declaration puts on the wire, so that two sides can
// find out that they were built from different ones.
package fingerprint

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/model"
)

// depth is how many names of types within each other count. Types are known by their
// structure, which of recursive ones has no end.
const depth = 32

// Sums are the fingerprints of an API's declarations.
type Sums struct {
	types map[*model.Named]string
	sent  map[string]*model.Decl // by name, where the API's own is not what is sent
}

// Of reads the types of api, as they are sent: what flags make of them for one reader of
// the output is no other message.
func Of(api *model.API) *Sums {
	s := &Sums{types: map[*model.Named]string{}, sent: map[string]*model.Decl{}}
	if api.Sent != nil {
		api = api.Sent
		for _, d := range api.Decls {
			s.sent[d.Name] = d
		}
	}
	for range depth {
		next := map[*model.Named]string{}
		for _, t := range api.Types {
			w := writer{s.types, nil}
			w.named(t)
			next[t] = string(w.sum())
		}
		s.types = next
	}
	return s
}

// Decl is d's fingerprint, 8 hexadecimal digits. Its kind is in it, the order of what a
// list of params has, and the JSON of its messages; comments, names of Go, traits, and the
// order of members are not.
func (s *Sums) Decl(d *model.Decl) string {
	if sent := s.sent[d.Name]; sent != nil {
		d = sent
	}
	w := writer{s.types, nil}
	w.text(string(d.Kind))
	w.count(len(d.Params))
	for _, p := range d.Params {
		w.text(p)
	}
	for _, t := range []*model.Type{d.Request, d.Up, d.Down, d.Response} {
		w.typ(t)
	}
	return hex.EncodeToString(w.sum()[:4])
}

// Pair is what stands for d in a handshake (PROTOCOL.md section 2.2): ten hexadecimal
// digits of its name's SHA-256, and the first six of its fingerprint.
func (s *Sums) Pair(d *model.Decl) string {
	name := sha256.Sum256([]byte(d.Name))
	return hex.EncodeToString(name[:5]) + s.Decl(d)[:6]
}

// writer writes what is summed up, so that no two values are written alike.
type writer struct {
	types map[*model.Named]string
	out   []byte
}

func (w *writer) sum() []byte {
	sum := sha256.Sum256(w.out)
	return sum[:]
}

func (w *writer) text(s string) { w.out = append(strconv.AppendQuote(w.out, s), ' ') }

func (w *writer) count(n int) { w.out = append(strconv.AppendInt(w.out, int64(n), 10), ' ') }

func (w *writer) flag(b bool) { w.out = append(strconv.AppendBool(w.out, b), ' ') }

func (w *writer) named(t *model.Named) {
	w.flag(t.Null)
	var values []string
	if !t.Open {
		for _, c := range t.Enum {
			values = append(values, c.Value)
		}
	}
	slices.Sort(values)
	values = slices.Compact(values)
	w.count(len(values))
	for _, v := range values {
		w.text(v)
	}
	w.typ(t.Type)
}

func (w *writer) typ(t *model.Type) {
	if t == nil {
		w.text("none")
		return
	}
	w.count(int(t.Kind))
	w.flag(t.Null)
	w.text(t.Format)
	switch t.Kind {
	case model.Array:
		w.typ(t.Elem)
	case model.Tuple:
		w.count(int(t.Len))
		w.typ(t.Elem)
	case model.Map:
		w.typ(t.Key)
		w.typ(t.Elem)
	case model.Mapped:
		w.text(t.Text)
	case model.Ref:
		w.text(w.types[t.Ref])
	case model.Object:
		fields := slices.SortedFunc(slices.Values(t.Fields), func(a, b model.Field) int { return cmp.Compare(a.Name, b.Name) })
		w.count(len(fields))
		for _, f := range fields {
			w.text(f.Name)
			w.flag(f.Optional)
			w.typ(f.Type)
		}
	}
}
