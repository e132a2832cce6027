package jsongen

// Skip reads a value, and makes nothing of it.
func (s *Scanner) Skip() { s.Raw() }

// Raw reads a value, and returns it as it is written: a part of the data. In a loop, so
// that depth costs no stack.
func (s *Scanner) Raw() []byte {
	s.skipSpace()
	var (
		start    = s.pos
		depth    int
		inObject bool
		room     [4]uint64 // a bit for each bracket that is open: whether it is in an object
		outer    = room[:]
	)
	for {
		// Here a value begins.
		switch c := s.peek(); {
		case c == '"':
			s.skipString()
		case c == '{' || c == '[':
			if s.depth+depth >= maxDepth {
				s.fail("too deep")
				return nil
			}
			word, bit := depth>>6, uint64(1)<<(depth&63)
			if word == len(outer) {
				outer = append(outer, 0)
			}
			outer[word] &^= bit
			if inObject {
				outer[word] |= bit
			}
			depth++
			inObject = c == '{'
			s.pos++
			if s.peek() == c+2 { // '}' and ']' are two after '{' and '['
				break
			}
			if inObject {
				s.skipName()
			}
			if s.err != nil {
				return nil
			}
			continue
		case c == 't':
			s.literal("true")
		case c == 'f':
			s.literal("false")
		case c == 'n':
			s.literal("null")
		default:
			s.number()
		}
		// Here a value has ended, or an empty container is about to.
	closing:
		for {
			if s.err != nil {
				return nil
			}
			if depth == 0 {
				return s.data[start:s.pos:s.pos]
			}
			switch c := s.peek(); {
			case c == ',':
				s.pos++
				if inObject {
					s.skipName()
				}
				break closing
			case c == '}' && inObject || c == ']' && !inObject:
				s.pos++
				depth--
				inObject = outer[depth>>6]&(1<<(depth&63)) != 0
			default:
				s.fail("no comma or closing bracket")
			}
		}
	}
}

func (s *Scanner) skipName() {
	if s.peek() != '"' {
		s.fail("no member name")
		return
	}
	s.skipString()
	if s.peek() != ':' {
		s.fail("no colon")
		return
	}
	s.pos++
}

// skipString reads a string without making a copy.
func (s *Scanner) skipString() {
	if s.exact {
		s.str()
		return
	}
	d, i := s.data, s.pos+1
	for {
		i = plain(d, i)
		if i >= len(d) {
			s.fail("unfinished string")
			return
		}
		switch c := d[i]; {
		case c == '"':
			s.pos = i + 1
			return
		case c == '\\':
			_, size := escape(d[i:])
			if size == 0 {
				s.pos = i
				s.fail("bad escape")
				return
			}
			i += size
		case c < ' ':
			s.pos = i
			s.fail("control character in a string")
			return
		default:
			i++
		}
	}
}

// number reads a number and returns it as it is written, nil: there is none.
func (s *Scanner) number() []byte {
	d, i := s.data, s.pos
	start := i
	if i < len(d) && d[i] == '-' {
		i++
	}
	switch {
	case i < len(d) && d[i] == '0':
		i++
	case i < len(d) && d[i]-'0' <= 9:
		i = digits(d, i)
	default:
		s.fail("no value")
		return nil
	}
	if i < len(d) && d[i] == '.' {
		at := i + 1
		if i = digits(d, at); i == at {
			s.fail("bad number")
			return nil
		}
	}
	if i < len(d) && d[i]|0x20 == 'e' {
		i++
		if i < len(d) && (d[i] == '+' || d[i] == '-') {
			i++
		}
		at := i
		if i = digits(d, at); i == at {
			s.fail("bad number")
			return nil
		}
	}
	s.pos = i
	return d[start:i]
}

func digits(d []byte, i int) int {
	for i < len(d) && d[i]-'0' <= 9 {
		i++
	}
	return i
}
