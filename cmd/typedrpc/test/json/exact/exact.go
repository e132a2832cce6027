// Package exact has code that refuses what encoding/json lets pass.
package exact

import (
	"time"

	"github.com/typedrpc/typedrpc"
)

// Inner is in Message.
type Inner struct {
	N int `json:"n"`
}

// Message has a bit of everything.
type Message struct {
	Text   string           `json:"text"`
	Quoted string           `json:"quoted,string,omitempty"`
	Inner  Inner            `json:"inner"`
	Map    map[string]Inner `json:"map"`
	ByInt  map[int]string   `json:"byInt"`
	Time   time.Time        `json:"time"`
	List   []string         `json:"list"`
	Raw    []byte           `json:"raw"`
}

// Put takes a message.
var Put = typedrpc.NewMethod[Message, int]("put")
