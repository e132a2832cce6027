// Package flow has limits, the sender's side of a window, budgets and backoff:
// arithmetic. The receiver's side, and how windows grow, is the engine's. It starts no goroutine, takes no lock (a budget is atomic), and knows no codes.
package flow
