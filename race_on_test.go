//go:build race

package typedrpc

// underRace says that the race detector slows everything down.
const underRace = true
