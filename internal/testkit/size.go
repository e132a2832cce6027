package testkit

import (
	"os"
	"testing"
)

// Size is how much of something a test does: full with TYPEDRPC_FULL=1 in the
// environment, usual by default, and a tenth of usual with -short.
func Size(full, usual int) int {
	switch {
	case testing.Short():
		return max(usual/10, 1)
	case os.Getenv("TYPEDRPC_FULL") == "1":
		return full
	}
	return usual
}

// Crowd is Size, with at most raced under the race detector.
func Crowd(full, usual, raced int) int {
	if Race {
		return Size(min(full, raced), min(usual, raced))
	}
	return Size(full, usual)
}
