//go:build !race

package testkit

// Race says that the race detector slows everything down.
const Race = false
