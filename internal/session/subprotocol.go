package session

import (
	"fmt"
	"slices"
	"strings"
)

// Subprotocols (PROTOCOL.md, head).
const (
	BinaryPrefix  = "typedrpc.v1." // and a codec's name
	HelloProtocol = "typedrpc.jsonrpc"
)

// PlainProtocols are names under which others speak plain JSON-RPC 2.0.
var PlainProtocols = []string{"jsonrpc", "jsonrpc2", "jsonrpc-2.0"}

// Token reports whether a subprotocol may have such a name (RFC 6455 section 4.1, RFC 9110
// section 5.6.2).
func Token(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune("()<>@,;:\\\"/[]?={}", r)
	})
}

// CheckOwn refuses what cannot be a subprotocol of a program's own.
func CheckOwn(name string) error {
	switch {
	case !Token(name):
		return fmt.Errorf("%q is no name of a subprotocol", name)
	case strings.HasPrefix(name, "typedrpc."), slices.Contains(PlainProtocols, name):
		return fmt.Errorf("%q is a subprotocol of this package", name)
	}
	return nil
}
