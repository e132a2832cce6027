// Package replay has the answers that keyed calls are given again, and what a
// caller's key remembers of where it was used. It sees no frames, and of handlers
// an interface with four methods.
package replay
