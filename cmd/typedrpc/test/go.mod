// The tests of what typedrpc writes, in a module of their own: they need a validator of
// JSON Schema, which the command does not.
module github.com/typedrpc/typedrpc/cmd/typedrpc/test

go 1.26.0

require (
	github.com/matryer/is v1.4.1
	github.com/santhosh-tekuri/jsonschema/v6 v6.0.3
	github.com/typedrpc/typedrpc v0.0.0
)

require (
	github.com/coder/websocket v1.8.15 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/text v0.14.0 // indirect
)

replace github.com/typedrpc/typedrpc => ../../..

ignore ./node/node_modules
