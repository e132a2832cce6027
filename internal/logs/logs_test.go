package logs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/logs"
)

// book is a program's handler: it keeps lines, and does what it is told to.
type book struct {
	level slog.Level
	then  func()

	mu    sync.Mutex
	lines []line
}

type line struct {
	at      time.Time
	level   slog.Level
	message string
	attrs   map[string]any
}

func (b *book) Enabled(_ context.Context, l slog.Level) bool { return l >= b.level }
func (b *book) WithAttrs([]slog.Attr) slog.Handler           { return b }
func (b *book) WithGroup(string) slog.Handler                { return b }

func (b *book) Handle(_ context.Context, r slog.Record) error {
	l := line{r.Time, r.Level, r.Message, map[string]any{}}
	r.Attrs(func(a slog.Attr) bool {
		l.attrs[a.Key] = a.Value.Any()
		return true
	})
	b.mu.Lock()
	b.lines = append(b.lines, l)
	b.mu.Unlock()
	if b.then != nil {
		b.then()
	}
	return nil
}

func (b *book) take() []line {
	b.mu.Lock()
	defer b.mu.Unlock()
	lines := b.lines
	b.lines = nil
	return lines
}

func (b *book) logger() *slog.Logger {
	return logs.New(func() *slog.Logger { return slog.New(b) })
}

func omitted(l line) int64 {
	n, _ := l.attrs["omitted"].(int64)
	return n
}

// told is how many lines some stand for: those that tell of others alone have no x.
func told(lines []line) (sum int64) {
	for _, l := range lines {
		sum += omitted(l)
		if _, itself := l.attrs["x"]; itself {
			sum++
		}
	}
	return sum
}

func TestLogs_oneASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		b := new(book)
		log := b.logger()
		start := time.Now()
		for range 5000 { // a millisecond apart
			log.Error("failed", "x", "why")
			time.Sleep(time.Millisecond)
		}
		got := b.take()
		is.Equal(len(got), 5)
		sum := told(got)
		for i, l := range got {
			is.Equal(l.at.Sub(start), time.Duration(i)*time.Second)
			is.Equal(l.attrs["x"], "why")
		}
		is.Equal(omitted(got[0]), int64(0))
		is.Equal(omitted(got[1]), int64(999))

		time.Sleep(time.Hour) // the rest is told once, and then nothing goes on
		got = b.take()
		is.Equal(len(got), 1)
		is.Equal(got[0].message, "failed")
		is.Equal(got[0].level, slog.LevelError)
		is.Equal(got[0].at.Sub(start), 6*time.Second)
		is.Equal(sum+told(got), int64(5000)) // none is lost

		log.Error("failed")
		got = b.take()
		is.Equal(len(got), 1) // at once again
		is.Equal(omitted(got[0]), int64(0))
		time.Sleep(time.Hour)
		is.Equal(len(b.take()), 0)
	})
}

// TestLogs_slowCause has lines that are just rare enough, and pairs of them.
func TestLogs_slowCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		b := new(book)
		log := b.logger()
		for range 10 {
			log.Warn("slow")
			time.Sleep(time.Second)
		}
		is.Equal(len(b.take()), 10)
		for range 10 { // at most one a second, whatever tells
			log.Warn("pair", "x", 1)
			log.Warn("pair", "x", 2)
			time.Sleep(2*time.Second + time.Millisecond)
		}
		time.Sleep(time.Minute)
		got := b.take()
		for i, l := range got {
			is.True(i == 0 || l.at.Sub(got[i-1].at) >= time.Second)
		}
		is.Equal(told(got), int64(20))
	})
}

func TestLogs_causes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		b := new(book)
		log := b.logger()
		for i := range 100 { // what a peer writes is no cause
			log.Warn("refused", "method", fmt.Sprint("m", i), "error", fmt.Errorf("e%d", i))
		}
		is.Equal(len(b.take()), 1)
		for range 3 {
			log.Error("refused") // another level is one
			log.Warn("else")
			log.Warn("refused", "method", logs.Known("a"))
			log.Warn("refused", "method", logs.Known("b"))
		}
		got := b.take()
		is.Equal(len(got), 4)
		is.Equal(got[2].attrs["method"], "a") // a string for the handler
		time.Sleep(time.Minute)
		is.Equal(len(b.take()), 5) // and each has its rest
	})
}

