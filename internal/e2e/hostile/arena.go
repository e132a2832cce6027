package main

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// arena is where the attackers of one attack are: what they know of the server,
// and what they note for the table.
type arena struct {
	addr string
	full bool
	ctx  context.Context // ends when the time for the attack is over
	stop context.CancelFunc
	end  time.Time

	mu    sync.Mutex
	notes map[string]int
	held  []net.Conn // kept open until the process ends
}

func newArena(addr string, full bool, limit time.Duration) *arena {
	a := &arena{addr: addr, full: full, end: time.Now().Add(limit), notes: map[string]int{}}
	a.ctx, a.stop = context.WithDeadline(context.Background(), a.end)
	return a
}

// size is how much of something there is.
func (a *arena) size(full, small int) int {
	if a.full {
		return full
	}
	return small
}

// over reports that the time for the attack is.
func (a *arena) over() bool { return a.ctx.Err() != nil }

// note counts something for the table.
func (a *arena) note(what string, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.notes[what] += n
}

func (a *arena) told() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(a.notes)) {
		parts = append(parts, fmt.Sprint(a.notes[what], " ", what))
	}
	return strings.Join(parts, ", ")
}

// crowd runs fn for each of n attackers, at most 100 at once. Their errors are
// counted and no more: a server defends itself.
func (a *arena) crowd(n int, fn func(i int) error) {
	var wg sync.WaitGroup
	places := make(chan struct{}, 100)
	for i := range n {
		if a.over() {
			break
		}
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			switch err := fn(i); {
			case err == nil:
				a.note("attackers got through", 1)
			case !a.over():
				a.note("were stopped", 1)
			}
		})
	}
	wg.Wait()
}

// again runs fn for each of n attackers at once, and when it has ended again, for
// a while: who is thrown out comes back.
func (a *arena) again(n int, fn func(i int) error) {
	var wg sync.WaitGroup
	stop := time.Now().Add(time.Duration(a.size(3000, 300)) * time.Millisecond)
	for i := range n {
		wg.Go(func() {
			for !a.over() && time.Now().Before(stop) {
				if err := fn(i); err != nil && !a.over() {
					a.note("were stopped", 1)
				}
			}
		})
	}
	wg.Wait()
}

// dial connects. What an attacker does not read stays with the server, but for
// what the kernel takes, which is a hundred kilobytes as long as nothing is read.
func (a *arena) dial() (net.Conn, error) {
	c, err := net.DialTimeout("tcp", a.addr, time.Until(a.end))
	if err != nil {
		return nil, err
	}
	c.SetDeadline(a.end)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held = append(a.held, c)
	return c, nil
}
