module github.com/typedrpc/typedrpc/inspector

go 1.26.0

require (
	github.com/matryer/is v1.4.1
	github.com/typedrpc/typedrpc v0.0.0
)

require (
	github.com/coder/websocket v1.8.15 // indirect
	golang.org/x/sync v0.24.0 // indirect
)

replace github.com/typedrpc/typedrpc => ..
