package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// program is what is run, and how.
type program struct {
	path     string // of the executable that is server and attackers
	budget   int64
	full     bool
	profiles string // a directory; "": none are made
	stacks   bool   // say where the goroutines are of a server that is not as it was
}

// result is what one attack cost.
type result struct {
	attack  attack
	idle    int64 // resident before
	peak    int64 // resident at most
	killed  bool
	idleP99 time.Duration
	honest  report
	cpu     time.Duration
	base    stats // before anybody came
	worst   stats // while the attackers hold what they have
	after   stats // when they have left
	back    time.Duration
	notes   []string
	beside  error // of what the attack has in this process
	broken  error // the measurement
	stacks  string
}

const (
	hold       = 2 * time.Second // how long attackers stay when they have done their worst
	holdSmall  = 150 * time.Millisecond
	backWithin = 5 * time.Second
)

// measure makes one attack.
func (p program) measure(ctx context.Context, a attack) (r result) {
	r.attack = a
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	srv, err := p.start(ctx, append([]string{"server", fmt.Sprint("-budget=", p.budget)}, a.server.args(p.full)...)...)
	if err != nil {
		r.broken = err
		return r
	}
	defer srv.kill()
	addr, err := srv.line(10 * time.Second)
	if err != nil {
		r.broken = err
		return r
	}
	end := srv.guard(ctx)
	r.broken = p.play(ctx, a, srv, addr, &r)
	r.peak, r.killed = end()
	return r
}

// play is an attack from the honest client's coming to its going.
func (p program) play(ctx context.Context, a attack, srv *process, addr string, r *result) error {
	h, err := p.honest(ctx, addr, a.server.auth)
	if err != nil {
		return err
	}
	p.pause(ctx, 20*time.Millisecond, 200*time.Millisecond)
	h.end() // so that what is made once is there
	r.back = -1
	quiet := stats{Heap: 64 << 20, Now: 4 - slackGoroutines}
	if r.base, _, err = srv.settled(ctx, quiet, time.Now().Add(time.Second)); err != nil {
		return err
	}
	if h, err = p.honest(ctx, addr, a.server.auth); err != nil {
		return err
	}
	defer h.kill()
	p.pause(ctx, 300*time.Millisecond, time.Second)
	idle, err := h.report()
	if err == nil {
		_, err = h.ask("forget")
	}
	if err != nil {
		return err
	}
	r.idleP99 = idle.P99
	r.idle, _ = srv.memory()
	cpu := srv.cpu()
	left, err := p.assault(ctx, a, srv, addr, h, r)
	r.cpu = srv.cpu() - cpu
	p.pause(ctx, 60*time.Millisecond, time.Second)
	if err == nil {
		r.honest, err = h.report()
	}
	h.end()
	if err != nil || a.ends {
		return err
	}
	deadline := left.Add(max(backWithin, a.server.grace+backWithin/2))
	var at time.Time
	if r.after, at, err = srv.settled(ctx, r.base, deadline); err == nil && !at.IsZero() {
		r.back = at.Sub(left)
	} else if err == nil && p.stacks {
		r.stacks, err = srv.ask("stacks")
	}
	return err
}

// assault runs the attackers, and returns when they were killed.
func (p program) assault(ctx context.Context, a attack, srv *process, addr string, h *process, r *result) (left time.Time, err error) {
	if p.profiles != "" {
		end, err := srv.profiled(filepath.Join(p.profiles, a.name))
		if err != nil {
			return left, err
		}
		defer func() { err = errors.Join(err, end()) }()
	}
	enemy, err := p.startLast(ctx, "attack", "-name="+a.name, "-addr="+addr, fmt.Sprint("-full=", p.full))
	if err != nil {
		return left, err
	}
	defer enemy.kill()
	beside := make(chan error, 1)
	if a.beside != nil {
		go func() { beside <- a.beside(ctx, addr, p.full) }()
	}
	word, err := enemy.line(time.Minute)
	if err != nil {
		return left, fmt.Errorf("the attackers: %w", err)
	}
	if told, ok := strings.CutPrefix(word, "done "); ok {
		r.notes = append(r.notes, told)
	} else {
		r.beside = errors.New(word)
	}
	p.pause(ctx, holdSmall, hold)
	if a.ends {
		if _, err := h.ask("rest"); err != nil { // what a Shutdown cuts off is no error
			return left, err
		}
	}
	if a.after != nil {
		r.beside = errors.Join(r.beside, a.after(srv))
	}
	if a.beside != nil {
		r.beside = errors.Join(r.beside, <-beside)
	}
	r.worst, err = srv.stats()
	return time.Now(), err
}

// profiled begins a server's profile. end has it written.
func (x *process) profiled(path string) (end func() error, _ error) {
	os.Remove(path + ".cpu")
	ask := func() error {
		_, err := x.ask("profile " + path)
		return err
	}
	return ask, ask()
}

func (p program) pause(ctx context.Context, small, full time.Duration) {
	d := small
	if p.full {
		d = full
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// What a server may have more than before: what it keeps to use again, and what
// Go's runtime never gives back of goroutines that there were.
const (
	slackHeap       = 8 << 20
	slackGoroutines = 8
	slackGone       = 600
)

// mostHeap is what may be in use afterwards.
func (s stats) mostHeap(base stats) uint64 {
	return base.Heap + slackHeap + uint64(s.Most)*slackGone
}

// like reports whether a server is again as it was.
func (s stats) like(base stats) bool {
	return s.Heap <= s.mostHeap(base) && s.Now <= base.Now+slackGoroutines && s.Ledger == 0
}

// settled asks until the server is as it was, or until the deadline. at is zero if
// it is not.
func (x *process) settled(ctx context.Context, base stats, deadline time.Time) (s stats, at time.Time, err error) {
	for {
		if s, err = x.stats(); err != nil {
			return s, at, err
		}
		switch now := time.Now(); {
		case s.like(base):
			return s, now, nil
		case now.After(deadline):
			return s, at, nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return s, at, ctx.Err()
		}
	}
}
