package session

// Close codes: what they mean is in PROTOCOL.md section 8, after which of them a
// session goes on in Session.outlives, and what a dialled client does then in
// package client (verdict.go).
const (
	CloseDone       = 1000
	CloseGoingAway  = 1001
	CloseTooBig     = 1009
	CloseRestart    = 1012
	CloseOverload   = 1013
	CloseProtocol   = 4400
	CloseUnauthed   = 4401
	CloseForbidden  = 4403
	CloseTimeout    = 4408
	CloseSuperseded = 4409
	CloseBudget     = 4413
	CloseFlood      = 4429
)
