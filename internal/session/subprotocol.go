package session

// Subprotocols (PROTOCOL.md, head).
const (
	BinaryPrefix  = "typedrpc.v1." // and a codec's name
	HelloProtocol = "typedrpc.jsonrpc"
)

// PlainProtocols are names under which others speak plain JSON-RPC 2.0.
var PlainProtocols = []string{"jsonrpc", "jsonrpc2", "jsonrpc-2.0"}
