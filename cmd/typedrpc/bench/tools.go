//go:build tools

package bench

import _ "github.com/mailru/easyjson/easyjson" // which writes easy/messages_easyjson.go
