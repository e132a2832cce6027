package wire

import (
	"bytes"
	"math"
)

// members walks the members of one object.
type members struct {
	s       *scanner
	started bool
	limit   int  // refuse more members than this; 0: any number
	count   int  // members so far
	twice   bool // the last name has been seen before, or could not be judged
	seen    keySet
}

// object opens the object that follows in s.
func (s *scanner) object() (members, error) {
	if err := s.open('{', "no object"); err != nil {
		return members{}, err
	}
	return members{s: s}, nil
}

func (s *scanner) open(bracket byte, missing string) error {
	if s.peek() != bracket {
		if s.pos == 0 && bytes.HasPrefix(s.data, []byte("\uFEFF")) {
			missing = textBOM
		}
		return s.fail(s.pos, missing)
	}
	if s.room <= 0 {
		return s.fail(s.pos, textDeep)
	}
	s.room--
	s.pos++
	return nil
}

// next returns the next name, unescaped, and its value as written; a nil key
// at the end of the object. Faults of syntax are errors, a name used twice is
// only marked, because a JSON-RPC reader must still read on to the next
// element of its batch.
func (o *members) next() (key, value []byte, err error) {
	s := o.s
	c := s.peek()
	if c == '}' {
		s.pos++
		s.room++
		return nil, nil, nil
	}
	if o.started {
		if c != ',' {
			return nil, nil, s.fail(s.pos, textComma)
		}
		s.pos++
	}
	o.started = true
	s.pos = skipSpace(s.data, s.pos)
	start := s.pos
	end, bad := skipKey(s.data, start)
	if bad != "" {
		return nil, nil, s.fail(end, bad)
	}
	key = s.data[start+1 : start+1+keyLen(s.data[start+1:end])]
	if bytes.IndexByte(key, '\\') >= 0 {
		key = appendUnescaped(make([]byte, 0, len(key)), key)
	}
	s.pos = skipSpace(s.data, end)
	start = s.pos
	if err := s.value(); err != nil {
		return nil, nil, err
	}
	o.count++
	// Beyond the limit names are not remembered: a text of two million members
	// must not become a table of two million names.
	o.twice = o.limit > 0 && o.count > o.limit || !o.seen.add(key)
	return key, s.data[start:s.pos:s.pos], nil // appending to it must not write into the message
}

// keyLen returns the length of the name at the front of d, which ends with its
// closing quote, white space and a colon.
func keyLen(d []byte) int {
	n := len(d) - 2 // without the colon
	for d[n] != '"' {
		n--
	}
	return n
}

// keySet holds the names of one object: a few in place, many in a map.
type keySet struct {
	few  [16][]byte
	n    int
	many map[string]struct{}
}

// add reports whether key is new.
func (k *keySet) add(key []byte) bool {
	if k.many != nil {
		if _, ok := k.many[string(key)]; ok {
			return false
		}
		k.many[string(key)] = struct{}{}
		return true
	}
	for _, other := range k.few[:k.n] {
		if string(other) == string(key) {
			return false
		}
	}
	if k.n < len(k.few) {
		k.few[k.n] = key
		k.n++
		return true
	}
	k.many = make(map[string]struct{}, 4*len(k.few))
	for _, other := range k.few {
		k.many[string(other)] = struct{}{}
	}
	k.many[string(key)] = struct{}{}
	return true
}

// elements walks the elements of one array.
type elements struct {
	s       *scanner
	started bool
}

// array opens the array that follows in s.
func (s *scanner) array() (elements, error) {
	if err := s.open('[', "no array"); err != nil {
		return elements{}, err
	}
	return elements{s: s}, nil
}

// next moves to the first byte of the next element and reports whether there
// is one. The caller then moves over the element.
func (a *elements) next() (more bool, err error) {
	s := a.s
	c := s.peek()
	if c == ']' {
		s.pos++
		s.room++
		return false, nil
	}
	if a.started {
		if c != ',' {
			return false, s.fail(s.pos, textComma)
		}
		s.pos++
		if s.peek() == ']' {
			return false, s.fail(s.pos, textValue)
		}
	}
	a.started = true
	return true, nil
}

// The readers below take the raw text of one valid value.

func isNull(raw []byte) bool { return string(raw) == "null" }

func isString(raw []byte) bool { return len(raw) > 0 && raw[0] == '"' }

func isObject(raw []byte) bool { return len(raw) > 0 && raw[0] == '{' }

func isNumber(raw []byte) bool { return len(raw) > 0 && (raw[0] == '-' || isDigit(raw[0])) }

// parseUint reads an integer written with digits only: 7, not 7.0 or 7e0.
func parseUint(raw []byte) (v uint64, ok bool) {
	for _, c := range raw {
		if !isDigit(c) || v > math.MaxUint64/10 {
			return 0, false
		}
		next := v*10 + uint64(c-'0')
		if next < v*10 {
			return 0, false
		}
		v = next
	}
	return v, len(raw) > 0
}

// parseInt is parseUint with a sign.
func parseInt(raw []byte) (v int64, ok bool) {
	digits, negative := bytes.CutPrefix(raw, []byte("-"))
	u, ok := parseUint(digits)
	switch {
	case !ok:
		return 0, false
	case negative:
		return -int64(u), u <= -math.MinInt64
	}
	return int64(u), u <= math.MaxInt64
}

func parseBool(raw []byte) (v, ok bool) {
	v = string(raw) == "true"
	return v, v || string(raw) == "false"
}
