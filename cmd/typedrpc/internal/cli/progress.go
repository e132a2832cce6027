package cli

import (
	"fmt"
	"math"
	"time"

	"github.com/dustin/go-humanize"
)

// progress tells how far a transfer is, where that takes long: on a terminal on one line,
// elsewhere ten times, or every ten seconds where nobody knows how large it is.
type progress struct {
	env         *Env
	quiet       bool
	began       time.Time
	first, done int64
	shown       time.Time
	told        int64 // tenths
	line        bool  // the terminal's has no end yet
}

func (env *Env) newProgress(quiet bool) *progress {
	return &progress{env: env, quiet: quiet, first: -1}
}

// What a transfer takes before anything is told, and the time between what is.
const (
	progressFirst    = time.Second
	progressTerminal = time.Second / 10
	progressUnknown  = 10 * time.Second
)

// tell is the Progress of a transfer.
func (p *progress) tell(done, total int64) {
	now := time.Now()
	if p.first < 0 {
		p.first, p.began, p.shown = done, now, now
		p.told = tenths(done, total)
	}
	p.done = done
	since := now.Sub(p.shown)
	switch {
	case p.quiet || now.Sub(p.began) < progressFirst:
		return
	case p.env.errIsTerminal:
		if since < progressTerminal && done != total {
			return
		}
	case total > 0:
		if tenths(done, total) == p.told {
			return
		}
	case since < progressUnknown:
		return
	}
	p.shown, p.told = now, tenths(done, total)
	text := p.text(now, done, total)
	if p.env.errIsTerminal {
		p.line = true
		fmt.Fprintf(p.env.Err, "\r%s\x1b[K", text)
		return
	}
	fmt.Fprintln(p.env.Err, text)
}

func tenths(done, total int64) int64 {
	if total <= 0 {
		return 0
	}
	return int64(float64(done) / float64(total) * 10)
}

// text is what there is to say.
func (p *progress) text(now time.Time, done, total int64) string {
	speed := float64(done-p.first) / max(now.Sub(p.began).Seconds(), 1e-3)
	came, rate := humanize.Bytes(uint64(done)), humanize.Bytes(uint64(speed))+"/s"
	if total <= 0 {
		return came + "  " + rate
	}
	text := fmt.Sprintf("%3.0f %%  %s of %s  %s", math.Floor(float64(done)/float64(total)*100), came, humanize.Bytes(uint64(total)), rate)
	if left := float64(total-done) / speed; left >= 1 && left < 1e6 {
		text += fmt.Sprintf("  %v left", time.Duration(left)*time.Second)
	}
	return text
}

// end leaves the terminal's line as it is.
func (p *progress) end() {
	if p.line {
		p.line = false
		fmt.Fprintln(p.env.Err)
	}
}
