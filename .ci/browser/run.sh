#!/bin/sh
# Tests the examples' pages, the inspector's, and the built client, in Chromium. Needs Go, Node and npm; Chromium is installed if it is missing. SCREENSHOT=path says
# where the calculator's picture goes, and others beside it.
set -eu
cd "$(dirname "$0")"

if [ ! -x "${CHROMIUM:=/usr/bin/chromium}" ]; then
	sudo=
	[ "$(id -u)" -eq 0 ] || sudo=sudo
	$sudo apt-get update -q
	$sudo apt-get install -y -q --no-install-recommends chromium
fi
export CHROMIUM

# playwright-core brings no browser of its own.
npm ci --no-audit --no-fund --loglevel=error

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd ../.. && go build -o "$work/" ./examples/calculator ./examples/chat ./examples/dashboard ./examples/jsonrpc ./examples/wasm ./internal/e2e/jsserver)
(cd ../../inspector && go build -o "$work/inspected" ./internal/demo)
BINARIES="$work" node test.mjs
