package logs

import (
	"encoding"
	"encoding/json"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"unicode/utf8"
)

const (
	// MaxText is how many bytes of a text are kept that a peer may have chosen.
	MaxText = 256
	// maxOwn is the same for what the program's own source makes.
	maxOwn = 16 << 10
)

// Known is a name from the program's source, as a method's that is registered: there
// are so many, and each is a cause of its own.
type Known string

// LogValue is the name.
func (k Known) LogValue() slog.Value { return slog.StringValue(string(k)) }

// Own is a text in which nothing is a peer's. More of it is kept.
type Own string

// Panic is what a program's function panicked with. It is put into words when the
// line is written, and not at all for one that is left out.
type Panic struct{ Value any }

// Stack stands for the stack of the goroutine that logs. It, too, is only asked for
// when the line is written.
type Stack struct{}

// LogValue is the stack.
func (Stack) LogValue() slog.Value { return slog.StringValue(clip(string(debug.Stack()), maxOwn)) }

// Clip cuts a text to MaxText bytes.
func Clip(s string) string { return clip(s, MaxText) }

// clip keeps so many bytes of a text: three quarters from its beginning, and the rest
// from its end, where an error has its cause. What was between is a number.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	head, tail := most-most/4, len(s)-most/4
	for i := 0; i < utf8.UTFMax-1 && !utf8.RuneStart(s[head]); i++ { // elsewhere it is no UTF-8
		head--
	}
	for i := 0; i < utf8.UTFMax-1 && !utf8.RuneStart(s[tail]); i++ {
		tail++
	}
	return s[:head] + "…[" + strconv.Itoa(tail-head) + " bytes cut]…" + s[tail:]
}

// clipAttr cuts whatever can be long.
func clipAttr(a slog.Attr) slog.Attr {
	a.Value = clipValue(a.Value)
	return a
}

func clipValue(v slog.Value) slog.Value {
	switch v.Kind() {
	case slog.KindString:
		return slog.StringValue(Clip(v.String()))
	case slog.KindGroup:
		attrs := make([]slog.Attr, len(v.Group()))
		for i, a := range v.Group() {
			attrs[i] = clipAttr(a)
		}
		return slog.GroupValue(attrs...)
	case slog.KindLogValuer:
		switch x := v.Any().(type) {
		case Known:
			return slog.StringValue(Clip(string(x)))
		case Stack:
			return x.LogValue()
		}
		return clipValue(v.Resolve())
	case slog.KindAny:
		return clipAny(v)
	}
	return v // numbers and times
}

// clipAny cuts what has a text. A short error stays what it is, for handlers that
// look into it; but one with other ways to write itself is its text alone.
func clipAny(v slog.Value) slog.Value {
	var text string
	switch x := v.Any().(type) {
	case nil:
		return v
	case Own:
		return slog.StringValue(clip(string(x), maxOwn))
	case Panic:
		text = inWords(x.Value)
	case []byte:
		text = string(x)
	case error:
		text = inWords(x)
		if len(text) <= MaxText && !writesItself(x) {
			return v
		}
	default:
		text = inWords(x)
	}
	return slog.StringValue(Clip(text))
}

// inWords does not let a panic of the text's maker out; fmt catches it.
func inWords(x any) string { return fmt.Sprint(x) }

func writesItself(x any) bool {
	switch x.(type) {
	case fmt.Formatter, json.Marshaler, encoding.TextMarshaler, slog.LogValuer:
		return true
	}
	return false
}
