// Package lab has what the tests of several packages share and what goes through
// the public API: addresses in memory whose servers come and go, servers whose
// handlers can be watched, the table of transports and dialects. Tests inside
// package typedrpc cannot import it; see package testkit.
package lab