// TestLogs_manyCauses has more names than are counted apart.
func TestLogs_manyCauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		b := new(book)
		log := b.logger()
		for range 3 {
			for i := range 1000 {
				log.Warn("failed", "x", 1, "method", logs.Known(fmt.Sprint("m", i)))
			}
		}
		got := b.take()
		is.Equal(len(got), 257) // and one for all others
		time.Sleep(time.Minute)
		is.Equal(told(append(got, b.take()...)), int64(3000))
		for i := range 1000 { // room again, since the old ones are quiet
			log.Warn("failed", "method", logs.Known(fmt.Sprint("n", i)))
			log.Warn("failed", "method", logs.Known(fmt.Sprint("n", i)))
			time.Sleep(5 * time.Second)
		}
		is.Equal(len(b.take()), 2000)
	})
}

func TestLogs_disabled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		b := &book{level: slog.LevelWarn}
		log := b.logger()
		log.Debug("quiet", "error", angry{})
		log.Debug("quiet", "error", angry{})
		b.level = slog.LevelDebug
		log.Debug("quiet")
		got := b.take()
		is.Equal(len(got), 1)
		is.Equal(omitted(got[0]), int64(0)) // those were not counted
	})
}

type angry struct{}

func (angry) Error() string { panic("no text") }

type formatted struct{ error }

func (formatted) Format(w fmt.State, _ rune) { io.WriteString(w, strings.Repeat("f", 4000)) }

type marshalled struct{ error }

func (marshalled) MarshalJSON() ([]byte, error) {
	return []byte(`"` + strings.Repeat("j", 4000) + `"`), nil
}

type valuer struct{ v any }

func (v valuer) LogValue() slog.Value { return slog.AnyValue(v.v) }

// TestLogs_clipped writes long values of every kind through slog's own handlers.
func TestLogs_clipped(t *testing.T) {
	long := strings.Repeat("x", 900<<10)
	for name, v := range map[string]any{
		"string": long, "bytes": []byte(long), "error": errors.New(long), "wrapped": fmt.Errorf("a: %w", errors.New(long)),
		"stringer": bytes.NewBufferString(long), "struct": struct{ A, B string }{long, long}, "list": []string{long, long},
		"map": map[string]string{long: long}, "pointer": &struct{ A string }{long}, "panic": logs.Panic{Value: long},
		"panicking error": angry{}, "nil error": (*angry)(nil), "formatter": formatted{io.EOF}, "marshaler": marshalled{io.EOF},
		"valuer": valuer{long}, "valuer of valuers": valuer{valuer{errors.New(long)}}, "known": logs.Known(long),
		"group":   slog.GroupValue(slog.String("a", long), slog.Any("b", errors.New(long))),
		"control": strings.Repeat("\x00", 900<<10), "no text": strings.Repeat("\x80", 900<<10), "runes": strings.Repeat("日", 300<<10),
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			for _, make := range []func(io.Writer) slog.Handler{
				func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) },
				func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) },
			} {
				var out bytes.Buffer
				logs.New(func() *slog.Logger { return slog.New(make(&out)) }).Error("m", "v", v)
				is.True(out.Len() > 0)
				is.True(out.Len() < 3<<10) // zeroes are written as six bytes each
				if strings.Contains(name, "error") || name == "map" || name == "formatter" || name == "marshaler" {
					continue
				}
				is.True(strings.Contains(out.String(), "bytes cut")) // the mark
			}
		})
	}
}

