module github.com/typedrpc/typedrpc/codec/msgp

go 1.26.0

require (
	github.com/matryer/is v1.4.1
	github.com/tinylib/msgp v1.6.5
	github.com/typedrpc/typedrpc v0.0.0
)

require (
	github.com/coder/websocket v1.8.15 // indirect
	github.com/philhofer/fwd v1.2.0 // indirect
	golang.org/x/sync v0.24.0 // indirect
)

replace github.com/typedrpc/typedrpc => ../..
