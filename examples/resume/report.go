package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// report shows the books: a line for each second, on a terminal always the same
// one, and a summary.
type report struct {
	*books
	w              io.Writer
	terminal       bool
	lossy          bool
	proxy          *typedrpctest.Proxy
	began          time.Time
	resumed, begun atomic.Int64 // times that a session went on, that one began
	shown          time.Time
	answered       int64 // when shown
}

func newReport(b *books, p *typedrpctest.Proxy, lossy bool, w io.Writer) *report {
	r := &report{books: b, w: w, proxy: p, lossy: lossy, began: time.Now()}
	r.shown = r.began
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		r.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return r
}

// state is the client's OnState.
func (r *report) state(s typedrpc.StateChange) {
	switch {
	case s.State != typedrpc.StateConnected:
	case s.Resumed:
		r.resumed.Add(1)
	default:
		r.begun.Add(1)
	}
}

// watch shows a line every now and then until the work has ended.
func (r *report) watch(worked <-chan error, every time.Duration) error {
	fmt.Fprintln(r.w, "   time       sent   received  gaps  duplicates   cuts  resumed   calls/s  longest pause")
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			r.line()
		case err := <-worked:
			r.line()
			if r.terminal {
				fmt.Fprintln(r.w)
			}
			return err
		}
	}
}

func (r *report) line() {
	var all tally
	for _, t := range []tally{r.up.tally(), r.down.tally(), r.notes.tally(), r.calls.tally()} {
		all.sent += t.sent
		all.received += t.received
		all.gaps += t.gaps
		all.duplicates += t.duplicates
		all.pause = max(all.pause, t.pause)
	}
	now, answered := time.Now(), r.calls.tally().received
	before, after := "", "\n"
	if r.terminal {
		before, after = "\r\x1b[K", ""
	}
	fmt.Fprintf(r.w, "%s%5.1f s %10d %10d %5d %11d %6d %8d %9.0f %11.0f ms%s", before,
		now.Sub(r.began).Seconds(), all.sent, all.received, all.gaps, all.duplicates,
		r.proxy.Stats().Cuts, r.resumed.Load(), float64(answered-r.answered)/now.Sub(r.shown).Seconds(),
		float64(all.pause)/1e6, after)
	r.shown, r.answered = now, answered
}

var errLost = errors.New("numbers are missing or came twice, and nobody was told")

// summary is for the end, when nothing spans any more. Its error says that a
// promise was broken.
func (r *report) summary() error {
	fmt.Fprintf(r.w, "\n%-15s %10s %10s %6s %11s %9s %11s\n", "", "sent", "received", "gaps", "duplicates", "told lost", "sessions")
	var lost, told int64
	row := func(name string, t tally, spans string) {
		fmt.Fprintf(r.w, "%-15s %10d %10d %6d %11d %9d %11s\n", name, t.sent, t.received, t.gaps, t.duplicates, t.told, spans)
		lost += t.gaps + t.duplicates
		told += t.told
	}
	for _, f := range []struct {
		name string
		flow *flow
	}{{"numbers up", &r.up}, {"numbers down", &r.down}, {"notifications", &r.notes}} {
		t := f.flow.ended()
		row(f.name, t, fmt.Sprint(t.spans))
	}
	calls := r.calls.ended()
	late := r.calls.late
	row("calls", calls, "")

	fmt.Fprintf(r.w, "\nThe link was cut %d times; the session went on %d times, and began anew %d times.\n",
		r.proxy.Stats().Cuts, r.resumed.Load(), r.begun.Load()-1)
	fmt.Fprintf(r.w, "Of %d calls %d were answered. Of the others the caller was told: %d were not sent,\n"+
		"%d may have run; %d of them because their time was over.\n", calls.sent, calls.received,
		r.calls.outcomes[typedrpc.NotSent], r.calls.outcomes[typedrpc.MayHaveRun]+r.calls.outcomes[typedrpc.Answered], late)
	if lost > 0 || !r.lossy && (told > late || r.begun.Load() > 1) {
		return errLost
	}
	return nil
}
