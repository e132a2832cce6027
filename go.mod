module github.com/typedrpc/typedrpc

go 1.26.0

require (
	github.com/coder/websocket v1.8.15
	github.com/matryer/is v1.4.1
	golang.org/x/sync v0.24.0
)

ignore ./js/node_modules
