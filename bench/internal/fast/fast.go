// Package fast has the messages again, whose JSON is written and read by what "typedrpc json"
// has made of them: encoding/json's reflection is not on their path.
package fast

import (
	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/bench/internal/msg"
)

//go:generate go run -C ../../../cmd/typedrpc . json -C ../../bench/internal/fast

// Request and Reply are msg's.
type (
	Request msg.Request
	Reply   msg.Reply
)

// Add is the method that is measured.
var Add = typedrpc.NewMethod[Request, Reply]("add")
