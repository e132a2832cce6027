// The benchmarks of what "typedrpc json" writes beside others, in a module of their own
// because of those.
module github.com/typedrpc/typedrpc/cmd/typedrpc/bench

go 1.26.0

require (
	github.com/go-json-experiment/json v1.27.2
	github.com/goccy/go-json v0.12.0
	github.com/google/pprof v0.0.0-20261105003125-4bf881d7fb0b
	github.com/mailru/easyjson v0.9.2
	github.com/tinylib/msgp v1.6.5
	github.com/typedrpc/typedrpc v0.0.0
	github.com/typedrpc/typedrpc/codec/msgp v0.0.0-00010101000000-000000000000
)

require (
	github.com/coder/websocket v1.8.15 // indirect
	github.com/josharian/intern v1.0.0 // indirect
	github.com/matryer/is v1.4.1 // indirect
	github.com/philhofer/fwd v1.2.0 // indirect
	golang.org/x/sync v0.24.0 // indirect
)

replace (
	github.com/typedrpc/typedrpc => ../../..
	github.com/typedrpc/typedrpc/codec/msgp => ../../../codec/msgp
)
