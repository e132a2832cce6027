#!/bin/sh
# Makes the generated files of the tests' messages anew. Needs protoc.
set -eu
cd "$(dirname "$0")"
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
GOBIN=$bin go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
GOBIN=$bin go install github.com/planetscale/vtprotobuf/cmd/protoc-gen-go-vtproto@v0.6.0
PATH=$bin:$PATH
protoc -I internal/pb --go_out=internal/pb --go_opt=paths=source_relative sum.proto
protoc -I internal/vtpb --go_out=internal/vtpb --go_opt=paths=source_relative \
	--go-vtproto_out=internal/vtpb --go-vtproto_opt=paths=source_relative,features=marshal+unmarshal+size vtsum.proto
