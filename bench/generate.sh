#!/bin/sh
# Makes the generated files of internal/pb and internal/wire anew. Needs protoc.
set -eu
cd "$(dirname "$0")"
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
GOBIN=$bin go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
GOBIN=$bin go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
GOBIN=$bin go install connectrpc.com/connect/cmd/protoc-gen-connect-go@v1.21.1
GOBIN=$bin go install storj.io/drpc/cmd/protoc-gen-go-drpc@v1.0.0
GOBIN=$bin go install github.com/containerd/ttrpc/cmd/protoc-gen-go-ttrpc@v1.2.10
GOBIN=$bin go install github.com/tinylib/msgp@v1.6.5
PATH=$bin:$PATH
protoc -I internal/pb \
	--go_out=internal/pb --go_opt=paths=source_relative \
	--go-grpc_out=internal/pb --go-grpc_opt=paths=source_relative \
	--connect-go_out=internal/pb --connect-go_opt=paths=source_relative \
	--go-drpc_out=internal/pb --go-drpc_opt=paths=source_relative \
	--go-ttrpc_out=internal/pb --go-ttrpc_opt=paths=source_relative,prefix=TTRPC \
	bench.proto
go generate ./internal/msg ./internal/fast
