package wire

import (
	"bytes"
	"errors"
	"fmt"
)

// Sequence takes apart JSON texts that come one behind the other: as a JSON text sequence
// (RFC 7464), or each in a line of its own. It keeps no bytes, and looks at each once, and
// once more when a text is whole. The zero value is ready for RFC 7464; it is for one
// goroutine.
type Sequence struct {
	Lines    bool // each text has a line; else an RS is in front of it and an LF behind it
	Max      int  // bytes of a text, at most
	MaxDepth int  // as Valid's

	count int  // texts that were found
	seen  int  // bytes that were looked at, of the text that has not come whole
	begun bool // its RS has come
	depth int  // objects and lists that are open there
	str   bool // a string is …
	esc   bool // … and a backslash came last
}

// recordSeparator is what RFC 7464 has in front of each text.
const recordSeparator = 0x1e

var (
	// ErrTruncated is what a text that has not come whole is wrapped in.
	ErrTruncated = errors.New("truncated")
	// ErrTooLong is what a text that has more than Sequence.Max bytes is wrapped in.
	ErrTooLong = errors.New("too long")
)

// Next finds the first text in data. The next call's data goes on behind the first used
// bytes of it, and may have more behind that. A nil text says that more has to come, or, with
// all, behind which nothing comes, that there is none. The text points into data. An error is
// the end of the sequence; that of a text that is no JSON wraps ErrMalformed.
func (s *Sequence) Next(data []byte, all bool) (text []byte, used int, err error) {
	used, more := s.gap(data, all)
	if more {
		return nil, used, nil
	}
	if !s.Lines && !s.begun {
		return nil, used, fmt.Errorf("%w: in front of text %d there is no record separator", ErrMalformed, s.count+1)
	}
	rest := data[used:]
	end, found := s.end(rest)
	switch {
	case end > s.Max:
		return nil, used, fmt.Errorf("%w: text %d has more than %d bytes", ErrTooLong, s.count+1, s.Max)
	case !found && !all:
		return nil, used, nil
	case !s.Lines && !s.whole(rest, end):
		return nil, used, fmt.Errorf("%w: text %d ends before it is whole", ErrTruncated, s.count+1)
	}
	s.count++
	text = bytes.Trim(rest[:end], " \t\r\n")
	if err := Valid(text, s.MaxDepth); err != nil {
		return nil, used, fmt.Errorf("text %d: %w", s.count, err)
	}
	if end < len(rest) && rest[end] == '\n' {
		end++
	}
	*s = Sequence{Lines: s.Lines, Max: s.Max, MaxDepth: s.MaxDepth, count: s.count}
	return text, used + end, nil
}

// Half reports whether a text has come in part: rest are the bytes that Next has not used.
func (s *Sequence) Half(rest []byte) bool { return s.begun || len(rest) > 0 }

// gap is how many bytes there are in front of a text. more says that no text follows them,
// and that it is no error.
func (s *Sequence) gap(data []byte, all bool) (n int, more bool) {
	if s.seen > 0 {
		return 0, false // it is behind us
	}
	for n < len(data) {
		switch c := data[n]; {
		case c == ' ', c == '\t', c == '\r', c == '\n':
		case c == recordSeparator && !s.Lines:
			s.begun = true // of several the last is the text's
		default:
			return n, false
		}
		n++
	}
	return n, !all || !s.begun
}

// end finds where the text at the beginning of data ends, or how much of it there is.
func (s *Sequence) end(data []byte) (n int, found bool) {
	if s.Lines {
		i := bytes.IndexByte(data[s.seen:], '\n')
		if i >= 0 {
			return s.seen + i, true
		}
		s.seen = len(data)
		return len(data), false
	}
	for i, c := range data[s.seen:] {
		switch {
		case c == recordSeparator, c == '\n' && s.depth <= 0 && !s.str:
			s.seen += i
			return s.seen, true
		case s.esc:
			s.esc = false
		case s.str:
			s.esc, s.str = c == '\\', c != '"'
		case c == '"':
			s.str = true
		case c == '{', c == '[':
			s.depth++
		case c == '}', c == ']':
			s.depth--
		}
	}
	s.seen = len(data)
	return len(data), false
}

// whole reports whether the text of n bytes at the beginning of data is known to be so. Of
// a number, or of true, false and null, only white space behind it tells.
func (s *Sequence) whole(data []byte, n int) bool {
	if s.depth > 0 || s.str || n == 0 {
		return false
	}
	if n < len(data) && data[n] == '\n' {
		return true
	}
	switch data[n-1] {
	case '}', ']', '"', ' ', '\t', '\r':
		return true
	}
	return false
}
