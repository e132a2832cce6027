package flow

import (
	"cmp"
	"fmt"
	"math"
	"time"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// Limits bound what a peer can make this side hold or do. They are the API's
// Limits, whose comment says what each is, with the same fields in the same
// order.
type Limits struct {
	MaxMessage       int
	MaxCalls         int
	MaxBuffered      int
	MaxUnacked       int
	Window           int
	MaxDepth         int
	HandshakeTimeout time.Duration
	KeepAlive        time.Duration
	Grace            time.Duration // negative: a session ends with its link
	WriteTimeout     time.Duration
	MinRate          int // negative: any will do
}

// MaxMessageCeiling is what a binary frame's body holds, less room for the
// rest of the frame.
const MaxMessageCeiling = wire.MaxBody - 64<<10 + 1

// WithDefaults fills in the defaults and refuses nonsense.
func (l Limits) WithDefaults() (Limits, error) {
	ints := []struct {
		name      string
		v         *int
		def, most int
	}{
		{"MaxMessage", &l.MaxMessage, 4 << 20, MaxMessageCeiling},
		{"MaxCalls", &l.MaxCalls, 1024, 1 << 20},
		{"MaxBuffered", &l.MaxBuffered, 8 << 20, math.MaxInt32},
		{"MaxUnacked", &l.MaxUnacked, 8 << 20, math.MaxInt32},
		{"Window", &l.Window, 64 << 10, 1 << 30},
		{"MaxDepth", &l.MaxDepth, wire.MaxDepth, 10_000},
	}
	for _, f := range ints {
		switch {
		case *f.v < 0 || *f.v > f.most:
			return l, fmt.Errorf("typedrpc: Limits.%s is %d, it must be between 0 (the default, %d) and %d", f.name, *f.v, f.def, f.most)
		case *f.v == 0:
			*f.v = f.def
		}
	}
	durations := []struct {
		name string
		v    *time.Duration
		def  time.Duration
	}{
		{"HandshakeTimeout", &l.HandshakeTimeout, 10 * time.Second},
		{"KeepAlive", &l.KeepAlive, 20 * time.Second},
		{"WriteTimeout", &l.WriteTimeout, 10 * time.Second},
	}
	switch {
	case l.Grace == 0:
		l.Grace = 30 * time.Second
	case l.Grace < 0:
		l.Grace = -1
	}
	switch {
	case l.MinRate == 0:
		l.MinRate = 1 << 10
	case l.MinRate < 0:
		l.MinRate = -1
	}
	for _, f := range durations {
		switch {
		case *f.v < 0:
			return l, fmt.Errorf("typedrpc: Limits.%s is negative", f.name)
		case *f.v == 0:
			*f.v = f.def
		}
	}
	return l, nil
}

// Announced is what the handshake says of l.
func (l Limits) Announced() wire.Limits {
	return wire.Limits{
		Message: uint64(l.MaxMessage), Calls: uint64(l.MaxCalls), Window: uint64(l.Window),
		Budget: uint64(l.MaxBuffered), Depth: uint64(l.MaxDepth),
	}
}

// StreamPlaces is how many of so many places for calls streams may have: all but
// an eighth, rounded up, and one at least. Both sides keep to it.
func StreamPlaces(calls uint64) uint64 {
	eighth := calls / 8
	if calls%8 > 0 {
		eighth++
	}
	return max(1, calls-eighth)
}

// RateWindow is the time over which what is half received must make MinRate.
const RateWindow = 10 * time.Second

// Least is how many bytes must come in d.
func (l *Limits) Least(d time.Duration) float64 {
	return float64(max(l.MinRate, 0)) * d.Seconds()
}

// AnnouncedBy is what holds for a peer that announced l: what it left out has
// the protocol's default.
func AnnouncedBy(l wire.Limits) wire.Limits {
	def, _ := Limits{}.WithDefaults()
	d := def.Announced()
	return wire.Limits{
		Message: cmp.Or(l.Message, d.Message), Calls: cmp.Or(l.Calls, d.Calls), Window: cmp.Or(l.Window, d.Window),
		Budget: cmp.Or(l.Budget, d.Budget), Depth: cmp.Or(l.Depth, d.Depth),
	}
}

// PlainPeer is what is assumed of a peer that announces nothing: as much as
// we grant ourselves, and no credit for notifications.
func (l Limits) PlainPeer() wire.Limits {
	a := l.Announced()
	a.Window = 0
	return a
}

// MaxTimeLeft bounds a caller's deadline, in milliseconds: a century.
const MaxTimeLeft = 100 * 365 * 24 * 3600 * 1000
