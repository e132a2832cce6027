// Package flow has limits, the sender's side of a window, backoff, and what memory
// may be held: the ledger of a server with an account for each connection, and the
// budget of one connection's subscriptions. The receiver's side of windows, and how
// they grow, is the engine's. It knows no codes, waits for nothing, and starts a
// goroutine only to end whoever holds the most of a ledger.
package flow
