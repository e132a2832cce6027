package flow

import "time"

// A flood closes the connection: more refused calls and frames for calls that
// never were than an honest peer can produce by accident.
const (
	FloodBurst = 2048 // offences at once …
	FloodRate  = 1000 // … and per second
)

// Offences is a leaky bucket of a peer's offences.
type Offences struct {
	level float64
	at    time.Time
}

// Add counts one offence and reports a flood.
func (o *Offences) Add(now time.Time) bool {
	o.level = max(0, o.level-now.Sub(o.at).Seconds()*FloodRate) + 1
	o.at = now
	return o.level > FloodBurst
}
