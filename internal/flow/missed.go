package flow

// MissedUnknown is -1 on the wire: the largest integer that JSON's readers all
// agree on (PROTOCOL.md section 1.2).
const MissedUnknown = 1<<53 - 1

// Missed adds up numbers of lost messages.
func Missed(a, b uint64) uint64 {
	if a >= MissedUnknown || b >= MissedUnknown {
		return MissedUnknown
	}
	return min(a+b, MissedUnknown-1)
}
