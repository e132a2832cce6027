package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// bar shows the progress of a transfer: on a terminal in one line that is
// written again and again, elsewhere in a line for every ten percent.
type bar struct {
	w        io.Writer
	label    string
	terminal bool
	began    time.Time
	shown    time.Time // when the terminal's line was written
	tenths   int64     // that were shown elsewhere
	from     int64     // bytes that were there before
}

func newBar(w io.Writer, label string) *bar {
	b := &bar{w: w, label: label, began: time.Now(), from: -1}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		b.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return b
}

// progress is the Progress of a SendOptions or ReceiveOptions.
func (b *bar) progress(done, total int64) {
	now := time.Now()
	if b.from < 0 {
		b.from = done
	}
	switch {
	case b.terminal:
		if now.Sub(b.shown) < 50*time.Millisecond && done != total {
			return
		}
		b.shown = now
		fmt.Fprintf(b.w, "\r\x1b[K%s %s", b.label, b.text(now, done, total))
	case total > 0 && done*10/total > b.tenths:
		b.tenths = done * 10 / total
		fmt.Fprintf(b.w, "%s %s\n", b.label, b.text(now, done, total))
	}
}

// text is what there is to say.
func (b *bar) text(now time.Time, done, total int64) string {
	const width = 20
	speed := size(int64(float64(done-max(b.from, 0)) / max(now.Sub(b.began).Seconds(), 1e-3)))
	if total <= 0 {
		return fmt.Sprintf("%s, %s/s", size(done), speed)
	}
	full := int(done * width / total)
	return fmt.Sprintf("[%s%s] %3d %% of %s, %s/s", strings.Repeat("#", full), strings.Repeat(".", width-full),
		done*100/total, size(total), speed)
}

// end leaves the terminal's line as it is.
func (b *bar) end() {
	if !b.shown.IsZero() {
		fmt.Fprintln(b.w)
	}
}

// size writes a number of bytes for people.
func size(n int64) string {
	switch {
	case n < 1e3:
		return fmt.Sprintf("%d B", n)
	case n < 1e6:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	case n < 1e9:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1f GB", float64(n)/1e9)
}
