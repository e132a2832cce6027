// Package logs keeps what the library logs small, whatever peers do: lines of one
// cause come once a second, and what a peer may have chosen is cut. It knows no
// messages; docs/logs.md lists them.
package logs

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// New returns a logger that passes on to the one which pick returns, nil being
// slog.Default(). It is asked for every line, so that a program may set its default
// late.
//
// A cause is a level, a message, and the Known attribute, if there is one: never what
// a peer chose. Its first line is passed on at once. Those that come within the next
// second are counted, and the first one after it says how many in an attribute,
// "omitted". When none comes for two seconds, the count is a line of its own, without
// the other attributes.
//
// No lock is held while the program's handler runs: it may call the library, and
// what that logs of the same cause is counted, so that it does not go on for ever. Its
// panic loses the line and nothing else, since there is nobody who could be told.
func New(pick func() *slog.Logger) *slog.Logger {
	return slog.New(&handler{pick, new(limiter)})
}

// handler is all that is wrapped around the program's.
type handler struct {
	pick func() *slog.Logger
	*limiter
}

func (h *handler) to() slog.Handler {
	l := h.pick()
	if l == nil {
		l = slog.Default()
	}
	return l.Handler()
}

// Enabled comes before all else: what the program does not want is not counted.
func (h *handler) Enabled(ctx context.Context, level slog.Level) (on bool) {
	defer func() { recover() }()
	return h.to().Enabled(ctx, level)
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	omitted, ok := h.count(h, causeOf(r), r.PC)
	if ok {
		h.write(ctx, r, omitted)
	}
	return nil
}

// write gives a line to the program's handler, cut.
func (h *handler) write(ctx context.Context, r slog.Record, omitted int) {
	defer func() { recover() }()
	small := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		small.AddAttrs(clipAttr(a))
		return true
	})
	if omitted > 0 {
		small.AddAttrs(slog.Int("omitted", omitted))
	}
	h.to().Handle(ctx, small)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	small := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		small[i] = clipAttr(a)
	}
	return &handler{func() *slog.Logger { return slog.New(h.to().WithAttrs(small)) }, h.limiter}
}

func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return &handler{func() *slog.Logger { return slog.New(h.to().WithGroup(name)) }, h.limiter}
}

// cause is what lines are counted by.
type cause struct {
	level   slog.Level
	message string
	key     string // of the Known attribute …
	known   string // … and its value
}

func causeOf(r slog.Record) cause {
	c := cause{level: r.Level, message: r.Message}
	r.Attrs(func(a slog.Attr) bool {
		if a.Value.Kind() == slog.KindLogValuer {
			if k, ok := a.Value.Any().(Known); ok {
				c.key, c.known = a.Key, string(k)
			}
		}
		return c.key == ""
	})
	return c
}

const (
	interval  = time.Second  // between two lines of a cause
	quiet     = 2 * interval // after the last one, until the rest is told by itself
	maxCauses = 256          // beyond those, lines are counted by their messages alone
)

// limiter counts lines.
type limiter struct {
	mu     sync.Mutex
	causes map[cause]*counted
}

// counted is what there was of one cause.
type counted struct {
	last    time.Time // when a line was passed on
	pc      uintptr   // where the first one came from that was not
	omitted int       // lines since then
	waits   bool      // a timer will look after them
}

// count takes a line. It reports whether it is to be passed on, and how many were
// not since the last one.
func (l *limiter) count(h *handler, c cause, pc uintptr) (omitted int, ok bool) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.causes[c]
	if e == nil && len(l.causes) >= maxCauses {
		l.forgetLocked(now)
		if len(l.causes) >= maxCauses {
			c.key, c.known = "", "" // those are as many as the source has
			e = l.causes[c]
		}
	}
	if e == nil {
		if l.causes == nil {
			l.causes = map[cause]*counted{}
		}
		l.causes[c] = &counted{last: now}
		return 0, true
	}
	if now.Sub(e.last) >= interval {
		omitted, e.omitted, e.last = e.omitted, 0, now
		return omitted, true
	}
	if e.omitted++; e.omitted == 1 {
		e.pc = pc
	}
	if !e.waits {
		e.waits = true
		time.AfterFunc(e.last.Add(quiet).Sub(now), func() { l.rest(h, c, e) })
	}
	return 0, false
}

// forgetLocked makes room: it forgets the causes of which there is nothing to tell.
func (l *limiter) forgetLocked(now time.Time) {
	for c, e := range l.causes {
		if !e.waits && now.Sub(e.last) >= interval {
			delete(l.causes, c)
		}
	}
}

// rest runs on a timer: it tells of what was left out, when the cause is quiet. There
// is no timer for a cause of which nothing is left out.
func (l *limiter) rest(h *handler, c cause, e *counted) {
	now := time.Now()
	l.mu.Lock()
	if wait := e.last.Add(quiet).Sub(now); wait > 0 && e.omitted > 0 {
		time.AfterFunc(wait, func() { l.rest(h, c, e) })
		l.mu.Unlock()
		return
	}
	n, pc := e.omitted, e.pc
	e.waits, e.omitted = false, 0
	if n > 0 {
		e.last = now
	}
	l.mu.Unlock()
	if n == 0 {
		return
	}
	r := slog.NewRecord(now, c.level, c.message, pc)
	if c.key != "" {
		r.AddAttrs(slog.String(c.key, c.known))
	}
	h.write(context.Background(), r, n)
}
