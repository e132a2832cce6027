package link

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/matryer/is"
)

var reasons = map[string]struct{ reason, want string }{
	"none":                    {"", ""},
	"as long as it may be":    {strings.Repeat("x", 123), strings.Repeat("x", 123)},
	"longer":                  {strings.Repeat("x", 124), strings.Repeat("x", 123)},
	"at a character":          {strings.Repeat("é", 100), strings.Repeat("é", 61)},
	"within one of four":      {"xx" + strings.Repeat("🙂", 40), "xx" + strings.Repeat("🙂", 30)},
	"no UTF-8":                {"a\xffb", "a\uFFFDb"},
	"half a character":        {"日本"[:5], "日\uFFFD"},
	"no UTF-8, and long":      {strings.Repeat("x\xff", 100), strings.Repeat("x\uFFFD", 30) + "x"},
	"grows beyond the bound":  {strings.Repeat("x", 121) + "\xff", strings.Repeat("x", 121)},
	"broken behind the bound": {strings.Repeat("x", 200) + "\xff", strings.Repeat("x", 123)},
}

func TestClipReason(t *testing.T) {
	for name, tt := range reasons {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			got := clipReason(tt.reason)
			is.Equal(got, tt.want)
			is.True(utf8.ValidString(got) && len(got) <= 123)
		})
	}
}

// A reason arrives, whatever it is: over a WebSocket, either way, and in memory.
func TestTransport_reasonsOfAnyBytes(t *testing.T) {
	for name, tt := range reasons {
		t.Run(name, func(t *testing.T) {
			here, there := Pipe()
			client, server := sockets(t, DialOptions{})
			client2, server2 := sockets(t, DialOptions{})
			for _, ends := range [][2]Transport{{here, there}, {client, server}, {server2, client2}} {
				is := is.New(t)
				go ends[0].Close(4400, tt.reason)
				_, err := read(ends[1])
				var ce *CloseError
				is.True(errors.As(err, &ce))
				is.Equal(*ce, CloseError{Code: 4400, Reason: tt.want, Remote: true})
			}
		})
	}
}

// What others send need not be UTF-8, and is when it is shown.
func TestWS_foreignReason(t *testing.T) {
	is := is.New(t)
	client, server := sockets(t, DialOptions{})
	go server.(*ws).c.Close(4400, "a\xff\xfeb")
	_, err := read(client)
	var ce *CloseError
	is.True(errors.As(err, &ce))
	is.Equal(*ce, CloseError{Code: 4400, Reason: "a\uFFFDb", Remote: true})
}
