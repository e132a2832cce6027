package client

import (
	"time"

	"github.com/typedrpc/typedrpc/internal/status"
)

// State is what a connection is doing.
type State uint8

// The states.
const (
	Connecting State = iota
	Connected
	Waiting
	Closed
)

// Change is what OnState is told.
type Change struct {
	State   State
	Err     error
	Next    time.Time
	Attempt int
	URL     string
	Resumed bool
	Since   time.Time
}

// errorOf is e, and a nil that is one.
func errorOf(e *status.Error) error {
	if e == nil {
		return nil
	}
	return e
}

// State is what the connection is doing.
func (d *Client) State() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state.State
}

// lacks says what the connection waits for while it has no link.
func (d *Client) lacks() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state.State == Waiting {
		return "the next attempt to connect, in " + time.Until(d.state.Next).Round(time.Millisecond).String()
	}
	return "an answer of " + d.state.URL
}

// change publishes a state.
func (d *Client) change(s Change) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changeLocked(s)
}

func (d *Client) changeLocked(s Change) {
	switch {
	case s.State == Connected:
		d.lost = time.Time{}
	case d.state.State == Connected:
		d.lost = time.Now()
	}
	s.Since = d.lost
	d.state = s
	if d.o.OnState != nil {
		d.changes.Tell(d.o.OnState, s)
	}
}
