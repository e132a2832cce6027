package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/typedrpc/typedrpc"
)

// oneLine is a value without line breaks: JSON as it is, anything else as a string in
// base64.
func oneLine(raw []byte) []byte {
	var b bytes.Buffer
	if len(raw) == 0 {
		return []byte("null")
	}
	if json.Compact(&b, raw) == nil {
		return withoutControls(b.Bytes())
	}
	text, _ := json.Marshal(raw)
	return text
}

// withoutControls has the control characters that strings of JSON may have as escapes,
// which say the same: terminals obey some of them.
func withoutControls(text []byte) []byte {
	if !bytes.ContainsFunc(text, unicode.IsControl) {
		return text
	}
	return escaped(text, func(rune) bool { return false }, `\u%04x`)
}

// printable is what others have written, for people to read: with the control characters
// that terminals obey as escapes, but for the ends of lines and tabs.
func printable(text string) string {
	return string(escaped([]byte(text), func(r rune) bool { return r == '\n' || r == '\t' }, `\x%02x`))
}

// escaped has control characters, but those that stay, in that format.
func escaped(text []byte, stays func(rune) bool, format string) []byte {
	out := make([]byte, 0, len(text))
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && n == 1: // no text, and a control character to some
			out = utf8.AppendRune(out, r)
		case unicode.IsControl(r) && !stays(r):
			out = fmt.Appendf(out, format, r)
		default:
			out = append(out, text[:n]...)
		}
		text = text[n:]
	}
	return out
}

// value writes a value to standard output, on a line.
func (env *Env) value(raw []byte) error {
	_, err := env.Out.Write(append(oneLine(raw), '\n'))
	return err
}

// object is value for what this program says itself.
func (env *Env) object(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return env.value(line)
}

// note tells something that is no error.
func (env *Env) note(format string, args ...any) {
	fmt.Fprintf(env.Err, "typedrpc: %s\n", printable(fmt.Sprintf(format, args...)))
}

// content is what an argument stands for: "-" standard input, "@file" a file, anything
// else itself.
func (env *Env) content(arg string) (string, error) {
	switch {
	case arg == "-":
		text, err := io.ReadAll(env.In)
		return string(text), err
	case strings.HasPrefix(arg, "@"):
		text, err := os.ReadFile(arg[1:])
		return string(text), err
	}
	return arg, nil
}

// params are the request that the argument at place i stands for; none are null.
func (env *Env) params(args []string, i int) (typedrpc.Raw, error) {
	if len(args) <= i {
		return nil, nil
	}
	text, err := env.content(args[i])
	if err != nil {
		return nil, usagef("the request: %w", err)
	}
	return checkJSON("the request", text)
}

// checkJSON is text if it is one JSON value.
func checkJSON(what, text string) (typedrpc.Raw, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, usagef("%s is empty, which is no JSON", what)
	}
	var v json.RawMessage
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		if strings.ContainsRune(`{["`, rune(text[0])) {
			return nil, usagef("%s is not JSON: %w", what, err)
		}
		const most = 40
		if len(text) > most {
			text = strings.ToValidUTF8(text[:most], "") + "…"
		}
		quoted, _ := json.Marshal(text)
		return nil, usagef(`%s is not JSON: %w (a string has quotes of its own: '%s')`, what, err, quoted)
	}
	return typedrpc.Raw(text), nil
}

// items are the JSON values that r has, one after another, or its lines as strings. Their
// end is r's, or ctx's; what is no JSON is an error.
func items(ctx context.Context, r io.Reader, lines bool) iter.Seq2[typedrpc.Raw, error] {
	type item struct {
		raw json.RawMessage
		err error
	}
	came := make(chan item)
	ctx, cancel := context.WithCancel(ctx)
	next := reader(r, lines)
	go func() { // ends with ctx, or when the read does that it is in
		for {
			raw, err := next()
			select {
			case came <- item{raw, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return func(yield func(typedrpc.Raw, error) bool) {
		defer cancel()
		for n := 1; ; n++ {
			select {
			case <-ctx.Done():
				yield(nil, ctx.Err())
				return
			case i := <-came:
				if i.err == io.EOF {
					return
				}
				if i.err != nil {
					i.err = usagef("item %d: %w", n, i.err)
				}
				if !yield(typedrpc.Raw(i.raw), i.err) || i.err != nil {
					return
				}
			}
		}
	}
}

// reader returns the function that reads the next item of r.
func reader(r io.Reader, lines bool) func() (json.RawMessage, error) {
	if !lines {
		d := json.NewDecoder(r)
		return func() (raw json.RawMessage, err error) {
			if err = d.Decode(&raw); err == io.ErrUnexpectedEOF {
				err = errors.New("it ends in the middle of a JSON value")
			}
			return raw, err
		}
	}
	read := lineReader(r)
	return func() (json.RawMessage, error) {
		line, err := read()
		if err != nil {
			return nil, err
		}
		return json.Marshal(line)
	}
}

// lineReader returns the function that reads the next line of r, the last one also if it
// does not end.
func lineReader(r io.Reader) func() (string, error) {
	b := bufio.NewReader(r)
	return func() (string, error) {
		line, err := b.ReadString('\n')
		if err == io.EOF && line != "" {
			err = nil
		}
		return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), err
	}
}
