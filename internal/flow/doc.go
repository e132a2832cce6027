// Package flow has limits, windows, credit, budgets and backoff: arithmetic. It
// starts no goroutine, takes no lock (a budget is atomic), and knows no codes.
package flow