func TestLogs_text(t *testing.T) {
	is := is.New(t)
	short := strings.Repeat("s", logs.MaxText)
	is.Equal(logs.Clip(short), short)
	got := logs.Clip("head " + strings.Repeat("-", 1000) + " the cause")
	is.True(strings.HasPrefix(got, "head --"))
	is.True(strings.HasSuffix(got, "- the cause"))
	is.True(strings.Contains(got, "-…[759 bytes cut]…-"))
	for i := range 8 { // at a rune, wherever it falls
		s := strings.Repeat("a", i) + strings.Repeat("日", 1000)
		got := logs.Clip(s)
		is.True(utf8.ValidString(got))
		is.True(len(got) <= logs.MaxText+len("…[1000000 bytes cut]…"))
	}

	b := new(book)
	log := b.logger()
	kept := fmt.Errorf("a: %w", io.EOF)
	log.Error("short", "error", kept, "none", nil, "n", 7, "d", time.Second, "own", logs.Own(strings.Repeat("o", 4000)), "stack", logs.Stack{})
	l := b.take()[0]
	is.Equal(l.attrs["error"], kept) // for handlers that look into errors
	is.Equal(l.attrs["none"], nil)
	is.Equal(l.attrs["n"], int64(7))
	is.Equal(l.attrs["d"], time.Second)
	is.Equal(len(l.attrs["own"].(string)), 4000)
	is.True(strings.Contains(l.attrs["stack"].(string), "TestLogs_text"))
}

// TestLogs_handlers are handlers that do what they like.
func TestLogs_handlers(t *testing.T) {
	t.Run("logs the same", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			b := new(book)
			log := b.logger()
			var no atomic.Bool
			b.then = func() {
				if !no.Load() {
					log.Error("again")
				}
			}
			log.Error("again")
			is.Equal(len(b.take()), 1)
			for range 5 {
				time.Sleep(2 * time.Second)
				synctest.Wait()
				is.Equal(len(b.take()), 1) // its own is told later, slowly
			}
			no.Store(true)
			time.Sleep(time.Minute)
			is.Equal(len(b.take()), 1)
			time.Sleep(time.Minute)
			is.Equal(len(b.take()), 0)
		})
	})
	t.Run("panics", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			b := new(book)
			log := b.logger()
			b.then = func() { panic("handler") }
			log.Error("lost")
			log.Error("lost")
			time.Sleep(time.Minute) // on the timer too
			is.Equal(len(b.take()), 2)
			logs.New(func() *slog.Logger { panic("pick") }).Error("lost")
		})
	})
	t.Run("blocks", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b, free := new(book), make(chan struct{})
			log := b.logger()
			b.then = func() { <-free }
			go log.Error("blocked")
			synctest.Wait()
			log.Error("blocked") // and others are not
			go log.Error("else")
			synctest.Wait()
			is.New(t).Equal(len(b.take()), 2)
			close(free)
			time.Sleep(time.Minute)
		})
	})
	t.Run("with attributes and groups", func(t *testing.T) {
		is := is.New(t)
		var out bytes.Buffer
		log := logs.New(func() *slog.Logger { return slog.New(slog.NewTextHandler(&out, nil)) })
		log.With("a", strings.Repeat("x", 4000)).WithGroup("g").Error("m", "b", 1)
		is.True(out.Len() < 1000)
		is.True(strings.Contains(out.String(), "g.b=1"))
		is.True(strings.Contains(out.String(), "bytes cut"))
		log.With("a", 1).Error("m") // counted with all others
		is.Equal(strings.Count(out.String(), "msg=m"), 1)
	})
}

func TestLogs_default(t *testing.T) {
	is := is.New(t)
	b, old := new(book), slog.Default()
	log := logs.New(func() *slog.Logger { return nil })
	slog.SetDefault(slog.New(b)) // later than the logger was made
	defer slog.SetDefault(old)
	log.Error("m")
	is.Equal(len(b.take()), 1)
}

func TestLogs_concurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		b := new(book)
		log := b.logger()
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				for range 500 {
					log.Error("m", "x", 1, "method", logs.Known(fmt.Sprint(i%4)))
					time.Sleep(10 * time.Millisecond)
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Minute)
		got := b.take()
		is.Equal(told(got), int64(10_000))
		is.True(len(got) <= 4*7) // five seconds of four causes, and the rest
	})
}
