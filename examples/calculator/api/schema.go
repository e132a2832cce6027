package api

import _ "embed"

// Schema is what api.go declares as an OpenRPC document, for whoever asks the server.
//
//go:embed api.json
var Schema []byte
