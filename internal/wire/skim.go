package wire

import "bytes"

// skim finds what a plain peer's message that is no JSON was meant to answer, for
// whoever waits for that: a number such as NaN, a text that is not UTF-8, nesting
// without end. fault is what is wrong with it.
func (r *Reader) skim(msg []byte, fault *SyntaxError) {
	i := skipSpace(msg, len(msg)-len(bytes.TrimPrefix(msg, []byte("\uFEFF"))))
	if i == len(msg) || msg[i] != '{' && msg[i] != '[' {
		return
	}
	others := false
	take := func(e *envelope) {
		if !r.answers(e) {
			others = true
			return
		}
		if len(fault.Answers) == MaxBatch {
			return
		}
		var f Frame
		f.ID, _ = ownID(e.raw[memberID])
		r.unreadable(e, &f, fault.Text)
		fault.Answers = append(fault.Answers, f)
	}
	array := msg[i] == '['
	if array {
		i++
	}
	for i < len(msg) { // of objects that are in no array there may be several, too, each in its line
		switch i = skipSpace(msg, i); {
		case i == len(msg):
		case msg[i] == '{':
			var e envelope
			e, i = skimObject(msg, i)
			take(&e)
		case msg[i] == ',' || msg[i] == ']':
			i++
		default:
			others = others || array
			i = skimValue(msg, i)
		}
	}
	fault.Mute = len(fault.Answers) > 0 && !others
}

// skimObject finds the members of the object at d[i], whatever they are, and where
// it ends.
func skimObject(d []byte, i int) (e envelope, end int) {
	for i++; i < len(d); {
		switch i = skipSpace(d, i); {
		case i == len(d):
			return e, i
		case d[i] == '}':
			return e, i + 1
		case d[i] == ',':
			i++
			continue
		case d[i] != '"':
			i = skimValue(d, i)
			continue
		}
		start := i
		i = skimValue(d, i)
		name := bytes.Trim(d[start:i], `"`)
		if i = skipSpace(d, i); i == len(d) || d[i] != ':' {
			continue
		}
		start = skipSpace(d, i+1)
		if i = start; i < len(d) {
			i = skimValue(d, i)
		}
		m := memberIndex(name)
		if m >= 0 && e.raw[m] == nil && (m != memberID || Valid(d[start:i], 0) == nil) {
			e.raw[m] = d[start:i]
		}
	}
	return e, i
}

// skimValue is behind what begins at d[i]: a text, something in brackets, or all up
// to the next sign.
func skimValue(d []byte, i int) int {
	switch d[i] {
	case '"':
		return skimString(d, i)
	case '{', '[':
		depth := 0
		for i < len(d) {
			switch d[i] {
			case '"':
				i = skimString(d, i)
				continue
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			}
			if i++; depth == 0 {
				return i
			}
		}
		return i
	}
	for i++; i < len(d) && bytes.IndexByte(signs, d[i]) < 0; i++ {
	}
	return i
}

var signs = []byte("{}[]:,\" \t\r\n")

// skimString is behind the text that begins at d[i].
func skimString(d []byte, i int) int {
	for i++; i < len(d); i++ {
		switch d[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(d)
}
